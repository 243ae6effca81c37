//! Batches whose items are of like length, under a bound on what a batch costs (paper, appendix H.2).
//!
//! Every item of a batch is padded to the longest; the padding is computed with and thrown away. Items are first put
//! into buckets of like length, then each bucket is cut into batches as fairseq's `batch_by_size` cuts them. (The
//! appendix prints that algorithm so that it would close every batch at its first item; fairseq's own goes on and
//! remembers the last legal size, and so do we.)

use super::numpy::DefaultRng;

/// Bounds of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Largest items × longest item, in the unit of the lengths (windows).
    pub cost: usize,
    /// Most items.
    pub items: usize,
    /// Sizes above this are multiples of it where the bounds allow.
    pub multiple: usize,
    /// Upper ends of the buckets, ascending; what is longer than the last forms one more.
    pub edges: Vec<usize>,
}

impl Limits {
    /// Buckets for clips of up to 30 windows of 10 s: narrow where clips are many and a window is much.
    pub fn windows(cost: usize, items: usize, multiple: usize) -> Self {
        Limits {
            cost,
            items,
            multiple,
            edges: vec![1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 30],
        }
    }
}

/// Cuts items, given by their lengths in the epoch's order, into batches of indices; the order of the batches is the
/// seed's. Every item is in exactly one batch; an item longer than the cost allows is alone in its.
pub fn batches(lengths: &[usize], limits: &Limits, seed: u64) -> Vec<Vec<usize>> {
    let mut buckets: Vec<Vec<usize>> = vec![Vec::new(); limits.edges.len() + 1];
    for (i, length) in lengths.iter().enumerate() {
        buckets[limits.edges.partition_point(|edge| edge < length)].push(i);
    }
    let mut all: Vec<Vec<usize>> = buckets.iter().flat_map(|b| cut(b, lengths, limits)).collect();
    DefaultRng::new(seed).shuffle(&mut all);
    all
}

/// Walks a bucket in order and closes a batch before the item that would break a bound.
fn cut(bucket: &[usize], lengths: &[usize], limits: &Limits) -> Vec<Vec<usize>> {
    let (mut all, mut open): (Vec<Vec<usize>>, Vec<usize>) = (Vec::new(), Vec::new());
    for &item in bucket {
        let longest = |batch: &[usize]| batch.iter().map(|i| lengths[*i]).max().unwrap_or(0);
        let breaks = |batch: &[usize]| {
            let items = batch.len() + 1;
            items > limits.items.max(1)
                || items.saturating_mul(longest(batch).max(lengths[item])) > limits.cost
        };
        if !open.is_empty() && breaks(&open) {
            // The last legal size: below the multiple any, above it a multiple.
            let multiple = limits.multiple.max(1);
            let legal = match open.len() {
                n if n < multiple => n,
                n => n - n % multiple,
            };
            let rest = open.split_off(legal);
            all.push(std::mem::replace(&mut open, rest));
            while !open.is_empty() && breaks(&open) {
                let rest = open.split_off(open.len().min(multiple));
                all.push(std::mem::replace(&mut open, rest));
            }
        }
        open.push(item);
    }
    all.extend(Some(open).filter(|b| !b.is_empty()));
    all
}

/// The share of a batching's computation that falls on padding: 1 − Σ lengths ÷ Σ items × longest.
pub fn padding<'a>(batches: impl IntoIterator<Item = &'a [usize]>, lengths: &[usize]) -> f64 {
    let (mut real, mut all) = (0usize, 0usize);
    for batch in batches {
        let longest = batch.iter().map(|i| lengths[*i]).max().unwrap_or(0);
        real += batch.iter().map(|i| lengths[*i]).sum::<usize>();
        all += longest * batch.len();
    }
    match all {
        0 => 0.0,
        _ => 1.0 - real as f64 / all as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;
    use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};

    fn check(lengths: &[usize], limits: &Limits) -> Vec<Vec<usize>> {
        let all = batches(lengths, limits, 3);
        let mut seen: Vec<usize> = all.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>(), "each item once");
        for batch in &all {
            let longest = batch.iter().map(|i| lengths[*i]).max().unwrap();
            assert!(!batch.is_empty() && batch.len() <= limits.items);
            assert!(
                batch.len() == 1 || batch.len() * longest <= limits.cost,
                "{batch:?}"
            );
        }
        all
    }

    #[test]
    fn any_lengths_are_batched_whole_and_inside_the_bounds() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for _ in 0..300 {
            let n = rng.gen_range(0..200);
            let most = rng.gen_range(1..40);
            let lengths: Vec<usize> = (0..n).map(|_| rng.gen_range(0..=most)).collect();
            let limits = Limits::windows(rng.gen_range(1..100), rng.gen_range(1..20), rng.gen_range(1..9));
            check(&lengths, &limits);
        }
    }

    #[test]
    fn sizes_are_multiples_where_they_can_be() {
        let all = check(&[1; 100], &Limits::windows(22, 64, 8));
        let mut sizes: Vec<usize> = all.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        // What is left at the end may be of any size.
        assert_eq!(sizes, [16, 16, 16, 16, 16, 20]);
        assert_eq!(batches(&[5, 5, 5], &Limits::windows(4, 9, 1), 0).len(), 3);
    }

    /// Durations as AF2's second stage mixes them: mostly clips of up to 10 s, music of 30 s, a tail up to 5 minutes.
    /// The appendix reports that padding went from 58% to 16%.
    #[test]
    fn padding_on_a_realistic_mix() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let lengths: Vec<usize> = (0..20_000)
            .map(|_| match rng.gen_range(0..100) {
                0..=64 => 1,
                65..=84 => 3,
                85..=94 => rng.gen_range(2..=9),
                _ => rng.gen_range(6..=30),
            })
            .collect();
        let fixed: Vec<Vec<usize>> = (0..lengths.len())
            .collect::<Vec<_>>()
            .chunks(16)
            .map(<[_]>::to_vec)
            .collect();
        let before = padding(fixed.iter().map(Vec::as_slice), &lengths);
        let all = check(&lengths, &Limits::windows(96, 96, 4));
        let after = padding(all.iter().map(Vec::as_slice), &lengths);
        println!("padding: {before:.3} in batches of 16 in order, {after:.4} in buckets");
        assert!(before > 0.5 && after <= 0.16, "{before} {after}");
    }
}
