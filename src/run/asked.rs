//! `asked.json`: which model was asked what, beside the answers of a benchmark that were asked to their end.

use super::version::{self, Versioned};
use crate::error::{Error, Result};
use crate::fsutil::{read_text_within, write_atomic_bytes};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;
const MOST_BYTES: u64 = 1 << 20;

/// Where it lies in a benchmark's folder.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join("asked.json")
}

/// What the answers beside it are the answers of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The card's name.
    pub benchmark: String,
    /// Of the card's file.
    pub card_sha256: String,
    /// A hash of whom is asked and in which arithmetic.
    pub evaluation: String,
    /// A hash of all questions: items, sounds, words, decoding, controls.
    pub questions: String,
    /// The manifest, and of its bytes.
    pub manifest: PathBuf,
    pub manifest_sha256: String,
    /// As the command line names it.
    pub model: String,
    /// How answers were chosen, as in `transformers`.
    pub decoding: serde_json::Value,
    /// The ways in which each item was asked, the plain one first.
    pub controls: Vec<String>,
    /// The number of the card's paraphrase, `all` of them in turn; none where the card's choice was asked.
    pub paraphrase: Option<String>,
    /// Only so many items, from the front.
    pub limit: Option<usize>,
    /// Whether thoughts were taken off the answers before they were scored.
    pub strip_thinking: bool,
    /// Nobody heard the clips: their pieces were captioned, and the items asked of the captions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cascade: Option<Cascade>,
}

/// How clips were put in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cascade {
    /// Of a piece.
    pub seconds: u32,
    /// What was asked of each.
    pub prompt: String,
}

impl Cascade {
    /// As it stands in predictions, results and tables.
    pub(crate) fn condition(&self) -> String {
        format!("cascade:{}", self.seconds)
    }
}

impl Asked {
    /// Writes it, whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = path(folder);
        let value = Versioned {
            version: VERSION,
            value: self,
        };
        let text = serde_json::to_string_pretty(&value)
            .map_err(|e| Error::data(&path, "file", "JSON", e.to_string()))?;
        write_atomic_bytes(&path, (text + "\n").as_bytes())
    }

    /// Reads it; none where it is not there.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = path(folder);
        if !path.is_file() {
            return Ok(None);
        }
        let text = read_text_within(&path, MOST_BYTES)?;
        version::check(text.as_bytes(), VERSION, &path, "file")?;
        let read = serde_json::from_str(&text);
        read.map(Some)
            .map_err(|e| Error::data(&path, "file", "what af2 eval writes", e.to_string()))
    }
}
