//! Items and their JSON.

use crate::audio::Stretch;
use crate::error::{Error, Result};
use crate::shapes::Seconds;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::path::Path;

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
    /// Where the sound lies when it is not a file of its own.
    pub sound: Option<Member>,
}

/// A sound inside a tar shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    pub place: Stretch,
    /// Windows that it was packed for: 16 kHz int16 as the model hears it. None for any other sound.
    pub packed: Option<usize>,
}

/// Looks whether a text is an item without making one: what passes is read by [`parse`] without a problem. A manifest of
/// millions of items is checked like this when it is opened.
pub(super) fn passes(text: &[u8]) -> bool {
    // In fields that are passed over, serde_json checks neither UTF-8 nor depth.
    let shallow = text.iter().filter(|b| matches!(b, b'{' | b'[')).count() < 100;
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    shallow && serde_json::from_str::<Lean>(text).is_ok_and(|l| l.is_item())
}

/// An item's fields, borrowed. A field that stands twice does not pass, and is left to [`parse`].
#[derive(Deserialize)]
#[allow(dead_code)] // of some fields only the type is looked at
struct Lean<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow)]
    prompt: Cow<'a, str>,
    #[serde(borrow)]
    output: Cow<'a, str>,
    duration: Option<f64>,
    audio_start: Option<f64>,
    chance: Option<f64>,
    #[serde(borrow)]
    labels: Option<Vec<Cow<'a, str>>>,
}

impl Lean<'_> {
    fn is_item(&self) -> bool {
        let seconds = |s: Option<f64>| s.is_none_or(|s| s.is_finite() && s >= 0.0);
        (self.name.is_some() || self.path.is_some())
            && seconds(self.duration)
            && seconds(self.audio_start)
            && self.chance.is_none_or(|c| (0.0..=1.0).contains(&c))
    }
}

/// An item of its JSON value; what is wrong goes to `problems` under `place`.
pub(super) fn parse(key: &str, place: &str, value: Option<&Value>, problems: &mut Problems) -> Option<Item> {
    let Some(Value::Object(fields)) = value else {
        problems.add(place, "an object with name, prompt and output", value);
        return None;
    };
    let named = fields.get("name").is_some_and(|v| !v.is_null());
    let name_key = if named || !fields.contains_key("path") {
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
        sound: None,
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

/// What is wrong with a manifest, told at once.
pub(super) struct Problems<'a> {
    path: &'a Path,
    told: Vec<Error>,
    more: usize,
}

impl<'a> Problems<'a> {
    pub fn new(path: &'a Path) -> Self {
        Problems {
            path,
            told: Vec::new(),
            more: 0,
        }
    }

    pub fn add(&mut self, key: &str, expected: &str, found: Option<&Value>) {
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

    pub fn finish(mut self) -> Result<()> {
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
