//! The byte-level BPE of Qwen2's form, from its plain files or around a model.

use super::library::{json_object, library, read};
use super::special::{Special, END_OF_TEXT};
use crate::error::{Error, Result};
use serde_json::{json, Value};
use std::path::Path;
use tokenizers::Tokenizer as Inner;

/// Qwen2's split of text into words, before bytes are merged.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Special tokens of every Qwen2 tokenizer, behind the trained vocabulary.
pub(super) const SPECIAL: [&str; 3] = [END_OF_TEXT, "<|im_start|>", "<|im_end|>"];

/// Qwen2's tokenizer from its two plain files, for folders without a `tokenizer.json`. Special tokens whose ids lie among
/// the vocabulary's are put there; the others are the caller's to add.
///
/// Reference: transformers' `Qwen2Tokenizer`.
pub(super) fn from_vocab_and_merges(folder: &Path, special: &Special) -> Result<Inner> {
    let path = folder.join("vocab.json");
    let mut vocab = json_object(&path)?;
    special.fill(&path, &mut vocab)?;
    let text = read(&folder.join("merges.txt"))?;
    let header = text.starts_with("#version:") as usize;
    let merges: Vec<Vec<&str>> = text
        .lines()
        .skip(header)
        .map(|l| l.split_whitespace().collect::<Vec<_>>())
        .filter(|l| !l.is_empty())
        .collect();
    shell(&json!({"type": "BPE", "vocab": vocab, "merges": merges}), &path)
}

/// A tokenizer of Qwen2's form around a model, without added tokens.
pub(super) fn shell(model: &Value, path: &Path) -> Result<Inner> {
    let mut full = description(model, 0);
    full["added_tokens"] = json!([]);
    library(|| Ok(serde_json::from_value(full)?))
        .map_err(|e| Error::checkpoint(path, "tokenizer", "a byte-level BPE", e))
}

pub(super) fn description(model: &Value, first_special: usize) -> Value {
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(i, t)| {
            json!({"id": first_special + i, "content": t, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        ]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": model,
    })
}
