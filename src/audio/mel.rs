//! Log-mel spectrograms as AF-CLAP takes them (`my_laion_clap/.../training/data.py`, `get_mel`).
//!
//! 16 kHz, transform and window 1024 (periodic Hann), hop 160, centred with reflection, power 2, 64 triangular
//! HTK mel bands from 50 to 8000 Hz without area normalisation, `10·log10(max(p, 1e-10))`, no `top_db`.
//!
//! Computed in float64. The reference computes in float32: the rounding of its transform is a fixed fraction
//! of a frame's loudest frequency, hence a larger one of its quiet bands. Largest difference from
//! `tests/golden/A_mel`: 3.6e-4 dB above −80 dB, 1.3e-3 dB anywhere. Filterbank 6e-6, window 2e-7.
//! A window takes 1.3 ms on one core, 30 windows 21 ms on two.

use crate::{
    error::{Error, Result},
    shapes::{AF_CLAP, MEL_BINS, SAMPLE_RATE, WINDOW_FRAMES},
};
use ndarray::{s, Array2, Array3, Axis};
use rayon::prelude::*;
use rustfft::{num_complex::Complex, Fft, FftPlanner};
use std::{
    borrow::Cow,
    f64::consts::{LOG10_E, PI},
    ops::Range,
    path::Path,
    sync::{Arc, OnceLock},
};

/// Samples in a transform and in its window.
pub(crate) const N_FFT: usize = AF_CLAP.n_fft;
/// Samples between frames.
pub(crate) const HOP: usize = AF_CLAP.hop;
/// Frequencies from 0 to the Nyquist frequency.
pub const FREQUENCIES: usize = N_FFT / 2 + 1;
const HALF: usize = N_FFT / 2;
const LOW_HZ: f64 = AF_CLAP.low_hz;
const HIGH_HZ: f64 = AF_CLAP.high_hz;
/// The smallest power, −100 dB.
const FLOOR: f64 = 1e-10;
/// Frequencies that are summed at once.
const LANES: usize = 4;
/// 10·log10 of e.
const DB_PER_NEPER: f64 = 10.0 * LOG10_E;

/// The transform with its tables. Make one and share it: it is `Sync`.
pub struct LogMel {
    fft: Arc<dyn Fft<f64>>,
    /// Half the window: [`powers`] adds two bins where it means their average.
    window: Vec<f64>,
    /// Per band, its first frequency and its weights, zeros behind them to a multiple of [`LANES`].
    bands: Vec<(usize, Vec<f64>)>,
}

/// A value of each of the two frames that share a transform.
type Pair = [f64; 2];

impl Default for LogMel {
    fn default() -> Self {
        Self::new()
    }
}

impl LogMel {
    /// The mel filters and the plan of the transform.
    pub fn new() -> Self {
        let bands = (0..MEL_BINS)
            .map(|m| {
                let column = Self::filterbank().column(m);
                let first = column.iter().position(|w| *w > 0.0).unwrap_or(0);
                let weights = column.iter().skip(first).take_while(|w| **w > 0.0);
                let mut weights: Vec<f64> = weights.map(|w| f64::from(*w)).collect();
                weights.resize(weights.len().next_multiple_of(LANES), 0.0);
                (first, weights)
            })
            .collect();
        LogMel {
            fft: FftPlanner::new().plan_fft_forward(N_FFT),
            window: (Self::window().into_iter().map(f64::from))
                .map(|w| 0.5 * w)
                .collect(),
            bands,
        }
    }

    /// The periodic Hann window of 1024 samples, rounded to float32.
    pub fn window() -> Vec<f32> {
        (0..N_FFT)
            .map(|i| (0.5 - 0.5 * (2.0 * PI * i as f64 / N_FFT as f64).cos()) as f32)
            .collect()
    }

