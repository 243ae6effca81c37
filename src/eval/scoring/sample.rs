//! An item with its prediction, and where the benchmarks' own files have what.

use crate::benchmark::names::Format;
use crate::benchmark::Card;
use crate::eval::json::{Json, Text};
use crate::eval::rules::retrieval::Space;
use crate::eval::rules::Item;
use std::borrow::Cow;
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
    /// Keys by which a benchmark counts, each with a value of the item; a key with several values stands before each.
    pub groups: Vec<(&'static str, Cow<'a, str>)>,
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
    pub(super) fn of(record: &Json, card: &Card) -> Self {
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
pub(super) struct Keys {
    pub ids: &'static [&'static str],
    pub clips: &'static [&'static str],
    pub question: &'static str,
    pub choices: &'static [&'static str],
    pub answer: &'static str,
    /// The one that the official script reads first.
    pub predictions: &'static [&'static str],
    pub groups: &'static [&'static str],
}

/// Of the formats whose prediction files carry their items.
pub(super) fn keys(format: Format) -> Option<Keys> {
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

/// The sample of an official record, called by its place where it has no id; none of one without either, and of a format whose
/// prediction files carry no items. The choices are written where others were.
pub(super) fn official(
    format: Format,
    place: Option<usize>,
    record: Json<'_>,
    mut choices: Vec<String>,
) -> Option<Sample<'_>> {
    let keys = keys(format)?;
    let strings = |key: &str| {
        let all = match record.get(key) {
            Some(Json::List(all)) => &all[..],
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        all.iter().filter_map(Json::text)
    };
    let one = |keys: &[&str]| keys.iter().find_map(|k| record.get(k)?.text());
    let id = one(keys.ids).or_else(|| Some(Cow::Owned(place?.to_string())))?;
    let mut n = 0;
    for text in keys.choices.iter().flat_map(|k| strings(k)) {
        match choices.get_mut(n) {
            Some(own) => {
                own.clear();
                own.push_str(&text);
            }
            None => choices.push(text.into_owned()),
        }
        n += 1;
    }
    choices.truncate(n);
    if format == Format::AirBench {
        // What is not there was printed so.
        choices.retain(|c| c != "None");
    }
    let orders = match format {
        Format::MuchomusicJson | Format::MuchomusicCsv => record.at("answer_orders").as_list(),
        _ => None,
    };
    let right = orders.and_then(|orders| orders.iter().position(|v| v.as_f64() == Some(0.0)));
    let answer = match right {
        Some(at) => Cow::Owned(choices.get(at).cloned().unwrap_or_default()),
        None => one(&[keys.answer]).unwrap_or_default(),
    };
    let mut groups: Vec<(&'static str, Text)> = Vec::with_capacity(keys.groups.len() + 1);
    for key in keys.groups {
        groups.extend(strings(key).map(|value| (*key, value)));
    }
    if let (Format::AirBench, Some(task), Some(set)) = (format, one(&["task_name"]), one(&["dataset_name"])) {
        // What the official script counts by.
        groups.push(("task", Cow::Owned(format!("{task}_{set}"))));
    }
    Some(Sample {
        id,
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
    })
}

/// Those in a list.
pub(super) fn texts(value: &Json) -> Vec<String> {
    let all = value.as_list().unwrap_or_default().iter();
    all.filter_map(Json::text).map(Cow::into_owned).collect()
}

pub(super) fn short(value: &Json) -> String {
    crate::error::short(&value.to_value())
}
