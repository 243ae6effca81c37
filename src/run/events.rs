//! `events.jsonl`: what a line says, reading it, and taking out what a resumed run makes again.

use super::version::{self, Versioned};
use crate::error::{Error, Result};
use crate::fsutil::{open_regular, write_atomic};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The file's name in a recorder's folder.
pub const EVENTS: &str = "events.jsonl";
/// Where lines go that a resumed run makes again.
pub(crate) const SUPERSEDED: &str = "superseded.jsonl";
/// The version of a line.
const VERSION: u64 = 1;
/// What a line says beside what was measured: no value may be called so.
pub(crate) const TAKEN: [&str; 6] = ["version", "step", "micro_step", "epoch", "stage", "time"];
/// A longer line is not one of ours.
const MOST_LINE_BYTES: u64 = 1 << 20;

/// Where the parts of a run (stages, `lm`, `clap`) have their folders.
pub(crate) fn folders(run: &Path) -> PathBuf {
    run.join("events")
}

/// The folder of one part.
pub fn folder(run: &Path, part: &str) -> PathBuf {
    folders(run).join(part)
}

/// One line of `events.jsonl`: `{"version":1,"step":8,"micro_step":2,"epoch":0,"stage":"stage1","time":1.7e9,"loss":2.5,...}`.
///
/// JSON has no NaN: values that are not finite are the strings `"NaN"`, `"inf"` and `"-inf"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Optimizer steps made.
    pub step: u64,
    /// The micro-step of that step, from 1, and the epoch of its data, from 0, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_step: Option<u64>,
    /// The epoch of its data, from 0, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The folder's name: lines of several files can be put together.
    pub stage: String,
    /// Seconds since 1970.
    pub time: f64,
    /// Whatever was measured, in the order of the record: `loss`, `learning_rate`, `grad_norm`, …
    #[serde(flatten)]
    pub values: IndexMap<String, Value>,
}

impl Event {
    /// The line with its end.
    pub(crate) fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(&Versioned {
            version: VERSION,
            value: self,
        })?;
        line.push(b'\n');
        Ok(line)
    }
}

/// As a line is read: its version is none of the values.
#[derive(Deserialize)]
struct Line {
    #[serde(default = "version::first", rename = "version")]
    _version: u64,
    #[serde(flatten)]
    event: Event,
}

/// A number as it stands in `events.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value(pub f64);

impl Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0.is_finite() {
            true => s.serialize_f64(self.0),
            false => s.serialize_str(&self.0.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Text(String),
        }
        match Form::deserialize(d) {
            Ok(Form::Number(v)) => Ok(Value(v)),
            Ok(Form::Text(t)) if ["NaN", "inf", "-inf"].contains(&t.as_str()) => {
                t.parse().map(Value).map_err(serde::de::Error::custom)
            }
            _ => Err(serde::de::Error::custom(
                "a value that is neither a number nor NaN, inf, -inf",
            )),
        }
    }
}

/// Reads `events.jsonl`. A last line that a crash cut short is left out.
///
/// # Errors
/// The first other line, counted from 1, that is not an event, or one of a newer version.
pub fn read_events(path: &Path) -> Result<Vec<Event>> {
    let io = |e| Error::io(path, e);
    let mut reader = BufReader::new(open_regular(path)?);
    let mut events = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut bounded = (&mut reader).take(MOST_LINE_BYTES);
        if bounded.read_until(b'\n', &mut line).map_err(io)? == 0 {
            break;
        }
        let long = line.len() as u64 == MOST_LINE_BYTES;
        let cut = line.last() != Some(&b'\n') && !long;
        version::check(&line, VERSION, path, &format!("line {number}"))?;
        match serde_json::from_slice::<Line>(&line) {
            Ok(line) => events.push(line.event),
            Err(_) if cut => break,
            Err(e) => {
                let found = if long {
                    "a longer line".to_owned()
                } else {
                    e.to_string()
                };
                let expected = format!("an event as JSON, at most {MOST_LINE_BYTES} bytes");
                return Err(Error::data(path, format!("line {number}"), expected, found));
            }
        }
    }
    Ok(events)
}

/// The history that counts: where a run was resumed from an earlier step, or begun anew in the same folder, what it
/// did again takes the place of what it had done.
///
/// Steps are then never descending; several events of one step, as of its micro-steps or of training and validation, stay.
pub fn latest(events: Vec<Event>) -> Vec<Event> {
    let at = |e: &Event| (e.step, e.micro_step.unwrap_or(0));
    let mut kept: Vec<Event> = Vec::with_capacity(events.len());
    for event in events {
        let back = kept.last().is_some_and(|last| at(&event) < at(last));
        // The same place again is another measure of it, unless it measures the same.
        let again = (kept.iter().rev())
            .take_while(|k| at(k) == at(&event))
            .any(|k| k.values.keys().any(|name| event.values.contains_key(name)));
        if back || again {
            let still = kept.partition_point(|k| at(k) < at(&event));
            kept.truncate(still);
        }
        kept.push(event);
    }
    kept
}

