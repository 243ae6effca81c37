//! Manifests: the reference's JSON, the same items as JSON lines, and tar shards.
//!
//! A manifest that is open holds where its items are, not their texts: 16 bytes an item for JSON and JSON lines. An item
//! is read when it is asked for; all of them are checked when the manifest is opened.

use super::item::{self, Item, Member, Problems};
use super::shards;
use crate::error::{Error, Result};
use rayon::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A JSON manifest is read at once to be checked; JSON lines may be larger.
const MOST_BYTES: u64 = 4 << 30;
/// A line or an item that is longer is no question about a sound.
const MOST_ITEM_BYTES: usize = 16 << 20;
/// JSON lines are checked so many bytes at a time.
const AT_ONCE: usize = 16 << 20;

/// A data set's split.
#[derive(Debug)]
pub struct Manifest {
    pub path: PathBuf,
    /// `flamingo_task`; the file's folder for JSON lines.
    pub task: String,
    pub split: String,
    /// `split_path`, relative to the data root.
    pub audio_folder: PathBuf,
    pub(super) form: Form,
    /// The file that holds the items, or the shards.
    pub(super) files: Vec<(Arc<Path>, File)>,
    pub(super) entries: Vec<Entry>,
    pub(super) keys: Keys,
    /// Of shards, each item's sound; else empty.
    pub(super) sounds: Vec<shards::Sound>,
    /// Items by their places in the file, where these are not the order of their numbers.
    pub(super) file_order: Option<Vec<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Lines,
    Shards,
}

/// Where an item's text is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub at: u64,
    pub len: u32,
    pub file: u32,
}

/// Names of the items.
#[derive(Debug)]
pub(super) enum Keys {
    /// 0, 1, 2, …
    InOrder,
    Numbers(Vec<u64>),
    Texts(Vec<Box<str>>),
}

impl Manifest {
    /// Opens a manifest of any form: `.json`, `.jsonl`, a `.tar` shard or a folder of them. Everything that is wrong with
    /// the file is told at once.
    pub fn open(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path)
            .map_err(|e| Error::io(path, e).hint("data.sets names manifests relative to data.root"))?;
        if meta.is_dir() || path.extension().is_some_and(|e| e == "tar") {
            return shards::open(path);
        }
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        if path.extension().is_some_and(|e| e == "jsonl") {
            return Manifest::from_lines(path, file);
        }
        if meta.len() > MOST_BYTES {
            return Err(Error::data(
                path,
                "size",
                format!("at most {MOST_BYTES} bytes"),
                meta.len().to_string(),
            )
            .hint("write it as JSON lines: one item a line, in a file that ends in .jsonl"));
        }
        Manifest::from_json(path, file)
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An item's key in the manifest; the line number, from 0, of JSON lines; the sample's name in a shard.
    pub fn key(&self, index: usize) -> String {
        match &self.keys {
            Keys::InOrder => index.to_string(),
            Keys::Numbers(n) => n.get(index).copied().unwrap_or_default().to_string(),
            Keys::Texts(t) => t.get(index).map(|t| t.to_string()).unwrap_or_default(),
        }
    }

