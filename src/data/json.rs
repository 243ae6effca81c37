//! The reference's JSON: one object with the split, and under `data` an item a number. Also a list of items.

use super::fields::{passes, shown, Pairs};
use super::kinds::Kind;
use super::lines::{self, check, MOST_ITEM_BYTES};
use super::manifest::{Entry, Form, Keys, Manifest};
use super::problems::Problems;
use super::python::{blank, unblank};
use crate::error::{Error, Result};
use crate::fsutil;
use rayon::prelude::*;
use serde_json::value::RawValue;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// A JSON manifest is read at once to be checked; JSON lines may be larger.
const MOST_BYTES: u64 = 4 << 30;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Opens the reference's form, a list of items, or JSON lines that do not end in `.jsonl`.
pub(super) fn open(path: &Path, mut file: File, kind: Kind) -> Result<Manifest> {
    let io = |e| Error::io(path, e);
    let size = file.metadata().map_err(io)?.len();
    let hint = "write it as JSON lines: one item a line, in a file that ends in .jsonl";
    if size > MOST_BYTES {
        let expected = format!("at most {MOST_BYTES} bytes");
        return Err(Error::data(path, "size", expected, size.to_string()).hint(hint));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    (&mut file).take(MOST_BYTES).read_to_end(&mut bytes).map_err(io)?;
    // Where the text begins in the file; a text of another encoding is kept whole.
    let base = if bytes.starts_with(BOM) {
        BOM.len() as u64
    } else {
        0
    };
    let mut text = fsutil::text_from_bytes(path, bytes)?;
    let mut words = Vec::new();
    let mut found = look(path, &text, &words, base)?;
    if matches!(found, Found::Broken(_)) {
        let mut bytes = text.into_bytes();
        words = blank(&mut bytes);
        text = fsutil::text_from_bytes(path, bytes)?;
        found = look(path, &text, &words, base)?;
    }
    let mut manifest = match found {
        Found::Manifest(manifest) => *manifest,
        Found::Lines => {
            drop(text);
            return lines::open(path, file, kind);
        }
        Found::Broken(e) => {
            let place = format!("line {} column {}", e.line(), e.column());
            let expected = "JSON with split, split_path, flamingo_task, total_num and data";
            let begins: String = text.trim_start().chars().take(40).collect();
            if !begins.is_empty() && !begins.starts_with(['{', '[']) {
                return Err(Error::data(path, place, expected, format!("{begins:?}")).hint(
                    "data-manifests/README.md shows a manifest; JSON lines and tar shards are read too",
                ));
            }
            return Err(Error::data(path, place, expected, e.to_string()));
        }
    };
    match kind {
        Kind::Utf16 => {
            let mut bytes = text.into_bytes();
            unblank(&mut bytes, 0, &words);
            let text = fsutil::text_from_bytes(path, bytes)?;
            manifest.files.add_text(path, text);
        }
        _ => manifest.files.add(path, file)?,
    }
    Ok(manifest)
}

/// What a text turned out to be.
enum Found {
    /// Without its file.
    Manifest(Box<Manifest>),
    Lines,
    Broken(serde_json::Error),
}

fn look(path: &Path, text: &str, words: &[(usize, &'static str)], base: u64) -> Result<Found> {
    let reader = Reader {
        path,
        text,
        words,
        base,
    };
    Ok(match Top::read(text) {
        Ok(Top::Object(pairs)) => {
            let has = |key: &str| pairs.iter().any(|(k, _)| k == key);
            match !has("data") && has("prompt") && has("output") {
                true => Found::Lines,
                false => Found::Manifest(reader.object(&pairs)?.into()),
            }
        }
        Ok(Top::List(items)) => Found::Manifest(reader.list(&items)?.into()),
        Err(e) if of_lines(text, &e) => Found::Lines,
        Err(e) => Found::Broken(e),
    })
}

/// Whether a file is one JSON value and no lines, for a hint.
pub(super) fn whole(path: &Path) -> bool {
    let text = fsutil::read_text(path).unwrap_or_default();
    match Top::read(&text) {
        Ok(Top::List(_)) => true,
        Ok(Top::Object(pairs)) => pairs.iter().any(|(k, _)| k == "data"),
        Err(_) => false,
    }
}

/// Whether a text that is no JSON is JSON lines: its first line is a value, and more follows.
fn of_lines(text: &str, e: &serde_json::Error) -> bool {
    let first = text.trim_start().lines().next().unwrap_or_default();
    e.is_syntax()
        && first.starts_with('{')
        && text.trim_end().contains('\n')
        && serde_json::from_str::<&RawValue>(first).is_ok()
}

/// A manifest's outermost value.
enum Top<'t> {
    Object(Vec<(Cow<'t, str>, &'t RawValue)>),
    List(Vec<&'t RawValue>),
}

impl<'t> Top<'t> {
    fn read(text: &'t str) -> std::result::Result<Self, serde_json::Error> {
        match text.trim_start().starts_with('[') {
            true => serde_json::from_str(text).map(Top::List),
            false => serde_json::from_str::<Pairs<&RawValue>>(text).map(|pairs| Top::Object(pairs.0)),
        }
    }
}

/// A manifest's text.
struct Reader<'t> {
    path: &'t Path,
    /// Without what is no JSON.
    text: &'t str,
    /// What it had in those places.
    words: &'t [(usize, &'static str)],
    base: u64,
}

