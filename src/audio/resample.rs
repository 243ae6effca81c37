//! Sample rate conversion: a polyphase filter matched to soxr HQ.
//!
//! The reference loads files, mp3 excepted, through `librosa.resample`, whose default is soxr "HQ"
//! (`audio_flamingo_2/data/data.py`, `load_audio`).
//!
//! # How it works
//!
//! `filter` holds its design. Where it has two stages, they are convolved here into one bank of coefficients,
//! so that one dot product makes a sample.
//!
//! # How near it is
//!
//! Against soxr 1.1.0 on white noise of amplitude 0.5 (soxr itself computes in float32, so 1e-7 is its own
//! rounding), largest difference:
//!
//! | from | after the first 4 ms | before |
//! |---|---|---|
//! | 8, 12, 24, 32, 48 kHz | 3e-7 | the same |
//! | 11.025, 22.05, 44.1 kHz | 5e-7 | 1e-5, first sample |
//! | 64, 96, 192 kHz | 5e-6 | 1e-2, first sample: soxr's halving stages start differently |
//! | 88.2, 176.4 kHz | 3e-6 | 7e-3, first sample: likewise |
//! | odd ones such as 18.9, 20, 28 kHz | 3e-4 (−70 dB): soxr has another short filter there | 3e-3 |
//!
//! Against the golden arrays (`tests/golden/H_load_audio`), whose peak is 1: 8 kHz 3.2e-7 (RMS 5e-8), 48 kHz
//! 3.8e-7 (7e-8), 44.1 kHz 6.8e-6 in the first sample and 8e-7 after it (1.3e-7), 22.05 kHz 7.3e-6 and 6e-7
//! (1.3e-7). Of the int16 values 0.2 to 0.5 % differ, all by 1.
//!
//! # What it costs
//!
//! Per output sample on one core: 40 ns from 8 kHz, 70 from 22.05, 105 from 44.1, 100 from 48, 180 from 96
//! (17 ms for a 10 s window from 44.1 kHz); once per process and rate, 85 ms for the bank of 44.1 kHz.

use super::filter::{reduce, Design, Kaiser};
use crate::error::{Error, Result};
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// Rates outside of these are refused: no recording has them, and a bank's size grows with the ratio.
pub const MIN_RATE: u32 = 1_000;
pub const MAX_RATE: u32 = 768_000;

/// Ratios with more phases than this share a bank of [`SHARED_PHASES`] phases, cubically interpolated:
/// every rate that is in use has at most 640 phases, and an odd one must not cost 16,000 × the taps.
const MAX_EXACT_PHASES: usize = 1024;
const SHARED_PHASES: usize = 256;
/// Banks kept for the next file. Rates come from files; a hostile set of them must not fill the memory.
const MAX_BANKS: usize = 32;

/// The coefficients for one pair of rates.
struct Bank {
    from: u32,
    to: u32,
    /// Output m lies at input position m · down / up.
    up: u64,
    down: u64,
    /// Input samples before the position's whole part that a row covers.
    before: usize,
    /// Row length, a multiple of [`LANES`].
    taps: usize,
    rows: Vec<f64>,
    /// Rows per input sample when shared (cubic interpolation), else one row per phase.
    shared: bool,
    head: Option<Head>,
}

/// What soxr's second stage does not see: it starts with the first stage's output at time 0, so the ringing
/// that the sharp filter puts before it is cut off. It matters for the first few outputs only.
struct Head {
    oversample: u64,
    /// The sharp filter's taps, centre in the middle.
    sharp: Vec<f64>,
    short: Kaiser,
    gain: f64,
}

/// Independent sums in the inner loop, so that it vectorises without reordering anything at run time.
const LANES: usize = 8;

impl Bank {
    fn new(from: u32, to: u32) -> Self {
        let design = Design::new(from, to);
        let (up, down) = reduce(u64::from(to), u64::from(from));
        let shared = up as usize > MAX_EXACT_PHASES;
        let half = design.sharp.half.ceil() as i64;
        let mut sharp: Vec<f64> = (-half..=half).map(|k| design.sharp.at(k as f64)).collect();
        let sum: f64 = sharp.iter().sum();
        sharp.iter_mut().for_each(|v| *v /= sum);
        let reach = design.sharp.half + design.short.map_or(0.0, |s| s.half);
        let before = (reach / design.taps_per_input).ceil() as usize + 1;
        let taps = (2 * before + 2).next_multiple_of(LANES);

        // A shared bank has one row before and two after the unit interval, for the cubic.
        let positions: Vec<f64> = match shared {
            true => (-1..=SHARED_PHASES as i64 + 1)
                .map(|r| r as f64 / SHARED_PHASES as f64)
                .collect(),
            false => (0..up).map(|p| p as f64 / up as f64).collect(),
        };
        let mut rows = Vec::with_capacity(positions.len() * taps);
        let mut gain = 0.0;
        for &fraction in &positions {
            let start = rows.len();
            rows.extend((0..taps).map(|i| {
                let t = (fraction + before as f64 - i as f64) * design.taps_per_input;
                match &design.short {
                    None => design.sharp.at(t),
                    Some(short) => convolved(&sharp, short, t),
                }
            }));
            let row = &mut rows[start..];
            gain = 1.0 / row.iter().sum::<f64>();
            row.iter_mut().for_each(|v| *v *= gain);
        }
        // Where soxr halves first, what it cuts off has been through filters that were not measured.
        let head = design
            .short
            .filter(|_| design.taps_per_input >= 1.0)
            .map(|short| Head {
                oversample: design.taps_per_input as u64,
                sharp,
                short,
                gain,
            });
        Bank {
            from,
            to,
            up,
            down,
            before,
            taps,
            rows,
            shared,
            head,
        }
    }

