//! From records to samples: an item with its prediction, whichever tool has written it.

use super::beside::Beside;
use super::files::{Place, Records};
use super::joined::{joined, Files};
use super::sample::{keys, official, short, texts, Form, Sample};
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::eval::json::{Json, Text};
use rayon::prelude::*;
use serde_json::Value;
use std::borrow::Cow;
use std::path::Path;

/// What a file of predictions holds.
pub struct Samples<'a> {
    /// Who has written it.
    pub form: Form,
    /// In the order of the file that has the items.
    pub all: Vec<Sample<'a>>,
    /// So many were answers of `af2 eval` to silence in the sound's place, and are left out.
    pub silent: usize,
    /// So many were its answers to other manifests than that of the items.
    pub elsewhere: usize,
}

/// Reads the samples of a file of predictions.
///
/// # Errors
/// A record that is no object or lacks its item; predictions without items, where none are given; those that [`joined`] refuses.
pub fn samples<'a>(
    path: &Path,
    mut records: Records<'a>,
    items: Option<(&Path, Records<'a>)>,
    card: &Card,
) -> Result<Samples<'a>> {
    let silent = records.without_control();
    let of = |form, all, elsewhere| Samples {
        form,
        all,
        silent,
        elsewhere,
    };
    let Some((place, first)) = records.all.first() else {
        return Err(Error::data(path, "file", "at least one prediction", "none"));
    };
    let no_object = |path: &Path, place: &Place, record: &Json| {
        Error::data(path, place.to_string(), "a JSON object", short(record))
    };
    if !first.is_object() {
        return Err(no_object(path, place, first));
    }
    let form = Form::of(first, card);
    if let Some((items_path, items)) = items {
        let files = Files {
            predictions: path,
            items: items_path,
        };
        let (all, elsewhere) = joined(&files, records, form, items, card)?;
        return Ok(of(form, all, elsewhere));
    }
    if let Some((place, record)) = records.all.iter().find(|(_, r)| !r.is_object()) {
        return Err(no_object(path, place, record));
    }
    let read = |(place, record): &(Place, Json<'a>)| match form {
        Form::Ours => ours(path, place, record),
        Form::LmEval => lm_eval(path, place, record, card),
        Form::Inspect => inspect(path, place, record, card),
        Form::Official(_) | Form::Bare => Err(no_items(path, place, record, card)),
    };
    if let Form::Official(format) = form {
        let all = records.all.into_par_iter().enumerate();
        let all =
            all.map(|(i, (_, record))| official(format, Some(i), record, Vec::new()).unwrap_or_default());
        return Ok(of(form, all.collect(), 0));
    }
    let all: Result<_> = records.all.par_iter().map(read).collect();
    // Of several errors the first in the file.
    let all = all.map_err(|any| records.all.iter().find_map(|r| read(r).err()).unwrap_or(any));
    Ok(of(form, all?, 0))
}

fn no_items(path: &Path, place: &Place, record: &Json, card: &Card) -> Error {
    let keys: Vec<&str> = match record {
        Json::Object(all) => all.iter().take(8).map(|(key, _)| &**key).collect(),
        _ => Vec::new(),
    };
    let e = Error::data(
        path,
        place.to_string(),
        format!("an item with its prediction, as {} has it", card.official_format),
        format!("the keys {}", keys.join(", ")),
    );
    e.hint("--items OFFICIAL_FILE takes the items from there, by their ids")
}

fn ours<'a>(path: &Path, place: &Place, record: &Json<'a>) -> Result<Sample<'a>> {
    let prediction: crate::run::predictions::Prediction = serde_json::from_value(record.to_value())
        .map_err(|e| Error::data(path, place.to_string(), "a prediction of af2", e.to_string()))?;
    Ok(Sample {
        id: prediction.id.into(),
        clip: Some(prediction.path.into()),
        question: prediction.prompt.into(),
        choices: prediction.labels,
        answer: prediction.reference.into(),
        prediction: Some(prediction.prediction.into()),
        groups: vec![("task", prediction.task.into())],
        ..Sample::default()
    })
}

/// lm-evaluation-harness: the item is `doc`, as its task has loaded it.
fn lm_eval<'a>(path: &Path, place: &Place, record: &Json<'a>, card: &Card) -> Result<Sample<'a>> {
    let response = ["filtered_resps", "resps"]
        .iter()
        .find_map(|k| innermost(record.get(k)?));
    let id = record.at("doc_id").text();
    let id = id.unwrap_or_else(|| Cow::Owned(place.to_string()));
    let doc = record.at("doc");
    let beside = Beside::of(doc);
    if let Some(sample) = of_record(doc, beside.as_ref(), response.clone(), card, &id) {
        return Ok(sample);
    }
    let Some(answer) = record.at("target").text() else {
        let (expected, found) = ("a target that is a text", short(record.at("target")));
        return Err(Error::data(path, place.to_string(), expected, found));
    };
    let sample = Sample {
        id,
        question: doc.at("question").text().unwrap_or_default(),
        choices: texts(doc.at("choices")),
        answer,
        prediction: response,
        ..Sample::default()
    };
    Ok(restored(sample, beside))
}