    /// Reads an item, `index` from 0 in the order of the keys.
    ///
    /// # Errors
    /// No such item; a file that cannot be read any more or has changed since it was opened.
    pub fn item(&self, index: usize) -> Result<Item> {
        let key = self.key(index);
        let place = match self.form {
            Form::Json => format!("data.{key}"),
            Form::Lines => format!("line {}", key.parse::<u64>().unwrap_or_default() + 1),
            Form::Shards => key.clone(),
        };
        let entry = self.entries.get(index).copied().ok_or_else(|| {
            let expected = format!("an item below {}", self.len());
            Error::data(&self.path, "items", expected, index.to_string())
        })?;
        let (path, file) = &self.files[entry.file as usize];
        let mut bytes = vec![0; entry.len as usize];
        file.read_exact_at(&mut bytes, entry.at)
            .map_err(|e| Error::io(&**path, e))?;
        if let Some(sound) = self.sounds.get(index) {
            return shards::item(&key, path, sound, &bytes);
        }
        let changed = |e: serde_json::Error| {
            Error::data(&**path, &place, "the item that was there", e.to_string())
                .hint("the file changed while it was open")
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(changed)?;
        let mut problems = Problems::new(path);
        let item = item::parse(&key, &place, Some(&value), &mut problems);
        problems.finish()?;
        item.ok_or_else(|| Error::data(&**path, place, "an item", "none"))
    }

    /// All items, in the order of their keys.
    pub fn items(&self) -> Result<Vec<Item>> {
        (0..self.len()).into_par_iter().map(|i| self.item(i)).collect()
    }

    /// Indices of the items in the order in which the file has them: what the reference shuffles.
    pub fn file_order(&self) -> Vec<usize> {
        self.file_order
            .clone()
            .unwrap_or_else(|| (0..self.len()).collect())
    }

    /// Which shard an item is in; 0 where there are none.
    pub fn shard(&self, index: usize) -> usize {
        self.entries.get(index).map_or(0, |e| e.file as usize)
    }

    /// Whether sounds lie in shards, which are best read from front to back.
    pub fn in_shards(&self) -> bool {
        self.form == Form::Shards
    }

    /// Keeps these items, in the order in which they stand.
    pub fn retain(&mut self, indices: &[usize]) {
        let mut sorted = indices.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.retain(|i| *i < self.len());
        if let Some(order) = &mut self.file_order {
            let kept: HashMap<usize, usize> = sorted.iter().copied().zip(0..).collect();
            *order = order.iter().filter_map(|i| kept.get(i).copied()).collect();
        }
        self.keys = match &self.keys {
            Keys::InOrder => Keys::Numbers(sorted.iter().map(|i| *i as u64).collect()),
            Keys::Numbers(n) => Keys::Numbers(sorted.iter().map(|i| n[*i]).collect()),
            Keys::Texts(t) => Keys::Texts(sorted.iter().map(|i| t[*i].clone()).collect()),
        };
        if !self.sounds.is_empty() {
            self.sounds = sorted.iter().map(|i| self.sounds[*i].clone()).collect();
        }
        self.entries = sorted.iter().map(|i| self.entries[*i]).collect();
    }

    /// The audio file of an item, for messages too: of a sound in a shard `SHARD.tar/NAME`.
    pub fn audio_path(&self, root: &Path, item: &Item) -> PathBuf {
        match &item.sound {
            Some(Member { place, .. }) => place.file.join(&item.name),
            None => root.join(&self.audio_folder).join(&item.name),
        }
    }

    fn from_json(path: &Path, mut file: File) -> Result<Self> {
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| Error::io(path, e))?;
        let top: HashMap<Cow<str>, &RawValue> = serde_json::from_str(&text).map_err(|e| {
            Error::data(
                path,
                format!("line {} column {}", e.line(), e.column()),
                "JSON with split, split_path, flamingo_task, total_num and data",
                e.to_string(),
            )
        })?;
        let mut problems = Problems::new(path);
        let value = |key: &str| -> Option<Value> {
            let short = top.get(key).filter(|raw| raw.get().len() < 1 << 16)?;
            serde_json::from_str(short.get()).ok()
        };
        let text_of = |key: &str, problems: &mut Problems| match value(key) {
            Some(Value::String(s)) => s,
            other => {
                problems.add(key, "a string", other.as_ref());
                String::new()
            }
        };
        let split = text_of("split", &mut problems);
        let audio_folder = text_of("split_path", &mut problems);
        let task = text_of("flamingo_task", &mut problems);
        let data = match top
            .get("data")
            .map(|raw| serde_json::from_str::<Entries>(raw.get()))
        {
            Some(Ok(data)) => data.0,
            _ => {
                problems.add("data", "an object of items", value("data").as_ref());
                Vec::new()
            }
        };
        match value("total_num") {
            Some(Value::Number(n)) if n.as_u64() == Some(data.len() as u64) => {}
            other => problems.add(
                "total_num",
                &format!("{}, the number of items", data.len()),
                other.as_ref(),
            ),
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
            let twice = Value::from("twice the same");
            problems.add(
                &format!("data.{}", data[pair[1]].0),
                "each key once",
                Some(&twice),
            );
        }
        let start = text.as_ptr() as usize;
        let entries = sorted.iter().map(|i| {
            let raw = data[*i].1.get();
            Entry {
                at: (raw.as_ptr() as usize - start) as u64,
                // Longer ones are refused below.
                len: raw.len() as u32,
                file: 0,
            }
        });
        let entries = entries.collect();
        let bad = |i: &&usize| !item::passes(data[**i].1.get().as_bytes());
        for i in sorted.par_iter().filter(bad).collect::<Vec<_>>() {
            let (key, raw) = &data[*i];
            check(key, &format!("data.{key}"), raw.get().as_bytes(), &mut problems);
        }
        if let Some((key, raw)) = data.iter().find(|(_, raw)| raw.get().len() > MOST_ITEM_BYTES) {
            let found = Value::from(format!("{} bytes", raw.get().len()));
            problems.add(
                &format!("data.{key}"),
                &format!("at most {MOST_ITEM_BYTES} bytes"),
                Some(&found),
            );
        }
        problems.finish()?;
        let numbers: Option<Vec<u64>> = sorted.iter().map(|i| number(&data[*i].0)).collect();
        let keys = match numbers {
            Some(n) if n.iter().copied().eq(0..n.len() as u64) => Keys::InOrder,
            Some(n) => Keys::Numbers(n),
            None => Keys::Texts(sorted.iter().map(|i| data[*i].0.as_ref().into()).collect()),
        };
        Ok(Manifest {
            path: path.to_path_buf(),
            task,
            split,
            audio_folder: audio_folder.into(),
            form: Form::Json,
            files: vec![(path.into(), file)],
            entries,
            keys,
            sounds: Vec::new(),
            file_order,
        })
    }

