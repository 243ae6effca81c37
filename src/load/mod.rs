//! A folder as a model, and a model as a folder: where `model` and `checkpoint` meet.
//!
//! The folder is the released layout (`safe_ckpt/`, optional `clap_ckpt/`, `llm/`); what we write adds
//! `af2.yaml` with the few sizes that tensors do not tell.

pub mod convert;
mod language_model;
mod report;

pub use language_model::language_model;
pub use report::{compare, Report, Rules};

use crate::checkpoint::{self, hugging_face, items, names, Archive, Parts, ReleasedFolder, TorchFile};
use crate::cores;
use crate::error::{Error, Result};
use crate::model::flamingo::{Config, Flamingo};
use crate::model::params::{Lookup, Origin, Params, Store};
use crate::model::{audio_transformer, bounds, cross_attention, htsat, infer, lm, swin};
use crate::recipe::{Part, Recipe};
use crate::settings::Settings;
use crate::text::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};
use tch::{no_grad, Device, Kind, Tensor};

/// The file of sizes that we write beside a checkpoint.
pub const SETTINGS: &str = "af2.yaml";
/// Bytes of a `safe_ckpt` chunk.
pub const CHUNK_BYTES: usize = 1 << 30;

/// A model with everything that is needed to ask it something.
pub struct Loaded {
    pub model: Flamingo,
    pub params: Params,
    pub tokenizer: Tokenizer,
    /// Most windows of 10 s that it should be given.
    pub max_windows: usize,
    /// The LM's folder, whose tokenizer files go with every copy.
    pub llm: PathBuf,
    pub device: Device,
    pub report: Report,
    /// The weights' own file where it is one of `torch.save`, with the optimizer's state that it may hold.
    pub torch: Option<TorchFile>,
    /// Things a user may want to know, one line each.
    pub notes: Vec<String>,
}

/// How to open a checkpoint.
pub struct Options {
    pub device: Device,
    /// Sizes that the tensors do not tell; default: `af2.yaml` in the folder.
    pub config: Option<PathBuf>,
    /// The training tree's frame rule, whatever the settings say.
    pub few_shot_mask: bool,
    /// What may be missing and what may be too much.
    pub rules: Rules,
}

impl Options {
    pub fn new(device: Device) -> Self {
        Options {
            device,
            config: None,
            few_shot_mask: false,
            rules: Rules::default(),
        }
    }
}

/// Opens a folder in the released layout.
pub fn open(folder: &Path, options: &Options) -> Result<Loaded> {
    open_parts(&folder.into(), options)
}

/// What a checkpoint's files say of the model, before any tensor is read.
pub struct Plan {
    pub files: ReleasedFolder,
    pub config: Config,
    pub settings: Settings,
    pub tokenizer: Tokenizer,
    pub notes: Vec<String>,
}

/// Opens a checkpoint's files and infers the model's sizes. No tensor is read.
pub fn plan(parts: &Parts, options: &Options) -> Result<Plan> {
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
        notes,
    } = plan(parts, options)?;
    let source = Source {
        tensors: &files.tensors,
        llm: &files.llm,
        path: &parts.checkpoint,
        rules: &options.rules,
        absent: &|_| None,
    };
    let (model, params, report) = source.build(&config, options.device)?;
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

/// A new model as a recipe describes it: LM and audio encoder from their files, the rest initialised;
/// or the recipe's checkpoint.
pub fn start(recipe: &Recipe, device: Device) -> Result<Loaded> {
    if let Some(checkpoint) = &recipe.model.checkpoint {
        let parts = Parts {
            checkpoint: checkpoint.clone(),
            llm: recipe.model.lm.clone(),
            clap: recipe.model.clap.clone(),
            base: recipe.model.base.clone(),
        };
        let loaded = open_parts(&parts, &Options::new(device))?;
        agree(recipe, &loaded.model.config, checkpoint)?;
        return Ok(loaded);
    }
    tch::manual_seed(recipe.seed as i64);
    let New {
        tensors,
        tokenizer,
        config,
        llm,
    } = new_model(recipe)?;
    let source = Source {
        tensors: &tensors,
        llm: &llm,
        path: &llm,
        rules: &Rules::default(),
        absent: &new_parts,
    };
    let (model, params, report) = source.build(&config, device)?;
    let mut notes = tensors.notes().to_vec();
    notes.extend(tokenizer.notes.iter().cloned());
    Ok(Loaded {
        model,
        params,
        tokenizer,
        max_windows: recipe.model.max_windows,
        llm,
        device,
        report,
        torch: None,
        notes,
    })
}

/// A new model's files.
struct New {
    tensors: Archive,
    tokenizer: Tokenizer,
    config: Config,
    llm: PathBuf,
}

