//! The tokenizer library and the files of an LM folder, with errors that a user can read.

use crate::error::{short, Error, Result};
use crate::panics::caught;
use serde_json::{Map, Value};
use std::path::Path;
use tokenizers::{AddedToken, Tokenizer as Inner};

/// A call of the tokenizer library: its errors and its panics, for both of which a file can be the reason, in a line.
pub(super) fn library<T>(f: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match caught(f) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(short(&e)),
        Err(words) => Err(format!("the tokenizer library gave up: {}", short(&words))),
    }
}

/// Adds tokens: those that are in the vocabulary keep their ids, others follow it.
pub(super) fn add(
    inner: &mut Inner,
    path: &Path,
    tokens: impl IntoIterator<Item = AddedToken>,
) -> Result<()> {
    let tokens: Vec<AddedToken> = tokens.into_iter().collect();
    if tokens.is_empty() {
        return Ok(());
    }
    library(|| inner.add_tokens(tokens))
        .map(drop)
        .map_err(|e| Error::checkpoint(path, "added tokens", "room for added tokens", e))
}

pub(super) fn read(path: &Path) -> Result<String> {
    crate::fsutil::read_text(path).map_err(|e| match e {
        Error::Io {
            hint: None, source, ..
        } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::io(path, source).hint("an LM folder holds config.json, tokenizer.json and weights")
        }
        other => other,
    })
}

/// A file that holds one JSON object.
pub(super) fn json_object(path: &Path) -> Result<Map<String, Value>> {
    serde_json::from_str(&read(path)?)
        .map_err(|e| Error::checkpoint(path, "file", "a JSON object", e.to_string()))
}
