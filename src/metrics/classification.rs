//! One label an item: confusion matrix, precision, recall and F1, agreement beyond chance. The formulas and the values at their
//! edges are scikit-learn's, but for what is named here.

use crate::error::{Error, Result};
use std::collections::HashMap;

/// How often each label was answered where each was right.
///
/// An answer may be no label at all (`None`: nothing could be read from it). It is wrong, lowers the recall of the right label,
/// and counts for no label's precision: what scikit-learn has for a prediction outside of `labels`, where its confusion matrix
/// alone would drop the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    labels: Vec<String>,
    /// Row after row: the right label; columns: the answered one.
    counts: Vec<u64>,
    /// Of each right label, answers that were none.
    unread: Vec<u64>,
}

/// Precision, recall and F1 of a label, or a mean over labels. Where there is nothing to divide by they are 0 (scikit-learn's
/// `zero_division=0`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Share of right ones among the answers.
    pub precision: f64,
    /// Share of found ones among the items.
    pub recall: f64,
    /// Of a label the harmonic mean of both; of labels the mean of theirs.
    pub f1: f64,
}

/// A mean over labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// Every label alike, also one that never occurs.
    Macro,
    /// Of the counts of all labels together.
    Micro,
    /// Each label by its items.
    Weighted,
}

/// What a wrong label costs in [`Confusion::kappa`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// All the same.
    Unweighted,
    /// The number of places between both labels.
    Linear,
    /// Its square.
    Quadratic,
}

impl Confusion {
    /// Counts items, each its right label and the answered one. The order of `labels` is that of rows and columns, and of the
    /// distances of a weighted kappa: a label that never occurs lies between its neighbours all the same. (scikit-learn, when it
    /// is given no labels, takes those that occur: of the grades 1, 2 and 5 it puts 2 next to 5.)
    ///
    /// # Errors
    /// No labels, one twice, an item with a label that is none of them.
    pub fn of<'a, L: AsRef<str>>(
        labels: &[L],
        items: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Self> {
        let refuse = |key: String, expected: String, found: String| {
            Err(Error::data("confusion matrix", key, expected, found))
        };
        let n = labels.len();
        if n == 0 {
            return refuse("labels".into(), "at least one".into(), "none".into());
        }
        let mut places = HashMap::with_capacity(n);
        for (i, label) in labels.iter().enumerate() {
            if let Some(before) = places.insert(label.as_ref(), i) {
                let found = format!("{:?} at {before} and {i}", label.as_ref());
                return refuse("labels".into(), "each once".into(), found);
            }
        }
        let mut counts = vec![0; n * n];
        let mut unread = vec![0; n];
        for (item, (truth, answer)) in items.into_iter().enumerate() {
            let Some(row) = places.get(truth) else {
                return refuse(
                    format!("truth of item {item}"),
                    "a label".into(),
                    format!("{truth:?}"),
                );
            };
            match answer {
                None => unread[*row] += 1,
                Some(answer) => match places.get(answer) {
                    Some(column) => counts[row * n + column] += 1,
                    None => {
                        return refuse(
                            format!("answer of item {item}"),
                            "a label, or none".into(),
                            format!("{answer:?}"),
                        )
                    }
                },
            }
        }
        Ok(Confusion {
            labels: labels.iter().map(|l| l.as_ref().to_owned()).collect(),
            counts,
            unread,
        })
    }