/// A sample with what no field of another tool's file says.
fn restored(sample: Sample, beside: Option<Beside>) -> Sample {
    let Some(own) = beside else { return sample };
    Sample {
        id: own.id().map_or(sample.id, Cow::Owned),
        clip: own.clip().map(Cow::Owned).or(sample.clip),
        right: own.right().filter(|at| *at < sample.choices.len()),
        truncated: own.truncated().unwrap_or(sample.truncated),
        groups: match own.tasks() {
            Some(tasks) => tasks.into_iter().map(|t| ("task", Cow::Owned(t))).collect(),
            None => sample.groups,
        },
        ..sample
    }
}

/// An official record that another tool carries, with the model's answer in its place; none where it is no such record.
fn of_record<'a>(
    record: &Json<'a>,
    beside: Option<&Beside>,
    response: Option<Text<'a>>,
    card: &Card,
    id: &Text<'a>,
) -> Option<Sample<'a>> {
    let keys = keys(card.official_format).filter(|k| record.get(k.answer).is_some())?;
    let named = keys.ids.iter().any(|k| record.at(k).text().is_some());
    let mut record = record.clone();
    if let Some(response) = response {
        let response = Json::Text(response);
        let said = beside.and_then(Beside::said);
        // Under the keys that it was read from, where they are known.
        let known = said.is_some_and(|said| said.values().any(Value::is_null));
        if let Some(key) = keys.predictions.first().filter(|_| !known) {
            record.set(key, response.clone());
        }
        for (key, value) in said.into_iter().flatten() {
            let value = match value.is_null() {
                true => response.clone(),
                false => Json::from(value),
            };
            record.set(key, value);
        }
    }
    let sample = official(card.official_format, Some(0), record, Vec::new())?;
    Some(match named {
        true => sample,
        false => Sample {
            id: id.clone(),
            ..sample
        },
    })
}

/// inspect: letters stand for choices in its targets.
fn inspect<'a>(path: &Path, place: &Place, record: &Json<'a>, card: &Card) -> Result<Sample<'a>> {
    let choices = texts(record.at("choices"));
    let Some(target) = innermost(record.at("target")) else {
        let (expected, found) = ("a target that is a text", short(record.at("target")));
        return Err(Error::data(path, place.to_string(), expected, found));
    };
    let letter = match target.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        _ => None,
    };
    let metadata = record.at("metadata");
    let beside = Beside::of(metadata);
    let right = beside.as_ref().map_or(letter, Beside::right);
    let right = right.filter(|at| *at < choices.len());
    let output = record.at("output");
    let first = output.at("choices").as_list().and_then(<[_]>::first);
    let first = first.unwrap_or(&Json::Null);
    let completion = output.at("completion").text();
    let completion = completion.or_else(|| first.at("message").at("content").text());
    let id = record.at("id").text();
    let id = id.unwrap_or_else(|| Cow::Owned(place.to_string()));
    // What an exported log carries; another one's may be called so and be something else.
    let official = metadata.get("item").filter(|_| beside.is_some());
    if let Some(official) = official {
        if let Some(sample) = of_record(official, beside.as_ref(), completion.clone(), card, &id) {
            return Ok(sample);
        }
    }
    let question = match record.at("input") {
        Json::List(messages) => {
            let asked = messages.iter().rfind(|m| m.at("role").as_str() == Some("user"));
            asked.map(|m| match m.at("content") {
                Json::List(parts) => {
                    let parts: Vec<Text> = parts.iter().filter_map(|p| p.at("text").text()).collect();
                    Cow::Owned(parts.join("\n"))
                }
                other => other.text().unwrap_or_default(),
            })
        }
        other => other.text(),
    };
    let sample = Sample {
        id,
        question: question.unwrap_or_default(),
        answer: right.map_or(target, |at| Cow::Owned(choices[at].clone())),
        right,
        choices,
        truncated: first.at("stop_reason").as_str() == Some("max_tokens"),
        prediction: completion,
        ..Sample::default()
    };
    Ok(restored(sample, beside))
}

/// The first text within lists in lists.
fn innermost<'a>(value: &Json<'a>) -> Option<Text<'a>> {
    match value {
        Json::List(all) => innermost(all.first()?),
        other => other.text(),
    }
}
