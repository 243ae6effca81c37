//! `predictions.jsonl`: the answers of a model, one a line.

use super::version::{self, Versioned};
use crate::error::{Error, Result};
use crate::fsutil::{lfs_error, lfs_pointer, open_regular};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;
/// A longer line is not one of ours.
const MOST_LINE_BYTES: u64 = 16 << 20;

/// Where a run's predictions lie.
pub fn path(run: &Path) -> PathBuf {
    run.join("predictions.jsonl")
}

/// Where the answers of a benchmark lie that were asked under controls: a file each, named by the control.
pub(crate) fn controls(folder: &Path) -> PathBuf {
    folder.join("controls")
}

/// One answer of a model: one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The item's key in its manifest.
    pub id: String,
    /// Groups items into rows of the table.
    pub task: String,
    /// The audio file, as the manifest names it.
    pub path: String,
    /// The question as asked.
    pub prompt: String,
    /// The right answer.
    pub reference: String,
    /// What the model wrote, special tokens left out.
    pub prediction: String,
    /// The ids that it generated.
    #[serde(default)]
    pub tokens: Vec<i64>,
    /// The closed set of answers; empty where the answer is free.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Probability of a right guess, from 0 to 1.
    #[serde(default)]
    pub chance: Option<f64>,
    /// The item was not asked as it is, so that the answer is no part of the score: with silence in the audio's place, unless
    /// `condition` says otherwise.
    #[serde(default)]
    pub control: bool,
    /// Which control it is, as `af2 eval --control` names it; empty of silence and of answers that are none. Of an answer that is none and
    /// was not heard but asked of captions `cascade:SECONDS`; these stood before `prompt`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub condition: String,
    /// It was asked in other words than the manifest's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reworded: bool,
    /// Of options that were rotated: at each place the number, from 0, of the option that stands there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<usize>,
    /// What the model thought before its answer, where that was taken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// How likely each option is, where the likeliest is the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Weighed>,
    /// Which of several samples of the answer, from 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sample: usize,
    /// A token of the answer led the next one by less than 1e-4: other neighbours in the engine may give another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub near_tie: bool,
    /// Time from when the question was handed to the decoding engine to its last token. The engine answers several questions at
    /// once and hears a clip once for all of them, so that these overlap: their sum is no run's time.
    #[serde(default)]
    pub seconds: f64,
}

/// How likely an option is. Natural logarithms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weighed {
    /// The option.
    pub choice: String,
    /// Of all that is written: the answer and what ends it.
    pub logprob: f64,
    /// Of the answer alone.
    pub logprob_answer: f64,
    /// `logprob_answer` over the answer's tokens.
    pub per_token: f64,
    /// `logprob_answer` over the answer's characters.
    pub per_character: f64,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Prediction {
    /// The line with its end.
    pub(crate) fn line(&self) -> serde_json::Result<String> {
        let written = Versioned {
            version: VERSION,
            value: self,
        };
        Ok(serde_json::to_string(&written)? + "\n")
    }
}

/// Reads `predictions.jsonl`; empty lines are passed over.
///
/// # Errors
/// The first line, counted from 1, that is not a prediction, with what is wrong with it.
pub fn read(path: &Path) -> Result<Vec<Prediction>> {
    let mut predictions = Vec::new();
    lines(path, |place, line| {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        if let Some(says) = lfs_pointer(line).filter(|_| place == "line 1") {
            return Err(lfs_error(path, &says));
        }
        // What some editors put before the first line.
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        version::check(line, VERSION, path, place)?;
        let prediction: Prediction = serde_json::from_slice(line)
            .map_err(|e| Error::data(path, place, "a prediction as JSON", e.to_string()))?;
        match prediction.chance {
            Some(chance) if !(0.0..=1.0).contains(&chance) => Err(Error::data(
                path,
                place,
                "a chance from 0 to 1",
                chance.to_string(),
            )),
            _ => {
                predictions.push(prediction);
                Ok(())
            }
        }
    })?;
    Ok(predictions)
}