    /// In the order of rows and columns.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Of each right label, how often each label was answered.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks(self.labels.len())
    }

    /// Of each right label, the answers that were no label.
    pub fn unread(&self) -> &[u64] {
        &self.unread
    }

    /// Items of a right label.
    pub fn support(&self, label: usize) -> u64 {
        self.rows().nth(label).map_or(0, |row| row.iter().sum::<u64>()) + self.unread.get(label).unwrap_or(&0)
    }

    fn answered(&self, label: usize) -> u64 {
        self.rows().filter_map(|row| row.get(label)).sum()
    }

    fn right(&self, label: usize) -> u64 {
        self.rows().nth(label).map_or(0, |row| row[label])
    }

    fn each(&self) -> std::ops::Range<usize> {
        0..self.labels.len()
    }

    /// All items.
    pub fn items(&self) -> u64 {
        self.each().map(|l| self.support(l)).sum()
    }

    /// Share of right answers. `None` without items.
    pub fn accuracy(&self) -> Option<f64> {
        let right: u64 = self.each().map(|l| self.right(l)).sum();
        (self.items() > 0).then(|| right as f64 / self.items() as f64)
    }

    /// Mean recall of the labels that are right for some item. `None` without items.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        let there = self.each().filter(|l| self.support(*l) > 0);
        super::mean(&there.map(|l| self.of_label(l).recall).collect::<Vec<_>>())
    }

    /// Of the label at this place; zeros where there is none.
    pub fn of_label(&self, label: usize) -> Scores {
        scores(self.right(label), self.answered(label), self.support(label))
    }

    /// A mean over all labels. `None` without items.
    pub fn average(&self, average: Average) -> Option<Scores> {
        let items = self.items();
        if items == 0 {
            return None;
        }
        if average == Average::Micro {
            let sum = |f: &dyn Fn(usize) -> u64| self.each().map(f).sum();
            return Some(scores(sum(&|l| self.right(l)), sum(&|l| self.answered(l)), items));
        }
        let weight = |label| match average {
            Average::Weighted => self.support(label) as f64 / items as f64,
            _ => 1.0 / self.labels.len() as f64,
        };
        let mean = |f: fn(Scores) -> f64| self.each().map(|l| weight(l) * f(self.of_label(l))).sum();
        Some(Scores {
            precision: mean(|s| s.precision),
            recall: mean(|s| s.recall),
            f1: mean(|s| s.f1),
        })
    }

    /// Cohen's κ: one less the cost over that of answers drawn by chance with the same shares. `None` where chance would cost
    /// nothing (one label throughout; scikit-learn: NaN), and with weights where an answer was no label, which lies in no
    /// distance to one.
    pub fn kappa(&self, weights: Weights) -> Option<f64> {
        let unread: u64 = self.unread.iter().sum();
        if weights != Weights::Unweighted && unread > 0 {
            return None;
        }
        let items = self.items() as f64;
        let cost = |a: usize, b: usize| match weights {
            Weights::Unweighted => f64::from(u8::from(a != b)),
            Weights::Linear => a.abs_diff(b) as f64,
            Weights::Quadratic => (a.abs_diff(b) as f64).powi(2),
        };
        let answered: Vec<f64> = self.each().map(|l| self.answered(l) as f64).collect();
        // An answer that is no label is always wrong, and would be by chance.
        let (mut seen, mut chance) = (unread as f64, unread as f64);
        for (truth, row) in self.rows().enumerate() {
            let support = self.support(truth) as f64;
            for (answer, count) in row.iter().enumerate() {
                seen += cost(truth, answer) * *count as f64;
                chance += cost(truth, answer) * support * answered[answer] / items;
            }
        }
        (chance > 0.0).then(|| 1.0 - seen / chance)
    }

    /// Matthews' correlation coefficient over all labels (Gorodkin 2004). 0 where all items or all answers are one label, as in
    /// scikit-learn; `None` without items.
    pub fn matthews(&self) -> Option<f64> {
        let items = self.items() as f64;
        if items == 0.0 {
            return None;
        }
        let unread = self.unread.iter().sum::<u64>() as f64;
        let (mut right, mut both, mut truths, mut answers) = (0.0, 0.0, 0.0, unread * unread);
        for label in self.each() {
            let (truth, answer) = (self.support(label) as f64, self.answered(label) as f64);
            right += self.right(label) as f64;
            both += truth * answer;
            truths += truth * truth;
            answers += answer * answer;
        }
        let square = items * items;
        let below = ((square - truths) * (square - answers)).sqrt();
        Some(match below > 0.0 {
            true => (right * items - both) / below,
            false => 0.0,
        })
    }
}

/// Of counts: right answers, answers, items.
pub(super) fn scores(right: u64, answered: u64, items: u64) -> Scores {
    let share = |part: f64, of: u64| if of > 0 { part / of as f64 } else { 0.0 };
    let right = right as f64;
    Scores {
        precision: share(right, answered),
        recall: share(right, items),
        f1: share(2.0 * right, answered + items),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_label_is_wrong() {
        let items = [("a", Some("a")), ("a", None), ("b", Some("b")), ("b", Some("a"))];
        let all = Confusion::of(&["a", "b"], items).unwrap();
        assert_eq!(all.rows().collect::<Vec<_>>(), [[1, 0], [1, 1]]);
        assert_eq!((all.unread(), all.items()), ([1, 0].as_slice(), 4));
        assert_eq!(all.accuracy(), Some(0.5));
        assert_eq!(all.balanced_accuracy(), Some(0.5));
        assert_eq!(all.of_label(0), scores(1, 2, 2));
        let micro = all.average(Average::Micro).unwrap();
        assert_eq!((micro.precision, micro.recall), (2.0 / 3.0, 0.5));
        // As a label of its own that no item has: what scikit-learn sees where "none" stands in the answers.
        let named = items.map(|(t, a)| (t, a.or(Some("none"))));
        let named = Confusion::of(&["a", "b", "none"], named).unwrap();
        assert_eq!(all.kappa(Weights::Unweighted), named.kappa(Weights::Unweighted));
        assert_eq!(all.matthews(), named.matthews());
        assert_eq!(all.kappa(Weights::Linear), None);
    }

    #[test]
    fn labels_that_cannot_be_are_named() {
        assert!(Confusion::of::<&str>(&[], []).is_err());
        assert!(Confusion::of(&["a", "a"], []).is_err());
        let e = |items| Confusion::of(&["a"], items).unwrap_err().to_string();
        assert!(e([("b", None)]).contains("truth of item 0"));
        assert!(e([("a", Some("b"))]).contains("answer of item 0"));
    }

    #[test]
    fn of_no_items_nothing_is_known() {
        let none = Confusion::of(&["a", "b"], []).unwrap();
        assert_eq!(none.accuracy(), None);
        assert_eq!(none.balanced_accuracy(), None);
        assert_eq!(none.average(Average::Macro), None);
        assert_eq!(none.kappa(Weights::Quadratic), None);
        assert_eq!(none.matthews(), None);
        assert_eq!(none.of_label(7), scores(0, 0, 0));
    }
}
