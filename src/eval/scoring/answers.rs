//! Items judged as they are read: each record is parsed, judged by both of a card's rules and forgotten while it is at hand. What
//! stays of it is its line of the results and what the metrics read.

use super::beside::SAID;
use super::files::{is_control, Cut, Opened};
use super::frame::{self, Constants};
use super::measure::{goes_by_more, Mark, More, Row};
use super::mmau_pro::{self, left_out, Undecided};
use super::samples::{official, samples, Form, Sample};
use super::Kind;
use crate::benchmark::Card;
use crate::error::Result;
use crate::eval::rules::{Judged, RuleName};
use crate::fsutil::hex;
use crate::run::scored::ScoredItem;
use indexmap::IndexMap;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The items of a file of predictions, judged.
pub struct Answers<'a> {
    /// Who has written the file.
    pub form: Form,
    /// In so many records half of a surrogate pair was replaced, as in [`Records`](super::Records).
    pub mended: usize,
    /// So many were answers of `af2 eval` to silence in the sound's place, and are left out.
    pub silent: usize,
    pub(super) kind: Kind,
    pub(super) rule: RuleName,
    /// The other kind's, where it is another one.
    pub(super) other: Option<RuleName>,
    pub(super) all: Part<'a>,
    /// Of the items, where they stand within the predictions.
    pub(super) sha256: Option<String>,
}

/// Some items of a file, in its order.
#[derive(Default)]
pub(super) struct Part<'a> {
    /// As results have them.
    pub items: Vec<ScoredItem>,
    pub rows: Vec<Row<'a>>,
    /// By the rule, items of other splits too.
    pub marks: Vec<Mark>,
    /// By the other rule.
    pub others: Vec<Mark>,
    /// What constant answers get, where that was asked for; none where an item that counts has no options.
    pub constants: Vec<Option<Constants>>,
    pub groups: Groups<'a>,
    pub undecided: Undecided,
    silent: usize,
    /// The items as they are hashed.
    bytes: Vec<u8>,
}

/// Items in the score, and right ones among them, by key and value, each where it comes first.
#[derive(Default)]
pub(super) struct Groups<'a>(pub IndexMap<&'static str, IndexMap<Cow<'a, str>, [usize; 2]>>);

impl<'a> Groups<'a> {
    fn add(&mut self, key: &'static str, value: Cow<'a, str>, [n, correct]: [usize; 2]) {
        let of = self.0.entry(key).or_default();
        let own = match of.get_mut(&value) {
            Some(own) => own,
            None => of.entry(value).or_default(),
        };
        *own = [own[0] + n, own[1] + correct];
    }
}

impl Part<'_> {
    fn with_room(text: &str) -> Self {
        // Few records are shorter.
        let room = text.len() / 256;
        Part {
            items: Vec::with_capacity(room),
            rows: Vec::with_capacity(room),
            marks: Vec::with_capacity(room),
            others: Vec::with_capacity(room),
            ..Part::default()
        }
    }
}

/// Puts parts together, in their order.
fn together<'a>(parts: Vec<Part<'a>>) -> Part<'a> {
    let n = parts.iter().map(|part| part.items.len()).sum();
    let mut all = Part {
        items: Vec::with_capacity(n),
        rows: Vec::with_capacity(n),
        ..Part::default()
    };
    for part in parts {
        all.items.extend(part.items);
        all.rows.extend(part.rows);
        all.marks.extend(part.marks);
        all.others.extend(part.others);
        all.constants.extend(part.constants);
        for (key, of) in part.groups.0 {
            for (value, counts) in of {
                all.groups.add(key, value, counts);
            }
        }
        all.undecided.append(part.undecided);
        all.silent += part.silent;
    }
    all
}

/// How items are judged.
struct Judge<'c> {
    card: &'c Card,
    rule: RuleName,
    other: Option<RuleName>,
    /// What constant answers get is asked for.
    frame: bool,
    /// The items have no hash of their own.
    hashes: bool,
    more: bool,
}

