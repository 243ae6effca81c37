//! Does the model listen: the same items asked in other ways, beside the plain one.

use crate::benchmark::wording::letter as letter_of;
use crate::error::{Error, Result};
use crate::eval::control::Control;
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::statistics::clusters::Clusters;
use crate::run::predictions::Prediction;
use crate::run::scored::{Controlled, Gain, Group, Listening, Permutations, Scored, ScoredItem};
use indexmap::IndexMap;
use std::collections::HashMap;

/// Answers under one control, scored as the plain ones were.
pub struct Asked {
    /// Which.
    pub control: Control,
    /// Of its answers.
    pub scored: Scored,
    /// By item of the results.
    places: Vec<Places>,
}

/// Where an item's options stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Places {
    /// Of the right one, from 0.
    right: Option<usize>,
    /// The number, in the item's own order, of the option that was answered.
    answered: Option<usize>,
}

impl Asked {
    /// `predictions` in the order of their results, which `af2 eval` writes them in; texts without a verdict need none.
    ///
    /// # Errors
    /// Not as many predictions as there are results of.
    pub fn of(control: Control, scored: Scored, predictions: &[Prediction]) -> Result<Self> {
        if !scored.has_verdicts() {
            let places = vec![Places::default(); scored.items.len()];
            return Ok(Asked {
                control,
                scored,
                places,
            });
        }
        if predictions.len() != scored.items.len() {
            let expected = format!("{} answers, as were scored", scored.items.len());
            return Err(Error::data(
                "predictions",
                control.to_string(),
                expected,
                predictions.len().to_string(),
            ));
        }
        let each = predictions.iter().zip(&scored.items);
        Ok(Asked {
            control,
            places: each.map(|(p, item)| places(p, item)).collect(),
            scored,
        })
    }
}

fn places(prediction: &Prediction, item: &ScoredItem) -> Places {
    let labels = &prediction.labels;
    let answered = item.answer.as_deref().and_then(|answer| place(answer, labels));
    Places {
        right: labels.iter().position(|l| *l == prediction.reference),
        answered: answered.map(|at| prediction.order.get(at).copied().unwrap_or(at)),
    }
}

/// Which of the options a rule has found: by its words, with its letter or without, or by its letter alone.
fn place(answer: &str, labels: &[String]) -> Option<usize> {
    let plain = |text: &str| text.trim().trim_end_matches('.').to_lowercase();
    let words = |label: &str| lettered(label).map_or_else(|| plain(label), |(_, words)| plain(words));
    let said = plain(answer);
    let by_words = labels.iter().position(|l| plain(l) == said || words(l) == said);
    by_words.or_else(|| {
        let mut letters = said.trim_matches(['(', ')']).chars();
        let (letter, None) = (letters.next()?, letters.next()) else {
            return None;
        };
        labels
            .iter()
            .position(|l| lettered(l).is_some_and(|(own, _)| own.eq_ignore_ascii_case(&letter)))
    })
}

/// The letter and the words of an option that is shown as `(A) a dog`, `A. a dog` or `A) a dog`.
fn lettered(label: &str) -> Option<(char, &str)> {
    let rest = label.strip_prefix('(').unwrap_or(label);
    let mut chars = rest.chars();
    let letter = chars.next().filter(char::is_ascii_uppercase)?;
    let rest = chars.as_str();
    let words = match label.starts_with('(') {
        true => rest.strip_prefix(") ")?,
        false => rest.strip_prefix(". ").or_else(|| rest.strip_prefix(") "))?,
    };
    Some((letter, words))
}

/// What they show beside the plain answers.
///
/// # Errors
/// A bootstrap that cannot be.
pub fn listening(plain: &Asked, others: &[Asked], bootstrap: Bootstrap) -> Result<Option<Listening>> {
    if others.is_empty() || !is_mean(&plain.scored) {
        return Ok(None);
    }
    let verdicts = plain.scored.has_verdicts();
    let mut controls = IndexMap::new();
    for other in others {
        if let Some(controlled) = controlled(&plain.scored, &other.scored, bootstrap)? {
            controls.insert(other.control.to_string(), controlled);
        }
    }
    let deaf = [Control::TextOnly, Control::Silence];
    let deaf = deaf.iter().find_map(|c| others.iter().find(|o| o.control == *c));
    Ok(Some(Listening {
        controls,
        // Without verdicts there is no best score, and so nothing that was left to gain.
        audio_gain: deaf
            .filter(|_| verdicts)
            .map(|deaf| gain(&plain.scored, deaf, bootstrap))
            .transpose()?
            .flatten(),
        permutations: permutations(plain, others, bootstrap)?,
    }))
}

