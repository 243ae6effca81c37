//! Scores of several classes an item (tagging): average precision, area under the ROC curve, label ranking, F1 at a threshold.
//! The formulas are scikit-learn's, ties included.

use super::bootstrap::{Bootstrap, Interval};
use super::classification;
use super::mean;
use super::statistics::clusters::Clusters;
use crate::error::{Error, Result};
use ndarray::{Array2, ArrayView1};
use rayon::prelude::*;

/// Items by falling score, in 32 bits each: place, whether it is positive, whether the next one has a lower score.
struct Ranked(Vec<u32>);

const POSITIVE: u32 = 2;
const LAST_OF_TIE: u32 = 1;
const MOST_ITEMS: usize = 1 << 30;

impl Ranked {
    fn of(scores: &[f64], truth: &[bool]) -> Self {
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_unstable_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
        let score = |i: u32| scores[i as usize];
        let packed = (0..order.len()).map(|at| {
            let item = order[at];
            let last = order.get(at + 1).is_none_or(|next| score(*next) != score(item));
            item << 2 | u32::from(truth[item as usize]) * POSITIVE | u32::from(last) * LAST_OF_TIE
        });
        Ranked(packed.collect())
    }

    /// Σ (Rₙ − Rₙ₋₁) Pₙ over the thresholds, each item counted `weight` times. `None` without positives.
    fn average_precision(&self, weight: impl Fn(usize) -> u32) -> Option<f64> {
        let (mut seen, mut positives, mut before) = (0u64, 0u64, 0u64);
        let mut sum = 0.0;
        for packed in &self.0 {
            let n = u64::from(weight((packed >> 2) as usize));
            seen += n;
            positives += if packed & POSITIVE > 0 { n } else { 0 };
            if packed & LAST_OF_TIE > 0 && positives > before {
                sum += (positives - before) as f64 * positives as f64 / seen as f64;
                before = positives;
            }
        }
        (positives > 0).then(|| sum / positives as f64)
    }

    /// Nothing behind the last positive tie changes the average precision.
    fn up_to_last_positive(mut self) -> Self {
        let last = self.0.iter().rposition(|p| p & POSITIVE > 0);
        let end = last.map_or(0, |at| {
            let tie = self.0[at..].iter().position(|p| p & LAST_OF_TIE > 0);
            at + tie.map_or(0, |n| n + 1)
        });
        self.0.truncate(end);
        self
    }

    /// The share of pairs of a positive and a negative item that stand in this order, of ties half; each item counted `weight`
    /// times. `None` without both.
    fn roc_auc(&self, weight: impl Fn(usize) -> u32) -> Option<f64> {
        // Twice the sum, in whole numbers.
        let (mut above, mut twice, mut positives, mut negatives) = (0u64, 0u128, 0u64, 0u64);
        let mut tied = [0u64; 2];
        for packed in &self.0 {
            let n = u64::from(weight((packed >> 2) as usize));
            tied[usize::from(packed & POSITIVE > 0)] += n;
            if packed & LAST_OF_TIE > 0 {
                let [negative, positive] = std::mem::take(&mut tied);
                twice += u128::from(negative) * u128::from(2 * above + positive);
                above += positive;
                positives += positive;
                negatives += negative;
            }
        }
        let pairs = u128::from(positives) * u128::from(negatives);
        (pairs > 0).then(|| twice as f64 / 2.0 / pairs as f64)
    }
}

/// Average precision of one class over items. `None` without positives, where scikit-learn warns and says 0.
///
/// # Errors
/// Lists of unlike length, a score that is not finite, more than 2³⁰ items.
pub fn average_precision(scores: &[f64], truth: &[bool]) -> Result<Option<f64>> {
    checked(scores, truth)?;
    Ok(Ranked::of(scores, truth).average_precision(|_| 1))
}

