//! Items as what a batch is made of: clips, their mels, their tokens.

use super::item::{Item, Member};
use super::manifest::Manifest;
use super::nearby;
use crate::audio::{self, LogMel, Source, Span};
use crate::error::{Error, Result};
use crate::shapes::{Seconds, WINDOW_SAMPLES, WINDOW_SECONDS};
use crate::text::labels::{self, Batch as TextBatch};
use crate::text::tokenizer::SpecialTokens;
use crate::text::tokenizer::Tokenizer;
use ndarray::Array3;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::{prelude::*, ThreadPool, ThreadPoolBuilder};
use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Shorter pieces of a sound are left out: a decoder may end a few samples before its header says.
const SHORTEST_PIECE: Seconds = Seconds(0.1);

/// One piece of audio: file, start, and how many windows of it are heard.
/// Ordered by the name first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clip {
    /// The file, or the stretch of a shard.
    pub source: Source,
    /// Start in microseconds, so that a clip can be a key.
    start_us: u64,
    /// Most windows of 10 s that are heard.
    pub windows: usize,
    /// Windows that a packed sound was cut to.
    packed: Option<usize>,
    /// Most microseconds that are read, where that is less than the windows hold.
    most_us: Option<u64>,
}

fn micros(seconds: Seconds) -> u64 {
    (seconds.0.max(0.0) * 1e6).round() as u64
}

impl Clip {
    /// A clip of a file of its own, from `start` on.
    pub fn new(path: PathBuf, start: Seconds, windows: usize) -> Self {
        Clip {
            source: Source {
                name: path,
                container: None,
            },
            start_us: micros(start),
            windows,
            packed: None,
            most_us: None,
        }
    }

    /// At most so many seconds of it, above 0: as a file that ends there, so that the last window is filled up with silence.
    pub fn within(mut self, seconds: Seconds) -> Self {
        let windows = (seconds.0 / WINDOW_SECONDS).ceil() as usize;
        self.windows = self.windows.min(windows.max(1));
        self.most_us = Some(micros(seconds));
        self
    }

    /// The whole sound from its start on, however many windows that takes, in pieces of so many seconds; the last one may be shorter. A
    /// rest of less than [`SHORTEST_PIECE`] is none.
    ///
    /// # Errors
    /// A sound that cannot be read, or that was packed for a number of windows: what is behind them is not in it.
    pub(crate) fn pieces(&self, seconds: u32) -> Result<Vec<Clip>> {
        if let Some(windows) = self.packed {
            let found = format!("one that was packed for {windows} windows");
            return Err(Error::audio(self.path(), "a sound of its own length", found)
                .hint("name the file itself, or its shard"));
        }
        let length = audio::length(&self.source).map_err(nearby::hinted)?;
        let piece = micros(Seconds(f64::from(seconds.max(1))));
        let left = micros(length).saturating_sub(self.start_us);
        let whole = left.saturating_sub(micros(SHORTEST_PIECE)) / piece + 1;
        let one = |n: u64| Clip {
            start_us: self.start_us + n * piece,
            windows: (f64::from(seconds) / WINDOW_SECONDS).ceil() as usize,
            // Of one that begins behind the sound's end, reading says so.
            most_us: Some(match left.saturating_sub(n * piece) {
                0 => piece,
                rest => rest.min(piece),
            }),
            ..self.clone()
        };
        Ok((0..whole).map(one).collect())
    }

    /// The clip of a manifest's item.
    pub fn of(manifest: &Manifest, item: &Item, root: &Path, windows: usize) -> Self {
        let mut clip = Clip::new(manifest.audio_path(root, item), item.audio_start, windows);
        if let Some(Member { place, packed }) = &item.sound {
            clip.source.container = Some(place.clone());
            clip.packed = *packed;
        }
        clip
    }

    /// The file, for messages: of a sound in a shard `SHARD.tar/NAME`.
    pub fn path(&self) -> &Path {
        &self.source.name
    }

    /// Whether it is cut shorter than its windows are.
    pub(crate) fn is_cut(&self) -> bool {
        self.most_us.is_some()
    }

    /// The stretch of the file that is read.
    pub fn span(&self) -> Span {
        let whole = Seconds(self.windows as f64 * WINDOW_SECONDS);
        Span {
            start: Seconds(self.start_us as f64 / 1e6),
            duration: self
                .most_us
                .map_or(whole, |us| Seconds((us as f64 / 1e6).min(whole.0))),
        }
    }

