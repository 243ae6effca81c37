//! A judge held against people, and against another judge.

use crate::error::{Error, Result};
use crate::eval::scoring;
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::classification::{Confusion, Weights};
use crate::metrics::mean;
use crate::metrics::statistics::clusters::Clusters;
use crate::metrics::statistics::correlation::{kendall, pearson, spearman};
use crate::run::judgements::Judgement;
use indexmap::IndexMap;
use serde::Serialize;
use std::path::Path;

/// Where a person's mark stands.
const MARKS: [&str; 6] = ["human", "label", "mark", "score", "rating", "human_score"];

/// A person's mark of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// The item's.
    pub id: String,
    /// On the judge's scale.
    pub mark: f64,
}

/// How far two lists of marks of the same items agree.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Items that both have marked.
    pub n: usize,
    /// Rank correlation.
    pub spearman: Option<f64>,
    /// τ-b.
    pub kendall: Option<f64>,
    /// Of the marks themselves.
    pub pearson: Option<f64>,
    /// Cohen's κ with quadratic weights, of marks rounded to whole numbers.
    pub kappa: Option<f64>,
    /// The mean of the first one's marks less the second's…
    pub bias: f64,
    /// …with its interval over clips…
    pub bias_interval: Interval,
    /// …and without its sign, item by item.
    pub absolute: f64,
}

/// The mean of all marks of a judge, and what it is without the judge's bias.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// Items with a mark.
    pub n: usize,
    /// Items without one.
    pub unscored: usize,
    /// On the judge's scale.
    pub mean: f64,
    /// That less the bias: what people would have given, if they were as far from the judge everywhere as where they have marked
    /// (prediction-powered inference, arXiv 2301.09633).
    pub without_bias: f64,
    /// Of that: from both draws, of the items and of those that people have marked.
    pub interval: Interval,
    /// Spearman's correlation of the marks with the answers' length in words.
    pub length_correlation: Option<f64>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// The judge less the people.
    pub people: Agreement,
    /// Labels of items that the judge has not marked.
    pub unmatched: usize,
    /// Over all of the judge's items.
    pub all: Measured,
    /// The judge less the other judge.
    pub second: Option<Agreement>,
}

/// Reads people's marks: records with an id and a mark, `human`, `label`, `mark`, `score` or `rating`; several of an item are averaged.
///
/// # Errors
/// A record without them, a mark that is no number.
pub fn labels(path: &Path) -> Result<Vec<Label>> {
    let mut all: IndexMap<String, Vec<f64>> = IndexMap::new();
    for (place, id, record) in scoring::named_records(path)? {
        let value = MARKS.iter().find_map(|key| record.get(*key));
        let number = value.and_then(|v| v.as_f64().or_else(|| v.as_str()?.trim().parse().ok()));
        let Some(mark) = number.filter(|n: &f64| n.is_finite()) else {
            let found = value.map_or("none".to_owned(), |v| crate::error::short(v));
            let expected = format!("a number under one of {}", MARKS.join(", "));
            return Err(Error::data(path, place, expected, found));
        };
        let Some(id) = id else {
            return Err(Error::data(path, place, "an id", "none"));
        };
        all.entry(id).or_default().push(mark);
    }
    let each = all.into_iter().filter_map(|(id, marks)| {
        Some(Label {
            id,
            mark: mean(&marks)?,
        })
    });
    Ok(each.collect())
}

/// An item's mark over runs and orders.
struct Own<'a> {
    mark: f64,
    words: f64,
    clip: Option<&'a str>,
}

/// By id; and how many have no mark.
fn own(judgements: &[Judgement]) -> (IndexMap<&str, Own<'_>>, usize) {
    let mut by_id: IndexMap<&str, Vec<&Judgement>> = IndexMap::new();
    judgements
        .iter()
        .for_each(|j| by_id.entry(&j.id).or_default().push(j));
    let n = by_id.len();
    let each = by_id.into_iter().filter_map(|(id, of)| {
        let marks: Option<Vec<f64>> = of.iter().map(|j| j.mark).collect();
        let own = Own {
            mark: mean(&marks?)?,
            words: of[0].words as f64,
            clip: of[0].clip.as_deref(),
        };
        Some((id, own))
    });
    let own: IndexMap<&str, Own> = each.collect();
    let unscored = n - own.len();
    (own, unscored)
}

