//! From judged items to a benchmark's score.

use super::answers::{Answers, Groups, Part};
use super::frame::frame;
use super::measure::{measure, tally, within, Mark, Measured, Row};
use super::overrides::{correct, Overrides};
use super::{named, Source, VERSION};
use crate::benchmark::names::{Aggregation, Metric};
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::metrics::bootstrap::Bootstrap;
use crate::metrics::statistics::proportion::{self, Method};
use crate::run::scored::{CardFacts, Data, Group, OtherRule, Scored, Whole};
use indexmap::IndexMap;

/// The score of judged items by the card that they were judged by, with the corrections where there are any.
///
/// # Errors
/// A metric that texts alone do not give; no items in the card's split; corrections that do not fit.
pub fn score(
    card: &Card,
    answers: Answers,
    source: Source,
    bootstrap: Bootstrap,
    by_hand: Option<Overrides>,
) -> Result<Scored> {
    let Answers {
        kind, rule, other, ..
    } = answers;
    let Part {
        items,
        rows,
        marks: of_file,
        others: of_other,
        constants,
        groups,
        undecided,
        ..
    } = answers.all;
    let marks = within(&of_file, &rows);
    let counted = tally(&marks);
    if counted.counted == 0 {
        let found = format!("{} of others, or that the rule leaves out", rows.len());
        let split = card
            .scored_split()
            .map_or(card.scored.as_str(), |s| s.name.as_str());
        return Err(Error::data(
            &card.name,
            split,
            "at least one item of this split",
            found,
        ));
    }
    let measured = measure(card, &rows, &marks, Some(bootstrap))?;
    let whole = match rows.iter().all(|row| row.within) {
        true => None,
        false => {
            let measured = measure(card, &rows, &of_file, None)?;
            Some(Whole {
                n: tally(&of_file).counted,
                score: measured.score,
                parts: measured.parts,
            })
        }
    };
    // What the fair rule says is worth knowing beside every official score, and the other way round.
    let other = match other {
        Some(other) => {
            let marks = within(&of_other, &rows);
            let tally = tally(&marks);
            // Of MMAU-Pro's kinds of items each rule reads its own.
            let there = tally.counted > 0;
            let score = || measure(card, &rows, &marks, None).map(|m| m.score);
            let score = there.then(score).transpose()?.flatten();
            there.then(|| OtherRule {
                rule: other.name().to_owned(),
                difference: score.zip(measured.score).map(|(a, b)| a - b),
                score,
                unread: tally.unread_share(),
            })
        }
        None => None,
    };
    let (also, not_also) = also(card, &rows, &marks, &measured.parts);
    let parts = measured.parts.into_iter().chain(also).collect();
    let frame = match constants.is_empty() {
        true => None,
        false => frame(card, rule, &rows, &constants)?,
    };
    let mut scored = Scored {
        benchmark: card.name.clone(),
        name: named(card, counted.counted),
        card: CardFacts {
            version: card.version,
            sha256: source.card_sha256.clone(),
        },
        model: source.model.clone(),
        rule: rule.name().to_owned(),
        kind: kind.name().to_owned(),
        other,
        metric: card.metric.name().to_owned(),
        predictions: source.predictions.clone(),
        data: data(card, answers.sha256, source.items),
        n: counted.counted,
        score: measured.score,
        interval: measured.interval,
        parts,
        bootstrap,
        states: states(&marks),
        unread: counted.unread_share(),
        left_out: counted.left_out,
        intervals: IndexMap::new(),
        not_scored: undecided.not_scored(card).into_iter().chain(not_also).collect(),
        frame,
        space: source.space,
        bert_score: None,
        condition: None,
        listening: None,
        corrected: None,
        judge: None,
        af2: Some(VERSION.to_owned()),
        whole,
        categories: categories(groups, bootstrap.level)?,
        items,
    };
    if let Some(by_hand) = by_hand {
        correct(&mut scored, card, &rows, marks.into_owned(), by_hand)?;
    }
    Ok(scored)
}

/// Items in the score by what became of their predictions.
fn states(marks: &[Mark]) -> IndexMap<String, usize> {
    let mut states = IndexMap::new();
    for mark in marks.iter().filter(|mark| mark.counted) {
        *states.entry(mark.state).or_insert(0) += 1;
    }
    let mut states: IndexMap<String, usize> = states
        .into_iter()
        .map(|(state, n)| (state.name().to_owned(), n))
        .collect();
    states.sort_unstable_keys();
    states
}

/// What the card reports beside its metric, and why some of it is not here.
fn also(
    card: &Card,
    rows: &[Row],
    marks: &[Mark],
    there: &IndexMap<String, f64>,
) -> (IndexMap<String, f64>, IndexMap<String, String>) {
    let (mut values, mut missing) = (IndexMap::new(), IndexMap::new());
    for metric in card.also.iter().filter(|m| !there.contains_key(m.name())) {
        let name = metric.name().to_owned();
        if *metric == Metric::JudgeMean {
            missing.insert(name, "it wants a judge's marks: `af2 judge run`".to_owned());
            continue;
        }
        let of = Card {
            metric: *metric,
            aggregation: Aggregation::Micro,
            ..card.clone()
        };
        match measure(&of, rows, marks, None) {
            Ok(Measured { score: Some(v), .. }) => {
                values.insert(name, v);
            }
            Ok(_) => {
                missing.insert(name, "these items leave it undefined".to_owned());
            }
            Err(e) => {
                missing.insert(name, crate::error::short(&e));
            }
        }
    }
    (values, missing)
}

fn categories(groups: Groups, level: f64) -> Result<IndexMap<String, IndexMap<String, Group>>> {
    let group = |[n, correct]: [usize; 2]| -> Result<Group> {
        let interval = proportion::interval(Method::Wilson, correct as u64, n as u64, level);
        Ok(Group {
            n,
            correct,
            score: Some(correct as f64 / n as f64),
            interval: Some(interval?),
        })
    };
    let of = |of: IndexMap<_, [usize; 2]>| -> Result<IndexMap<String, Group>> {
        let all = of.into_iter();
        all.map(|(value, counts)| Ok((String::from(value), group(counts)?)))
            .collect()
    };
    let all = groups.0.into_iter();
    all.map(|(key, values)| Ok((key.to_owned(), of(values)?)))
        .collect()
}

/// `items`: the sha256 and the name of a file of them; `own` else the hash of those in the predictions.
fn data(card: &Card, own: Option<String>, items: Option<(String, String)>) -> Data {
    let expected = card.items();
    match items {
        Some((sha256, of)) => Data {
            known: card.files.iter().any(|f| f.sha256.as_deref() == Some(&sha256)),
            sha256,
            of,
            expected,
        },
        // Predictions stand in the same file as the items, which have no hash of their own.
        None => Data {
            sha256: own.unwrap_or_default(),
            known: false,
            of: "the items within the predictions, without the keys that models write".to_owned(),
            expected,
        },
    }
}
