//! A batch on the device, from the loader's arrays to the loss.

use super::encoded::Encoded;
use crate::data::feed::Example;
use crate::model::flamingo::{Audio, Flamingo, Text};
use crate::model::input;
use crate::model::mode::Mode;
use crate::text::labels::Batch as TextBatch;
use crate::train::job::{Batch, Size};
use ndarray::Array3;
use std::sync::Arc;
use tch::{Device, Tensor};

/// What the model takes.
pub struct Input {
    /// Windows of sound.
    pub audio: Audio,
    /// Frozen features (B, W, tokens, D), where they are known.
    pub features: Option<Tensor>,
    /// Tokens.
    pub text: Text,
    targets: Tensor,
    positions: Tensor,
}

/// Of examples with their mels, or with none where the features of all are known.
pub fn of(
    examples: &[Example],
    mels: &[Arc<Array3<f32>>],
    text: &TextBatch,
    encoded: &Encoded,
    device: Device,
) -> Batch<Input> {
    let (features, audio) = match mels.is_empty().then(|| encoded.stack(examples, device)) {
        Some(Some((features, audio))) => (Some(features), audio),
        _ => (None, Audio::from_mels(mels.iter().map(|m| &**m), device)),
    };
    let (targets, positions) = input::targets(&text.labels, device);
    Batch {
        size: Size {
            items: text.input_ids.nrows(),
            windows: audio.real.len(),
            window_places: audio.windows_bw.numel(),
            text: text.attention_mask.iter().filter(|m| **m != 0).count(),
            text_places: text.input_ids.len(),
        },
        items: examples.iter().map(named).collect(),
        counted: targets.numel(),
        input: Input {
            audio,
            features,
            text: Text::from_arrays(&text.input_ids, &text.attention_mask, device),
            targets,
            positions,
        },
    }
}

impl Input {
    /// Sum of the losses of the counted labels; see [`Flamingo::loss_sum`] for `chunk`.
    pub fn loss_sum(&self, model: &Flamingo, mode: Mode, chunk: usize) -> Tensor {
        let heard = match &self.features {
            Some(features) => model.hear_encoded(features, &self.audio, mode),
            None => model.hear(&self.audio, mode),
        };
        let (targets, positions) = (&self.targets, &self.positions);
        model.loss_sum(&self.text, &heard, targets, positions, chunk as i64, mode)
    }
}

/// File, key and question of an item.
fn named(example: &Example) -> String {
    let (path, item) = (example.clip.path().display(), &example.item);
    format!("{path} (item {}: {:.60})", item.key, item.prompt)
}
