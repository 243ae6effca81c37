//! How a pass through the model runs. It goes with the call: no part of the model remembers it.

use serde::{Deserialize, Serialize};

/// How a pass runs. What computes and what trains is not said here: a gradient flows where weights require one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mode {
    /// Activation checkpointing: of each block only the inputs are kept, and the rest is computed again in the backward pass.
    pub recompute: bool,
    /// Rate of the attention dropout in the audio transformer.
    pub attention_dropout: f64,
    /// How the audio encoder runs.
    pub encoder: EncoderMode,
}

impl Mode {
    /// Nothing is random and nothing moves: evaluation, and what a training mode begins with.
    pub const EVAL: Mode = Mode {
        recompute: false,
        attention_dropout: 0.0,
        encoder: EncoderMode::EVAL,
    };
}

/// What the audio encoder does beyond evaluation. In a recipe what is left out is as the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default = "EncoderMode::reference")]
pub struct EncoderMode {
    /// Batch statistics in the batch norms, and their running averages move.
    pub batch_norm: bool,
    /// One clip at a time, its padded windows included, as the reference runs: statistics are the clip's.
    ///
    /// Without activation checkpointing: it goes through each block several times, and its weights would be reduced over the
    /// ranks after the first.
    pub clip_by_clip: bool,
    /// With `clip_by_clip`: a window of each clip that goes through the fusion of longer sounds, though none is longer.
    pub longer: Longer,
    /// SpecAugment on the mel: up to 2 stripes of 64 frames and 2 of 8 bins set to zero.
    pub spec_augment: bool,
    /// Stochastic depth, 0 to 0.1 over the blocks.
    pub drop_path: bool,
}

impl EncoderMode {
    /// As evaluation sees it.
    pub const EVAL: EncoderMode = EncoderMode {
        batch_norm: false,
        clip_by_clip: false,
        longer: Longer::None,
        spec_augment: false,
        drop_path: false,
    };

    /// Everything that the reference's `model.train()` turns on.
    pub(crate) fn reference() -> Self {
        EncoderMode {
            batch_norm: true,
            clip_by_clip: true,
            longer: Longer::Random,
            spec_augment: true,
            drop_path: true,
        }
    }
}

/// Which of a clip's windows is taken for a longer sound. Reference: where no clip of a training batch is longer than
/// 10 s, one is declared so at random, so that the fusion's weights get a gradient; AF2 calls the encoder clip by clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Longer {
    /// None of them.
    None,
    /// The first of each clip.
    First,
    /// One of each clip at random.
    Random,
}
