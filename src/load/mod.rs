//! A folder as a model, and a model as a folder: where `model` and `checkpoint` meet.
//!
//! The folder is the released layout (`safe_ckpt/`, optional `clap_ckpt/`, `llm/`); what we write adds
//! `af2.yaml` with the few sizes that tensors do not tell.

pub mod convert;
mod identity;
mod instruct;
mod language_model;
mod layout;
mod places;
mod report;
mod sound_space;
mod text_encoder;
mod text_space;

pub(crate) use instruct::ChatModel;
pub use language_model::language_model;
pub(crate) use report::compare;
pub use report::{Report, Rules};
pub use sound_space::SoundSpace;
pub use text_encoder::TextEncoder;
pub use text_space::TextSpace;

use crate::checkpoint::{
    self, canonical, hugging_face, items, names, Archive, Parts, ReleasedFolder, TorchFile,
};
use crate::cores;
use crate::error::{Error, Result};
use crate::model::flamingo::{Config, Flamingo};
use crate::model::params::{held, Held, Lookup, Origin, Params, Store};
use crate::model::parts::{Part, Precision};
use crate::model::{audio, audio_transformer, cross_attention, lm};
use crate::settings::Settings;
use crate::text::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};
use tch::{no_grad, Device, Kind, Tensor};

/// The file of sizes that we write beside a checkpoint.
pub(crate) const SETTINGS: &str = "af2.yaml";
/// Bytes of a `safe_ckpt` chunk.
pub(crate) const CHUNK_BYTES: usize = 1 << 30;

/// A model with everything that is needed to ask it something.
///
/// ```
/// use af2::{model::parts::Part, prelude::*};
/// # fn main() -> Result<()> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/F_tiny");
/// let loaded = open(folder.as_ref(), &OpenOptions::new(Device::Cpu))?;
///
/// // What may be worth knowing of the files: an end of text that they name twice, heads that do not show in the tensors, …
/// loaded.notes.iter().for_each(|note| println!("note: {note}"));
/// let layers = loaded.model.config.lm.decoder().num_hidden_layers;
/// println!("{} parameters, {layers} layers in the LM", loaded.params.count());
///
/// // Every tensor by its PyTorch name, such as the gates of the cross-attention.
/// for (name, entry) in loaded.params.iter().filter(|(name, _)| name.ends_with("attn_gate")) {
///     println!("{name} {:?} {:?}", entry.tensor.size(), entry.tensor.kind());
/// }
///
/// // Nothing trains until it is told to.
/// loaded.params.train_only(|name| Part::of(name) == Part::CrossAttention);
/// # assert!(!loaded.params.trainable().is_empty() && loaded.params.trainable().len() < loaded.params.iter().count());
/// # assert!(loaded.params.iter().any(|(name, _)| name.ends_with("attn_gate")));
/// # Ok(())
/// # }
/// ```
pub struct Loaded {
    /// The model on its device.
    pub model: Flamingo,
    /// All its tensors by name.
    pub params: Params,
    /// The LM's, with the four added tokens.
    pub tokenizer: Tokenizer,
    /// Most windows of 10 s that it should be given.
    pub max_windows: usize,
    /// The LM's folder, whose tokenizer files go with every copy.
    pub llm: PathBuf,
    /// Where the model lies.
    pub device: Device,
    /// How the files and the model fit.
    pub report: Report,
    /// The weights' own file where it is one of `torch.save`, with the optimizer's state that it may hold.
    pub torch: Option<TorchFile>,
    /// Things a user may want to know, one line each.
    pub notes: Vec<String>,
}

impl Loaded {
    /// Runs `f`, a forward pass on this model, in a precision.
    pub fn compute<T>(&self, precision: Precision, f: impl FnOnce() -> T) -> Result<T> {
        precision.compute(self.device, f)
    }

    /// Makes the model ready to be asked in a precision, and for nothing else: under `amp_bf16` the matrices that autocast would
    /// cast at every use, for each token of an answer again, are held in bf16. The answers are the same.
    ///
    /// Embeddings stay as they are unless they are exactly bf16, as a published LM's: not only products read them. A model that is
    /// opened with [`Options::held_in`] is ready, and was never there in fp32.
    pub fn ask_in(&self, precision: Precision) -> Result<()> {
        if precision == Precision::Fp32 {
            return Ok(());
        }
        for (name, entry) in self.params.iter() {
            if let Some(Held { tensor, .. }) = held(name, entry.role, &entry.tensor) {
                entry.tensor.shallow_clone().f_set_data(&tensor)?;
            }
        }
        Ok(())
    }
}

