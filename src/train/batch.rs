//! A batch on the device, from the loader's arrays to the loss.

use super::encoded::Encoded;
use crate::data::feed::{Ears, Example};
use crate::error::Result;
use crate::load::Loaded;
use crate::model::flamingo::{Audio, Flamingo, Text};
use crate::model::input;
use crate::model::mode::Mode;
use crate::text::labels::{self, Batch as TextBatch};
use ndarray::Array3;
use std::sync::Arc;
use tch::{Device, Tensor};

/// A batch on the device.
pub struct Batch {
    pub audio: Audio,
    /// Frozen features (B, W, tokens, D), where they are known.
    pub features: Option<Tensor>,
    pub text: Text,
    targets: Tensor,
    positions: Tensor,
    /// Counted labels.
    pub tokens: usize,
    pub size: Size,
    /// What it is made of, for messages.
    pub items: Vec<String>,
}

/// How much there is in a batch, and how much of it is padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    pub items: usize,
    /// Real windows, and places for windows.
    pub windows: usize,
    pub window_places: usize,
    /// Real text tokens, and places for tokens.
    pub text: usize,
    pub text_places: usize,
}

impl Size {
    pub fn add(&mut self, other: &Size) {
        self.items += other.items;
        self.windows += other.windows;
        self.window_places += other.window_places;
        self.text += other.text;
        self.text_places += other.text_places;
    }
}

impl Batch {
    /// Of examples with their mels, or with none where the features of all are known.
    pub fn new(
        examples: &[Example],
        mels: &[Arc<Array3<f32>>],
        text: &TextBatch,
        encoded: &Encoded,
        device: Device,
    ) -> Self {
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
            audio,
            features,
            text: Text::from_arrays(&text.input_ids, &text.attention_mask, device),
            tokens: targets.numel(),
            targets,
            positions,
        }
    }

    /// Of silence and a word: for a rank that has nothing, where the others wait for its gradients.
    pub fn silence(ears: &Ears, model: &Loaded) -> Result<Self> {
        let text = labels::collate(&model.tokenizer, &[("silence", "silence")], 64)?;
        let mel = Arc::new(ears.silence(1));
        Ok(Batch::new(&[], &[mel], &text, &Encoded::default(), model.device))
    }

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
