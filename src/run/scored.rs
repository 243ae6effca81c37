//! `results.json` of a benchmark: predictions of any model, scored by the benchmark's card.

use super::version::{self, Versioned};
use crate::error::{Error, Result};
use crate::fsutil::{read_text_within, write_atomic_bytes};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;
/// A million items take a quarter of it.
const MOST_BYTES: u64 = 1 << 30;

/// Where they lie in a folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join("results.json")
}

/// Where corrections by hand lie in a folder.
pub fn overrides(folder: &Path) -> PathBuf {
    folder.join("overrides.jsonl")
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
    /// How the answers were got where nobody heard the clips: `cascade:SECONDS`, from captions of pieces of so many seconds. `name` says it,
    /// too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
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
    /// Intervals of the parts that have one.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub intervals: IndexMap<String, Interval>,
    /// What belongs to the benchmark and is not in the numbers, by name, and why.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub not_scored: IndexMap<String, String>,
    /// In which space answers were compared with labels, where a rule does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<SpaceFacts>,
    /// Whose tokens BERTScore compares, where it is one of the metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bert_score: Option<EncoderFacts>,
    /// What answers get that know nothing of the sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<Frame>,
    /// What the same items show that were asked in other ways, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listening: Option<Listening>,
    /// The score after corrections by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Corrected>,
    /// Who has marked the answers, where a judge has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeFacts>,
    /// The af2 that has written it; none in results of before it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub af2: Option<String>,
    /// In the file's order.
    pub items: Vec<ScoredItem>,
}

/// A space of text embeddings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceFacts {
    /// AF-CLAP's file, named as [`PredictionsFile::path`].
    pub checkpoint: PathBuf,
    /// Its tokenizer.
    pub tokenizer: PathBuf,
    /// Of the text tower's tensors and of the tokenizer (BLAKE3): other files with the same contents have the same.
    pub tower: String,
    /// What was embedded of a label, with `{label}` in its place.
    pub templates: Vec<String>,
}

/// An encoder of text, and how its tokens are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderFacts {
    /// Its folder, named as [`PredictionsFile::path`].
    pub folder: PathBuf,
    /// Of its tensors and of the tokenizer (BLAKE3): another folder with the same contents has the same.
    pub encoder: String,
    /// The layer whose states are compared.
    pub layer: usize,
    /// Whether tokens count by how rare they are among the references.
    pub idf: bool,
    /// The table by which scores are rescaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<PathBuf>,
    /// Whose computation it is.
    pub follows: String,
}

/// The label nearest to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NearestLabel {
    /// Its cosine, to 6 digits.
    pub cosine: f64,
    /// That less the next label's, to 6 digits; none where there is one label.
    pub margin: Option<f64>,
}

/// The metric of answers that do not depend on the sound, under the rule of the score, over its items. None where an item has no
/// options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Of options that are drawn: the mean over items of the share of options that the rule counts as right.
    pub chance: Option<f64>,
    /// Always the first option.
    pub first: Option<f64>,
    /// Always the option of most characters, of equals the first.
    pub longest: Option<f64>,
    /// Always the option of fewest characters, of equals the first.
    pub shortest: Option<f64>,
    /// What stands for an option: its `text`, or its `letter` where the rule reads letters alone.
    pub answered_by: String,
}

/// The same items asked in other ways: without their sound, with another one, or otherwise worded. All of it is about the share of
/// right answers, whatever the benchmark's metric is, over items that were asked in both ways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listening {
    /// By control, as `af2 eval --control` names it.
    pub controls: IndexMap<String, Controlled>,
    /// What hearing adds; none where answers are not right or wrong.
    pub audio_gain: Option<Gain>,
    /// What the order of options does.
    pub permutations: Option<Permutations>,
}

/// Answers under one control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Controlled {
    /// Items.
    pub n: usize,
    /// The share of right answers; of a metric without verdicts, the mean of the items' values.
    pub score: f64,
    /// Of that.
    pub interval: Interval,
    /// The share of answers that the rule could not read.
    pub unread: Option<f64>,
    /// That of the plain way over the same items less this one.
    pub difference: f64,
    /// Of the difference: clips drawn again, each with the answers of both ways.
    pub difference_interval: Interval,
}

/// (plain − against) ÷ (1 − against): the share of what was left to gain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// The control that stands for not hearing: `text_only` where it was asked, else `silence`.
    pub against: String,
    /// None where nothing was left to gain.
    pub value: Option<f64>,
    /// Clips drawn again, each with the answers of both ways; none where some of the draws have nothing left to gain.
    pub interval: Option<Interval>,
    /// Items that were asked in both ways.
    pub n: usize,
}