/// Pairs of marks with their clips.
fn agreement(pairs: &[(f64, f64, Option<&str>)], bootstrap: &Bootstrap) -> Result<Agreement> {
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().map(|(x, y, _)| (*x, *y)).unzip();
    let differences: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
    let clips = pairs
        .iter()
        .enumerate()
        .map(|(i, (.., clip))| (clip.unwrap_or_default(), clip.map_or(i, |_| usize::MAX)));
    let clusters = Clusters::of(clips.zip(differences.iter().copied()))?;
    let share = |values: &[f64]| mean(values).unwrap_or_default();
    Ok(Agreement {
        n: pairs.len(),
        spearman: spearman(&x, &y),
        kendall: kendall(&x, &y),
        pearson: pearson(&x, &y),
        kappa: kappa(&x, &y)?,
        bias: share(&differences),
        bias_interval: bootstrap.clustered_mean(&clusters)?,
        absolute: share(&differences.iter().map(|d| d.abs()).collect::<Vec<_>>()),
    })
}

/// Of marks rounded to whole numbers, over all between the lowest and the highest.
fn kappa(x: &[f64], y: &[f64]) -> Result<Option<f64>> {
    let round = |v: &f64| v.round() as i64;
    let all = || x.iter().chain(y).map(round);
    let (Some(low), Some(high)) = (all().min(), all().max()) else {
        return Ok(None);
    };
    if high.saturating_sub(low) > 1000 {
        return Ok(None);
    }
    let labels: Vec<String> = (low..=high).map(|v| v.to_string()).collect();
    let name = |v: &f64| labels[(round(v) - low) as usize].as_str();
    let items = x.iter().zip(y).map(|(x, y)| (name(y), Some(name(x))));
    Ok(Confusion::of(&labels, items)?.kappa(Weights::Quadratic))
}

/// Holds a judge against people's marks, and against another judge's.
///
/// # Errors
/// No item that both have marked.
pub fn check(
    labels: &[Label],
    judgements: &[Judgement],
    second: Option<&[Judgement]>,
    bootstrap: &Bootstrap,
) -> Result<Checked> {
    let (own, unscored) = own(judgements);
    let none = |what: &str| {
        let e = Error::data(what, "ids", "at least one item that the judge has marked", "none");
        e.hint("ids are those of judgements.jsonl")
    };
    let pairs: Vec<(f64, f64, Option<&str>)> = labels
        .iter()
        .filter_map(|label| {
            own.get(label.id.as_str())
                .map(|own| (own.mark, label.mark, own.clip))
        })
        .collect();
    if pairs.is_empty() {
        return Err(none("labels"));
    }
    let people = agreement(&pairs, bootstrap)?;
    let marks: Vec<f64> = own.values().map(|o| o.mark).collect();
    let clips = own
        .values()
        .enumerate()
        .map(|(i, o)| (o.clip.unwrap_or_default(), o.clip.map_or(i, |_| usize::MAX)));
    let clusters = Clusters::of(clips.zip(marks.iter().copied()))?;
    let level = mean(&marks).unwrap_or_default();
    // The two draws are independent: their spreads add up as squares do.
    let (all, bias) = (bootstrap.clustered_mean(&clusters)?, people.bias_interval);
    let without_bias = level - people.bias;
    let below = (level - all.low).hypot(bias.high - people.bias);
    let above = (all.high - level).hypot(people.bias - bias.low);
    let words: Vec<f64> = own.values().map(|o| o.words).collect();
    let second = match second {
        None => None,
        Some(second) => {
            let (other, _) = self::own(second);
            let pairs: Vec<(f64, f64, Option<&str>)> = own
                .iter()
                .filter_map(|(id, o)| Some((o.mark, other.get(id)?.mark, o.clip)))
                .collect();
            if pairs.is_empty() {
                return Err(none("second"));
            }
            Some(agreement(&pairs, bootstrap)?)
        }
    };
    Ok(Checked {
        unmatched: labels.len() - pairs.len(),
        people,
        all: Measured {
            n: marks.len(),
            unscored,
            mean: level,
            without_bias,
            interval: Interval {
                low: without_bias - below,
                high: without_bias + above,
            },
            length_correlation: spearman(&words, &marks),
        },
        second,
    })
}
