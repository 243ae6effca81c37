//! Features of a frozen encoder, made ahead: each clip once, whichever rank does it.

use crate::data::feed::{Clip, Ears, Example};
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::model::flamingo::Audio;
use crate::model::mode::Mode;
use crate::progress::Progress;
use crate::recipe::Precision;
use std::collections::{HashMap, HashSet};
use tch::{no_grad, Device, Kind, Tensor};

/// Clips per forward pass when features are computed ahead.
const ENCODE_AT_ONCE: usize = 8;

/// Forward passes of each rank between two exchanges of what they gave: ranks that are not equally fast wait that often.
const BETWEEN_EXCHANGES: usize = 8;

/// Features of a frozen encoder, by clip: (W, tokens, D) each.
#[derive(Default)]
pub struct Encoded(HashMap<Clip, Tensor>);

impl Encoded {
    /// Encodes each distinct clip once, in this precision, whichever rank does it, and keeps it in fp32: all ranks bring the same
    /// clips, and each gets all features, the bits that one process gets. Clips that cannot be heard by the rank whose part they
    /// are in are left out on all, and returned there with their errors.
    ///
    /// # Errors
    /// Ranks that bring another number of clips; a rank that is lost.
    pub fn of<'a>(
        model: &Loaded,
        ears: &Ears,
        clips: impl Iterator<Item = &'a Clip>,
        precision: Precision,
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
                let own = encode(model, ears, part, precision, &mut bad)?;
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
    pub(crate) fn clips(&self) -> HashSet<Clip> {
        self.0.keys().cloned().collect()
    }

    /// A clip's features (W, tokens, D), where they are here.
    pub fn get(&self, clip: &Clip) -> Option<&Tensor> {
        self.0.get(clip)
    }

    /// Pads and stacks: (B, W, tokens, D), with the windows' mask.
    pub(super) fn stack(&self, examples: &[Example], device: Device) -> Option<(Tensor, Audio)> {
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
    ranks.of_first(&mut first)?;
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
fn encode(
    model: &Loaded,
    ears: &Ears,
    clips: &[&Clip],
    precision: Precision,
    bad: &mut Vec<Error>,
) -> Result<Vec<Option<Tensor>>> {
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
        return Ok(all);
    }
    let audio = Audio::from_mels(mels.iter().map(|m| &**m), model.device);
    let encode = || no_grad(|| model.model.encode(&audio, Mode::EVAL, false));
    let features = model.compute(precision, encode)?.to_kind(Kind::Float);
    for (row, (i, mel)) in good.into_iter().zip(&mels).enumerate() {
        let own = features.get(row as i64).narrow(0, 0, mel.shape()[0] as i64);
        all[i] = Some(own.copy());
    }
    Ok(all)
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
    // Where a rank has failed, the others end here: before any of them waits on its device.
    ranks.sum(&mut sizes)?;
    let encoder = &model.model.config.encoder;
    let mut sizes = sizes.into_iter();
    let _guarded = ranks.guarded();
    for (part, owner) in features.iter_mut().zip(owners) {
        for (place, windows) in part.iter_mut().zip(&mut sizes) {
            if place.is_none() && windows > 0.0 {
                let shape = [windows as i64, encoder.tokens_per_window(), encoder.width()];
                *place = Some(Tensor::empty(shape, (Kind::Float, model.device)));
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
