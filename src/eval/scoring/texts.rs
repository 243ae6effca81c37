//! Metrics of texts beside references: captions by pycocoevalcap's, open answers by MU-LLaMA's script.

use super::{named, Pair, Source, VERSION};
use crate::benchmark::names::{Metric, Rule};
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::eval::captions::{others, BertScore};
use crate::eval::rules::musicqa::{self, Matching};
use crate::fsutil::hex;
use crate::metrics::bert_score::Score;
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::captions::{score, Item};
use crate::metrics::mean;
use crate::metrics::statistics::clusters::Clusters;
use crate::run::scored::{CardFacts, Data, Scored, ScoredItem};
use indexmap::IndexMap;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Metrics of captions, by pycocoevalcap's code or the official programs.
pub(super) fn gives(metric: Metric) -> bool {
    use Metric::{Bleu1, Bleu2, Bleu3, Bleu4, Cider, Meteor, RougeL, Spice, Spider};
    matches!(
        metric,
        Cider | Bleu1 | Bleu2 | Bleu3 | Bleu4 | RougeL | Meteor | Spice | Spider
    )
}

pub(super) fn is_musicqa(card: &Card) -> bool {
    card.rules.as_ref().is_some_and(|r| r.official == Rule::MusicQa)
}

/// A metric of the whole, of each pair, and its interval.
struct Column {
    name: &'static str,
    value: Option<f64>,
    items: Vec<Option<f64>>,
    interval: Option<Interval>,
}

/// Scores texts by the metrics of a card.
///
/// # Errors
/// No prediction; an official program that is there and fails.
pub fn texts(
    card: &Card,
    pairs: &[Pair],
    bert: Option<&BertScore>,
    source: Source,
    bootstrap: Bootstrap,
) -> Result<Scored> {
    let there: Vec<&Pair> = pairs.iter().filter(|p| p.prediction.is_some()).collect();
    if there.is_empty() {
        return Err(Error::data(
            &card.name,
            &card.scored,
            "at least one prediction",
            "none",
        ));
    }
    let mut not_scored = IndexMap::new();
    let (mut columns, rule) = match is_musicqa(card) {
        true => (musicqa_columns(&there, bootstrap, &mut not_scored)?, "musicqa"),
        false => (
            caption_columns(&there, bootstrap, &mut not_scored)?,
            "pycocoevalcap",
        ),
    };
    if let Some(bert) = bert {
        columns.extend(bert_columns(card, &there, bert, bootstrap)?);
    }
    // What the card asks for and nobody here gives.
    for metric in std::iter::once(card.metric).chain(card.also.iter().copied()) {
        let name = metric.name();
        if !columns.iter().any(|c| c.name == name) && !not_scored.contains_key(name) {
            let why = match metric {
                Metric::BertScore => {
                    "it wants an encoder: --bertscore FOLDER (the scripts take roberta-large)"
                }
                Metric::ClapScore => {
                    "it wants clips and AF-CLAP: `af2 score captions --clap CHECKPOINT` compares them with captions"
                }
                _ => "it is no metric of texts",
            };
            not_scored.insert(name.to_owned(), why.to_owned());
        }
    }
    let own = columns.iter().find(|c| c.name == card.metric.name());
    let mut states: IndexMap<String, usize> = IndexMap::new();
    let mut at = 0;
    let items = pairs.iter().map(|pair| {
        let blank = pair.prediction.as_ref().is_none_or(|p| p.trim().is_empty());
        let state = if blank { "empty" } else { "answered" };
        let counted = pair.prediction.is_some();
        let mut scores = IndexMap::new();
        if counted {
            *states.entry(state.to_owned()).or_insert(0) += 1;
            scores.extend(columns.iter().map(|c| (c.name.to_owned(), c.items[at])));
            at += 1;
        }
        ScoredItem {
            id: pair.id.clone(),
            state: state.into(),
            answer: None,
            span: None,
            correct: false,
            counted,
            by: rule.into(),
            reason: (!counted).then(|| "the file has no prediction for it".to_owned()),
            clip: pair.clip.clone(),
            nearest: None,
            scores,
        }
    });
    let items: Vec<ScoredItem> = items.collect();
    states.sort_unstable_keys();
    let empty = states.get("empty").copied().unwrap_or(0);
    Ok(Scored {
        benchmark: card.name.clone(),
        name: named(card, there.len()),
        card: CardFacts {
            version: card.version,
            sha256: source.card_sha256.clone(),
        },
        model: source.model.clone(),
        rule: rule.to_owned(),
        kind: "official".to_owned(),
        other: None,
        metric: card.metric.name().to_owned(),
        predictions: source.predictions.clone(),
        bert_score: source.bert_score.clone(),
        data: data(card, pairs, source),
        n: there.len(),
        score: own.and_then(|c| c.value),
        interval: own.and_then(|c| c.interval),
        parts: columns
            .iter()
            .filter_map(|c| Some((c.name.to_owned(), c.value?)))
            .collect(),
        intervals: columns
            .iter()
            .filter_map(|c| Some((c.name.to_owned(), c.interval?)))
            .collect(),
        not_scored,
        space: None,
        frame: None,
        condition: None,
        listening: None,
        corrected: None,
        judge: None,
        af2: Some(VERSION.to_owned()),
        bootstrap,
        states,
        unread: Some(empty as f64 / there.len() as f64),
        left_out: pairs.len() - there.len(),
        whole: None,
        categories: IndexMap::new(),
        items,
    })
}

