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
    /// The audio encoder.
    Clap,
    /// The transformer between audio encoder and cross-attention.
    #[serde(alias = "audio_transform")]
    AudioTransformer,
    /// The gated cross-attention blocks.
    CrossAttention,
    /// The input embeddings; see `StageRecipe::embedding_rows`.
    Embeddings,
    /// The language model but its input embeddings.
    Lm,
}

impl Part {
    /// In the order of the data.
    pub(crate) const ALL: [Part; 5] = [
        Part::Clap,
        Part::AudioTransformer,
        Part::CrossAttention,
        Part::Embeddings,
        Part::Lm,
    ];

    /// As recipes, logs and plans write it.
    pub fn name(self) -> &'static str {
        match self {
            Part::Clap => "clap",
            Part::AudioTransformer => "audio_transformer",
            Part::CrossAttention => "cross_attention",
            Part::Embeddings => "embeddings",
            Part::Lm => "lm",
        }
    }

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

    /// Whether it comes from the language model's own folder.
    pub(crate) fn of_the_lm(self) -> bool {
        matches!(self, Part::Embeddings | Part::Lm)
    }
}

/// A value for each part of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PerPart<T> {
    /// The audio encoder.
    pub clap: T,
    /// What joins the windows.
    pub audio_transformer: T,
    /// The blocks between the LM's layers.
    pub cross_attention: T,
    /// The input embeddings, which are the output head too where these are tied.
    pub embeddings: T,
    /// The LM without its embeddings; with its own head where that is not tied.
    pub lm: T,
}

impl<T> PerPart<T> {
    /// What `value` says of each.
    pub(crate) fn of(value: impl Fn(Part) -> T) -> Self {
        PerPart {
            clap: value(Part::Clap),
            audio_transformer: value(Part::AudioTransformer),
            cross_attention: value(Part::CrossAttention),
            embeddings: value(Part::Embeddings),
            lm: value(Part::Lm),
        }
    }
}

impl<T> std::ops::Index<Part> for PerPart<T> {
    type Output = T;
    fn index(&self, part: Part) -> &T {
        match part {
            Part::Clap => &self.clap,
            Part::AudioTransformer => &self.audio_transformer,
            Part::CrossAttention => &self.cross_attention,
            Part::Embeddings => &self.embeddings,
            Part::Lm => &self.lm,
        }
    }
}

impl PerPart<f64> {
    /// All of it.
    pub fn total(&self) -> f64 {
        Part::ALL.iter().map(|part| self[*part]).sum()
    }

    /// Only the parts that train; 0 for the others.
    pub(crate) fn only(&self, trains: PerPart<bool>) -> Self {
        PerPart::of(|part| if trains[part] { self[part] } else { 0.0 })
    }
}

impl PerPart<bool> {
    /// Whether it is so of any part.
    pub fn any(&self) -> bool {
        Part::ALL.iter().any(|part| self[*part])
    }
}

/// In what the forward and backward pass compute. Trained weights and the optimizer's state are fp32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Precision {
    /// float32 throughout.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_one_name_in_recipes_and_in_what_is_written() {
        let values = PerPart::of(Part::name);
        let written = serde_json::to_value(values).unwrap();
        for part in Part::ALL {
            assert_eq!(serde_json::to_value(part).unwrap(), part.name());
            assert_eq!(written[part.name()], part.name());
            assert_eq!(values[part], part.name());
        }
        assert_eq!(written.as_object().unwrap().len(), Part::ALL.len());
    }
}
