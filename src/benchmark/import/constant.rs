//! What answers get that do not depend on the sound.

use indexmap::IndexMap;

/// An item's options in the order in which they are shown, and which of them are right.
pub(super) struct Closed<'a> {
    pub options: &'a [String],
    pub right: Vec<usize>,
}

/// Shares of right ones, from 0 to 1, by what is always answered: the first, the longest, the shortest option (of equally long ones
/// the first; lengths are in characters), and where all items have the same labels each way to answer one of them.
///
/// Items without an answer or options leave nothing to be computed.
pub(super) fn scores(items: &[Closed]) -> IndexMap<String, f64> {
    let mut scores = IndexMap::new();
    if items.is_empty() || items.iter().any(|i| i.options.is_empty()) {
        return scores;
    }
    let share = |choose: &dyn Fn(&Closed) -> Option<usize>| {
        let right = items
            .iter()
            .filter(|i| choose(i).is_some_and(|at| i.right.contains(&at)))
            .count();
        right as f64 / items.len() as f64
    };
    let length = |text: &String| text.chars().count() as i64;
    let least = |of: &dyn Fn(&String) -> i64, item: &Closed| {
        (0..item.options.len()).min_by_key(|at| of(&item.options[*at]))
    };
    scores.insert("first".to_owned(), share(&|_| Some(0)));
    scores.insert(
        "longest".to_owned(),
        share(&|item| least(&|text| -length(text), item)),
    );
    scores.insert("shortest".to_owned(), share(&|item| least(&length, item)));
    let labels = items[0].options;
    if items.iter().all(|i| i.options == labels) {
        let of: Vec<(&String, f64)> = labels
            .iter()
            .enumerate()
            .map(|(at, l)| (l, share(&|_| Some(at))))
            .collect();
        // The first of those that are equally frequent.
        let most = of.iter().fold(None::<&(&String, f64)>, |best, one| match best {
            Some(best) if best.1 >= one.1 => Some(best),
            _ => Some(one),
        });
        if let Some((label, share)) = most {
            scores.insert(format!("most frequent: {label}"), *share);
        }
        if labels.len() == 2 {
            scores.extend(
                of.iter()
                    .filter(|(l, _)| *l == "yes" || *l == "no")
                    .map(|(l, s)| (format!("always {l}"), *s)),
            );
        }
    }
    scores
}
