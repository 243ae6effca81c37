//! One mark an item, their mean, and how sure it is.

use super::items::{JudgeItem, JudgeItems};
use super::means::Means;
use crate::benchmark::{Aggregate, Card, Protocol};
use crate::error::{Error, Result};
use crate::eval::scoring;
use crate::fsutil::hex;
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::mean;
use crate::metrics::statistics::correlation::spearman;
use crate::run::judgements::Judgement;
use crate::run::scored::{CardFacts, Data, Group, JudgeFacts, PredictionsFile, Scored, ScoredItem};
use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// What results name beside the marks.
pub struct About<'a> {
    /// The benchmark.
    pub card: &'a Card,
    /// Of the card's file.
    pub card_sha256: String,
    /// How it was judged.
    pub protocol: &'a Protocol,
    /// Of the protocol's file.
    pub protocol_sha256: String,
    /// Who was asked.
    pub judge: String,
    /// How often.
    pub runs: u32,
    /// Whose answers.
    pub model: Option<String>,
    /// The files.
    pub predictions: PredictionsFile,
    /// The sha256 of the file of items, and its name; none where the predictions carry them.
    pub items: Option<(String, String)>,
    /// For intervals.
    pub bootstrap: Bootstrap,
}

/// An item's marks in all its runs as one; none where one of them is missing.
fn item_mark(aggregate: Aggregate, judgements: &[&Judgement]) -> Option<f64> {
    // Of a pair both orders of a run make one mark.
    let mut runs: IndexMap<u32, Vec<Option<f64>>> = IndexMap::new();
    judgements
        .iter()
        .for_each(|j| runs.entry(j.run).or_default().push(j.mark));
    let marks = runs
        .into_values()
        .map(|orders| mean(&orders.into_iter().collect::<Option<Vec<f64>>>()?));
    let mut marks = marks.collect::<Option<Vec<f64>>>()?;
    marks.sort_by(f64::total_cmp);
    let n = marks.len();
    match aggregate {
        Aggregate::Mean => mean(&marks),
        Aggregate::Median => mean(&marks[n.saturating_sub(1) / 2..=n / 2]),
        // A single 0 of a gate is no list of runs.
        Aggregate::Trimmed if n > 2 => mean(&marks[1..n - 1]),
        Aggregate::Trimmed => mean(&marks),
    }
}

