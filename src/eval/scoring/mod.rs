//! Predictions of any model, scored by a benchmark's card: no model, no sound.
//!
//! ```text
//! files.rs: any file to records ─► samples.rs: items with predictions ─► a rule's verdicts ─► the card's metric ─► run/scored.rs
//!                                  pairs.rs: texts beside references  ─► texts.rs: captions, MusicQA ───────────┤
//!                                  classes.rs: a number for each label ─► mAP, or the likeliest label ──────────┘
//! run/scored.rs, twice or more ─► compare.rs: do they differ;  lines with likelihoods ─► likelihoods.rs: are they meant
//! ```

mod beside;
mod classes;
mod compare;
mod files;
mod frame;
mod likelihoods;
mod loaded;
mod mmau_pro;
mod overrides;
mod pairs;
mod samples;
mod texts;
mod way;

pub use classes::classes;
pub use compare::{compare, seeds, Agreement, Compared, Seeds};
pub use files::{hex, open, sha256, Opened, Records};
pub use frame::add_frame;
pub use likelihoods::{likelihoods, By, Likelihood};
pub(crate) use loaded::named_records;
pub(crate) use mmau_pro::is_open;
pub use overrides::{correct, read_overrides, Overrides};
pub use pairs::{pairs, pairs_with_records, Pair, Pairs};
pub use samples::{samples, Form, Sample};
pub use texts::texts;
pub use way::Way;

use super::rules::{cmm, Judged, RuleName, Tally};
use crate::benchmark::names::{Aggregation, Metric};
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::classification::{Average, Confusion};
use crate::metrics::statistics::clusters::Clusters;
use crate::metrics::statistics::proportion::{self, Method};
use crate::run::scored::{CardFacts, Data, Group, OtherRule, PredictionsFile, Scored, ScoredItem, Whole};
use indexmap::IndexMap;
use rayon::prelude::*;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Which of a card's two rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The benchmark's own script, to the letter.
    Official,
    /// What an attentive reader would count.
    Fair,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Official => "official",
            Kind::Fair => "fair",
        }
    }

    fn other(self) -> Self {
        match self {
            Kind::Official => Kind::Fair,
            Kind::Fair => Kind::Official,
        }
    }

    /// The card's rule of this kind.
    ///
    /// # Errors
    /// One that cannot be applied to texts alone.
    pub fn rule(self, card: &Card) -> Result<RuleName> {
        let named = match self {
            Kind::Official => card.rules.as_ref().map(|r| r.official),
            Kind::Fair => card.rules.as_ref().map(|r| r.fair),
        };
        let Some(named) = named else {
            return Err(no_text(card, "no rule: embeddings are compared"));
        };
        named.name().parse().map_err(|_| {
            let needs = match named.name() {
                "judge" => JUDGE,
                "clap_label" => "the embeddings of AF-CLAP's text tower",
                other => other,
            };
            no_text(card, needs)
        })
    }
}

/// What open answers want.
const JUDGE: &str = "a judge's marks";

fn no_text(card: &Card, needs: &str) -> Error {
    let expected = "a benchmark whose answers are scored as texts";
    let e = Error::data(&card.name, "rules", expected, needs.to_owned());
    if needs == JUDGE {
        let name = &card.name;
        return e.hint(format!(
            "`af2 judge run --benchmark {name} --predictions FILE --endpoint URL --out DIR` asks one"
        ));
    }
    e.hint("`af2 benchmark ls` shows rules and metrics; `af2 score --help` what else is scored")
}

/// Where the items come from.
#[derive(Default)]
pub struct Source {
    /// The sha256 of a file of items; none where the predictions carry them.
    pub items: Option<(String, String)>,
    /// Whose predictions.
    pub model: Option<String>,
    /// Of the card's file.
    pub card_sha256: String,
    /// The files, to be found again.
    pub predictions: Option<PredictionsFile>,
}

