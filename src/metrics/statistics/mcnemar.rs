//! McNemar's test: do two runs over the same items have unlike shares of right answers?

use super::distributions::{beta_below, binomial, chi_squared_tail};

/// Items that exactly one of two runs had right. All others say nothing about the difference.
///
/// All p-values are two-sided. Without a single such item they are 1: nothing speaks for a difference. statsmodels says 1, 0
/// and NaN there for the exact, corrected and uncorrected test; its 0 is what remains of (|0 − 0| − 1)² / 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct McNemar {
    /// Right in the first run, wrong in the second.
    pub only_first: u64,
    /// Wrong in the first run, right in the second.
    pub only_second: u64,
}

/// The approximation by a chi-squared variable of one degree of freedom.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChiSquared {
    /// `None` where no item tells the runs apart.
    pub statistic: Option<f64>,
    /// 1 there.
    pub p: f64,
}

impl McNemar {
    /// Counts the items of two runs, each as whether it was right in the first and in the second.
    pub fn of(items: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut test = McNemar {
            only_first: 0,
            only_second: 0,
        };
        for (first, second) in items {
            test.only_first += u64::from(first && !second);
            test.only_second += u64::from(second && !first);
        }
        test
    }

    /// Items that tell the runs apart; with none, every p-value is 1.
    pub fn discordant(self) -> u64 {
        self.only_first + self.only_second
    }

    /// Twice the binomial probability, with share 1/2, of at most as many as the smaller count; at most 1.
    pub fn exact(self) -> f64 {
        let (k, n) = self.counts();
        // Half of the distribution or more.
        if 2.0 * k + 1.0 >= n {
            return 1.0;
        }
        (2.0 * beta_below(0.5, n - k, k + 1.0)).min(1.0)
    }

    /// [`McNemar::exact`] with half the probability of what was observed (Fagerland, Lydersen and Laake 2013): closer to its
    /// level, and no longer certain to stay below it.
    pub fn mid_p(self) -> f64 {
        let (k, n) = self.counts();
        if n == 0.0 {
            return 1.0;
        }
        (2.0 * beta_below(0.5, n - k, k + 1.0) - binomial(k, n, 0.5)).min(1.0)
    }

    /// (b − c)² / (b + c).
    pub fn chi_squared(self) -> ChiSquared {
        self.approximate(0.0)
    }

    /// (|b − c| − 1)² / (b + c), with Edwards' continuity correction.
    pub fn chi_squared_corrected(self) -> ChiSquared {
        self.approximate(1.0)
    }

    fn approximate(self, correction: f64) -> ChiSquared {
        if self.discordant() == 0 {
            return ChiSquared {
                statistic: None,
                p: 1.0,
            };
        }
        let apart = self.only_first.abs_diff(self.only_second) as f64 - correction;
        let statistic = apart * apart / self.discordant() as f64;
        ChiSquared {
            statistic: Some(statistic),
            p: chi_squared_tail(statistic),
        }
    }

    fn counts(self) -> (f64, f64) {
        let k = self.only_first.min(self.only_second);
        (k as f64, self.discordant() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_agree_do_not_count() {
        let items = [
            (true, true),
            (true, false),
            (false, true),
            (true, false),
            (false, false),
        ];
        let test = McNemar::of(items);
        assert_eq!((test.only_first, test.only_second), (2, 1));
        assert_eq!(test.exact(), 1.0);
        let none = McNemar::of([(true, true); 5]);
        assert_eq!((none.exact(), none.mid_p()), (1.0, 1.0));
        assert_eq!(none.chi_squared().statistic, None);
        assert_eq!(none.chi_squared_corrected().p, 1.0);
    }

    #[test]
    fn large_counts_stay_finite() {
        let test = McNemar {
            only_first: 3_000_000,
            only_second: 3_004_000,
        };
        let (exact, chi) = (test.exact(), test.chi_squared_corrected().p);
        assert!((exact - chi).abs() < 1e-4 && exact > 0.05, "{exact} {chi}");
        let far = McNemar {
            only_first: 100_000,
            only_second: 1,
        };
        assert_eq!(far.exact(), 0.0);
    }
}