impl Judge<'_> {
    fn verdict(&self, rule: RuleName, sample: &Sample) -> Judged {
        if !mmau_pro::decides(self.card, rule, sample) {
            return left_out();
        }
        let official = sample.record.as_ref().and_then(|r| rule.record_as_read(r));
        official.unwrap_or_else(|| rule.judge(&sample.item()))
    }

    fn add<'a>(&self, sample: Sample<'a>, part: &mut Part<'a>) {
        let within = in_split(self.card, &sample);
        let judged = self.verdict(self.rule, &sample);
        let counted = judged.counted && within;
        part.marks.push(Mark::of(&judged, self.more));
        if let Some(other) = self.other {
            part.others
                .push(Mark::of(&self.verdict(other, &sample), self.more));
        }
        if self.frame {
            part.constants
                .push(frame::constants(self.card, self.rule, &sample, counted));
        }
        if self.hashes {
            hashed(&sample, &mut part.bytes);
        }
        if !mmau_pro::decides(self.card, self.rule, &sample) {
            part.undecided.add(&sample);
        }
        let correct = judged.correct;
        part.items.push(item(&sample, judged, counted));
        part.rows.push(Row {
            within,
            more: self.more.then(|| Box::new(self.more(&sample))),
            clip: sample.clip,
        });
        if counted {
            for (key, value) in sample.groups {
                part.groups.add(key, value, [1, usize::from(correct)]);
            }
        }
    }

    fn more<'a>(&self, sample: &Sample<'a>) -> More<'a> {
        let over = sample.groups.iter();
        let over = over.filter(|(key, _)| self.card.over.as_deref() == Some(key));
        More {
            answer: sample.answer.clone(),
            prediction: sample.prediction.clone(),
            over: over.map(|(_, value)| value.clone()).collect(),
        }
    }

    /// A file whose records are the benchmark's own, part after part; none of what has to be read as one.
    fn in_parts<'a>(&self, cut: &Cut<'a>) -> Option<(Form, Part<'a>, Option<String>)> {
        let form = Form::of(&cut.first()?, self.card);
        let Form::Official(format) = form else {
            return None;
        };
        let (next, hashing) = (AtomicUsize::new(0), Hashing::default());
        let one = |at: usize| {
            let mut part = Part::with_room(cut.text(at));
            cut.each(at, |record| {
                if !record.is_object() {
                    return None;
                }
                if is_control(&record) {
                    part.silent += 1;
                    return Some(());
                }
                // One that has no name is called by its place, which is not known here.
                self.add(official(format, None, record)?, &mut part);
                Some(())
            })?;
            hashing.add(at, std::mem::take(&mut part.bytes));
            Some(part)
        };
        // One after the other, by whoever is free: hashing follows closely.
        let some = |_| {
            let mut own = Vec::new();
            loop {
                match next.fetch_add(1, Ordering::Relaxed) {
                    at if at < cut.len() => match one(at) {
                        Some(part) => own.push((at, part)),
                        None => {
                            next.store(cut.len(), Ordering::Relaxed);
                            return None;
                        }
                    },
                    _ => return Some(own),
                }
            }
        };
        let parts: Option<Vec<Vec<_>>> = (0..rayon::current_num_threads())
            .into_par_iter()
            .map(some)
            .collect();
        let mut parts: Vec<(usize, Part)> = parts?.into_iter().flatten().collect();
        parts.sort_unstable_by_key(|(at, _)| *at);
        let (all, sha256) = rayon::join(
            || together(parts.into_iter().map(|(_, part)| part).collect()),
            || self.hashes.then(|| hashing.finish()),
        );
        Some((form, all, sha256))
    }

    /// Any samples.
    fn of<'a>(&self, samples: Vec<Sample<'a>>) -> (Part<'a>, Option<String>) {
        let add = |mut part: Part<'a>, sample| {
            self.add(sample, &mut part);
            part
        };
        let parts: Vec<Part> = samples.into_par_iter().fold(Part::default, add).collect();
        let mut hasher = Sha256::new();
        parts.iter().for_each(|part| hasher.update(&part.bytes));
        let sha256 = self.hashes.then(|| hex(&hasher.finalize()));
        (together(parts), sha256)
    }
}

