//! The memory of one GPU in a stage, and what would make it less.

use crate::model::cost::{self, Activations, ByPart, Memory, Trains};
use crate::model::flamingo::Config;
use crate::recipe::{Held, Precision, Recipe, StageRecipe};
use serde::Serialize;

/// The CUDA context with libtorch's kernels and NCCL's buffers.
const LIBRARIES: f64 = 1.5 * GIB;
/// Bytes of a GiB.
pub const GIB: f64 = (1u64 << 30) as f64;

/// Everything that the memory depends on.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Which parts train.
    pub trains: Trains,
    /// Autocast to bf16.
    pub amp: bool,
    /// Frozen LM matrices in bf16.
    pub held_bf16: bool,
    /// Activation checkpointing.
    pub checkpointing: bool,
    /// The optimizer's state shared out.
    pub zero: bool,
    /// Tokens whose logits exist at once; 0 for all.
    pub loss_chunk: usize,
    /// MiB of a gradient bucket.
    pub bucket_mib: usize,
    /// Ranks.
    pub gpus: usize,
    /// The largest micro-batch: items, windows and text tokens of each.
    pub items: usize,
    /// Windows of an item.
    pub windows: usize,
    /// Tokens of the longest text.
    pub text_tokens: usize,
}

/// Bytes of one GPU, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bytes {
    /// fp32.
    pub trained_weights: f64,
    /// fp32, or the LM in bf16.
    pub frozen_weights: f64,
    /// fp32, of what trains.
    pub gradients: f64,
    /// AdamW's two moments.
    pub moments: f64,
    /// bf16 copies of fp32 weights that autocast makes.
    pub copies: f64,
    /// Gradients on their way between the GPUs.
    pub buckets: f64,
    /// What stays for the backward pass.
    pub activations: Activations,
    /// Of a chunk, with their gradient.
    pub logits: f64,
    /// CUDA, libtorch, NCCL.
    pub libraries: f64,
}

impl Bytes {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.trained_weights
            + self.frozen_weights
            + self.gradients
            + self.moments
            + self.copies
            + self.buckets
            + self.activations.total()
            + self.logits
            + self.libraries
    }
}

impl Setup {
    /// A stage's, with the longest batch that it can meet.
    pub fn of(recipe: &Recipe, stage: &StageRecipe, gpus: usize) -> Self {
        let t = &recipe.train;
        let most = recipe.data.max_tokens;
        let (items, text_tokens) = match &stage.batch_budget {
            // Items × longest never exceed the budget: as many as there may be of full length.
            Some(b) => {
                let items = (b.windows / stage.windows.max(1)).clamp(1, b.items.max(1));
                (items, (b.tokens / items.max(1)).min(most))
            }
            None => (stage.optim.batch_size, most),
        };
        Setup {
            trains: super::trains(stage),
            amp: t.precision == Precision::AmpBf16,
            held_bf16: t.frozen == Held::Bf16,
            checkpointing: t.activation_checkpointing,
            zero: t.zero,
            loss_chunk: t.loss_chunk,
            bucket_mib: t.bucket_mib,
            gpus,
            items,
            windows: stage.windows,
            text_tokens,
        }
    }

    /// What it takes.
    pub fn bytes(&self, config: &Config, parameters: &ByPart) -> Bytes {
        let trained = parameters.of(self.trains);
        // Of the frozen parts only the LM's own weights are known to lose nothing in bf16.
        let lm = parameters.lm + parameters.embeddings - trained.lm - trained.embeddings;
        let others = parameters.total() - trained.total() - lm;
        let ranks = self.gpus.max(1) as f64;
        let tokens = self.items * self.text_tokens;
        let chunk = match self.loss_chunk {
            0 => tokens,
            n => n.min(tokens),
        };
        let memory = Memory {
            amp: self.amp,
            checkpointing: self.checkpointing,
        };
        // A frozen matrix that is fp32 is cast anew in every block; the graph keeps the copies.
        let cast = match self.held_bf16 || self.checkpointing {
            true => 0.0,
            false => lm,
        };
        let activations = cost::activations(
            config,
            self.items,
            self.windows,
            self.text_tokens,
            self.trains,
            memory,
        );
        Bytes {
            trained_weights: 4.0 * trained.total(),
            frozen_weights: 4.0 * others + lm * if self.held_bf16 { 2.0 } else { 4.0 },
            gradients: 4.0 * trained.total(),
            moments: 8.0 * trained.total() / if self.zero { ranks } else { 1.0 },
            copies: if self.amp {
                2.0 * (trained.total() + cast)
            } else {
                0.0
            },
            // One is filled while one travels.
            buckets: if self.gpus > 1 {
                2.0 * self.bucket_mib as f64 * (1 << 20) as f64
            } else {
                0.0
            },
            activations,
            logits: cost::logits(config, chunk),
            libraries: LIBRARIES,
        }
    }

    /// Recipe keys that would save memory, with what each saves by itself; the largest first. `most` is what there is.
    pub fn changes(&self, config: &Config, parameters: &ByPart, stage: &str, most: f64) -> Vec<String> {
        let now = self.bytes(config, parameters).total();
        let mut changes: Vec<(f64, String)> = Vec::new();
        let mut together = self.clone();
        let mut offer = |possible: bool, key: String, change: &dyn Fn(&mut Setup)| {
            let mut other = self.clone();
            change(&mut other);
            let saved = now - other.bytes(config, parameters).total();
            if possible && saved > 0.01 * now {
                changes.push((saved, key));
                change(&mut together);
            }
        };
        offer(
            !self.checkpointing,
            "train.activation_checkpointing=true".into(),
            &|s| s.checkpointing = true,
        );
        offer(!self.zero && self.gpus > 1, "train.zero=true".into(), &|s| {
            s.zero = true
        });
        offer(!self.held_bf16 && self.amp, "train.frozen=bf16".into(), &|s| {
            s.held_bf16 = true
        });
        offer(!self.amp, "train.precision=amp_bf16".into(), &|s| s.amp = true);
        let half = (self.items / 2).max(1);
        offer(
            self.items > 1,
            format!("stages.{stage}.optim.batch_size={half}"),
            &|s| s.items = half,
        );
        offer(
            self.loss_chunk == 0 || self.loss_chunk > 256,
            "train.loss_chunk=256".into(),
            &|s| s.loss_chunk = 256,
        );
        changes.sort_by(|a, b| b.0.total_cmp(&a.0));
        let say = |(saved, key): (f64, String)| format!("{key} saves {:.1} GiB", saved / GIB);
        let mut said: Vec<String> = changes.into_iter().map(say).collect();
        if together.bytes(config, parameters).total() > most {
            said.push("all of it is not enough: more GPUs with train.zero=true, or a smaller LM".into());
        }
        said
    }
}
