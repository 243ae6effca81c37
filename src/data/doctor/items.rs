//! The items of a manifest, one after the other.

use super::found::{hash, sound, Checks, Diagnosis, Fault, Hash, Summary};
use super::sounds::{Files, Heard, Sounds};
use crate::data::bucket::{batches, padding, Length, Limits};
use crate::data::item::Item;
use crate::data::manifest::Manifest;
use crate::error::Result;
use crate::shapes::WINDOW_SECONDS;
use crate::text::in_texts::Names;
use indexmap::IndexMap;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A file's duration may be off by this much from what the manifest says, in seconds, or by this share.
const DURATION_OFF: (f64, f64) = (0.5, 0.02);
/// Answers that are counted by themselves; the rest is one row.
const MOST_ANSWERS: usize = 12;
/// Items that are in memory at once.
const AT_ONCE: usize = 1 << 14;

/// Looks at the manifest that has this number.
pub(super) fn look(
    manifest: &Manifest,
    number: u32,
    checks: &Checks,
    names: &Names,
    sounds: &mut Sounds,
    all: &mut Diagnosis,
) -> Result<Summary> {
    let n = manifest.len();
    let mut files = Files::default();
    let (mut asked, mut answers) = (Tally::of(n), Tally::of(n));
    let mut lengths = Vec::with_capacity(n);
    let (mut windows, mut seconds) = (BTreeMap::new(), 0.0);
    for first in (0..n).step_by(AT_ONCE) {
        let some = first..n.min(first + AT_ONCE);
        let items: Vec<Item> = some
            .into_par_iter()
            .map(|i| manifest.item(i))
            .collect::<Result<_>>()?;
        let heard = files.hear((manifest, number), first, &items, checks, sounds);
        let texts: Vec<Texts> = items
            .par_iter()
            .map(|item| texts(item, checks, names))
            .collect::<Result<_>>()?;
        for (i, ((item, heard), texts)) in items.iter().zip(heard).zip(texts).enumerate() {
            let mut add = |fault, what: &dyn Fn() -> String| {
                all.add(fault, &manifest.path, || item.key.clone(), what);
            };
            for (fault, what) in &texts.faults {
                add(*fault, &|| what.clone());
            }
            let start = item.audio_start.0.to_bits().to_le_bytes();
            asked.add([&sound(item)[..], item.prompt.as_bytes(), &start], first + i);
            answers.add([item.output.trim().as_bytes()], first + i);
            let found = match heard {
                Heard::Sound(found) => found,
                Heard::Bad(fault, number) => {
                    add(fault, &|| files.words(fault, number));
                    continue;
                }
            };
            let whole = found.or(item.duration.map(|s| s.0)).unwrap_or(WINDOW_SECONDS);
            let own = (whole - item.audio_start.0).max(0.0);
            if let (Some(said), Some(found)) = (item.duration, found) {
                // A clip from the middle may say its own length or the file's.
                let off = (said.0 - found).abs().min((said.0 - own).abs());
                if off > DURATION_OFF.0.max(DURATION_OFF.1 * found) {
                    add(Fault::WrongDuration, &|| {
                        format!("{} s, the file has {found:.2} s", said.0)
                    });
                }
            }
            let n = ((own / WINDOW_SECONDS).ceil() as usize).clamp(1, checks.windows.max(1));
            *windows.entry(n).or_default() += 1;
            lengths.push(Length {
                windows: n,
                tokens: texts.tokens,
            });
            seconds += own.min(checks.windows as f64 * WINDOW_SECONDS);
        }
    }
    let mut again: Vec<(u32, u32)> = Vec::new();
    for group in asked.groups() {
        again.extend(group[1..].iter().map(|(_, item)| (*item, group[0].1)));
    }
    drop(asked);
    again.par_sort_unstable();
    for (item, first) in again {
        let key = |item: u32| manifest.key(item as usize);
        let what = || format!("asks what item {} asks, of the same audio", key(first));
        all.add(Fault::DuplicateItem, &manifest.path, || key(item), what);
    }
    let (padding_in_order, padding_in_buckets) = paddings(&lengths, checks.batch);
    Ok(Summary {
        manifest: manifest.path.clone(),
        task: manifest.task.clone(),
        split: manifest.split.clone(),
        items: n,
        files: files.len(),
        hours: seconds / 3600.0,
        windows,
        padding_in_order,
        padding_in_buckets,
        answers: most_frequent(answers, manifest)?,
    })
}