    fn row(&self, index: usize) -> &[f64] {
        &self.rows[index * self.taps..(index + 1) * self.taps]
    }

    /// The output at phase `phase` (of `up`) from `self.taps` input samples.
    fn sample(&self, phase: u64, input: &[f64]) -> f64 {
        if !self.shared {
            return dot(self.row(phase as usize), input);
        }
        let position = phase as f64 / self.up as f64 * SHARED_PHASES as f64;
        let index = position as usize;
        let x = position - index as f64;
        // Lagrange weights for points −1, 0, 1, 2.
        let weights = [
            -x * (x - 1.0) * (x - 2.0) / 6.0,
            (x + 1.0) * (x - 1.0) * (x - 2.0) / 2.0,
            -(x + 1.0) * x * (x - 2.0) / 2.0,
            (x + 1.0) * x * (x - 1.0) / 6.0,
        ];
        (weights.iter().enumerate())
            .map(|(i, w)| w * dot(self.row(index + i), input))
            .sum()
    }

    /// What [`Head`] cuts off at output `m`; `input` starts with sample 0.
    fn cut_off(&self, m: u64, input: &[f64]) -> f64 {
        let Some(head) = &self.head else { return 0.0 };
        let t = m as f64 * self.down as f64 / self.up as f64 * head.oversample as f64;
        let centre = (head.sharp.len() / 2) as i64;
        let first = (t - head.short.half).floor() as i64;
        let mut cut = 0.0;
        for j in first..0 {
            let ringing: f64 = (input.iter().enumerate())
                .map_while(|(n, x)| {
                    let k = centre + j - n as i64 * head.oversample as i64;
                    (k >= 0).then(|| head.sharp.get(k as usize).map_or(0.0, |h| x * h))
                })
                .sum();
            cut += head.short.at(t - j as f64) * ringing;
        }
        cut * head.gain
    }
}

/// The sharp filter's taps, spread by the short filter, at time `t` in taps.
fn convolved(sharp: &[f64], short: &Kaiser, t: f64) -> f64 {
    let centre = (sharp.len() / 2) as i64;
    let first = ((t - short.half).floor() as i64).max(-centre);
    let last = ((t + short.half).ceil() as i64).min(centre);
    (first..=last)
        .map(|k| sharp[(k + centre) as usize] * short.at(t - k as f64))
        .sum()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}

type Banks = Mutex<HashMap<(u32, u32), Arc<Bank>>>;

/// The bank for a pair of rates, made once.
fn bank(from: u32, to: u32) -> Arc<Bank> {
    static BANKS: OnceLock<Banks> = OnceLock::new();
    let banks = BANKS.get_or_init(Mutex::default);
    // A poisoned lock means that another thread panicked, not that the map is wrong: entries are whole.
    if let Some(bank) = banks
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&(from, to))
    {
        return bank.clone();
    }
    let made = Arc::new(Bank::new(from, to));
    let mut banks = banks.lock().unwrap_or_else(PoisonError::into_inner);
    if banks.len() >= MAX_BANKS {
        banks.clear();
    }
    banks.entry((from, to)).or_insert(made).clone()
}

/// Converts one channel from rate to rate, block by block, holding no more than the filter's reach.
pub struct Resampler {
    bank: Arc<Bank>,
    /// Input not yet passed over; starts with `before` zeros.
    pending: Vec<f64>,
    /// Position in the input (shifted by `before`) of `pending[0]`.
    passed: u64,
    received: u64,
    made: u64,
}

impl Resampler {
    /// # Errors
    /// [`Error::Audio`] naming `path` when a rate is outside [`MIN_RATE`]..=[`MAX_RATE`].
    pub fn new(path: &Path, from: u32, to: u32) -> Result<Self> {
        for rate in [from, to] {
            if !(MIN_RATE..=MAX_RATE).contains(&rate) {
                let expected = format!("a sample rate from {MIN_RATE} to {MAX_RATE} Hz");
                return Err(Error::audio(path, expected, format!("{rate} Hz")));
            }
        }
        let bank = bank(from, to);
        Ok(Resampler {
            pending: vec![0.0; bank.before],
            bank,
            passed: 0,
            received: 0,
            made: 0,
        })
    }