/// Area under the ROC curve of one class. `None` where all items or none are positive (scikit-learn: NaN).
///
/// # Errors
/// As [`average_precision`].
pub fn roc_auc(scores: &[f64], truth: &[bool]) -> Result<Option<f64>> {
    checked(scores, truth)?;
    Ok(Ranked::of(scores, truth).roc_auc(|_| 1))
}

fn checked(scores: &[f64], truth: &[bool]) -> Result<()> {
    if scores.len() != truth.len() || scores.len() > MOST_ITEMS {
        let expected = format!("as many as scores ({}), at most {MOST_ITEMS}", scores.len());
        return Err(Error::data("truth", "items", expected, truth.len().to_string()));
    }
    match scores.iter().position(|s| !s.is_finite()) {
        Some(i) => Err(not_finite("scores", &format!("item {i}"), scores[i])),
        None => Ok(()),
    }
}

pub(super) fn not_finite(what: &str, key: &str, found: f64) -> Error {
    Error::data(what, key, "a finite number", found.to_string())
}

/// Scores of N clips for C classes, beside what is there.
pub struct Tags {
    /// (N, C)
    scores: Array2<f64>,
    /// (N, C)
    truth: Array2<bool>,
}

/// Average precision over the classes.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanAveragePrecision {
    /// Of each class; `None` of one without positives.
    pub classes: Vec<Option<f64>>,
    /// Mean over all classes, where one without positives counts 0: scikit-learn 1.9's `average="macro"`. `mean_present` is the
    /// number that does not depend on how many such classes there are.
    pub mean: f64,
    /// Mean over the classes with positives. `None` where none has any.
    pub mean_present: Option<f64>,
    /// Classes without positives.
    pub absent: usize,
    /// Each class by its positives. `None` as `mean_present`.
    pub weighted: Option<f64>,
    /// Of all clips' scores for all classes as one list. `None` as `mean_present`.
    pub micro: Option<f64>,
    /// Mean over clips of the average precision over the clip's classes; a clip without any counts 0, as in scikit-learn.
    pub samples: f64,
}

/// Area under the ROC curve over the classes.
#[derive(Debug, Clone, PartialEq)]
pub struct RocAuc {
    /// Of each class; `None` of one that is in all clips or in none.
    pub classes: Vec<Option<f64>>,
    /// Mean over the others; `None` where there are none.
    pub mean: Option<f64>,
}

/// F1 of the classes that reach a threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct F1 {
    /// Of each class; 0 where nothing is there and nothing found.
    pub classes: Vec<f64>,
    /// Mean over classes.
    pub mean: f64,
    /// Of the counts of all classes together.
    pub micro: f64,
    /// Each class by its positives; 0 without any.
    pub weighted: f64,
    /// Mean over clips of the F1 of the clip's classes; 0 where none is there and none found.
    pub samples: f64,
}

impl Tags {
    /// `scores` and `truth` (N, C); truth is 0 or 1.
    ///
    /// # Errors
    /// No clips or classes, more than 2³⁰ scores, shapes that are not alike, a score that is not finite, a truth that is
    /// neither: as of files `scores` and `truth`, with row and column from 0.
    pub fn new(scores: Array2<f64>, truth: &Array2<f64>) -> Result<Self> {
        let (clips, classes) = scores.dim();
        if clips == 0 || classes == 0 || scores.len() > MOST_ITEMS {
            return Err(Error::data(
                "scores",
                "shape",
                format!("(clips, classes), at least one of each and at most {MOST_ITEMS} together"),
                shape(&scores),
            ));
        }
        if truth.dim() != scores.dim() {
            let expected = format!("{}, as the scores have", shape(&scores));
            return Err(Error::data("truth", "shape", expected, shape(truth))
                .hint("both are (clips, classes), in the same order"));
        }
        let place = |(row, column): (usize, usize)| format!("row {row}, column {column}");
        if let Some((at, odd)) = scores.indexed_iter().find(|(_, v)| !v.is_finite()) {
            return Err(not_finite("scores", &place(at), *odd));
        }
        if let Some((at, odd)) = truth.indexed_iter().find(|(_, v)| **v != 0.0 && **v != 1.0) {
            return Err(
                Error::data("truth", place(at), "0 or 1", odd.to_string()).hint("are the two files swapped?")
            );
        }
        Ok(Tags {
            truth: truth.mapv(|v| v == 1.0),
            scores: scores.as_standard_layout().into_owned(),
        })
    }