/// Scores samples by a card.
///
/// # Errors
/// A rule or a metric that texts alone do not give; no items in the card's split.
pub fn score(
    card: &Card,
    samples: &[Sample],
    kind: Kind,
    source: Source,
    bootstrap: Bootstrap,
) -> Result<Scored> {
    let rule = kind.rule(card)?;
    let within: Vec<bool> = samples.iter().map(|s| in_split(card, s)).collect();
    // The hash of the items goes through all of them, one after the other: meanwhile the others judge.
    let (data, (of_file, of_other)) = rayon::join(
        || data(card, samples, source.items.clone()),
        || {
            let other = kind.other().rule(card).ok().filter(|other| *other != rule);
            (
                verdicts(card, rule, samples),
                other.map(|other| (other, verdicts(card, other, samples))),
            )
        },
    );
    let judged = within_split(&of_file, &within);
    let counted = || samples.iter().zip(&judged[..]).filter(|(_, j)| j.counted);
    let tally = Tally::of(&judged[..]);
    if tally.counted == 0 {
        let found = format!("{} of others, or that the rule leaves out", samples.len());
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
    let (measured, (categories, items)) = rayon::join(
        || measure(card, samples, &judged, Some(bootstrap)),
        || {
            let items = samples.par_iter().zip(&judged[..]).map(|(s, j)| item(s, j));
            (categories(samples, &judged, bootstrap.level), items.collect())
        },
    );
    let measured = measured?;
    let whole = match within.iter().all(|w| *w) {
        true => None,
        false => {
            let measured = measure(card, samples, &of_file, None)?;
            Some(Whole {
                n: Tally::of(&of_file).counted,
                score: measured.score,
                parts: measured.parts,
            })
        }
    };
    // What the fair rule says is worth knowing beside every official score, and the other way round.
    let other = match of_other {
        Some((other, of_file)) => {
            let judged = within_split(&of_file, &within);
            let tally = Tally::of(&judged[..]);
            // Of MMAU-Pro's kinds of items each rule reads its own.
            let there = tally.counted > 0;
            let score = || measure(card, samples, &judged, None).map(|m| m.score);
            let score = there.then(score).transpose()?.flatten();
            there.then(|| OtherRule {
                rule: other.name().to_owned(),
                difference: score.zip(measured.score).map(|(a, b)| a - b),
                score,
                unread: tally.unread_share(),
            })
        }
        _ => None,
    };
    let (also, not_also) = also(card, samples, &judged, &measured.parts);
    let parts = measured.parts.into_iter().chain(also).collect();
    let not_scored = mmau_pro::not_scored(card, rule, samples);
    let mut states = IndexMap::new();
    for (_, j) in counted() {
        *states.entry(j.state.name()).or_insert(0) += 1;
    }
    states.sort_unstable_keys();
    Ok(Scored {
        benchmark: card.name.clone(),
        name: named(card, tally.counted),
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
        data,
        n: tally.counted,
        score: measured.score,
        interval: measured.interval,
        parts,
        bootstrap,
        states: states
            .into_iter()
            .map(|(state, n)| (state.to_owned(), n))
            .collect(),
        unread: tally.unread_share(),
        left_out: tally.left_out,
        intervals: IndexMap::new(),
        not_scored: not_scored.into_iter().chain(not_also).collect(),
        frame: None,
        corrected: None,
        judge: None,
        af2: Some(VERSION.to_owned()),
        whole,
        categories: categories?,
        items,
    })
}

/// What the card reports beside its metric, and why some of it is not here.
fn also(
    card: &Card,
    samples: &[Sample],
    judged: &[Judged],
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
        match measure(&of, samples, judged, None) {
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

/// The card's name, and of how many of its items where they are not all.
fn named(card: &Card, n: usize) -> String {
    match card.items() {
        Some(all) if all != n as u64 => format!("{} ({n} of {all} items)", card.name),
        _ => card.name.clone(),
    }
}

/// Which af2 this is.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether the item is one of the card's scored split; what the file does not say of an item speaks for it.
fn in_split(card: &Card, sample: &Sample) -> bool {
    let Some(split) = card.scored_split() else {
        return true;
    };
    split.filter.iter().all(|(key, wanted)| {
        let own = sample.groups.iter().find(|(k, _)| k == key);
        own.is_none_or(|(_, values)| values.iter().any(|v| wanted.iter().any(|w| w == v)))
    })
}

fn verdicts(card: &Card, rule: RuleName, samples: &[Sample]) -> Vec<Judged> {
    let judge = |sample: &Sample| {
        let official = sample.record.as_ref().and_then(|r| rule.record_as_read(r));
        official.unwrap_or_else(|| rule.judge(&sample.item()))
    };
    mmau_pro::apart(card, rule, samples, samples.par_iter().map(judge).collect())
}

/// The same, items of other splits not counted.
fn within_split<'a>(judged: &'a [Judged], within: &[bool]) -> Cow<'a, [Judged]> {
    if within.iter().all(|w| *w) {
        return Cow::Borrowed(judged);
    }
    let all = judged.iter().zip(within).map(|(judged, within)| Judged {
        counted: judged.counted && *within,
        ..judged.clone()
    });
    all.collect()
}

struct Measured {
    score: Option<f64>,
    interval: Option<Interval>,
    parts: IndexMap<String, f64>,
}

/// What is drawn together: an item's clip, or the item alone where no clip is known.
#[derive(PartialEq, Eq, Hash)]
enum Cluster<'a> {
    Clip(&'a str),
    Item(usize),
}

/// The metric, with an interval where one is wanted.
fn measure(
    card: &Card,
    samples: &[Sample],
    judged: &[Judged],
    bootstrap: Option<Bootstrap>,
) -> Result<Measured> {
    let counted: Vec<(usize, &Sample, &Judged)> = samples
        .iter()
        .zip(judged)
        .enumerate()
        .filter(|(_, (_, j))| j.counted)
        .map(|(i, (s, j))| (i, s, j))
        .collect();
    let right = |j: &Judged| f64::from(u8::from(j.correct));
    fn cluster<'a>(i: usize, s: &'a Sample) -> Cluster<'a> {
        s.clip.as_deref().map_or(Cluster::Item(i), Cluster::Clip)
    }
    let mut parts = IndexMap::new();
    let accuracy = || -> Result<Measured> {
        let interval = |bootstrap: Bootstrap| {
            let clusters = Clusters::of(counted.iter().map(|(i, s, j)| (cluster(*i, s), right(j))))?;
            bootstrap.clustered_mean(&clusters)
        };
        Ok(Measured {
            score: Tally::of(judged).score(),
            interval: bootstrap.map(interval).transpose()?,
            parts: IndexMap::new(),
        })
    };
    match card.metric {
        Metric::Accuracy if card.aggregation == Aggregation::Micro => accuracy(),
        Metric::Accuracy => {
            let over = card.over.as_deref().unwrap_or_default();
            let mut of: IndexMap<&str, (f64, f64)> = IndexMap::new();
            for (_, s, j) in &counted {
                let values = s.groups.iter().find(|(k, _)| *k == over);
                for value in values.map_or(&[][..], |(_, v)| v) {
                    let sums = of.entry(value).or_default();
                    *sums = (sums.0 + right(j), sums.1 + 1.0);
                }
            }
            if of.is_empty() {
                let expected = format!("items with `{over}`, over whose values the mean goes");
                return Err(Error::data(&card.name, "over", expected, "none"));
            }
            parts.extend(of.iter().map(|(k, (r, n))| ((*k).to_owned(), r / n)));
            let score = parts.values().sum::<f64>() / parts.len() as f64;
            Ok(Measured {
                score: Some(score),
                interval: None,
                parts,
            })
        }
        Metric::PaHrMean => {
            let (mut pa, mut hr) = ((0, 0), (0, 0));
            let mut sums: IndexMap<Cluster, [f64; 4]> = IndexMap::new();
            for (i, s, j) in &counted {
                let mut shares = cmm::shares(&s.answer, s.prediction.as_deref().unwrap_or_default());
                if !j.by.starts_with("cmm") {
                    // Another rule has its own hits.
                    shares.pa_hit = shares.counts_in_pa && j.correct;
                    shares.hr_hit = shares.counts_in_hr && j.correct;
                }
                pa = (
                    pa.0 + usize::from(shares.pa_hit),
                    pa.1 + usize::from(shares.counts_in_pa),
                );
                hr = (
                    hr.0 + usize::from(shares.hr_hit),
                    hr.1 + usize::from(shares.counts_in_hr),
                );
                let own = sums.entry(cluster(*i, s)).or_default();
                let flags = [
                    shares.pa_hit,
                    shares.counts_in_pa,
                    shares.hr_hit,
                    shares.counts_in_hr,
                ];
                own.iter_mut()
                    .zip(flags)
                    .for_each(|(sum, flag)| *sum += f64::from(u8::from(flag)));
            }
            let share = |(hits, all): (usize, usize)| (all > 0).then(|| hits as f64 / all as f64);
            let (pa, hr) = (share(pa), share(hr));
            if let Some(accuracy) = Tally::of(judged).score() {
                parts.insert("accuracy".to_owned(), accuracy);
            }
            parts.extend(pa.map(|v| ("pa".to_owned(), v)));
            parts.extend(hr.map(|v| ("hr".to_owned(), v)));
            let clusters = Clusters::of_sums(4, sums.into_values().flatten().collect())?;
            // A resample without one kind of items is the other kind's share alone.
            let mean = |s: &[f64]| match (s[1] > 0.0, s[3] > 0.0) {
                (true, true) => (s[0] / s[1] + s[2] / s[3]) / 2.0,
                (true, false) => s[0] / s[1],
                _ => s[2] / s[3],
            };
            Ok(Measured {
                score: pa.zip(hr).map(|(a, b)| (a + b) / 2.0),
                interval: pa
                    .and(hr)
                    .and(bootstrap)
                    .map(|bootstrap| bootstrap.of_sums(&clusters, mean))
                    .transpose()?,
                parts,
            })
        }
        Metric::BalancedAccuracy | Metric::MacroF1 | Metric::MicroF1 | Metric::WeightedF1 => {
            let mut labels: Vec<String> = card
                .labels
                .as_ref()
                .and_then(|l| l.of.clone())
                .unwrap_or_default();
            if labels.is_empty() {
                labels = counted.iter().map(|(_, s, _)| s.answer.to_string()).collect();
                labels.sort();
                labels.dedup();
            }
            let pairs = counted.iter().map(|(_, s, j)| {
                let said = if j.correct {
                    Some(&*s.answer)
                } else {
                    j.answer.as_deref()
                };
                (&*s.answer, said)
            });
            let confusion = Confusion::of(&labels, pairs)?;
            let average = |of| confusion.average(of).map(|s| s.f1);
            let score = match card.metric {
                Metric::BalancedAccuracy => confusion.balanced_accuracy(),
                Metric::MacroF1 => average(Average::Macro),
                Metric::MicroF1 => average(Average::Micro),
                _ => average(Average::Weighted),
            };
            parts.extend(confusion.accuracy().map(|a| ("accuracy".to_owned(), a)));
            Ok(Measured {
                score,
                interval: None,
                parts,
            })
        }
        metric => Err(no_text(card, &format!("the metric {metric}"))),
    }
}

