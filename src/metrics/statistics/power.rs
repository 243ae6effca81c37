//! How small a difference between two shares n items can show.

use super::distributions::{crossing, normal_above};
use crate::error::{Error, Result};

/// What a test is asked to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Power {
    /// How often it may find a difference where there is none, both directions together.
    pub alpha: f64,
    /// How often it should find one that is there.
    pub power: f64,
}

impl Default for Power {
    fn default() -> Self {
        Power {
            alpha: 0.05,
            power: 0.8,
        }
    }
}

impl Power {
    /// Smallest δ such that shares `share` and `share` + δ, each over `n` items of its own, are told apart: the δ with
    /// δ √n = z_α √(2 p̄(1 − p̄)) + z_β √(p(1 − p) + q(1 − q)), where q = p + δ and p̄ = p + δ/2 (Fleiss, Levin and Paik 2003,
    /// equation 4.14, without continuity correction). `None` where not even q = 1 would be.
    ///
    /// # Errors
    /// No items; a share, α or power outside of what it can be.
    pub fn unpaired(&self, share: f64, n: u64) -> Result<Option<f64>> {
        let (alpha, beta) = self.quantiles()?;
        if !(0.0..=1.0).contains(&share) {
            return refuse("share", "0 to 1", share);
        }
        let spread = |p: f64| p * (1.0 - p);
        let seen = |d: f64| {
            let (null, other) = (2.0 * spread(share + d / 2.0), spread(share) + spread(share + d));
            alpha * null.max(0.0).sqrt() + beta * other.max(0.0).sqrt()
        };
        smallest(1.0 - share, n, seen)
    }

    /// Smallest difference that McNemar's test shows between two runs over the same `n` items, of which the share `discordant`
    /// is right in one of the runs only: the δ with δ √n = z_α √ψ + z_β √(ψ − δ²), ψ = `discordant` (Miettinen 1968; Connor
    /// 1987). At most ψ; `None` where not even that would be.
    ///
    /// # Errors
    /// No items; a share, α or power outside of what it can be.
    pub fn paired(&self, discordant: f64, n: u64) -> Result<Option<f64>> {
        let (alpha, beta) = self.quantiles()?;
        if !(0.0..=1.0).contains(&discordant) {
            return refuse("discordant", "0 to 1", discordant);
        }
        let seen = |d: f64| alpha * discordant.sqrt() + beta * (discordant - d * d).max(0.0).sqrt();
        smallest(discordant, n, seen)
    }

    fn quantiles(&self) -> Result<(f64, f64)> {
        if !(self.alpha > 0.0 && self.alpha < 1.0) {
            return refuse("alpha", "a share between 0 and 1", self.alpha);
        }
        if !(self.power >= 0.5 && self.power < 1.0) {
            return refuse("power", "1/2 to 1, without 1", self.power);
        }
        Ok((normal_above(self.alpha / 2.0), normal_above(1.0 - self.power)))
    }
}

fn refuse<T>(key: &str, expected: &str, found: f64) -> Result<T> {
    Err(Error::data("power", key, expected, found.to_string()))
}

/// The smallest d up to `most` with d √n ≥ `seen`(d).
fn smallest(most: f64, n: u64, seen: impl Fn(f64) -> f64) -> Result<Option<f64>> {
    if n == 0 {
        return refuse("n", "at least one item", 0.0);
    }
    let over = |d: f64| d * (n as f64).sqrt() - seen(d);
    Ok((most > 0.0 && over(most) >= 0.0).then(|| crossing(0.0, most, over)))
}

#[cfg(test)]
mod tests {
    use super::super::distributions::binomial;
    use super::super::mcnemar::McNemar;
    use super::*;

    /// Fleiss, Levin and Paik's formula for the sample size, turned round: p = 0.25 and 0.40 need 152 each.
    #[test]
    fn unpaired_undoes_the_sample_size() {
        let found = Power::default().unpaired(0.25, 152).unwrap().unwrap();
        assert!((found - 0.15).abs() < 0.001, "{found}");
        let strict = Power {
            alpha: 0.01,
            power: 0.95,
        };
        let found = strict.unpaired(0.6, 747).unwrap().unwrap();
        // (2.5758 √(2 · 0.65 · 0.35) + 1.6449 √(0.6 · 0.4 + 0.7 · 0.3))² / 0.01 = 806 for δ = 0.1.
        assert!(found > 0.1 && found < 0.11, "{found}");
        assert!((strict.unpaired(0.6, 806).unwrap().unwrap() - 0.1).abs() < 0.0005);
    }

    /// (1.96 √0.3 + 0.8416 √(0.3 − 0.04))² / 0.04 = 56.5 items for δ = 0.2.
    #[test]
    fn paired_undoes_the_sample_size() {
        let of = |n| Power::default().paired(0.3, n).unwrap().unwrap();
        assert!(of(56) > 0.2 && of(57) < 0.2, "{} {}", of(56), of(57));
    }

    /// The exact power of the uncorrected test, over every table that can come up.
    #[test]
    fn the_paired_difference_is_found_four_times_in_five() {
        let (n, discordant) = (400u64, 0.3);
        let d = Power::default().paired(discordant, n).unwrap().unwrap();
        let first = (discordant + d) / 2.0 / discordant;
        let mut found = 0.0;
        for m in 1..=n {
            let of_m = binomial(m as f64, n as f64, discordant);
            for b in 0..=m {
                let test = McNemar {
                    only_first: b,
                    only_second: m - b,
                };
                if test.chi_squared().p < 0.05 {
                    found += of_m * binomial(b as f64, m as f64, first);
                }
            }
        }
        assert!((found - 0.8).abs() < 0.02, "{found}");
    }

    #[test]
    fn too_few_items_show_nothing_and_nonsense_is_refused() {
        let power = Power::default();
        assert_eq!(power.paired(0.1, 20).unwrap(), None);
        assert_eq!(power.paired(0.0, 1_000_000).unwrap(), None);
        assert_eq!(power.unpaired(0.9, 20).unwrap(), None);
        assert_eq!(power.unpaired(1.0, 20).unwrap(), None);
        assert!(power.paired(0.1, 0).is_err() && power.paired(1.1, 9).is_err());
        assert!(power.unpaired(f64::NAN, 9).is_err());
        let none = Power { power: 1.0, ..power };
        assert!(none.unpaired(0.5, 9).is_err());
    }
}