    /// N
    pub fn clips(&self) -> usize {
        self.scores.nrows()
    }

    /// C
    pub fn classes(&self) -> usize {
        self.scores.ncols()
    }

    /// Clips in which each class is.
    pub fn positives(&self) -> Vec<usize> {
        let count = |column: ArrayView1<bool>| column.iter().filter(|t| **t).count();
        self.truth.columns().into_iter().map(count).collect()
    }

    /// Every class ranked.
    fn ranked(&self) -> Vec<Ranked> {
        let of = |class: usize| {
            let scores: Vec<f64> = self.scores.column(class).to_vec();
            Ranked::of(&scores, &self.truth.column(class).to_vec())
        };
        (0..self.classes()).into_par_iter().map(of).collect()
    }

    /// Average precision, class by class and over all.
    pub fn average_precision(&self) -> MeanAveragePrecision {
        let classes: Vec<Option<f64>> = self.ranked().iter().map(|r| r.average_precision(|_| 1)).collect();
        let present: Vec<f64> = classes.iter().flatten().copied().collect();
        let positives = self.positives();
        let weight = positives.iter().sum::<usize>() as f64;
        let weighted = classes.iter().zip(&positives);
        let weighted: f64 = weighted.map(|(ap, n)| ap.unwrap_or(0.0) * *n as f64).sum();
        let flat = |i: usize| (self.scores.row(i).to_vec(), self.truth.row(i).to_vec());
        let rows: Vec<f64> = (0..self.clips())
            .into_par_iter()
            .map(|i| {
                let (scores, truth) = flat(i);
                Ranked::of(&scores, &truth)
                    .average_precision(|_| 1)
                    .unwrap_or(0.0)
            })
            .collect();
        let (scores, truth): (Vec<f64>, Vec<bool>) = (
            self.scores.iter().copied().collect(),
            self.truth.iter().copied().collect(),
        );
        MeanAveragePrecision {
            mean: present.iter().sum::<f64>() / classes.len() as f64,
            mean_present: mean(&present),
            absent: classes.len() - present.len(),
            weighted: (weight > 0.0).then(|| weighted / weight),
            micro: Ranked::of(&scores, &truth).average_precision(|_| 1),
            samples: rows.iter().sum::<f64>() / rows.len() as f64,
            classes,
        }
    }

    /// Interval of [`MeanAveragePrecision::mean`]: clips are drawn again. A class that a resample happens to leave without
    /// positives is left out of that resample's mean, since its average precision is unknown there and not 0; each mean over
    /// present classes is then scaled by the share of classes that have positives. `None` where a resample has no positives at
    /// all.
    ///
    /// # Errors
    /// A level or a number of resamples that cannot be.
    pub fn average_precision_interval(&self, bootstrap: &Bootstrap) -> Result<Option<Interval>> {
        let ranked = self.ranked().into_iter().map(Ranked::up_to_last_positive);
        let ranked: Vec<Ranked> = ranked.filter(|r| !r.0.is_empty()).collect();
        let share = ranked.len() as f64 / self.classes() as f64;
        bootstrap.of_counts(self.clips(), |counts| {
            let drawn = ranked.iter().filter_map(|r| r.average_precision(|i| counts[i]));
            mean(&drawn.collect::<Vec<_>>()).map(|m| m * share)
        })
    }

