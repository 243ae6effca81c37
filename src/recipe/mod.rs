//! Recipes: typed YAML, checked whole before anything runs.
//!
//! Every key that is left out of a file has its default here, beside its meaning.

mod check;
mod de;
pub mod import;
mod load;
mod node;
mod parse;
mod place;
pub mod reference;
mod sizes;
mod write;
pub mod yaml;

use crate::data::blend::{Blend, Set};
use crate::data::bucket::Limits;
use crate::data::loader::BadItems;
use crate::data::manifest::Manifest;
use crate::data::order::{Batching, Mixing, Order};
use crate::error::{Error, Result};
use crate::model::{audio_transformer, cross_attention, htsat, qwen2, t5};
use crate::synth::CorpusSpec;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The recipe of `af2 demo`.
pub const DEMO: &str = include_str!("../../recipes/demo.yaml");

/// A whole run: what is made, trained, measured, and where it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Names the run.
    pub name: String,
    /// Seeds everything random.
    #[serde(default = "one")]
    pub seed: u64,
    /// `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
    /// The run's folder.
    pub output: PathBuf,
    /// Synthesises a corpus into `data.root` when present.
    pub corpus: Option<CorpusSpec>,
    /// Trains a tokenizer and an LM from the training texts into `output/llm` when present.
    pub lm: Option<LmRecipe>,
    /// Trains AF-CLAP from the caption sets into `output/clap` when present.
    pub clap: Option<ClapRecipe>,
    pub model: ModelRecipe,
    pub data: DataRecipe,
    /// How training runs: precision, memory, ranks, logging.
    #[serde(default)]
    pub train: TrainRecipe,
    /// The curriculum, in order; each stage starts from the one before.
    #[serde(default)]
    pub stages: Vec<StageRecipe>,
    pub eval: Option<EvalRecipe>,
    /// What a reader may want to know of how the file was understood, one line each.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// A small Qwen2 and its tokenizer, trained on text alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LmRecipe {
    /// Most entries of the BPE vocabulary, the three special tokens left out.
    pub vocab_size: usize,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub layers: usize,
    pub heads: i64,
    pub kv_heads: i64,
    pub optim: OptimRecipe,
}

impl LmRecipe {
    /// The model's sizes over a vocabulary.
    pub fn config(&self, vocab: i64) -> qwen2::Config {
        qwen2::Config {
            vocab_size: vocab,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            num_key_value_heads: self.kv_heads,
            // More than any text of its own needs.
            max_position_embeddings: 1024,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            tie_word_embeddings: true,
        }
    }
}

/// Contrastive training of both towers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClapRecipe {
    pub audio: htsat::Config,
    /// Sizes of the text tower; its vocabulary is the tokenizer's.
    pub text: TextTower,
    pub joint_dim: i64,
    /// Caption sets, by their names in `data.sets`.
    pub sets: Vec<String>,
    /// SpecAugment and stochastic depth, as the reference trains.
    #[serde(default)]
    pub augment: bool,
    pub optim: OptimRecipe,
}

/// [`t5::Config`] without the vocabulary.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextTower {
    pub d_model: i64,
    pub d_kv: i64,
    pub d_ff: i64,
    pub num_layers: usize,
    pub num_heads: i64,
}

impl TextTower {
    pub fn config(&self, vocab_size: i64) -> t5::Config {
        t5::Config {
            vocab_size,
            d_model: self.d_model,
            d_kv: self.d_kv,
            d_ff: self.d_ff,
            num_layers: self.num_layers,
            num_heads: self.num_heads,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
        }
    }
}

