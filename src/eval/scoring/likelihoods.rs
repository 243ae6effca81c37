//! How likely a model finds each choice, beside which one is right: lines of `af2 generate --json --choices`, of other tools, and
//! samples of lm-evaluation-harness's multiple choice.

use super::loaded::{load, Row};
use super::pairs::{named, question, Names};
use crate::error::{Error, Result};
use serde_json::Value;
use std::path::Path;

const HINT: &str = "a line is one of `af2 generate --json --choices`, or {\"id\": \"1\", \"choices\": [\"yes\", \"no\"], \"logprobs\": \
                    [-0.1, -2.4], \"answer\": \"yes\"}; --items FILE has the right answers otherwise";

/// Which of a choice's log-probabilities are made into shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum By {
    /// Of all that is written, the end too.
    Logprob,
    /// Without the end.
    LogprobAnswer,
    /// That over its tokens.
    PerToken,
    /// That over its characters.
    PerCharacter,
}

impl By {
    /// As it stands in a line.
    pub fn name(self) -> &'static str {
        match self {
            By::Logprob => "logprob",
            By::LogprobAnswer => "logprob_answer",
            By::PerToken => "per_token",
            By::PerCharacter => "per_character",
        }
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// Its id, or its place.
    pub id: String,
    /// What it is about.
    pub clip: Option<String>,
    /// Their names; empty texts where the file has none.
    pub choices: Vec<String>,
    /// Of each choice; their sum is 1.
    pub probabilities: Vec<f64>,
    /// The right one's place.
    pub truth: usize,
}

impl Likelihood {
    /// The place of the likeliest choice, of equals the first.
    pub fn likeliest(&self) -> usize {
        let p = &self.probabilities;
        (0..p.len()).fold(0, |best, i| if p[i] > p[best] { i } else { best })
    }

    /// Σ (p − y)² over its choices.
    pub fn brier(&self) -> f64 {
        let off = |(i, p): (usize, &f64)| (p - f64::from(u8::from(i == self.truth))).powi(2);
        self.probabilities.iter().enumerate().map(off).sum()
    }
}

/// Reads a file; the second number counts records in which half of a surrogate pair was replaced.
///
/// # Errors
/// The first record without likelihoods or without a right choice, with its place.
pub fn likelihoods(path: &Path, items: Option<&Path>, by: By) -> Result<(Vec<Likelihood>, usize)> {
    let loaded = load(path)?;
    let mut mended = loaded.mended;
    let items = match items {
        Some(of) => {
            let loaded = load(of)?;
            mended += loaded.mended;
            let mut by_name = Names::default();
            loaded
                .rows
                .iter()
                .enumerate()
                .for_each(|(i, row)| by_name.add_row(row, i));
            Some((of, loaded.rows, by_name))
        }
        None => None,
    };
    let mut all = Vec::with_capacity(loaded.rows.len());
    for row in &loaded.rows {
        let (choices, probabilities) = shares(path, row, by)?;
        let own = match &items {
            Some((of, rows, by_name)) => {
                let found = by_name.find_row(row).and_then(|i| rows.get(i));
                let shown = || named(row).0.or(named(row).1).unwrap_or_default();
                let item = found.ok_or_else(|| {
                    let found = crate::error::short(&format!("{:?}, {:?}", shown(), question(row)));
                    Error::data(path, &row.place, format!("an item of {}", of.display()), found)
                })?;
                truth(of, item, &choices)?
            }
            None => truth(path, row, &choices)?,
        };
        let (id, clip) = named(row);
        all.push(Likelihood {
            id: id.unwrap_or_else(|| row.place.clone()),
            clip,
            choices,
            probabilities,
            truth: own,
        });
    }
    Ok((all, mended))
}

