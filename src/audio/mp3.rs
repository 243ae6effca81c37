//! `.mp3` files the way pydub reads them for the reference (`audio_flamingo_2/data/data.py`, `load_audio`):
//! every step in 16-bit integers, and no filter before the rate is lowered.

use super::{decode::Reader, filter::reduce};
use crate::{
    error::{Error, Result},
    shapes::SAMPLE_RATE,
};
use std::path::Path;

/// The frames `start..end` at 16 kHz, one channel, normalised: rate first, then one channel.
pub(super) fn load(path: &Path, reader: Reader, start: u64, end: u64) -> Result<Vec<f64>> {
    let (channels, rate) = (reader.channels, reader.rate);
    if channels > 2 {
        return Err(Error::audio(
            path,
            "1 or 2 channels in an .mp3",
            channels.to_string(),
        ));
    }
    let mut frames: Vec<i16> = Vec::new();
    reader.read(start, end, |block| {
        // As ffmpeg converts its float samples: to the nearest, halves to even, clipped.
        frames.extend(block.iter().map(|v| (v * 32768.0).round_ties_even() as i16));
    })?;
    if rate != SAMPLE_RATE {
        frames = linear(&frames, channels, rate, SAMPLE_RATE);
    }
    let mono = frames.chunks_exact(channels).map(|frame| match *frame {
        // audioop.tomono with factors 0.5: rounds towards minus infinity.
        [left, right] => ((i32::from(left) + i32::from(right)) >> 1) as i16,
        _ => frame[0],
    });
    // float32 from here on, as in the reference.
    let samples: Vec<f32> = mono.map(|i| f32::from(i) / 32767.0).collect();
    let low = samples.iter().copied().fold(f32::INFINITY, f32::min);
    let high = samples.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let peak = high.abs().max(low.abs());
    let normalise = |x: f32| match (peak > 0.0, low >= 0.0) {
        (false, _) => 0.0,
        (_, true) => 2.0 * x / high - 1.0,
        (_, false) => x / peak,
    };
    Ok(samples.into_iter().map(|x| f64::from(normalise(x))).collect())
}

/// `audioop.ratecv` of CPython as pydub calls it: linear interpolation of interleaved int16 frames, with no
/// filter, so that mp3 files alias as they do in the reference. The first output is the first input, and
/// floor(n · to / from) frames come out (one more where a division is left).
fn linear(frames: &[i16], channels: usize, from: u32, to: u32) -> Vec<i16> {
    let (from, to) = reduce(u64::from(from), u64::from(to));
    let (from, to) = (from as i64, to as i64);
    let mut out = Vec::new();
    let silence = vec![0i16; channels];
    let mut previous;
    let mut current = &silence[..];
    let mut d = -to;
    for frame in frames.chunks_exact(channels.max(1)) {
        previous = current;
        current = frame;
        d += to;
        while d >= 0 {
            out.extend(previous.iter().zip(current).map(|(&p, &c)| {
                // In 32-bit samples, as audioop does, then the upper half: rounds towards minus infinity.
                let (p, c) = (f64::from(i32::from(p) << 16), f64::from(i32::from(c) << 16));
                let value = (p * d as f64 + c * (to - d) as f64) / to as f64;
                (value as i32 >> 16) as i16
            }));
            d -= from;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_interpolates_as_ratecv_does() {
        // Doubling: the frames and the floored means between them.
        assert_eq!(linear(&[10, 20, -31], 1, 1, 2), [10, 15, 20, -6, -31]);
        assert_eq!(linear(&[1, 100, 3, 300, 5, 500], 2, 2, 1), [1, 100, 5, 500]);
        assert!(linear(&[], 2, 3, 1).is_empty());
    }
}
