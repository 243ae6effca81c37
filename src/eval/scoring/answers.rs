//! Items judged as they are read: each record is parsed, judged by both of a card's rules and forgotten while it is at hand. What
//! stays of it is its line of the results and what the metrics read.

use super::beside::SAID;
use super::cut::Cut;
use super::files::{is_control, Opened};
use super::frame::{self, Constants};
use super::measure::{goes_by_more, Mark, More, Row};
use super::mmau_pro::{self, left_out, Undecided};
use super::near;
use super::sample::{official, Form, Sample};
use super::samples::{samples, Samples};
use super::space::embed;
use super::Kind;
use crate::benchmark::Card;
use crate::error::Result;
use crate::eval::json::same;
use crate::eval::rules::{Judged, RuleName};
use crate::fsutil::hex;
use crate::load::TextSpace;
use crate::run::scored::ScoredItem;
use indexmap::IndexMap;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
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
    /// So many were its answers to other manifests than that of the items.
    pub elsewhere: usize,
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
pub(super) struct Groups<'a>(pub Vec<(&'static str, Counts<'a>)>);

/// By value.
pub(super) type Counts<'a> = IndexMap<Cow<'a, str>, [usize; 2]>;

impl<'a> Groups<'a> {
    fn add(&mut self, key: &'static str, value: Cow<'a, str>, [n, correct]: [usize; 2]) {
        // A benchmark has a handful of them.
        let at = self.0.iter().position(|(own, _)| *own == key);
        let at = at.unwrap_or_else(|| {
            self.0.push((key, IndexMap::new()));
            self.0.len() - 1
        });
        let of = &mut self.0[at].1;
        // Up to so many values a look at each is faster than a hash.
        const FEW: usize = 32;
        let own = match of.len() {
            0..=FEW => of
                .iter_mut()
                .find(|(own, _)| same(own, &value))
                .map(|(_, own)| own),
            _ => of.get_mut(&value),
        };
        match own {
            Some(own) => *own = [own[0] + n, own[1] + correct],
            None => {
                of.insert(value, [n, correct]);
            }
        }
    }
}

impl<'a> Part<'a> {
    /// Takes what another part has, and leaves its room.
    fn append(&mut self, other: &mut Part<'a>) {
        self.items.append(&mut other.items);
        self.rows.append(&mut other.rows);
        self.marks.append(&mut other.marks);
        self.others.append(&mut other.others);
        self.constants.append(&mut other.constants);
        for (key, of) in other.groups.0.drain(..) {
            for (value, counts) in of {
                self.groups.add(key, value, counts);
            }
        }
        self.undecided.append(std::mem::take(&mut other.undecided));
        self.silent += std::mem::take(&mut other.silent);
    }
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
    /// Of clips.
    hashing: RandomState,
}

impl Judge<'_> {
    fn verdict(&self, rule: RuleName, sample: &Sample) -> Judged {
        if !mmau_pro::decides(self.card, rule, sample) {
            return left_out();
        }
        let official = sample.record.as_ref().and_then(|r| rule.record_as_read(r));
        official.unwrap_or_else(|| rule.judge(&sample.item()))
    }

    /// Returns the choices' room.
    fn add<'a>(&self, sample: Sample<'a>, part: &mut Part<'a>) -> Vec<String> {
        let within = in_split(self.card, &sample);
        let judged = self.verdict(self.rule, &sample);
        let counted = judged.counted && within;
        part.marks.push(Mark::of(&judged, self.more));
        if let Some(other) = self.other {
            part.others
                .push(Mark::of(&self.verdict(other, &sample), self.more));
        }
        if self.frame {
            part.constants.push(frame::constants(
                self.card,
                self.rule,
                &sample,
                judged.state,
                counted,
            ));
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
            clip: sample.clip.map(|clip| (self.hashing.hash_one(&clip), clip)),
        });
        if counted {
            for (key, value) in sample.groups {
                part.groups.add(key, value, [1, usize::from(correct)]);
            }
        }
        sample.choices
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
        let (next, order) = (AtomicUsize::new(0), Order::default());
        let one = |at: usize, room: &mut Vec<String>| {
            let mut part = order.room();
            cut.each(at, |record| {
                if !record.is_object() {
                    return None;
                }
                if is_control(&record) {
                    part.silent += 1;
                    return Some(());
                }
                // One that has no name is called by its place, which is not known here.
                let sample = official(format, None, record, std::mem::take(room))?;
                *room = self.add(sample, &mut part);
                Some(())
            })?;
            order.add(at, part);
            Some(())
        };
        // One after the other, by whoever is free: putting them together follows closely.
        let some = |_| {
            let mut room = Vec::new();
            loop {
                match next.fetch_add(1, Ordering::Relaxed) {
                    at if at < cut.len() => {
                        if one(at, &mut room).is_none() {
                            next.store(cut.len(), Ordering::Relaxed);
                            return None;
                        }
                    }
                    _ => return Some(()),
                }
            }
        };
        let workers = 0..rayon::current_num_threads();
        workers.into_par_iter().map(some).collect::<Option<()>>()?;
        let done = order.finish();
        Some((form, done.all, self.hashes.then(|| hex(&done.hasher.finalize()))))
    }

    /// Any samples.
    fn of<'a>(&self, samples: Vec<Sample<'a>>) -> (Part<'a>, Option<String>) {
        let add = |mut part: Part<'a>, sample| {
            self.add(sample, &mut part);
            part
        };
        let parts: Vec<Part> = samples.into_par_iter().fold(Part::default, add).collect();
        let mut done = Done::default();
        parts.into_iter().for_each(|mut part| done.add(&mut part));
        (done.all, self.hashes.then(|| hex(&done.hasher.finalize())))
    }
}