/// Choices, and the share of each.
fn shares(path: &Path, row: &Row, by: By) -> Result<(Vec<String>, Vec<f64>)> {
    let wrong = |key: &str, expected: &str, found: String| {
        Error::data(path, format!("{}: {key}", row.place), expected, found).hint(HINT)
    };
    let choices = row.record.get("choices").and_then(Value::as_array);
    if let Some(all) = choices.filter(|all| all.iter().any(Value::is_object)) {
        let key = by.name();
        let number = |(i, one): (usize, &Value)| {
            let value = one.get(key).and_then(Value::as_f64);
            value.ok_or_else(|| {
                let found = one
                    .get(key)
                    .map_or("nothing".to_owned(), |v| crate::error::short(v));
                wrong(&format!("choices.{i}.{key}"), "a number", found)
            })
        };
        let logs = all.iter().enumerate().map(number).collect::<Result<Vec<f64>>>()?;
        let name = |one: &Value| {
            one.get("choice")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        return Ok((
            all.iter().map(name).collect(),
            softmax(&logs).ok_or_else(|| not_one(path, row))?,
        ));
    }
    if by != By::Logprob {
        let expected = format!("choices that have {}", by.name());
        return Err(Error::data(path, &row.place, expected, "choices without")
            .hint("only `af2 generate --json` writes these"));
    }
    let doc = row.record.get("doc").unwrap_or(&Value::Null);
    let names = choices.or_else(|| doc.get("choices")?.as_array());
    let texts = |all: &[Value]| {
        all.iter()
            .map(|v| v.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let numbers = |key: &str, all: &[Value]| -> Result<Vec<f64>> {
        let number = |(i, value): (usize, &Value)| {
            // lm-evaluation-harness: [[log-probability, whether greedy decoding says it]], in lists in lists.
            let mut inner = value;
            while let Some(first) = inner.as_array().and_then(|list| list.first()) {
                inner = first;
            }
            let own = inner.as_f64().or_else(|| inner.as_str()?.parse().ok());
            let own = own.filter(|v| !v.is_nan());
            own.ok_or_else(|| wrong(&format!("{key}.{i}"), "a number", crate::error::short(value)))
        };
        all.iter().enumerate().map(number).collect()
    };
    let found = ["logprobs", "probabilities", "filtered_resps", "resps"]
        .into_iter()
        .find_map(|key| Some((key, row.record.get(key)?.as_array()?)));
    let Some((key, all)) = found else {
        let keys: Vec<&str> = row.record.keys().take(8).map(String::as_str).collect();
        let expected = "choices with their log-probabilities";
        let found = format!("the keys {}", keys.join(", "));
        return Err(Error::data(path, &row.place, expected, found).hint(HINT));
    };
    let values = numbers(key, all)?;
    let names = names.map_or(vec![String::new(); values.len()], |names| texts(names));
    if names.len() != values.len() || values.is_empty() {
        let expected = format!("{} numbers, one a choice", names.len().max(1));
        return Err(wrong(key, &expected, values.len().to_string()));
    }
    let shares = match key {
        "probabilities" => Some(values),
        _ => softmax(&values),
    };
    Ok((names, shares.ok_or_else(|| not_one(path, row))?))
}

fn not_one(path: &Path, row: &Row) -> Error {
    let expected = "log-probabilities, at least one of them above minus infinity and none above 0";
    Error::data(path, &row.place, expected, "others").hint(HINT)
}

/// None of log-probabilities that are none.
fn softmax(logs: &[f64]) -> Option<Vec<f64>> {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // What rounding makes of log 1.
    if !most.is_finite() || most > 1e-3 || logs.iter().any(|l| l.is_nan()) {
        return None;
    }
    let weights: Vec<f64> = logs.iter().map(|l| (l - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    Some(weights.into_iter().map(|w| w / sum).collect())
}

/// The right choice: by its text, but for case and space around, or by its place from 0.
fn truth(path: &Path, row: &Row, choices: &[String]) -> Result<usize> {
    let doc = row.record.get("doc");
    let keys = ["truth", "answer", "reference", "output", "label", "target"];
    let of = |key: &&str| row.record.get(*key).or_else(|| doc?.get(*key));
    let Some((key, value)) = keys.iter().find_map(|key| Some((*key, of(key)?))) else {
        let e = Error::data(path, &row.place, "the right choice, as `answer`", "none");
        return Err(e.hint(HINT));
    };
    let plain = |text: &str| text.trim().to_lowercase();
    let place = |n: u64| usize::try_from(n).ok().filter(|n| *n < choices.len());
    let found = match value {
        Value::Number(n) => n.as_u64().and_then(place),
        Value::String(text) => {
            let exact = choices.iter().position(|c| c == text);
            let like = || {
                let mut same = choices
                    .iter()
                    .enumerate()
                    .filter(|(_, c)| plain(c) == plain(text));
                match (same.next(), same.next()) {
                    (Some((i, _)), None) => Some(i),
                    _ => None,
                }
            };
            // lm-evaluation-harness writes places as texts.
            let number = || {
                text.trim()
                    .parse()
                    .ok()
                    .and_then(place)
                    .filter(|_| key == "target")
            };
            exact.or_else(like).or_else(number)
        }
        _ => None,
    };
    found.ok_or_else(|| {
        let shown = crate::error::short(&choices.join(" | "));
        let expected = format!("one of the choices: {shown}");
        Error::data(
            path,
            format!("{}: {key}", row.place),
            expected,
            crate::error::short(value),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, items: Option<&str>, by: By) -> Result<Vec<Likelihood>> {
        let folder = tempfile::tempdir().unwrap();
        let (path, of) = (
            folder.path().join("said.jsonl"),
            folder.path().join("items.jsonl"),
        );
        std::fs::write(&path, text).unwrap();
        let items = items.map(|text| {
            std::fs::write(&of, text).unwrap();
            of.as_path()
        });
        likelihoods(&path, items, by).map(|(all, _)| all)
    }

    #[test]
    fn every_tools_form_gives_the_same_shares() {
        let third = 1.0f64 / 3.0;
        let (a, b) = (third.ln(), (2.0 * third).ln());
        let ours = format!(
            r#"{{"path": "x/a.wav", "prompt": "q?", "text": "yes", "choices": [
               {{"choice": "yes", "logprob": {a}, "per_token": -1.0}}, {{"choice": "no", "logprob": {b}, "per_token": -1.0}}]}}"#
        )
        .replace('\n', " ");
        let items = r#"{"path": "a.wav", "prompt": "q?", "answer": "Yes "}"#;
        let lists = format!(r#"{{"id": 7, "choices": ["yes", "no"], "logprobs": [{a}, {b}], "answer": 0}}"#);
        let shares = r#"{"id": 7, "choices": ["yes", "no"], "probabilities": [0.3333333333, 0.6666666667], "answer": "yes"}"#;
        let harness = format!(
            r#"{{"doc_id": 1, "doc": {{"choices": ["yes", "no"]}}, "target": "0", "resps": [[[{a}, false]], [[{b}, true]]]}}"#
        );
        for (text, items) in [
            (&*ours, Some(items)),
            (&*lists, None),
            (shares, None),
            (&*harness, None),
        ] {
            let all = of(text, items, By::Logprob).unwrap();
            let one = &all[0];
            assert!((one.probabilities[0] - third).abs() < 1e-9, "{text}");
            assert_eq!((one.truth, one.likeliest()), (0, 1), "{text}");
            // (1 − 1/3)² + (2/3)²
            assert!((one.brier() - 8.0 / 9.0).abs() < 1e-9, "{text}");
        }
        let even = of(&ours, Some(items), By::PerToken).unwrap();
        assert_eq!(even[0].probabilities, [0.5, 0.5]);
    }

    #[test]
    fn what_is_no_likelihood_is_named() {
        let line = |more: &str| format!(r#"{{"id": 1, "choices": ["yes", "no"], {more}}}"#);
        for (text, word) in [
            (line(r#""answer": "yes""#), "log-probabilities"),
            (line(r#""logprobs": [-1.0], "answer": "yes""#), "2 numbers"),
            (line(r#""logprobs": [-1.0, null], "answer": "yes""#), "logprobs.1"),
            (
                line(r#""logprobs": [-1.0, 5.0], "answer": "yes""#),
                "none above 0",
            ),
            (line(r#""logprobs": [-1.0, -2.0]"#), "the right choice"),
            (line(r#""logprobs": [-1.0, -2.0], "answer": "maybe""#), "yes | no"),
            (line(r#""logprobs": [-1.0, -2.0], "answer": 2"#), "yes | no"),
            (line(r#""logprobs": [], "answer": 0"#), "2 numbers"),
        ] {
            let e = of(&text, None, By::Logprob).unwrap_err().to_string();
            assert!(e.contains(word) && e.contains("line 1"), "{text}: {e}");
        }
    }
}
