//! Batches whose items are of like length, under a bound on what a batch costs (paper, appendix H.2).
//!
//! Every item of a batch is padded to the longest; the padding is computed with and thrown away. Items are first put
//! into buckets of like length, then each bucket is cut into batches as fairseq's `batch_by_size` cuts them. (The
//! appendix prints that algorithm so that it would close every batch at its first item; fairseq's own goes on and
//! remembers the last legal size, and so do we.)

use super::numpy::DefaultRng;
use serde::{Deserialize, Serialize};

/// How long an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Length {
    /// Windows of 10 s.
    pub windows: usize,
    /// Text tokens, prompt and answer; 0 where they are not counted.
    pub tokens: usize,
}

impl Length {
    /// What both are padded to when they are in one batch.
    fn or(self, other: Length) -> Length {
        Length {
            windows: self.windows.max(other.windows),
            tokens: self.tokens.max(other.tokens),
        }
    }
}

/// Bounds of a batch: what a device's memory allows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Largest items × longest item in windows.
    pub windows: usize,
    /// Largest items × longest item in text tokens.
    #[serde(default = "unbounded")]
    pub tokens: usize,
    /// Most items.
    #[serde(default = "unbounded")]
    pub items: usize,
    /// Sizes above this are multiples of it where the bounds allow.
    #[serde(default = "one")]
    pub multiple: usize,
}

fn unbounded() -> usize {
    usize::MAX
}
fn one() -> usize {
    1
}

/// Upper ends of the buckets in windows, for clips of up to 30: narrow where clips are many and a window is much. What is
/// longer than the last forms one more.
const EDGES: [usize; 14] = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 30];
/// Within a bucket so many items at a time are sorted by their texts: enough for batches of like texts, few enough for
/// these to be others in every epoch.
const POOL: usize = 1024;

/// Cuts items, given by their lengths in the epoch's order, into batches of indices; the order of the batches is the
/// seed's. Every item is in exactly one batch; an item longer than the bounds allow is alone in its.
pub(crate) fn batches(lengths: &[Length], limits: &Limits, seed: u64) -> Vec<Vec<usize>> {
    let mut buckets: Vec<Vec<usize>> = vec![Vec::new(); EDGES.len() + 1];
    for (i, length) in lengths.iter().enumerate() {
        buckets[EDGES.partition_point(|edge| *edge < length.windows)].push(i);
    }
    for pool in buckets.iter_mut().flat_map(|b| b.chunks_mut(POOL)) {
        // Stable: where tokens are not counted, the order stays.
        pool.sort_by_key(|i| lengths[*i].tokens);
    }
    let mut all: Vec<Vec<usize>> = buckets.iter().flat_map(|b| cut(b, lengths, limits)).collect();
    DefaultRng::new(seed).shuffle(&mut all);
    all
}

