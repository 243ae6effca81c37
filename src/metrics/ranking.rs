//! Scores of several classes an item (tagging): average precision, area under the ROC curve, label ranking, F1 at a threshold.
//! The formulas are scikit-learn's, ties included.

use super::bootstrap::{Bootstrap, Interval};
use super::classification;
use super::mean;
use super::statistics::clusters::Clusters;
use crate::error::{Error, Result};
use ndarray::{Array2, ArrayView1};
use rayon::prelude::*;

/// Items of one class by falling score, up to the last positive one: nothing behind it changes a measure.
struct Ranked {
    /// Places of the items; those of positive ones are marked.
    order: Vec<u32>,
    /// From where to where a positive item and those of the same score stand in `order`. Between these are negative items only.
    ties: Vec<(u32, u32)>,
}

const POSITIVE: u32 = 1 << 31;
const MOST_ITEMS: usize = 1 << 30;

impl Ranked {
    fn of(scores: &[f64], truth: &[bool]) -> Self {
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.par_sort_unstable_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
        let (mut ties, mut end) = (Vec::new(), 0);
        for tie in order.chunk_by(|a, b| scores[*a as usize] == scores[*b as usize]) {
            let begin = end;
            end += tie.len() as u32;
            if tie.iter().any(|i| truth[*i as usize]) {
                ties.push((begin, end));
            }
        }
        order.truncate(ties.last().map_or(0, |(_, end)| *end as usize));
        for item in &mut order {
            *item |= u32::from(truth[*item as usize]) * POSITIVE;
        }
        Ranked { order, ties }
    }

    /// Of each tie with positive items: the items above it, its items, and its positive ones, each counted `weights` times.
    fn each_tie(&self, weights: &[u32], mut f: impl FnMut(u64, u64, u64)) {
        let (mut above, mut done) = (0u64, 0);
        for (begin, end) in &self.ties {
            let (begin, end) = (*begin as usize, *end as usize);
            let between = self.order[done..begin].iter();
            above += between.map(|i| u64::from(weights[*i as usize])).sum::<u64>();
            let (mut all, mut positive) = (0, 0);
            for item in &self.order[begin..end] {
                let n = u64::from(weights[(item & !POSITIVE) as usize]);
                all += n;
                positive += u64::from(item / POSITIVE) * n;
            }
            f(above, all, positive);
            above += all;
            done = end;
        }
    }

    /// Average precision, Σ (Rₙ − Rₙ₋₁) Pₙ over the thresholds, and the area under the ROC curve, the share of pairs of a
    /// positive and a negative item that stand in this order, of ties half. Items are counted `weights` times, `total` together.
    /// The first is `None` without positives, the second also without negatives.
    fn measure(&self, weights: &[u32], total: u64) -> (Option<f64>, Option<f64>) {
        let (mut positives, mut precision) = (0u64, 0.0);
        // Pairs in the wrong order, twice, in whole numbers.
        let mut wrong = 0u128;
        self.each_tie(weights, |above, all, positive| {
            if positive > 0 {
                let negatives = 2 * (above - positives) + (all - positive);
                wrong += u128::from(positive) * u128::from(negatives);
                positives += positive;
                precision += positive as f64 * positives as f64 / (above + all) as f64;
            }
        });
        let pairs = u128::from(positives) * u128::from(total - positives);
        let auc = (pairs > 0).then(|| (2 * pairs - wrong) as f64 / 2.0 / pairs as f64);
        ((positives > 0).then(|| precision / positives as f64), auc)
    }
}

/// Both measures of items that count once.
fn measure(scores: &[f64], truth: &[bool]) -> (Option<f64>, Option<f64>) {
    Ranked::of(scores, truth).measure(&vec![1; scores.len()], scores.len() as u64)
}

/// Average precision of one class over items. `None` without positives, where scikit-learn warns and says 0.
///
/// # Errors
/// Lists of unlike length, a score that is not finite, more than 2³⁰ items.
pub fn average_precision(scores: &[f64], truth: &[bool]) -> Result<Option<f64>> {
    checked(scores, truth)?;
    Ok(measure(scores, truth).0)
}