/// How to open a checkpoint.
pub struct Options {
    /// Where the model shall lie.
    pub device: Device,
    /// Sizes that the tensors do not tell; default: `af2.yaml` in the folder.
    pub config: Option<PathBuf>,
    /// The training tree's frame rule, whatever the settings say.
    pub few_shot_mask: bool,
    /// What may be missing and what may be too much.
    pub rules: Rules,
    /// In what the model will be asked, where nothing else is done with it: see [`Loaded::ask_in`].
    pub held_in: Precision,
}

impl Options {
    /// Settings of the folder itself, and the default rules.
    pub fn new(device: Device) -> Self {
        Options {
            device,
            config: None,
            few_shot_mask: false,
            rules: Rules::default(),
            held_in: Precision::Fp32,
        }
    }
}

/// Opens a folder in the released layout.
pub fn open(folder: &Path, options: &Options) -> Result<Loaded> {
    open_parts(&folder.into(), options)
}

/// What a checkpoint's files say of the model, before any tensor is read.
pub(crate) struct Plan {
    pub files: ReleasedFolder,
    pub config: Config,
    pub settings: Settings,
    pub tokenizer: Tokenizer,
    pub notes: Vec<String>,
}

/// Opens a checkpoint's files and infers the model's sizes. No tensor is read.
pub(crate) fn plan(parts: &Parts, options: &Options) -> Result<Plan> {
    let files = checkpoint::open_parts(parts)?;
    let beside = |p: &Path| Some(p.join(SETTINGS)).filter(|p| p.is_file());
    let own = options
        .config
        .clone()
        .or_else(|| beside(&parts.checkpoint))
        .or_else(|| parts.checkpoint.parent().and_then(beside))
        .or_else(|| parts.base.as_deref().and_then(beside));
    let settings = own.map_or(Ok(Settings::default()), |p| Settings::read(&p))?;
    let tokenizer = Tokenizer::open(&files.llm)?;
    let mut notes = files.tensors.notes().to_vec();
    notes.extend(tokenizer.notes.iter().cloned());
    let at = &parts.checkpoint;
    let mut config = sizes(&files.tensors, &settings, &files.llm, &tokenizer, at, &mut notes)?;
    if options.few_shot_mask {
        config.cross_attention.frames = cross_attention::Frames::FewShotMask;
    }
    Ok(Plan {
        files,
        config,
        settings,
        tokenizer,
        notes,
    })
}

/// Opens a checkpoint whose parts may lie in several places. What is wrong with it is told whole, and before any
/// tensor is read.
pub fn open_parts(parts: &Parts, options: &Options) -> Result<Loaded> {
    let Plan {
        files,
        config,
        settings,
        tokenizer,
        mut notes,
    } = plan(parts, options)?;
    let source = Source {
        tensors: &files.tensors,
        llm: &files.llm,
        path: &parts.checkpoint,
        rules: &options.rules,
        absent: &|_| None,
    };
    let (model, params, report) = source.build(&config, options.device, options.held_in)?;
    notes.extend(rounded(&params));
    if options.held_in == Precision::AmpBf16 {
        notes.extend(kept(&params));
    }
    Ok(Loaded {
        model,
        params,
        tokenizer,
        max_windows: settings.max_windows(),
        llm: files.llm,
        device: options.device,
        report,
        torch: files.torch,
        notes,
    })
}

/// What a model in bf16 lost of its files.
fn rounded(params: &Params) -> Option<String> {
    let of = |part: Part| params.rounded().iter().filter(|n| Part::of(n) == part).count();
    let lost: Vec<String> = Part::ALL
        .into_iter()
        .map(|part| (of(part), part.name()))
        .filter(|(n, _)| *n > 0)
        .map(|(n, part)| format!("{n} of {part}"))
        .collect();
    (!lost.is_empty()).then(|| {
        format!(
            "bf16: these matrices hold more than bf16 does and are rounded, as autocast rounds them in each product: {}; \
             fp32 loses nothing",
            lost.join(", ")
        )
    })
}

