//! A batch on the device, from the loader's arrays to the loss.

use crate::data::feed::{Clip, Ears, Example};
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::model::flamingo::{Audio, Flamingo, Text};
use crate::model::htsat::TrainMode;
use crate::model::input;
use crate::progress::Progress;
use crate::recipe::{Part, StageRecipe};
use crate::shapes::TOKENS_PER_WINDOW;
use crate::text::labels::{self, Batch as TextBatch};
use ndarray::Array3;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tch::{no_grad, Device, Kind, Tensor};

/// Clips per forward pass when features are computed ahead.
const ENCODE_AT_ONCE: usize = 8;

/// Forward passes of each rank between two exchanges of what they gave: ranks that are not equally fast wait that often.
const BETWEEN_EXCHANGES: usize = 8;

/// Kinds that features come in.
const KINDS: [Kind; 3] = [Kind::Float, Kind::BFloat16, Kind::Half];

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
    /// Encodes each distinct clip once, whichever rank does it: all ranks bring the same clips, and each gets all features, the
    /// bits that one process gets. Clips that cannot be heard by the rank whose part they are in are left out on all, and
    /// returned there with their errors.
    ///
    /// # Errors
    /// Ranks that bring another number of clips; a rank that is lost.
    pub fn of<'a>(
        model: &Loaded,
        ears: &Ears,
        clips: impl Iterator<Item = &'a Clip>,
        ranks: &Ranks,
        label: &str,
    ) -> Result<(Self, Vec<Error>)> {
        let distinct = in_order(clips, ranks)?;
        let progress = Progress::new(label, distinct.len() as u64);
        // What is encoded together stays together: in another company a clip's last bits are others.
        let parts: Vec<&[&Clip]> = distinct.chunks(ENCODE_AT_ONCE).collect();
        let windows: Vec<usize> = parts
            .iter()
            .map(|part| part.iter().map(|c| c.windows).sum())
            .collect();
        let owners = owners(&windows, ranks.world);
        let (mut map, mut bad) = (HashMap::new(), Vec::new());
        let mut encoded = vec![0.0; ranks.world];
        let round = BETWEEN_EXCHANGES * ranks.world;
        for (parts, owners) in parts.chunks(round).zip(owners.chunks(round)) {
            let mut features: Vec<Vec<Option<Tensor>>> = Vec::with_capacity(parts.len());
            let mut others = 0;
            for (part, owner) in parts.iter().zip(owners) {
                if *owner != ranks.rank {
                    features.push(part.iter().map(|_| None).collect());
                    others += part.len();
                    continue;
                }
                let own = encode(model, ears, part, &mut bad);
                encoded[ranks.rank] += own.iter().flatten().count() as f64;
                features.push(own);
                progress.inc(part.len() as u64);
            }
            exchange(model, ranks, owners, &mut features)?;
            progress.inc(others as u64);
            for (clip, own) in parts
                .iter()
                .copied()
                .flatten()
                .zip(features.into_iter().flatten())
            {
                if let Some(own) = own {
                    map.insert((*clip).clone(), own);
                }
            }
        }
        ranks.sum(&mut encoded)?;
        progress.finish(&match ranks.many() {
            true => shared_out(&encoded),
            false => String::new(),
        });
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

/// Distinct clips, alike on all ranks: where machines have their files in other places, their names may be ordered otherwise.
///
/// # Errors
/// Ranks that bring another number of clips.
fn in_order<'a>(clips: impl Iterator<Item = &'a Clip>, ranks: &Ranks) -> Result<Vec<&'a Clip>> {
    let mut seen = HashSet::new();
    let distinct: Vec<&Clip> = clips.filter(|c| seen.insert(*c)).collect();
    let mut order: Vec<usize> = (0..distinct.len()).collect();
    order.sort_by_key(|i| distinct[*i]);
    let mut first: Vec<f64> = order.into_iter().map(|i| i as f64).collect();
    ranks.from_first(&mut first)?;
    Ok(first.into_iter().map(|i| distinct[i as usize]).collect())
}

/// The rank that encodes each part, so that all have about as many windows.
fn owners(windows: &[usize], world: usize) -> Vec<usize> {
    let mut load = vec![0; world];
    let least = windows.iter().map(|windows| {
        let rank = (0..world).min_by_key(|r| load[*r]).unwrap_or(0);
        load[rank] += windows;
        rank
    });
    least.collect()
}

