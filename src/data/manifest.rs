//! Manifests: the reference's JSON, and the same items as JSON lines.

use crate::error::{Error, Result};
use crate::shapes::Seconds;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Manifests larger than this are not read at once.
const MOST_BYTES: u64 = 4 << 30;
/// Problems that are told before the rest is only counted.
const MOST_PROBLEMS: usize = 20;

/// One question about one clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The item's key in the manifest; the line number, from 0, of JSON lines.
    pub key: String,
    /// Audio file, relative to the manifest's folder of audio.
    pub name: String,
    pub prompt: String,
    pub output: String,
    pub duration: Option<Seconds>,
    /// Where in the file the clip begins; 0 unless `audio_start` says otherwise.
    pub audio_start: Seconds,
    /// Our extension: the closed set of answers, empty where the answer is free.
    pub labels: Vec<String>,
    /// Our extension: probability of a right guess.
    pub chance: Option<f64>,
}

/// A data set's split.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub path: PathBuf,
    /// `flamingo_task`; the file's folder for JSON lines.
    pub task: String,
    pub split: String,
    /// `split_path`, relative to the data root.
    pub audio_folder: PathBuf,
    pub items: Vec<Item>,
    /// Items by their places in the file, where these are not the order of their numbers.
    file_order: Option<Vec<usize>>,
}

impl Manifest {
    /// Opens either form; everything that is wrong with the file is told at once.
    pub fn open(path: &Path) -> Result<Self> {
        let size = std::fs::metadata(path)
            .map_err(|e| Error::io(path, e).hint("data.sets names manifests relative to data.root"))?
            .len();
        if size > MOST_BYTES {
            return Err(Error::data(
                path,
                "size",
                format!("at most {MOST_BYTES} bytes"),
                size.to_string(),
            ));
        }
        let text = crate::fsutil::read_text(path)?;
        if path.extension().is_some_and(|e| e == "jsonl") {
            Manifest::from_lines(path, &text)
        } else {
            Manifest::from_json(path, &text)
        }
    }

    /// Indices of the items in the order in which the file has them: what the reference shuffles.
    pub fn file_order(&self) -> Vec<usize> {
        self.file_order
            .clone()
            .unwrap_or_else(|| (0..self.items.len()).collect())
    }

    /// Keeps these items, in the order in which they stand.
    pub fn retain(&mut self, indices: &[usize]) {
        let mut kept = vec![None; self.items.len()];
        let mut sorted = indices.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        for (new, old) in sorted.iter().enumerate() {
            kept[*old] = Some(new);
        }
        if let Some(order) = &mut self.file_order {
            *order = order.iter().filter_map(|i| kept[*i]).collect();
        }
        let mut place = kept.iter();
        self.items.retain(|_| place.next().is_some_and(Option::is_some));
    }

    /// The audio file of an item.
    pub fn audio_path(&self, root: &Path, item: &Item) -> PathBuf {
        root.join(&self.audio_folder).join(&item.name)
    }

    fn from_json(path: &Path, text: &str) -> Result<Self> {
        let top: Value = serde_json::from_str(text).map_err(|e| {
            Error::data(
                path,
                format!("line {} column {}", e.line(), e.column()),
                "JSON with split, split_path, flamingo_task, total_num and data",
                e.to_string(),
            )
        })?;
        let mut problems = Problems::new(path);
        let text_of = |key: &str, problems: &mut Problems| match top.get(key) {
            Some(Value::String(s)) => s.clone(),
            other => {
                problems.add(key, "a string", other);
                String::new()
            }
        };
        let split = text_of("split", &mut problems);
        let audio_folder = text_of("split_path", &mut problems);
        let task = text_of("flamingo_task", &mut problems);
        let mut items = Vec::new();
        let mut file_order = None;
        match top.get("data") {
            Some(Value::Object(data)) => {
                let mut keys: Vec<&String> = data.keys().collect();
                // The reference's keys are numbers written as strings; "10" follows "9".
                keys.sort_by_key(|k| (k.parse::<u64>().unwrap_or(u64::MAX), (*k).clone()));
                if !keys.iter().copied().eq(data.keys()) {
                    let place: HashMap<&String, usize> = keys.iter().copied().zip(0..).collect();
                    file_order = Some(data.keys().filter_map(|k| place.get(k).copied()).collect());
                }
                for key in keys {
                    items.extend(item(key, &format!("data.{key}"), data.get(key), &mut problems));
                }
                match top.get("total_num").and_then(Value::as_u64) {
                    Some(n) if n as usize == data.len() => {}
                    _ => problems.add(
                        "total_num",
                        &format!("{}, the number of items", data.len()),
                        top.get("total_num"),
                    ),
                }
            }
            other => problems.add("data", "an object of items", other),
        }
        problems.finish()?;
        Ok(Manifest {
            path: path.to_path_buf(),
            task,
            split,
            audio_folder: audio_folder.into(),
            items,
            file_order,
        })
    }

