//! From a sound file to log-mel windows: [`load`] → [`windows()`] → [`LogMel::batch`].
//!
//! | file | what |
//! |---|---|
//! | `source` | where a sound's bytes are: a file, or a stretch of a shard |
//! | `open` | opening a file: what it is, whether it can be read |
//! | `kind` | what a file is that cannot, by its first bytes |
//! | `view` | a file's bytes as the decoder library shall see them |
//! | `riff` | what a WAV, RF64 or BW64 header promises, checked against the file |
//! | `fmt` | what its samples are |
//! | `headers` | NIST SPHERE and AU |
//! | `mp4` | where the sound of an MP4 file begins, and what its tracks are |
//! | `aac` | HE-AAC told from AAC-LC |
//! | `decode` | a file's frames, whatever its format |
//! | `resample` | any rate to 16 kHz, matched to soxr HQ |
//! | `filter` | the design of its filters |
//! | `overlap_save` | its long filter, by Fourier transforms |
//! | `polyphase` | its short filter |
//! | `mp3` | the reference's own way with .mp3 files |
//! | `windows` | windows of 10 s, the int16 round trip, repeat-padding |
//! | `mel` | log-mel spectrograms |

mod aac;
pub mod decode;
mod filter;
mod fmt;
mod headers;
mod kind;
pub mod mel;
mod mp3;
mod mp4;
mod open;
mod overlap_save;
mod polyphase;
pub(crate) mod resample;
mod riff;
mod source;
mod view;
pub mod windows;

pub use mel::LogMel;
pub use source::{Source, Stretch};
pub use windows::{int16_round_trip, repeat_pad, to_int16, windows};
pub(crate) use windows::{to_int16_f64, windows_of_int16};

use crate::{
    error::{Error, Result},
    shapes::{SampleRate, Seconds, SAMPLE_RATE, WINDOW_SAMPLES},
};
use decode::Reader;
use resample::Resampler;
use std::{path::Path, sync::Arc};

/// The stretch of a file to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Where it begins in the file.
    pub start: Seconds,
    /// The window budget × 10 s.
    pub duration: Seconds,
}

/// Reads `span` of a sound file as the reference does (`audio_flamingo_2/data/data.py`, `load_audio`): 16 kHz,
/// one channel, within ±1, at most `span.duration` long. Float64, as in the reference: the int16 values that
/// [`windows()`] makes of it are then the same.
///
/// * Files whose name ends in `.mp3`: all channels averaged, resampled by linear interpolation, 16-bit
///   arithmetic throughout (pydub). Else: the first channel, resampled as soxr HQ does.
/// * The loudness is normalised over *what was read*. If no sample is negative, 0..max becomes −1..1; else
///   the absolute peak becomes 1. Silence stays silence (in the reference it becomes NaN and then, cast to
///   int16, zero).
/// * Reference: for files other than mp3, what is read is `start + duration` seconds long, one second too many
///   for each second of `start`. The surplus counts for the normalisation, here too, and is then dropped.
/// * Deviation: of an mp3 that ends before `start + duration` the reference reads the whole file and forgets
///   `start`, so that a question is asked about other sounds than its answer; here `start` counts.
///
/// Memory: the samples of `span.duration` (of an mp3, its frames as well) and one packet, however long the
/// file is or says it is.
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened; [`Error::Audio`] when it is empty, not sound, cut off, holds
/// NaN or infinity, has an absurd rate or number of channels, or ends before `start`.
pub fn load(path: &Path, span: Span) -> Result<Vec<f64>> {
    load_source(&Source::from(path), span)
}

/// [`load`] of a source's bytes.
pub(crate) fn load_source(source: &Source, span: Span) -> Result<Vec<f64>> {
    let path = &*source.name;
    let mp3 = (path.file_name().and_then(|n| n.to_str())).is_some_and(|n| n.ends_with(".mp3"));
    load_from(path, mp3, span, || Reader::open_source(source))
}

/// [`load`] of bytes in memory, which messages call `name`. `mp3`: they are read as a file whose name ends so.
pub(crate) fn load_bytes(name: &Path, bytes: &Arc<[u8]>, mp3: bool, span: Span) -> Result<Vec<f64>> {
    load_from(name, mp3, span, || Reader::open_bytes(name, bytes))
}

fn load_from<'p>(
    path: &Path,
    mp3: bool,
    span: Span,
    open: impl Fn() -> Result<Reader<'p>>,
) -> Result<Vec<f64>> {
    for (what, Seconds(s)) in [("start", span.start), ("duration", span.duration)] {
        if !s.is_finite() || s < 0.0 {
            let expected = format!("a {what} of 0 s or more");
            return Err(Error::audio(path, expected, format!("{s} s")));
        }
    }
    let reader = open()?;
    // Truncated, as Python's int() does.
    let frame = |s: f64| (s * f64::from(reader.rate)) as u64;
    let start = frame(span.start.0);
    let end_of_span = frame(span.start.0 + span.duration.0);
    let samples = match mp3 {
        true => mp3::load(path, reader, start, end_of_span)?,
        false => load_file(
            path,
            reader,
            start,
            start.saturating_add(end_of_span),
            span.duration,
        )?,
    };
    if samples.is_empty() {
        let found = match start {
            0 => "none".to_string(),
            _ => match length_of(&open) {
                Ok(Seconds(s)) => format!("the end before it: the sound is {s:.1} s long"),
                Err(_) => "the end before it".to_string(),
            },
        };
        return Err(Error::audio(
            path,
            format!("samples from {} s on", span.start.0),
            found,
        ));
    }
    Ok(samples)
}

