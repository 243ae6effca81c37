//! How sure a number is, and whether two numbers differ: intervals, paired tests, corrections for many tests, agreement.
//!
//! Two runs over the same items are compared item by item:
//!
//! ```
//! use af2::metrics::statistics::mcnemar::McNemar;
//!
//! // Six items that only the first run had right, none that only the second had.
//! let test = McNemar { only_first: 6, only_second: 0 };
//! assert!((test.exact() - 0.03125).abs() < 1e-12);
//! ```

pub mod clusters;
pub mod correlation;
mod distributions;
pub mod mcnemar;
pub mod multiplicity;
pub mod power;
pub mod proportion;
pub mod randomisation;
pub mod seeds;

use super::mean;

/// Sample standard deviation (divisor n − 1). `None` of fewer than two values, and where one is not finite.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    if values.len() < 2 {
        return None;
    }
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let deviation = (squares / (values.len() - 1) as f64).sqrt();
    deviation.is_finite().then_some(deviation)
}

/// Standard error of the mean of independent values: [`deviation`] over √n, as lm-evaluation-harness's `mean_stderr`.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    deviation(values).map(|d| d / (values.len() as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_value_has_no_deviation() {
        assert_eq!(deviation(&[]), None);
        assert_eq!(deviation(&[3.0]), None);
        assert_eq!(standard_error(&[1.0, f64::INFINITY]), None);
        // 1, 2, 3, 4, 5: variance 10/4.
        assert_eq!(
            standard_error(&[1.0, 2.0, 3.0, 4.0, 5.0]),
            Some((2.5f64 / 5.0).sqrt())
        );
    }
}
