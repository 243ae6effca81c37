//! The data doctor: what is wrong with manifests and their audio, before a run finds out.
//!
//! Headers are read in parallel; a sound file is decoded nowhere, but its bytes are hashed where duplicates and leaks
//! are asked for.

use super::bucket::{batches, padding, Length, Limits};
use super::feed::Clip;
use super::item::Item;
use super::manifest::Manifest;
use crate::audio::{decode::Reader, Source};
use crate::error::{Error, Result};
use crate::shapes::WINDOW_SECONDS;
use indexmap::IndexMap;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A file's duration may be off by this much from what the manifest says, in seconds, or by this share.
const DURATION_OFF: (f64, f64) = (0.5, 0.02);
/// Answers that are counted by themselves; the rest is one row.
const MOST_ANSWERS: usize = 12;

/// Tokens of an item's prompt and answer together.
pub type CountTokens<'a> = &'a (dyn Fn(&Item) -> Result<usize> + Sync);

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
    /// Tokens of prompt and answer, and the limit; none without a tokenizer.
    pub tokens: Option<(CountTokens<'a>, usize)>,
}

/// A fault, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The manifest itself: not JSON, fields missing, a wrong `total_num`.
    Manifest,
    MissingAudio,
    /// Empty, cut off, or of no known format.
    UnreadableAudio,
    /// The header tells another length than the manifest.
    WrongDuration,
    EmptyPrompt,
    EmptyOutput,
    /// Prompt and answer are longer than the token limit: the answer is cut.
    LongText,
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
    pub fault: Fault,
    pub manifest: PathBuf,
    /// The item's key; empty where the whole manifest is meant.
    pub item: String,
    pub what: String,
}

/// A manifest in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub manifest: PathBuf,
    pub task: String,
    pub split: String,
    pub items: usize,
    pub files: usize,
    /// Hours of audio that items hear, by the headers.
    pub hours: f64,
    /// Items by their number of windows.
    pub windows: BTreeMap<usize, usize>,
    /// Share of the encoder's work that padding would be: in the manifest's order, and in buckets.
    pub padding_in_order: f64,
    pub padding_in_buckets: f64,
    /// The most frequent answers and how often they stand; the rest under "…".
    pub answers: IndexMap<String, usize>,
}

/// Everything found.
#[derive(Debug, Default, Serialize)]
pub struct Diagnosis {
    pub manifests: Vec<Summary>,
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Faults by kind.
    pub fn counts(&self) -> BTreeMap<Fault, usize> {
        let mut counts = BTreeMap::new();
        for f in &self.findings {
            *counts.entry(f.fault).or_default() += 1;
        }
        counts
    }
}

/// What a header tells of a file.
struct Heard {
    /// Seconds, where the container says.
    seconds: Option<f64>,
    hash: Option<blake3::Hash>,
}

/// Looks at manifests and all the audio that they name.
///
/// # Errors
/// A tokenizer that fails. What is wrong with the data is in the diagnosis.
pub fn examine(manifests: &[PathBuf], checks: &Checks) -> Result<Diagnosis> {
    let mut all = Diagnosis::default();
    // Bytes of a file → the splits and files that have them.
    let mut owners: HashMap<blake3::Hash, Vec<(String, PathBuf, String, PathBuf)>> = HashMap::new();
    for path in manifests {
        let manifest = match Manifest::open(path) {
            Ok(manifest) => manifest,
            Err(e) => {
                let fault = |what: String| Finding {
                    fault: Fault::Manifest,
                    manifest: path.clone(),
                    item: String::new(),
                    what,
                };
                match e {
                    Error::Many(errors) => all.findings.extend(errors.iter().map(|e| fault(e.to_string()))),
                    e => all.findings.push(fault(e.to_string())),
                }
                continue;
            }
        };
        let items = manifest.items()?;
        let heard = listen(&manifest, &items, checks);
        let (summary, findings) = look(&manifest, &items, &heard, checks)?;
        all.manifests.push(summary);
        all.findings.extend(findings);
        let mut named: HashMap<&str, &Item> = HashMap::new();
        for item in &items {
            named.entry(&item.name).or_insert(item);
        }
        for (name, item) in named {
            if let Some(Ok(Heard { hash: Some(hash), .. })) = heard.get(name) {
                let file = manifest.audio_path(checks.root, item);
                let owner = (manifest.split.clone(), path.clone(), item.key.clone(), file);
                owners.entry(*hash).or_default().push(owner);
            }
        }
    }
    for mut same in owners.into_values().filter(|o| o.len() > 1) {
        same.sort();
        let (first, rest) = (same[0].clone(), &same[1..]);
        for (split, manifest, item, file) in rest {
            let fault = match (*split == first.0, *manifest == first.1) {
                (false, _) => Fault::Leak,
                (true, true) => Fault::DuplicateAudio,
                // Two sets may ask about the same clips.
                (true, false) => continue,
            };
            let other = format!("{} in {} ({})", first.3.display(), first.1.display(), first.0);
            all.findings.push(Finding {
                fault,
                manifest: manifest.clone(),
                item: item.clone(),
                what: format!("{} has the bytes of {other}", file.display()),
            });
        }
    }
    all.findings
        .sort_by(|a, b| (a.fault, &a.manifest, &a.item).cmp(&(b.fault, &b.manifest, &b.item)));
    Ok(all)
}

