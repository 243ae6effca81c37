//! The data doctor: what is wrong with manifests and their audio, before a run finds out.
//!
//! Headers are read in parallel; a sound file is decoded nowhere, but its bytes are hashed where duplicates and leaks
//! are asked for. Items are read some at a time, and what is kept of each is a hash or a number: some hundred bytes for an
//! item and its file, however long its texts are.

mod items;
mod sounds;

use super::item::Item;
use super::manifest::Manifest;
use crate::error::{Error, Result};
use crate::text::in_texts::Names;
use crate::text::tokenizer::Tokenizer;
use indexmap::IndexMap;
use serde::Serialize;
use sounds::Sounds;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Findings of a kind that are kept; those that follow are counted.
pub const MOST_KEPT: usize = 100_000;

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

    fn add(
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

/// Looks at manifests and all the audio that they name.
///
/// # Errors
/// A tokenizer that fails. What is wrong with the data is in the diagnosis.
pub fn examine(manifests: &[PathBuf], checks: &Checks) -> Result<Diagnosis> {
    let mut all = Diagnosis::default();
    let names = Names::of(checks.tokenizer.map(|(t, _)| t));
    let (mut opened, mut sounds) = (Vec::new(), Sounds::default());
    for path in manifests {
        match Manifest::open(path) {
            Ok(manifest) => {
                let number = opened.len() as u32;
                let summary = items::look(&manifest, number, checks, &names, &mut sounds, &mut all)?;
                all.manifests.push(summary);
                opened.push(manifest);
            }
            Err(e) => {
                let errors = match e {
                    Error::Many(errors) => errors,
                    e => vec![e],
                };
                for e in errors {
                    all.add(Fault::Manifest, path, String::new, || e.to_string());
                }
            }
        }
    }
    sounds.twice(&opened, checks, &mut all);
    // Shorter numbers are smaller ones.
    let place = |f: &Finding| (f.fault, f.manifest.clone(), f.item.len(), f.item.clone());
    all.findings.sort_by_cached_key(place);
    Ok(all)
}

/// 16 bytes that stand for any number of them.
type Hash = [u8; 16];

fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    short(&hasher.finalize())
}

/// What stands for an item's sound: shards may hold many of the same name.
fn sound(item: &Item) -> Hash {
    let member = item.sound.as_ref().map(|m| &m.place);
    let (shard, at) = match member {
        Some(place) => (place.file.as_os_str().as_encoded_bytes(), place.at),
        None => (&[][..], 0),
    };
    hash([item.name.as_bytes(), shard, &at.to_le_bytes()])
}

fn short(hash: &blake3::Hash) -> Hash {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}