    /// Interval of [`RocAuc::mean`]: clips are drawn again. A class that a resample has in all clips or in none is left out of
    /// that resample's mean. `None` where that leaves none.
    ///
    /// # Errors
    /// A level or a number of resamples that cannot be.
    pub fn roc_auc_interval(&self, bootstrap: &Bootstrap) -> Result<Option<Interval>> {
        let ranked = self.ranked();
        bootstrap.of_counts(self.clips(), |counts| {
            let drawn = ranked.iter().filter_map(|r| r.roc_auc(|i| counts[i]));
            mean(&drawn.collect::<Vec<_>>())
        })
    }

    /// Interval of [`F1::micro`]: clips are drawn again.
    ///
    /// # Errors
    /// A level or a number of resamples that cannot be.
    pub fn f1_micro_interval(&self, threshold: f64, bootstrap: &Bootstrap) -> Result<Interval> {
        let of_clip = |i: usize| counts(self.scores.row(i), self.truth.row(i), threshold).map(|n| n as f64);
        let sums = (0..self.clips()).flat_map(of_clip).collect();
        bootstrap.of_sums(&Clusters::of_sums(3, sums)?, |sums| {
            let [right, found, there] = [sums[0], sums[1], sums[2]].map(|n| n as u64);
            classification::scores(right, found, there).f1
        })
    }

    /// Area under the ROC curve, class by class.
    pub fn roc_auc(&self) -> RocAuc {
        let classes: Vec<Option<f64>> = self.ranked().iter().map(|r| r.roc_auc(|_| 1)).collect();
        RocAuc {
            mean: mean(&classes.iter().flatten().copied().collect::<Vec<_>>()),
            classes,
        }
    }

    /// Of each clip, the mean over its classes of (its classes with at least that score) / (classes with at least that score):
    /// scikit-learn's label ranking average precision. A clip with no class or with all has 1.
    pub fn label_ranking(&self) -> Vec<f64> {
        let of = |i: usize| {
            let (scores, truth) = (self.scores.row(i), self.truth.row(i));
            let falling = |mut all: Vec<f64>| {
                all.sort_unstable_by(|a, b| b.total_cmp(a));
                all
            };
            let there = scores.iter().zip(truth).filter(|(_, t)| **t);
            let (all, own) = (
                falling(scores.to_vec()),
                falling(there.map(|(s, _)| *s).collect()),
            );
            if own.is_empty() || own.len() == all.len() {
                return 1.0;
            }
            let at_least = |list: &[f64], score: f64| list.partition_point(|s| *s >= score) as f64;
            let shares = own.iter().map(|s| at_least(&own, *s) / at_least(&all, *s));
            shares.sum::<f64>() / own.len() as f64
        };
        (0..self.clips()).into_par_iter().map(of).collect()
    }

    /// F1 where a class counts as found from `threshold` on.
    pub fn f1(&self, threshold: f64) -> F1 {
        let f1 = |[right, found, there]: [u64; 3]| classification::scores(right, found, there).f1;
        let per_class: Vec<[u64; 3]> = (0..self.classes())
            .map(|c| counts(self.scores.column(c), self.truth.column(c), threshold))
            .collect();
        let total = per_class
            .iter()
            .fold([0; 3], |a, b| std::array::from_fn(|i| a[i] + b[i]));
        let classes: Vec<f64> = per_class.iter().map(|c| f1(*c)).collect();
        let weighted: f64 = per_class.iter().map(|c| f1(*c) * c[2] as f64).sum();
        let samples: f64 = (0..self.clips())
            .map(|i| f1(counts(self.scores.row(i), self.truth.row(i), threshold)))
            .sum();
        F1 {
            mean: classes.iter().sum::<f64>() / classes.len() as f64,
            micro: f1(total),
            weighted: if total[2] > 0 {
                weighted / total[2] as f64
            } else {
                0.0
            },
            samples: samples / self.clips() as f64,
            classes,
        }
    }
}

/// Right findings, findings, and what is there.
fn counts(scores: ArrayView1<f64>, truth: ArrayView1<bool>, threshold: f64) -> [u64; 3] {
    let mut counts = [0; 3];
    for (score, there) in scores.iter().zip(truth) {
        let found = *score >= threshold;
        counts[0] += u64::from(found && *there);
        counts[1] += u64::from(found);
        counts[2] += u64::from(*there);
    }
    counts
}