/// Opens every file of a manifest once, in parallel.
fn listen<'m>(manifest: &Manifest, items: &'m [Item], checks: &Checks) -> HashMap<&'m str, Result<Heard>> {
    let files: HashMap<&str, &Item> = items.iter().map(|i| (i.name.as_str(), i)).collect();
    let open = |(name, item): (_, &Item)| {
        let clip = Clip::of(manifest, item, checks.root, checks.windows);
        (name, header(&clip.source, checks.hash))
    };
    files.into_par_iter().map(open).collect()
}

fn header(source: &Source, hash: bool) -> Result<Heard> {
    let reader = Reader::open_source(source)?;
    let seconds = reader.frames.map(|n| n as f64 / f64::from(reader.rate));
    let hash = match hash {
        false => None,
        true => Some(source.hash()?),
    };
    Ok(Heard { seconds, hash })
}

fn look(
    manifest: &Manifest,
    items: &[Item],
    heard: &HashMap<&str, Result<Heard>>,
    checks: &Checks,
) -> Result<(Summary, Vec<Finding>)> {
    let mut findings = Vec::new();
    let (mut windows, mut lengths, mut seconds) = (BTreeMap::new(), Vec::new(), 0.0);
    let mut answers: HashMap<&str, usize> = HashMap::new();
    let mut asked: HashMap<(&str, &str, u64), &str> = HashMap::new();
    let tokens = match checks.tokens {
        None => Vec::new(),
        Some((count, _)) => items.par_iter().map(count).collect::<Result<Vec<_>>>()?,
    };
    for (i, item) in items.iter().enumerate() {
        let mut add = |fault, what: String| {
            findings.push(Finding {
                fault,
                manifest: manifest.path.clone(),
                item: item.key.clone(),
                what,
            })
        };
        for (text, fault, name) in [
            (&item.prompt, Fault::EmptyPrompt, "prompt"),
            (&item.output, Fault::EmptyOutput, "output"),
        ] {
            if text.trim().is_empty() {
                add(fault, format!("{name} is empty"));
            }
        }
        if let Some((_, most)) = checks.tokens.filter(|(_, most)| tokens[i] > *most) {
            add(
                Fault::LongText,
                format!("{} tokens, at most {most} are read", tokens[i]),
            );
        }
        let question = (
            item.name.as_str(),
            item.prompt.as_str(),
            item.audio_start.0.to_bits(),
        );
        match asked.get(&question) {
            Some(first) => add(
                Fault::DuplicateItem,
                format!("asks what item {first} asks, of the same audio"),
            ),
            None => drop(asked.insert(question, &item.key)),
        }
        *answers.entry(item.output.trim()).or_default() += 1;
        match heard.get(item.name.as_str()) {
            Some(Ok(h)) => {
                let whole = h.seconds.or(item.duration.map(|s| s.0)).unwrap_or(WINDOW_SECONDS);
                let own = (whole - item.audio_start.0).max(0.0);
                if let (Some(said), Some(found)) = (item.duration, h.seconds) {
                    // A clip from the middle may say its own length or the file's.
                    let off = (said.0 - found).abs().min((said.0 - own).abs());
                    if off > DURATION_OFF.0.max(DURATION_OFF.1 * found) {
                        add(
                            Fault::WrongDuration,
                            format!("{} s, the file has {found:.2} s", said.0),
                        );
                    }
                }
                let n = ((own / WINDOW_SECONDS).ceil() as usize).clamp(1, checks.windows.max(1));
                *windows.entry(n).or_default() += 1;
                let tokens = tokens.get(i).copied().unwrap_or_default();
                lengths.push(Length { windows: n, tokens });
                seconds += own.min(checks.windows as f64 * WINDOW_SECONDS);
            }
            Some(Err(e)) => {
                let missing =
                    matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
                let fault = if missing {
                    Fault::MissingAudio
                } else {
                    Fault::UnreadableAudio
                };
                add(fault, e.to_string().lines().next().unwrap_or_default().to_owned());
            }
            None => {}
        }
    }
    let in_order: Vec<Vec<usize>> = (0..lengths.len())
        .collect::<Vec<_>>()
        .chunks(checks.batch.max(1))
        .map(<[_]>::to_vec)
        .collect();
    let longest = lengths.iter().map(|l| l.windows).max().unwrap_or(1);
    let limits = Limits {
        windows: longest.max(checks.batch),
        tokens: usize::MAX,
        items: usize::MAX,
        multiple: 1,
    };
    let summary = Summary {
        manifest: manifest.path.clone(),
        task: manifest.task.clone(),
        split: manifest.split.clone(),
        items: items.len(),
        files: heard.len(),
        hours: seconds / 3600.0,
        windows,
        padding_in_order: padding(in_order.iter().map(Vec::as_slice), &lengths).0,
        padding_in_buckets: padding(batches(&lengths, &limits, 0).iter().map(Vec::as_slice), &lengths).0,
        answers: most_frequent(answers),
    };
    Ok((summary, findings))
}

fn most_frequent(answers: HashMap<&str, usize>) -> IndexMap<String, usize> {
    let mut sorted: Vec<(&str, usize)> = answers.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let rest: usize = sorted.iter().skip(MOST_ANSWERS).map(|(_, n)| n).sum();
    let mut top: IndexMap<String, usize> = sorted
        .into_iter()
        .take(MOST_ANSWERS)
        .map(|(a, n)| (a.to_owned(), n))
        .collect();
    if rest > 0 {
        top.insert("…".into(), rest);
    }
    top
}
