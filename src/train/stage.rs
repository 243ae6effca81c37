//! What a stage trains.

use super::optim::{AdamW, Group};
use crate::model::htsat::TrainMode;
use crate::model::params::Params;
use crate::recipe::{ClapMode, EmbeddingRows, Part, StageRecipe};
use tch::{Device, Kind, Tensor};

/// The part that a weight belongs to, by its name.
pub fn part_of(name: &str) -> Part {
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

/// Freezes everything but the stage's parts and gives what is left to an optimizer.
/// Reference: weight decay falls on names with `gated_cross_attn` only.
pub fn optimizer(params: &Params, stage: &StageRecipe) -> AdamW {
    params.train_only(|name| stage.train.contains(&part_of(name)));
    let o = &stage.optim;
    let group = |weight_decay: f64, rate: f64| Group {
        params: Vec::new(),
        weight_decay,
        rate,
    };
    let mut groups = vec![
        group(o.weight_decay, 1.0),
        group(o.weight_decay, o.gate_rate),
        group(0.0, 1.0),
        group(0.0, o.clap_rate),
    ];
    for (name, tensor) in params.trainable() {
        let place = match part_of(&name) {
            Part::CrossAttention if name.ends_with("_gate") => 1,
            Part::CrossAttention => 0,
            Part::Clap => 3,
            _ => 2,
        };
        groups[place].params.push((name, tensor));
    }
    groups.retain(|g| !g.params.is_empty());
    AdamW::new(groups)
}

/// The audio encoder's mode in training.
pub fn clap_mode(stage: &StageRecipe) -> TrainMode {
    match stage.clap_mode {
        ClapMode::Eval => TrainMode::default(),
        ClapMode::Train => TrainMode::reference(),
    }
}

/// Sets the embedding's gradient to zero but for the rows that may change.
pub struct EmbeddingMask {
    weight: Tensor,
    keep_v1: Tensor,
}

impl EmbeddingMask {
    /// None where the stage leaves the embeddings alone or may change them all.
    /// Reference: only `<audio>` and `<|endofchunk|>` learn, `<SEP>` does not; a tied head shares the mask.
    pub fn new(params: &Params, stage: &StageRecipe, rows: &[i64], device: Device) -> Option<Self> {
        let weight = params.get("lang_encoder.model.embed_tokens.weight")?;
        if !stage.train.contains(&Part::Embeddings) || stage.embedding_rows == EmbeddingRows::All {
            return None;
        }
        let keep = Tensor::zeros([weight.size()[0], 1], (Kind::Float, device));
        for row in rows {
            let _ = keep.get(*row).fill_(1.0);
        }
        Some(EmbeddingMask {
            weight: weight.shallow_clone(),
            keep_v1: keep,
        })
    }

    pub fn apply(&self) {
        let mut grad = self.weight.grad();
        if grad.defined() {
            tch::no_grad(|| {
                let _ = grad.g_mul_(&self.keep_v1);
            });
        }
    }
}
