//! p-values of several tests at once, adjusted: each may be compared with the level as if its test stood alone.

use crate::error::{Error, Result};

/// What is kept below the level over all the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correction {
    /// The chance of any false finding; each p times their number. Never better than Holm's.
    Bonferroni,
    /// The chance of any false finding, step by step from the smallest p (Holm 1979).
    Holm,
    /// The expected share of false findings among all findings, for tests that are independent or depend positively
    /// (Benjamini and Hochberg 1995).
    BenjaminiHochberg,
}

/// Adjusted p-values in the order of `p`, at most 1.
///
/// # Errors
/// A value that is not within 0 and 1.
pub fn adjusted(correction: Correction, p: &[f64]) -> Result<Vec<f64>> {
    if let Some(i) = p.iter().position(|p| !(0.0..=1.0).contains(p)) {
        let found = p[i].to_string();
        return Err(Error::data("p-values", format!("p[{i}]"), "0 to 1", found));
    }
    let n = p.len() as f64;
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut all = vec![0.0; p.len()];
    match correction {
        Correction::Bonferroni => {
            for (all, p) in all.iter_mut().zip(p) {
                *all = (p * n).min(1.0);
            }
        }
        Correction::Holm => {
            let mut most: f64 = 0.0;
            for (rank, i) in order.iter().enumerate() {
                most = most.max(p[*i] * (n - rank as f64));
                all[*i] = most.min(1.0);
            }
        }
        Correction::BenjaminiHochberg => {
            let mut least: f64 = 1.0;
            for (rank, i) in order.iter().enumerate().rev() {
                least = least.min(p[*i] * n / (rank + 1) as f64);
                all[*i] = least;
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_test_stays_as_it_is_and_no_test_is_nothing() {
        for correction in [
            Correction::Bonferroni,
            Correction::Holm,
            Correction::BenjaminiHochberg,
        ] {
            assert_eq!(adjusted(correction, &[0.03]).unwrap(), [0.03]);
            assert_eq!(adjusted(correction, &[]).unwrap(), [0.0; 0]);
            assert!(adjusted(correction, &[0.1, f64::NAN]).is_err());
            assert!(adjusted(correction, &[1.1]).is_err());
        }
    }
}
