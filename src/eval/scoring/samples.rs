//! From records to samples: an item with its prediction, whichever tool has written it.

use super::beside::Beside;
use super::files::Records;
use crate::benchmark::names::Format;
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::eval::rules::Item;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// An item and what a model says to it.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// As its file has it, or its place.
    pub id: String,
    /// What it is about; items of one clip are drawn together for an interval.
    pub clip: Option<String>,
    /// As it was asked.
    pub question: String,
    /// In the order in which they were shown.
    pub choices: Vec<String>,
    /// The right answer.
    pub answer: String,
    /// Which choice that is, where the file says it by place.
    pub right: Option<usize>,
    /// What the model wrote.
    pub prediction: Option<String>,
    /// It ran into its most tokens.
    pub truncated: bool,
    /// Keys by which a benchmark counts, with the item's values.
    pub groups: Vec<(&'static str, Vec<String>)>,
    /// The record of the official file, which official rules read.
    pub record: Option<Value>,
}

impl Sample {
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
    fn of(record: &Value, card: &Card) -> Self {
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
pub fn samples(
    path: &Path,
    records: Records,
    items: Option<(&Path, Records)>,
    card: &Card,
) -> Result<(Form, Vec<Sample>)> {
    let Some((place, first)) = records.all.first() else {
        return Err(Error::data(path, "file", "at least one prediction", "none"));
    };
    if !first.is_object() {
        return Err(Error::data(path, place, "a JSON object", short(first)));
    }
    let form = Form::of(first, card);
    if let Some((of, items)) = items {
        return Ok((form, joined(path, records, of, items, card)?));
    }
    let all = records.all.into_iter().enumerate();
    let all = all.map(|(i, (place, record))| {
        if !record.is_object() {
            return Err(Error::data(path, place, "a JSON object", short(&record)));
        }
        match form {
            Form::Ours => ours(path, &place, &record),
            Form::LmEval => lm_eval(path, &place, &record, card),
            Form::Inspect => inspect(path, &place, &record, card),
            Form::Official(format) => Ok(official(format, i, record)),
            Form::Bare => Err(no_items(path, &place, &record, card)),
        }
    });
    Ok((form, all.collect::<Result<_>>()?))
}

fn no_items(path: &Path, place: &str, record: &Value, card: &Card) -> Error {
    let known = record.as_object().map(|o| {
        o.keys()
            .take(8)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    });
    let e = Error::data(
        path,
        place,
        format!("an item with its prediction, as {} has it", card.official_format),
        format!("the keys {}", known.unwrap_or_default()),
    );
    e.hint("--items OFFICIAL_FILE takes the items from there, by their ids")
}

/// Predictions by id on the items of an official file.
fn joined(path: &Path, predictions: Records, of: &Path, items: Records, card: &Card) -> Result<Vec<Sample>> {
    let Some(keys) = keys(card.official_format) else {
        let found = card.official_format.name();
        let expected = "a format whose items can be read without an import";
        return Err(Error::data(of, "file", expected, found));
    };
    let mut said: HashMap<String, String> = HashMap::with_capacity(predictions.all.len());
    for (place, record) in &predictions.all {
        let id = keys.ids.iter().chain(&["id"]).find_map(|k| text(record.get(*k)?));
        let Some(id) = id else {
            return Err(Error::data(path, place, "an id", "none"));
        };
        let keys = keys.predictions.iter().chain(&["prediction", "response"]);
        let Some(prediction) = keys.clone().find_map(|k| record.get(*k)) else {
            let expected = format!("one of {}", keys.copied().collect::<Vec<_>>().join(", "));
            return Err(Error::data(path, place, expected, "none"));
        };
        let Some(prediction) = prediction.as_str() else {
            return Err(Error::data(
                path,
                place,
                "a prediction that is a text",
                short(prediction),
            ));
        };
        if said.insert(id.clone(), prediction.to_owned()).is_some() {
            return Err(Error::data(path, place, "each id once", format!("{id} again")));
        }
    }
    let mut all = Vec::with_capacity(items.all.len());
    for (i, (place, mut record)) in items.all.into_iter().enumerate() {
        let Some(object) = record.as_object_mut() else {
            return Err(Error::data(of, place, "a JSON object", short(&record)));
        };
        let id = keys
            .ids
            .iter()
            .find_map(|k| text(object.get(*k)?))
            .unwrap_or_else(|| i.to_string());
        if let (Some(prediction), Some(key)) = (said.remove(&id), keys.predictions.first()) {
            object.insert((*key).to_owned(), Value::String(prediction));
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

fn official(format: Format, i: usize, record: Value) -> Sample {
    let Some(keys) = keys(format) else {
        return Sample::default();
    };
    let strings = |key: &str| -> Vec<String> {
        match record.get(key) {
            Some(Value::Array(all)) => all.iter().filter_map(text).collect(),
            Some(value) => text(value).into_iter().collect(),
            None => Vec::new(),
        }
    };
    let one = |keys: &[&str]| keys.iter().find_map(|k| text(record.get(*k)?));
    let mut choices: Vec<String> = keys.choices.iter().flat_map(|k| strings(k)).collect();
    if format == Format::AirBench {
        // What is not there was printed so.
        choices.retain(|c| c != "None");
    }
    let right = match (format, record.get("answer_orders")) {
        (Format::MuchomusicJson | Format::MuchomusicCsv, Some(Value::Array(orders))) => {
            orders.iter().position(|v| v.as_f64() == Some(0.0))
        }
        _ => None,
    };
    let answer = match right {
        Some(at) => choices.get(at).cloned().unwrap_or_default(),
        None => one(&[keys.answer]).unwrap_or_default(),
    };
    let mut groups: Vec<(&'static str, Vec<String>)> =
        keys.groups.iter().map(|key| (*key, strings(key))).collect();
    if let (Format::AirBench, Some(task), Some(set)) = (format, one(&["task_name"]), one(&["dataset_name"])) {
        // What the official script counts by.
        groups.push(("task", vec![format!("{task}_{set}")]));
    }
    groups.retain(|(_, values)| !values.is_empty());
    Sample {
        id: one(keys.ids).unwrap_or_else(|| i.to_string()),
        clip: one(keys.clips),
        question: one(&[keys.question]).unwrap_or_default(),
        prediction: keys
            .predictions
            .iter()
            .find_map(|k| record.get(*k)?.as_str().map(str::to_owned)),
        truncated: false,
        groups,
        choices,
        answer,
        right,
        record: Some(record),
    }
}

fn ours(path: &Path, place: &str, record: &Value) -> Result<Sample> {
    let prediction: crate::run::predictions::Prediction = serde_json::from_value(record.clone())
        .map_err(|e| Error::data(path, place, "a prediction of af2", e.to_string()))?;
    Ok(Sample {
        id: prediction.id,
        clip: Some(prediction.path),
        question: prediction.prompt,
        choices: prediction.labels,
        answer: prediction.reference,
        prediction: Some(prediction.prediction),
        groups: vec![("task", vec![prediction.task])],
        ..Sample::default()
    })
}

/// lm-evaluation-harness: the item is `doc`, as its task has loaded it.
fn lm_eval(path: &Path, place: &str, record: &Value, card: &Card) -> Result<Sample> {
    let response = ["filtered_resps", "resps"]
        .iter()
        .find_map(|k| innermost(record.get(*k)?));
    let id = record
        .get("doc_id")
        .and_then(text)
        .unwrap_or_else(|| place.to_owned());
    let doc = &record["doc"];
    let beside = Beside::of(doc);
    if let Some(sample) = of_record(doc, beside.as_ref(), response.clone(), card, &id) {
        return Ok(sample);
    }
    let Some(answer) = record.get("target").and_then(text) else {
        return Err(Error::data(
            path,
            place,
            "a target that is a text",
            short(&record["target"]),
        ));
    };
    let choices = doc.get("choices").and_then(Value::as_array);
    let sample = Sample {
        id,
        question: doc.get("question").and_then(text).unwrap_or_default(),
        choices: choices.map_or(Vec::new(), |all| all.iter().filter_map(text).collect()),
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
        id: own.id().unwrap_or(sample.id),
        clip: own.clip().or(sample.clip),
        right: own.right().filter(|at| *at < sample.choices.len()),
        truncated: own.truncated().unwrap_or(sample.truncated),
        groups: own.tasks().map_or(sample.groups, |tasks| vec![("task", tasks)]),
        ..sample
    }
}

/// An official record that another tool carries, with the model's answer in its place; none where it is no such record.
fn of_record(
    record: &Value,
    beside: Option<&Beside>,
    response: Option<String>,
    card: &Card,
    id: &str,
) -> Option<Sample> {
    let keys = keys(card.official_format).filter(|k| record.get(k.answer).is_some())?;
    let named = keys.ids.iter().any(|k| record.get(*k).and_then(text).is_some());
    let mut record = record.clone();
    if let (Some(response), Some(object)) = (response, record.as_object_mut()) {
        let response = Value::String(response);
        let said = beside.and_then(Beside::said);
        // Under the keys that it was read from, where they are known.
        let known = said.is_some_and(|said| said.values().any(Value::is_null));
        if let Some(key) = keys.predictions.first().filter(|_| !known) {
            object.insert((*key).to_owned(), response.clone());
        }
        for (key, value) in said.into_iter().flatten() {
            let value = if value.is_null() { &response } else { value };
            object.insert(key.clone(), value.clone());
        }
    }
    let sample = official(card.official_format, 0, record);
    Some(match named {
        true => sample,
        false => Sample {
            id: id.to_owned(),
            ..sample
        },
    })
}

/// inspect: letters stand for choices in its targets.
fn inspect(path: &Path, place: &str, record: &Value, card: &Card) -> Result<Sample> {
    let choices: Vec<String> = record["choices"]
        .as_array()
        .map_or(Vec::new(), |all| all.iter().filter_map(text).collect());
    let Some(target) = innermost(&record["target"]) else {
        return Err(Error::data(
            path,
            place,
            "a target that is a text",
            short(&record["target"]),
        ));
    };
    let letter = match target.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        _ => None,
    };
    let metadata = &record["metadata"];
    let beside = Beside::of(metadata);
    let right = beside.as_ref().map_or(letter, Beside::right);
    let right = right.filter(|at| *at < choices.len());
    let output = &record["output"];
    let completion = output.get("completion").and_then(text);
    let completion = completion.or_else(|| text(output.pointer("/choices/0/message/content")?));
    let id = text(&record["id"]).unwrap_or_else(|| place.to_owned());
    // What an exported log carries; another one's may be called so and be something else.
    let official = metadata.get("item").filter(|_| beside.is_some());
    if let Some(official) = official {
        if let Some(sample) = of_record(official, beside.as_ref(), completion.clone(), card, &id) {
            return Ok(sample);
        }
    }
    let question = match &record["input"] {
        Value::Array(messages) => {
            messages
                .iter()
                .rfind(|m| m["role"] == "user")
                .map(|m| match &m["content"] {
                    Value::Array(parts) => parts
                        .iter()
                        .filter_map(|p| text(p.get("text")?))
                        .collect::<Vec<_>>()
                        .join("\n"),
                    other => text(other).unwrap_or_default(),
                })
        }
        other => text(other),
    };
    let sample = Sample {
        id,
        question: question.unwrap_or_default(),
        answer: right.map_or(target, |at| choices[at].clone()),
        right,
        choices,
        truncated: output.pointer("/choices/0/stop_reason").and_then(Value::as_str) == Some("max_tokens"),
        prediction: completion,
        ..Sample::default()
    };
    Ok(restored(sample, beside))
}

/// A text, or a number as one.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// The first text within lists in lists.
fn innermost(value: &Value) -> Option<String> {
    match value {
        Value::Array(all) => innermost(all.first()?),
        other => text(other),
    }
}

fn short(value: &Value) -> String {
    crate::error::short(value)
}
