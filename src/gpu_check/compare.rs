//! How far two tensors are from each other.

use tch::{Device, Kind, Tensor};

/// ‖found − expected‖ / ‖expected‖ over all elements, in float64 on the CPU; the plain norm of `found` where `expected` is 0.
/// NaN where one of them is not finite, which is within no bound; infinite where their shapes differ.
pub(crate) fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    if found.size() != expected.size() {
        return f64::INFINITY;
    }
    let (found, expected) = (wide(found), wide(expected));
    let (off, all) = (norm(&(&found - &expected)), norm(&expected));
    if all == 0.0 {
        off
    } else {
        off / all
    }
}

/// The same of gradients, by weight: the largest, and whose it is. Weights whose gradient is smaller than the share `small` of the
/// whole gradient are measured by that share of it: what is left of theirs is rounding (the bias of keys moves no attention).
pub(crate) fn gradients(
    found: &[(String, Tensor)],
    expected: &[(String, Tensor)],
    small: f64,
) -> (f64, String) {
    if found.len() != expected.len() {
        let why = format!("{} weights have a gradient, not {}", found.len(), expected.len());
        return (f64::INFINITY, why);
    }
    let wides: Vec<Tensor> = expected.iter().map(|(_, t)| wide(t)).collect();
    let whole = wides.iter().map(|t| norm(t).powi(2)).sum::<f64>().sqrt();
    let mut worst = (0.0, String::new());
    for (((name, found), (other, _)), expected) in found.iter().zip(expected).zip(&wides) {
        let off = match name == other && found.size() == expected.size() {
            true => {
                norm(&(wide(found) - expected)) / norm(expected).max(small * whole).max(f64::MIN_POSITIVE)
            }
            false => f64::INFINITY,
        };
        // A NaN is the worst there is.
        if off.is_nan() || off > worst.0 {
            worst = (off, name.clone());
        }
        if off.is_nan() {
            break;
        }
    }
    worst
}

fn wide(t: &Tensor) -> Tensor {
    t.detach().to_device(Device::Cpu).to_kind(Kind::Double)
}

fn norm(t: &Tensor) -> f64 {
    f64::try_from(t.norm()).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(values: &[f64]) -> Tensor {
        Tensor::from_slice(values)
    }

    #[test]
    fn distance_is_relative_and_sees_what_is_no_number() {
        assert_eq!(distance(&t(&[3.0, 4.0]), &t(&[3.0, 4.0])), 0.0);
        assert!((distance(&t(&[3.0, 4.5]), &t(&[3.0, 4.0])) - 0.1).abs() < 1e-12);
        assert_eq!(distance(&t(&[0.5]), &t(&[0.0])), 0.5);
        assert!(distance(&t(&[f64::NAN]), &t(&[1.0])).is_nan());
        assert_eq!(distance(&t(&[1.0, 2.0]), &t(&[1.0])), f64::INFINITY);
    }

    #[test]
    fn the_worst_gradient_is_named_and_rounding_is_not_taken_for_one() {
        let named = |all: &[(&str, &[f64])]| -> Vec<(String, Tensor)> {
            all.iter().map(|(n, v)| (n.to_string(), t(v))).collect()
        };
        let expected = named(&[("big", &[1000.0]), ("small", &[1e-9])]);
        let (off, _) = gradients(
            &named(&[("big", &[1000.0]), ("small", &[-1e-9])]),
            &expected,
            1e-3,
        );
        assert!(off < 1e-8, "{off}");
        let (off, name) = gradients(&named(&[("big", &[1100.0]), ("small", &[0.0])]), &expected, 1e-3);
        assert!((off - 0.1).abs() < 1e-9 && name == "big");
        let (off, name) = gradients(
            &named(&[("big", &[f64::NAN]), ("small", &[5.0])]),
            &expected,
            1e-3,
        );
        assert!(off.is_nan() && name == "big");
        assert_eq!(
            gradients(&named(&[("big", &[1000.0])]), &expected, 1e-3).0,
            f64::INFINITY
        );
    }
}
