//! The bootstrap over clusters: where a clip has several questions or captions, clips are drawn again, not questions, since
//! what a model hears wrong it answers wrong each time.

use crate::error::Result;
use crate::metrics::alike::Alike;
use crate::metrics::bootstrap::{one_of, refuse, Bootstrap, Interval};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::collections::hash_map::{Entry, HashMap, RandomState};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

/// Sums over each cluster's items: all that a resample needs of it, however many items it has.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// Sums of a cluster.
    width: usize,
    /// Cluster after cluster.
    sums: Vec<f64>,
}

impl Clusters {
    /// Of values and what each belongs to, such as its clip: per cluster the sum of its values and their number.
    ///
    /// # Errors
    /// A value that is not finite; no items.
    pub fn of<K: Hash + Eq + Sync>(items: impl IntoIterator<Item = (K, f64)>) -> Result<Self> {
        let (keys, values): (Vec<K>, Vec<f64>) = items.into_iter().unzip();
        let firsts = firsts(&keys);
        let mut places = vec![0; keys.len()];
        let mut sums = Vec::with_capacity(2 * keys.len());
        for (i, (first, value)) in firsts.into_iter().zip(values).enumerate() {
            if first == i {
                places[i] = sums.len();
                sums.extend([0.0, 0.0]);
            }
            let at = places[first];
            sums[at] += value;
            sums[at + 1] += 1.0;
        }
        Self::of_sums(2, sums)
    }

    /// Of `width` sums a cluster, cluster after cluster: those that [`Bootstrap::of_sums`]'s statistic takes.
    ///
    /// # Errors
    /// A sum that is not finite, or whose total over a resample could not be; no clusters, more than 2³² − 1, or a last one
    /// that is not whole.
    pub fn of_sums(width: usize, sums: Vec<f64>) -> Result<Self> {
        if width == 0 || !sums.len().is_multiple_of(width) {
            let found = format!("{} sums, {width} a cluster", sums.len());
            return refuse("clusters", "as many sums for each", found);
        }
        let n = sums.len() / width;
        if n == 0 || u32::try_from(n).is_err() {
            return refuse("clusters", format!("1 to {}", u32::MAX), n.to_string());
        }
        // A resample may take the largest every time.
        let fits = |v: &f64| (v * n as f64).is_finite();
        if let Some(i) = sums.iter().position(|v| !fits(v)) {
            let key = format!("cluster {}, sum {}", i / width, i % width);
            return refuse(
                &key,
                "a finite number, also times the clusters",
                sums[i].to_string(),
            );
        }
        Ok(Clusters { width, sums })
    }

    /// Number of clusters.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.sums.len() / self.width
    }

    /// The sums over a resample: of the clusters at these places, each as often as it is named. `None` of a place that is not
    /// there.
    pub fn totals(&self, drawn: impl IntoIterator<Item = usize>) -> Option<Vec<f64>> {
        let mut totals = vec![0.0; self.width];
        for place in drawn {
            if place >= self.len() {
                return None;
            }
            add(&mut totals, &self.sums[place * self.width..][..self.width]);
        }
        Some(totals)
    }

    /// As many clusters as there are, drawn with replacement, each by itself; in `totals` their sums.
    fn draw(&self, rng: &mut ChaCha8Rng, totals: &mut [f64]) {
        match self.width {
            1 => self.draw_wide::<1>(rng, totals),
            2 => self.draw_wide::<2>(rng, totals),
            3 => self.draw_wide::<3>(rng, totals),
            4 => self.draw_wide::<4>(rng, totals),
            width => {
                totals.fill(0.0);
                let n = self.len() as u64;
                for _ in 0..n {
                    add(totals, &self.sums[one_of(n, rng) * width..][..width]);
                }
            }
        }
    }

    /// The same with the sums in registers.
    fn draw_wide<const W: usize>(&self, rng: &mut ChaCha8Rng, totals: &mut [f64]) {
        let (rows, _) = self.sums.as_chunks::<W>();
        let n = rows.len() as u64;
        let mut sums = [0.0; W];
        for _ in 0..n {
            add(&mut sums, &rows[one_of(n, rng)]);
        }
        totals.copy_from_slice(&sums);
    }
}