/// Of an event only this.
#[derive(Deserialize)]
struct Step {
    step: u64,
}

/// Takes the lines of later steps out of `events.jsonl`, and what a crash cut short; they are kept beside it.
pub(crate) fn supersede(folder: &Path, step: u64) -> Result<()> {
    let (path, aside) = (folder.join(EVENTS), folder.join(SUPERSEDED));
    if !path.exists() {
        return Ok(());
    }
    let mut file = open_regular(&path)?;
    let later = |line: &[u8]| {
        let own = serde_json::from_slice::<Step>(line);
        line.last() != Some(&b'\n') || own.is_ok_and(|e| e.step > step)
    };
    let mut lost = false;
    lines(&path, &mut file, &mut |line| {
        lost |= later(line);
        version::check(line, VERSION, &path, "a line")
    })?;
    if !lost {
        return Ok(());
    }
    let to = OpenOptions::new().create(true).append(true).open(&aside);
    let mut to = to.map_err(|e| Error::io(&aside, e))?;
    lines(&path, &mut file, &mut |line| {
        if later(line) {
            let end: &[u8] = if line.ends_with(b"\n") { b"" } else { b"\n" };
            to.write_all(&[line, end].concat())
                .map_err(|e| Error::io(&aside, e))?;
        }
        Ok(())
    })?;
    to.sync_all().map_err(|e| Error::io(&aside, e))?;
    write_atomic(&path, |out| {
        lines(&path, &mut file, &mut |line| match later(line) {
            true => Ok(()),
            false => out.write_all(line).map_err(|e| Error::io(&path, e)),
        })
    })
}

/// Every line of a file, its end with it. One that is too long for an event comes in pieces, which are none.
fn lines(path: &Path, file: &mut File, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let io = |e| Error::io(path, e);
    file.rewind().map_err(io)?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(MOST_LINE_BYTES);
        if bounded.read_until(b'\n', &mut line).map_err(io)? == 0 {
            return Ok(());
        }
        each(&line)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_before_the_last_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS);
        let good = "{\"step\":1,\"stage\":\"s\",\"time\":0,\"loss\":1}\n";
        for bad in [
            "{\"step\":2",
            "{\"step\":2,\"stage\":\"s\",\"time\":0,\"loss\":\"high\"}",
        ] {
            std::fs::write(&path, format!("{good}{bad}\n{good}")).unwrap();
            let text = read_events(&path).unwrap_err().to_string();
            assert!(text.contains("events.jsonl: line 2: "), "{text}");
        }
        let e = {
            let newer = "{\"version\":2,\"at\":[2,1],\"loss\":1}\n";
            std::fs::write(&path, format!("{good}{newer}")).unwrap();
            read_events(&path).unwrap_err().to_string()
        };
        assert!(
            e.contains("events.jsonl: line 2: ") && e.contains("found version 2"),
            "{e}"
        );
        assert!(supersede(folder.path(), 1).is_err());
        std::fs::write(&path, "x".repeat(MOST_LINE_BYTES as usize + 10)).unwrap();
        assert!(read_events(&path)
            .unwrap_err()
            .to_string()
            .contains("a longer line"));
    }

    #[test]
    fn what_was_done_again_takes_the_place_of_what_was_done() {
        let event = |step, micro, name: &str, loss| Event {
            step,
            micro_step: Some(micro),
            epoch: None,
            stage: "s".into(),
            time: 0.0,
            values: [(name.to_owned(), Value(loss))].into_iter().collect(),
        };
        let line = |step, loss| event(step, 1, "loss", loss);
        let all = [(1, 1.0), (2, 1.0), (3, 1.0), (2, 2.0), (4, 2.0)];
        let kept = latest(all.iter().map(|(s, l)| line(*s, *l)).collect());
        assert_eq!(kept, [(1, 1.0), (2, 2.0), (4, 2.0)].map(|(s, l)| line(s, l)));
        // Micro-steps and a validation of one step; then the run is killed in its second step, and does that again.
        let first = [
            event(1, 1, "loss", 1.0),
            event(1, 2, "loss", 2.0),
            event(1, 2, "validation_loss", 3.0),
            event(2, 1, "loss", 4.0),
        ];
        let second = [event(2, 1, "loss", 4.0), event(2, 2, "loss", 5.0)];
        let kept = latest([&first[..], &second[..]].concat());
        assert_eq!(kept, [&first[..3], &second[..]].concat());
    }
}