    /// The HTK mel filterbank, (513, 64): frequency × band, peaks of 1.
    pub fn filterbank() -> &'static Array2<f32> {
        static BANK: OnceLock<Array2<f32>> = OnceLock::new();
        BANK.get_or_init(|| {
            let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
            let hz = |mel: f64| 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
            let step = (mel(HIGH_HZ) - mel(LOW_HZ)) / (MEL_BINS + 1) as f64;
            let edge = |m: usize| hz(mel(LOW_HZ) + m as f64 * step);
            Array2::from_shape_fn((FREQUENCIES, MEL_BINS), |(k, m)| {
                let f = k as f64 * f64::from(SAMPLE_RATE) / N_FFT as f64;
                let up = (f - edge(m)) / (edge(m + 1) - edge(m));
                let down = (edge(m + 2) - f) / (edge(m + 2) - edge(m + 1));
                up.min(down).max(0.0) as f32
            })
        })
    }

    /// The log-mel spectrogram of 16 kHz samples in dB.
    ///
    /// # Shapes
    /// (n) → (1 + n / 160, 64); a window of 160,000 samples gives (1001, 64).
    pub fn log_mel(&self, samples: &[f32]) -> Array2<f32> {
        let frames = 1 + samples.len() / HOP;
        let mut out = Array2::zeros((frames, MEL_BINS));
        let mut buffer = vec![Complex::default(); N_FFT];
        let mut scratch = vec![Complex::default(); self.fft.get_inplace_scratch_len()];
        let mut power = vec![Pair::default(); FREQUENCIES + LANES];
        let mut mel = [Pair::default(); MEL_BINS];
        // What pads a short clip is silent to the end: its frames need no transform. (Near the end the reflection
        // brings back what was before it.)
        let sound = samples.iter().rposition(|v| *v != 0.0).map_or(0, |last| last + 1);
        let heard = match sound + HALF <= samples.len() {
            true => frames.min((sound + HALF).div_ceil(HOP)),
            false => frames,
        };
        let mut rows = out.outer_iter_mut();
        for f in (0..heard).step_by(2) {
            // The last of an odd number of frames shares its transform with one that no row is there for.
            let (first, second) = (frame(samples, f), frame(samples, f + 1));
            for (((value, a), b), w) in buffer.iter_mut().zip(&*first).zip(&*second).zip(&self.window) {
                *value = Complex::new(f64::from(*a) * w, f64::from(*b) * w);
            }
            self.fft.process_with_scratch(&mut buffer, &mut scratch);
            powers(&buffer, &mut power);
            for (sums, (first, weights)) in mel.iter_mut().zip(&self.bands) {
                *sums = weighted(&power[*first..], weights);
            }
            for (which, row) in rows.by_ref().take(2).enumerate() {
                for (value, sums) in row.into_iter().zip(&mel) {
                    *value = decibels(sums[which]);
                }
            }
        }
        for row in rows {
            row.into_iter().for_each(|value| *value = decibels(0.0));
        }
        out
    }

    /// Log-mels of windows of one length, in parallel.
    ///
    /// # Shapes
    /// W windows of 160,000 samples → (W, 1001, 64). The length of the first window decides the number of
    /// frames; what a window has less is left at the floor of −100 dB, what it has more is cut.
    pub fn batch(&self, windows: &[Vec<f32>]) -> Array3<f32> {
        let frames = windows.first().map_or(WINDOW_FRAMES, |w| 1 + w.len() / HOP);
        let mut out = Array3::from_elem((windows.len(), frames, MEL_BINS), decibels(0.0));
        let mels: Vec<_> = windows.par_iter().map(|w| self.log_mel(w)).collect();
        for (mut slot, mel) in out.outer_iter_mut().zip(mels) {
            let n = mel.nrows().min(frames);
            slot.slice_mut(s![..n, ..]).assign(&mel.slice(s![..n, ..]));
        }
        out
    }

    /// The fusion input of AF-CLAP for a clip longer than 10 s (AF2 itself never has one): the whole
    /// spectrogram shrunk to 1001 frames, then three chunks of 1001 frames that begin at `offsets` (front,
    /// middle, back; [`fusion_ranges`] says where they may). Shrinking is bilinear without antialiasing, as
    /// torchvision 0.15 does to tensors.
    ///
    /// # Shapes
    /// (n) → (4, 1001, 64)
    ///
    /// # Errors
    /// [`Error::Audio`] with the clip's `path` when a chunk would end after the spectrogram.
    pub fn fusion_longer(&self, path: &Path, samples: &[f32], offsets: [usize; 3]) -> Result<Array3<f32>> {
        let mel = self.log_mel(samples);
        let total = mel.nrows();
        let latest = total.checked_sub(WINDOW_FRAMES);
        if let Some(bad) = offsets.iter().find(|o| latest.is_none_or(|l| **o > l)) {
            let expected = format!(
                "at least {} frames for a chunk at frame {bad}",
                bad.saturating_add(WINDOW_FRAMES)
            );
            return Err(Error::audio(path, expected, format!("{total}")));
        }
        let mut out = Array3::zeros((4, WINDOW_FRAMES, MEL_BINS));
        // Sample positions are those of align_corners = False; the width stays 64.
        let scale = total as f32 / WINDOW_FRAMES as f32;
        for (i, mut row) in out.index_axis_mut(Axis(0), 0).outer_iter_mut().enumerate() {
            let position = ((i as f32 + 0.5) * scale - 0.5).max(0.0);
            let below = (position as usize).min(total - 1);
            let above = (below + 1).min(total - 1);
            let weight = position - below as f32;
            for (m, value) in row.iter_mut().enumerate() {
                *value = (1.0 - weight) * mel[[below, m]] + weight * mel[[above, m]];
            }
        }
        for (mut slot, offset) in out.outer_iter_mut().skip(1).zip(offsets) {
            slot.assign(&mel.slice(s![offset..offset + WINDOW_FRAMES, ..]));
        }
        Ok(out)
    }
}

