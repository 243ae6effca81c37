//! Measures on plain values: no tensor, no model, no file.
//!
//! Nothing here returns NaN: what cannot be measured (no items, a value that is not a number) is `None` or an error.
//!
//! A score with its interval, as `results.json` has it:
//!
//! ```
//! use af2::metrics::{accuracy::Count, bootstrap::Bootstrap};
//!
//! let right = [true, true, false, true, true, false, true, true];
//! let share = Count::of(right).accuracy();
//! assert_eq!(share, Some(0.75));
//! assert_eq!(Count::of([]).accuracy(), None);
//!
//! let values = right.map(|r| f64::from(u8::from(r)));
//! let interval = Bootstrap::default().interval(&values)?;
//! assert!(interval.low < 0.75 && 0.75 < interval.high);
//! # Ok::<(), af2::Error>(())
//! ```

pub mod accuracy;
mod alike;
pub mod bert_score;
pub mod bootstrap;
pub mod calibration;
pub mod captions;
pub mod classification;
pub mod ranking;
pub mod retrieval;
pub mod statistics;

/// Arithmetic mean; `None` of nothing, and where a value or their sum is not finite.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    mean.is_finite().then_some(mean)
}

#[cfg(test)]
mod tests {
    use super::mean;

    #[test]
    fn the_mean_of_nothing_and_of_no_numbers_is_none() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[1.0, f64::NAN]), None);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
    }
}
