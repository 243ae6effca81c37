//! What the formats make of rows: items whose sounds are not found yet and whose questions are not worded yet.

use super::report::Report;
use super::row::{text, Place, Row};
use super::sounds::Wanted;
use crate::benchmark::{Card, Split};
use serde_json::{Map, Value};

/// More bytes than any question or answer has.
const MOST_TEXT: usize = 1 << 20;

/// An item in the making.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub place: Place,
    /// The official one; where there is none the row's number, from 0.
    pub id: Value,
    pub sound: Wanted,
    /// What the card's template asks for by `{question}`, `{caption}`, `{hypothesis}`, `{label}`.
    pub texts: Vec<(&'static str, String)>,
    /// The whole question, where the file has it so.
    pub prompt: Option<String>,
    /// The item's own options, in the order in which they are shown.
    pub choices: Vec<String>,
    /// None where it is hidden.
    pub answer: Option<String>,
    /// All right answers, where there are several.
    pub references: Vec<String>,
    /// Further keys of the manifest's item.
    pub more: Map<String, Value>,
    /// The official row.
    pub official: Map<String, Value>,
}

impl Draft {
    pub(super) fn of(row: &Row, id: Value, sound: Wanted) -> Self {
        Draft {
            place: row.place.clone(),
            id,
            sound,
            texts: Vec::new(),
            prompt: None,
            choices: Vec::new(),
            answer: None,
            references: Vec::new(),
            more: Map::new(),
            official: row.fields.clone(),
        }
    }

    pub(super) fn asking(mut self, question: impl Into<String>) -> Self {
        self.texts.push(("question", question.into()));
        self
    }

    pub(super) fn answered(mut self, answer: impl Into<String>) -> Self {
        self.answer = Some(answer.into());
        self
    }

    /// The text that the template calls so.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.texts
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, t)| t.as_str())
    }
}

/// What a format is told.
pub(super) struct Context<'a> {
    pub card: &'a Card,
    pub split: &'a Split,
    /// For options whose order is drawn.
    pub seed: u64,
}

/// What a format gives.
#[derive(Default)]
pub(super) struct Drafts {
    pub all: Vec<Draft>,
    /// The labels that all items share, where the files say them and the card does not.
    pub labels: Option<Vec<String>>,
    /// Whether the order of options was drawn.
    pub drawn: bool,
}

impl From<Vec<Draft>> for Drafts {
    fn from(all: Vec<Draft>) -> Self {
        Drafts {
            all,
            ..Drafts::default()
        }
    }
}

/// A text that must be there.
pub(super) fn need(row: &Row, names: &[&str], report: &mut Report) -> Option<String> {
    let name = names.first().copied().unwrap_or_default();
    let Some(value) = row.get(names) else {
        let have: Vec<&str> = row.fields.keys().take(12).map(String::as_str).collect();
        report.broken(
            &row.place,
            "missing_field",
            name,
            "a text",
            format!("nothing; the row has {}", have.join(", ")),
        );
        return None;
    };
    let Some(text) = text(value) else {
        report.broken(
            &row.place,
            "not_a_text",
            name,
            "a text",
            crate::error::short(value),
        );
        return None;
    };
    if text.len() > MOST_TEXT {
        let expected = format!("at most {MOST_TEXT} bytes");
        report.broken(&row.place, "too_long", name, &expected, text.len().to_string());
        return None;
    }
    Some(text)
}

/// A text that must be there and say something.
pub(super) fn need_words(
    row: &Row,
    names: &[&str],
    class: &'static str,
    report: &mut Report,
) -> Option<String> {
    let text = need(row, names, report)?;
    let text = text.trim();
    if text.is_empty() {
        report.broken(
            &row.place,
            class,
            names.first().copied().unwrap_or_default(),
            "a text that says something",
            "an empty one",
        );
        return None;
    }
    Some(text.to_owned())
}

/// The row's id, or its number where the format has none.
pub(super) fn id(row: &Row, names: &[&str], number: usize) -> Value {
    row.get(names)
        .filter(|v| v.is_string() || v.is_number())
        .cloned()
        .unwrap_or_else(|| number.to_string().into())
}