fn categories(
    samples: &[Sample],
    judged: &[Judged],
    level: f64,
) -> Result<IndexMap<String, IndexMap<String, Group>>> {
    let counted = |samples: &[Sample], judged: &[Judged]| {
        let mut all: IndexMap<String, IndexMap<String, Group>> = IndexMap::new();
        for (s, j) in samples.iter().zip(judged).filter(|(_, j)| j.counted) {
            for (key, values) in &s.groups {
                for value in values {
                    add(&mut all, key, value, 1, usize::from(j.correct));
                }
            }
        }
        all
    };
    // Parts at once, put together in their order: each value stands where it comes first.
    let parts = samples.par_chunks(1 << 14).zip(judged.par_chunks(1 << 14));
    let parts: Vec<_> = parts.map(|(s, j)| counted(s, j)).collect();
    let mut all: IndexMap<String, IndexMap<String, Group>> = IndexMap::new();
    for (key, of) in parts.into_iter().flatten() {
        for (value, group) in of {
            add(&mut all, &key, &value, group.n, group.correct);
        }
    }
    for group in all.values_mut().flat_map(IndexMap::values_mut) {
        group.score = Some(group.correct as f64 / group.n as f64);
        let interval = proportion::interval(Method::Wilson, group.correct as u64, group.n as u64, level);
        group.interval = Some(interval?);
    }
    Ok(all)
}

