//! What is looked at, and what is found.

use crate::data::item::Item;
use crate::text::tokenizer::Tokenizer;
use indexmap::IndexMap;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Findings of a kind that are kept; those that follow are counted.
pub(crate) const MOST_KEPT: usize = 100_000;

/// What to look at.
pub struct Checks<'a> {
    /// Audio paths are relative to this.
    pub root: &'a Path,
    /// Most windows of 10 s of an item.
    pub windows: usize,
    /// Items of a batch, for the padding estimate.
    pub batch: usize,
    /// Whether to read the files whole, for duplicates and leaks.
    pub hash: bool,
    /// Counts the tokens of prompt and answer together, and how many are read at most.
    pub tokenizer: Option<(&'a Tokenizer, usize)>,
}

/// A fault, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The manifest itself: not JSON, fields missing, a wrong `total_num`.
    Manifest,
    /// The file is not there.
    MissingAudio,
    /// Empty, cut off, or of no known format.
    UnreadableAudio,
    /// The header tells another length than the manifest.
    WrongDuration,
    /// A question without text.
    EmptyPrompt,
    /// An answer without text.
    EmptyOutput,
    /// Prompt and answer are longer than the token limit: the answer is cut.
    LongText,
    /// A text that holds a special token of the tokenizer, as `<|endofchunk|>`.
    SpecialTokens,
    /// The same question about the same audio twice.
    DuplicateItem,
    /// Two files with the same bytes in one manifest.
    DuplicateAudio,
    /// The same audio in two splits.
    Leak,
}

/// A fault and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of which kind.
    pub fault: Fault,
    /// The manifest that it is in.
    pub manifest: PathBuf,
    /// The item's key; empty where the whole manifest is meant.
    pub item: String,
    /// What was found, in words.
    pub what: String,
}

/// A manifest in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The file.
    pub manifest: PathBuf,
    /// Its task's name.
    pub task: String,
    /// Train, val or test, as the manifest says it.
    pub split: String,
    /// Questions.
    pub items: usize,
    /// Sound files, each once.
    pub files: usize,
    /// Hours of audio that items hear, by the headers.
    pub hours: f64,
    /// Items by their number of windows.
    pub windows: BTreeMap<usize, usize>,
    /// Share of the encoder's work that padding would be: in the manifest's order, and in buckets.
    pub padding_in_order: f64,
    /// Share of the encoder's work that padding would be in buckets.
    pub padding_in_buckets: f64,
    /// The most frequent answers and how often they stand; the rest under "…".
    pub answers: IndexMap<String, usize>,
}

/// Everything found.
#[derive(Debug, Default)]
pub struct Diagnosis {
    /// In the order in which they were given.
    pub manifests: Vec<Summary>,
    /// The first [`MOST_KEPT`] of each kind.
    pub findings: Vec<Finding>,
    /// All faults by kind.
    pub counts: BTreeMap<Fault, usize>,
}

impl Diagnosis {
    /// Faults that are counted and not among the findings, by kind.
    pub fn left_out(&self) -> BTreeMap<Fault, usize> {
        let more =
            |(fault, n): (&Fault, &usize)| Some((*fault, n.checked_sub(MOST_KEPT).filter(|n| *n > 0)?));
        self.counts.iter().filter_map(more).collect()
    }

    pub(super) fn add(
        &mut self,
        fault: Fault,
        manifest: &Path,
        item: impl FnOnce() -> String,
        what: impl FnOnce() -> String,
    ) {
        let count = self.counts.entry(fault).or_default();
        *count += 1;
        if *count <= MOST_KEPT {
            self.findings.push(Finding {
                fault,
                manifest: manifest.to_path_buf(),
                item: item(),
                what: what(),
            });
        }
    }
}

/// 16 bytes that stand for any number of them.
pub(super) type Hash = [u8; 16];

pub(super) fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    short(&hasher.finalize())
}

/// What stands for an item's sound: shards may hold many of the same name.
pub(super) fn sound(item: &Item) -> Hash {
    let member = item.sound.as_ref().map(|m| &m.place);
    let (shard, at) = match member {
        Some(place) => (place.file.as_os_str().as_encoded_bytes(), place.at),
        None => (&[][..], 0),
    };
    hash([item.name.as_bytes(), shard, &at.to_le_bytes()])
}

pub(super) fn short(hash: &blake3::Hash) -> Hash {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}
