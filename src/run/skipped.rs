//! `skipped.jsonl`: items that could not be used, one a line. Written by us, read by people.

use super::version::Versioned;
use serde::Serialize;
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;

pub(crate) fn path(run: &Path) -> PathBuf {
    run.join("skipped.jsonl")
}

/// One item.
#[derive(Debug, Serialize)]
pub(crate) struct Skipped<'a> {
    pub stage: &'a str,
    /// Its sound, or its manifest.
    pub path: &'a Path,
    /// Its key.
    pub item: &'a str,
    pub reason: String,
    /// What the batch has in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<&'a Path>,
}

impl Skipped<'_> {
    /// The line with its end.
    pub(crate) fn line(&self) -> serde_json::Result<String> {
        let written = Versioned {
            version: VERSION,
            value: self,
        };
        Ok(serde_json::to_string(&written)? + "\n")
    }
}
