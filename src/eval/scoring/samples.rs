//! From records to samples: an item with its prediction, whichever tool has written it.

use super::beside::Beside;
use super::files::{Place, Records};
use crate::benchmark::names::Format;
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::eval::json::{Json, Text};
use crate::eval::rules::retrieval::Space;
use crate::eval::rules::Item;
use rayon::prelude::*;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// An item and what a model says to it. Texts borrow from the file where nothing in them is escaped.
#[derive(Debug, Clone, Default)]
pub struct Sample<'a> {
    /// As its file has it, or its place.
    pub id: Cow<'a, str>,
    /// What it is about; items of one clip are drawn together for an interval.
    pub clip: Option<Cow<'a, str>>,
    /// As it was asked.
    pub question: Cow<'a, str>,
    /// In the order in which they were shown.
    pub choices: Vec<String>,
    /// The right answer.
    pub answer: Cow<'a, str>,
    /// Which choice that is, where the file says it by place.
    pub right: Option<usize>,
    /// What the model wrote.
    pub prediction: Option<Cow<'a, str>>,
    /// It ran into its most tokens.
    pub truncated: bool,
    /// Keys by which a benchmark counts, with the item's values.
    pub groups: Vec<(&'static str, Vec<Cow<'a, str>>)>,
    /// How near its prediction is to labels, where a rule wants to know.
    pub(super) space: Option<Arc<Space>>,
    /// The record of the official file, which official rules read.
    pub(crate) record: Option<Json<'a>>,
}

impl Sample<'_> {
    /// As a rule reads it.
    pub fn item(&self) -> Item<'_> {
        Item {
            question: &self.question,
            choices: &self.choices,
            answer: &self.answer,
            right: self.right,
            prediction: self.prediction.as_deref(),
            truncated: self.truncated,
            instruction: None,
            space: self.space.as_deref(),
        }
    }
}

/// Who has written a file of predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `predictions.jsonl` of `af2 eval`.
    Ours,
    /// Samples of lm-evaluation-harness.
    LmEval,
    /// A log of inspect.
    Inspect,
    /// The benchmark's own.
    Official(Format),
    /// `id` and `prediction` alone, for items that lie elsewhere.
    Bare,
}

impl Form {
    /// By the keys of the first record.
    fn of(record: &Json, card: &Card) -> Self {
        let has = |key: &str| record.get(key).is_some();
        let official = card.official_format;
        if has("doc") && (has("filtered_resps") || has("resps")) {
            Form::LmEval
        } else if has("output") && has("input") && has("target") {
            Form::Inspect
        } else if has("prediction") && has("reference") && has("task") {
            Form::Ours
        } else if keys(official).is_some_and(|k| has(k.answer)) {
            Form::Official(official)
        } else {
            Form::Bare
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Form::Ours => "predictions of af2",
            Form::LmEval => "samples of lm-evaluation-harness",
            Form::Inspect => "a log of inspect",
            Form::Official(format) => format.name(),
            Form::Bare => "id and prediction",
        }
    }
}

/// Where the parts of an item stand in an official file.
struct Keys {
    ids: &'static [&'static str],
    clips: &'static [&'static str],
    question: &'static str,
    choices: &'static [&'static str],
    answer: &'static str,
    /// The one that the official script reads first.
    predictions: &'static [&'static str],
    groups: &'static [&'static str],
}

/// Of the formats whose prediction files carry their items.
fn keys(format: Format) -> Option<Keys> {
    Some(match format {
        Format::MmauJson => Keys {
            ids: &["id"],
            clips: &["audio_id"],
            question: "question",
            choices: &["choices"],
            answer: "answer",
            predictions: &["model_output", "model_prediction"],
            groups: &["task", "difficulty", "sub-category", "category"],
        },
        Format::MmarJsonl => Keys {
            ids: &["id"],
            clips: &["audio_path"],
            question: "question",
            choices: &["choices"],
            answer: "answer",
            predictions: &["answer_prediction", "model_output"],
            groups: &["modality", "category", "sub-category"],
        },
        Format::MuchomusicJson | Format::MuchomusicCsv => Keys {
            ids: &["id"],
            clips: &["audio_path"],
            question: "prompt",
            choices: &["answers"],
            answer: "answer_orders",
            predictions: &["model_output"],
            groups: &["knowledge", "reasoning", "dataset", "genre"],
        },
        Format::CmmJsonl => Keys {
            ids: &["id"],
            clips: &["audio_path", "video_path"],
            question: "question",
            choices: &[],
            answer: "answer",
            predictions: &["pred"],
            groups: &["sub_category", "granularity", "category", "correlation_type"],
        },
        Format::AirBench => Keys {
            ids: &["uniq_id"],
            clips: &["path"],
            question: "question",
            choices: &["choice_a", "choice_b", "choice_c", "choice_d"],
            answer: "answer_gt",
            predictions: &["response"],
            groups: &["task_name", "dataset_name"],
        },
        Format::MmauProParquet => Keys {
            ids: &["id"],
            clips: &["audio_path"],
            question: "question",
            choices: &["choices"],
            answer: "answer",
            predictions: &["model_output"],
            groups: &["category", "sub-cat", "length_type"],
        },
        _ => return None,
    })
}

