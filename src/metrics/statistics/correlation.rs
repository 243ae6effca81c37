//! How far two lists of values agree. All are from −1 to 1, and `None` for fewer than two pairs, lists of unlike length, a value
//! that is not finite, or a list whose values are all alike: there nothing can be said.

/// Pearson's product-moment correlation.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    comparable(x, y)?;
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        xx += (x - mx) * (x - mx);
        yy += (y - my) * (y - my);
        xy += (x - mx) * (y - my);
    }
    let r = xy / xx.sqrt() / yy.sqrt();
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation: [`pearson`] of the ranks, where values that are alike share their mean rank.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    comparable(x, y)?;
    pearson(&ranks(x), &ranks(y))
}

/// Kendall's τ-b: pairs in the same order less those in opposite order, over √(pairs untied in x × pairs untied in y). In
/// O(n log n) by Knight (1966).
pub fn kendall(x: &[f64], y: &[f64]) -> Option<f64> {
    comparable(x, y)?;
    // Of zeros there is one: adding one takes the sign away.
    let mut pairs: Vec<(f64, f64)> = x.iter().zip(y).map(|(x, y)| (x + 0.0, y + 0.0)).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let of_two = |n: usize| n as f64 * (n - 1) as f64 / 2.0;
    let tied = |runs: &mut dyn Iterator<Item = usize>| runs.map(of_two).sum::<f64>();
    let all = of_two(pairs.len());
    let tied_x = tied(&mut pairs.chunk_by(|a, b| a.0 == b.0).map(<[_]>::len));
    let tied_both = tied(&mut pairs.chunk_by(|a, b| a == b).map(<[_]>::len));
    let mut second: Vec<f64> = pairs.iter().map(|p| p.1).collect();
    let swaps = sort(&mut second, &mut Vec::new()) as f64;
    let tied_y = tied(&mut second.chunk_by(|a, b| a == b).map(<[_]>::len));
    let balance = all - tied_x - tied_y + tied_both - 2.0 * swaps;
    let tau = balance / (all - tied_x).sqrt() / (all - tied_y).sqrt();
    tau.is_finite().then(|| tau.clamp(-1.0, 1.0))
}

fn comparable(x: &[f64], y: &[f64]) -> Option<()> {
    let finite = x.iter().chain(y).all(|v| v.is_finite());
    let varied = |v: &[f64]| v.iter().any(|w| *w != v[0]);
    (x.len() == y.len() && x.len() > 1 && finite && varied(x) && varied(y)).then_some(())
}

/// Ranks from 1; values that are alike share their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for alike in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = before as f64 + (alike.len() + 1) as f64 / 2.0;
        alike.iter().for_each(|i| ranks[*i] = rank);
        before += alike.len();
    }
    ranks
}

/// Sorts by merging; returns how many pairs stood in the wrong order.
fn sort(values: &mut [f64], spare: &mut Vec<f64>) -> u64 {
    if values.len() < 2 {
        return 0;
    }
    let half = values.len() / 2;
    let mut swaps = sort(&mut values[..half], spare) + sort(&mut values[half..], spare);
    spare.clear();
    let (mut left, mut right) = (0, half);
    while left < half && right < values.len() {
        if values[right] < values[left] {
            swaps += (half - left) as u64;
            spare.push(values[right]);
            right += 1;
        } else {
            spare.push(values[left]);
            left += 1;
        }
    }
    spare.extend_from_slice(&values[left..half]);
    let merged = spare.len();
    values[..merged].copy_from_slice(spare);
    swaps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition, pair by pair.
    fn slow(x: &[f64], y: &[f64]) -> f64 {
        let (mut same, mut tx, mut ty) = (0.0, 0.0, 0.0);
        for i in 0..x.len() {
            for j in 0..i {
                let sign = |v: f64| f64::from(i8::from(v > 0.0) - i8::from(v < 0.0));
                same += sign(x[i] - x[j]) * sign(y[i] - y[j]);
                tx += sign(x[i] - x[j]).abs();
                ty += sign(y[i] - y[j]).abs();
            }
        }
        same / f64::sqrt(tx * ty)
    }

    #[test]
    fn kendall_is_its_definition() {
        for n in [2usize, 3, 10, 101] {
            for coarse in [2, 5, 1000] {
                let x: Vec<f64> = (0..n).map(|i| ((i * 37 + 11) % 101 % coarse) as f64).collect();
                let y: Vec<f64> = (0..n).map(|i| ((i * i * 53 + 5) % 103 % coarse) as f64).collect();
                let Some(tau) = kendall(&x, &y) else { continue };
                assert!((tau - slow(&x, &y)).abs() < 1e-12, "{n} {coarse}");
            }
        }
    }

    #[test]
    fn signed_zeros_are_alike() {
        let (x, y) = ([0.0, -0.0, 1.0, 2.0], [3.0, 3.0, 1.0, 0.0]);
        assert_eq!(kendall(&x, &y), Some(-1.0));
        assert!((spearman(&x, &y).unwrap() + 1.0).abs() < 1e-15);
    }

    #[test]
    fn what_cannot_be_compared_is_none() {
        for f in [pearson, spearman, kendall] {
            assert_eq!(f(&[], &[]), None);
            assert_eq!(f(&[1.0], &[1.0]), None);
            assert_eq!(f(&[1.0, 2.0], &[1.0]), None);
            assert_eq!(f(&[1.0, 1.0], &[1.0, 2.0]), None);
            assert_eq!(f(&[1.0, f64::NAN], &[1.0, 2.0]), None);
            let whole = f(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]).unwrap();
            assert!((whole - 1.0).abs() < 1e-15, "{whole}");
        }
    }
}