    fn from_lines(path: &Path, mut file: File) -> Result<Self> {
        let mut problems = Problems::new(path);
        let (mut entries, mut numbers) = (Vec::new(), Vec::new());
        let mut buffer = Vec::new();
        // What was read so far: bytes before the buffer, and lines.
        let (mut before, mut lines) = (0u64, 0u64);
        loop {
            let old = buffer.len();
            let taken = (&mut file).take(AT_ONCE as u64).read_to_end(&mut buffer);
            let last = taken.map_err(|e| Error::io(path, e))? == 0;
            if last && !buffer.is_empty() && !buffer.ends_with(b"\n") {
                buffer.push(b'\n');
            }
            let ends = memchr::memchr_iter(b'\n', &buffer[old..]).map(|i| old + i);
            let mut begin = 0;
            let mut found: Vec<(u64, std::ops::Range<usize>)> = Vec::new();
            for end in ends {
                if !buffer[begin..end].trim_ascii().is_empty() {
                    found.push((lines, begin..end));
                }
                lines += 1;
                begin = end + 1;
            }
            let bad = |(_, line): &&(u64, std::ops::Range<usize>)| {
                line.len() > MOST_ITEM_BYTES || !item::passes(&buffer[line.clone()])
            };
            for (number, line) in found.par_iter().filter(bad).collect::<Vec<_>>() {
                let place = format!("line {}", number + 1);
                check(&number.to_string(), &place, &buffer[line.clone()], &mut problems);
            }
            for (number, line) in found {
                entries.push(Entry {
                    at: before + line.start as u64,
                    len: line.len() as u32,
                    file: 0,
                });
                numbers.push(number);
            }
            before += begin as u64;
            buffer.drain(..begin);
            if buffer.len() > MOST_ITEM_BYTES {
                let found = Value::from("more, and no end");
                problems.add(
                    &format!("line {}", lines + 1),
                    &format!("at most {MOST_ITEM_BYTES} bytes"),
                    Some(&found),
                );
                break;
            }
            if last {
                break;
            }
        }
        problems.finish()?;
        let keys = match numbers.iter().copied().eq(0..numbers.len() as u64) {
            true => Keys::InOrder,
            false => Keys::Numbers(numbers),
        };
        let name =
            |p: Option<&std::ffi::OsStr>| p.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Manifest {
            path: path.to_path_buf(),
            task: name(path.parent().and_then(Path::file_name)),
            split: name(path.file_stem()),
            audio_folder: PathBuf::new(),
            form: Form::Lines,
            files: vec![(path.into(), file)],
            entries,
            keys,
            sounds: Vec::new(),
            file_order: None,
        })
    }
}