/// How all answers of a file were got, where that is not by hearing the item's clip: `cascade:SECONDS`. Its first line says it; of a
/// file that is none of ours nothing does.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn condition(path: &Path) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct First {
        #[serde(rename = "reference")]
        _reference: String,
        #[serde(default)]
        control: bool,
        #[serde(default)]
        condition: String,
    }
    let mut line = Vec::new();
    let mut bounded = BufReader::new(open_regular(path)?).take(MOST_LINE_BYTES);
    bounded
        .read_until(b'\n', &mut line)
        .map_err(|e| Error::io(path, e))?;
    let first: Option<First> = serde_json::from_slice(&line).ok();
    Ok(first
        .filter(|first| !first.control && !first.condition.is_empty())
        .map(|first| first.condition))
}

/// Every line with its end, where it has one, and its number in words, from 1.
///
/// # Errors
/// One that is too long; those of `each`.
pub(crate) fn lines(path: &Path, mut each: impl FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
    let mut reader = BufReader::new(open_regular(path)?);
    let mut line = Vec::new();
    for number in 1.. {
        let place = format!("line {number}");
        line.clear();
        // One byte more than allowed tells a long line from the longest.
        let mut bounded = (&mut reader).take(MOST_LINE_BYTES + 1);
        match bounded
            .read_until(b'\n', &mut line)
            .map_err(|e| Error::io(path, e))?
        {
            0 => break,
            n if n as u64 > MOST_LINE_BYTES => {
                let expected = format!("at most {MOST_LINE_BYTES} bytes");
                return Err(Error::data(path, place, expected, "more"));
            }
            _ => each(&place, &line)?,
        }
    }
    Ok(())
}

/// An answer for tests.
#[cfg(test)]
pub(crate) fn asked(id: usize, reference: &str, prediction: &str) -> Prediction {
    Prediction {
        id: id.to_string(),
        task: "events".into(),
        path: format!("{id}.wav"),
        prompt: "what is it?".into(),
        reference: reference.into(),
        prediction: prediction.into(),
        tokens: vec![5, 6],
        labels: vec!["dog".into(), "rain".into()],
        chance: Some(0.5),
        control: false,
        condition: String::new(),
        reworded: false,
        order: Vec::new(),
        thinking: None,
        choices: Vec::new(),
        sample: 0,
        near_tie: false,
        seconds: 0.25,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<Vec<Prediction>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn lines_survive_a_round_trip() {
        let before = vec![asked(0, "dog", "\"dog\"\n– Ωß"), asked(1, "rain", "")];
        let text: Vec<String> = before.iter().map(|p| p.line().unwrap()).collect();
        assert_eq!(lines(&(text.concat() + "\n")).unwrap(), before);
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = asked(0, "dog", "dog").line().unwrap().trim().to_owned();
        let error = |second: &str| lines(&format!("{good}\n{second}\n")).unwrap_err().to_string();
        let e = error("{\"id\": \"1\"}");
        assert!(
            e.contains("predictions.jsonl: line 2: ") && e.contains("missing field"),
            "{e}"
        );
        let e = error(&good.replace("0.5", "1.5"));
        assert!(
            e.contains("line 2: expected a chance from 0 to 1, found 1.5"),
            "{e}"
        );
        assert!(error("{").contains("line 2"));
    }

    #[test]
    fn lines_of_older_runs_are_read_and_those_of_newer_ones_refused() {
        let line = asked(0, "dog", "dog").line().unwrap();
        let old = line.replacen("\"version\":1,", "", 1);
        assert_ne!(old, line);
        assert_eq!(lines(&old).unwrap(), lines(&line).unwrap());
        let new = line.replacen("\"version\":1,", "\"version\":2,", 1);
        let e = lines(&format!("{old}{new}")).unwrap_err().to_string();
        assert!(
            e.contains("predictions.jsonl: line 2: ") && e.contains("version 2"),
            "{e}"
        );
        // A newer form may have other fields.
        let e = lines("{\"version\": 2, \"answers\": []}\n")
            .unwrap_err()
            .to_string();
        assert!(e.contains("found version 2"), "{e}");
    }
}
