//! `judgements.jsonl`: a judge's marks, one reply a line.

use super::predictions::lines;
use super::version::{self, Versioned};
use crate::error::{Error, Result};
use crate::fsutil::write_atomic;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;

/// Where they lie in a folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join("judgements.jsonl")
}

/// What a judge has made of an answer in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The item's.
    pub id: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<String>,
    /// From 0.
    pub run: u32,
    /// Where pairs are compared: the answer stood second, not first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub swapped: bool,
    /// By criterion; empty where there are none.
    pub marks: IndexMap<String, f64>,
    /// What the item gets in this run, on the protocol's scale; none where the reply could not be read however often it was asked for.
    pub mark: Option<f64>,
    /// Why there is none; or that the answer was not judged, since it is wrong by the rule before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How often the judge was asked; 0 where it was not.
    pub asked: u32,
    /// Its last reply.
    pub reply: String,
    /// Who has answered, as the server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Words of the answer that was judged.
    pub words: usize,
}

/// Writes all, whole or not at all.
pub fn write(path: &Path, all: &[Judgement]) -> Result<()> {
    write_atomic(path, |out| {
        for judgement in all {
            let written = Versioned {
                version: VERSION,
                value: judgement,
            };
            let line = serde_json::to_string(&written).map_err(|e| Error::io(path, e.into()))?;
            writeln!(out, "{line}").map_err(|e| Error::io(path, e))?;
        }
        Ok(())
    })
}

/// Reads them.
///
/// # Errors
/// The first line that is none, with its number.
pub fn read(path: &Path) -> Result<Vec<Judgement>> {
    let mut all = Vec::new();
    lines(path, |place, line| {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        version::check(line, VERSION, path, place)?;
        let judgement: Judgement = serde_json::from_slice(line)
            .map_err(|e| Error::data(path, place, "a judgement as JSON", e.to_string()))?;
        all.push(judgement);
        Ok(())
    })?;
    Ok(all)
}
