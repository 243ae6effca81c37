//! Sample rate conversion matched to soxr HQ.
//!
//! The reference loads files, mp3 excepted, through `librosa.resample`, whose default is soxr "HQ"
//! (`audio_flamingo_2/data/data.py`, `load_audio`).
//!
//! # How it works
//!
//! `filter` holds the design. Its sharp filter, some 600 taps, goes by Fourier transform (`overlap_save`) from the
//! input's rate to one at a small fraction of it; where that is not the wanted rate, its short filter, some 12 taps,
//! goes on from there (`polyphase`). All in float64. Blocks lie on a fixed grid from the first sample on, so that the
//! result does not depend on how the input is cut.
//!
//! # How near it is
//!
//! Against soxr 1.1.0 on white noise of amplitude 0.5 (soxr itself computes in float32, so 1e-7 is its own
//! rounding), largest difference:
//!
//! | from | after the first 4 ms | before |
//! |---|---|---|
//! | 8, 12, 24, 32, 48 kHz | 3e-7 | the same |
//! | 11.025, 22.05, 44.1 kHz | 6e-7 | 1e-5, first sample |
//! | 64, 96, 192 kHz | 5e-6 | 1e-2, first sample: soxr's halving stages start differently |
//! | 88.2, 176.4 kHz | 4e-6 | 7e-3, first sample: likewise |
//! | odd ones such as 18.9, 20, 28 kHz | 3e-4 (−70 dB): soxr has another short filter there | 8e-3 |
//!
//! Against the golden arrays (`tests/golden/H_load_audio`), whose peak is 1: 8 kHz 3.2e-7 (RMS 5e-8), 48 kHz
//! 3.8e-7 (7e-8), 44.1 kHz 6.8e-6 in the first sample and 8e-7 after it (1.3e-7), 22.05 kHz 7.4e-6 and 6e-7
//! (1.3e-7). Of the int16 values 0.2 to 0.5 % differ, all by 1.
//!
//! # What it costs
//!
//! For a window of 10 s on one core (AVX): 0.3 ms from 8 kHz, 1.4 from 22.05, 1.7 from 44.1, 0.9 from 48, 1.9 from
//! 96; 5 from 16.001, where the short filter has too many phases for rows of their own. Once per process and pair of
//! rates, less than 1 ms for the filters.

use super::{
    filter::{reduce, Design},
    overlap_save::{OverlapSave, Plan},
    polyphase::{Bank, Polyphase},
};
use crate::error::{Error, Result};
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// Rates outside of these are refused: no recording has them, and a filter's length grows with the ratio.
pub(crate) const MIN_RATE: u32 = 1_000;
pub(crate) const MAX_RATE: u32 = 768_000;

/// Filters kept for the next file. Rates come from files; a hostile set of them must not fill the memory.
const MAX_FILTERS: usize = 32;

/// The filters for one pair of rates.
struct Filters {
    sharp: Arc<Plan>,
    short: Option<Short>,
}

/// The second stage, where there is one.
struct Short {
    bank: Arc<Bank>,
    /// Outputs of the first stage before time 0 that it takes; zeros stand for the others.
    lead: usize,
}

impl Filters {
    fn new(from: u32, to: u32) -> Self {
        let design = Design::new(from, to);
        // Sharp taps per input, and inputs per tap: one of them is 1.
        let (taps, inputs) = match design.taps_per_input {
            n if n < 1.0 => (1, (1.0 / n) as u64),
            n => (n as u64, 1),
        };
        let (up, down) = match design.short {
            None => reduce(u64::from(to), u64::from(from)),
            Some(_) => (taps, inputs),
        };
        let short = design.short.map(|short| {
            let bank = Arc::new(Bank::new(u64::from(from) * taps, u64::from(to) * inputs, &short));
            // soxr's second stage starts with the first stage's output at time 0: the ringing that the sharp
            // filter puts before it is cut off. Where soxr halves first, that has been through filters that were
            // not measured, and is left.
            let lead = match inputs {
                1 => 0,
                _ => bank.before,
            };
            Short { bank, lead }
        });

        // The right half of the sharp filter, at `up` times the input's rate.
        let step = design.taps_per_input / up as f64;
        let reach = (design.sharp.half / step) as usize;
        let mut half: Vec<f64> = (0..=reach).map(|i| design.sharp.at(i as f64 * step)).collect();
        // At each phase the taps add up to 1: a constant stays what it is.
        let up = up as usize;
        let mut sums = vec![0.0; up];
        for (i, h) in half.iter().enumerate() {
            sums[i % up] += h;
            if i > 0 {
                sums[(up - i % up) % up] += h;
            }
        }
        half.iter_mut().enumerate().for_each(|(i, h)| *h /= sums[i % up]);
        Filters {
            sharp: Arc::new(Plan::new(up, down as usize, &half)),
            short,
        }
    }
}