fn decibels(power: f64) -> f32 {
    (power.max(FLOOR).ln() * DB_PER_NEPER) as f32
}

/// The 1024 samples of frame `f`, reflected where they lie outside.
fn frame(samples: &[f32], f: usize) -> Cow<'_, [f32]> {
    let inside = (f * HOP).checked_sub(HALF);
    if let Some(frame) = inside.and_then(|begin| samples.get(begin..begin + N_FFT)) {
        return frame.into();
    }
    (0..N_FFT)
        .map(|i| reflected(samples, (f * HOP + i) as i64 - HALF as i64))
        .collect()
}

/// The power spectra of two real frames from the transform of the one with the other as its imaginary part: their
/// spectra are the conjugate-symmetric and -antisymmetric parts of it, twice over.
fn powers(transform: &[Complex<f64>], power: &mut [Pair]) {
    let both = |a: &Complex<f64>, b: &Complex<f64>| {
        let first = Complex::new(a.re + b.re, a.im - b.im);
        let second = Complex::new(a.im + b.im, b.re - a.re);
        [first.norm_sqr(), second.norm_sqr()]
    };
    // Bin k's mirror image is bin 1024 − k, and bin 0's is itself.
    let (Some((zero, bins)), Some((power_of_zero, powers))) =
        (transform.split_first(), power.split_first_mut())
    else {
        return;
    };
    *power_of_zero = both(zero, zero);
    for ((p, a), b) in powers.iter_mut().zip(bins).zip(bins.iter().rev()).take(HALF) {
        *p = both(a, b);
    }
}

/// The weighted sum of both frames' powers; `weights` are a multiple of [`LANES`].
fn weighted(power: &[Pair], weights: &[f64]) -> Pair {
    // Independent sums, which vectorise.
    let mut sums = [Pair::default(); LANES];
    for (p, w) in power.chunks_exact(LANES).zip(weights.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane][0] += p[lane][0] * w[lane];
            sums[lane][1] += p[lane][1] * w[lane];
        }
    }
    sums.into_iter()
        .fold([0.0; 2], |all, sum| [all[0] + sum[0], all[1] + sum[1]])
}

/// Where the three chunks of a longer clip may begin, for `frames` frames in all: thirds of the possible
/// offsets, the first ones longer where they do not divide (numpy's `array_split`); frame 0 where a third
/// is empty. The reference draws one offset from each.
pub fn fusion_ranges(frames: usize) -> [Range<usize>; 3] {
    let offsets = (frames + 1).saturating_sub(WINDOW_FRAMES);
    let mut begin = 0;
    [0, 1, 2].map(|i| {
        let length = offsets / 3 + usize::from(i < offsets % 3);
        let range = begin..begin + length;
        begin += length;
        if range.is_empty() {
            0..1
        } else {
            range
        }
    })
}

