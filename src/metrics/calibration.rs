//! Do probabilities mean what they say? For answers by likelihood, which come with a probability for each choice.

use crate::error::{Error, Result};

/// A distribution over the choices of an item, and which of them is right.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Of each choice; their sum is 1. Items may have unlike numbers of choices.
    pub probabilities: &'a [f64],
    /// The place of the right one.
    pub truth: usize,
}

/// How far probabilities are off.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Mean of Σ (p − y)² over the choices, y = 1 for the right one and 0 else: from 0 to 2 (Brier 1950; half of it for two
    /// choices is what some call the score).
    pub brier: f64,
    /// Mean over items of |accuracy − mean confidence| of the item's bin (Guo et al. 2017).
    pub expected_error: f64,
    /// The largest of these over bins with items.
    pub largest_error: f64,
    /// By rising confidence.
    pub bins: Vec<Bin>,
}

/// Items whose likeliest choice has a probability within (i/bins, (i + 1)/bins], in the first bin also 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Items.
    pub n: usize,
    /// Share whose likeliest choice, of several the first, is right. `None` without items.
    pub accuracy: Option<f64>,
    /// Mean probability of the likeliest choice. `None` without items.
    pub confidence: Option<f64>,
}

/// What a sum of probabilities may be off: they may have been written with few digits.
const ROUNDING: f64 = 1e-3;

/// Over items, with `bins` bins of equal width (15 in Guo et al.); the expected error depends on their number. `None` of no items.
///
/// # Errors
/// No bins or more than a million, a probability that is not within 0 and 1, probabilities whose sum is off by more than 0.001,
/// a right choice that is not there.
pub fn calibration<'a>(
    items: impl IntoIterator<Item = Choice<'a>>,
    bins: usize,
) -> Result<Option<Calibration>> {
    let refuse =
        |key: String, expected: String, found: String| Err(Error::data("calibration", key, expected, found));
    if !(1..=1_000_000).contains(&bins) {
        return refuse("bins".into(), "1 to 1000000".into(), bins.to_string());
    }
    // Items, right ones, sum of confidences.
    let mut sums = vec![(0usize, 0usize, 0.0f64); bins];
    let (mut n, mut squares) = (0usize, 0.0);
    for (i, Choice { probabilities, truth }) in items.into_iter().enumerate() {
        let odd = probabilities.iter().position(|p| !(0.0..=1.0).contains(p));
        if let Some(at) = odd {
            let found = probabilities[at].to_string();
            return refuse(format!("item {i}, choice {at}"), "0 to 1".into(), found);
        }
        let sum: f64 = probabilities.iter().sum();
        if (sum - 1.0).abs() > ROUNDING {
            return refuse(
                format!("item {i}"),
                "probabilities whose sum is 1".into(),
                sum.to_string(),
            );
        }
        if truth >= probabilities.len() {
            let expected = format!("one of {} choices", probabilities.len());
            return refuse(format!("truth of item {i}"), expected, truth.to_string());
        }
        let (mut likeliest, mut confidence) = (0, probabilities[0]);
        for (at, p) in probabilities.iter().enumerate() {
            squares += (p - f64::from(u8::from(at == truth))).powi(2);
            if *p > confidence {
                (likeliest, confidence) = (at, *p);
            }
        }
        n += 1;
        let bin = ((confidence * bins as f64).ceil() as usize).clamp(1, bins) - 1;
        sums[bin].0 += 1;
        sums[bin].1 += usize::from(likeliest == truth);
        sums[bin].2 += confidence;
    }
    if n == 0 {
        return Ok(None);
    }
    let (mut expected, mut largest) = (0.0, 0.0f64);
    let of_bin = |(n, right, confidence): &(usize, usize, f64)| {
        let share = |part: f64| (*n > 0).then(|| part / *n as f64);
        Bin {
            n: *n,
            accuracy: share(*right as f64),
            confidence: share(*confidence),
        }
    };
    let bins: Vec<Bin> = sums.iter().map(of_bin).collect();
    for bin in &bins {
        if let (Some(accuracy), Some(confidence)) = (bin.accuracy, bin.confidence) {
            let error = (accuracy - confidence).abs();
            expected += error * bin.n as f64 / n as f64;
            largest = largest.max(error);
        }
    }
    Ok(Some(Calibration {
        brier: squares / n as f64,
        expected_error: expected,
        largest_error: largest,
        bins,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(items: &[(&[f64], usize)], bins: usize) -> Result<Option<Calibration>> {
        let item = |i: usize| Choice {
            probabilities: items[i].0,
            truth: items[i].1,
        };
        calibration((0..items.len()).map(item), bins)
    }

    #[test]
    fn four_items_by_hand() {
        let found = of(
            &[
                // (0.2² + 0.2²) = 0.08; bin (0.75, 1], right
                (&[0.8, 0.2], 0),
                // 0.7² + 0.7² = 0.98; bin (0.5, 0.75], wrong
                (&[0.7, 0.3], 1),
                // 0.5² + 0.25² + 0.25² = 0.375; bin (0.25, 0.5], right
                (&[0.25, 0.5, 0.25], 1),
                // 0; bin (0.75, 1], right
                (&[0.0, 0.0, 0.0, 1.0], 3),
            ],
            4,
        );
        let found = found.unwrap().unwrap();
        assert!((found.brier - (0.08 + 0.98 + 0.375) / 4.0).abs() < 1e-15);
        let n: Vec<usize> = found.bins.iter().map(|b| b.n).collect();
        assert_eq!(n, [0, 1, 1, 2]);
        assert_eq!(found.bins[0].accuracy, None);
        // |1 − 0.5|/4 + |0 − 0.7|/4 + |1 − 0.9| 2/4
        assert!((found.expected_error - (0.125 + 0.175 + 0.05)).abs() < 1e-15);
        assert!((found.largest_error - 0.7).abs() < 1e-15);
    }

    #[test]
    fn sure_and_right_is_0_sure_and_wrong_2() {
        let right = of(&[(&[1.0, 0.0], 0)], 10).unwrap().unwrap();
        assert_eq!((right.brier, right.expected_error), (0.0, 0.0));
        let wrong = of(&[(&[1.0, 0.0], 1)], 10).unwrap().unwrap();
        assert_eq!((wrong.brier, wrong.expected_error), (2.0, 1.0));
        assert_eq!(of(&[], 10).unwrap(), None);
    }

    #[test]
    fn what_is_no_distribution_is_an_error() {
        let e = |p: &[f64], truth, bins| of(&[(p, truth)], bins).unwrap_err().to_string();
        assert!(e(&[0.5, 0.6], 0, 10).contains("item 0: expected probabilities whose sum is 1"));
        assert!(e(&[1.5, -0.5], 0, 10).contains("item 0, choice 0"));
        assert!(e(&[f64::NAN, 0.5], 0, 10).contains("NaN"));
        assert!(e(&[0.5, 0.5], 2, 10).contains("truth of item 0"));
        assert!(e(&[], 0, 10).contains("sum is 1"));
        assert!(e(&[1.0], 0, 0).contains("bins"));
    }
}