/// Says what is wrong with an item's text.
fn check(key: &str, place: &str, text: &[u8], problems: &mut Problems) {
    if text.len() > MOST_ITEM_BYTES {
        let found = Value::from(format!("{} bytes", text.len()));
        return problems.add(place, &format!("at most {MOST_ITEM_BYTES} bytes"), Some(&found));
    }
    match serde_json::from_slice::<Value>(text) {
        Ok(value) => drop(item::parse(key, place, Some(&value), problems)),
        Err(e) => problems.add(place, "a JSON object", Some(&Value::String(e.to_string()))),
    }
}

/// The items of `data` in the file's order, as they are written.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object of items")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries<'de>, A::Error> {
                let mut all = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    all.push((key, map.next_value()?));
                }
                Ok(Entries(all))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::Seconds;
    use serde_json::json;

    fn open(name: &str, text: &str) -> Result<Manifest> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Manifest::open(&path)
    }

    fn good() -> Value {
        let item = |n: &str| json!({"name": n, "prompt": "p", "output": "o", "duration": 1.5});
        json!({"split": "train", "split_path": "wavs", "flamingo_task": "a-AQA", "total_num": 3,
               "data": {"10": item("c"), "2": item("b"), "0": item("a")}})
    }

    #[test]
    fn items_come_in_numeric_order() {
        let m = open("train.json", &good().to_string()).unwrap();
        assert_eq!(
            (0..m.len()).map(|i| m.key(i)).collect::<Vec<_>>(),
            ["0", "2", "10"]
        );
        assert_eq!(
            m.audio_path(Path::new("/r"), &m.item(1).unwrap()),
            Path::new("/r/wavs/b")
        );
        assert_eq!(m.item(0).unwrap().audio_start, Seconds(0.0));
    }

    #[test]
    fn every_problem_names_its_place() {
        type Spoil = fn(&mut Value);
        let cases: [(&str, Spoil); 7] = [
            ("split_path: expected a string, found nothing", |v| {
                v.as_object_mut().unwrap().remove("split_path");
            }),
            ("total_num: expected 3, the number of items, found 4", |v| {
                v["total_num"] = json!(4)
            }),
            ("data.2.prompt: expected a string, found nothing", |v| {
                v["data"]["2"].as_object_mut().unwrap().remove("prompt");
            }),
            ("data.2.output: expected a string, found 7", |v| {
                v["data"]["2"]["output"] = json!(7)
            }),
            (
                "data.0.duration: expected seconds, 0 or more, found \"long\"",
                |v| v["data"]["0"]["duration"] = json!("long"),
            ),
            (
                "data.0.audio_start: expected seconds, 0 or more, found -1.0",
                |v| v["data"]["0"]["audio_start"] = json!(-1.0),
            ),
            (
                "data.10: expected an object with name, prompt and output, found null",
                |v| v["data"]["10"] = Value::Null,
            ),
        ];
        for (message, spoil) in cases {
            let mut v = good();
            spoil(&mut v);
            let e = open("train.json", &v.to_string()).unwrap_err();
            assert!(e.to_string().contains(message), "{e}\ninstead of {message}");
            assert_eq!(e.exit_code(), 6);
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let mut v = good();
        v["data"]["0"]["prompt"] = json!(null);
        v["data"]["2"]["name"] = json!(1);
        let e = open("m.json", &v.to_string()).unwrap_err().to_string();
        assert!(e.contains("data.0.prompt") && e.contains("data.2.name"), "{e}");
    }

    #[test]
    fn json_lines_are_the_same_items() {
        let m = open("val.jsonl", "{\"path\":\"a.wav\",\"prompt\":\"p\",\"output\":\"o\"}\n\n{\"name\":\"b\",\"prompt\":\"p\",\"output\":\"o\",\"audio_start\":2}\n").unwrap();
        assert_eq!((m.len(), m.item(1).unwrap().audio_start), (2, Seconds(2.0)));
        let e = open("val.jsonl", "{\"path\":\"a.wav\"}\n[")
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("line 1.prompt") && e.contains("line 2: expected a JSON object"),
            "{e}"
        );
    }

    #[test]
    fn not_json_names_the_place() {
        let e = open("m.json", "{\"split\":\n oops}").unwrap_err().to_string();
        assert!(e.contains("line 2 column 2"), "{e}");
    }
}