    /// Tells its sound from others, wherever that lies: see [`Source::fingerprint`].
    pub(crate) fn fingerprint(&self) -> Result<blake3::Hash> {
        self.source.fingerprint().map_err(nearby::hinted)
    }

    /// Reads, resamples and cuts.
    ///
    /// # Shapes
    /// 1 to `windows` windows of 160,000 samples at 16 kHz.
    ///
    /// # Errors
    /// Those of [`audio::load`]; a sound that was packed for another number of windows and cut by it, so that its loudness
    /// is another.
    pub fn samples(&self) -> Result<Vec<Vec<f32>>> {
        let Some(packed) = self.packed else {
            let samples = audio::load_source(&self.source, self.span())?;
            return Ok(audio::windows(&samples, self.windows));
        };
        let samples = audio::load_packed(&self.source, packed.max(self.windows))?;
        // A sound that ends within both budgets was read whole for either.
        if packed != self.windows && samples.len() >= packed.min(self.windows) * WINDOW_SAMPLES {
            let expected = format!("a sound packed for {} windows", self.windows);
            return Err(Error::audio(self.path(), expected, packed.to_string())
                .hint("pack again with the stage's `windows`: loudness is normalised over what is read"));
        }
        Ok(audio::windows_of_int16(&samples, self.windows))
    }
}

impl Clip {
    /// White noise in its place: as many samples as it has up to its last one that is not zero, uniform, with its root mean square, of
    /// a seed that the sound's content gives.
    ///
    /// # Shapes
    /// As [`Clip::samples`].
    ///
    /// # Errors
    /// Those of [`Clip::samples`].
    pub(crate) fn noise(&self) -> Result<Vec<Vec<f32>>> {
        let samples = self.samples().map_err(nearby::hinted)?;
        let windows = samples.len();
        let samples: Vec<f32> = samples.into_iter().flatten().collect();
        let sounding = samples.iter().rposition(|s| *s != 0.0).map_or(0, |last| last + 1);
        let power: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
        // Uniform over ±a has the root mean square a/√3.
        let most = (3.0 * power / sounding.max(1) as f64).sqrt();
        let mut random = ChaCha8Rng::from_seed(*self.fingerprint()?.as_bytes());
        let noise: Vec<f64> = (0..samples.len())
            .map(|at| match at < sounding {
                true => random.gen_range(-1.0..1.0) * most,
                false => 0.0,
            })
            .collect();
        // What is louder than a sound can be is cut off there.
        Ok(audio::windows(&noise, windows))
    }
}

/// A question about a clip, with its answer.
#[derive(Debug, Clone)]
pub struct Example {
    /// What is heard.
    pub clip: Clip,
    /// What is asked, and the answer.
    pub item: Item,
}

impl Example {
    /// The question of a manifest's item.
    pub(crate) fn read(manifest: &Manifest, index: usize, root: &Path, windows: usize) -> Result<Self> {
        let item = manifest.item(index)?;
        Ok(Example {
            clip: Clip::of(manifest, &item, root, windows),
            item,
        })
    }
}

impl Example {
    /// Fails where its texts hold special tokens and those are refused.
    pub(crate) fn accepted(&self, tokenizer: &Tokenizer) -> Result<()> {
        if tokenizer.special_tokens != SpecialTokens::Refuse {
            return Ok(());
        }
        match tokenizer.example(&self.item.prompt, &self.item.output) {
            Ok(_) => Ok(()),
            Err(Error::Recipe { message, hint, .. }) => {
                let expected = "texts without special tokens, as data.special_tokens_in_texts says";
                let place = format!("item {}", self.item.key);
                let e = Error::data(self.clip.path(), place, expected, message);
                Err(e.hint(hint.unwrap_or_default()))
            }
            Err(e) => Err(e),
        }
    }
}

/// The questions of a manifest, at most `limit`, from the front.
pub fn examples(manifest: &Manifest, root: &Path, windows: usize, limit: usize) -> Result<Vec<Example>> {
    (0..manifest.len().min(limit))
        .into_par_iter()
        .map(|i| Example::read(manifest, i, root, windows))
        .collect()
}

