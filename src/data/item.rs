//! Items and their JSON.

use super::fields::Fields;
use super::problems::Problems;
use super::python::Odd;
use crate::audio::Stretch;
use crate::shapes::Seconds;
use serde_json::Value;

/// One question about one clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The item's key in the manifest; the line number, from 0, of JSON lines.
    pub key: String,
    /// Audio file, relative to the manifest's folder of audio.
    pub name: String,
    /// The question.
    pub prompt: String,
    /// The right answer.
    pub output: String,
    /// Length of the sound, where the manifest says it.
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
    /// The shard, and the bytes of the sound in it.
    pub place: Stretch,
    /// Windows that it was packed for: 16 kHz int16 as the model hears it. None for any other sound.
    pub packed: Option<usize>,
}

/// The fields of an item that are read.
pub(super) const FIELDS: &[&str] = &[
    "name",
    "path",
    "prompt",
    "output",
    "duration",
    "audio_start",
    "labels",
    "chance",
];

/// An item of its JSON text; what is wrong goes to `problems` under `place`.
pub(super) fn read(key: &str, place: &str, text: &[u8], problems: &mut Problems) -> Option<Item> {
    let fields = Fields::read(text, FIELDS, place, problems)?;
    parse(key, place, &fields, problems)
}

/// An item of its fields.
pub(super) fn parse(key: &str, place: &str, fields: &Fields, problems: &mut Problems) -> Option<Item> {
    let named = fields.get("name").is_some_and(|v| !v.is_null()) || fields.odd("name").is_some();
    let name_key = if named || fields.get("path").is_none() {
        "name"
    } else {
        "path"
    };
    let name = string(fields, place, name_key, problems);
    let prompt = string(fields, place, "prompt", problems);
    let output = string(fields, place, "output", problems);
    let duration = seconds(fields, place, "duration", problems);
    let start = seconds(fields, place, "audio_start", problems);
    let labels = match (fields.odd("labels"), fields.get("labels")) {
        (None, None | Some(Value::Null)) => Vec::new(),
        (None, Some(Value::Array(a))) if a.iter().all(Value::is_string) => {
            a.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => {
            fields.wrong(place, "labels", "a list of strings", problems);
            Vec::new()
        }
    };
    let chance = number(fields, place, "chance", "a number from 0 to 1", 1.0, problems);
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

fn string(fields: &Fields, place: &str, key: &str, problems: &mut Problems) -> Option<String> {
    match (fields.odd(key), fields.get(key)) {
        (None, Some(Value::String(s))) => Some(s.clone()),
        (Some(Odd::Half(_)), _) => {
            fields.wrong(place, key, "whole characters", problems);
            None
        }
        _ => {
            fields.wrong(place, key, "a string", problems);
            None
        }
    }
}

fn seconds(fields: &Fields, place: &str, key: &str, problems: &mut Problems) -> Option<Seconds> {
    number(fields, place, key, "seconds, 0 or more", f64::MAX, problems).map(Seconds)
}

/// A number from 0 to `most` that may be left out. Python's NaN is how pandas leaves one out.
fn number(
    fields: &Fields,
    place: &str,
    key: &str,
    expected: &str,
    most: f64,
    problems: &mut Problems,
) -> Option<f64> {
    match (fields.odd(key), fields.get(key)) {
        (Some(Odd::Number("NaN")), Some(Value::Null)) | (None, None | Some(Value::Null)) => None,
        (None, Some(v)) if v.as_f64().is_some_and(|n| (0.0..=most).contains(&n)) => v.as_f64(),
        _ => {
            fields.wrong(place, key, expected, problems);
            None
        }
    }
}
