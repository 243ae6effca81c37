//! Paired randomisation: if two runs were alike, each item's difference could as well have the other sign (Fisher 1935;
//! approximate randomisation, Noreen 1989).

use crate::error::{Error, Result};
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Up to so many differences that are not zero, every choice of signs is counted: 2³², in two halves.
const MOST_COUNTED: usize = 32;
const MOST_FLIPS: u64 = 100_000_000;

/// The mean difference of two runs, and how often chance alone gives one as large.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Randomised {
    /// Mean of first − second.
    pub difference: f64,
    /// Of a difference as large, in either direction.
    pub p: f64,
    /// Of one as large or larger.
    pub p_greater: f64,
    /// Of one as small or smaller.
    pub p_less: f64,
    /// Whether all signs were counted, so that the p-values are exact.
    pub exact: bool,
}

/// Compares two runs, item by item. Where items share a clip, hand over the clips' sums: then a clip's items change sign
/// together.
///
/// With at most 32 differences that are not zero all signs are counted. Otherwise `flips` choices of signs are drawn, and p is
/// (1 + those as large) / (1 + `flips`), which is never zero. Sums that differ by rounding alone count as equal. The same
/// arguments give the same bits on any number of threads.
///
/// # Errors
/// No items, lists of unlike length, a value that is not finite, no flips or more than a hundred million.
pub fn paired(first: &[f64], second: &[f64], flips: u64, seed: u64) -> Result<Randomised> {
    let refuse = |key: &str, expected: String, found: String| {
        Err(Error::data("paired randomisation", key, expected, found))
    };
    if first.len() != second.len() {
        let expected = format!("{} values, as the first run has", first.len());
        return refuse("second", expected, second.len().to_string());
    }
    if first.is_empty() {
        return refuse("items", "at least one".into(), "none".into());
    }
    if !(1..=MOST_FLIPS).contains(&flips) {
        return refuse("flips", format!("1 to {MOST_FLIPS}"), flips.to_string());
    }
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
    let size: f64 = differences.iter().map(|d| d.abs()).sum();
    if !size.is_finite() {
        let i = differences.iter().position(|d| !d.is_finite()).unwrap_or(0);
        let found = format!("{} and {}", first[i], second[i]);
        return refuse(&format!("item {i}"), "finite numbers of finite sum".into(), found);
    }
    let observed: f64 = differences.iter().sum();
    // A zero keeps its value whatever its sign.
    let moved: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let seen = Seen {
        observed,
        rounding: 1e-12 * size,
    };
    let exact = moved.len() <= MOST_COUNTED;
    let (count, of) = match exact {
        true => (seen.counted(&moved), 2f64.powi(moved.len() as i32)),
        false => {
            let drawn = seen.drawn(&moved, flips, seed);
            // The signs as they are.
            (drawn.map(|n| n + 1), (flips + 1) as f64)
        }
    };
    let [p, p_greater, p_less] = count.map(|n| n as f64 / of);
    Ok(Randomised {
        difference: observed / first.len() as f64,
        p,
        p_greater,
        p_less,
        exact,
    })
}

struct Seen {
    observed: f64,
    rounding: f64,
}

impl Seen {
    /// Over every choice of signs, those as large either way, as large, and as small. The signs of half of the differences give
    /// 2^(n/2) sums, sorted; to each sum of the other half the fitting ones are a stretch of them.
    fn counted(&self, differences: &[f64]) -> [u64; 3] {
        let sums = |part: &[f64]| {
            let mut all = vec![0.0];
            for d in part {
                all = all.iter().flat_map(|s| [s + d, s - d]).collect();
            }
            all.sort_unstable_by(f64::total_cmp);
            all
        };
        let (left, right) = differences.split_at(differences.len() / 2);
        let (left, right) = (sums(left), sums(right));
        let at_least = |bound: f64| -> u64 {
            let bound = bound - self.rounding;
            let of = |l: &f64| right.len() - right.partition_point(|r| l + r < bound);
            left.iter().map(|l| of(l) as u64).sum()
        };
        // Signs turned over turn the sum over.
        let (greater, less) = (at_least(self.observed), at_least(-self.observed));
        let either = match self.observed.abs() <= self.rounding {
            true => (left.len() * right.len()) as u64,
            false => 2 * at_least(self.observed.abs()),
        };
        [either, greater, less]
    }

