//! Resamples of many clusters of which few differ. How often each kind is drawn follows a multinomial distribution, and drawing
//! these few counts costs a fraction of drawing every cluster.
//!
//! The counts are drawn one after the other, each binomial given those before. A binomial count is drawn exactly, in whole
//! numbers: every trial is right where its uniform number, a fraction in binary, is below the probability, and all trials
//! compare their next bit at once, so that only the number of ones among fair bits is needed.

use rand_chacha::rand_core::RngCore;
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::sync::LazyLock;

/// At most so many kinds, and at least so many clusters to each: what makes it the faster way, with room to spare.
const KINDS: usize = 256;

/// Rows of sums, each kind once.
pub(super) struct Alike {
    width: usize,
    /// Kind after kind, the most frequent first, of equally frequent ones the one that comes first.
    rows: Vec<f64>,
    /// Clusters of each kind.
    counts: Vec<u64>,
}

impl Alike {
    /// Of `width` sums a cluster, where they are few: at most 256 different rows, and 256 times as many clusters as these.
    pub(super) fn of(width: usize, sums: &[f64]) -> Option<Self> {
        let most = KINDS.min(sums.len() / width / KINDS);
        Self::of_most(width, sums, most)
    }

    fn of_most(width: usize, sums: &[f64], most: usize) -> Option<Self> {
        let mut places: HashMap<Vec<u64>, usize> = HashMap::new();
        let mut kinds: Vec<(&[f64], u64)> = Vec::new();
        let mut bits = Vec::with_capacity(width);
        for row in sums.chunks_exact(width) {
            bits.clear();
            bits.extend(row.iter().map(|v| v.to_bits()));
            match places.get(&bits) {
                Some(at) => kinds[*at].1 += 1,
                None if kinds.len() == most => return None,
                None => {
                    places.insert(bits.clone(), kinds.len());
                    kinds.push((row, 1));
                }
            }
        }
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Some(Alike {
            width,
            rows: kinds.iter().flat_map(|(row, _)| row.iter().copied()).collect(),
            counts: kinds.into_iter().map(|(_, count)| count).collect(),
        })
    }

    /// As many clusters as there are, drawn with replacement; in `totals` their sums.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng, totals: &mut [f64]) {
        totals.fill(0.0);
        let mut clusters: u64 = self.counts.iter().sum();
        let mut draws = clusters;
        for (row, count) in self.rows.chunks_exact(self.width).zip(&self.counts) {
            let drawn = binomial(draws, *count, clusters, rng);
            draws -= drawn;
            clusters -= count;
            for (total, value) in totals.iter_mut().zip(row) {
                *total += drawn as f64 * value;
            }
        }
    }
}

/// How many of `trials` are right, each with probability `part / all`; `all` is below 2⁶³.
fn binomial(mut trials: u64, part: u64, all: u64, rng: &mut ChaCha8Rng) -> u64 {
    if part >= all {
        return trials;
    }
    // What is left of the probability behind the bits that were compared.
    let (mut rest, mut right) = (part, 0);
    while trials > 0 && rest > 0 {
        rest *= 2;
        let ones = ones(trials, rng);
        if rest >= all {
            // The probability has a one here: trials with a nought are below it.
            rest -= all;
            right += trials - ones;
            trials = ones;
        } else {
            trials -= ones;
        }
    }
    right
}

/// Ones among so many fair bits.
fn ones(mut bits: u64, rng: &mut ChaCha8Rng) -> u64 {
    let mut ones = 0;
    while bits >= BLOCK as u64 {
        ones += MANY.ones(rng.next_u64());
        bits -= BLOCK as u64;
    }
    while bits >= 64 {
        ones += u64::from(rng.next_u64().count_ones());
        bits -= 64;
    }
    if bits > 0 {
        ones += u64::from((rng.next_u64() >> (64 - bits)).count_ones());
    }
    ones
}

/// Bits of which the number of ones is drawn with one word, from a table.
const BLOCK: usize = 4096;
static MANY: LazyLock<Many> = LazyLock::new(Many::new);

/// The distribution of the ones among [`BLOCK`] fair bits.
struct Many {
    /// Of each number of ones, the probability of at most so many, times 2⁶⁴.
    up_to: Vec<u64>,
    /// For the first bits of a word, the least number of ones that it can mean.
    from: Vec<u16>,
}

impl Many {
    const FIRST_BITS: u32 = 12;

    fn new() -> Self {
        // In units of the middle's, by the ratio of neighbours: what IEEE arithmetic gives alike on every machine.
        let mut half = vec![1.0f64];
        for k in BLOCK / 2..BLOCK {
            let last = half[half.len() - 1];
            half.push(last * (BLOCK - k) as f64 / (k + 1) as f64);
        }
        let weights: Vec<f64> = half.iter().skip(1).rev().chain(&half).copied().collect();
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let mut up_to: Vec<u64> = weights
            .iter()
            .map(|w| {
                sum += w;
                (sum / total * 2f64.powi(64)) as u64
            })
            .collect();
        up_to[BLOCK] = u64::MAX;
        let from = (0..1u64 << Self::FIRST_BITS).map(|first| {
            let word = first << (64 - Self::FIRST_BITS);
            up_to.partition_point(|p| *p <= word) as u16
        });
        Many {
            from: from.collect(),
            up_to,
        }
    }

