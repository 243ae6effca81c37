//! From manifests to batches of plain arrays: which items, in which order, their mels and their tokens.

use super::manifest::{Item, Manifest};
use crate::audio::{self, LogMel, Span};
use crate::error::{Error, Result};
use crate::shapes::{Seconds, WINDOW_SECONDS};
use crate::text::labels::{self, Batch as TextBatch};
use crate::text::tokenizer::Tokenizer;
use ndarray::Array3;
use rand::seq::SliceRandom;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use rayon::prelude::*;
use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// One piece of audio: file, start, and how many windows of it are heard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clip {
    pub path: PathBuf,
    /// Start in microseconds, so that a clip can be a key.
    start_us: u64,
    pub windows: usize,
}

impl Clip {
    pub fn new(path: PathBuf, start: Seconds, windows: usize) -> Self {
        Clip {
            path,
            start_us: (start.0.max(0.0) * 1e6).round() as u64,
            windows,
        }
    }

    fn span(&self) -> Span {
        Span {
            start: Seconds(self.start_us as f64 / 1e6),
            duration: Seconds(self.windows as f64 * WINDOW_SECONDS),
        }
    }
}

/// A question about a clip, with its answer.
#[derive(Debug, Clone)]
pub struct Example {
    pub clip: Clip,
    pub item: Item,
}

/// Files to mels, kept in memory up to a bound.
pub struct Ears {
    front_end: LogMel,
    kept: Mutex<Kept>,
    most_bytes: usize,
}

#[derive(Default)]
struct Kept {
    mels: HashMap<Clip, Arc<Array3<f32>>>,
    bytes: usize,
}

impl Ears {
    /// Keeps at most `cache_mib` MiB of mels; what does not fit is computed again each time.
    pub fn new(cache_mib: usize) -> Self {
        Ears {
            front_end: LogMel::new(),
            kept: Mutex::default(),
            most_bytes: cache_mib << 20,
        }
    }

    /// # Shapes
    /// (W, 1001, 64) log-mel in dB, W at most the clip's windows, never 0.
    pub fn mel(&self, clip: &Clip) -> Result<Arc<Array3<f32>>> {
        if let Some(mel) = self.lock().mels.get(clip) {
            return Ok(mel.clone());
        }
        let samples = audio::load(&clip.path, clip.span())?;
        let mel = Arc::new(self.front_end.batch(&audio::windows(&samples, clip.windows)));
        let size = mel.len() * std::mem::size_of::<f32>();
        let mut kept = self.lock();
        if kept.bytes + size <= self.most_bytes && kept.mels.insert(clip.clone(), mel.clone()).is_none() {
            kept.bytes += size;
        }
        Ok(mel)
    }

    /// The mel of digital silence as long as one window: what the control hears.
    pub fn silence(&self, windows: usize) -> Array3<f32> {
        let silent = audio::windows(
            &vec![0f64; windows.max(1) * crate::shapes::WINDOW_SAMPLES],
            windows.max(1),
        );
        self.front_end.batch(&silent)
    }

    /// Mels of several clips, in parallel; the first error in order is returned.
    pub fn mels(&self, clips: &[&Clip]) -> Result<Vec<Arc<Array3<f32>>>> {
        self.each(clips).into_iter().collect()
    }

    /// [`Ears::mels`] with an error of its own for each clip. A decoder that panics is an error of its clip.
    pub fn each(&self, clips: &[&Clip]) -> Vec<Result<Arc<Array3<f32>>>> {
        let mel = |clip: &&Clip| {
            let caught = std::panic::catch_unwind(AssertUnwindSafe(|| self.mel(clip)));
            caught.unwrap_or_else(|_| {
                Err(Error::audio(
                    &clip.path,
                    "a file that decodes",
                    "a panic of its decoder",
                ))
            })
        };
        clips.par_iter().map(mel).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // A panic while holding the lock cannot leave the map half changed.
        self.kept.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Weighted sets in a seeded order, epoch after epoch.
pub struct Shuffled {
    sets: Vec<(Vec<Example>, f64)>,
    seed: u64,
}

impl Shuffled {
    /// Opens the manifests; `sets` are (manifest, weight).
    pub fn open(root: &Path, sets: &[(PathBuf, f64)], windows: usize, seed: u64) -> Result<Self> {
        let sets = sets
            .iter()
            .map(|(path, weight)| Ok((examples(&Manifest::open(path)?, root, windows), *weight)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Shuffled { sets, seed })
    }

    /// Number of items of all sets, each once.
    pub fn len(&self) -> usize {
        self.sets.iter().map(|(examples, _)| examples.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every example, each set once.
    pub fn all(&self) -> impl Iterator<Item = &Example> {
        self.sets.iter().flat_map(|(examples, _)| examples)
    }

    /// The examples of one epoch, shuffled: each set weight times, a fraction as a random part of it.
    pub fn epoch(&self, epoch: u64) -> Vec<Example> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut order = Vec::new();
        for (examples, weight) in &self.sets {
            let mut left = (examples.len() as f64 * weight).round() as usize;
            while left > 0 {
                let mut pass: Vec<&Example> = examples.iter().collect();
                pass.shuffle(&mut rng);
                pass.truncate(left);
                left -= pass.len();
                order.extend(pass.into_iter().cloned());
            }
        }
        order.shuffle(&mut rng);
        order
    }

    /// An endless row of batches; every epoch's last one may be smaller, none is empty.
    pub fn batches(self, batch_size: usize) -> Result<impl Iterator<Item = Vec<Example>>> {
        let mut epoch = 0;
        let mut queue: Vec<Vec<Example>> = Vec::new();
        if self.epoch(0).is_empty() {
            return Err(Error::Training {
                message: "the sets of this stage hold no item".into(),
                hint: Some("raise a weight, or name a larger manifest".into()),
            });
        }
        Ok(std::iter::from_fn(move || {
            while queue.is_empty() {
                let order = self.epoch(epoch);
                queue = order.chunks(batch_size.max(1)).rev().map(<[_]>::to_vec).collect();
                epoch += 1;
            }
            queue.pop()
        }))
    }
}

/// The questions of a manifest.
pub fn examples(manifest: &Manifest, root: &Path, windows: usize) -> Vec<Example> {
    manifest
        .items
        .iter()
        .map(|item| Example {
            clip: Clip::new(manifest.audio_path(root, item), item.audio_start, windows),
            item: item.clone(),
        })
        .collect()
}

/// Prompts and answers of a batch as padded ids, mask and labels.
pub fn texts(batch: &[Example], tokenizer: &Tokenizer, max_tokens: usize) -> Result<TextBatch> {
    let pairs: Vec<(&str, &str)> = batch
        .iter()
        .map(|e| (e.item.prompt.as_str(), e.item.output.as_str()))
        .collect();
    labels::collate(tokenizer, &pairs, max_tokens)
}