/// The same options in other orders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Permutations {
    /// Items that were asked in more than one order.
    pub n: usize,
    /// Orders of each, its own among them: the mean.
    pub orders: f64,
    /// By the place of the right option, A first: the share of right answers over all orders.
    pub positions: IndexMap<String, Group>,
    /// The share of items whose answer is the same option in every order.
    pub consistency: f64,
    /// The share of items that are right in every order.
    pub correctness: f64,
}

/// A score after corrections by hand. [`Scored::score`] stays as the rule gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Corrected {
    /// The file of the corrections, named as [`PredictionsFile::path`].
    pub path: PathBuf,
    /// Of its bytes.
    pub sha256: String,
    /// The metric with them.
    pub score: Option<f64>,
    /// Of that.
    pub interval: Option<Interval>,
    /// That less the score as ruled.
    pub difference: Option<f64>,
    /// Verdicts that they change; the others only confirm what the rule says.
    pub changed: usize,
    /// By author.
    pub authors: IndexMap<String, ByAuthor>,
    /// Each of them, in the file's order.
    pub overrides: Vec<Override>,
}

/// How answers were marked by a judge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgeFacts {
    /// The protocol's name.
    pub protocol: String,
    /// Its version.
    pub version: u32,
    /// Of its file.
    pub sha256: String,
    /// Who was asked.
    pub model: String,
    /// Who the server says has answered, each once.
    pub answered_by: Vec<String>,
    /// As it was sent.
    pub temperature: Option<f64>,
    /// As it was sent.
    pub seed: Option<u64>,
    /// How often each answer was marked.
    pub runs: u32,
    /// What was made of several runs.
    pub aggregate: String,
    /// The lowest and the highest mark. A score is a mark over the highest.
    pub scale: [f64; 2],
    /// Replies that could not be read and were asked for again.
    pub asked_again: usize,
    /// Items without a mark: in no score.
    pub unscored: usize,
    /// The score if all of these had the lowest mark, and the highest; none where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Interval>,
    /// Spearman's correlation of the marks with the answers' length in words.
    pub length_correlation: Option<f64>,
    /// Where pairs are compared: the share of items in which both orders have the same winner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_winner: Option<f64>,
}

/// What one author has corrected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByAuthor {
    /// Corrections.
    pub n: usize,
    /// Wrong ones that became right.
    pub to_right: usize,
    /// Right ones that became wrong.
    pub to_wrong: usize,
}

/// A verdict by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The item's id.
    pub item: String,
    /// Whether the prediction is right.
    pub verdict: bool,
    /// Who says so.
    pub author: String,
    /// Why.
    pub reason: String,
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
    pub state: Cow<'static, str>,
    /// What it answers.
    pub answer: Option<String>,
    /// Where that stands in the prediction: first character and the one behind the last, counted in Unicode code points.
    pub span: Option<[usize; 2]>,
    /// Whether it is right.
    pub correct: bool,
    /// Whether the item is in the score.
    pub counted: bool,
    /// The branch of the rule that decided.
    pub by: Cow<'static, str>,
    /// What is wrong with the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The clip that it is about, where the file names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<String>,
    /// Of a rule that compares embeddings: how near the answer's label is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<NearestLabel>,
    /// Of metrics that are no verdict, the item's values by the metric's name; `null` where it has none. `correct` says nothing then.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub scores: IndexMap<String, Option<f64>>,
}

impl Scored {
    /// Says how the answers were got, also in the name.
    pub(crate) fn under(mut self, condition: Option<String>) -> Self {
        if let Some(condition) = &condition {
            self.name += &format!(" ({condition})");
        }
        self.condition = condition;
        self
    }

    /// The file's bytes.
    pub fn json(&self) -> Result<Vec<u8>> {
        let written = Versioned {
            version: VERSION,
            value: self,
        };
        let mut bytes = serde_json::to_vec(&written).map_err(|e| Error::io("results.json", e.into()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Writes it as JSON, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomic_bytes(path, &self.json()?)
    }

    /// Whether its items have verdicts, right or wrong; other metrics give them [`ScoredItem::scores`].
    pub fn has_verdicts(&self) -> bool {
        self.items.iter().all(|item| item.scores.is_empty())
    }

    /// # Errors
    /// A file that is none of `af2 score`, or of a newer version.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text_within(path, MOST_BYTES)?;
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