/// The score of a file of answers by their judgements.
///
/// # Errors
/// An item without the category that the card wants; no item with a mark.
pub fn results(from: About, items: &JudgeItems, judgements: &[Judgement]) -> Result<Scored> {
    let (card, protocol) = (from.card, from.protocol);
    let high = protocol.scale.high;
    let mut by_id: HashMap<&str, Vec<&Judgement>> = HashMap::new();
    judgements
        .iter()
        .for_each(|j| by_id.entry(&j.id).or_default().push(j));
    let of = |item: &JudgeItem| by_id.get(item.id.as_str()).map_or(&[][..], Vec::as_slice);
    let marks: Vec<Option<f64>> = items
        .all
        .iter()
        .map(|item| {
            Some(of(item))
                .filter(|j| !j.is_empty())
                .and_then(|j| item_mark(protocol.aggregate, j))
        })
        .map(|mark| mark.map(|m| m / high))
        .collect();
    let means = Means::of(card, &items.all)?;
    let (score, interval) = means.measure(&marks, Some(from.bootstrap))?;
    if score.is_none() {
        let found = format!("none of {} items; judgements.jsonl says why", items.all.len());
        return Err(Error::data(
            &card.name,
            "marks",
            "at least one that can be read",
            found,
        ));
    }
    let unscored = marks.iter().filter(|m| m.is_none()).count();
    let filled = |with: f64| -> Result<Option<f64>> {
        let all: Vec<Option<f64>> = marks.iter().map(|m| Some(m.unwrap_or(with / high))).collect();
        Ok(means.measure(&all, None)?.0)
    };
    let bounds = match unscored {
        0 => None,
        _ => filled(protocol.scale.low)?
            .zip(filled(high)?)
            .map(|(low, high)| Interval { low, high }),
    };
    let mut categories: IndexMap<String, IndexMap<String, Vec<f64>>> = IndexMap::new();
    for (item, mark) in items.all.iter().zip(&marks) {
        let Some(mark) = mark else { continue };
        for (key, values) in item.groups(card) {
            let of = categories.entry(key).or_default();
            values
                .into_iter()
                .for_each(|value| of.entry(value).or_default().push(*mark));
        }
    }
    let group = |marks: &Vec<f64>| Group {
        n: marks.len(),
        correct: 0,
        score: mean(marks),
        interval: None,
    };
    let parts = categories
        .get(card.over.as_deref().unwrap_or_default())
        .map(|of| {
            of.iter()
                .filter_map(|(name, marks)| Some((name.clone(), mean(marks)?)))
                .collect()
        });
    let scored: Vec<(f64, f64)> = items
        .all
        .iter()
        .zip(&marks)
        .filter(|(item, _)| item.right != Some(false))
        .filter_map(|(item, mark)| Some((of(item).first()?.words as f64, (*mark)?)))
        .collect();
    let (words, of_words): (Vec<f64>, Vec<f64>) = scored.into_iter().unzip();
    let mut answered_by: Vec<String> = judgements.iter().filter_map(|j| j.model.clone()).collect();
    answered_by.sort_unstable();
    answered_by.dedup();
    let n = marks.len() - unscored;
    let mut states = IndexMap::new();
    for (name, count) in [("answered", n), ("unparsed", unscored)] {
        if count > 0 {
            states.insert(name.to_owned(), count);
        }
    }
    let expected = card.items();
    Ok(Scored {
        benchmark: card.name.clone(),
        name: match expected {
            Some(all) if all != n as u64 => format!("{} ({n} of {all} items)", card.name),
            _ => card.name.clone(),
        },
        card: CardFacts {
            version: card.version,
            sha256: from.card_sha256,
        },
        model: from.model,
        rule: "judge".to_owned(),
        kind: "official".to_owned(),
        other: None,
        metric: "judge_mean".to_owned(),
        predictions: Some(from.predictions),
        data: data(card, items, from.items),
        n,
        score,
        interval,
        parts: parts.unwrap_or_default(),
        bootstrap: from.bootstrap,
        states,
        unread: Some(unscored as f64 / marks.len() as f64),
        left_out: items.left_out + items.others,
        whole: None,
        categories: categories
            .iter()
            .map(|(key, of)| {
                (
                    key.clone(),
                    of.iter()
                        .map(|(value, marks)| (value.clone(), group(marks)))
                        .collect(),
                )
            })
            .collect(),
        intervals: IndexMap::new(),
        not_scored: IndexMap::new(),
        frame: None,
        space: None,
        bert_score: None,
        condition: None,
        listening: None,
        corrected: None,
        judge: Some(JudgeFacts {
            protocol: protocol.name.clone(),
            version: protocol.version,
            sha256: from.protocol_sha256,
            model: from.judge,
            answered_by,
            temperature: protocol.temperature,
            seed: protocol.seed,
            runs: from.runs,
            aggregate: match protocol.aggregate {
                Aggregate::Mean => "mean",
                Aggregate::Median => "median",
                Aggregate::Trimmed => "trimmed",
            }
            .to_owned(),
            scale: [protocol.scale.low, high],
            asked_again: judgements
                .iter()
                .map(|j| j.asked.saturating_sub(1) as usize)
                .sum(),
            unscored,
            bounds,
            length_correlation: spearman(&words, &of_words),
            same_winner: protocol.pairs.then(|| same_winner(judgements)).flatten(),
        }),
        af2: Some(scoring::VERSION.to_owned()),
        items: items
            .all
            .iter()
            .zip(&marks)
            .map(|(item, mark)| scored_item(item, *mark, of(item)))
            .collect(),
    })
}

