//! The normal, chi-squared and beta distributions, as far as tests and intervals need them.

use std::f64::consts::{PI, TAU};

/// The place within `low..=high` where a function that never falls passes zero, to the last bit: bisection.
pub(super) fn crossing(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return middle;
        }
        if f(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// The continued fraction b₀ + a₁/(b₁ + a₂/(b₂ + …)) by Lentz's method; `next` gives (a, b) of each further term.
fn continued(first: f64, mut next: impl FnMut(f64) -> (f64, f64)) -> f64 {
    /// More than the slowest needs: √n terms for the beta distribution of n items.
    const MOST: u32 = 1 << 20;
    let away = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut value = away(first);
    let (mut c, mut d) = (value, 0.0);
    for m in 1..=MOST {
        let (a, b) = next(f64::from(m));
        d = 1.0 / away(b + a * d);
        c = away(b + a / c);
        value *= c * d;
        if (c * d - 1.0).abs() <= f64::EPSILON {
            break;
        }
    }
    value
}

/// Probability that a chi-squared variable of one degree of freedom is at least `x`: Q(1/2, x/2).
pub(super) fn chi_squared_tail(x: f64) -> f64 {
    let z = x / 2.0;
    if z <= 0.0 {
        return 1.0;
    }
    let weight = (-z).exp() * (z / PI).sqrt();
    if z < 1.5 {
        // The series of P(1/2, z).
        let (mut term, mut sum) = (2.0, 2.0);
        for n in 1..100 {
            term *= z / (f64::from(n) + 0.5);
            sum += term;
        }
        return 1.0 - weight * sum;
    }
    weight / continued(z + 0.5, |m| (-m * (m - 0.5), z + 0.5 + 2.0 * m))
}

/// The z that a standard normal variable exceeds with probability `tail`, of which 0 < `tail` ≤ 1/2.
pub(super) fn normal_above(tail: f64) -> f64 {
    // Both tails are the chi-squared tail of z²; at 40 nothing is left of it.
    crossing(0.0, 40.0, |z| 2.0 * tail - chi_squared_tail(z * z))
}

/// The z outside of which (both sides together) a standard normal variable lies with probability 1 − `level`.
pub(super) fn normal_two_sided(level: f64) -> f64 {
    normal_above((1.0 - level) / 2.0)
}

/// What Stirling's formula lacks of ln z!: ln Γ(z + 1) − (z + 1/2) ln z + z − ln(2π)/2, for z > 0.
fn stirling_error(mut z: f64) -> f64 {
    let mut below = 0.0;
    while z < 16.0 {
        below += (z + 0.5) * (1.0 / z).ln_1p() - 1.0;
        z += 1.0;
    }
    let s = 1.0 / (z * z);
    let series = 1.0 / 12.0 - s * (1.0 / 360.0 - s * (1.0 / 1260.0 - s * (1.0 / 1680.0 - s / 1188.0)));
    below + series / z
}

/// x ln(x/m) + m − x without cancellation where x is near m.
fn deviance(x: f64, m: f64) -> f64 {
    if (x - m).abs() >= 0.1 * (x + m) {
        return x * (x / m).ln() + m - x;
    }
    let v = (x - m) / (x + m);
    let mut sum = (x - m) * v;
    let mut power = 2.0 * x * v;
    for j in 1..1000 {
        power *= v * v;
        let next = sum + power / f64::from(2 * j + 1);
        if next == sum {
            break;
        }
        sum = next;
    }
    sum
}

/// Γ(n + 1) / (Γ(k + 1) Γ(n − k + 1)) pᵏ (1 − p)ⁿ⁻ᵏ, also between whole numbers: Loader's saddle-point form (2000), which
/// stays exact where the factors alone would not.
pub(super) fn binomial(k: f64, n: f64, p: f64) -> f64 {
    if k == 0.0 {
        return (n * (-p).ln_1p()).exp();
    }
    if k == n {
        return p.powf(n);
    }
    let rest = n - k;
    let exponent = stirling_error(n)
        - stirling_error(k)
        - stirling_error(rest)
        - deviance(k, n * p)
        - deviance(rest, n * (1.0 - p));
    exponent.exp() * (n / (TAU * k * rest)).sqrt()
}

/// The regularised incomplete beta function I_x(a, b), for a and b > 0 and 0 ≤ x ≤ 1.
pub(super) fn beta_below(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // xᵃ (1 − x)ᵇ / B(a, b)
    let weight = binomial(a, a + b, x) * a * b / (a + b);
    let fraction = |x: f64, a: f64, b: f64| {
        let mut even = true;
        let mut terms = 0.0;
        continued(1.0, |_| {
            // The odd terms d₁, d₃, … and the even ones d₂, d₄, … have forms of their own.
            even = !even;
            let m = terms;
            let term = if even {
                m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
            } else {
                terms += 1.0;
                -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
            };
            (term, 1.0)
        })
    };
    if x < (a + 1.0) / (a + b + 2.0) {
        weight / (a * fraction(x, a, b))
    } else {
        1.0 - weight / (b * fraction(1.0 - x, b, a))
    }
}

/// The x below which a beta variable lies with probability `p`.
pub(super) fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    crossing(0.0, 1.0, |x| beta_below(x, a, b) - p)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64, relative: f64) {
        let off = (found - expected).abs() / expected.abs();
        assert!(off <= relative, "{found} is not {expected}: {off:e}");
    }

    /// Abramowitz and Stegun, table 26.1, and scipy's `norm.ppf` in the golden Wilson intervals.
    #[test]
    fn normal_quantiles() {
        close(normal_above(0.025), 1.959_963_984_540_054, 1e-15);
        close(normal_above(0.005), 2.575_829_303_548_901, 1e-15);
        close(normal_above(0.2), 0.841_621_233_572_914_3, 1e-15);
        assert!(normal_above(0.5).abs() < 1e-15);
        close(normal_above(1e-10), 6.361_340_902_404_056, 1e-14);
    }

    /// erfc(1), erfc(0.5), erfc(3) to 16 digits.
    #[test]
    fn chi_squared_tails() {
        close(chi_squared_tail(2.0), 0.157_299_207_050_285_13, 1e-15);
        close(chi_squared_tail(0.5), 0.479_500_122_186_953_5, 1e-15);
        close(chi_squared_tail(18.0), 2.209_049_699_858_544e-5, 1e-14);
        assert_eq!(chi_squared_tail(0.0), 1.0);
    }

    /// Sums of whole binomial terms, by exact fractions: 1 − I_p(k + 1, n − k) is the probability of at most k.
    #[test]
    fn the_beta_function_sums_the_binomial() {
        for (n, k) in [(1u32, 0u32), (10, 3), (30, 29), (50, 25), (60, 0)] {
            let mut choose = 1u128;
            let mut sum = 0u128;
            for i in 0..=k {
                sum += choose;
                choose = choose * u128::from(n - i) / u128::from(i + 1);
            }
            let expected = sum as f64 / (1u128 << n) as f64;
            let above = beta_below(0.5, f64::from(k) + 1.0, f64::from(n - k));
            assert!((1.0 - above - expected).abs() < 1e-14, "{above} {expected}");
            close(
                beta_below(0.5, f64::from(n - k), f64::from(k) + 1.0),
                expected,
                1e-13,
            );
        }
    }

    /// I_x(1/2, 1/2) = 2/π asin √x; I_x(a, 1) = xᵃ; both tails sum to one, also for a million items.
    #[test]
    fn the_beta_function_where_it_has_a_closed_form() {
        for x in [1e-9, 0.01, 0.3, 0.5, 0.9, 0.999_999] {
            close(beta_below(x, 0.5, 0.5), 2.0 / PI * f64::sqrt(x).asin(), 1e-12);
            close(beta_below(x, 7.5, 1.0), f64::powf(x, 7.5), 1e-12);
            close(beta_below(x, 1.0, 3.0), -(3.0 * (-x).ln_1p()).exp_m1(), 1e-12);
        }
        for (a, b) in [(500_000.5, 500_000.5), (3.0, 999_998.0), (123_456.0, 654_321.0)] {
            let x = a / (a + b) * 1.0005;
            let both = beta_below(x, a, b) + beta_below(1.0 - x, b, a);
            close(both, 1.0, 1e-9);
        }
        close(beta_below(0.5, 500_000.5, 500_000.5), 0.5, 1e-12);
    }

    #[test]
    fn quantiles_undo_the_distribution() {
        for (a, b) in [
            (0.5, 10.5),
            (6.0, 5.0),
            (206.0, 128.0),
            (2.0, 999.0),
            (40_000.5, 60_000.5),
        ] {
            for p in [0.005, 0.025, 0.5, 0.975] {
                close(beta_below(beta_quantile(p, a, b), a, b), p, 1e-9);
            }
        }
        // The largest of n uniform numbers: quantile p^(1/n).
        close(beta_quantile(0.025, 10.0, 1.0), 0.025f64.powf(0.1), 1e-14);
    }
}