    fn from_lines(path: &Path, text: &str) -> Result<Self> {
        let mut problems = Problems::new(path);
        let mut items = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let place = format!("line {}", i + 1);
            match serde_json::from_str::<Value>(line) {
                Ok(v) => items.extend(item(&i.to_string(), &place, Some(&v), &mut problems)),
                Err(e) => problems.add(&place, "a JSON object", Some(&Value::String(e.to_string()))),
            }
        }
        problems.finish()?;
        let name =
            |p: Option<&std::ffi::OsStr>| p.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Manifest {
            path: path.to_path_buf(),
            task: name(path.parent().and_then(Path::file_name)),
            split: name(path.file_stem()),
            audio_folder: PathBuf::new(),
            items,
            file_order: None,
        })
    }
}

fn item(key: &str, place: &str, value: Option<&Value>, problems: &mut Problems) -> Option<Item> {
    let Some(Value::Object(fields)) = value else {
        problems.add(place, "an object with name, prompt and output", value);
        return None;
    };
    let name_key = if fields.contains_key("name") || !fields.contains_key("path") {
        "name"
    } else {
        "path"
    };
    let name = string(fields, place, name_key, problems);
    let prompt = string(fields, place, "prompt", problems);
    let output = string(fields, place, "output", problems);
    let duration = seconds(fields, place, "duration", problems);
    let start = seconds(fields, place, "audio_start", problems);
    let labels = match fields.get("labels") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(a)) if a.iter().all(Value::is_string) => {
            a.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        other => {
            problems.add(&format!("{place}.labels"), "a list of strings", other);
            Vec::new()
        }
    };
    let chance = match fields.get("chance") {
        None | Some(Value::Null) => None,
        Some(v) if v.as_f64().is_some_and(|c| (0.0..=1.0).contains(&c)) => v.as_f64(),
        other => {
            problems.add(&format!("{place}.chance"), "a number from 0 to 1", other);
            None
        }
    };
    Some(Item {
        key: key.to_owned(),
        name: name?,
        prompt: prompt?,
        output: output?,
        duration,
        audio_start: start.unwrap_or_default(),
        labels,
        chance,
    })
}

fn string(fields: &Map<String, Value>, place: &str, key: &str, problems: &mut Problems) -> Option<String> {
    match fields.get(key) {
        Some(Value::String(s)) => Some(s.clone()),
        other => {
            problems.add(&format!("{place}.{key}"), "a string", other);
            None
        }
    }
}

fn seconds(fields: &Map<String, Value>, place: &str, key: &str, problems: &mut Problems) -> Option<Seconds> {
    match fields.get(key) {
        None | Some(Value::Null) => None,
        Some(v) => match v.as_f64().filter(|s| s.is_finite() && *s >= 0.0) {
            Some(s) => Some(Seconds(s)),
            None => {
                problems.add(&format!("{place}.{key}"), "seconds, 0 or more", Some(v));
                None
            }
        },
    }
}

struct Problems<'a> {
    path: &'a Path,
    told: Vec<Error>,
    more: usize,
}

impl<'a> Problems<'a> {
    fn new(path: &'a Path) -> Self {
        Problems {
            path,
            told: Vec::new(),
            more: 0,
        }
    }

    fn add(&mut self, key: &str, expected: &str, found: Option<&Value>) {
        if self.told.len() >= MOST_PROBLEMS {
            self.more += 1;
            return;
        }
        let found = match found {
            None => "nothing".to_owned(),
            Some(v) => v.to_string().chars().take(80).collect(),
        };
        self.told.push(Error::data(self.path, key, expected, found));
    }

    fn finish(mut self) -> Result<()> {
        if self.more > 0 {
            self.told.push(Error::data(
                self.path,
                "data",
                "no problem",
                format!("{} more", self.more),
            ));
        }
        crate::error::all(self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            m.items.iter().map(|i| i.key.as_str()).collect::<Vec<_>>(),
            ["0", "2", "10"]
        );
        assert_eq!(m.audio_path(Path::new("/r"), &m.items[1]), Path::new("/r/wavs/b"));
        assert_eq!(m.items[0].audio_start, Seconds(0.0));
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
        assert_eq!((m.items.len(), m.items[1].audio_start), (2, Seconds(2.0)));
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