fn new_model(recipe: &Recipe) -> Result<New> {
    let (llm, clap) = (recipe.lm_folder(), recipe.clap_file());
    let tensors = names::canonical(Archive::open(&llm)?, &llm)?
        .overlay(names::canonical(Archive::open(&clap)?, &clap)?);
    let tokenizer = Tokenizer::open(&llm)?;
    let shapes = |n: &str| tensors.info(n).map(|i| i.shape.clone());
    let config = Config {
        htsat: infer::htsat(&shapes, names::CLAP, &clap)?,
        audio_transformer: recipe.model.audio_transformer(),
        cross_attention: recipe.model.cross_attention(),
        lm: lm::Config::read(&llm)?,
        vocab: tokenizer.len() as i64,
        audio_token: tokenizer.audio,
    };
    agree(recipe, &config, &clap)?;
    check_sizes(&config, &llm)?;
    Ok(New {
        tensors,
        tokenizer,
        config,
        llm,
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
pub fn check(parts: &Parts) -> Result<()> {
    checked(parts).map(|_| ())
}

fn checked(parts: &Parts) -> Result<Config> {
    let plan = plan(parts, &Options::new(Device::Cpu))?;
    let (files, rules) = (&plan.files, Rules::default());
    let report = compare(&plan.config, &files.tensors, Some(&files.llm), &rules, &|_| None)?;
    report.check(&parts.checkpoint, &rules)?;
    Ok(plan.config)
}

/// Whether a recipe's model can begin: what [`start`] looks at before it reads a tensor.
///
/// # Errors
/// As [`start`].
pub fn check_start(recipe: &Recipe) -> Result<()> {
    if let Some(checkpoint) = &recipe.model.checkpoint {
        let config = checked(&Parts {
            checkpoint: checkpoint.clone(),
            llm: recipe.model.lm.clone(),
            clap: recipe.model.clap.clone(),
            base: recipe.model.base.clone(),
        })?;
        return agree(recipe, &config, checkpoint);
    }
    let (new, rules) = (new_model(recipe)?, Rules::default());
    let report = compare(&new.config, &new.tensors, Some(&new.llm), &rules, &new_parts)?;
    report.check(&new.llm, &rules)
}

/// Fails where the recipe and the files both say a size and do not agree.
fn agree(recipe: &Recipe, found: &Config, path: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    let mut check = |key: &str, recipe: String, file: String| {
        if recipe != file {
            let expected = format!("{recipe}, as the recipe says");
            wrong.push(
                Error::checkpoint(path, key, expected, file)
                    .hint("leave the key out of the recipe to take the file's"),
            );
        }
    };
    if let Some(clap) = &recipe.clap {
        let sizes = |c: &htsat::Config| {
            format!(
                "{} wide, depths {:?}, heads {:?}",
                c.embed_dim, c.depths, c.num_heads
            )
        };
        check("clap.audio", sizes(&clap.audio), sizes(&found.htsat));
    }
    if let Some(audio) = &recipe.model.audio_transformer {
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
    if let Some(cross) = &recipe.model.cross_attention {
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
    let htsat = infer::htsat(&shapes, names::CLAP, folder)?;
    let (mut audio, sure) = infer::audio_transformer(&shapes, folder, htsat.output_dim())?;
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
    cross.every = infer::cross_attention_every(&shapes, folder, lm.decoder().num_hidden_layers)?;
    if let Some(every) = settings.every.filter(|e| *e != cross.every) {
        return Err(Error::checkpoint(
            folder,
            "cross_attn_every_n_layers",
            format!("{every}, as the configuration says"),
            format!("a block before every {}. layer", cross.every),
        ));
    }
    let config = Config {
        htsat,
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
    let wrong = bounds::flamingo(config);
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
    fn build(&self, config: &Config, device: Device) -> Result<(Flamingo, Params, Report)> {
        let report = compare(config, self.tensors, Some(self.llm), self.rules, self.absent)?;
        report.check(self.path, self.rules)?;
        let lookup: Lookup = Box::new(|name, kind, device| {
            let Some(info) = self.tensors.info(name) else {
                return Ok(None);
            };
            if report::resizable(name, info, Some(self.llm)) && info.shape[0] != config.vocab {
                return Ok(Some(resize(self.tensors.get(name)?, config.vocab)));
            }
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
            // Its values are places in a table: libtorch stops at one that is none.
            if name.ends_with("relative_position_index") {
                let wrong = tensor.lt(0).logical_or(&tensor.ge(swin::TABLE));
                if i64::try_from(wrong.any())? != 0 {
                    let expected = format!("places from 0 to {}", swin::TABLE - 1);
                    return Err(Error::checkpoint(&info.file, name, expected, "others"));
                }
            }
            Ok(Some(tensor))
        });
        let origin = Origin::File {
            path: self.path.to_path_buf(),
            lookup,
            // The report has said what is missing, and that it may be.
            fresh: Box::new(|_| true),
        };
        let store = Store::new(origin, device);
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