type Known = Mutex<HashMap<(u32, u32), Arc<Filters>>>;

/// The filters for a pair of rates, made once.
fn filters(from: u32, to: u32) -> Arc<Filters> {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    // A poisoned lock means that another thread panicked, not that the map is wrong: entries are whole.
    if let Some(filters) = known
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&(from, to))
    {
        return filters.clone();
    }
    let made = Arc::new(Filters::new(from, to));
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MAX_FILTERS {
        known.clear();
    }
    known.entry((from, to)).or_insert(made).clone()
}

/// Converts one channel from rate to rate, block by block, holding no more than a pair of blocks.
pub(crate) struct Resampler {
    from: u32,
    to: u32,
    sharp: OverlapSave,
    short: Option<Polyphase>,
    /// What the first stage gave, on its way to the second.
    between: Vec<f64>,
    received: u64,
    made: u64,
}

impl Resampler {
    /// # Errors
    /// [`Error::Audio`] naming `path` when a rate is outside [`MIN_RATE`]..=[`MAX_RATE`].
    pub(crate) fn new(path: &Path, from: u32, to: u32) -> Result<Self> {
        for rate in [from, to] {
            if !(MIN_RATE..=MAX_RATE).contains(&rate) {
                let expected = format!("a sample rate from {MIN_RATE} to {MAX_RATE} Hz");
                return Err(Error::audio(path, expected, format!("{rate} Hz")));
            }
        }
        let filters = filters(from, to);
        let lead = filters.short.as_ref().map_or(0, |short| short.lead);
        Ok(Resampler {
            from,
            to,
            sharp: OverlapSave::new(filters.sharp.clone(), lead),
            short: (filters.short.as_ref()).map(|short| Polyphase::new(short.bank.clone(), short.lead)),
            between: Vec::new(),
            received: 0,
            made: 0,
        })
    }

    /// Takes the next samples and appends the outputs of the blocks that they complete to `out`; the rest waits
    /// for more.
    pub(crate) fn push(&mut self, input: &[f64], out: &mut Vec<f64>) {
        let before = out.len();
        self.received += input.len() as u64;
        match &mut self.short {
            None => self.sharp.push(input, out),
            Some(short) => {
                self.between.clear();
                self.sharp.push(input, &mut self.between);
                short.push(&self.between, out);
            }
        }
        self.made += (out.len() - before) as u64;
    }

    /// Appends the rest, so that all in all ceil(n · to / from) samples came out. soxr makes the nearest
    /// whole number and librosa's `fix_length` adds a zero where that is one less.
    pub(crate) fn finish(self, out: &mut Vec<f64>) {
        let (from, to) = (f64::from(self.from), f64::from(self.to));
        // In floating point as librosa does: a rounding error there is a sample here.
        let wanted = (self.received as f64 * (to / from)).ceil() as u64;
        let soxr = (self.received as f64 * to / from + 0.5).floor() as u64;
        // So far the output is behind the input by half a filter or more.
        let rest = |all: u64| all.saturating_sub(self.made) as usize;
        let (filtered, all) = (rest(soxr.min(wanted)), rest(wanted));
        let before = out.len();
        match self.short {
            None => self.sharp.flush(filtered, out),
            Some(mut short) => {
                let mut between = self.between;
                between.clear();
                self.sharp.flush(short.needed(filtered), &mut between);
                short.push(&between, out);
            }
        }
        // Blocks are whole: the last one goes beyond the end.
        out.truncate(before + filtered);
        out.resize(before + all, 0.0);
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