fn add(
    all: &mut IndexMap<String, IndexMap<String, Group>>,
    key: &str,
    value: &str,
    n: usize,
    correct: usize,
) {
    if !all.contains_key(key) {
        all.insert(key.to_owned(), IndexMap::new());
    }
    let Some(of) = all.get_mut(key) else { return };
    match of.get_mut(value) {
        Some(group) => {
            group.n += n;
            group.correct += correct;
        }
        None => {
            let (score, interval) = (None, None);
            let group = Group {
                n,
                correct,
                score,
                interval,
            };
            of.insert(value.to_owned(), group);
        }
    }
}

fn data(card: &Card, samples: &[Sample], items: Option<(String, String)>) -> Data {
    let expected = card.items();
    if let Some((sha256, name)) = items {
        let known = card.files.iter().any(|f| f.sha256.as_deref() == Some(&sha256));
        return Data {
            sha256,
            known,
            of: name,
            expected,
        };
    }
    // Predictions stand in the same file as the items, which have no hash of their own.
    let (mut hasher, mut item) = (Sha256::new(), Vec::new());
    for s in samples {
        item.clear();
        match &s.record {
            Some(record) => record.write_of(|key| !SAID.contains(&key), &mut item),
            None => {
                let own = serde_json::json!([s.id, s.clip, s.question, s.choices, s.answer]);
                item.extend(own.to_string().bytes());
            }
        }
        item.push(b'\n');
        hasher.update(&item);
    }
    Data {
        sha256: hex(&hasher.finalize()),
        known: false,
        of: "the items within the predictions, without the keys that models write".to_owned(),
        expected,
    }
}

