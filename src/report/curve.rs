//! Arithmetic on curves and their axes, apart from drawing.

/// Exponential moving average, corrected for its start (Kingma and Ba 2015, section 3), so that the first values are
/// not pulled to zero. Begins anew behind a value that is not finite.
pub(crate) fn smoothed(points: &[(f64, f64)], weight: f64) -> Vec<(f64, f64)> {
    let weight = if weight.is_finite() {
        weight.clamp(0.0, 0.9999)
    } else {
        0.0
    };
    let (mut average, mut share) = (0.0, 0.0);
    points
        .iter()
        .map(|&(x, y)| {
            if !y.is_finite() {
                (average, share) = (0.0, 0.0);
                return (x, y);
            }
            average = weight * average + (1.0 - weight) * y;
            share = weight * share + (1.0 - weight);
            (x, average / share)
        })
        .collect()
}

/// The same ends, or room around them where there is next to none between.
pub(crate) fn widened((low, high): (f64, f64)) -> (f64, f64) {
    let scale = low.abs().max(high.abs());
    if high - low > 1e-9 * scale {
        return (low, high);
    }
    let room = if scale > 0.0 { 0.05 * scale } else { 1.0 };
    (low - room, high + room)
}

/// At most about `most` points: the lowest and the highest of each stretch, so that no spike is lost.
pub(crate) fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    if points.len() <= most {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(most / 2);
    let mut kept = Vec::with_capacity(most + 2);
    for part in points.chunks(stretch) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (Some(low), Some(high)) = (part.iter().min_by(by_value), part.iter().max_by(by_value)) else {
            continue;
        };
        let (first, second) = if low.0 <= high.0 { (low, high) } else { (high, low) };
        kept.push(*first);
        kept.push(*second);
    }
    kept
}

/// Where a logarithmic axis is marked: powers of ten, and between them 2 and 5 of each where there are few.
pub(crate) fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let steps: &[f64] = if last - first <= 3 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    // Past ten marks, every second, third… power will do.
    let stride = ((last - first) / 10 + 1) as usize;
    (first..=last)
        .step_by(stride)
        .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
        .filter(|tick| (low..=high).contains(tick))
        .collect()
}

/// An axis label: `0.25`, `1200`, `45k`, `1.5M`, `2e-7`.
pub(crate) fn short(v: f64) -> String {
    let size = v.abs();
    let trimmed = |v: f64, digits: usize, unit: &str| {
        let text = format!("{v:.digits$}");
        let text = match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.'),
            false => &text,
        };
        format!("{text}{unit}")
    };
    match size {
        0.0 => "0".to_owned(),
        s if !(1e-3..1e9).contains(&s) => format!("{v:.1e}").replace(".0e", "e"),
        s if s < 1.0 => trimmed(v, 4, ""),
        s if s < 1e4 => trimmed(v, 2, ""),
        s if s < 1e6 => trimmed(v / 1e3, 1, "k"),
        _ => trimmed(v / 1e6, 2, "M"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_axes_have_marks_whatever_their_length() {
        assert_eq!(log_ticks(2.5, 11.0), [5.0, 10.0]);
        assert_eq!(log_ticks(0.9, 2000.0), [1.0, 10.0, 100.0, 1000.0]);
        let wide = log_ticks(1e-30, 1e30);
        assert!((5..=11).contains(&wide.len()), "{wide:?}");
    }

    #[test]
    fn smoothing_is_a_corrected_moving_average() {
        let points = [(0.0, 4.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 7.0)];
        let s = smoothed(&points, 0.5);
        assert_eq!(s[0], (0.0, 4.0));
        assert!((s[1].1 - (0.25 * 4.0 + 0.5 * 2.0) / 0.75).abs() < 1e-12);
        assert!(s[2].1.is_nan());
        assert_eq!(s[3].1, 7.0);
        assert_eq!(smoothed(&points[..2], 0.0), points[..2]);
    }

    #[test]
    fn thinning_keeps_spikes() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        points[54_321].1 = 9.0;
        let kept = thinned(&points, 1000);
        assert!(kept.len() <= 1002);
        assert!(kept.contains(&(54_321.0, 9.0)));
        assert!(kept.windows(2).all(|w| w[0].0 <= w[1].0));
    }

    #[test]
    fn axis_labels_are_short() {
        let labels = [0.0, 0.25, 1.0, 1200.0, 45_000.0, 1_500_000.0, 2e-7, -0.5];
        let found: Vec<String> = labels.iter().map(|v| short(*v)).collect();
        assert_eq!(found, ["0", "0.25", "1", "1200", "45k", "1.5M", "2e-7", "-0.5"]);
    }
}
