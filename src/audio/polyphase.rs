//! A short filter between any two rates: one row of coefficients for each place that an output can have between
//! two inputs.

use super::filter::{reduce, Kaiser};
use std::sync::Arc;

/// Ratios with more phases than this share a bank of [`SHARED_PHASES`] rows, cubically interpolated: every rate
/// that is in use has at most 640 phases, and an odd one must not cost 16,000 rows.
const MAX_EXACT_PHASES: u64 = 1024;
const SHARED_PHASES: usize = 256;
/// Independent sums in the inner loop, so that it vectorises without reordering anything at run time.
const LANES: usize = 4;

/// The coefficients for one pair of rates.
pub(super) struct Bank {
    /// Output m lies at input position m · down / up.
    up: u64,
    down: u64,
    /// Inputs before the position's whole part that a row covers.
    pub before: usize,
    /// Row length, a multiple of [`LANES`].
    taps: usize,
    rows: Vec<f64>,
    /// Whether there are [`SHARED_PHASES`] rows per input (and some more, for the cubic) or `up`.
    shared: bool,
}

impl Bank {
    /// `from` and `to` may have any common unit; `filter`'s taps are inputs.
    pub(crate) fn new(from: u64, to: u64, filter: &Kaiser) -> Self {
        let (up, down) = reduce(to, from);
        let shared = up > MAX_EXACT_PHASES;
        // A tap lies less than filter.half from the position, which is up to 1 after the whole part.
        let before = filter.half.floor() as usize;
        let taps = (2 * before + 2).next_multiple_of(LANES);
        // A shared bank has one row before and two after the unit interval.
        let (first, last, unit) = match shared {
            true => (-1, SHARED_PHASES as i64 + 1, SHARED_PHASES as f64),
            false => (0, up as i64 - 1, up as f64),
        };
        let mut rows = Vec::with_capacity((last - first + 1) as usize * taps);
        for phase in first..=last {
            let position = phase as f64 / unit + before as f64;
            let start = rows.len();
            rows.extend((0..taps).map(|i| filter.at(position - i as f64)));
            let row = &mut rows[start..];
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|v| *v /= sum);
        }
        Bank {
            up,
            down,
            before,
            taps,
            rows,
            shared,
        }
    }

    fn row(&self, index: usize) -> &[f64] {
        &self.rows[index * self.taps..(index + 1) * self.taps]
    }

    /// The output at phase `phase` (of `up`) from `self.taps` inputs.
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
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    (sums[0] + sums[2]) + (sums[1] + sums[3])
}

/// The filter at work on one channel.
pub(super) struct Polyphase {
    bank: Arc<Bank>,
    /// Input from `bank.before` before the next output's whole position on.
    pending: Vec<f64>,
    /// The next output's place after the whole position, in `up`ths of an input.
    phase: u64,
}

impl Polyphase {
    /// The first `lead` inputs to come, at most `bank.before`, lie before the first output's time; what came
    /// before them counts as zero.
    pub(crate) fn new(bank: Arc<Bank>, lead: usize) -> Self {
        Polyphase {
            pending: vec![0.0; bank.before.saturating_sub(lead)],
            bank,
            phase: 0,
        }
    }

    /// How many inputs `outputs` more outputs need.
    pub(crate) fn needed(&self, outputs: usize) -> usize {
        let Some(steps) = outputs.checked_sub(1) else {
            return 0;
        };
        let position = (self.phase + steps as u64 * self.bank.down) / self.bank.up;
        (position as usize + self.bank.taps).saturating_sub(self.pending.len())
    }

    /// Takes input and appends the outputs that it completes.
    pub(crate) fn push(&mut self, input: &[f64], out: &mut Vec<f64>) {
        self.pending.extend_from_slice(input);
        let bank = &*self.bank;
        let (whole, part) = ((bank.down / bank.up) as usize, bank.down % bank.up);
        let mut at = 0;
        while let Some(taps) = self.pending.get(at..at + bank.taps) {
            out.push(bank.sample(self.phase, taps));
            at += whole;
            self.phase += part;
            if self.phase >= bank.up {
                self.phase -= bank.up;
                at += 1;
            }
        }
        // A row is longer than the way from one output to the next, so that `at` is not past the end.
        self.pending.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTER: Kaiser = Kaiser {
        cutoff: 0.9,
        beta: 14.0,
        half: 6.5,
    };

    #[test]
    fn rows_are_the_filter_at_each_place_also_between_shared_ones() {
        let input: Vec<f64> = (0..200).map(|i| f64::from(i * i % 97) / 97.0 - 0.5).collect();
        for (from, to) in [(441, 160), (3, 2), (16_001, 16_000), (9_999, 4_000)] {
            let bank = Arc::new(Bank::new(from, to, &FILTER));
            assert_eq!(bank.shared, to > 1024, "{to}");
            let mut polyphase = Polyphase::new(bank, 0);
            let mut out = Vec::new();
            input.chunks(7).for_each(|c| polyphase.push(c, &mut out));
            for (m, y) in out.iter().enumerate() {
                let t = m as f64 * from as f64 / to as f64;
                let weights = |n: i64| FILTER.at(t - n as f64);
                let sum: f64 = (-20..220).map(weights).sum();
                let expected: f64 = (input.iter().enumerate())
                    .map(|(n, x)| x * weights(n as i64) / sum)
                    .sum();
                // A Kaiser window ends in a step (here of 1e-6), which the cubic rounds.
                let bound = if to > 1024 { 2e-7 } else { 1e-14 };
                assert!((y - expected).abs() < bound, "{from} {to} {m}: {y} {expected}");
            }
        }
    }

    #[test]
    fn what_is_needed_is_enough_and_no_more() {
        for (from, to) in [(441, 160), (7, 2), (1, 3), (1, 1)] {
            for outputs in [0, 1, 2, 100] {
                let mut polyphase = Polyphase::new(Arc::new(Bank::new(from, to, &FILTER)), 0);
                let mut out = Vec::new();
                polyphase.push(&[0.1; 20], &mut out);
                let before = out.len();
                let needed = polyphase.needed(outputs);
                if needed > 0 {
                    polyphase.push(&vec![0.1; needed - 1], &mut out);
                    assert!(out.len() - before < outputs, "{from} {to} {outputs}");
                    polyphase.push(&[0.1], &mut out);
                }
                assert!(out.len() - before >= outputs, "{from} {to} {outputs}");
            }
        }
    }
}