pub(super) fn shape(of: &Array2<f64>) -> String {
    format!("({}, {})", of.nrows(), of.ncols())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    fn tags(n: usize, classes: usize) -> Tags {
        let scores = Array2::from_shape_fn((n, classes), |(i, c)| ((i * 37 + c * 17) % 29) as f64 / 29.0);
        // The first class is nowhere.
        let truth = Array2::from_shape_fn((n, classes), |(i, c)| {
            f64::from(u8::from(c > 0 && (i + c) % 4 == 0))
        });
        Tags::new(scores, &truth).unwrap()
    }

    #[test]
    fn an_item_that_is_drawn_twice_counts_as_two() {
        let scores = [0.9, 0.4, 0.4, 0.3, 0.8, 0.1];
        let truth = [true, false, true, false, false, true];
        let weights = [2u32, 0, 1, 3, 1, 1];
        let ranked = Ranked::of(&scores, &truth);
        let found = ranked.average_precision(|i| weights[i]);
        let repeated = |i: usize| std::iter::repeat_n(i, weights[i] as usize);
        let (s, t): (Vec<f64>, Vec<bool>) = (0..6).flat_map(repeated).map(|i| (scores[i], truth[i])).unzip();
        assert_eq!(found, average_precision(&s, &t).unwrap());
        let short = Ranked::of(&[0.9, 0.4, 0.4, 0.3], &truth[..4]).up_to_last_positive();
        assert_eq!(short.0.len(), 3);
        assert_eq!(Ranked::of(&[0.9], &[false]).up_to_last_positive().0.len(), 0);
    }

    #[test]
    fn the_interval_holds_the_mean_and_scales_with_absent_classes() {
        let settings = Bootstrap {
            resamples: 300,
            ..Bootstrap::default()
        };
        let tags = tags(200, 5);
        let map = tags.average_precision();
        assert_eq!((map.absent, map.classes[0]), (1, None));
        let found = tags.average_precision_interval(&settings).unwrap().unwrap();
        assert!(
            found.low < map.mean && map.mean < found.high,
            "{found:?} {}",
            map.mean
        );
        let auc = tags.roc_auc_interval(&settings).unwrap().unwrap();
        assert!(auc.low < tags.roc_auc().mean.unwrap() && tags.roc_auc().mean.unwrap() < auc.high);
        let f1 = tags.f1_micro_interval(0.5, &settings).unwrap();
        assert!(f1.low < tags.f1(0.5).micro && tags.f1(0.5).micro < f1.high);
        let none = Tags::new(arr2(&[[0.5], [0.1]]), &arr2(&[[0.0], [0.0]])).unwrap();
        assert_eq!(none.average_precision_interval(&settings).unwrap(), None);
        assert_eq!(
            (none.average_precision().mean, none.average_precision().micro),
            (0.0, None)
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let e = |s: Array2<f64>, t: Array2<f64>| Tags::new(s, &t).err().unwrap().to_string();
        let (two, one) = (arr2(&[[0.5, 0.1]]), arr2(&[[1.0]]));
        assert!(
            e(two.clone(), one).contains("truth: shape: expected (1, 2), as the scores have, found (1, 1)")
        );
        assert!(e(Array2::zeros((0, 3)), Array2::zeros((0, 3))).contains("at least one"));
        assert!(e(arr2(&[[0.5, f64::NAN]]), two.clone()).contains("scores: row 0, column 1"));
        assert!(e(two.clone(), arr2(&[[1.0, 0.5]]))
            .contains("truth: row 0, column 1: expected 0 or 1, found 0.5"));
        assert!(average_precision(&[0.1], &[]).is_err());
        assert!(roc_auc(&[f64::INFINITY], &[true]).is_err());
        assert_eq!(roc_auc(&[], &[]).unwrap(), None);
    }
}
