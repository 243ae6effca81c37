//! Confidence intervals by resampling: the percentile bootstrap of the mean (Efron and Tibshirani 1993, chapter 13).

use super::alike::Alike;
use crate::error::{Error, Result};
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Resamples above this are a slip of the keyboard: their means alone would take 80 MB.
const MOST_RESAMPLES: usize = 10_000_000;

/// Both ends in the unit of the values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// How intervals are made; written beside them, so that they can be made again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// Share of the resampled means inside the interval, between 0 and 1.
    pub level: f64,
    /// How many times the values are drawn again.
    pub resamples: usize,
    /// Of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap {
            level: 0.95,
            resamples: 10_000,
            seed: 1,
        }
    }
}

impl Bootstrap {
    /// The interval of the mean of values, with these settings.
    pub fn interval(&self, values: &[f64]) -> Result<Interval> {
        interval(values, self.level, self.resamples, self.seed)
    }

    /// The middle `level` of sorted values: the interval, where they are a statistic's over resamples. `None` of no values, and
    /// of a level that cannot be.
    pub fn middle(&self, sorted: &[f64]) -> Option<Interval> {
        self.check().ok()?;
        (!sorted.is_empty()).then(|| self.within(sorted))
    }

    pub(super) fn check(&self) -> Result<()> {
        if !(self.level > 0.0 && self.level < 1.0) {
            return refuse("level", "a share between 0 and 1", self.level.to_string());
        }
        if !(1..=MOST_RESAMPLES).contains(&self.resamples) {
            return refuse(
                "resamples",
                format!("1 to {MOST_RESAMPLES}"),
                self.resamples.to_string(),
            );
        }
        Ok(())
    }

    /// The random numbers of one resample, whoever draws it.
    pub(super) fn stream(&self, resample: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(resample);
        rng
    }

    /// The middle `level` of sorted, non-empty values.
    pub(super) fn within(&self, sorted: &[f64]) -> Interval {
        Interval {
            low: quantile(sorted, (1.0 - self.level) / 2.0),
            high: quantile(sorted, (1.0 + self.level) / 2.0),
        }
    }
}

/// Interval of the mean of `values`: the quantiles (1 − level)/2 and (1 + level)/2, linearly interpolated, of the
/// means of `resamples` draws of n values with replacement.
///
/// The same arguments give the same bits on any number of threads: resample r takes the ChaCha8 stream r of `seed`,
/// and one 32-bit word a draw. Where at most 256 of the values differ, and there are at least 256 times as many, it is drawn how
/// often each different one occurs, which has the same distribution and costs a fraction.
///
/// Values that are all alike give an interval of no width, be there two of them or two thousand; read it together
/// with n.
///
/// # Errors
/// No values, more than 2³² − 1, one that is not finite, a level not inside (0, 1), no resamples or more than ten
/// million.
pub(crate) fn interval(values: &[f64], level: f64, resamples: usize, seed: u64) -> Result<Interval> {
    let settings = Bootstrap {
        level,
        resamples,
        seed,
    };
    settings.check()?;
    let n = match u32::try_from(values.len()) {
        Ok(n) if n > 0 => u64::from(n),
        _ => return refuse("values", format!("1 to {}", u32::MAX), values.len().to_string()),
    };
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        return refuse(&format!("values[{i}]"), "a finite number", values[i].to_string());
    }
    // A resample may take the largest value every time.
    let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if !(largest * n as f64).is_finite() {
        return refuse("values", "values whose sum is finite", largest.to_string());
    }
    let alike = Alike::of(1, values);
    let mut means: Vec<f64> = (0..resamples as u64)
        .into_par_iter()
        .map(|stream| {
            let mut rng = settings.stream(stream);
            let mut sum = [0.0];
            match &alike {
                Some(alike) => alike.draw(&mut rng, &mut sum),
                None => sum[0] = (0..n).map(|_| values[one_of(n, &mut rng)]).sum(),
            }
            sum[0] / n as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    Ok(settings.within(&means))
}

/// Refuses one argument of the bootstrap.
pub(super) fn refuse<T>(key: &str, expected: impl Into<String>, found: impl Into<String>) -> Result<T> {
    Err(Error::data("bootstrap", key, expected, found))
}

/// Uniform over 0..n for n below 2³², up to n / 2³²: the high half of word × n costs no division.
pub(super) fn one_of(n: u64, rng: &mut ChaCha8Rng) -> usize {
    ((u64::from(rng.next_u32()) * n) >> 32) as usize
}

/// Quantile `q` of sorted, non-empty values, linear between neighbours (numpy's default).
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(correct: usize, n: usize) -> Vec<f64> {
        (0..n).map(|i| f64::from(u8::from(i < correct))).collect()
    }

    #[test]
    fn near_the_normal_interval_for_many_items() {
        let found = interval(&right(280, 400), 0.95, 10_000, 1).unwrap();
        let half = 1.959_964 * (0.7f64 * 0.3 / 400.0).sqrt();
        // Both the normal approximation and 10 000 resamples are good to a fraction of an item, 1/400.
        assert!((found.low - (0.7 - half)).abs() < 0.004, "{found:?}");
        assert!((found.high - (0.7 + half)).abs() < 0.004, "{found:?}");
    }

    #[test]
    fn a_wider_level_and_fewer_items_widen_it() {
        let width = |n, level| {
            let i = interval(&right(n / 2, n), level, 2_000, 1).unwrap();
            i.high - i.low
        };
        assert!(width(100, 0.99) > width(100, 0.95));
        assert!(width(25, 0.95) > width(100, 0.95));
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
        let values = right(13, 37);
        let with = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| interval(&values, 0.95, 500, seed).unwrap())
        };
        assert_eq!(with(1, 7), with(3, 7));
        let varied: Vec<f64> = (0..37).map(|i| f64::from(i).sqrt()).collect();
        let seeded = |seed| interval(&varied, 0.95, 500, seed).unwrap();
        assert_ne!(seeded(7), seeded(8));
    }

    #[test]
    fn no_width_where_all_values_are_alike() {
        let found = interval(&[1.0; 3], 0.95, 100, 1).unwrap();
        assert_eq!(found, Interval { low: 1.0, high: 1.0 });
    }

    #[test]
    fn nothing_and_no_numbers_are_errors() {
        assert!(interval(&[], 0.95, 100, 1).is_err());
        assert!(interval(&[1.0], 1.0, 100, 1).is_err());
        assert!(interval(&[1.0], f64::NAN, 100, 1).is_err());
        assert!(interval(&[1.0], 0.95, 0, 1).is_err());
        assert!(interval(&[f64::MAX, -f64::MAX], 0.95, 10, 1).is_err());
        let e = interval(&[1.0, f64::NAN], 0.95, 100, 1).unwrap_err();
        assert!(e.to_string().contains("values[1]"), "{e}");
    }

    #[test]
    fn quantiles_are_linear_between_neighbours() {
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 4.0], 0.5), 1.5);
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 4.0], 1.0), 4.0);
        assert_eq!(quantile(&[3.0], 0.3), 3.0);
    }
}