/// Area under the ROC curve of one class. `None` where all items or none are positive (scikit-learn: NaN).
///
/// # Errors
/// As [`average_precision`].
pub fn roc_auc(scores: &[f64], truth: &[bool]) -> Result<Option<f64>> {
    checked(scores, truth)?;
    Ok(measure(scores, truth).1)
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

    /// Of each class.
    fn per_class<T: Send>(&self, f: impl Fn(&[f64], &[bool]) -> T + Sync) -> Vec<T> {
        let of = |class: usize| {
            f(
                &self.scores.column(class).to_vec(),
                &self.truth.column(class).to_vec(),
            )
        };
        (0..self.classes()).into_par_iter().map(of).collect()
    }

    /// Average precision, class by class and over all.
    pub fn average_precision(&self) -> MeanAveragePrecision {
        let classes = self.per_class(|scores, truth| measure(scores, truth).0);
        let present: Vec<f64> = classes.iter().flatten().copied().collect();
        let positives = self.positives();
        let weight = positives.iter().sum::<usize>() as f64;
        let weighted = classes.iter().zip(&positives);
        let weighted: f64 = weighted.map(|(ap, n)| ap.unwrap_or(0.0) * *n as f64).sum();
        let of_clip = |i: usize| measure(&self.scores.row(i).to_vec(), &self.truth.row(i).to_vec()).0;
        let clips = (0..self.clips()).into_par_iter().map(of_clip);
        let clips: Vec<f64> = clips.map(|ap| ap.unwrap_or(0.0)).collect();
        let scores: Vec<f64> = self.scores.iter().copied().collect();
        let truth: Vec<bool> = self.truth.iter().copied().collect();
        MeanAveragePrecision {
            mean: present.iter().sum::<f64>() / classes.len() as f64,
            mean_present: mean(&present),
            absent: classes.len() - present.len(),
            weighted: (weight > 0.0).then(|| weighted / weight),
            micro: measure(&scores, &truth).0,
            samples: clips.iter().sum::<f64>() / clips.len() as f64,
            classes,
        }
    }

    /// Intervals of [`MeanAveragePrecision::mean`] and [`RocAuc::mean`]: clips are drawn again. A class that a resample happens
    /// to leave without positives (for the second also: without negatives) is left out of that resample's mean, since its value
    /// is unknown there and not 0; what the absent classes of the whole take from the mean is kept. `None` where a resample
    /// leaves no class.
    ///
    /// A positive clip that is drawn twice stands beside itself, which raises the average precision of a rare class, so that the
    /// mean over resamples lies above the value. The first interval is moved by that much, back about the value.
    ///
    /// # Errors
    /// A level or a number of resamples that cannot be.
    pub fn intervals(&self, bootstrap: &Bootstrap) -> Result<[Option<Interval>; 2]> {
        let ranked = self.per_class(Ranked::of);
        let clips = self.clips() as u64;
        let of = |counts: &[u32]| {
            let (mut sums, mut n) = ([0.0; 2], [0u32; 2]);
            for class in &ranked {
                let (precision, auc) = class.measure(counts, clips);
                for (i, value) in [precision, auc].into_iter().enumerate() {
                    sums[i] += value.unwrap_or(0.0);
                    n[i] += u32::from(value.is_some());
                }
            }
            [0, 1].map(|i| (n[i] > 0).then(|| sums[i] / f64::from(n[i])))
        };
        let whole = of(&vec![1; self.clips()])[0];
        let [precisions, aucs] = bootstrap.of_counts(self.clips(), of)?;
        let present = ranked.iter().filter(|r| !r.ties.is_empty()).count();
        let share = present as f64 / self.classes() as f64;
        let moved = precisions.zip(whole).map(|(mut all, whole)| {
            let above = all.iter().sum::<f64>() / all.len() as f64 - whole;
            all.iter_mut()
                .for_each(|v| *v = share * (*v - above).clamp(0.0, 1.0));
            all
        });
        Ok([moved, aucs].map(|all| bootstrap.middle(&all?)))
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
        let classes = self.per_class(|scores, truth| measure(scores, truth).1);
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
            if own.is_empty() {
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
        let scores = [0.9, 0.4, 0.4, 0.3, 0.8, 0.1, 0.05];
        let truth = [true, false, true, false, false, true, false];
        let weights = [2u32, 0, 1, 3, 1, 1, 2];
        let ranked = Ranked::of(&scores, &truth);
        assert_eq!((ranked.order.len(), ranked.ties.len()), (6, 3));
        let found = ranked.measure(&weights, weights.iter().map(|w| u64::from(*w)).sum());
        let repeated = |i: usize| std::iter::repeat_n(i, weights[i] as usize);
        let drawn = (0..7).flat_map(repeated).map(|i| (scores[i], truth[i]));
        let (s, t): (Vec<f64>, Vec<bool>) = drawn.unzip();
        assert_eq!(found.0, average_precision(&s, &t).unwrap());
        assert_eq!(found.1, roc_auc(&s, &t).unwrap());
    }

    #[test]
    fn intervals_hold_their_values() {
        let settings = Bootstrap {
            resamples: 300,
            ..Bootstrap::default()
        };
        let tags = tags(200, 5);
        let map = tags.average_precision();
        assert_eq!((map.absent, map.classes[0]), (1, None));
        let holds = |i: Interval, v: f64| assert!(i.low < v && v < i.high, "{i:?} {v}");
        let [precision, auc] = tags.intervals(&settings).unwrap();
        holds(precision.unwrap(), map.mean);
        holds(auc.unwrap(), tags.roc_auc().mean.unwrap());
        holds(
            tags.f1_micro_interval(0.5, &settings).unwrap(),
            tags.f1(0.5).micro,
        );
        let none = Tags::new(arr2(&[[0.5], [0.1]]), &arr2(&[[0.0], [0.0]])).unwrap();
        assert_eq!(none.intervals(&settings).unwrap(), [None, None]);
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