/// The mean over pairs, with the interval over clips; none where a pair has none.
fn column(
    name: &'static str,
    there: &[&Pair],
    items: Vec<Option<f64>>,
    bootstrap: Bootstrap,
) -> Result<Column> {
    let all: Option<Vec<f64>> = items.iter().copied().collect();
    let interval = match &all {
        Some(values) => {
            let clips = there.iter().enumerate().map(|(i, pair)| match &pair.clip {
                Some(clip) => (clip.as_str(), usize::MAX),
                None => ("", i),
            });
            let clusters = Clusters::of(clips.zip(values.iter().copied()))?;
            Some(bootstrap.clustered_mean(&clusters)?)
        }
        None => None,
    };
    Ok(Column {
        name,
        value: all.and_then(|values| mean(&values)),
        items,
        interval,
    })
}

/// BERTScore: of MU-LLaMA's script the recall, as it takes; elsewhere F1.
fn bert_columns(card: &Card, there: &[&Pair], bert: &BertScore, bootstrap: Bootstrap) -> Result<Vec<Column>> {
    let scored = bert.of(&items(there))?.items;
    let of = |value: fn(&Score) -> Option<f64>| -> Vec<Option<f64>> { scored.iter().map(value).collect() };
    let own: fn(&Score) -> Option<f64> = match is_musicqa(card) {
        true => |s| s.recall,
        false => |s| s.f1,
    };
    let columns = [
        ("bert_score", of(own)),
        ("bert_score_precision", of(|s| s.precision)),
        ("bert_score_recall", of(|s| s.recall)),
        ("bert_score_f1", of(|s| s.f1)),
    ];
    let columns = columns.into_iter();
    columns
        .map(|(name, items)| column(name, there, items, bootstrap))
        .collect()
}

fn items<'a>(there: &[&'a Pair]) -> Vec<Item<'a>> {
    let item = |pair: &&'a Pair| Item {
        prediction: pair.prediction.as_deref().unwrap_or_default(),
        references: pair.references.iter().map(String::as_str).collect(),
    };
    there.iter().map(item).collect()
}

fn caption_columns(
    there: &[&Pair],
    bootstrap: Bootstrap,
    not_scored: &mut IndexMap<String, String>,
) -> Result<Vec<Column>> {
    let items = items(there);
    let scored = score(&items)?;
    let of_each = |f: &dyn Fn(&crate::metrics::captions::Scores) -> f64| -> Vec<Option<f64>> {
        scored.items.iter().map(|item| Some(f(&item.scores))).collect()
    };
    let bleu = scored.bleu_intervals(&bootstrap)?;
    let mut columns = Vec::new();
    for (n, name) in ["bleu_1", "bleu_2", "bleu_3", "bleu_4"].into_iter().enumerate() {
        columns.push(Column {
            name,
            value: Some(scored.corpus.bleu[n]),
            items: of_each(&|s| s.bleu[n]),
            interval: bleu[n],
        });
    }
    columns.push(column("rouge_l", there, of_each(&|s| s.rouge_l), bootstrap)?);
    columns.push(column("cider", there, of_each(&|s| s.cider), bootstrap)?);
    for other in others(&scored.items, scored.corpus.cider)? {
        let name = match other.name {
            "METEOR" => "meteor",
            "SPICE" => "spice",
            _ => "spider",
        };
        match other.value {
            Ok((value, items)) => {
                let mut own = column(name, there, items, bootstrap)?;
                own.value = value;
                columns.push(own);
            }
            Err(why) => {
                not_scored.insert(name.to_owned(), why);
            }
        }
    }
    Ok(columns)
}

fn musicqa_columns(
    there: &[&Pair],
    bootstrap: Bootstrap,
    not_scored: &mut IndexMap<String, String>,
) -> Result<Vec<Column>> {
    let of = |pair: &&Pair| -> [f64; 4] {
        let said = pair.prediction.as_deref().unwrap_or_default();
        let reference = pair.references.first().map_or("", String::as_str);
        [
            musicqa::bleu(reference, said, musicqa::BLEU),
            musicqa::bleu(reference, said, musicqa::BLEU4),
            musicqa::rouge_l(reference, said).recall,
            musicqa::meteor(reference, said, Matching::Stem),
        ]
    };
    let all: Vec<[f64; 4]> = there.par_iter().map(of).collect();
    let names = ["bleu", "bleu_4", "rouge_l", "meteor_without_wordnet"];
    not_scored.insert(
        "meteor".to_owned(),
        "the script matches synonyms of WordNet, which is not here; meteor_without_wordnet is at most its number".to_owned(),
    );
    let columns = names.into_iter().enumerate().map(|(n, name)| {
        let items = all.iter().map(|row| Some(row[n])).collect();
        column(name, there, items, bootstrap)
    });
    columns.collect()
}

fn data(card: &Card, pairs: &[Pair], source: Source) -> Data {
    let expected = card.items();
    if let Some((sha256, of)) = source.items {
        let known = card.files.iter().any(|f| f.sha256.as_deref() == Some(&sha256));
        return Data {
            sha256,
            known,
            of,
            expected,
        };
    }
    let mut hasher = Sha256::new();
    for pair in pairs {
        let item = serde_json::json!([pair.id, pair.clip, pair.question, pair.references]);
        hasher.update(item.to_string().as_bytes());
        hasher.update(b"\n");
    }
    Data {
        sha256: hex(&hasher.finalize()),
        known: false,
        of: "the items within the predictions, without what models write".to_owned(),
        expected,
    }
}
