//! Intervals of a share from its counts alone. They take items for independent: with several questions to a clip, use
//! [`clusters`](super::clusters).

use super::distributions::{beta_quantile, normal_two_sided};
use crate::error::{Error, Result};
use crate::metrics::bootstrap::Interval;

/// How the interval of a share is made (Brown, Cai and DasGupta 2001 compare all five). Each is cut at 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Wilson's score interval: right for small n and near 0 and 1.
    Wilson,
    /// Wald's p ± z √(p(1 − p)/n): no width at 0 and 1. For comparison with papers that report it.
    Normal,
    /// [`Method::Normal`] about the centre of [`Method::Wilson`].
    AgrestiCoull,
    /// Clopper and Pearson's exact interval: covers at least its level, mostly more.
    ClopperPearson,
    /// The quantiles of the beta distribution with 1/2 added to both counts. As statsmodels has it, without moving its ends to
    /// 0 and 1 where no or all items are right.
    Jeffreys,
}

/// The two-sided interval of the share `right` of `n` at `level` (0.95).
///
/// # Errors
/// No items, more right ones than items, a level not inside (0, 1).
pub fn interval(method: Method, right: u64, n: u64, level: f64) -> Result<Interval> {
    let refuse = |key: &str, expected: String, found: String| {
        Err(Error::data("interval of a share", key, expected, found))
    };
    if n == 0 {
        return refuse("n", "at least one item".into(), "none".into());
    }
    if right > n {
        return refuse("right", format!("at most n = {n}"), right.to_string());
    }
    if !(level > 0.0 && level < 1.0) {
        return refuse("level", "a share between 0 and 1".into(), level.to_string());
    }
    let (k, n) = (right as f64, n as f64);
    let share = k / n;
    let z = normal_two_sided(level);
    let about = |centre: f64, half: f64| Interval {
        low: (centre - half).max(0.0),
        high: (centre + half).min(1.0),
    };
    let tail = (1.0 - level) / 2.0;
    let wider = n + z * z;
    let centre = (k + z * z / 2.0) / wider;
    Ok(match method {
        Method::Wilson => wilson(share, n, level),
        Method::Normal => about(share, z * (share * (1.0 - share) / n).sqrt()),
        Method::AgrestiCoull => about(centre, z * (centre * (1.0 - centre) / wider).sqrt()),
        Method::ClopperPearson => Interval {
            low: match k {
                0.0 => 0.0,
                k => beta_quantile(tail, k, n - k + 1.0),
            },
            high: match n - k {
                0.0 => 1.0,
                wrong => beta_quantile(1.0 - tail, k + 1.0, wrong),
            },
        },
        Method::Jeffreys => Interval {
            low: beta_quantile(tail, k + 0.5, n - k + 0.5),
            high: beta_quantile(1.0 - tail, k + 0.5, n - k + 0.5),
        },
    })
}

/// [`Method::Wilson`] of a share over so many items, which need be no whole number: what answers that hang together are worth.
pub(crate) fn wilson(share: f64, n: f64, level: f64) -> Interval {
    let z = normal_two_sided(level);
    let wider = n + z * z;
    let centre = (share * n + z * z / 2.0) / wider;
    let half = z / wider * (n * share * (1.0 - share) + z * z / 4.0).sqrt();
    Interval {
        low: (centre - half).max(0.0),
        high: (centre + half).min(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Method; 5] = [
        Method::Wilson,
        Method::Normal,
        Method::AgrestiCoull,
        Method::ClopperPearson,
        Method::Jeffreys,
    ];

    #[test]
    fn every_method_is_near_the_normal_one_for_many_items() {
        let expected = interval(Method::Normal, 400_000, 1_000_000, 0.95).unwrap();
        for method in ALL {
            let found = interval(method, 400_000, 1_000_000, 0.95).unwrap();
            assert!((found.low - expected.low).abs() < 2e-6, "{method:?} {found:?}");
            assert!((found.high - expected.high).abs() < 2e-6, "{method:?} {found:?}");
        }
    }

    #[test]
    fn counts_that_cannot_be_are_errors() {
        for method in ALL {
            assert!(interval(method, 0, 0, 0.95).is_err());
            assert!(interval(method, 3, 2, 0.95).is_err());
            assert!(interval(method, 1, 2, 1.0).is_err());
            assert!(interval(method, 1, 2, f64::NAN).is_err());
        }
    }
}
