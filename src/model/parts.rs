//! The parts of the model, and in what it computes, as recipes and the command line name them.

use crate::error::Result;
use crate::ffi::kernels;
use serde::{Deserialize, Serialize};
use tch::Device;

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

/// In what the forward and backward pass compute. Trained weights and the optimizer's state are fp32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Precision {
    #[default]
    Fp32,
    /// Autocast: matrix products in bf16, as the reference's `amp_bf16`.
    AmpBf16,
}

impl Precision {
    /// Runs `f`, a forward pass on a device, in this precision.
    ///
    /// # Errors
    /// A device that has no autocast to bf16.
    pub fn compute<T>(self, device: Device, f: impl FnOnce() -> T) -> Result<T> {
        Ok(match self {
            Precision::Fp32 => f(),
            Precision::AmpBf16 => kernels::autocast_bf16(device, f)?,
        })
    }
}
