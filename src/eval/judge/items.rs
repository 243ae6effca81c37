//! What is judged: answers with all that is known of their items.

use crate::benchmark::names::Format;
use crate::benchmark::{Card, Only, Protocol};
use crate::error::{Error, Result};
use crate::eval::rules::{RuleName, State};
use crate::eval::scoring::{self, Sample};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

/// An answer to be marked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JudgeItem {
    /// As its file has it.
    pub id: String,
    /// What it is about: items of one clip are drawn together for an interval.
    pub clip: Option<String>,
    /// As it was asked.
    pub question: String,
    /// The right answer; several stand below each other.
    pub reference: String,
    /// What the model wrote.
    pub prediction: String,
    /// In the order in which they were shown.
    pub options: Vec<String>,
    /// All that its record holds.
    pub record: Map<String, Value>,
    /// Whether it is right by the protocol's gate; none where there is no gate.
    pub right: Option<bool>,
}

/// A file of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JudgeItems {
    /// In the file's order.
    pub all: Vec<JudgeItem>,
    /// Who has written the predictions, in words.
    pub form: String,
    /// Items without a prediction, which are in no score.
    pub left_out: usize,
    /// Items that this protocol does not judge.
    pub others: usize,
    /// Records in which half of a surrogate pair was replaced.
    pub mended: usize,
    /// Answers to silence in the sound's place, which were left out.
    pub silent: usize,
}

impl JudgeItem {
    /// A text of the record, or a list as lines.
    pub(super) fn text(&self, keys: &[&str]) -> Option<String> {
        let line = |v: &Value| match v {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        keys.iter().find_map(|key| match self.record.get(*key)? {
            Value::Null => None,
            Value::Array(all) => Some(all.iter().map(line).collect::<Vec<_>>().join("\n")),
            other => Some(line(other)),
        })
    }

    /// The values by which a card counts.
    pub(super) fn groups(&self, card: &Card) -> Vec<(String, Vec<String>)> {
        let of = |key: &str| match self.record.get(key) {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(one)) => vec![one.clone()],
            _ => Vec::new(),
        };
        let keys = card
            .categories
            .iter()
            .map(|c| c.by.as_str())
            .filter(|k| *k != "choices");
        keys.map(|key| (key.to_owned(), of(key)))
            .filter(|(_, of)| !of.is_empty())
            .collect()
    }
}

/// Reads predictions, with the items where they stand in a file of their own.
///
/// # Errors
/// What [`scoring::pairs`] and [`scoring::samples`] refuse; a gate that is no rule; no item for this protocol; an id that stands twice.
pub fn items(protocol: &Protocol, card: &Card, path: &Path, of: Option<&Path>) -> Result<JudgeItems> {
    // Formats whose files of predictions carry options and all else beside.
    let official = matches!(card.official_format, Format::MmarJsonl | Format::MmauProParquet);
    let read = match official {
        true => samples(protocol, card, path, of)?,
        false => pairs(card, path, of)?,
    };
    if read.all.is_empty() {
        let found = format!(
            "{} without a prediction and {} that it does not judge",
            read.left_out, read.others
        );
        return Err(Error::data(
            path,
            &protocol.name,
            "at least one answer for this judge",
            found,
        ));
    }
    let mut seen = HashMap::new();
    for (i, item) in read.all.iter().enumerate() {
        if let Some(first) = seen.insert(item.id.as_str(), i) {
            let found = format!(
                "{:?} as item {} and item {}",
                crate::error::short(&item.id),
                first + 1,
                i + 1
            );
            return Err(Error::data(path, "ids", "each once", found));
        }
    }
    Ok(read)
}

fn pairs(card: &Card, path: &Path, of: Option<&Path>) -> Result<JudgeItems> {
    let pairs = scoring::pairs_with_records(path, of, card)?;
    let mut read = JudgeItems {
        form: pairs.form.to_owned(),
        mended: pairs.mended,
        silent: pairs.silent,
        ..JudgeItems::default()
    };
    for pair in pairs.all {
        let Some(prediction) = pair.prediction else {
            read.left_out += 1;
            continue;
        };
        read.all.push(JudgeItem {
            id: pair.id,
            clip: pair.clip,
            question: pair.question,
            reference: pair.references.join("\n"),
            prediction,
            options: Vec::new(),
            record: pair.record,
            right: None,
        });
    }
    Ok(read)
}

fn samples(protocol: &Protocol, card: &Card, path: &Path, of: Option<&Path>) -> Result<JudgeItems> {
    let gate = match &protocol.gate {
        Some(name) => Some(
            name.parse::<RuleName>()
                .map_err(|e| Error::data(&protocol.name, "gate", "a rule", e))?,
        ),
        None => None,
    };
    let file = scoring::open(path)?;
    let mut records = file.records()?;
    let silent = records.without_control();
    let mended = records.mended;
    // What the predictions say beside the answer, such as thoughts, is not taken over with it.
    let beside = match of {
        Some(_) => by_id(&records),
        None => HashMap::new(),
    };
    let held = of.map(scoring::open).transpose()?;
    let held = match (of, &held) {
        (Some(of), Some(held)) => Some((of, held.records()?)),
        _ => None,
    };
    let scoring::Samples {
        form, all: samples, ..
    } = scoring::samples(path, records, held, card)?;
    let mut read = JudgeItems {
        form: form.name().to_owned(),
        mended,
        silent,
        ..JudgeItems::default()
    };
    for sample in &samples {
        if protocol.only == Some(Only::Open) && !scoring::is_open(sample) {
            read.others += 1;
            continue;
        }
        let Some(prediction) = &sample.prediction else {
            read.left_out += 1;
            continue;
        };
        let mut record = record(sample);
        for (key, value) in beside.get(sample.id.as_ref()).into_iter().flatten() {
            record.entry(key.clone()).or_insert_with(|| value.clone());
        }
        read.all.push(JudgeItem {
            id: sample.id.to_string(),
            clip: sample.clip.as_deref().map(str::to_owned),
            question: sample.question.to_string(),
            reference: sample.answer.to_string(),
            prediction: prediction.to_string(),
            options: sample.choices.clone(),
            record,
            right: gate.map(|rule| right(rule, path, sample)).transpose()?,
        });
    }
    Ok(read)
}

fn by_id(records: &scoring::Records) -> HashMap<String, Map<String, Value>> {
    let each =
        records.all.iter().filter_map(
            |(_, record)| match (record.get("id")?.text(), record.to_value()) {
                (Some(id), Value::Object(all)) => Some((id.into_owned(), all)),
                _ => None,
            },
        );
    each.collect()
}

fn record(sample: &Sample) -> Map<String, Value> {
    match sample.record.as_ref().map(|r| r.to_value()) {
        Some(Value::Object(record)) => record,
        _ => Map::new(),
    }
}

/// By the gate's rule.
///
/// # Errors
/// An item on which the official script ends: it has said neither right nor wrong.
fn right(rule: RuleName, path: &Path, sample: &Sample) -> Result<bool> {
    let official = sample.record.as_ref().and_then(|r| rule.record_as_read(r));
    let judged = official.unwrap_or_else(|| rule.judge(&sample.item()));
    match judged.state {
        State::Error => {
            let expected = format!("an item that the rule {} can read", rule.name());
            let found = judged.reason.unwrap_or_default();
            let place = format!("item {}", crate::error::short(&sample.id));
            Err(Error::data(path, place, expected, found))
        }
        _ => Ok(judged.correct),
    }
}
