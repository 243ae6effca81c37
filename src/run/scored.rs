//! `results.json` of a benchmark: predictions of any model, scored by the benchmark's card.

use super::version::{self, Versioned};
use crate::error::{Error, Result};
use crate::fsutil::{read_text, write_atomic};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;

/// Where they lie in a folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join("results.json")
}

/// One benchmark's score. Shares are from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// The card's name.
    pub benchmark: String,
    /// The same, and of how many of the card's items where they are fewer or more.
    pub name: String,
    /// The card, by version and sha256.
    pub card: CardFacts,
    /// Whose predictions.
    pub model: Option<String>,
    /// How they were read.
    pub rule: String,
    /// `official` or `fair`.
    pub kind: String,
    /// The same predictions under the other kind of rule.
    pub other: Option<OtherRule>,
    /// What was made of the verdicts.
    pub metric: String,
    /// Of which items.
    pub data: Data,
    /// The files that were scored; none in results of before they were written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<PredictionsFile>,
    /// Items in the score.
    pub n: usize,
    /// The metric.
    pub score: Option<f64>,
    /// Of the score.
    pub interval: Option<Interval>,
    /// Shares that the metric is made of, by name: CMM's PA and HR.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub parts: IndexMap<String, f64>,
    /// How the interval was made: resamples of clips, where they are known.
    pub bootstrap: Bootstrap,
    /// Items by what became of their predictions.
    pub states: IndexMap<String, usize>,
    /// The share of the score's items that the rule could not read.
    pub unread: Option<f64>,
    /// Items that the official script leaves out, or that are no part of the card's split.
    pub left_out: usize,
    /// The same over all items of the file, where some are no part of the card's split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Whole>,
    /// By key and value of the items.
    pub categories: IndexMap<String, IndexMap<String, Group>>,
    /// In the file's order.
    pub items: Vec<ScoredItem>,
}

/// Which card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CardFacts {
    /// Its own count.
    pub version: u32,
    /// Of its file.
    pub sha256: String,
}

/// A score under another rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OtherRule {
    /// Its name.
    pub rule: String,
    /// The metric under it.
    pub score: Option<f64>,
    /// That less the score beside it.
    pub difference: Option<f64>,
    /// The share of the items that it could not read.
    pub unread: Option<f64>,
}

/// The score over a whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Whole {
    /// Items in it.
    pub n: usize,
    /// The metric.
    pub score: Option<f64>,
    /// As [`Scored::parts`].
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub parts: IndexMap<String, f64>,
}

/// Which items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Of the file of items; of predictions that carry their items, of these without the predictions, as compact JSON.
    pub sha256: String,
    /// Whether the card names this file.
    pub known: bool,
    /// Of what it is the hash.
    pub of: String,
    /// Items that the card counts.
    pub expected: Option<u64>,
}

/// What was scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictionsFile {
    /// As it was named; one that lies in or below the folder of the results, from there.
    pub path: PathBuf,
    /// Of its bytes.
    pub sha256: String,
    /// Who has written it, in words.
    pub form: String,
    /// The file of the items, named in the same way, where the predictions carry none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<PathBuf>,
}

/// One value of a category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Items in the score.
    pub n: usize,
    /// Right ones.
    pub correct: usize,
    /// Their share.
    pub score: Option<f64>,
    /// Wilson's, at the level of the score's interval.
    pub interval: Option<Interval>,
}

/// One item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredItem {
    /// As its file has it.
    pub id: String,
    /// What became of the prediction: answered, unparsed, refused, empty, truncated, error.
    pub state: String,
    /// What it answers.
    pub answer: Option<String>,
    /// Where that stands in the prediction: first character and the one behind the last, counted in Unicode code points.
    pub span: Option<[usize; 2]>,
    /// Whether it is right.
    pub correct: bool,
    /// Whether the item is in the score.
    pub counted: bool,
    /// The branch of the rule that decided.
    pub by: String,
    /// What is wrong with the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Scored {
    /// Writes it as JSON, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let written = Versioned {
            version: VERSION,
            value: self,
        };
        write_atomic(path, |w| {
            serde_json::to_writer(&mut *w, &written).map_err(|e| Error::io(path, e.into()))?;
            w.write_all(b"\n").map_err(|e| Error::io(path, e))
        })
    }

    /// # Errors
    /// A file that is none of `af2 score`, or of a newer version.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        version::check(text.as_bytes(), VERSION, path, "version")?;
        serde_json::from_str(&text).map_err(|e| {
            Error::data(
                path,
                format!("line {}", e.line()),
                "results of `af2 score --benchmark`",
                e.to_string(),
            )
        })
    }
}