/// Files to mels, kept in memory up to a bound.
pub struct Ears {
    front_end: LogMel,
    kept: Mutex<Kept>,
    most_bytes: usize,
    /// Threads that hear several clips at once; none for those of the whole program.
    pool: Option<ThreadPool>,
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
            pool: None,
        }
    }

    /// Hears several clips at once on so many threads, for a process that may not take all cores.
    pub fn on_threads(mut self, threads: usize) -> Result<Self> {
        self.pool = Some(pool("ears", threads)?);
        Ok(self)
    }

    /// # Shapes
    /// (W, 1001, 64) log-mel in dB, W at most the clip's windows, never 0.
    ///
    /// # Errors
    /// Those of [`Clip::samples`]. A decoder that panics is an error of its clip.
    pub fn mel(&self, clip: &Clip) -> Result<Arc<Array3<f32>>> {
        caught(clip, || self.hear(clip))
    }

    fn hear(&self, clip: &Clip) -> Result<Arc<Array3<f32>>> {
        if let Some(mel) = self.lock().mels.get(clip) {
            return Ok(mel.clone());
        }
        let samples = clip.samples().map_err(nearby::hinted)?;
        let mel = Arc::new(self.front_end.batch(&samples));
        let size = mel.len() * std::mem::size_of::<f32>();
        let mut kept = self.lock();
        if kept.bytes + size <= self.most_bytes && kept.mels.insert(clip.clone(), mel.clone()).is_none() {
            kept.bytes += size;
        }
        Ok(mel)
    }

    /// [`Ears::mel`] of a sound in memory, of what `clip` says of it; its path is a name for messages. `mp3`: it is read as a file
    /// whose name ends so.
    ///
    /// # Errors
    /// Those of [`Ears::mel`], but for a file's own.
    pub(crate) fn mel_in_memory(&self, clip: &Clip, bytes: &Arc<[u8]>, mp3: bool) -> Result<Array3<f32>> {
        caught(clip, || {
            let samples = audio::load_bytes(clip.path(), bytes, mp3, clip.span())?;
            Ok(self.front_end.batch(&audio::windows(&samples, clip.windows)))
        })
    }

    /// The mel of digital silence as long as one window: what the control hears.
    pub fn silence(&self, windows: usize) -> Array3<f32> {
        let silent = audio::windows(
            &vec![0f64; windows.max(1) * crate::shapes::WINDOW_SAMPLES],
            windows.max(1),
        );
        self.front_end.batch(&silent)
    }

    /// The mel of [`Clip::noise`].
    ///
    /// # Errors
    /// Those of [`Ears::mel`].
    pub fn noise(&self, clip: &Clip) -> Result<Arc<Array3<f32>>> {
        caught(clip, || Ok(Arc::new(self.front_end.batch(&clip.noise()?))))
    }

    /// Mels of several clips, in parallel; the first error in order is returned.
    pub fn mels(&self, clips: &[&Clip]) -> Result<Vec<Arc<Array3<f32>>>> {
        self.each(clips).into_iter().collect()
    }

    /// [`Ears::mels`] with an error of its own for each clip.
    pub fn each(&self, clips: &[&Clip]) -> Vec<Result<Arc<Array3<f32>>>> {
        let all = || clips.par_iter().map(|clip| self.mel(clip)).collect();
        match &self.pool {
            Some(pool) => pool.install(all),
            None => all(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // A panic while holding the lock cannot leave the map half changed.
        self.kept.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A decoder that panics is an error of its clip.
fn caught<T>(clip: &Clip, hear: impl FnOnce() -> Result<T>) -> Result<T> {
    let caught = std::panic::catch_unwind(AssertUnwindSafe(hear));
    let found = "a panic of its decoder";
    caught.unwrap_or_else(|_| Err(Error::audio(clip.path(), "a file that decodes", found)))
}

/// Threads that decode; 0 for one a core.
pub(super) fn pool(name: &'static str, threads: usize) -> Result<ThreadPool> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let pool = ThreadPoolBuilder::new().num_threads(threads);
    let pool = pool.thread_name(move |i| format!("{name}-{i}")).build();
    pool.map_err(|e| Error::Training {
        message: format!("{threads} {name} threads do not start: {e}"),
        hint: Some("lower data.threads".into()),
    })
}

/// Prompts and answers of a batch as padded ids, mask and labels.
pub fn texts(batch: &[Example], tokenizer: &Tokenizer, max_tokens: usize) -> Result<TextBatch> {
    let pairs: Vec<(&str, &str)> = batch
        .iter()
        .map(|e| (e.item.prompt.as_str(), e.item.output.as_str()))
        .collect();
    labels::collate(tokenizer, &pairs, max_tokens)
}