    fn ones(&self, word: u64) -> u64 {
        let mut ones = usize::from(self.from[(word >> (64 - Self::FIRST_BITS)) as usize]);
        while ones < BLOCK && self.up_to[ones] <= word {
            ones += 1;
        }
        ones as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    /// Pearson's χ² less its degrees of freedom, in its standard deviations; cells of fewer than ten expected draws are put together.
    fn excess(seen: &[u64], expected: &[f64]) -> f64 {
        let mut cells = vec![(0.0, 0.0)];
        for (seen, expected) in seen.iter().zip(expected) {
            let last = cells.len() - 1;
            cells[last] = (cells[last].0 + *seen as f64, cells[last].1 + expected);
            if cells[last].1 >= 10.0 {
                cells.push((0.0, 0.0));
            }
        }
        // What is left behind the last full cell belongs to it.
        let left = cells.pop().unwrap();
        let last = cells.last_mut().unwrap();
        *last = (last.0 + left.0, last.1 + left.1);
        let chi: f64 = cells.iter().map(|(s, e)| (s - e).powi(2) / e).sum();
        let freedom = (cells.len() - 1) as f64;
        (chi - freedom) / (2.0 * freedom).sqrt()
    }

    /// Of n trials with probability p, by the ratio of neighbours from the middle.
    fn probabilities(n: usize, p: f64) -> Vec<f64> {
        let middle = ((n + 1) as f64 * p) as usize;
        let mut all = vec![0.0; n + 1];
        all[middle] = 1.0;
        for k in middle..n {
            all[k + 1] = all[k] * (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
        }
        for k in (0..middle).rev() {
            all[k] = all[k + 1] * (k + 1) as f64 / (n - k) as f64 * (1.0 - p) / p;
        }
        let total: f64 = all.iter().sum();
        all.iter().map(|w| w / total).collect()
    }

    #[test]
    fn binomial_counts_have_their_distribution() {
        const DRAWS: u64 = 200_000;
        for (i, (n, part, all)) in [
            (1, 1, 3),
            (7, 2, 7),
            (100, 1, 2),
            (1000, 3, 10),
            (5000, 1, 1000),
            (20_000, 17, 19),
            (300, 299, 300),
        ]
        .into_iter()
        .enumerate()
        {
            let mut rng = ChaCha8Rng::seed_from_u64(i as u64);
            let mut seen = vec![0; n + 1];
            for _ in 0..DRAWS {
                seen[binomial(n as u64, part, all, &mut rng) as usize] += 1;
            }
            let expected = probabilities(n, part as f64 / all as f64);
            let expected: Vec<f64> = expected.iter().map(|p| p * DRAWS as f64).collect();
            let excess = excess(&seen, &expected);
            assert!(excess.abs() < 4.5, "{n} trials at {part}/{all}: {excess}");
        }
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert_eq!(binomial(1_000_000, 5, 5, &mut rng), 1_000_000);
        assert_eq!(binomial(1_000_000, 0, 5, &mut rng), 0);
    }

    #[test]
    fn the_table_of_many_bits_is_their_distribution() {
        let many = Many::new();
        let expected = probabilities(BLOCK, 0.5);
        let mut sum = 0.0;
        for (k, p) in expected.iter().enumerate() {
            sum += p;
            assert!((many.up_to[k] as f64 / 2f64.powi(64) - sum).abs() < 1e-12, "{k}");
        }
        // Every word means the number whose range it lies in.
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let words = (0..10_000).map(|_| rng.next_u64());
        for word in words.chain([0, 1, u64::MAX, 1 << 63, (1 << 63) - 1, u64::MAX >> 12]) {
            let found = many.ones(word);
            let slow = many.up_to.partition_point(|p| *p <= word).min(BLOCK);
            assert_eq!(found, slow as u64);
        }
    }

    /// Four clusters of two kinds: 4⁴ resamples, of which a half-and-half kind has binomial shares; and of three kinds.
    #[test]
    fn kinds_are_drawn_as_often_as_clusters_would_be() {
        for sums in [[1.0, 0.0, 1.0, 1.0], [2.0, 0.0, 1.0, 1.0], [3.0, 2.0, 1.0, 0.0]] {
            let alike = Alike::of_most(1, &sums, 4).unwrap();
            let mut expected = [0.0; 13];
            for resample in 0..256usize {
                let total: f64 = (0..4).map(|d| sums[resample >> (2 * d) & 3]).sum();
                expected[total as usize] += 1.0;
            }
            let mut seen = [0u64; 13];
            let mut rng = ChaCha8Rng::seed_from_u64(9);
            for _ in 0..256_000 {
                let mut total = [0.0];
                alike.draw(&mut rng, &mut total);
                seen[total[0] as usize] += 1;
            }
            let expected = expected.map(|n| n * 1000.0);
            let there = |n: &(&u64, &f64)| *n.1 > 0.0;
            assert!(seen.iter().zip(&expected).all(|(s, e)| *e > 0.0 || *s == 0));
            let (seen, expected): (Vec<u64>, Vec<f64>) = seen.iter().zip(&expected).filter(there).unzip();
            let excess = excess(&seen, &expected);
            assert!(excess.abs() < 4.5, "{sums:?}: {excess}");
        }
    }

    #[test]
    fn it_is_for_many_clusters_of_few_kinds() {
        let of = |n: usize, kinds: usize| {
            let sums: Vec<f64> = (0..n).flat_map(|i| [(i % kinds) as f64, 1.0]).collect();
            Alike::of(2, &sums).map(|a| a.counts)
        };
        assert_eq!(of(512, 2), Some(vec![256, 256]));
        assert_eq!(of(511, 2), None);
        assert_eq!(of(300, 1), Some(vec![300]));
        assert_eq!(of(300, 2), None);
        assert!(of(1 << 17, 256).is_some() && of(1 << 17, 257).is_none());
        // The most frequent first.
        let sums: Vec<f64> = (0..1000).map(|i| f64::from(u8::from(i % 3 > 0))).collect();
        let alike = Alike::of(1, &sums).unwrap();
        assert_eq!((alike.rows, alike.counts), (vec![1.0, 0.0], vec![666, 334]));
    }
}