/// Where the model starts and the sizes that its files do not tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// A released-layout folder or a `checkpoint_N.pt` to start from; without it, `lm` and `clap`, and the rest is
    /// initialised.
    pub checkpoint: Option<PathBuf>,
    /// The LM's Hugging Face folder. Default: `output/llm`.
    pub lm: Option<PathBuf>,
    /// An AF-CLAP file. Default: `output/clap/clap.safetensors`.
    pub clap: Option<PathBuf>,
    /// With a checkpoint: the released folder that holds what a training checkpoint lacks.
    pub base: Option<PathBuf>,
    /// Default: the paper's. With a checkpoint: checked against it.
    pub audio_transformer: Option<audio_transformer::Config>,
    /// Default: a block before every layer that sees all frames. With a checkpoint: checked against it.
    pub cross_attention: Option<cross_attention::Config>,
    /// Windows of 10 s that the model is made for; no stage and no evaluation may ask for more.
    #[serde(default = "thirty")]
    pub max_windows: usize,
}

impl ModelRecipe {
    pub fn audio_transformer(&self) -> audio_transformer::Config {
        self.audio_transformer
            .clone()
            .unwrap_or_else(audio_transformer::Config::paper)
    }

    pub fn cross_attention(&self) -> cross_attention::Config {
        self.cross_attention.clone().unwrap_or_default()
    }
}

/// The data sets by name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Manifests and audio lie below this. Default: `output/corpus`.
    pub root: Option<PathBuf>,
    /// Most text tokens of an item.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// Bytes of mels kept in memory over epochs, in MiB; 0 keeps none.
    #[serde(default = "cache_mib")]
    pub cache_mib: usize,
    /// Share of a stage's items that may be unusable: each is skipped and named in `skipped.jsonl`; with more the run
    /// stops. 0 stops at the first.
    #[serde(default = "skip_budget")]
    pub skip_budget: f64,
    /// What becomes of such an item: its batch goes without it, or another takes its place as in the reference.
    #[serde(default)]
    pub bad_items: BadItems,
    /// What mixes an epoch's items: the run's seed, or the reference's own order (sets are then named by their manifests'
    /// paths, `Name-Task/split`).
    #[serde(default)]
    pub order: Mixing,
    /// Multiplies the sets' weights: 0.005 makes 200 virtual epochs of one pass.
    #[serde(default = "one_f64")]
    pub global_weight: f64,
    /// Share of each set that is used, chosen by the seed: for ablations of the amount of data.
    #[serde(default = "one_f64")]
    pub subset: f64,
    /// Threads that decode; 0 for one a core, shared by the ranks of a machine.
    #[serde(default)]
    pub threads: usize,
    /// Batches that are made before they are asked for.
    #[serde(default = "two")]
    pub ahead: usize,
    /// name → manifest, relative to the root.
    pub sets: IndexMap<String, PathBuf>,
}

/// How every stage runs. Nothing in here changes what is learned but `precision`, `loss` and `frozen`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainRecipe {
    pub precision: Precision,
    /// In what frozen matrices are held: `bf16` halves their memory. Only those are cast that lose nothing by it (a Qwen2.5
    /// folder's own weights are bf16); the others stay, and how many is said.
    pub frozen: Held,
    pub loss: LossMean,
    /// Keep only the inputs of each block and compute the rest again in the backward pass: a third more time for a fraction of
    /// the activations' memory. Not of an audio encoder that goes clip by clip (`clap_train.clip_by_clip`).
    pub activation_checkpointing: bool,
    /// Tokens whose logits exist at once in training (each costs V floats); 0 for all of a batch.
    pub loss_chunk: usize,
    /// ZeRO stage 1: each rank keeps the optimizer's state of its share of the weights only.
    pub zero: bool,
    /// Gradients are reduced in buckets of so many MiB while the backward pass still runs.
    pub bucket_mib: usize,
    /// Seconds after which a rank that does not answer counts as dead: more than writing a checkpoint takes, for which all wait
    /// where the one before is not written yet.
    pub timeout: u64,
    /// Optimizer steps between two log entries; 0 for a hundred entries a stage, 1 also logs every micro-step.
    pub log_every: usize,
    /// Optimizer steps between two validations; 0 for every eighth log entry. The end of a stage is always validated.
    pub validate_every: usize,
    /// So many steps in a row whose loss or gradient is not finite stop the run; each is skipped and counted.
    pub nonfinite_limit: usize,
    /// Peak of one device in TFLOP/s at this precision (A100 bf16 312, H100 989): what MFU is measured against.
    pub peak_tflops: Option<f64>,
}

