//! Where a folder's files disagree on the end of text. The tokenizer's is taken everywhere, as in the reference.

use super::library::json_object;
use crate::error::{short, Error, Result};
use serde_json::Value;
use std::path::Path;

/// Files of a language model that say an `eos_token_id`.
const FILES: [&str; 2] = ["config.json", "generation_config.json"];

/// One line where a file's end of text is another than the tokenizer's; `token` gives the text of an id.
///
/// # Errors
/// A file that is no JSON object, or an `eos_token_id` that is no id and no list of ids.
pub(super) fn disagreement(
    folder: &Path,
    (eos, name): (i64, &str),
    token: &dyn Fn(i64) -> Option<String>,
) -> Result<Option<String>> {
    let mut others = Vec::new();
    for file in FILES {
        let path = folder.join(file);
        if !path.exists() {
            continue;
        }
        let ids = ids(&path, json_object(&path)?.get("eos_token_id"))?;
        if ids.is_empty() || ids.contains(&eos) {
            continue;
        }
        let shown: Vec<String> = ids
            .iter()
            .map(|id| match token(*id) {
                Some(text) => format!("{text} ({id})"),
                None => format!("{id}, which the tokenizer does not know"),
            })
            .collect();
        others.push(format!("{file} says {}", shown.join(", ")));
    }
    if others.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "{}: the tokenizer ends a text with {name} ({eos}), {}: the tokenizer's is taken in training and in answers",
        folder.display(),
        others.join(", ")
    )))
}

/// The ids of an `eos_token_id`: none, one, or a list.
fn ids(path: &Path, value: Option<&Value>) -> Result<Vec<i64>> {
    let id = |v: &Value| v.as_i64().filter(|i| *i >= 0);
    let found = match value {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(one) => id(one).map(|i| vec![i]),
    };
    found.ok_or_else(|| {
        let found = value.map(|v| short(v)).unwrap_or_default();
        Error::checkpoint(path, "eos_token_id", "an id or a list of ids", found)
    })
}
