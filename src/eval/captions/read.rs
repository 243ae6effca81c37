//! Captions as JSON lines.

use crate::error::{Error, Result};
use crate::fsutil::{lfs_error, lfs_pointer};
use crate::run::predictions::lines;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A clip's captions: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captioned {
    /// Names the clip: no two lines have the same.
    pub id: String,
    /// What a model wrote.
    pub prediction: String,
    /// What people wrote: at least one caption.
    pub references: Vec<String>,
    /// The clip's file, where the line names it.
    pub audio: Option<PathBuf>,
}

/// Keys that are not these are passed over.
#[derive(Deserialize)]
struct Line {
    id: Option<Value>,
    prediction: Option<Value>,
    references: Option<Value>,
    audio: Option<Value>,
}

/// Reads `{"id", "prediction", "references": [...]}` a line; empty lines are passed over.
///
/// # Errors
/// The first line that is something else, with its number and the key; an id that an earlier line has; a file without lines.
pub fn read(path: &Path) -> Result<Vec<Captioned>> {
    let mut all: Vec<Captioned> = Vec::new();
    let mut places: HashMap<String, String> = HashMap::new();
    lines(path, |place, line| {
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        if let Some(says) = lfs_pointer(line).filter(|_| place == "line 1") {
            return Err(lfs_error(path, &says));
        }
        let captioned = one(path, place, line)?;
        if let Some(first) = places.insert(captioned.id.clone(), place.to_owned()) {
            let found = format!("{:?}, which {first} has", captioned.id);
            let e = Error::data(path, format!("{place}: id"), "an id of its own", found);
            return Err(e.hint("one prediction a clip; of several models write several files"));
        }
        all.push(captioned);
        Ok(())
    })?;
    if all.is_empty() {
        return Err(Error::data(path, "lines", "at least one", "none").hint(HINT));
    }
    Ok(all)
}

const HINT: &str =
    "a line is {\"id\": \"clip-1\", \"prediction\": \"a dog barks\", \"references\": [\"a dog is barking\"]}";

fn one(path: &Path, place: &str, line: &[u8]) -> Result<Captioned> {
    let wrong = |key: &str, expected: &str, found: String| {
        let key = if key.is_empty() {
            place.to_owned()
        } else {
            format!("{place}: {key}")
        };
        Error::data(path, key, expected, found).hint(HINT)
    };
    let line: Line =
        serde_json::from_slice(line).map_err(|e| wrong("", "an object as JSON", e.to_string()))?;
    let text = |key: &str, value: Option<Value>| match value {
        Some(Value::String(text)) => Ok(text),
        other => Err(wrong(key, "a string", kind(other.as_ref()).into())),
    };
    let list = match line.references {
        Some(Value::Array(list)) => list,
        other => {
            return Err(wrong(
                "references",
                "a list of strings",
                kind(other.as_ref()).into(),
            ))
        }
    };
    if list.is_empty() {
        return Err(wrong("references", "at least one", "an empty list".into()));
    }
    let references = list.into_iter().enumerate();
    let references = references.map(|(n, value)| text(&format!("references.{n}"), Some(value)));
    Ok(Captioned {
        id: text("id", line.id)?,
        prediction: text("prediction", line.prediction)?,
        references: references.collect::<Result<_>>()?,
        audio: match line.audio {
            // Other tools put other things there, which nobody here asks for.
            Some(Value::String(path)) if !path.is_empty() => Some(path.into()),
            _ => None,
        },
    })
}

fn kind(value: Option<&Value>) -> &'static str {
    match value {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "true or false",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "an object",
    }
}
