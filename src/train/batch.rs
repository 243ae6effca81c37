//! A batch on its way from the loader to the loss.

use super::stage;
use crate::data::feed::{self, Clip, Ears, Example, Shuffled};
use crate::data::skips::Ledger;
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::model::flamingo::{Audio, Flamingo, Text};
use crate::model::htsat::TrainMode;
use crate::model::input;
use crate::progress::Progress;
use crate::recipe::StageRecipe;
use crate::text::labels::Batch as TextBatch;
use crate::text::tokenizer::Tokenizer;
use ndarray::Array3;
use std::{
    collections::{HashMap, HashSet},
    sync::{mpsc, Arc},
};
use tch::{no_grad, Device, Kind, Tensor};

/// Clips per forward pass when features are computed ahead.
const ENCODE_AT_ONCE: usize = 8;

/// Features of a frozen encoder, by clip: (W, 64, D) each.
#[derive(Default)]
pub struct Encoded(HashMap<Clip, Tensor>);

impl Encoded {
    /// Encodes each distinct clip once. Clips that cannot be heard are left out, and returned with their errors.
    pub fn of<'a>(
        model: &Loaded,
        ears: &Ears,
        clips: impl Iterator<Item = &'a Clip>,
        label: &str,
    ) -> Result<(Self, Vec<Error>)> {
        let mut distinct: Vec<&Clip> = clips.collect::<HashSet<_>>().into_iter().collect();
        // A set has no order; a fixed one keeps runs alike to the last bit.
        distinct.sort_by(|a, b| a.path.cmp(&b.path));
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
            let features = no_grad(|| model.model.encode(&audio, TrainMode::default(), false));
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
    fn stack(&self, clips: &[Clip], device: Device) -> Option<(Tensor, Audio)> {
        let each: Vec<&Tensor> = clips.iter().map(|c| self.get(c)).collect::<Option<_>>()?;
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

/// A batch as the loader's thread makes it: no tensor yet.
pub struct Prepared {
    clips: Vec<Clip>,
    /// Empty when the features are known already.
    mels: Vec<Arc<Array3<f32>>>,
    text: TextBatch,
}

/// Loads, windows, transforms and tokenizes a batch; clips in `known` have their features already. Items that cannot be
/// used go into the ledger and not into the batch; without a ledger they are errors. None when nothing is left.
pub fn prepare(
    examples: &[Example],
    known: &HashSet<Clip>,
    ears: &Ears,
    tokenizer: &Tokenizer,
    max_tokens: usize,
    ledger: Option<&Ledger>,
) -> Result<Option<Prepared>> {
    let unknown: Vec<&Clip> = examples
        .iter()
        .map(|e| &e.clip)
        .filter(|c| !known.contains(c))
        .collect();
    let mut heard: HashMap<&Clip, Result<_>> = unknown.iter().copied().zip(ears.each(&unknown)).collect();
    let mut kept = Vec::with_capacity(examples.len());
    for example in examples {
        match (heard.get(&example.clip), ledger) {
            (Some(Err(e)), Some(ledger)) => ledger.skip(example, e)?,
            (Some(Err(_)), None) => {
                if let Some(Err(e)) = heard.remove(&example.clip) {
                    return Err(e);
                }
            }
            _ => kept.push(example.clone()),
        }
    }
    if kept.is_empty() {
        return Ok(None);
    }
    let clips: Vec<Clip> = kept.iter().map(|e| e.clip.clone()).collect();
    // Features of some and mels of others do not go into one batch: then all are heard.
    let mels = match clips.iter().all(|c| known.contains(c)) {
        true => Vec::new(),
        false => ears.mels(&clips.iter().collect::<Vec<_>>())?,
    };
    Ok(Some(Prepared {
        mels,
        text: feed::texts(&kept, tokenizer, max_tokens)?,
        clips,
    }))
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
}

impl Batch {
    pub fn new(prepared: Prepared, encoded: &Encoded, device: Device) -> Self {
        let (features, audio) = match prepared
            .mels
            .is_empty()
            .then(|| encoded.stack(&prepared.clips, device))
        {
            Some(Some((features, audio))) => (Some(features), audio),
            _ => (None, Audio::from_mels(prepared.mels.iter().map(|m| &**m), device)),
        };
        let (targets, positions) = input::targets(&prepared.text.labels, device);
        Batch {
            audio,
            features,
            text: Text::from_arrays(&prepared.text.input_ids, &prepared.text.attention_mask, device),
            tokens: targets.numel(),
            targets,
            positions,
        }
    }

    /// Mean loss over the batch's counted labels. `train` turns on what only training does.
    pub fn loss(&self, model: &Flamingo, stage: &StageRecipe, train: bool) -> Tensor {
        let heard = match &self.features {
            Some(features) => model.hear_encoded(features, &self.audio, train),
            None => {
                let mode = if train {
                    stage::clap_mode(stage)
                } else {
                    TrainMode::default()
                };
                model.hear(&self.audio, mode, train)
            }
        };
        model.loss(&self.text, &heard, &self.targets, &self.positions)
    }
}

/// Runs `body` with a source of batches that a thread prepares up to `ahead` before they are asked for.
/// The order of batches does not depend on the threads.
#[allow(clippy::too_many_arguments)]
pub fn prefetch(
    blend: Shuffled,
    batch_size: usize,
    ahead: usize,
    encoded: &Encoded,
    ears: &Ears,
    model: &Loaded,
    max_tokens: usize,
    ledger: &Ledger,
    body: impl FnOnce(&mut dyn FnMut() -> Result<Batch>) -> Result<()>,
) -> Result<()> {
    let batches = blend.batches(batch_size)?;
    // Tensors do not cross threads; their names do.
    let known = encoded.clips();
    let tokenizer = &model.tokenizer;
    let (send, receive) = mpsc::sync_channel::<Result<Prepared>>(ahead);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for examples in batches {
                let prepared =
                    prepare(&examples, &known, ears, tokenizer, max_tokens, Some(ledger)).transpose();
                // A batch of which nothing is left is none.
                let Some(prepared) = prepared else { continue };
                let failed = prepared.is_err();
                // The receiver is gone when training ended.
                if send.send(prepared).is_err() || failed {
                    return;
                }
            }
        });
        let mut next = || {
            let prepared = receive.recv().map_err(|_| Error::Training {
                message: "the loader ended before training did".into(),
                hint: None,
            })??;
            Ok(Batch::new(prepared, encoded, model.device))
        };
        let result = body(&mut next);
        drop(receive);
        result
    })
}