/// Keys of official records that are not the item's: what a model has written, and what af2 says of that in exported ones.
const SAID: [&str; 7] = [
    "model_output",
    "model_prediction",
    "answer_prediction",
    "thinking_prediction",
    "pred",
    "response",
    beside::KEY,
];

/// A record's own keys, and those that are not the item's.
pub(crate) fn parted(record: &Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    let all = record.iter().map(|(k, v)| (k.clone(), v.clone()));
    all.partition(|(k, _)| !SAID.contains(&k.as_str()))
}

fn item(sample: &Sample, judged: &Judged) -> ScoredItem {
    let text = sample.prediction.as_deref().unwrap_or_default();
    let characters = |bytes: usize| text.get(..bytes).map(|t| t.chars().count());
    let span = judged.span.as_ref().and_then(|s| {
        let start = characters(s.start)?;
        Some([start, start + text.get(s.clone())?.chars().count()])
    });
    ScoredItem {
        id: sample.id.to_string(),
        state: judged.state.name().to_owned(),
        answer: judged.answer.clone(),
        span,
        correct: judged.correct,
        counted: judged.counted,
        by: judged.by.to_owned(),
        reason: judged.reason.clone(),
        clip: sample.clip.as_ref().map(|clip| clip.to_string()),
        scores: IndexMap::new(),
    }
}
