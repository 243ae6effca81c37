//! A folder as a model, and a model as a folder: where `model` and `checkpoint` meet.
//!
//! The folder is the released layout (`safe_ckpt/`, optional `clap_ckpt/`, `llm/`); what we write adds
//! `af2.yaml` with the few sizes that tensors do not tell.

use crate::checkpoint::{self, names, Archive, ReleasedFolder};
use crate::error::{Error, Result};
use crate::model::flamingo::{Config, Flamingo};
use crate::model::params::{LoadReport, Lookup, Origin, Params, Store};
use crate::model::{audio_transformer, cross_attention, infer, qwen2};
use crate::recipe::Recipe;
use crate::settings::Settings;
use crate::text::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};
use tch::{no_grad, Device, Kind, Tensor};

/// The file of sizes that we write beside a checkpoint.
pub const SETTINGS: &str = "af2.yaml";
/// Bytes of a `safe_ckpt` chunk.
const CHUNK_BYTES: usize = 1 << 30;

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
    pub report: LoadReport,
    /// Things a user may want to know, one line each.
    pub notes: Vec<String>,
}

/// How to open a folder.
pub struct Options {
    pub device: Device,
    /// Sizes that the tensors do not tell; default: `af2.yaml` in the folder.
    pub config: Option<PathBuf>,
    /// The training tree's frame rule, whatever the settings say.
    pub few_shot_mask: bool,
    /// Tensors that the model does not know are an error unless this is set.
    pub allow_unexpected: bool,
}

impl Options {
    pub fn new(device: Device) -> Self {
        Options {
            device,
            config: None,
            few_shot_mask: false,
            allow_unexpected: false,
        }
    }
}

/// Opens a folder in the released layout.
pub fn open(folder: &Path, options: &Options) -> Result<Loaded> {
    let ReleasedFolder { tensors, llm, .. } = checkpoint::open_released(folder)?;
    let settings = match &options.config {
        Some(path) => Settings::read(path)?,
        None if folder.join(SETTINGS).exists() => Settings::read(&folder.join(SETTINGS))?,
        None => Settings::default(),
    };
    let tokenizer = Tokenizer::open(&llm)?;
    let mut notes = Vec::new();
    let mut config = sizes(&tensors, &settings, &llm, &tokenizer, folder, &mut notes)?;
    if options.few_shot_mask {
        config.cross_attention.frames = cross_attention::Frames::FewShotMask;
    }
    let source = Source {
        tensors: &tensors,
        resizable: Some(&llm),
        path: folder,
        fresh: &|_| false,
    };
    let (model, params, report) = source.build(&config, options.device)?;
    if !options.allow_unexpected {
        let unexpected: Vec<Error> = tensors
            .names()
            .filter(|n| !params.contains(n) && !rests(n, &config))
            .map(|n| {
                let shape = tensors.info(n).map(|i| i.shape.clone()).unwrap_or_default();
                Error::checkpoint(folder, n, "no such tensor", format!("one of shape {shape:?}"))
                    .hint("a misspelt name? --allow-unexpected leaves such tensors aside")
            })
            .collect();
        crate::error::all(unexpected)?;
    }
    Ok(Loaded {
        model,
        params,
        tokenizer,
        max_windows: settings.max_windows(),
        llm,
        device: options.device,
        report,
        notes,
    })
}

/// A new model as a recipe describes it: LM and audio encoder from their files, the rest initialised;
/// or the recipe's checkpoint.
pub fn start(recipe: &Recipe, device: Device) -> Result<Loaded> {
    if let Some(folder) = &recipe.model.checkpoint {
        return open(folder, &Options::new(device));
    }
    tch::manual_seed(recipe.seed as i64);
    let (llm, clap) = (recipe.lm_folder(), recipe.clap_file());
    let tensors = names::canonical(Archive::open(&llm)?, &llm)?
        .overlay(names::canonical(Archive::open(&clap)?, &clap)?);
    let tokenizer = Tokenizer::open(&llm)?;
    let shapes = |n: &str| tensors.info(n).map(|i| i.shape.clone());
    let config = Config {
        htsat: infer::htsat(&shapes, names::CLAP, &clap)?,
        audio_transformer: recipe.model.audio_transformer.clone(),
        cross_attention: recipe.model.cross_attention.clone(),
        lm: qwen2::Config::read(&llm)?,
        vocab: tokenizer.len() as i64,
        audio_token: tokenizer.audio,
    };
    check_heads(&config, &llm)?;
    let source = Source {
        tensors: &tensors,
        resizable: Some(&llm),
        path: &llm,
        fresh: &|n| n.starts_with("audio_transformer_clap.") || n.contains("gated_cross_attn_layer_sound"),
    };
    let (model, params, report) = source.build(&config, device)?;
    Ok(Loaded {
        model,
        params,
        tokenizer,
        max_windows: recipe.model.max_windows,
        llm,
        device,
        report,
        notes: Vec::new(),
    })
}