/// Reads a file's items and judges them by the card's rule of this kind and by its other one; with `frame` each of their options as
/// well, as if a model had answered it.
///
/// # Errors
/// What [`Opened::records`], [`samples`] and [`Kind::rule`] refuse.
pub fn answers<'a>(
    path: &Path,
    opened: &'a Opened,
    items: Option<(&Path, &'a Opened)>,
    card: &Card,
    kind: Kind,
    frame: bool,
) -> Result<Answers<'a>> {
    let rule = kind.rule(card)?;
    let other = kind.other().rule(card).ok().filter(|other| *other != rule);
    let judge = Judge {
        card,
        rule,
        other,
        frame,
        hashes: items.is_none(),
        more: goes_by_more(card),
    };
    let of = |form, mended, all: Part<'a>, sha256| Answers {
        form,
        mended,
        silent: all.silent,
        kind,
        rule,
        other,
        all,
        sha256,
    };
    let cut = opened.cut().filter(|_| items.is_none());
    if let Some((form, all, sha256)) = cut.and_then(|cut| judge.in_parts(&cut)) {
        return Ok(of(form, 0, all, sha256));
    }
    let mut records = opened.records()?;
    let (mended, silent) = (records.mended, records.without_control());
    let items = match items {
        Some((of, items)) => Some((of, items.records()?)),
        None => None,
    };
    let (form, samples) = samples(path, records, items, card)?;
    let (all, sha256) = judge.of(samples);
    Ok(of(form, mended, Part { silent, ..all }, sha256))
}

/// Whether the item is one of the card's scored split; what the file does not say of an item speaks for it.
fn in_split(card: &Card, sample: &Sample) -> bool {
    let Some(split) = card.scored_split() else {
        return true;
    };
    split.filter.iter().all(|(key, wanted)| {
        let mut own = sample.groups.iter().filter(|(k, _)| k == key).peekable();
        own.peek().is_none() || own.any(|(_, value)| wanted.iter().any(|w| w == value))
    })
}

/// Appends the item, without what a model has written.
fn hashed(sample: &Sample, out: &mut Vec<u8>) {
    match &sample.record {
        Some(record) => record.write_of(|key| !SAID.contains(&key), out),
        None => {
            let s = sample;
            let own = serde_json::json!([s.id, s.clip, s.question, s.choices, s.answer]);
            out.extend(own.to_string().bytes());
        }
    }
    out.push(b'\n');
}

fn item(sample: &Sample, judged: Judged, counted: bool) -> ScoredItem {
    let text = sample.prediction.as_deref().unwrap_or_default();
    let characters = |bytes: usize| text.get(..bytes).map(|t| t.chars().count());
    let span = judged.span.and_then(|s| {
        let start = characters(s.start)?;
        Some([start, start + text.get(s)?.chars().count()])
    });
    ScoredItem {
        id: sample.id.to_string(),
        state: judged.state.name().into(),
        answer: judged.answer,
        span,
        correct: judged.correct,
        counted,
        by: judged.by.into(),
        reason: judged.reason,
        clip: sample.clip.as_ref().map(|clip| clip.to_string()),
        scores: IndexMap::new(),
    }
}

/// The hash of what comes in parts, not in their order.
#[derive(Default)]
struct Hashing {
    /// Parts that wait for one before them.
    waiting: Mutex<BTreeMap<usize, Vec<u8>>>,
    /// The next one, and what is hashed.
    done: Mutex<(usize, Sha256)>,
}

impl Hashing {
    fn add(&self, part: usize, bytes: Vec<u8>) {
        held(&self.waiting).insert(part, bytes);
        // Nobody waits: who hashes takes what others leave, and the last of it is left to the end.
        match self.done.try_lock() {
            Ok(mut done) => self.go_on(&mut done),
            Err(TryLockError::Poisoned(mut e)) => self.go_on(e.get_mut()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn go_on(&self, (next, hasher): &mut (usize, Sha256)) {
        loop {
            let Some(bytes) = held(&self.waiting).remove(next) else {
                return;
            };
            hasher.update(&bytes);
            *next += 1;
        }
    }

    fn finish(self) -> String {
        let mut done = held(&self.done).clone();
        self.go_on(&mut done);
        hex(&done.1.finalize())
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
