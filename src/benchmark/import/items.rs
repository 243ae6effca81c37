//! Items of the manifest.

use super::constant::{self, Closed};
use super::draft::{Draft, Drafts};
use super::report::Report;
use super::row::text;
use crate::benchmark::names::Task;
use crate::benchmark::{wording, Card};
use indexmap::IndexMap;
use serde_json::{json, Map, Value};
use std::collections::HashSet;

/// Keys that the loader reads, or that have a meaning of their own: an official field of such a name stands under `official_NAME`.
const OURS: [&str; 14] = [
    "name",
    "path",
    "prompt",
    "output",
    "duration",
    "audio_start",
    "labels",
    "chance",
    "id",
    "question",
    "choices",
    "references",
    "tags",
    "kind",
];

/// Keeps the first of the items that have one id.
pub(super) fn once_each(all: &mut Vec<Draft>, report: &mut Report) {
    let mut seen = HashSet::new();
    all.retain(|draft| {
        let id = text(&draft.id).unwrap_or_default();
        let first = seen.insert(id.clone());
        if !first {
            report.broken(
                &draft.place,
                "duplicate_id",
                "id",
                "each id once",
                format!("{id:?} again"),
            );
        }
        first
    });
}

/// Which of an item's options are right.
fn right(options: &[String], answer: &str) -> Vec<usize> {
    (0..options.len()).filter(|at| options[*at] == answer).collect()
}

/// The shared labels, for those tasks whose items are answered by one of them.
fn shared<'d>(card: &Card, drafts: &'d Drafts) -> Option<&'d [String]> {
    match card.task {
        Task::ClosedLabel | Task::YesNo => drafts.labels.as_deref(),
        _ => None,
    }
}

/// The whole question: as the file has it, else by the card's template.
fn prompt(card: &Card, draft: &Draft) -> String {
    let whole = || wording::prompt(card, card.prompt.chosen, &draft.choices, |name| draft.text(name));
    draft.prompt.clone().unwrap_or_else(whole)
}

/// All items.
pub(super) fn all(card: &Card, drafts: &Drafts) -> Vec<Map<String, Value>> {
    let shared = shared(card, drafts);
    drafts.all.iter().map(|draft| item(card, shared, draft)).collect()
}

fn item(card: &Card, shared: Option<&[String]>, draft: &Draft) -> Map<String, Value> {
    let mut item = Map::new();
    let mut put = |key: &str, value: Value| drop(item.insert(key.to_owned(), value));
    put(
        "name",
        draft.sound.names.first().cloned().unwrap_or_default().into(),
    );
    put("prompt", prompt(card, draft).into());
    let answer = draft.answer.as_deref();
    if draft.choices.is_empty() {
        let output = match card.task {
            // The text that is compared with the sound.
            Task::ZeroShot => prompt(card, draft),
            _ => answer.unwrap_or_default().to_owned(),
        };
        put("output", output.into());
        if let (Some(labels), Some(_)) = (shared, answer) {
            put("labels", json!(labels));
            if let Some(chance) = card.chance.value {
                put("chance", chance.into());
            }
        }
    } else {
        let label = |(at, choice): (usize, &String)| wording::label(card, at, choice);
        let mut labels: Vec<String> = draft.choices.iter().enumerate().map(label).collect();
        let right = answer.map(|a| right(&draft.choices, a)).unwrap_or_default();
        match (answer, right.first()) {
            (Some(_), Some(at)) => {
                put("output", labels[*at].clone().into());
                put("chance", (right.len() as f64 / labels.len() as f64).into());
                put("labels", json!(labels));
            }
            // None of the options is right: the answer stands behind them, so that the item can be scored.
            (Some(answer), None) => {
                labels.push(wording::label(card, labels.len(), answer));
                put("output", labels.last().cloned().unwrap_or_default().into());
                put("chance", 0.0.into());
                put("labels", json!(labels));
            }
            // Hidden.
            (None, _) => put("output", "".into()),
        }
    }
    put("id", draft.id.clone());
    // What the template was filled with, for other wordings.
    for (name, text) in &draft.texts {
        put(name, text.clone().into());
    }
    if !draft.choices.is_empty() {
        put("choices", json!(draft.choices));
    }
    if !draft.references.is_empty() {
        put("references", json!(draft.references));
    }
    for (key, value) in &draft.more {
        put(key, value.clone());
    }
    for (key, value) in &draft.official {
        match item.get(key) {
            Some(own) if own == value => {}
            None if !OURS.contains(&key.as_str()) => drop(item.insert(key.clone(), value.clone())),
            _ => drop(item.insert(format!("official_{key}"), value.clone())),
        }
    }
    item
}

/// What constant answers get; nothing where answers are free or hidden.
pub(super) fn constant(drafts: &Drafts) -> IndexMap<String, f64> {
    let labels = drafts.labels.as_deref().unwrap_or_default();
    let mut closed = Vec::new();
    for draft in &drafts.all {
        let Some(answer) = &draft.answer else {
            return IndexMap::new();
        };
        let options = if draft.choices.is_empty() {
            labels
        } else {
            &draft.choices
        };
        if draft.more.contains_key("tags") || options.is_empty() {
            continue;
        }
        closed.push(Closed {
            options,
            right: right(options, answer),
        });
    }
    constant::scores(&closed)
}
