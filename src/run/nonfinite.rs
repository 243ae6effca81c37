//! `nonfinite.jsonl`: steps that moved nothing, one JSON object a step and rank. Written by us, read by people.

use super::version::Versioned;
use serde::Serialize;
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;

pub(crate) fn path(run: &Path) -> PathBuf {
    run.join("nonfinite.jsonl")
}

/// A step of a rank. One of `not_finite` and `skipped` says why it moved nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Step<'a> {
    pub stage: &'a str,
    pub step: usize,
    pub rank: usize,
    /// `loss` or `gradient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_finite: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<&'a str>,
    /// Any of which may have done it.
    pub items: &'a [&'a String],
}

impl Step<'_> {
    /// The line with its end.
    pub(crate) fn line(&self) -> serde_json::Result<String> {
        let written = Versioned {
            version: VERSION,
            value: self,
        };
        Ok(serde_json::to_string(&written)? + "\n")
    }
}
