//! `results.json`: the scores of a run's answers, task by task.

use super::version::{self, Versioned};
use crate::error::{Error, Result};
use crate::fsutil::{read_text, write_atomic};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;

/// Where a run's results lie.
pub fn path(run: &Path) -> PathBuf {
    run.join("results.json")
}

/// How a prediction is compared with its reference; `eval::rules` says it in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Equality after normalisation.
    Exact,
    /// The one option that the prediction names, of the item's closed set.
    Label,
    /// The one number that the prediction holds.
    Number,
}

/// Accuracy over the items of one task under one condition. Shares are from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Items.
    pub n: usize,
    /// Right answers.
    pub correct: usize,
    /// Their share.
    pub accuracy: f64,
    /// Of the accuracy, at the level of [`Results::bootstrap`].
    pub interval: Interval,
    /// Clips that the interval draws again, each with all its questions. None in results of before: those drew questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clips: Option<usize>,
    /// Mean recall over the classes, a class being a normalised reference; only of closed option sets.
    pub balanced_accuracy: Option<f64>,
    /// Predictions that were no answer under the rule; they count as wrong.
    pub unparsed: usize,
    /// Mean of the items' chance; `None` unless every item has one.
    pub chance: Option<f64>,
}

/// A row of the table. A condition that was not run is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task's name in the predictions.
    pub task: String,
    /// How its predictions were judged.
    pub rule: Rule,
    /// With the item's audio.
    pub audio: Option<Score>,
    /// The control: with silence in the audio's place.
    pub silence: Option<Score>,
}

/// `results.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// How the intervals were made.
    pub bootstrap: Bootstrap,
    /// In the order in which the predictions name them.
    pub tasks: Vec<TaskResult>,
}

impl Results {
    /// Writes them as indented JSON, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let written = Versioned {
            version: VERSION,
            value: self,
        };
        write_atomic(path, |w| {
            serde_json::to_writer_pretty(&mut *w, &written).map_err(|e| Error::io(path, e.into()))?;
            w.write_all(b"\n").map_err(|e| Error::io(path, e))
        })
    }

    /// # Errors
    /// A file that is none of `af2 eval`, or of a newer version.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path).map_err(|e| e.hint("`af2 eval` writes results.json"))?;
        version::check(text.as_bytes(), VERSION, path, "version")?;
        serde_json::from_str(&text).map_err(|e| {
            Error::data(
                path,
                format!("line {}", e.line()),
                "results of `af2 eval`",
                e.to_string(),
            )
        })
    }
}
