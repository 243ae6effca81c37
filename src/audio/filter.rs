//! The design of the resampling filter: what soxr's HQ setting does, as measured.
//!
//! The impulse responses of its HQ setting (soxr 1.1.0 of Python) were measured at every phase for 30 rates to
//! 16 kHz and fitted. All are Kaiser-windowed sincs with the same cutoff, 0.956872 of the lower Nyquist
//! frequency; the more stages soxr uses, the more attenuation each of them gets. Rates whose ratio is not a
//! small fraction pass through a second, short and wide filter, which costs 0.009 dB at the edge of the
//! passband. Every constant is fitted. How tap counts are rounded follows what is publicly known of soxr's
//! design and was confirmed by the fits; no code of it was used.

use std::f64::consts::PI;

/// Cutoff relative to the lower of the two Nyquist frequencies, and the half transition above it.
const CUTOFF: f64 = 0.956_871_83;
const HALF_TRANSITION: f64 = 1.0 - CUTOFF;

/// One Kaiser-windowed sinc as a continuous function, time in taps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kaiser {
    /// Relative to the Nyquist frequency of the tap rate.
    pub cutoff: f64,
    pub beta: f64,
    /// Half width in taps.
    pub half: f64,
}

impl Kaiser {
    pub(crate) fn at(&self, t: f64) -> f64 {
        let y = t / self.half;
        if y.abs() >= 1.0 {
            return 0.0;
        }
        let x = PI * self.cutoff * t;
        let sinc = if x.abs() < 1e-12 { 1.0 } else { x.sin() / x };
        self.cutoff * sinc * bessel_i0(self.beta * (1.0 - y * y).sqrt()) / bessel_i0(self.beta)
    }
}

/// Modified Bessel function of the first kind, order zero, by its power series (converges for all x; the
/// arguments here stay below 20).
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > sum * 1e-17 {
        term *= quarter / (k * k);
        sum += term;
        k += 1.0;
    }
    sum
}

/// The measured design rules for one pair of rates.
#[derive(Debug, Clone)]
pub(super) struct Design {
    /// Taps of the sharp filter per input sample; below 1 where soxr first halves the rate.
    pub taps_per_input: f64,
    pub sharp: Kaiser,
    /// The short filter and its number of phases, where the ratio is not a small fraction.
    pub short: Option<Kaiser>,
}

impl Design {
    pub(crate) fn new(from: u32, to: u32) -> Self {
        let (from_hz, to_hz) = (f64::from(from), f64::from(to));
        // From 4:1 on, soxr halves the rate first, which leaves the passband alone.
        let mut halvings = 0;
        while from_hz / f64::from(1 << halvings) >= 4.0 * to_hz {
            halvings += 1;
        }
        let rate = from_hz / f64::from(1 << halvings);
        let (up, down) = reduce(u64::from(to) << halvings, u64::from(from));
        let small_fraction = up <= 4 && down <= 3;
        let oversample = match small_fraction {
            true => up as f64,
            false if rate < 2.0 * to_hz => 2.0,
            false => 1.0,
        };
        let tap_rate = rate * oversample;
        let low = rate.min(to_hz) / tap_rate;
        // Each doubling of the number of stages adds 6 dB of attenuation: a higher beta, a longer window.
        let stages = f64::from(1 + halvings) * if small_fraction { 1.0 } else { 2.0 };
        let beta = 13.04 + 0.6713 * stages.log2();
        let length = 8.302_32 + 0.427_26 * stages.log2();
        let taps = (length / (HALF_TRANSITION * low) + 1.0).ceil();
        let step = if small_fraction {
            (2.0 * up as f64).max(4.0)
        } else {
            4.0
        };
        let taps = ((taps + step - 2.0) / step).floor() * step + 1.0;
        let sharp = Kaiser {
            cutoff: CUTOFF * low,
            beta,
            half: taps / 2.0,
        };
        let short = (!small_fraction).then(|| {
            let (phases, _) = reduce(u64::from(to) << halvings, (f64::from(from) * oversample) as u64);
            let phases = phases as f64;
            // The stopband begins at the first image, 2 − low.
            let cutoff = 0.856_199 + 0.105_54 * low;
            let per_phase = (8.7 / (2.0 - low - cutoff)).floor();
            Kaiser {
                cutoff,
                beta: 14.061,
                half: ((per_phase * phases + phases - 2.0) / 2.0 + 0.75) / phases,
            }
        });
        Design {
            taps_per_input: tap_rate / from_hz,
            sharp,
            short,
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}

pub(super) fn reduce(a: u64, b: u64) -> (u64, u64) {
    let d = gcd(a, b).max(1);
    (a / d, b / d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bessel_matches_known_values() {
        // Abramowitz and Stegun, table 9.8: I0(1), and e^-10 I0(10).
        assert!((bessel_i0(1.0) - 1.266_065_877_752_008).abs() < 1e-14);
        assert!((bessel_i0(10.0) * (-10f64).exp() - 0.127_833_337_1).abs() < 1e-9);
    }

    /// Lengths and shapes as fitted to each rate's own impulse response: one set of rules gives them all.
    #[test]
    fn the_rules_give_the_measured_filters() {
        // (rate, half length in taps, beta, taps per input sample)
        let measured = [
            (8_000, 194.5, 13.0400, 2.0),
            (12_000, 388.5, 13.0400, 4.0),
            (48_000, 290.5, 13.0400, 1.0),
            (24_000, 290.5, 13.0401, 2.0),
            (96_000, 304.5, 13.7113, 0.5),
            (192_000, 314.5, 14.1047, 0.25),
            (44_100, 280.5, 13.7113, 1.0),
            (22_050, 280.5, 13.7113, 2.0),
            (11_025, 204.5, 13.7112, 2.0),
            (88_200, 294.5, 14.3832, 0.5),
            (176_400, 302.5, 14.7766, 0.25),
        ];
        for (rate, half, beta, taps) in measured {
            let design = Design::new(rate, 16_000);
            assert_eq!((design.sharp.half, design.taps_per_input), (half, taps), "{rate}");
            assert!(
                (design.sharp.beta - beta).abs() < 2e-3,
                "{rate}: {}",
                design.sharp.beta
            );
        }
        // Cutoff of the short filter.
        for (rate, cutoff) in [
            (44_100, 0.894_49),
            (11_025, 0.908_97),
            (18_000, 0.903_11),
            (50_000, 0.889_98),
        ] {
            let short = Design::new(rate, 16_000).short.unwrap();
            assert!((short.cutoff - cutoff).abs() < 2e-5, "{rate}: {}", short.cutoff);
        }
    }
}