impl Default for TrainRecipe {
    fn default() -> Self {
        TrainRecipe {
            precision: Precision::default(),
            frozen: Held::default(),
            loss: LossMean::default(),
            activation_checkpointing: false,
            loss_chunk: 1024,
            zero: false,
            bucket_mib: 25,
            timeout: 600,
            log_every: 0,
            validate_every: 0,
            nonfinite_limit: 3,
            peak_tflops: None,
        }
    }
}

/// In what the forward and backward pass compute. Trained weights and the optimizer's state are fp32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    #[default]
    Fp32,
    /// Autocast: matrix products in bf16, as the reference's `amp_bf16`.
    AmpBf16,
}

/// In what frozen matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    #[default]
    Fp32,
    Bf16,
}

/// Over what the loss of a step is averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossMean {
    /// Over the counted tokens of all ranks and micro-steps: however a step is split, it is the same step.
    #[default]
    Tokens,
    /// Over the means of the micro-batches, as the reference: a token of a short batch counts for more.
    MeanOfMeans,
}

/// A part of the model that a stage may train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Part {
    Clap,
    #[serde(alias = "audio_transform")]
    AudioTransformer,
    CrossAttention,
    /// The input embeddings; see `StageRecipe::embedding_rows`.
    Embeddings,
    Lm,
}

impl Part {
    /// The part that a weight belongs to, by its name.
    pub fn of(name: &str) -> Self {
        if name.starts_with("clap.") {
            Part::Clap
        } else if name.starts_with("audio_transformer_clap.") {
            Part::AudioTransformer
        } else if name.contains("gated_cross_attn_layer") {
            Part::CrossAttention
        } else if name.contains("embed_tokens") {
            Part::Embeddings
        } else {
            Part::Lm
        }
    }
}

/// Which embedding rows a stage may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbeddingRows {
    /// `<audio>` and `<|endofchunk|>`, as the reference's own mask (not `<SEP>`).
    #[default]
    Added,
    All,
}

/// The mode in which the audio encoder runs while a stage trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClapMode {
    /// Running statistics, nothing random: frozen or not, it sees what evaluation sees.
    #[default]
    Eval,
    /// What the reference's `model.train()` turns on, frozen or not; see `StageRecipe::clap_train`.
    Train,
}

/// Where the gradient is clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipAt {
    /// Once before the optimizer's step.
    #[default]
    Step,
    /// The accumulated gradient, after every micro-step, as the reference does. Needs `train.loss: mean_of_means`.
    MicroStep,
}

/// One stage of the curriculum.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRecipe {
    pub name: String,
    /// What it starts from: an earlier stage's name, or a checkpoint's path. Default: the stage before, and for the first
    /// what `model` says.
    pub from: Option<String>,
    pub train: Vec<Part>,
    #[serde(default)]
    pub embedding_rows: EmbeddingRows,
    #[serde(default)]
    pub clap_mode: ClapMode,
    /// What `clap_mode: train` turns on: batch statistics of one clip at a time, one random window of each clip taken for a
    /// longer sound, SpecAugment, stochastic depth. Default: all, as the reference.
    #[serde(default = "htsat::TrainMode::reference")]
    pub clap_train: htsat::TrainMode,
    /// Most windows of 10 s per item.
    pub windows: usize,
    /// set → weight; a weight of 0.5 takes half of the set per epoch, 2 takes it twice.
    pub sets: IndexMap<String, f64>,
    /// Batches of clips of like length under a memory budget; without it, of `optim.batch_size` items.
    pub batch_budget: Option<Limits>,
    /// Keep the frozen encoder's features in memory over epochs. Only where CLAP neither trains nor runs in train mode.
    #[serde(default)]
    pub cache_features: bool,
    #[serde(default)]
    pub clip_at: ClipAt,
    pub optim: OptimRecipe,
    #[serde(default)]
    pub save: SaveRecipe,
}

