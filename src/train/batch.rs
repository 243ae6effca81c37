//! A batch on the device, from the loader's arrays to the loss.

use crate::data::feed::{Clip, Ears, Example};
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::model::flamingo::{Audio, Flamingo, Text};
use crate::model::htsat::TrainMode;
use crate::model::input;
use crate::progress::Progress;
use crate::recipe::{Part, Precision, StageRecipe};
use crate::text::labels::{self, Batch as TextBatch};
use ndarray::Array3;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tch::{no_grad, Device, Kind, Tensor};

/// Clips per forward pass when features are computed ahead.
const ENCODE_AT_ONCE: usize = 8;

/// Features of a frozen encoder, by clip: (W, 64, D) each.
#[derive(Default)]
pub struct Encoded(HashMap<Clip, Tensor>);

impl Size {
    pub fn add(&mut self, other: &Size) {
        self.items += other.items;
        self.windows += other.windows;
        self.window_places += other.window_places;
        self.text += other.text;
        self.text_places += other.text_places;
    }
}

impl Encoded {
    /// Encodes each distinct clip once, in this precision, and keeps it in fp32. Clips that cannot be heard are left out, and returned with their errors.
    pub fn of<'a>(
        model: &Loaded,
        ears: &Ears,
        clips: impl Iterator<Item = &'a Clip>,
        precision: Precision,
        label: &str,
    ) -> Result<(Self, Vec<Error>)> {
        let mut distinct: Vec<&Clip> = clips.collect::<HashSet<_>>().into_iter().collect();
        // A set has no order; a fixed one keeps runs alike to the last bit.
        distinct.sort_by(|a, b| a.path().cmp(b.path()));
        let progress = Progress::new(label, distinct.len() as u64);
        let (mut map, mut bad) = (HashMap::new(), Vec::new());
        for clips in distinct.chunks(ENCODE_AT_ONCE) {
            let (mut good, mut mels) = (Vec::new(), Vec::new());
            for (clip, mel) in clips.iter().zip(ears.each(clips)) {
                match mel {
                    Ok(mel) => {
                        good.push(clip);
                        mels.push(mel);
                    }
                    Err(e) => bad.push(e),
                }
            }
            progress.inc(clips.len() as u64);
            if good.is_empty() {
                continue;
            }
            let audio = Audio::from_mels(mels.iter().map(|m| &**m), model.device);
            let encode = || no_grad(|| model.model.encode(&audio, TrainMode::default(), false));
            let features = model.compute(precision, encode)?.to_kind(Kind::Float);
            for (i, (clip, mel)) in good.into_iter().zip(&mels).enumerate() {
                let own = features.get(i as i64).narrow(0, 0, mel.shape()[0] as i64);
                map.insert((*clip).clone(), own.copy());
            }
        }
        progress.finish("");
        Ok((Encoded(map), bad))
    }

    /// The clips whose features are here.
    pub fn clips(&self) -> HashSet<Clip> {
        self.0.keys().cloned().collect()
    }

    pub fn get(&self, clip: &Clip) -> Option<&Tensor> {
        self.0.get(clip)
    }

    /// Pads and stacks: (B, W, 64, D), with the windows' mask.
    fn stack(&self, examples: &[Example], device: Device) -> Option<(Tensor, Audio)> {
        let each: Vec<&Tensor> = examples
            .iter()
            .map(|e| self.get(&e.clip))
            .collect::<Option<_>>()?;
        let windows: Vec<usize> = each.iter().map(|t| t.size()[0] as usize).collect();
        let most = windows.iter().copied().max()? as i64;
        let shape = each.first()?.size();
        let all = Tensor::zeros(
            [each.len() as i64, most, shape[1], shape[2]],
            (Kind::Float, device),
        );
        for (i, t) in each.iter().enumerate() {
            all.get(i as i64).narrow(0, 0, t.size()[0]).copy_(t);
        }
        Some((all, Audio::windows_only(&windows, device)))
    }
}

/// A batch on the device.
pub struct Batch {
    pub audio: Audio,
    /// Frozen features (B, W, 64, D), where they are known.
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

    /// Sum of the losses of the counted labels; see [`Flamingo::loss_sum`] for `chunk`. `train` turns on what only training
    /// does.
    pub fn loss_sum(&self, model: &Flamingo, stage: &StageRecipe, train: bool, chunk: usize) -> Tensor {
        let heard = match &self.features {
            Some(features) => model.hear_encoded(features, &self.audio, train),
            None => {
                let mode = match train {
                    true => TrainMode {
                        again: model.again && stage.train.contains(&Part::Clap),
                        ..stage.encoder_mode()
                    },
                    false => TrainMode::default(),
                };
                model.hear(&self.audio, mode, train)
            }
        };
        model.loss_sum(&self.text, &heard, &self.targets, &self.positions, chunk as i64)
    }
}

/// File, key and question of an item.
fn named(example: &Example) -> String {
    let (path, item) = (example.clip.path().display(), &example.item);
    format!("{path} (item {}: {:.60})", item.key, item.prompt)
}