/// Reads a file's items and judges them by the card's rule of this kind and by its other one; with `frame` each of their options as
/// well, as if a model had answered it. `tower` embeds what rules that compare embeddings look at.
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
    tower: Option<&TextSpace>,
) -> Result<Answers<'a>> {
    let rule = kind.rule(card)?;
    let embedded = |rule: RuleName| !rule.compares_embeddings() || tower.is_some();
    if !embedded(rule) {
        return Err(near::wanted(card, kind.name()));
    }
    let other = kind.other().rule(card).ok();
    let other = other.filter(|other| *other != rule && embedded(*other));
    let judge = Judge {
        card,
        rule,
        other,
        frame,
        hashes: items.is_none(),
        more: goes_by_more(card),
        hashing: RandomState::new(),
    };
    let of = |form, mended, all: Part<'a>, sha256| Answers {
        form,
        mended,
        silent: all.silent,
        elsewhere: 0,
        kind,
        rule,
        other,
        all,
        sha256,
    };
    let cut = opened.cut().filter(|_| items.is_none() && tower.is_none());
    if let Some((form, all, sha256)) = cut.and_then(|cut| judge.in_parts(&cut)) {
        return Ok(of(form, 0, all, sha256));
    }
    let records = opened.records()?;
    let mended = records.mended;
    let items = match items {
        Some((of, items)) => Some((of, items.records()?)),
        None => None,
    };
    let Samples {
        form,
        mut all,
        silent,
        elsewhere,
    } = samples(path, records, items, card)?;
    if let Some(tower) = tower {
        embed(card, &mut all, tower)?;
    }
    let (all, sha256) = judge.of(all);
    let all = Part { silent, ..all };
    Ok(Answers {
        elsewhere,
        ..of(form, mended, all, sha256)
    })
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
    let nearest = near::nearest(sample, &judged);
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
        nearest,
        scores: IndexMap::new(),
    }
}

/// Parts that are put together in their order, whatever the order in which they come.
#[derive(Default)]
struct Order<'a> {
    /// Those that wait for one before them.
    waiting: Mutex<BTreeMap<usize, Part<'a>>>,
    /// The next one, and those before it.
    done: Mutex<(usize, Done<'a>)>,
    /// Room of parts that were taken, for others.
    rooms: Mutex<Vec<Part<'a>>>,
}

/// Parts put together.
#[derive(Default)]
struct Done<'a> {
    all: Part<'a>,
    /// Of the items.
    hasher: Sha256,
}

impl<'a> Done<'a> {
    fn add(&mut self, part: &mut Part<'a>) {
        self.hasher.update(&part.bytes);
        part.bytes.clear();
        self.all.append(part);
    }
}

impl<'a> Order<'a> {
    fn room(&self) -> Part<'a> {
        held(&self.rooms).pop().unwrap_or_default()
    }

    fn add(&self, at: usize, part: Part<'a>) {
        held(&self.waiting).insert(at, part);
        // Nobody waits: one takes what others leave, and the last of it is left to the end.
        match self.done.try_lock() {
            Ok(mut done) => self.go_on(&mut done),
            Err(TryLockError::Poisoned(mut e)) => self.go_on(e.get_mut()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn go_on(&self, (next, done): &mut (usize, Done<'a>)) {
        loop {
            let Some(mut part) = held(&self.waiting).remove(next) else {
                return;
            };
            done.add(&mut part);
            *next += 1;
            held(&self.rooms).push(part);
        }
    }

    fn finish(self) -> Done<'a> {
        self.go_on(&mut held(&self.done));
        let done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.1
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