/// Of each key the place of the first one that is equal. Shares of the keys, by their hashes, are looked through at once: a table of
/// a million keys fits into no cache.
fn firsts<K: Hash + Eq + Sync>(keys: &[K]) -> Vec<usize> {
    const SHARE: usize = 1 << 16;
    let state = RandomState::new();
    let hashes: Vec<u64> = keys.par_iter().map(|key| state.hash_one(key)).collect();
    let shares = (keys.len() / SHARE + 1).next_power_of_two() as u64;
    let later = |share: u64| {
        let room = keys.len() / shares as usize;
        let mut seen = HashMap::with_capacity_and_hasher(room, BuildHasherDefault::<AsIs>::default());
        let mut later = Vec::new();
        // Not by the bits that the table goes by.
        let own = hashes
            .iter()
            .enumerate()
            .filter(|(_, hash)| (*hash >> 24) & (shares - 1) == share);
        for (i, hash) in own {
            match seen.entry(Hashed(*hash, &keys[i])) {
                Entry::Occupied(first) => later.push((i, *first.get())),
                Entry::Vacant(entry) => {
                    entry.insert(i);
                }
            }
        }
        later
    };
    let later: Vec<Vec<(usize, usize)>> = (0..shares).into_par_iter().map(later).collect();
    let mut all: Vec<usize> = (0..keys.len()).collect();
    for (i, first) in later.into_iter().flatten() {
        all[i] = first;
    }
    all
}

/// A key whose hash is known.
#[derive(PartialEq, Eq)]
struct Hashed<'k, K>(u64, &'k K);

impl<K> Hash for Hashed<'_, K> {
    fn hash<H: Hasher>(&self, to: &mut H) {
        to.write_u64(self.0);
    }
}

/// Takes a hash for what it is.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn add(totals: &mut [f64], row: &[f64]) {
    totals.iter_mut().zip(row).for_each(|(t, v)| *t += v);
}

impl Bootstrap {
    /// Interval of the mean over all items, of clusters by [`Clusters::of`]. A cluster counts by its items. With one item in
    /// each these are the bits of [`Bootstrap::interval`].
    ///
    /// # Errors
    /// Clusters of other sums; a level or a number of resamples that cannot be.
    pub fn clustered_mean(&self, clusters: &Clusters) -> Result<Interval> {
        if clusters.width != 2 {
            return refuse(
                "clusters",
                "the sum and number of items",
                format!("{} sums", clusters.width),
            );
        }
        self.of_sums(clusters, |sums| sums[0] / sums[1])
    }

    /// Interval of a statistic of the sums over all clusters: a ratio of two, say, or precision, recall and F1.
    ///
    /// # Errors
    /// As [`Bootstrap::resampled`].
    pub fn of_sums(&self, clusters: &Clusters, statistic: impl Fn(&[f64]) -> f64 + Sync) -> Result<Interval> {
        Ok(self.within(&self.resampled(clusters, statistic)?))
    }

    /// The statistic of each resample, sorted. Resample r takes the ChaCha8 stream r of the seed, so that any number of threads
    /// gives the same bits. One resample costs as much as there are clusters, with one 32-bit word for each; where at most 256 of
    /// them have different sums, and there are at least 256 times as many, how often each different one is drawn is drawn itself
    /// (multinomial, by exact binomial counts), which costs as much as there are different ones.
    ///
    /// # Errors
    /// A level or a number of resamples that cannot be, and a statistic that is not finite in some resample: where it can have
    /// nothing to divide by, there is no such interval.
    pub fn resampled(
        &self,
        clusters: &Clusters,
        statistic: impl Fn(&[f64]) -> f64 + Sync,
    ) -> Result<Vec<f64>> {
        self.check()?;
        let alike = Alike::of(clusters.width, &clusters.sums);
        let mut all: Vec<f64> = (0..self.resamples as u64)
            .into_par_iter()
            .map_init(
                || vec![0.0; clusters.width],
                |totals, resample| {
                    let mut rng = self.stream(resample);
                    match &alike {
                        Some(alike) => alike.draw(&mut rng, totals),
                        None => clusters.draw(&mut rng, totals),
                    }
                    statistic(totals)
                },
            )
            .collect();
        if let Some(odd) = all.iter().position(|v| !v.is_finite()) {
            return refuse(
                &format!("the statistic of resample {odd}"),
                "a finite number",
                all[odd].to_string(),
            );
        }
        all.sort_unstable_by(f64::total_cmp);
        Ok(all)
    }