impl Reader<'_> {
    fn object(&self, top: &[(Cow<str>, &RawValue)]) -> Result<Manifest> {
        let mut problems = Problems::new(self.path);
        let mut seen = HashSet::new();
        for (key, _) in top.iter().filter(|(key, _)| !seen.insert(key)) {
            problems.add(key, "each key once", "it twice");
        }
        let raw = |key: &str| top.iter().find(|(k, _)| k == key).map(|(_, raw)| *raw);
        let value = |key: &str| -> Option<Value> {
            let short = raw(key).filter(|raw| raw.get().len() < 1 << 16)?;
            serde_json::from_str(short.get()).ok()
        };
        let found = |key: &str| match (raw(key), value(key)) {
            (None, _) => "nothing".to_owned(),
            (Some(raw), _) if raw.get().starts_with('[') => "a list".to_owned(),
            (Some(raw), _) if !self.own(raw).1 => String::from_utf8_lossy(&self.own(raw).0)
                .chars()
                .take(80)
                .collect(),
            (Some(_), Some(value)) => shown(&value),
            (Some(raw), None) => raw.get().chars().take(80).collect(),
        };
        let text_of = |key: &str, problems: &mut Problems| match value(key) {
            Some(Value::String(s)) => s,
            _ => {
                problems.add(key, "a string", &found(key));
                String::new()
            }
        };
        let split = text_of("split", &mut problems);
        let audio_folder = text_of("split_path", &mut problems);
        let task = text_of("flamingo_task", &mut problems);
        let data = raw("data").map(|raw| serde_json::from_str::<Pairs<&RawValue>>(raw.get()));
        let data = match data {
            Some(Ok(data)) => data.0,
            Some(Err(e)) if raw("data").is_some_and(|raw| raw.get().starts_with('{')) => {
                problems.add("data", "an object of items", &format!("{:?}", e.to_string()));
                Vec::new()
            }
            _ => {
                problems.add("data", "an object of items", &found("data"));
                Vec::new()
            }
        };
        match value("total_num") {
            Some(Value::Number(n)) if n.as_u64() == Some(data.len() as u64) => {}
            _ => {
                let expected = format!("{}, the number of items", data.len());
                problems.add("total_num", &expected, &found("total_num"));
            }
        }
        // The reference's keys are numbers written as strings; "10" follows "9".
        let number = |key: &str| key.parse::<u64>().ok().filter(|n| n.to_string() == key);
        let rank = |i: &usize| (number(&data[*i].0).unwrap_or(u64::MAX), data[*i].0.as_ref());
        let mut sorted: Vec<usize> = (0..data.len()).collect();
        sorted.sort_by(|a, b| rank(a).cmp(&rank(b)));
        let mut file_order = None;
        if !sorted.iter().copied().eq(0..data.len()) {
            let mut places = vec![0; data.len()];
            for (place, i) in sorted.iter().enumerate() {
                places[*i] = place;
            }
            file_order = Some(places);
        }
        for pair in sorted.windows(2).filter(|p| data[p[0]].0 == data[p[1]].0) {
            let place = format!("data.{}", data[pair[1]].0);
            problems.add(&place, "each key once", "\"twice the same\"");
        }
        let bad = |i: &&usize| !self.fine(data[**i].1);
        for i in sorted.par_iter().filter(bad).collect::<Vec<_>>() {
            let (key, raw) = &data[*i];
            check(key, &format!("data.{key}"), &self.own(raw).0, &mut problems);
        }
        problems.finish()?;
        let entries = sorted.iter().map(|i| self.entry(data[*i].1)).collect();
        let numbers: Option<Vec<u64>> = sorted.iter().map(|i| number(&data[*i].0)).collect();
        let keys = match numbers {
            Some(n) if n.iter().copied().eq(0..n.len() as u64) => Keys::InOrder,
            Some(n) => Keys::Numbers(n),
            None => Keys::Texts(sorted.iter().map(|i| data[*i].0.as_ref().into()).collect()),
        };
        Ok(Manifest {
            task,
            split,
            audio_folder: audio_folder.into(),
            form: Form::Json,
            entries,
            keys,
            file_order,
            ..Manifest::named(self.path)
        })
    }

    /// Items without a manifest around them, numbered from 0 in the list's order.
    fn list(&self, items: &[&RawValue]) -> Result<Manifest> {
        let mut problems = Problems::new(self.path);
        let bad = |(_, raw): &(usize, &&RawValue)| !self.fine(raw);
        for (i, raw) in items.par_iter().enumerate().filter(bad).collect::<Vec<_>>() {
            check(&i.to_string(), &format!("[{i}]"), &self.own(raw).0, &mut problems);
        }
        problems.finish()?;
        Ok(Manifest {
            form: Form::List,
            entries: items.iter().map(|raw| self.entry(raw)).collect(),
            ..Manifest::named(self.path)
        })
    }

    /// Whether a value is an item, without making one.
    fn fine(&self, raw: &RawValue) -> bool {
        let (text, as_it_is) = self.own(raw);
        as_it_is && text.len() <= MOST_ITEM_BYTES && passes(&text)
    }

    fn at(&self, raw: &RawValue) -> usize {
        raw.get().as_ptr() as usize - self.text.as_ptr() as usize
    }

    /// A value as the file has it, and whether it is JSON so.
    fn own<'r>(&self, raw: &'r RawValue) -> (Cow<'r, [u8]>, bool) {
        let (at, bytes) = (self.at(raw), raw.get().as_bytes());
        let next = self.words.partition_point(|(word, _)| *word < at);
        match self.words.get(next) {
            Some((word, _)) if *word < at + bytes.len() => {
                let mut bytes = bytes.to_vec();
                unblank(&mut bytes, at, self.words);
                (bytes.into(), false)
            }
            _ => (bytes.into(), true),
        }
    }

    fn entry(&self, raw: &RawValue) -> Entry {
        Entry {
            at: self.base + self.at(raw) as u64,
            len: raw.get().len() as u32,
            file: 0,
        }
    }
}