impl StageRecipe {
    /// The audio encoder's mode in training.
    pub fn encoder_mode(&self) -> htsat::TrainMode {
        match self.clap_mode {
            ClapMode::Eval => htsat::TrainMode::default(),
            ClapMode::Train => self.clap_train,
        }
    }
}

/// The `checkpoint_N.pt` that a stage writes while it trains, in the reference trainer's form.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveRecipe {
    /// Optimizer steps between two checkpoints; 0 writes none.
    #[serde(default)]
    pub every: usize,
    /// The newest so many stay: with two, one that is damaged has one before it.
    #[serde(default = "two")]
    pub keep_last: usize,
    /// Every so-manieth stays for good; 0 for none.
    #[serde(default = "five")]
    pub keep_every: usize,
    /// Everything, frozen tensors too.
    #[serde(default)]
    pub full: bool,
}

impl Default for SaveRecipe {
    /// Reference: the newest stays, and every fifth. Ours: the newest two.
    fn default() -> Self {
        SaveRecipe {
            every: 0,
            keep_last: two(),
            keep_every: five(),
            full: false,
        }
    }
}

/// The optimizer and its schedule.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimRecipe {
    /// Optimizer steps.
    pub steps: usize,
    /// Items per micro-step of one rank, with `global_batch` at most; with `batch_budget` only validation goes by it.
    pub batch_size: usize,
    /// Micro-steps per optimizer step, on every rank.
    #[serde(default = "one_usize")]
    pub accumulate: usize,
    /// Items per optimizer step over all ranks, in place of `accumulate`: one recipe for any number of ranks.
    pub global_batch: Option<usize>,
    pub learning_rate: f64,
    /// Learning rate of the audio encoder relative to the others.
    #[serde(default = "one_f64")]
    pub clap_rate: f64,
    /// Learning rate of the cross-attention gates relative to the others. The reference has 1; a short run on a
    /// small model spends most of its steps behind gates that open by one learning rate a step.
    #[serde(default = "one_f64")]
    pub gate_rate: f64,
    #[serde(default)]
    pub schedule: Schedule,
    /// Optimizer steps of linear warm-up; the first step has learning rate 0 where this is above 0.
    #[serde(default)]
    pub warmup: usize,
    /// On cross-attention weights only in the curriculum (as the reference), on all matrices elsewhere.
    #[serde(default = "weight_decay")]
    pub weight_decay: f64,
    /// Largest gradient norm.
    #[serde(default = "one_f64")]
    pub clip: f64,
}

impl OptimRecipe {
    /// Items of a micro-step, and micro-steps of an optimizer step, of each of so many ranks. Under a `global_batch` the items
    /// are as many as divide a rank's share, `batch_size` at most.
    ///
    /// # Errors
    /// A `global_batch` that the ranks cannot share evenly.
    pub fn split(&self, world: usize) -> Result<(usize, usize)> {
        let Some(global) = self.global_batch else {
            return Ok((self.batch_size, self.accumulate));
        };
        let world = world.max(1);
        let share = global / world;
        if share == 0 || global % world != 0 {
            let message = format!("optim.global_batch: {world} ranks cannot share {global} items evenly");
            let near = global.max(1).checked_next_multiple_of(world);
            let near = near.map_or(String::new(), |n| format!("{n} can be shared, "));
            return Err(Error::recipe("recipe", message).hint(format!("{near}or change the number of ranks")));
        }
        let divides = |n: &usize| share.is_multiple_of(*n);
        let items = (1..=self.batch_size.min(share)).rev().find(divides).unwrap_or(1);
        Ok((items, share / items))
    }
}