    /// Any statistics: of how often each of `clusters` clusters was drawn. Their values over the resamples, sorted, for
    /// [`Bootstrap::middle`]; of one that is `None` in some resample, `None`.
    ///
    /// # Errors
    /// No clusters, more than 2³² − 1; otherwise as [`Bootstrap::resampled`].
    pub fn of_counts<const M: usize>(
        &self,
        clusters: usize,
        statistics: impl Fn(&[u32]) -> [Option<f64>; M] + Sync,
    ) -> Result<[Option<Vec<f64>>; M]> {
        self.check()?;
        let n = match u32::try_from(clusters) {
            Ok(n) if n > 0 => u64::from(n),
            _ => return refuse("clusters", format!("1 to {}", u32::MAX), clusters.to_string()),
        };
        let rows: Vec<[Option<f64>; M]> = (0..self.resamples as u64)
            .into_par_iter()
            .map_init(
                || vec![0u32; clusters],
                |counts, resample| {
                    let mut rng = self.stream(resample);
                    counts.fill(0);
                    (0..n).for_each(|_| counts[one_of(n, &mut rng)] += 1);
                    statistics(counts)
                },
            )
            .collect();
        let mut values = rows.iter().flatten().flatten();
        if let Some(odd) = values.find(|v| !v.is_finite()) {
            return refuse("the statistic of a resample", "a finite number", odd.to_string());
        }
        Ok(std::array::from_fn(|i| {
            let all: Option<Vec<f64>> = rows.iter().map(|row| row[i]).collect();
            all.map(|mut all| {
                all.sort_unstable_by(f64::total_cmp);
                all
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(resamples: usize) -> Bootstrap {
        Bootstrap {
            level: 0.95,
            resamples,
            seed: 3,
        }
    }

    /// Over several shares.
    #[test]
    fn clusters_stand_where_they_come_first() {
        let n = 200_000usize;
        let items = (0..n).map(|i| (i * 7919 % 150_001, i as f64));
        let mut sums: Vec<f64> = Vec::new();
        let mut places = HashMap::new();
        for (key, value) in items.clone() {
            let at = *places.entry(key).or_insert(sums.len());
            if at == sums.len() {
                sums.extend([0.0, 0.0]);
            }
            sums[at] += value;
            sums[at + 1] += 1.0;
        }
        assert_eq!(Clusters::of(items).unwrap().sums, sums);
    }

    #[test]
    fn clusters_of_one_item_give_the_bits_of_no_clusters() {
        let values: Vec<f64> = (0..57).map(|i| f64::from(i).sqrt()).collect();
        let clusters = Clusters::of(values.iter().copied().enumerate()).unwrap();
        let settings = settings(700);
        assert_eq!(
            settings.clustered_mean(&clusters).unwrap(),
            settings.interval(&values).unwrap()
        );
    }

    /// Many clusters of few kinds: drawn by their counts, and one by one.
    #[test]
    fn counts_of_kinds_give_the_distribution_of_draws() {
        let items = (0..3_000).map(|i| (i / 3 * 2 / 3, f64::from(u8::from(i * i % 7 < 4))));
        let clusters = Clusters::of(items).unwrap();
        assert!(
            Alike::of(2, &clusters.sums).is_none(),
            "a few hundred to each kind are too few"
        );
        let sums = clusters.sums.repeat(20);
        let clusters = Clusters::of_sums(2, sums).unwrap();
        assert!(Alike::of(2, &clusters.sums).is_some());
        let settings = settings(4_000);
        let fast = settings.resampled(&clusters, |s| s[0] / s[1]).unwrap();
        let mut plain: Vec<f64> = (0..4_000)
            .map(|r| {
                let mut totals = [0.0; 2];
                clusters.draw(&mut settings.stream(r + 1_000_000), &mut totals);
                totals[0] / totals[1]
            })
            .collect();
        plain.sort_unstable_by(f64::total_cmp);
        // Kolmogorov and Smirnov's distance of two samples, at one in a thousand.
        let up_to = |all: &[f64], v: f64| all.partition_point(|p| *p <= v) as f64 / 4_000.0;
        let distance = fast.iter().map(|v| (up_to(&fast, *v) - up_to(&plain, *v)).abs());
        let distance = distance.fold(0.0, f64::max);
        assert!(distance < 1.95 * (2.0f64 / 4_000.0).sqrt(), "{distance}");
        // The same bits as values without clusters have.
        let values: Vec<f64> = (0..5_000).map(|i| f64::from(i % 7)).collect();
        let each = Clusters::of(values.iter().copied().enumerate()).unwrap();
        let interval = settings.clustered_mean(&each).unwrap();
        assert_eq!(interval, settings.interval(&values).unwrap());
    }

    #[test]
    fn items_that_go_together_widen_the_interval() {
        let item = |i: usize| (i / 5, f64::from(u8::from((i / 5).is_multiple_of(2))));
        let clustered = Clusters::of((0..500).map(item)).unwrap();
        assert_eq!(clustered.len(), 100);
        let alone = Clusters::of((0..500).map(|i| (i, item(i).1))).unwrap();
        let width = |c| {
            let i = settings(2_000).clustered_mean(c).unwrap();
            i.high - i.low
        };
        // √5 for five items that are all alike.
        let ratio = width(&clustered) / width(&alone);
        assert!((ratio - 5f64.sqrt()).abs() < 0.2, "{ratio}");
    }

    #[test]
    fn any_number_of_sums_is_drawn_alike() {
        let value = |c: usize, s: usize| ((c * 7 + s * 3) % 11) as f64;
        for width in 1..=6 {
            let sums = (0..13).flat_map(|c| (0..width).map(move |s| value(c, s)));
            let clusters = Clusters::of_sums(width, sums.collect()).unwrap();
            let last = settings(50).resampled(&clusters, |s| s[width - 1]).unwrap();
            let column = (0..13).map(|c| value(c, width - 1)).collect();
            let alone = Clusters::of_sums(1, column).unwrap();
            assert_eq!(&last, &settings(50).resampled(&alone, |s| s[0]).unwrap());
            let counted = |counts: &[u32]| {
                let of = |(c, n): (usize, &u32)| value(c, width - 1) * f64::from(*n);
                [Some(counts.iter().enumerate().map(of).sum())]
            };
            assert_eq!(settings(50).of_counts(13, counted).unwrap(), [Some(last)]);
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_an_error() {
        assert!(Clusters::of::<u8>([]).is_err());
        assert!(Clusters::of([(1, f64::NAN)]).is_err());
        assert!(Clusters::of([(1, f64::MAX), (2, 0.0)]).is_err());
        assert!(Clusters::of_sums(2, vec![1.0]).is_err());
        assert!(Clusters::of_sums(0, vec![]).is_err());
        let clusters = Clusters::of([("a", 1.0), ("b", 0.0), ("a", 1.0)]).unwrap();
        assert_eq!(clusters.totals([0, 0, 1]), Some(vec![4.0, 5.0]));
        assert_eq!(clusters.totals([2]), None);
        // Where a resample leaves nothing to divide by.
        let e = settings(100)
            .of_sums(&clusters, |s| 1.0 / (s[0] - 4.0))
            .unwrap_err();
        assert!(e.to_string().contains("the statistic of resample"), "{e}");
        assert!(settings(0).clustered_mean(&clusters).is_err());
        assert!(settings(9)
            .clustered_mean(&Clusters::of_sums(1, vec![1.0]).unwrap())
            .is_err());
        assert!(settings(9).of_counts(0, |_| [Some(1.0)]).is_err());
        assert_eq!(settings(9).of_counts(3, |_| [None]).unwrap(), [None]);
        assert!(settings(9).of_counts(3, |_| [Some(f64::NAN)]).is_err());
    }
}