fn scored_item(item: &JudgeItem, mark: Option<f64>, judgements: &[&Judgement]) -> ScoredItem {
    let state = if mark.is_some() { "answered" } else { "unparsed" };
    let gated = item.right == Some(false);
    ScoredItem {
        id: item.id.clone(),
        state: state.into(),
        answer: None,
        span: None,
        correct: false,
        counted: mark.is_some(),
        by: if gated { "gate" } else { "judge" }.into(),
        reason: judgements.iter().find_map(|j| j.why.clone()),
        clip: item.clip.clone(),
        nearest: None,
        scores: IndexMap::from([("judge_mean".to_owned(), mark)]),
    }
}

/// Of pairs that were marked in both orders, the share in which the same answer has the higher mark, or neither has.
fn same_winner(judgements: &[Judgement]) -> Option<f64> {
    let mut orders: IndexMap<(&str, u32), Vec<std::cmp::Ordering>> = IndexMap::new();
    for j in judgements {
        if let (Some(first), Some(second)) = (j.marks.get("first"), j.marks.get("second")) {
            let (own, other) = if j.swapped {
                (second, first)
            } else {
                (first, second)
            };
            orders
                .entry((&j.id, j.run))
                .or_default()
                .push(own.total_cmp(other));
        }
    }
    let both = orders
        .values()
        .filter(|o| o.len() == 2)
        .map(|o| f64::from(u8::from(o[0] == o[1])));
    mean(&both.collect::<Vec<_>>())
}

fn data(card: &Card, items: &JudgeItems, of: Option<(String, String)>) -> Data {
    let expected = card.items();
    if let Some((sha256, name)) = of {
        let known = card.files.iter().any(|f| f.sha256.as_deref() == Some(&sha256));
        return Data {
            sha256,
            known,
            of: name,
            expected,
        };
    }
    let mut hasher = Sha256::new();
    for i in &items.all {
        let own = serde_json::json!([i.id, i.clip, i.question, i.options, i.reference]);
        hasher.update(own.to_string());
        hasher.update("\n");
    }
    Data {
        sha256: hex(&hasher.finalize()),
        known: false,
        of: "the items in the predictions".to_owned(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgement(run: u32, swapped: bool, mark: Option<f64>) -> Judgement {
        Judgement {
            id: "a".into(),
            clip: None,
            run,
            swapped,
            marks: IndexMap::new(),
            mark,
            why: None,
            asked: 1,
            reply: String::new(),
            model: None,
            words: 3,
        }
    }

    #[test]
    fn runs_become_one_mark_or_none() {
        let of = |aggregate, marks: &[Option<f64>]| {
            let all: Vec<Judgement> = marks
                .iter()
                .enumerate()
                .map(|(run, mark)| judgement(run as u32, false, *mark))
                .collect();
            item_mark(aggregate, &all.iter().collect::<Vec<_>>())
        };
        let five = [0.1, 0.9, 0.4, 0.5, 0.6].map(Some);
        assert_eq!(of(Aggregate::Trimmed, &five), Some(0.5));
        assert_eq!(of(Aggregate::Mean, &five), Some(0.5));
        assert_eq!(of(Aggregate::Median, &five), Some(0.5));
        assert_eq!(of(Aggregate::Median, &[1.0, 2.0, 5.0, 4.0].map(Some)), Some(3.0));
        assert_eq!(
            of(Aggregate::Trimmed, &[Some(1.0), Some(5.0), Some(5.0)]),
            Some(5.0)
        );
        // A gate's 0 stands alone.
        assert_eq!(of(Aggregate::Trimmed, &[Some(0.0)]), Some(0.0));
        assert_eq!(of(Aggregate::Median, &[Some(2.0)]), Some(2.0));
        for aggregate in [Aggregate::Mean, Aggregate::Median, Aggregate::Trimmed] {
            assert_eq!(of(aggregate, &[Some(1.0), None, Some(1.0)]), None);
        }
        let both = [judgement(0, false, Some(8.0)), judgement(0, true, Some(4.0))];
        assert_eq!(
            item_mark(Aggregate::Mean, &both.iter().collect::<Vec<_>>()),
            Some(6.0)
        );
        let half = [judgement(0, false, Some(8.0)), judgement(0, true, None)];
        assert_eq!(item_mark(Aggregate::Mean, &half.iter().collect::<Vec<_>>()), None);
    }
}
