//! What a stage trains, on what, how fast and how long; and how every stage runs.

use super::{one_f64, two};
use crate::data::bucket::Limits;
use crate::error::{Error, Result};
use crate::model::mode::{EncoderMode, Mode};
pub use crate::model::parts::{Part, Precision};
use crate::optim::{Rule, Split, BETAS};
use globset::Glob;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// How every stage runs. Nothing in here changes what is learned but `precision`, `encode_precision`, `tf32`, `loss` and `frozen`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainRecipe {
    /// In what the forward and backward pass compute.
    pub precision: Precision,
    /// In what a frozen encoder's features are computed that `cache_features` keeps; they are kept in fp32.
    pub encode_precision: Precision,
    /// TensorFloat-32 on CUDA, for matrix products and convolutions alike: what is fp32 is multiplied with 10 bits of mantissa,
    /// much faster. Off, they are the reference's fp32; libtorch by itself would have convolutions with it.
    pub tf32: bool,
    /// In what frozen matrices are held: `bf16` halves their memory. Only those are cast that lose nothing by it (a Qwen2.5
    /// folder's own weights are bf16); the others stay, and how many is said.
    pub frozen: Held,
    /// Over what a step's loss is averaged.
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
    /// Begin only where all that the run keeps fits on the disk; where it does not, `false` says so and begins all the same.
    pub check_room: bool,
    /// Peak of one device in TFLOP/s at this precision (A100 bf16 312, H100 989): what MFU is measured against.
    pub peak_tflops: Option<f64>,
}

impl Default for TrainRecipe {
    fn default() -> Self {
        TrainRecipe {
            precision: Precision::default(),
            encode_precision: Precision::default(),
            tf32: false,
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
            check_room: true,
            peak_tflops: None,
        }
    }
}

/// In what frozen matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// As they are trained and saved.
    #[default]
    Fp32,
    /// Those that lose nothing by it in bfloat16.
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

/// Which embedding rows a stage may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbeddingRows {
    /// `<audio>` and `<|endofchunk|>`, as the reference's own mask (not `<SEP>`).
    #[default]
    Added,
    /// Every row.
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
    /// Names it, its folder and its checkpoints.
    pub name: String,
    /// What it starts from: an earlier stage's name, or a checkpoint's path. Default: the stage before, and for the first
    /// what `model` says.
    pub from: Option<String>,
    /// Parts of the model that train; all others are frozen.
    pub train: Vec<Part>,
    /// Which rows of the input embeddings change where they train.
    #[serde(default)]
    pub embedding_rows: EmbeddingRows,
    /// Mode of the audio encoder.
    #[serde(default)]
    pub clap_mode: ClapMode,
    /// What `clap_mode: train` turns on: batch statistics of one clip at a time, one random window of each clip taken for a
    /// longer sound, SpecAugment, stochastic depth. Default: all, as the reference.
    #[serde(default = "EncoderMode::reference")]
    pub clap_train: EncoderMode,
    /// Most windows of 10 s per item.
    pub windows: usize,
    /// set → weight; a weight of 0.5 takes half of the set per epoch, 2 takes it twice.
    pub sets: IndexMap<String, f64>,
    /// Batches of clips of like length under a memory budget; without it, of `optim.batch_size` items.
    pub batch_budget: Option<Limits>,
    /// Keep the frozen encoder's features in memory over epochs. Only where CLAP neither trains nor runs in train mode.
    #[serde(default)]
    pub cache_features: bool,
    /// When gradients are clipped.
    #[serde(default)]
    pub clip_at: ClipAt,
    /// How it trains.
    pub optim: OptimRecipe,
    /// Which checkpoints are kept.
    #[serde(default)]
    pub save: SaveRecipe,
}

impl StageRecipe {
    /// The audio encoder's mode in training.
    pub(crate) fn encoder_mode(&self) -> EncoderMode {
        match self.clap_mode {
            ClapMode::Eval => EncoderMode::EVAL,
            ClapMode::Train => self.clap_train,
        }
    }

    /// How its training runs a model whose audio transformer has this attention dropout.
    pub fn mode(&self, train: &TrainRecipe, attention_dropout: f64) -> Mode {
        Mode {
            recompute: train.activation_checkpointing,
            attention_dropout,
            encoder: self.encoder_mode(),
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
    /// The highest, behind the warm-up.
    pub learning_rate: f64,
    /// What moves the weights by their gradients.
    #[serde(default)]
    pub optimizer: Rule,
    /// Of the running means of gradients and of their squares.
    #[serde(default = "betas")]
    pub betas: (f64, f64),
    /// Weights with settings of their own: a weight is of the first group whose pattern its name matches. The cross-attention
    /// gates of a short run on a small model, for one, spend most of their steps near 0, as they open by one learning rate a step.
    #[serde(default)]
    pub groups: IndexMap<String, GroupRecipe>,
    /// How the learning rate falls behind the warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// Where the schedule's way down ends, in optimizer steps. Default: at the last. The reference's is counted in micro-steps; a
    /// cosine comes up again behind it, as transformers' does.
    pub schedule_steps: Option<usize>,
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

/// Settings of the weights whose names match; what is left out is as for all others.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRecipe {
    /// A pattern of names as a checkpoint has them, with `*` for anything: `clap.*`, `*_gate`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Learning rate relative to the others.
    #[serde(default = "one_f64")]
    pub rate: f64,
    /// Weight decay in place of the others'.
    pub weight_decay: Option<f64>,
    /// In place of the others'.
    pub betas: Option<(f64, f64)>,
}

impl OptimRecipe {
    /// The weights with settings of their own.
    ///
    /// # Errors
    /// A pattern that is none.
    pub(crate) fn splits(&self) -> Result<Vec<Split>> {
        let one = |(name, group): (&String, &GroupRecipe)| {
            let pattern = Glob::new(&group.pattern)
                .map_err(|e| Error::recipe("recipe", format!("optim.groups.{name}.match: {}", e.kind())))?;
            Ok(Split {
                name: name.clone(),
                pattern: pattern.compile_matcher(),
                rate: group.rate,
                weight_decay: group.weight_decay,
                betas: group.betas,
            })
        };
        self.groups.iter().map(one).collect()
    }

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
    /// As it is.
    #[default]
    Constant,
    /// Down to 0 at the last step, or at `schedule_steps`.
    Linear,
    /// Half a cosine down to 0 there.
    Cosine,
}

fn one_usize() -> usize {
    1
}
fn betas() -> (f64, f64) {
    BETAS
}
fn five() -> usize {
    5
}
fn weight_decay() -> f64 {
    0.1
}