    /// Takes the next samples and appends what they complete to `out`.
    pub fn push(&mut self, input: &[f64], out: &mut Vec<f64>) {
        self.received += input.len() as u64;
        self.pending.extend_from_slice(input);
        self.drain(u64::MAX, out);
    }

    /// Appends the rest, so that all in all ceil(n · to / from) samples came out. soxr makes the nearest
    /// whole number and librosa's `fix_length` adds a zero where that is one less.
    pub fn finish(mut self, out: &mut Vec<f64>) {
        let (from, to) = (f64::from(self.bank.from), f64::from(self.bank.to));
        // In floating point as librosa does: a rounding error there is a sample here.
        let wanted = (self.received as f64 * (to / from)).ceil() as u64;
        let soxr = (self.received as f64 * to / from + 0.5).floor() as u64;
        self.pending.resize(self.pending.len() + self.bank.taps, 0.0);
        self.drain(soxr.min(wanted), out);
        out.resize(out.len() + wanted.saturating_sub(self.made) as usize, 0.0);
    }

    fn drain(&mut self, limit: u64, out: &mut Vec<f64>) {
        let bank = &*self.bank;
        while self.made < limit {
            let position = self.made * bank.down;
            // Row element 0 is input (position / up − before), which is `pending` shifted by `before`.
            let start = (position / bank.up - self.passed) as usize;
            let Some(input) = self.pending.get(start..start + bank.taps) else {
                break;
            };
            let mut y = bank.sample(position % bank.up, input);
            if self.passed == 0 {
                y -= bank.cut_off(self.made, &self.pending[bank.before..]);
            }
            out.push(y);
            self.made += 1;
        }
        // Passing over in large steps keeps the copying small against the filtering.
        let next = (self.made * bank.down / bank.up - self.passed) as usize;
        if next > 1 << 14 {
            let next = next.min(self.pending.len());
            self.pending.drain(..next);
            self.passed += next as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    fn resample(input: &[f64], from: u32, to: u32, block: usize) -> Vec<f64> {
        let mut resampler = Resampler::new(Path::new("t"), from, to).unwrap();
        let mut out = Vec::new();
        input.chunks(block).for_each(|b| resampler.push(b, &mut out));
        resampler.finish(&mut out);
        out
    }

    fn sine(hz: f64, rate: u32, n: usize) -> Vec<f64> {
        (0..n)
            .map(|i| (2.0 * PI * hz * i as f64 / f64::from(rate)).sin())
            .collect()
    }

    #[test]
    fn a_tone_keeps_its_pitch_phase_and_level() {
        for from in [8_000, 11_025, 22_050, 44_100, 44_056, 48_000, 96_000, 192_000] {
            let out = resample(&sine(1000.0, from, from as usize / 2), from, 16_000, 1000);
            let expected = sine(1000.0, 16_000, out.len());
            let middle = 500..out.len() - 500;
            let worst = (out[middle.clone()].iter().zip(&expected[middle]))
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            assert!(worst < 3e-6, "{from}: {worst:e}");
        }
    }

    #[test]
    fn what_would_alias_is_gone() {
        let out = resample(&sine(10_000.0, 44_100, 44_100), 44_100, 16_000, 4096);
        let worst = out[500..out.len() - 500]
            .iter()
            .fold(0.0, |m: f64, v| m.max(v.abs()));
        assert!(worst < 1e-6, "{worst:e}");
    }

    #[test]
    fn blocks_do_not_change_the_result() {
        let input = sine(440.0, 22_050, 30_000);
        let whole = resample(&input, 22_050, 16_000, 30_000);
        assert_eq!(whole, resample(&input, 22_050, 16_000, 777));
        assert_eq!(whole, resample(&input, 22_050, 16_000, 1));
    }

    #[test]
    fn lengths_follow_librosa() {
        // 11,025 → 16,000 of 3858 samples: 5598.9 → 5599; 441 of 22,050: exactly 320.
        for (n, from, expected) in [
            (3858, 11_025, 5599),
            (441, 22_050, 320),
            (0, 8_000, 0),
            (1, 8_000, 2),
        ] {
            assert_eq!(resample(&vec![0.1; n], from, 16_000, 100).len(), expected);
        }
        // 5 · 16 / 44.1 = 1.81 → 2 made; 3 · 16 / 44.1 = 1.09: soxr makes 1, librosa adds a zero.
        assert_eq!(resample(&[0.5; 3], 44_100, 16_000, 9)[1], 0.0);
        assert_ne!(resample(&[0.5; 5], 44_100, 16_000, 9)[1], 0.0);
    }

    #[test]
    fn absurd_rates_are_refused() {
        for rate in [0, 999, 768_001, u32::MAX] {
            assert!(Resampler::new(Path::new("x.wav"), rate, 16_000).is_err());
        }
    }
}
