//! Share of right answers, over items and over classes.

use super::mean;
use std::collections::BTreeMap;

/// Right answers among answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Answers.
    pub n: usize,
    /// Right ones.
    pub correct: usize,
}

impl Count {
    /// Counts the `true` ones.
    pub fn of(correct: impl IntoIterator<Item = bool>) -> Self {
        let mut count = Count { n: 0, correct: 0 };
        for right in correct {
            count.n += 1;
            count.correct += usize::from(right);
        }
        count
    }

    /// Share of right answers, from 0 to 1; `None` without answers.
    pub fn accuracy(self) -> Option<f64> {
        (self.n > 0).then(|| self.correct as f64 / self.n as f64)
    }
}

/// Mean over classes of each class's recall (balanced accuracy): every class counts alike, however rare.
///
/// An item is its reference class and whether it was answered right. `None` without items. Equals
/// [`Count::accuracy`] where all classes have as many items.
pub(crate) fn balanced<'a>(items: impl IntoIterator<Item = (&'a str, bool)>) -> Option<f64> {
    let mut classes: BTreeMap<&str, Count> = BTreeMap::new();
    for (class, right) in items {
        let count = classes.entry(class).or_insert(Count { n: 0, correct: 0 });
        count.n += 1;
        count.correct += usize::from(right);
    }
    let recalls: Vec<f64> = classes.values().filter_map(|c| c.accuracy()).collect();
    mean(&recalls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_items_and_right_ones() {
        let count = Count::of([true, false, true, true]);
        assert_eq!(count, Count { n: 4, correct: 3 });
        assert_eq!(count.accuracy(), Some(0.75));
        assert_eq!(Count::of([]).accuracy(), None);
    }

    #[test]
    fn a_rare_class_counts_as_much_as_a_common_one() {
        let items = [("dog", true), ("dog", true), ("dog", true), ("rain", false)];
        assert_eq!(balanced(items), Some(0.5));
        assert_eq!(balanced([]), None);
    }
}