/// How long a sound is: what its header says where that is sure, else all of it is decoded.
///
/// # Errors
/// Those of [`load`].
pub(crate) fn length(source: &Source) -> Result<Seconds> {
    length_of(&|| Reader::open_source(source))
}

fn length_of<'p>(open: &dyn Fn() -> Result<Reader<'p>>) -> Result<Seconds> {
    let reader = open()?;
    let rate = f64::from(reader.rate);
    let frames = match reader.frames.filter(|_| reader.lossless) {
        Some(frames) => frames,
        None => reader.read(0, u64::MAX, |_| {})?,
    };
    Ok(Seconds(frames as f64 / rate))
}

/// Reads what [`to_int16`] made of [`load`]'s samples, packed as 16 kHz mono int16: at most `windows` of 10 s, as they are,
/// not normalised again.
///
/// # Errors
/// Those of [`load`]; [`Error::Audio`] when the sound is not 16 kHz mono.
pub(crate) fn load_packed(source: &Source, windows: usize) -> Result<Vec<i16>> {
    let reader = Reader::open_source(source)?;
    if (reader.rate, reader.channels) != (SAMPLE_RATE, 1) {
        let found = format!("{} Hz, {} channels", reader.rate, reader.channels);
        let expected = format!("{SAMPLE_RATE} Hz, 1 channel, as packed");
        return Err(Error::audio(&source.name, expected, found));
    }
    let mut samples = Vec::new();
    // Full scale is 32768 to the decoder: exact both ways.
    let most = windows.saturating_mul(WINDOW_SAMPLES) as u64;
    reader.read(0, most, |block| {
        samples.extend(block.iter().map(|v| (v * 32768.0) as i16));
    })?;
    Ok(samples)
}

/// Anything but mp3: first channel, soxr.
fn load_file(path: &Path, reader: Reader, start: u64, end: u64, duration: Seconds) -> Result<Vec<f64>> {
    let channels = reader.channels;
    let mut resampler = match reader.rate {
        SAMPLE_RATE => None,
        rate => Some(Resampler::new(path, rate, SAMPLE_RATE)?),
    };
    let mut kept = Kept::new(duration.samples(SampleRate(SAMPLE_RATE)));
    let (mut picked, mut out) = (Vec::new(), Vec::new());
    let mut range = Range::default();
    reader.read(start, end, |frames| {
        // The peak that counts here is that of all channels, before resampling.
        range.widen(frames);
        let first = match channels {
            1 => frames,
            _ => {
                picked.clear();
                picked.extend(frames.chunks_exact(channels).map(|frame| frame[0]));
                &picked
            }
        };
        match &mut resampler {
            None => kept.push(first),
            Some(resampler) => {
                out.clear();
                resampler.push(first, &mut out);
                kept.push(&out);
            }
        }
    })?;
    if let Some(resampler) = resampler {
        out.clear();
        resampler.finish(&mut out);
        kept.push(&out);
    }
    // Reference: divided before resampling. The filter is linear, so that afterwards does as well, and then
    // nothing has to wait for the end of the file.
    kept.scale(range.peak().max(1.0));
    Ok(kept.normalised())
}

/// The lowest and the highest of the values seen; the wrong way round before the first.
#[derive(Debug, Clone, Copy)]
struct Range {
    low: f64,
    high: f64,
}

impl Default for Range {
    fn default() -> Self {
        Range {
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
        }
    }
}

impl Range {
    fn see(&mut self, v: f64) {
        // One instruction each, where f64::min also looks for NaN; the reader lets none through.
        self.low = if v < self.low { v } else { self.low };
        self.high = if v > self.high { v } else { self.high };
    }

    fn widen(&mut self, values: &[f64]) {
        // Several at once, so that one comparison does not wait for the other.
        let mut lanes = [*self; 8];
        let blocks = values.chunks_exact(lanes.len());
        blocks.remainder().iter().for_each(|v| self.see(*v));
        for block in blocks {
            lanes.iter_mut().zip(block).for_each(|(lane, v)| lane.see(*v));
        }
        for lane in lanes {
            self.low = self.low.min(lane.low);
            self.high = self.high.max(lane.high);
        }
    }

    /// The largest magnitude; less than 0 before the first value.
    fn peak(&self) -> f64 {
        self.high.max(-self.low)
    }
}

/// The samples that are wanted, and the range of all that went by.
struct Kept {
    samples: Vec<f64>,
    wanted: usize,
    range: Range,
}

impl Kept {
    fn new(wanted: usize) -> Self {
        Kept {
            samples: Vec::new(),
            wanted,
            range: Range::default(),
        }
    }

    fn push(&mut self, block: &[f64]) {
        self.range.widen(block);
        let room = self.wanted - self.samples.len();
        self.samples.extend_from_slice(&block[..room.min(block.len())]);
    }

    /// Divides everything by `peak`. Division keeps the order, so that the range stays exact.
    fn scale(&mut self, peak: f64) {
        if peak != 1.0 {
            self.samples.iter_mut().for_each(|v| *v /= peak);
            self.range.low /= peak;
            self.range.high /= peak;
        }
    }

    fn normalised(mut self) -> Vec<f64> {
        let Range { low, high } = self.range;
        let peak = self.range.peak();
        match (peak > 0.0, low >= 0.0) {
            (false, _) => self.samples.fill(0.0),
            (_, true) => self.samples.iter_mut().for_each(|v| *v = 2.0 * *v / high - 1.0),
            (_, false) => self.samples.iter_mut().for_each(|v| *v /= peak),
        }
        self.samples
    }
}

#[cfg(test)]
mod tests;
