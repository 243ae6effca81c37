//! The tokenizer library and the files of an LM folder, with errors that a user can read.

use crate::error::{short, Error, Result};
use crate::panics::caught;
use serde_json::{Map, Value};
use std::path::Path;
use tokenizers::{AddedToken, AddedVocabulary, Tokenizer as Inner};

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

/// The same tokenizer without added tokens: to it their names are letters.
pub(super) fn without_added(inner: &Inner) -> Inner {
    let mut plain = inner.clone();
    plain.with_added_vocabulary(AddedVocabulary::new());
    plain
}

/// A text's ids, without special tokens around it; `path` is for errors.
pub(super) fn encode(inner: &Inner, path: &Path, text: &str) -> Result<Vec<i64>> {
    let encoding = library(|| inner.encode(text, false)).map_err(|e| {
        let text: String = text.chars().take(40).collect();
        let expected = format!("tokens for the text {text:?}");
        Error::checkpoint(path, "tokenizer", expected, e)
    })?;
    Ok(encoding.get_ids().iter().map(|i| i64::from(*i)).collect())
}

/// The text of ids; those outside of the vocabulary are left out, as transformers does.
pub(super) fn decode(inner: &Inner, path: &Path, ids: &[i64], skip_special: bool) -> Result<String> {
    let ids: Vec<u32> = ids.iter().filter_map(|i| u32::try_from(*i).ok()).collect();
    library(|| inner.decode(&ids, skip_special)).map_err(|e| {
        let expected = format!("a text for the tokens {:?}", &ids[..ids.len().min(8)]);
        Error::checkpoint(path, "tokenizer", expected, e)
    })
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