/// What there is to say of an item's texts.
struct Texts {
    tokens: usize,
    faults: Vec<(Fault, String)>,
}

fn texts(item: &Item, checks: &Checks, names: &Names) -> Result<Texts> {
    let mut faults = Vec::new();
    let both = [
        (&item.prompt, Fault::EmptyPrompt, "prompt"),
        (&item.output, Fault::EmptyOutput, "output"),
    ];
    for (text, fault, name) in both {
        if text.trim().is_empty() {
            faults.push((fault, format!("{name} is empty")));
        }
    }
    let mut special = Vec::new();
    for (text, _, name) in both {
        special.extend(names.within(text).into_iter().map(|(token, n)| match n {
            1 => format!("{name} holds {token}"),
            n => format!("{name} holds {token} {n} times"),
        }));
    }
    if !special.is_empty() {
        faults.push((Fault::SpecialTokens, special.join(", ")));
    }
    let mut tokens = 0;
    if let Some((tokenizer, most)) = checks.tokenizer {
        tokens = tokenizer.example(&item.prompt, &item.output)?.len();
        if tokens > most {
            faults.push((
                Fault::LongText,
                format!("{tokens} tokens, at most {most} are read"),
            ));
        }
    }
    Ok(Texts { tokens, faults })
}

/// Shares of padding in the manifest's order and in buckets.
fn paddings(lengths: &[Length], batch: usize) -> (f64, f64) {
    let in_order: Vec<usize> = (0..lengths.len()).collect();
    let (of_order, _) = padding(in_order.chunks(batch.max(1)), lengths);
    let longest = lengths.iter().map(|l| l.windows).max().unwrap_or(1);
    let limits = Limits {
        windows: longest.max(batch),
        tokens: usize::MAX,
        items: usize::MAX,
        multiple: 1,
    };
    let in_buckets = batches(lengths, &limits, 0);
    (of_order, padding(in_buckets.iter().map(Vec::as_slice), lengths).0)
}

/// Texts of all items, as hashes.
struct Tally(Vec<(Hash, u32)>);

impl Tally {
    fn of(items: usize) -> Self {
        Tally(Vec::with_capacity(items))
    }

    fn add<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>, item: usize) {
        self.0.push((hash(parts), item as u32));
    }

    /// Items with the same text, in their order.
    fn groups(&mut self) -> impl Iterator<Item = &[(Hash, u32)]> {
        self.0.par_sort_unstable();
        self.0.chunk_by(|a, b| a.0 == b.0)
    }
}

fn most_frequent(mut answers: Tally, manifest: &Manifest) -> Result<IndexMap<String, usize>> {
    // Those that come as often stand in the manifest's order.
    let mut top: Vec<(usize, u32)> = Vec::new();
    let mut rest = 0;
    for group in answers.groups() {
        let own = (group.len(), group[0].1);
        let place = top.partition_point(|other| (other.0, own.1) > (own.0, other.1));
        top.insert(place, own);
        if top.len() > MOST_ANSWERS {
            rest += top.pop().map_or(0, |(n, _)| n);
        }
    }
    let mut all = IndexMap::new();
    for (n, item) in top {
        all.insert(manifest.item(item as usize)?.output.trim().to_owned(), n);
    }
    if rest > 0 {
        all.insert("…".into(), rest);
    }
    Ok(all)
}
