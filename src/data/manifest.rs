//! Manifests: the reference's JSON, the same items as JSON lines, and tar shards.
//!
//! A manifest that is open holds where its items are, not their texts: 16 bytes an item for JSON and JSON lines. An item
//! is read when it is asked for; all of them are checked when the manifest is opened.

use super::files::{self, Files};
use super::item::{self, Item, Member};
use super::problems::{self, Problems};
use super::samples::{self, Sound};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A data set's split.
#[derive(Debug)]
pub struct Manifest {
    /// The file.
    pub path: PathBuf,
    /// `flamingo_task`; the file's folder for JSON lines.
    pub task: String,
    /// Train, val or test, as the file says it.
    pub split: String,
    /// `split_path`, relative to the data root.
    pub audio_folder: PathBuf,
    pub(super) form: Form,
    /// The file that holds the items, or the shards.
    pub(super) files: Files,
    pub(super) entries: Vec<Entry>,
    pub(super) keys: Keys,
    /// Of shards, each item's sound; else empty.
    pub(super) sounds: Vec<Sound>,
    /// Items by their places in the file, where these are not the order of their numbers.
    pub(super) file_order: Option<Vec<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// A list of items.
    List,
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
    /// A manifest without items that says nothing of itself: its names are those of its place.
    pub(super) fn named(path: &Path) -> Manifest {
        let name =
            |p: Option<&std::ffi::OsStr>| p.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        Manifest {
            path: path.to_path_buf(),
            // Also of a file in the current folder.
            task: name(
                std::path::absolute(path)
                    .unwrap_or_default()
                    .parent()
                    .and_then(Path::file_name),
            ),
            split: name(path.file_stem()),
            audio_folder: PathBuf::new(),
            form: Form::Lines,
            files: Files::default(),
            entries: Vec::new(),
            keys: Keys::InOrder,
            sounds: Vec::new(),
            file_order: None,
        }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no item.
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
            Form::List => format!("[{key}]"),
            Form::Lines => format!("line {}", key.parse::<u64>().unwrap_or_default() + 1),
            Form::Shards => key.clone(),
        };
        let entry = self.entries.get(index).copied().ok_or_else(|| {
            let expected = format!("an item below {}", self.len());
            Error::data(&self.path, "items", expected, index.to_string())
        })?;
        let path = self.files.path(entry.file);
        let bytes = self.files.read(entry.file, entry.at, entry.len as usize)?;
        if let Some(sound) = self.sounds.get(index) {
            return samples::item(&key, path, sound, &bytes);
        }
        let mut problems = Problems::new(path);
        let item = item::read(&key, &place, &bytes, &mut problems);
        match (item, problems.finish()) {
            (Some(item), Ok(())) => Ok(item),
            // It was looked at when the manifest was opened.
            (_, Err(e)) => Err(problems::hinted(e, "the file changed while it was open")),
            (None, Ok(())) => Err(files::changed(path)),
        }
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
    pub(crate) fn in_shards(&self) -> bool {
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
    pub(crate) fn audio_path(&self, root: &Path, item: &Item) -> PathBuf {
        match &item.sound {
            Some(Member { place, .. }) => place.file.join(&item.name),
            None => root.join(&self.audio_folder).join(&item.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::Seconds;
    use serde_json::{json, Value};

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
