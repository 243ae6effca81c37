//! Recipes: typed YAML, checked whole before anything runs.
//!
//! Every key that is left out of a file has its default here, beside its meaning.

mod check;
pub mod ranges;
mod sizes;
mod stage;
pub(crate) mod texts;

pub use stage::*;

use crate::data::loader::BadItems;
use crate::data::order::Mixing;
use crate::generate::decoding::Decoding;
use crate::model::text::t5;
use crate::model::{audio, audio_transformer, cross_attention, lm};
use crate::run;
use crate::synth::CorpusSpec;
use crate::text::tokenizer::SpecialTokens;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
    /// What the model is made of, or begins with.
    pub model: ModelRecipe,
    /// Where the training data lies.
    pub data: DataRecipe,
    /// How training runs: precision, memory, ranks, logging.
    #[serde(default)]
    pub train: TrainRecipe,
    /// The curriculum, in order; each stage starts from the one before.
    #[serde(default)]
    pub stages: Vec<StageRecipe>,
    /// How the trained model is asked and scored; nothing is, without it.
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
    /// Width.
    pub hidden_size: i64,
    /// Inner width of the MLP.
    pub intermediate_size: i64,
    /// Decoder layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: i64,
    /// Heads of keys and values.
    pub kv_heads: i64,
    /// How it trains.
    pub optim: OptimRecipe,
    /// Which checkpoints are kept.
    #[serde(default)]
    pub save: SaveRecipe,
}

impl LmRecipe {
    /// The model's sizes over a vocabulary.
    pub fn config(&self, vocab: i64) -> lm::qwen2::Config {
        lm::qwen2::Config {
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
    /// Sizes of the audio tower.
    pub audio: audio::Config,
    /// Sizes of the text tower; its vocabulary is the tokenizer's.
    pub text: TextTower,
    /// Width of the joint space.
    pub joint_dim: i64,
    /// Caption sets, by their names in `data.sets`.
    pub sets: Vec<String>,
    /// SpecAugment and stochastic depth, as the reference trains.
    #[serde(default)]
    pub augment: bool,
    /// How both towers train.
    pub optim: OptimRecipe,
    /// Which checkpoints are kept.
    #[serde(default)]
    pub save: SaveRecipe,
}

/// [`t5::Config`] without the vocabulary.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextTower {
    /// Width.
    pub d_model: i64,
    /// Width of one head.
    pub d_kv: i64,
    /// Inner width of the feed-forward part.
    pub d_ff: i64,
    /// Layers.
    pub num_layers: usize,
    /// Heads.
    pub num_heads: i64,
}

impl TextTower {
    /// The sizes over a vocabulary.
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
    pub(crate) fn audio_transformer(&self) -> audio_transformer::Config {
        self.audio_transformer
            .clone()
            .unwrap_or_else(audio_transformer::Config::paper)
    }

    /// Sizes of the cross-attention: the recipe's, or the paper's.
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
    /// How a text is read that holds a special token of the tokenizer (`<|endofchunk|>`): as its letters; not at all, the item
    /// is a bad one; or as the token itself, as the reference.
    #[serde(default)]
    pub special_tokens_in_texts: SpecialTokens,
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

/// What is measured after training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalRecipe {
    /// Sets by their names in `data.sets`.
    pub sets: Vec<String>,
    /// Most windows of 10 s per item.
    pub windows: usize,
    /// Most tokens of an answer; without it those of `decoding`.
    pub max_new_tokens: Option<usize>,
    /// How answers are chosen; greedy where nothing is said. With `num_return_sequences` above 1 so many samples of each answer, and
    /// the score is over all of them.
    #[serde(default)]
    pub decoding: Decoding,
    /// Ask the same with the audio replaced by silence.
    #[serde(default = "yes")]
    pub silence_control: bool,
    /// Only so many items of each set, from the front.
    pub limit: Option<usize>,
    /// In what clips are encoded and answers computed: `amp_bf16` is faster on a GPU and may answer otherwise.
    #[serde(default)]
    pub precision: Precision,
    /// As `train.tf32`.
    #[serde(default)]
    pub tf32: bool,
    /// Most questions that are answered together. Changes no answer.
    #[serde(default = "slots")]
    pub slots: usize,
    /// Most bytes of what is heard and what is written, the model apart; without it a share of what the device has. Changes no
    /// answer.
    pub memory: Option<u64>,
}

fn one() -> u64 {
    1
}
fn two() -> usize {
    2
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
fn slots() -> usize {
    8
}
fn yes() -> bool {
    true
}

impl EvalRecipe {
    /// How questions are asked that come from elsewhere: every default, and no set.
    pub(crate) fn of_no_set() -> Self {
        EvalRecipe {
            sets: Vec::new(),
            windows: thirty(),
            max_new_tokens: None,
            decoding: Decoding::default(),
            silence_control: false,
            limit: None,
            precision: Precision::default(),
            tf32: false,
            slots: slots(),
            memory: None,
        }
    }

    /// How answers are chosen, all of it.
    pub fn decoding(&self) -> Decoding {
        Decoding {
            max_new_tokens: self.max_new_tokens.unwrap_or(self.decoding.max_new_tokens),
            ..self.decoding.clone()
        }
    }
}

impl Recipe {
    /// Where manifests and audio lie: as said, or the corpus in the run's folder.
    pub fn data_root(&self) -> PathBuf {
        self.data
            .root
            .clone()
            .unwrap_or_else(|| run::corpus(&self.output))
    }

    /// The folder of the LM: as said, or the one in the run's folder.
    pub fn lm_folder(&self) -> PathBuf {
        self.model.lm.clone().unwrap_or_else(|| run::llm(&self.output))
    }

    pub(crate) fn clap_file(&self) -> PathBuf {
        self.model.clap.clone().unwrap_or_else(|| run::clap(&self.output))
    }

    /// The sets whose texts the small language model learns from, and who asks for each: those of the stages and of AF-CLAP; of a
    /// recipe that has neither, all but those of the evaluation.
    pub(crate) fn text_sets(&self) -> IndexMap<&str, Vec<String>> {
        let mut sets: IndexMap<&str, Vec<String>> = IndexMap::new();
        for stage in &self.stages {
            for set in stage.sets.keys() {
                sets.entry(set).or_default().push(stage.name.clone());
            }
        }
        for set in self.clap.iter().flat_map(|c| &c.sets) {
            sets.entry(set).or_default().push("clap".into());
        }
        if self.stages.is_empty() && self.clap.is_none() {
            let asked = |set: &String| self.eval.iter().any(|e| e.sets.contains(set));
            let all = self.data.sets.keys().filter(|set| !asked(set));
            sets.extend(all.map(|set| (set.as_str(), vec!["lm".to_owned()])));
        }
        sets
    }

    /// Where a stage's model is written, in the released layout.
    pub(crate) fn stage_folder(&self, stage: &str) -> PathBuf {
        run::checkpoints(&self.output).join(stage)
    }

    /// The manifest of a set.
    pub fn manifest(&self, set: &str) -> PathBuf {
        let relative = self.data.sets.get(set).cloned().unwrap_or_default();
        self.data_root().join(relative)
    }
}