/// Embeddings that a model in bf16 holds in fp32.
fn kept(params: &Params) -> Option<String> {
    let mut all = params
        .iter()
        .filter(|(name, _)| name.ends_with("embed_tokens.weight"));
    let fp32 = all.any(|(_, entry)| entry.tensor.kind() == Kind::Float);
    fp32.then(|| {
        "bf16: the embeddings hold more than bf16 does and stay fp32, as not only products read them"
            .to_owned()
    })
}

/// How a run's model begins.
pub struct Start {
    /// From what.
    pub from: StartFrom,
    /// What is said of the sizes beside the files.
    pub sizes: Sizes,
}

/// What it begins with.
pub enum StartFrom {
    /// A checkpoint that makes a whole model.
    Checkpoint(Parts),
    /// LM and audio encoder from their files, the rest initialised.
    New(New),
}

/// A new model.
pub struct New {
    /// The LM's folder and an AF-CLAP file.
    pub llm: PathBuf,
    /// The AF-CLAP file.
    pub clap: PathBuf,
    /// Sizes of the audio transformer.
    pub audio_transformer: audio_transformer::Config,
    /// Sizes of the cross-attention.
    pub cross_attention: cross_attention::Config,
    /// Most windows of 10 s that it is made for.
    pub max_windows: usize,
    /// Of what is initialised.
    pub seed: u64,
}

/// Sizes that the files must have, where they are said at all.
#[derive(Default)]
pub struct Sizes {
    /// Of the audio encoder.
    pub encoder: Option<audio::Config>,
    /// Of the audio transformer.
    pub audio_transformer: Option<audio_transformer::Config>,
    /// Of the cross-attention.
    pub cross_attention: Option<cross_attention::Config>,
}

/// A model at its beginning: new, or a checkpoint's.
///
/// # Errors
/// Files that cannot be read or do not make a model, and sizes that are said to be others than they are.
pub fn start(start: &Start, device: Device) -> Result<Loaded> {
    let new = match &start.from {
        StartFrom::Checkpoint(parts) => {
            let loaded = open_parts(parts, &Options::new(device))?;
            agree(&start.sizes, &loaded.model.config, &parts.checkpoint)?;
            return Ok(loaded);
        }
        StartFrom::New(new) => new,
    };
    tch::manual_seed(new.seed as i64);
    let NewFiles {
        tensors,
        tokenizer,
        config,
    } = new_model(new, &start.sizes)?;
    let source = Source {
        tensors: &tensors,
        llm: &new.llm,
        path: &new.llm,
        rules: &Rules::default(),
        absent: &new_parts,
    };
    let (model, params, report) = source.build(&config, device, Precision::Fp32)?;
    let mut notes = tensors.notes().to_vec();
    notes.extend(tokenizer.notes.iter().cloned());
    Ok(Loaded {
        model,
        params,
        tokenizer,
        max_windows: new.max_windows,
        llm: new.llm.clone(),
        device,
        report,
        torch: None,
        notes,
    })
}

/// A new model's files.
struct NewFiles {
    tensors: Archive,
    tokenizer: Tokenizer,
    config: Config,
}

fn new_model(new: &New, sizes: &Sizes) -> Result<NewFiles> {
    let New { llm, clap, .. } = new;
    let tensors = canonical(Archive::open(llm)?, llm)?.overlay(canonical(Archive::open(clap)?, clap)?);
    let tokenizer = Tokenizer::open(llm)?;
    let shapes = |n: &str| tensors.info(n).map(|i| i.shape.clone());
    let config = Config {
        encoder: audio::Config::read(&shapes, names::CLAP, clap)?,
        audio_transformer: new.audio_transformer.clone(),
        cross_attention: new.cross_attention.clone(),
        lm: lm::Config::read(llm)?,
        vocab: tokenizer.len() as i64,
        audio_token: tokenizer.audio,
    };
    agree(sizes, &config, clap)?;
    check_sizes(&config, llm)?;
    Ok(NewFiles {
        tensors,
        tokenizer,
        config,
    })
}

/// What a new model initialises.
fn new_parts(name: &str) -> Option<&'static str> {
    let new = matches!(Part::of(name), Part::AudioTransformer | Part::CrossAttention);
    new.then_some("initialised: a new model")
}