/// The sample at `i`, reflected at both ends without repeating the end itself.
fn reflected(samples: &[f32], i: i64) -> f32 {
    if let Ok(Some(v)) = usize::try_from(i).map(|i| samples.get(i)) {
        return *v;
    }
    // Clips shorter than half a transform (torch refuses them) go back and forth.
    let last = samples.len() as i64 - 1;
    match last {
        -1 => 0.0,
        0 => samples[0],
        _ => {
            let folded = i.rem_euclid(2 * last);
            samples[folded.min(2 * last - folded) as usize]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames that are not transformed are what the transform gives: a single rounding error behind the sound makes
    /// every frame be computed.
    #[test]
    fn silence_behind_a_sound_is_what_its_transform_says() {
        let front_end = LogMel::new();
        for sound in [0, 1, 511, 512, 513, 1000, 9_400, 9_488, 9_600] {
            let mut samples = vec![0f32; 10_000];
            samples[..sound]
                .iter_mut()
                .enumerate()
                .for_each(|(i, v)| *v = (i as f32 * 0.1).sin());
            let short = front_end.log_mel(&samples);
            samples[9_999] = 1e-30;
            assert_eq!(short, front_end.log_mel(&samples), "{sound}");
        }
    }

    #[test]
    fn reflection_does_not_repeat_the_ends() {
        let x = [0.0, 1.0, 2.0, 3.0];
        let padded: Vec<f32> = (-4..9).map(|i| reflected(&x, i)).collect();
        assert_eq!(padded, [2., 3., 2., 1., 0., 1., 2., 3., 2., 1., 0., 1., 2.]);
        assert_eq!((reflected(&[], 3), reflected(&[5.0], -9)), (0.0, 5.0));
    }

    #[test]
    fn a_tone_peaks_in_its_band_at_its_power() {
        let mel = LogMel::new();
        // Bin 64 of 512: 1000 Hz exactly.
        let x: Vec<f32> = (0..16_000)
            .map(|i| (2.0 * PI * i as f64 / 16.0).sin() as f32)
            .collect();
        let frame = mel.log_mel(&x).row(50).to_vec();
        let band = frame
            .iter()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(b.1))
            .unwrap()
            .0;
        let weights = LogMel::filterbank();
        assert!(weights[[64, band]] >= weights.row(64).iter().copied().fold(0.0, f32::max));
        // A sine through a Hann window: amplitude N/4 at its bin, half of that beside it.
        let power = |k: usize, a: f32| weights[[k, band]] * (a * 256.0).powi(2);
        let expected = 10.0 * (power(63, 0.5) + power(64, 1.0) + power(65, 0.5)).log10();
        assert!(
            (frame[band] - expected).abs() < 1e-3,
            "{} {expected}",
            frame[band]
        );
    }

    #[test]
    fn silence_and_nothing_are_at_the_floor() {
        let mel = LogMel::new();
        assert!(mel.log_mel(&[0.0; 1600]).iter().all(|v| *v == -100.0));
        assert_eq!(mel.log_mel(&[]).dim(), (1, 64));
    }

    #[test]
    fn a_batch_is_its_windows() {
        let mel = LogMel::new();
        let windows: Vec<Vec<f32>> = (1..4)
            .map(|w| (0..3200).map(|i| ((i * w) as f32 * 0.1).sin()).collect())
            .collect();
        let batch = mel.batch(&windows);
        for (w, window) in windows.iter().enumerate() {
            assert_eq!(batch.index_axis(Axis(0), w), mel.log_mel(window));
        }
        assert_eq!(mel.batch(&[]).dim(), (0, 1001, 64));
    }

    #[test]
    fn fusion_ranges_split_as_numpy_does() {
        assert_eq!(fusion_ranges(1401), [0..134, 134..268, 268..401]);
        assert_eq!(fusion_ranges(1002), [0..1, 1..2, 0..1]);
        assert_eq!(fusion_ranges(1001), [0..1, 0..1, 0..1]);
    }

    #[test]
    fn a_chunk_past_the_end_is_refused() {
        let mel = LogMel::new();
        let path = Path::new("clip.wav");
        assert!(mel.fusion_longer(path, &[0.0; 160_160], [0, 1, 2]).is_err());
        assert!(mel.fusion_longer(path, &[0.0; 160_160], [0, 1, 1]).is_ok());
        assert!(mel.fusion_longer(path, &[0.0; 100], [0, 0, usize::MAX]).is_err());
    }
}