/// Writes the whole model in the released layout, with the LM's folder and our settings.
pub fn save(folder: &Path, loaded: &Loaded) -> Result<()> {
    let llm = folder.join("llm");
    std::fs::create_dir_all(&llm).map_err(|e| Error::io(&llm, e))?;
    let files = std::fs::read_dir(&loaded.llm).map_err(|e| Error::io(&loaded.llm, e))?;
    for file in files {
        let file = file.map_err(|e| Error::io(&loaded.llm, e))?.path();
        // Its weights are in safe_ckpt already, resized.
        if file.extension().is_some_and(|e| e == "json" || e == "txt")
            && !file.ends_with("model.safetensors.index.json")
        {
            let bytes = std::fs::read(&file).map_err(|e| Error::io(&file, e))?;
            crate::fsutil::write_atomic_bytes(&llm.join(file.file_name().unwrap_or_default()), &bytes)?;
        }
    }
    let settings = Settings::of(&loaded.model.config, loaded.max_windows);
    crate::fsutil::write_atomic_bytes(&folder.join(SETTINGS), settings.to_yaml()?.as_bytes())?;
    checkpoint::write_released(&folder.join("safe_ckpt"), &loaded.params.tensors(), CHUNK_BYTES)
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
    let lm = qwen2::Config::read(llm)?;
    let mut cross = settings.cross_attention.clone();
    cross.every = infer::cross_attention_every(&shapes, folder, lm.num_hidden_layers)?;
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
    check_heads(&config, folder)?;
    Ok(config)
}

fn check_heads(config: &Config, path: &Path) -> Result<()> {
    let (width, heads) = (config.htsat.output_dim(), config.audio_transformer.n_head);
    if heads < 1 || width % heads != 0 || audio_transformer::rotary_dims(width / heads) > width / heads {
        return Err(Error::checkpoint(
            path,
            "audio_transformer.n_head",
            format!("heads of at least 32 dimensions that divide {width}"),
            format!("{heads} heads"),
        ));
    }
    Ok(())
}

/// Names that published files hold and no forward pass reads.
fn rests(name: &str, config: &Config) -> bool {
    names::at_rest(name)
        || name.ends_with("rotary_emb.inv_freq")
        || (config.lm.tie_word_embeddings && name == "lang_encoder.lm_head.weight")
}

/// Tensors that are computed when a file lacks them, or never read.
fn computed(name: &str) -> bool {
    let ends = ["attn_mask", "relative_position_index", "num_batches_tracked"];
    let unused = [
        "spectrogram_extractor.",
        "logmel_extractor.",
        "tscam_conv.",
        "head.",
    ];
    ends.iter().any(|e| name.ends_with(e))
        || name
            .strip_prefix(names::CLAP)
            .and_then(|n| n.strip_prefix('.'))
            .is_some_and(|n| unused.iter().any(|u| n.starts_with(u)))
}

struct Source<'a> {
    tensors: &'a Archive,
    /// Embeddings that come from this folder are resized to the tokenizer's length.
    resizable: Option<&'a Path>,
    path: &'a Path,
    fresh: &'a dyn Fn(&str) -> bool,
}

impl Source<'_> {
    fn build(&self, config: &Config, device: Device) -> Result<(Flamingo, Params, LoadReport)> {
        let lookup: Lookup = Box::new(|name| {
            let Some(info) = self.tensors.info(name) else {
                return Ok(None);
            };
            let tensor = self.tensors.get(name)?;
            let embedding = name.ends_with("embed_tokens.weight") || name.ends_with("lm_head.weight");
            let of_lm = self.resizable.is_some_and(|llm| info.file.starts_with(llm));
            Ok(Some(if embedding && of_lm {
                resize(tensor, config.vocab)
            } else {
                tensor
            }))
        });
        let origin = Origin::File {
            path: self.path.to_path_buf(),
            lookup,
            fresh: Box::new(|name| computed(name) || (self.fresh)(name)),
        };
        let store = Store::new(origin, device);
        let model = Flamingo::new(&store.root(), config);
        let (params, report) = store.finish()?;
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
