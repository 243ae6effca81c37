//! BLEU-1 to BLEU-4 as `pycocoevalcap` has them: n-grams clipped by the reference that has most of each, and a penalty for less words
//! than the reference whose length is nearest (the shorter of two as near) has.

use super::grams::{Clip, N};
use std::iter::Sum;

/// What is added so that nothing divides by zero, and a product with a zero is small and not zero.
const TINY: f64 = 1e-15;
const SMALL: f64 = 1e-9;

/// What BLEU counts. A corpus' counts are the sum of its clips'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Words of the prediction.
    words: u64,
    /// Words of the reference nearest in length.
    reference: u64,
    /// By length less one, the n-grams of the prediction.
    grams: [u64; N],
    /// Those of them that a reference has, too.
    right: [u64; N],
}

impl Counts {
    pub(super) fn of(clip: &Clip) -> Self {
        let words = clip.prediction.words;
        let lengths = clip.references.iter().map(|r| r.words);
        let nearest = lengths.min_by_key(|&len| (len.abs_diff(words), len));
        let most = |n: usize, gram: u32| {
            let counts = clip.references.iter().filter_map(|r| {
                let at = r.grams[n].binary_search_by_key(&gram, |(gram, _)| *gram).ok()?;
                Some(r.grams[n][at].1)
            });
            counts.max().unwrap_or(0)
        };
        let right = |n: usize| {
            let grams = clip.prediction.grams[n].iter();
            grams
                .map(|&(gram, count)| u64::from(count.min(most(n, gram))))
                .sum()
        };
        Counts {
            words: words as u64,
            reference: nearest.unwrap_or(0) as u64,
            grams: std::array::from_fn(|n| words.saturating_sub(n) as u64),
            right: std::array::from_fn(right),
        }
    }

    /// The sum of clips' counts, each so many times.
    pub(super) fn repeated<'a>(all: impl Iterator<Item = (&'a Counts, &'a u32)>) -> Self {
        let mut sum = Counts::default();
        for (counts, times) in all {
            let times = u64::from(*times);
            sum.words += times * counts.words;
            sum.reference += times * counts.reference;
            for n in 0..N {
                sum.grams[n] += times * counts.grams[n];
                sum.right[n] += times * counts.right[n];
            }
        }
        sum
    }

    /// BLEU-1 to BLEU-4.
    pub(super) fn score(&self) -> [f64; N] {
        let ratio = (self.words as f64 + TINY) / (self.reference as f64 + SMALL);
        let penalty = if ratio < 1.0 {
            (1.0 - 1.0 / ratio).exp()
        } else {
            1.0
        };
        let mut product = 1.0;
        std::array::from_fn(|n| {
            product *= (self.right[n] as f64 + TINY) / (self.grams[n] as f64 + SMALL);
            product.powf(1.0 / (n + 1) as f64) * penalty
        })
    }
}

impl<'a> Sum<&'a Counts> for Counts {
    fn sum<I: Iterator<Item = &'a Counts>>(counts: I) -> Self {
        counts.fold(Counts::default(), |sum, c| Counts {
            words: sum.words + c.words,
            reference: sum.reference + c.reference,
            grams: std::array::from_fn(|n| sum.grams[n] + c.grams[n]),
            right: std::array::from_fn(|n| sum.right[n] + c.right[n]),
        })
    }
}