/// Whether a checkpoint makes a whole model: what [`open_parts`] looks at before it reads a tensor.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn check(parts: &Parts) -> Result<()> {
    checked(parts).map(|_| ())
}

fn checked(parts: &Parts) -> Result<Config> {
    let plan = plan(parts, &Options::new(Device::Cpu))?;
    let (files, rules) = (&plan.files, Rules::default());
    let report = compare(&plan.config, &files.tensors, Some(&files.llm), &rules, &|_| None)?;
    report.check(&parts.checkpoint, &rules)?;
    Ok(plan.config)
}

/// Whether a model can begin so: what [`start`] looks at before it reads a tensor.
///
/// # Errors
/// As [`start`].
pub(crate) fn check_start(start: &Start) -> Result<()> {
    match &start.from {
        StartFrom::Checkpoint(parts) => agree(&start.sizes, &checked(parts)?, &parts.checkpoint),
        StartFrom::New(new) => {
            let (files, rules) = (new_model(new, &start.sizes)?, Rules::default());
            let report = compare(&files.config, &files.tensors, Some(&new.llm), &rules, &new_parts)?;
            report.check(&new.llm, &rules)
        }
    }
}

/// Fails where the recipe and the files both say a size and do not agree.
fn agree(said: &Sizes, found: &Config, path: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    let mut check = |key: &str, said: String, file: String| {
        if said != file {
            let expected = format!("{said}, as the recipe says");
            wrong.push(
                Error::checkpoint(path, key, expected, file)
                    .hint("leave the key out of the recipe to take the file's"),
            );
        }
    };
    if let Some(encoder) = &said.encoder {
        check("clap.audio", encoder.to_string(), found.encoder.to_string());
    }
    if let Some(audio) = &said.audio_transformer {
        let sizes = |c: &audio_transformer::Config| {
            format!(
                "{} layers of {} heads and {} inner units",
                c.n_layers, c.n_head, c.d_inner
            )
        };
        check(
            "model.audio_transformer",
            sizes(audio),
            sizes(&found.audio_transformer),
        );
    }
    if let Some(cross) = &said.cross_attention {
        let sizes = |c: &cross_attention::Config| {
            let (every, heads, dim) = (c.every, c.heads, c.head_dim);
            format!(
                "a block before every {every}. layer, {heads} heads of {dim}, inner units times {}",
                c.ff_mult
            )
        };
        check(
            "model.cross_attention",
            sizes(cross),
            sizes(&found.cross_attention),
        );
    }
    crate::error::all(wrong)
}

/// Writes the whole model in the released layout, with the LM's folder and our settings.
pub fn save(folder: &Path, loaded: &Loaded) -> Result<()> {
    let llm = folder.join("llm");
    std::fs::create_dir_all(&llm).map_err(|e| Error::io(&llm, e))?;
    // Its weights are in safe_ckpt already, resized.
    hugging_face::copy_files(&loaded.llm, &llm)?;
    let settings = Settings::of(&loaded.model.config, loaded.max_windows);
    crate::fsutil::write_atomic_bytes(&folder.join(SETTINGS), settings.to_yaml()?.as_bytes())?;
    checkpoint::write_released(
        &folder.join("safe_ckpt"),
        &items(loaded.params.tensors()),
        CHUNK_BYTES,
    )
}

/// Sizes from the tensors, the LM's config.json and the settings, in this order of trust.
fn sizes(
    tensors: &Archive,
    settings: &Settings,
    llm: &Path,
    tokenizer: &Tokenizer,
    folder: &Path,
    notes: &mut Vec<String>,
) -> Result<Config> {
    let shapes = |n: &str| tensors.info(n).map(|i| i.shape.clone());
    let encoder = audio::Config::read(&shapes, names::CLAP, folder)?;
    let (mut audio, sure) =
        audio_transformer::Config::read(&shapes, names::AUDIO_TRANSFORMER, folder, encoder.width())?;
    match settings.n_head {
        Some(n) => audio.n_head = n,
        None if !sure => notes.push(format!(
            "the audio transformer's heads do not show in its tensors: taken to be {}; --config can say otherwise",
            audio.n_head
        )),
        None => {}
    }
    let lm = lm::Config::read(llm)?;
    let mut cross = settings.cross_attention.clone();
    let layers = lm.decoder().num_hidden_layers;
    cross.every = cross_attention::Config::read_every(&shapes, &names::gate, folder, layers)?;
    if let Some(every) = settings.every.filter(|e| *e != cross.every) {
        return Err(Error::checkpoint(
            folder,
            "cross_attn_every_n_layers",
            format!("{every}, as the configuration says"),
            format!("a block before every {}. layer", cross.every),
        ));
    }
    let config = Config {
        encoder,
        audio_transformer: audio,
        cross_attention: cross,
        lm,
        vocab: tokenizer.len() as i64,
        audio_token: tokenizer.audio,
    };
    check_sizes(&config, folder)?;
    Ok(config)
}