/// The features of clips that are encoded together; none of those that cannot be heard.
fn encode(model: &Loaded, ears: &Ears, clips: &[&Clip], bad: &mut Vec<Error>) -> Vec<Option<Tensor>> {
    let (mut good, mut mels) = (Vec::new(), Vec::new());
    for (i, mel) in ears.each(clips).into_iter().enumerate() {
        match mel {
            Ok(mel) => {
                good.push(i);
                mels.push(mel);
            }
            Err(e) => bad.push(e),
        }
    }
    let mut all: Vec<Option<Tensor>> = clips.iter().map(|_| None).collect();
    if good.is_empty() {
        return all;
    }
    let audio = Audio::from_mels(mels.iter().map(|m| &**m), model.device);
    let features = no_grad(|| model.model.encode(&audio, TrainMode::default(), false));
    for (row, (i, mel)) in good.into_iter().zip(&mels).enumerate() {
        let own = features.get(row as i64).narrow(0, 0, mel.shape()[0] as i64);
        all[i] = Some(own.copy());
    }
    all
}

/// Gives all ranks the features that each has of its own parts: first how large they are, as nobody else knows it, then part by
/// part they themselves, into the places where they stay.
fn exchange(
    model: &Loaded,
    ranks: &Ranks,
    owners: &[usize],
    features: &mut [Vec<Option<Tensor>>],
) -> Result<()> {
    if !ranks.many() {
        return Ok(());
    }
    let windows = |f: &Option<Tensor>| f.as_ref().map_or(0.0, |f| f.size()[0] as f64);
    let mut sizes: Vec<f64> = features.iter().flatten().map(windows).collect();
    let own = features.iter().flatten().flatten().next();
    // A rank without features of its own takes the others' kind.
    let mut kind = [own.map_or(-1.0, |f| {
        KINDS.iter().position(|k| *k == f.kind()).unwrap_or(KINDS.len()) as f64
    })];
    // Where a rank has failed, the others end here: before any of them waits on its device.
    ranks.sum(&mut sizes)?;
    ranks.max(&mut kind)?;
    let kind = match KINDS.get(kind[0].max(0.0) as usize) {
        Some(kind) => *kind,
        None => {
            return Err(Error::Training {
                message: format!("features are exchanged as one of {KINDS:?}, and are none of these"),
                hint: None,
            })
        }
    };
    let width = model.model.config.htsat.output_dim();
    let mut sizes = sizes.into_iter();
    let _guarded = ranks.guarded();
    for (part, owner) in features.iter_mut().zip(owners) {
        for (place, windows) in part.iter_mut().zip(&mut sizes) {
            if place.is_none() && windows > 0.0 {
                let shape = [windows as i64, TOKENS_PER_WINDOW, width];
                *place = Some(Tensor::empty(shape, (kind, model.device)));
            }
        }
        let all: Vec<Tensor> = part.iter().flatten().map(Tensor::shallow_clone).collect();
        ranks.broadcast(&all, *owner)?;
    }
    Ok(())
}

/// How many clips the ranks have encoded, and how evenly.
fn shared_out(encoded: &[f64]) -> String {
    let most = encoded.iter().copied().fold(0.0, f64::max);
    let least = encoded.iter().copied().fold(most, f64::min);
    format!(
        "{} encoded by {} ranks, {least} to {most} by each",
        encoded.iter().sum::<f64>(),
        encoded.len()
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_shared_out_by_their_windows() {
        assert_eq!(owners(&[8; 5], 2), [0, 1, 0, 1, 0]);
        assert_eq!(owners(&[24, 8, 8, 8, 3], 2), [0, 1, 1, 1, 0]);
        assert_eq!(owners(&[2], 3), [0]);
        assert_eq!(owners(&[], 3), [0usize; 0]);
        assert_eq!(owners(&[5, 5], 1), [0, 0]);
    }

    #[test]
    fn what_the_ranks_did_is_said_in_one_line() {
        let said = "11 encoded by 3 ranks, 0 to 8 by each";
        assert_eq!(shared_out(&[8.0, 3.0, 0.0]), said);
    }
}