/// Walks a bucket in order and closes a batch before the item that would break a bound.
fn cut(bucket: &[usize], lengths: &[Length], limits: &Limits) -> Vec<Vec<usize>> {
    let (mut all, mut open): (Vec<Vec<usize>>, Vec<usize>) = (Vec::new(), Vec::new());
    for &item in bucket {
        let breaks = |batch: &[usize]| {
            let items = batch.len() + 1;
            let to = longest(batch, lengths).or(lengths[item]);
            items > limits.items.max(1)
                || items.saturating_mul(to.windows) > limits.windows
                || items.saturating_mul(to.tokens) > limits.tokens
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

fn longest(batch: &[usize], lengths: &[Length]) -> Length {
    batch
        .iter()
        .fold(Length::default(), |most, i| most.or(lengths[*i]))
}

/// The shares of a batching's computation that fall on padding, of windows and of tokens: 1 − Σ lengths ÷ Σ items ×
/// longest.
pub(crate) fn padding<'a>(batches: impl IntoIterator<Item = &'a [usize]>, lengths: &[Length]) -> (f64, f64) {
    let (mut real, mut all) = ((0usize, 0usize), (0usize, 0usize));
    for batch in batches {
        let to = longest(batch, lengths);
        all.0 += to.windows * batch.len();
        all.1 += to.tokens * batch.len();
        for length in batch.iter().map(|i| lengths[*i]) {
            real.0 += length.windows;
            real.1 += length.tokens;
        }
    }
    let share = |real: usize, all: usize| match all {
        0 => 0.0,
        _ => 1.0 - real as f64 / all as f64,
    };
    (share(real.0, all.0), share(real.1, all.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;
    use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};

    fn limits(windows: usize, items: usize, multiple: usize) -> Limits {
        Limits {
            windows,
            tokens: usize::MAX,
            items,
            multiple,
        }
    }

    fn windows(all: impl IntoIterator<Item = usize>) -> Vec<Length> {
        let length = |windows| Length { windows, tokens: 0 };
        all.into_iter().map(length).collect()
    }

    fn check(lengths: &[Length], limits: &Limits) -> Vec<Vec<usize>> {
        let all = batches(lengths, limits, 3);
        let mut seen: Vec<usize> = all.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>(), "each item once");
        for batch in &all {
            let to = longest(batch, lengths);
            assert!(!batch.is_empty() && batch.len() <= limits.items);
            let fits = batch.len() * to.windows <= limits.windows && batch.len() * to.tokens <= limits.tokens;
            assert!(batch.len() == 1 || fits, "{batch:?}");
        }
        all
    }

    #[test]
    fn any_lengths_are_batched_whole_and_inside_the_bounds() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for _ in 0..300 {
            let n = rng.gen_range(0..200);
            let most = rng.gen_range(1..40);
            let length = |rng: &mut ChaCha8Rng| Length {
                windows: rng.gen_range(0..=most),
                tokens: rng.gen_range(0..=most * 10),
            };
            let lengths: Vec<Length> = (0..n).map(|_| length(&mut rng)).collect();
            let mut bounds = limits(rng.gen_range(1..100), rng.gen_range(1..20), rng.gen_range(1..9));
            bounds.tokens = rng.gen_range(1..2000);
            check(&lengths, &bounds);
        }
    }

    #[test]
    fn sizes_are_multiples_where_they_can_be() {
        let all = check(&windows([1; 100]), &limits(22, 64, 8));
        let mut sizes: Vec<usize> = all.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        // What is left at the end may be of any size.
        assert_eq!(sizes, [16, 16, 16, 16, 16, 20]);
        assert_eq!(batches(&windows([5, 5, 5]), &limits(4, 9, 1), 0).len(), 3);
    }

    /// Durations as AF2's second stage mixes them: mostly clips of up to 10 s, music of 30 s, a tail up to 5 minutes;
    /// texts from a word to a paragraph. The appendix reports that padding went from 58% to 16%.
    #[test]
    fn padding_on_a_realistic_mix() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut length = || Length {
            windows: match rng.gen_range(0..100) {
                0..=64 => 1,
                65..=84 => 3,
                85..=94 => rng.gen_range(2..=9),
                _ => rng.gen_range(6..=30),
            },
            tokens: (20.0 * (rng.gen_range(0.0..2.7f64)).exp()) as usize,
        };
        let lengths: Vec<Length> = (0..20_000).map(|_| length()).collect();
        let fixed: Vec<Vec<usize>> = (0..lengths.len())
            .collect::<Vec<_>>()
            .chunks(16)
            .map(<[_]>::to_vec)
            .collect();
        let before = padding(fixed.iter().map(Vec::as_slice), &lengths);
        let mut bounds = limits(96, 96, 4);
        bounds.tokens = 8192;
        let all = check(&lengths, &bounds);
        let after = padding(all.iter().map(Vec::as_slice), &lengths);
        println!(
            "padding of windows and tokens: {before:.3?} in batches of 16 in order, {after:.4?} in buckets"
        );
        assert!(before.0 > 0.5 && after.0 <= 0.16, "{before:?} {after:?}");
        assert!(before.1 > 0.5 && after.1 <= 0.16, "{before:?} {after:?}");
    }
}
