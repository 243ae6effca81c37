//! The memory of one GPU in a stage, and what would make it less.

use super::model::trains;
use crate::model::cost::{self, Activations, Memory};
use crate::model::flamingo::Config;
use crate::model::parts::PerPart;
use crate::recipe::{Held, Precision, Recipe, StageRecipe};
use serde::Serialize;

/// The CUDA context with libtorch's kernels and NCCL's buffers.
const LIBRARIES: f64 = 1.5 * GIB;
/// Bytes of a GiB.
pub const GIB: f64 = (1u64 << 30) as f64;

/// Everything that the memory depends on.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Which parts train.
    pub trains: PerPart<bool>,
    /// Autocast to bf16.
    pub amp: bool,
    /// Frozen LM matrices in bf16.
    pub held_bf16: bool,
    /// Activation checkpointing.
    pub checkpointing: bool,
    /// The audio encoder goes clip by clip, and keeps what checkpointing would not.
    pub clip_by_clip: bool,
    /// Tensors that the optimizer keeps of each weight.
    pub kept: f64,
    /// The optimizer's state shared out.
    pub zero: bool,
    /// Tokens whose logits exist at once; 0 for all.
    pub loss_chunk: usize,
    /// MiB of a gradient bucket.
    pub bucket_mib: usize,
    /// Ranks.
    pub gpus: usize,
    /// Windows of a batch at most, where that is what bounds it.
    pub budget: Option<usize>,
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
    /// What the optimizer keeps of each weight that trains: AdamW's two moments.
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
    /// A stage's, with the batch that takes most of those that it can meet.
    pub(crate) fn of(
        recipe: &Recipe,
        stage: &StageRecipe,
        gpus: usize,
        config: &Config,
        parameters: &PerPart<f64>,
    ) -> Self {
        let t = &recipe.train;
        let most = recipe.data.max_tokens;
        let of_batch = |items: usize, windows: usize, text_tokens: usize| Setup {
            trains: trains(stage),
            amp: t.precision == Precision::AmpBf16,
            held_bf16: t.frozen == Held::Bf16,
            checkpointing: t.activation_checkpointing,
            clip_by_clip: stage.encoder_mode().clip_by_clip,
            zero: t.zero,
            kept: stage.optim.optimizer.keeps().len() as f64,
            loss_chunk: t.loss_chunk,
            bucket_mib: t.bucket_mib,
            gpus,
            budget: stage.batch_budget.as_ref().map(|b| b.windows),
            items,
            windows,
            text_tokens,
        };
        let Some(budget) = &stage.batch_budget else {
            let items = stage.optim.split(gpus).map_or(stage.optim.batch_size, |(n, _)| n);
            return of_batch(items, stage.windows, most);
        };
        // Items × longest never exceed the budget: few long clips, or many short ones.
        let batches = (1..=stage.windows.max(1)).map(|windows| {
            let items = (budget.windows / windows).clamp(1, budget.items.max(1));
            of_batch(items, windows, (budget.tokens / items).clamp(1, most))
        });
        let total = |s: &Setup| s.bytes(config, parameters).total();
        let largest = batches.max_by(|a, b| total(a).total_cmp(&total(b)));
        largest.unwrap_or_else(|| of_batch(1, stage.windows, most))
    }

    /// What it takes.
    pub(crate) fn bytes(&self, config: &Config, parameters: &PerPart<f64>) -> Bytes {
        let trained = parameters.only(self.trains);
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
            checkpointing_clap: self.checkpointing && !self.clip_by_clip,
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
            moments: 4.0 * self.kept * trained.total() / if self.zero { ranks } else { 1.0 },
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
    pub(crate) fn changes(
        &self,
        config: &Config,
        parameters: &PerPart<f64>,
        stage: &str,
        most: f64,
    ) -> Vec<String> {
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
        let key = match self.budget {
            None => format!("optim.batch_size={half}"),
            Some(_) => format!("batch_budget.windows={}", half * self.windows),
        };
        offer(self.items > 1, format!("stages.{stage}.{key}"), &|s| {
            s.items = half
        });
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