/// Sizes that cannot be must not reach libtorch, whichever file says them.
fn check_sizes(config: &Config, path: &Path) -> Result<()> {
    let wrong = config.check();
    crate::error::all(
        wrong
            .into_iter()
            .map(|w| Error::checkpoint(path, w.key, w.expected, w.found))
            .collect(),
    )
}

struct Source<'a> {
    tensors: &'a Archive,
    /// Embeddings that come from this folder are resized to the tokenizer's length.
    llm: &'a Path,
    path: &'a Path,
    rules: &'a Rules,
    /// What this kind of start always initialises, and why.
    absent: &'a dyn Fn(&str) -> Option<&'static str>,
}

impl Source<'_> {
    fn build(
        &self,
        config: &Config,
        device: Device,
        held_in: Precision,
    ) -> Result<(Flamingo, Params, Report)> {
        let report = compare(config, self.tensors, Some(self.llm), self.rules, self.absent)?;
        report.check(self.path, self.rules)?;
        let lookup: Lookup = Box::new(|name, kind, device| {
            let Some(info) = self.tensors.info(name) else {
                return Ok(None);
            };
            if report::resizable(name, info, Some(self.llm)) && info.shape[0] != config.vocab {
                return Ok(Some(resize(self.tensors.get(name)?, config.vocab)));
            }
            // What the file has in bf16, and the model will, is not widened in between.
            let kind = match (held_in, info.kind) {
                (Precision::AmpBf16, Kind::BFloat16) if kind == Kind::Float && info.shape.len() >= 2 => {
                    Kind::BFloat16
                }
                _ => kind,
            };
            let tensor = self.tensors.get_as(name, kind, device)?;
            // A gate or a temperature that is no number makes every output none.
            let broken = tensor.numel() == 1
                && kind == Kind::Float
                && !f64::try_from(tensor.reshape([1]).get(0))?.is_finite();
            if broken {
                return Err(Error::checkpoint(
                    &info.file,
                    name,
                    "a finite number",
                    "NaN or infinity",
                ));
            }
            let table = names::of_the_encoder(name).and_then(|n| config.encoder.table_of(n));
            if let Some(rows) = table {
                places::places(&tensor, rows, &info.file, name)?;
            }
            Ok(Some(tensor))
        });
        let origin = Origin::File {
            path: self.path.to_path_buf(),
            lookup,
            // The report has said what is missing, and that it may be.
            fresh: Box::new(|_| true),
        };
        let store = Store::new(origin, device).held_in(held_in);
        let model = Flamingo::new(&store.root(), config);
        let params = store.finish()?;
        cores::at_most(cores::enough_for(params.count()));
        params.train_only(|_| false);
        Ok((model, params, report))
    }
}

/// The embedding's rows cut or filled up to the tokenizer's length, as `resize_token_embeddings`.
/// New rows begin at the mean of the old ones, with noise of a tenth of their spread.
fn resize(rows_vd: Tensor, vocab: i64) -> Tensor {
    let have = rows_vd.size()[0];
    if have >= vocab {
        return rows_vd.narrow(0, 0, vocab).copy();
    }
    no_grad(|| {
        let rows = rows_vd.to_kind(Kind::Float);
        let mean = rows.mean_dim(0i64, true, Kind::Float);
        let spread = rows.std_dim(0i64, false, true) * 0.1;
        let noise = Tensor::randn([vocab - have, rows.size()[1]], (Kind::Float, rows.device()));
        Tensor::cat(&[rows, mean + spread * noise], 0)
    })
}