/// What is drawn together.
#[derive(PartialEq, Eq, Hash)]
enum Cluster<'a> {
    Clip(&'a str),
    Item(&'a str),
}

fn cluster(item: &ScoredItem) -> Cluster<'_> {
    item.clip
        .as_deref()
        .map_or(Cluster::Item(&item.id), Cluster::Clip)
}

/// What an item is worth: right or wrong or, where it has no verdict, the metric's own value for it.
fn value(item: &ScoredItem, metric: &str) -> Option<f64> {
    match item.scores.is_empty() {
        true => Some(f64::from(u8::from(item.correct))),
        false => item.scores.get(metric).copied().flatten(),
    }
}

/// Whether the score is the mean of the items' values, so that those of two ways can be set side by side; a corpus's BLEU is not.
fn is_mean(scored: &Scored) -> bool {
    if scored.has_verdicts() {
        return true;
    }
    let counted = scored.items.iter().filter(|item| item.counted);
    let values: Option<Vec<f64>> = counted.map(|item| value(item, &scored.metric)).collect();
    let mean = values.and_then(|values| crate::metrics::mean(&values));
    match (mean, scored.score) {
        (Some(mean), Some(score)) => (mean - score).abs() <= 1e-9 * score.abs().max(1.0),
        _ => false,
    }
}

/// The items that count in both, each with its answers: of several samples of an item the n-th with the n-th.
fn both<'a>(plain: &'a Scored, other: &'a Scored) -> Vec<(&'a ScoredItem, &'a ScoredItem)> {
    let mut by_id: HashMap<&str, Vec<&ScoredItem>> = HashMap::new();
    for item in plain.items.iter().rev().filter(|i| i.counted) {
        by_id.entry(&item.id).or_default().push(item);
    }
    let counted = other.items.iter().filter(|i| i.counted);
    counted
        .filter_map(|item| Some((by_id.get_mut(item.id.as_str())?.pop()?, item)))
        .collect()
}

/// Per clip: items, what they are worth in the plain way, and in the other.
fn sums(both: &[(&ScoredItem, &ScoredItem)], metric: &str) -> Result<Clusters> {
    let mut of: IndexMap<Cluster, [f64; 3]> = IndexMap::new();
    for (plain, other) in both {
        let own = of.entry(cluster(plain)).or_default();
        own[0] += 1.0;
        own[1] += value(plain, metric).unwrap_or_default();
        own[2] += value(other, metric).unwrap_or_default();
    }
    Clusters::of_sums(3, of.into_values().flatten().collect())
}

fn controlled(plain: &Scored, other: &Scored, bootstrap: Bootstrap) -> Result<Option<Controlled>> {
    let mut both = both(plain, other);
    both.retain(|(a, b)| [a, b].iter().all(|i| value(i, &plain.metric).is_some()));
    if both.is_empty() {
        return Ok(None);
    }
    let clusters = sums(&both, &plain.metric)?;
    let n = both.len() as f64;
    let all = clusters.totals(0..clusters.len()).unwrap_or_default();
    let (own, theirs) = match all[..] {
        [_, own, theirs] => (own, theirs),
        _ => (0.0, 0.0),
    };
    Ok(Some(Controlled {
        n: both.len(),
        score: theirs / n,
        interval: bootstrap.of_sums(&clusters, |s| s[2] / s[0])?,
        unread: other.unread,
        difference: (own - theirs) / n,
        difference_interval: bootstrap.of_sums(&clusters, |s| (s[1] - s[2]) / s[0])?,
    }))
}