/// The learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    #[default]
    Constant,
    /// Down to 0 at the last step.
    Linear,
    /// Half a cosine down to 0 at the last step.
    Cosine,
}

/// What is measured after training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalRecipe {
    /// Sets by their names in `data.sets`.
    pub sets: Vec<String>,
    /// Most windows of 10 s per item.
    pub windows: usize,
    #[serde(default = "max_new_tokens")]
    pub max_new_tokens: usize,
    /// Ask the same with the audio replaced by silence.
    #[serde(default = "yes")]
    pub silence_control: bool,
    /// Only so many items of each set, from the front.
    pub limit: Option<usize>,
}

fn one() -> u64 {
    1
}
fn one_usize() -> usize {
    1
}
fn two() -> usize {
    2
}
fn five() -> usize {
    5
}
fn one_f64() -> f64 {
    1.0
}
fn auto() -> String {
    "auto".into()
}
fn thirty() -> usize {
    30
}
fn max_tokens() -> usize {
    512
}
fn skip_budget() -> f64 {
    0.01
}
fn cache_mib() -> usize {
    2048
}
fn weight_decay() -> f64 {
    0.1
}
fn max_new_tokens() -> usize {
    256
}
fn yes() -> bool {
    true
}

impl Recipe {
    pub fn data_root(&self) -> PathBuf {
        self.data
            .root
            .clone()
            .unwrap_or_else(|| self.output.join("corpus"))
    }

    pub fn lm_folder(&self) -> PathBuf {
        self.model.lm.clone().unwrap_or_else(|| self.output.join("llm"))
    }

    pub fn clap_file(&self) -> PathBuf {
        self.model
            .clap
            .clone()
            .unwrap_or_else(|| self.output.join("clap").join("clap.safetensors"))
    }

    /// Where a stage's model is written, in the released layout.
    pub fn stage_folder(&self, stage: &str) -> PathBuf {
        self.output.join("checkpoints").join(stage)
    }

    /// The manifest of a set.
    pub fn manifest(&self, set: &str) -> PathBuf {
        let relative = self.data.sets.get(set).cloned().unwrap_or_default();
        self.data_root().join(relative)
    }

    /// A stage's items in their order, for rank `rank` of `world`.
    pub fn order(&self, stage: &StageRecipe, rank: usize, world: usize) -> Result<Order> {
        let (items, micro_steps) = stage.optim.split(world)?;
        Ok(Order {
            blend: self.blend(stage, None)?,
            mixing: self.data.order,
            batching: match &stage.batch_budget {
                Some(limits) => Batching::Budget(limits.clone()),
                None => Batching::Fixed(items),
            },
            seed: self.seed,
            rank,
            world,
            micro_steps,
        })
    }

    /// A stage's sets by their weights; manifests below `folder` where they are not in the recipe's place.
    pub fn blend(&self, stage: &StageRecipe, folder: Option<&Path>) -> Result<Blend> {
        let sets = stage.sets.iter().map(|(set, weight)| {
            let path = match folder {
                None => self.manifest(set),
                Some(folder) => folder.join(self.data.sets.get(set).cloned().unwrap_or_default()),
            };
            Ok(Set {
                name: named_by(&path),
                manifest: Manifest::open(&path)?,
                weight: *weight,
            })
        });
        let mut blend = Blend {
            sets: sets.collect::<Result<_>>()?,
            global_weight: self.data.global_weight,
        };
        if self.data.subset < 1.0 {
            blend.keep(self.data.subset, self.seed);
        }
        Ok(blend)
    }
}

/// `Name-Task/split`, as the reference's configuration would write it: its characters seed the shuffle.
fn named_by(manifest: &Path) -> String {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let folder = text(manifest.parent().and_then(Path::file_name));
    format!("{folder}/{}", text(manifest.file_stem()))
}