    fn drawn(&self, differences: &[f64], flips: u64, seed: u64) -> [u64; 3] {
        let all: f64 = differences.iter().sum();
        let one = |flip: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(flip);
            let mut kept = 0.0;
            for some in differences.chunks(64) {
                let signs = rng.next_u64();
                for (i, d) in some.iter().enumerate() {
                    kept += d * ((signs >> i) & 1) as f64;
                }
            }
            let sum = 2.0 * kept - all;
            [
                sum.abs() >= self.observed.abs() - self.rounding,
                sum >= self.observed - self.rounding,
                sum <= self.observed + self.rounding,
            ]
            .map(u64::from)
        };
        (0..flips)
            .into_par_iter()
            .map(one)
            .reduce(|| [0; 3], |a, b| std::array::from_fn(|i| a[i] + b[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::statistics::mcnemar::McNemar;

    /// Of verdicts the test is McNemar's exact one.
    #[test]
    fn of_verdicts_it_is_the_exact_mcnemar_test() {
        for (only_first, only_second) in [(0, 0), (1, 0), (9, 1), (12, 12), (20, 12), (32, 0)] {
            let first: Vec<f64> = (0..60)
                .map(|i| f64::from(u8::from(i < only_first || i > 50)))
                .collect();
            let right = |i| i >= only_first && i < only_first + only_second || i > 50;
            let second: Vec<f64> = (0..60).map(|i| f64::from(u8::from(right(i)))).collect();
            let found = paired(&first, &second, 1, 1).unwrap();
            let expected = McNemar {
                only_first,
                only_second,
            };
            assert!(found.exact);
            assert!(
                (found.p - expected.exact()).abs() < 1e-12,
                "{only_first} {only_second}"
            );
        }
    }

    #[test]
    fn signs_that_are_drawn_come_near_signs_that_are_counted() {
        let difference: Vec<f64> = (0..33).map(|i| f64::from(i * 37 % 23) / 10.0 - 0.95).collect();
        let zeros = vec![0.0; 33];
        let nonzero = difference.iter().filter(|d| **d != 0.0).count();
        let seen = Seen {
            observed: difference.iter().sum(),
            rounding: 1e-9,
        };
        let count = seen.counted(&difference[..]).map(|n| n as f64 / 2f64.powi(33));
        assert!(nonzero > MOST_COUNTED);
        let flips = 100_000;
        let found = paired(&difference, &zeros, flips, 5).unwrap();
        assert!(!found.exact);
        for (found, expected) in [found.p, found.p_greater, found.p_less].iter().zip(count) {
            let error = 5.0 * (expected * (1.0 - expected) / flips as f64).sqrt() + 1e-5;
            assert!((found - expected).abs() < error, "{found} {expected}");
        }
        assert_eq!(found, paired(&difference, &zeros, flips, 5).unwrap());
        assert_ne!(found, paired(&difference, &zeros, flips, 6).unwrap());
    }

    /// The signs as they are count among those that were drawn.
    #[test]
    fn no_p_of_drawn_signs_is_zero() {
        let found = paired(&[1.0; 40], &[0.0; 40], 9, 1).unwrap();
        assert_eq!((found.p, found.p_greater, found.p_less), (0.1, 0.1, 1.0));
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        assert!(paired(&[], &[], 9, 1).is_err());
        assert!(paired(&[1.0], &[], 9, 1).is_err());
        assert!(paired(&[1.0], &[2.0], 0, 1).is_err());
        let e = paired(&[1.0, f64::NAN], &[2.0, 1.0], 9, 1).unwrap_err();
        assert!(e.to_string().contains("item 1"), "{e}");
        assert!(paired(&[f64::MAX], &[-f64::MAX], 9, 1).is_err());
    }
}
