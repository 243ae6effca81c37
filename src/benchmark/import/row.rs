//! A row of an official file, and what its fields say.

use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// Faults that are told before the rest is only counted.
pub(super) const MOST_TOLD: usize = 20;
/// More rows than any benchmark has.
pub(super) const MOST_ROWS: usize = 20_000_000;

/// Where a row stands, for messages.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// In it: `line 3`, `item 7`, `data.12`.
    pub at: String,
}

/// One row with its fields.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub place: Place,
    /// Its name, where the file has an object of rows.
    pub key: Option<String>,
    pub fields: Map<String, Value>,
}

#[derive(Debug)]
pub(super) struct Rows {
    pub rows: Vec<Row>,
    /// What stands beside them in the outermost object: `flamingo_task`, `dataset_path`.
    pub beside: Map<String, Value>,
}

impl Row {
    /// The first of these fields that is there and not null.
    pub(super) fn get(&self, names: &[&str]) -> Option<&Value> {
        names
            .iter()
            .find_map(|n| self.fields.get(*n).filter(|v| !v.is_null()))
    }

    /// A text, or a number as one; a list of one text is that text.
    pub(super) fn text(&self, names: &[&str]) -> Option<String> {
        text(self.get(names)?)
    }
}

/// A text, or a number or a truth value as one.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// Texts of a list, or of one that Python has written as a text.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(all) => all.iter().map(text).collect(),
        Value::String(written) => super::python::list(written),
        _ => None,
    }
}