fn gain(plain: &Scored, deaf: &Asked, bootstrap: Bootstrap) -> Result<Option<Gain>> {
    let both = both(plain, &deaf.scored);
    if both.is_empty() {
        return Ok(None);
    }
    let of = |s: &[f64]| (s[2] < s[0]).then(|| (s[1] - s[2]) / (s[0] - s[2]));
    let clusters = sums(&both, &plain.metric)?;
    let all = clusters.totals(0..clusters.len()).unwrap_or_default();
    let drawn = bootstrap.of_counts(clusters.len(), |counts| {
        let each = counts.iter().enumerate();
        let places = each.flat_map(|(at, n)| std::iter::repeat_n(at, *n as usize));
        [clusters.totals(places).as_deref().and_then(of)]
    })?;
    let [values] = drawn;
    Ok(Some(Gain {
        against: deaf.control.to_string(),
        value: of(&all),
        interval: values.and_then(|v| bootstrap.middle(&v)),
        n: both.len(),
    }))
}

/// An item's answers, order by order.
type Orders<'a> = [(&'a ScoredItem, &'a Places)];

fn permutations(plain: &Asked, others: &[Asked], bootstrap: Bootstrap) -> Result<Option<Permutations>> {
    let permuted: Vec<&Asked> = others
        .iter()
        .filter(|o| matches!(o.control, Control::Permute(_)))
        .collect();
    // By item its answers in all orders, its own first.
    let mut of: IndexMap<&str, Vec<(&ScoredItem, &Places)>> = IndexMap::new();
    for asked in std::iter::once(&plain).chain(&permuted) {
        let each = asked.scored.items.iter().zip(&asked.places);
        for (item, places) in each.filter(|(item, places)| item.counted && places.right.is_some()) {
            of.entry(&item.id).or_default().push((item, places));
        }
    }
    of.retain(|_, orders| orders.len() > 1);
    if of.is_empty() {
        return Ok(None);
    }
    let n = of.len() as f64;
    let share = |fits: &dyn Fn(&Orders) -> bool| of.values().filter(|o| fits(o)).count() as f64 / n;
    let same = |orders: &Orders| {
        let first = orders.first().and_then(|(_, p)| p.answered);
        first.is_some() && orders.iter().all(|(_, p)| p.answered == first)
    };
    let mut positions: IndexMap<usize, Vec<&ScoredItem>> = IndexMap::new();
    for (item, places) in of.values().flatten() {
        if let Some(place) = places.right {
            positions.entry(place).or_default().push(item);
        }
    }
    positions.sort_unstable_keys();
    let groups: Result<IndexMap<String, Group>> = positions
        .into_iter()
        .map(|(place, items)| Ok((letter_of(place).to_string(), group(&items, bootstrap)?)))
        .collect();
    Ok(Some(Permutations {
        n: of.len(),
        orders: of.values().map(Vec::len).sum::<usize>() as f64 / n,
        positions: groups?,
        consistency: share(&same),
        correctness: share(&|orders| orders.iter().all(|(item, _)| item.correct)),
    }))
}

fn group(items: &[&ScoredItem], bootstrap: Bootstrap) -> Result<Group> {
    let right = |item: &ScoredItem| f64::from(u8::from(item.correct));
    let clusters = Clusters::of(items.iter().map(|i| (cluster(i), right(i))))?;
    let correct = items.iter().filter(|i| i.correct).count();
    let interval: Interval = bootstrap.clustered_mean(&clusters)?;
    Ok(Group {
        n: items.len(),
        correct,
        score: Some(correct as f64 / items.len() as f64),
        interval: Some(interval),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_found_by_words_or_letter_in_every_form() {
        let of = |labels: [&str; 3]| labels.map(String::from);
        for labels in [
            of(["(A) a dog", "(B) a cat", "(C) rain"]),
            of(["A. a dog", "B. a cat", "C. rain"]),
            of(["A) a dog", "B) a cat", "C) rain"]),
        ] {
            for answer in ["a cat", "A cat.", &labels[1], "B", "(B)", "b."] {
                assert_eq!(place(answer, &labels), Some(1), "{answer} of {labels:?}");
            }
            assert_eq!(place("D", &labels), None);
            assert_eq!(place("a cow", &labels), None);
        }
        // Options without letters are not found by one.
        let bare = of(["a dog", "a cat", "rain"]);
        assert_eq!((place("rain", &bare), place("C", &bare)), (Some(2), None));
        // A label that only looks like one.
        assert_eq!(place("A", &of(["A. ", "A minor", "I.e. rain"])), Some(0));
    }
}