/// Samples of a file of predictions, and who has written it.
///
/// # Errors
/// A record that is no object or lacks its item; predictions without items, where none are given.
pub fn samples<'a>(
    path: &Path,
    records: Records<'a>,
    items: Option<(&Path, Records<'a>)>,
    card: &Card,
) -> Result<(Form, Vec<Sample<'a>>)> {
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
    if let Some((of, items)) = items {
        return Ok((form, joined(path, records, of, items, card)?));
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
        return Ok((
            form,
            all.map(|(i, (_, record))| official(format, i, record)).collect(),
        ));
    }
    let all: Result<_> = records.all.par_iter().map(read).collect();
    // Of several errors the first in the file.
    let all = all.map_err(|any| records.all.iter().find_map(|r| read(r).err()).unwrap_or(any));
    Ok((form, all?))
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

/// Predictions by id on the items of an official file.
fn joined<'a>(
    path: &Path,
    predictions: Records<'a>,
    of: &Path,
    items: Records<'a>,
    card: &Card,
) -> Result<Vec<Sample<'a>>> {
    let Some(keys) = keys(card.official_format) else {
        let found = card.official_format.name();
        let expected = "a format whose items can be read without an import";
        return Err(Error::data(of, "file", expected, found));
    };
    let mut said: HashMap<Text<'a>, Text<'a>> = HashMap::with_capacity(predictions.all.len());
    for (place, record) in &predictions.all {
        let id = keys.ids.iter().chain(&["id"]).find_map(|k| record.get(k)?.text());
        let Some(id) = id else {
            return Err(Error::data(path, place.to_string(), "an id", "none"));
        };
        let keys = keys.predictions.iter().chain(&["prediction", "response"]);
        let Some(prediction) = keys.clone().find_map(|k| record.get(k)) else {
            let expected = format!("one of {}", keys.copied().collect::<Vec<_>>().join(", "));
            return Err(Error::data(path, place.to_string(), expected, "none"));
        };
        let Json::Text(prediction) = prediction else {
            let expected = "a prediction that is a text";
            return Err(Error::data(path, place.to_string(), expected, short(prediction)));
        };
        if said.insert(id.clone(), prediction.clone()).is_some() {
            let found = format!("{id} again");
            return Err(Error::data(path, place.to_string(), "each id once", found));
        }
    }
    let mut all = Vec::with_capacity(items.all.len());
    for (i, (place, mut record)) in items.all.into_iter().enumerate() {
        if !record.is_object() {
            return Err(Error::data(
                of,
                place.to_string(),
                "a JSON object",
                short(&record),
            ));
        }
        let id = keys.ids.iter().find_map(|k| record.get(k)?.text());
        let id = id.unwrap_or_else(|| Cow::Owned(i.to_string()));
        if let (Some(prediction), Some(key)) = (said.remove(&id), keys.predictions.first()) {
            record.set(key, Json::Text(prediction));
        }
        all.push(official(card.official_format, i, record));
    }
    if let Some(id) = said.keys().min() {
        let found = format!("{} that are none, such as {id}", said.len());
        return Err(Error::data(
            path,
            "ids",
            format!("those of {}", of.display()),
            found,
        ));
    }
    Ok(all)
}

fn official(format: Format, i: usize, record: Json<'_>) -> Sample<'_> {
    let Some(keys) = keys(format) else {
        return Sample::default();
    };
    let strings = |key: &str| {
        let all = match record.get(key) {
            Some(Json::List(all)) => &all[..],
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        all.iter().filter_map(Json::text)
    };
    let one = |keys: &[&str]| keys.iter().find_map(|k| record.get(k)?.text());
    let choices = keys.choices.iter().flat_map(|k| strings(k));
    let mut choices: Vec<String> = choices.map(Cow::into_owned).collect();
    if format == Format::AirBench {
        // What is not there was printed so.
        choices.retain(|c| c != "None");
    }
    let right = match (format, record.get("answer_orders")) {
        (Format::MuchomusicJson | Format::MuchomusicCsv, Some(Json::List(orders))) => {
            orders.iter().position(|v| v.as_f64() == Some(0.0))
        }
        _ => None,
    };
    let answer = match right {
        Some(at) => Cow::Owned(choices.get(at).cloned().unwrap_or_default()),
        None => one(&[keys.answer]).unwrap_or_default(),
    };
    let mut groups: Vec<(&'static str, Vec<Text>)> = keys
        .groups
        .iter()
        .map(|key| (*key, strings(key).collect()))
        .collect();
    if let (Format::AirBench, Some(task), Some(set)) = (format, one(&["task_name"]), one(&["dataset_name"])) {
        // What the official script counts by.
        groups.push(("task", vec![Cow::Owned(format!("{task}_{set}"))]));
    }
    groups.retain(|(_, values)| !values.is_empty());
    Sample {
        id: one(keys.ids).unwrap_or_else(|| Cow::Owned(i.to_string())),
        clip: one(keys.clips),
        question: one(&[keys.question]).unwrap_or_default(),
        prediction: keys.predictions.iter().find_map(|k| match record.get(k)? {
            Json::Text(text) => Some(text.clone()),
            _ => None,
        }),
        truncated: false,
        groups,
        space: None,
        choices,
        answer,
        right,
        record: Some(record),
    }
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
        groups: vec![("task", vec![prediction.task.into()])],
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
            Some(tasks) => vec![("task", tasks.into_iter().map(Cow::Owned).collect())],
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
    let sample = official(card.official_format, 0, record);
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

/// Those in a list.
fn texts(value: &Json) -> Vec<String> {
    let all = value.as_list().unwrap_or_default().iter();
    all.filter_map(Json::text).map(Cow::into_owned).collect()
}

/// The first text within lists in lists.
fn innermost<'a>(value: &Json<'a>) -> Option<Text<'a>> {
    match value {
        Json::List(all) => innermost(all.first()?),
        other => other.text(),
    }
}

fn short(value: &Json) -> String {
    crate::error::short(&value.to_value())
}
