//! Ten-second windows, and the round trip through 16-bit integers that every sample takes.

use crate::shapes::WINDOW_SAMPLES;

/// `trunc(clamp(x, ±1) · 32767)` in float32, as AF-CLAP's `float32_to_int16` does; NaN becomes 0, which is
/// what the cast gives on x86.
pub fn to_int16(x: f32) -> i16 {
    (x.clamp(-1.0, 1.0) * 32767.0) as i16
}

/// [`to_int16`] of samples that [`load`](super::load) gives. The reference's loader works in float64, and
/// float32 would move one sample in a thousand across a whole number.
pub(crate) fn to_int16_f64(x: f64) -> i16 {
    (x.clamp(-1.0, 1.0) * 32767.0) as i16
}

/// `i / 32767`, rounded to float32 once.
pub(crate) fn from_int16(i: i16) -> f32 {
    (f64::from(i) / 32767.0) as f32
}

/// Sends every sample through int16 and back. Doing it twice changes nothing more.
pub fn int16_round_trip(samples: &mut [f32]) {
    samples.iter_mut().for_each(|x| *x = from_int16(to_int16(*x)));
}

/// How many windows `samples` samples fill within `budget`: at least one, and no overlap
/// (`audio_flamingo_2/data/data.py`, `get_num_windows` with an overlap of 0).
pub(crate) fn count(samples: usize, budget: usize) -> usize {
    samples.div_ceil(WINDOW_SAMPLES).clamp(1, budget.max(1))
}

/// Cuts `samples` (16 kHz, ±1) into at most `budget` windows of exactly [`WINDOW_SAMPLES`] samples each, the
/// last padded with zeros at its end, all through the int16 round trip. A budget of 0 counts as 1.
pub fn windows(samples: &[f64], budget: usize) -> Vec<Vec<f32>> {
    cut(samples, budget, |x| from_int16(to_int16_f64(x)))
}

/// [`windows`] of samples that are int16 already.
pub(crate) fn windows_of_int16(samples: &[i16], budget: usize) -> Vec<Vec<f32>> {
    cut(samples, budget, from_int16)
}

fn cut<T: Copy>(samples: &[T], budget: usize, value: impl Fn(T) -> f32) -> Vec<Vec<f32>> {
    (0..count(samples.len(), budget))
        .map(|w| {
            let rest = samples.get(w * WINDOW_SAMPLES..).unwrap_or_default();
            let mut window: Vec<f32> = rest.iter().take(WINDOW_SAMPLES).map(|&x| value(x)).collect();
            window.resize(WINDOW_SAMPLES, 0.0);
            window
        })
        .collect()
}

/// AF-CLAP's "repeatpad" for clips shorter than `n`: whole repetitions as long as they fit, then zeros.
/// A clip of `n` or more samples comes back as it is.
pub fn repeat_pad(samples: &[f32], n: usize) -> Vec<f32> {
    if samples.is_empty() {
        return vec![0.0; n];
    }
    let mut out = samples.repeat((n / samples.len()).max(1));
    if out.len() < n {
        out.resize(n, 0.0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int16_truncates_towards_zero_and_clamps() {
        let cases = [
            (1.0, 32767),
            (-1.0, -32767),
            (2.0, 32767),
            (0.99999, 32766),
            (-0.00004, -1),
        ];
        for (x, i) in cases {
            assert_eq!(to_int16(x), i, "{x}");
            assert_eq!(to_int16_f64(f64::from(x)), i, "{x}");
        }
        assert_eq!((to_int16(f32::NAN), to_int16_f64(f64::NAN)), (0, 0));
    }

    #[test]
    fn a_second_round_trip_changes_nothing() {
        for i in -32767..=32767 {
            assert_eq!(to_int16(from_int16(i)), i);
        }
    }

    #[test]
    fn windows_are_counted_as_the_reference_counts() {
        // (samples, budget) → 1 + ceil((T − 160000) / 160000) within 1..=budget.
        let cases = [
            (0, 3, 1),
            (160_000, 3, 1),
            (160_001, 3, 2),
            (320_000, 3, 2),
            (479_999, 3, 3),
            (480_000, 3, 3),
            (900_000, 3, 3),
            (900_000, 0, 1),
        ];
        for (samples, budget, expected) in cases {
            assert_eq!(count(samples, budget), expected, "{samples} {budget}");
        }
    }

    #[test]
    fn windows_keep_the_order_and_pad_with_zeros() {
        let samples = vec![0.5; WINDOW_SAMPLES + 1];
        let windows = windows(&samples, 3);
        assert_eq!(windows.len(), 2);
        assert_eq!(windows[1].len(), WINDOW_SAMPLES);
        assert_eq!(windows[1][..2], [from_int16(16383), 0.0]);
    }

    #[test]
    fn repeat_pad_repeats_whole_clips_then_pads() {
        assert_eq!(repeat_pad(&[1.0, 2.0, 3.0], 8), [1., 2., 3., 1., 2., 3., 0., 0.]);
        assert_eq!(repeat_pad(&[1.0, 2.0, 3.0], 2), [1., 2., 3.]);
        assert_eq!(repeat_pad(&[], 2), [0.0, 0.0]);
    }
}
