//! One score of several runs that differ by their seed, and of several samples of each answer. How far seeds lie apart and how
//! far other test items would move the score are two things: more seeds do not narrow the second, nor more items the first.

use super::clusters::Clusters;
use super::deviation;
use crate::error::{Error, Result};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use std::hash::Hash;

/// A score over seeds and samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Mean of the seeds' scores.
    pub score: f64,
    /// Each seed's: the mean over items of the mean over the item's samples.
    pub seeds: Vec<f64>,
    /// Standard deviation between seeds (divisor seeds − 1): what training again would change. `None` of one seed.
    pub between_seeds: Option<f64>,
    /// Standard deviation of a seed's score if each item were sampled once (√(Σ s²)/items, with the variance s² between an item's
    /// samples, over seeds as root mean square): what decoding again would change. `None` where an item has one sample.
    pub between_samples: Option<f64>,
    /// Sampling interval: what other test items would change for these very models, by the bootstrap over clusters.
    pub sampling: Interval,
}

/// Of each seed the values of each item's samples, `runs[seed][item][sample]`; `clusters[item]` is what the item belongs to,
/// such as its clip.
///
/// # Errors
/// No seeds, no items, a seed with other items than the first, an item without samples, a value that is not finite; as
/// [`Bootstrap::clustered_mean`].
pub fn aggregate<K: Hash + Eq + Sync>(
    runs: &[Vec<Vec<f64>>],
    clusters: &[K],
    bootstrap: &Bootstrap,
) -> Result<Aggregate> {
    let refuse =
        |key: String, expected: String, found: String| Err(Error::data("seeds", key, expected, found));
    let items = clusters.len();
    if runs.is_empty() || items == 0 {
        let found = format!("{} seeds, {items} items", runs.len());
        return refuse("runs".into(), "at least one seed and item".into(), found);
    }
    let mut seeds = Vec::with_capacity(runs.len());
    let mut of_item = vec![0.0; items];
    let mut variances = Some(0.0);
    for (s, run) in runs.iter().enumerate() {
        if run.len() != items {
            return refuse(
                format!("seed {s}"),
                format!("{items} items"),
                run.len().to_string(),
            );
        }
        let mut sum = 0.0;
        for (i, samples) in run.iter().enumerate() {
            let Some(mean) = super::mean(samples) else {
                let found = format!("{samples:?}");
                return refuse(
                    format!("seed {s}, item {i}"),
                    "finite samples, at least one".into(),
                    found,
                );
            };
            sum += mean;
            of_item[i] += mean / runs.len() as f64;
            variances = variances.and_then(|v| Some(v + deviation(samples)?.powi(2)));
        }
        seeds.push(sum / items as f64);
    }
    let of_clusters = Clusters::of(clusters.iter().zip(of_item))?;
    Ok(Aggregate {
        score: seeds.iter().sum::<f64>() / seeds.len() as f64,
        between_seeds: deviation(&seeds),
        between_samples: variances.map(|v| (v / runs.len() as f64).sqrt() / items as f64),
        sampling: bootstrap.clustered_mean(&of_clusters)?,
        seeds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_items_are_told_apart() {
        let settings = Bootstrap::default();
        // Alike over items, unlike over seeds.
        let runs = [vec![vec![0.25]; 40], vec![vec![0.75]; 40]];
        let clusters: Vec<usize> = (0..40).collect();
        let found = aggregate(&runs, &clusters, &settings).unwrap();
        assert_eq!(
            (found.score, found.seeds.as_slice()),
            (0.5, [0.25, 0.75].as_slice())
        );
        assert_eq!(found.between_seeds, Some(0.125f64.sqrt()));
        assert_eq!(found.sampling, Interval { low: 0.5, high: 0.5 });
        assert_eq!(found.between_samples, None);
        // Alike over seeds, unlike over items.
        let item = |i: usize| vec![f64::from(u8::from(i < 20))];
        let run: Vec<Vec<f64>> = (0..40).map(item).collect();
        let found = aggregate(&[run.clone(), run.clone()], &clusters, &settings).unwrap();
        assert_eq!(found.between_seeds, Some(0.0));
        let alone: Vec<f64> = run.concat();
        assert_eq!(found.sampling, settings.interval(&alone).unwrap());
        assert_eq!(
            aggregate(&[run], &clusters, &settings).unwrap().between_seeds,
            None
        );
    }

    #[test]
    fn samples_of_an_item_are_averaged_first() {
        // Variances between samples 0.5 and 2; n = 2.
        let run = vec![vec![0.0, 1.0], vec![1.0, 3.0]];
        let found = aggregate(&[run], &["a", "b"], &Bootstrap::default()).unwrap();
        assert_eq!(found.score, 1.25);
        assert_eq!(found.between_samples, Some(2.5f64.sqrt() / 2.0));
        // An item with more samples counts no more.
        let run = vec![vec![0.0; 9], vec![1.0]];
        let found = aggregate(&[run], &["a", "b"], &Bootstrap::default()).unwrap();
        assert_eq!(found.score, 0.5);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let settings = Bootstrap::default();
        let e = |runs: &[Vec<Vec<f64>>]| aggregate(runs, &[1, 2], &settings).unwrap_err().to_string();
        assert!(e(&[]).contains("0 seeds"));
        assert!(e(&[vec![vec![1.0]]]).contains("seed 0"));
        assert!(e(&[vec![vec![1.0], vec![]]]).contains("seed 0, item 1"));
        assert!(e(&[vec![vec![1.0], vec![f64::NAN]]]).contains("item 1"));
        assert!(aggregate::<u8>(&[vec![]], &[], &settings).is_err());
    }
}
