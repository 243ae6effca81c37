//! Predictions in, results out: no model, no audio; rerunnable on any machine from `predictions.jsonl`.

use super::rules::{normalise, Rule, Verdict};
use crate::error::{all, Error, Result};
use crate::fsutil::{lfs_error, lfs_pointer, open_regular, read_text, write_atomic};
use crate::metrics::accuracy::{balanced, Count};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::mean;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// A line of predictions longer than this is not one of ours.
const MOST_LINE_BYTES: u64 = 16 << 20;
/// Faulty items told one by one before the rest is left out.
const MOST_FAULTS: usize = 20;

/// One answer of a model: one line of `predictions.jsonl`.
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
    /// The audio was replaced by silence.
    #[serde(default)]
    pub control: bool,
    /// Time from the question to the last token.
    #[serde(default)]
    pub seconds: f64,
}

/// How predictions are scored.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Settings {
    /// For all tasks. `None`: [`Rule::Label`] where every item of a task has labels, [`Rule::Exact`] elsewhere.
    pub rule: Option<Rule>,
    pub bootstrap: Bootstrap,
}

/// Accuracy over the items of one task under one condition. Shares are from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub n: usize,
    pub correct: usize,
    pub accuracy: f64,
    /// Of the accuracy, at the level of [`Results::bootstrap`].
    pub interval: Interval,
    /// Mean recall over the classes, a class being a [`normalise`]d reference; only of closed option sets.
    pub balanced_accuracy: Option<f64>,
    /// Predictions that were no answer under the rule; they count as wrong.
    pub unparsed: usize,
    /// Mean of the items' chance; `None` unless every item has one.
    pub chance: Option<f64>,
}

/// A row of the table. A condition that was not run is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    pub task: String,
    pub rule: Rule,
    /// With the item's audio.
    pub audio: Option<Score>,
    /// The control: with silence in the audio's place.
    pub silence: Option<Score>,
}

/// `results.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub bootstrap: Bootstrap,
    /// In the order in which the predictions name them.
    pub tasks: Vec<TaskResult>,
}

impl Results {
    /// Unweighted mean of the tasks' accuracies; `None` unless every task was run with its audio.
    pub fn macro_accuracy(&self) -> Option<f64> {
        let accuracies: Option<Vec<f64>> = self
            .tasks
            .iter()
            .map(|t| t.audio.as_ref().map(|s| s.accuracy))
            .collect();
        mean(&accuracies?)
    }

    /// Writes them as indented JSON, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomic(path, |w| {
            serde_json::to_writer_pretty(&mut *w, self).map_err(|e| Error::io(path, e.into()))?;
            w.write_all(b"\n").map_err(|e| Error::io(path, e))
        })
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path).map_err(|e| e.hint("`af2 eval` writes results.json"))?;
        serde_json::from_str(&text).map_err(|e| {
            Error::data(
                path,
                format!("line {}", e.line()),
                "results of `af2 eval`",
                e.to_string(),
            )
        })
    }
}

/// Reads `predictions.jsonl`; empty lines are passed over.
///
/// # Errors
/// The first line, counted from 1, that is not a prediction, with what is wrong with it.
pub fn read_predictions(path: &Path) -> Result<Vec<Prediction>> {
    let io = |e| Error::io(path, e);
    let mut reader = BufReader::new(open_regular(path)?);
    let mut predictions = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        let bad =
            |expected: &str, found: String| Err(Error::data(path, format!("line {number}"), expected, found));
        line.clear();
        // One byte more than allowed tells a long line from the longest.
        let mut bounded = (&mut reader).take(MOST_LINE_BYTES + 1);
        match bounded.read_until(b'\n', &mut line).map_err(io)? {
            0 => break,
            n if n as u64 > MOST_LINE_BYTES => {
                return bad(&format!("at most {MOST_LINE_BYTES} bytes"), "more".into());
            }
            _ if line.trim_ascii().is_empty() => continue,
            _ => {}
        }
        if let Some(says) = lfs_pointer(&line).filter(|_| number == 1) {
            return Err(lfs_error(path, &says));
        }
        // What some editors put before the first line.
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&line);
        let prediction: Prediction = match serde_json::from_slice(line) {
            Ok(prediction) => prediction,
            Err(e) => return bad("a prediction as JSON", e.to_string()),
        };
        match prediction.chance {
            Some(chance) if !(0.0..=1.0).contains(&chance) => {
                return bad("a chance from 0 to 1", chance.to_string());
            }
            _ => predictions.push(prediction),
        }
    }
    Ok(predictions)
}

/// [`score_with`] the default settings.
pub fn score(predictions: &[Prediction]) -> Result<Results> {
    score_with(predictions, &Settings::default())
}

/// Scores the predictions, task by task, the silence control apart.
///
/// # Errors
/// No predictions; the same item twice under one condition, which would count it twice; items that no prediction could
/// answer under the rule, all told at once.
pub fn score_with(predictions: &[Prediction], settings: &Settings) -> Result<Results> {
    if predictions.is_empty() {
        return Err(
            Error::data("predictions", "lines", "at least one", "none").hint("`af2 eval` writes predictions")
        );
    }
    let mut tasks: IndexMap<&str, Vec<&Prediction>> = IndexMap::new();
    for p in predictions {
        tasks.entry(&p.task).or_default().push(p);
    }
    let mut errors = repeated(predictions);
    let mut results = Vec::with_capacity(tasks.len());
    for (task, asked) in tasks {
        let closed = asked.iter().all(|p| !p.labels.is_empty());
        let rule = settings
            .rule
            .unwrap_or(if closed { Rule::Label } else { Rule::Exact });
        let (control, audio): (Vec<&Prediction>, Vec<&Prediction>) =
            asked.into_iter().partition(|p| p.control);
        let mut of = |asked: &[&Prediction]| score_items(asked, rule, &settings.bootstrap, &mut errors);
        results.push(TaskResult {
            task: task.to_owned(),
            rule,
            audio: of(&audio)?,
            silence: of(&control)?,
        });
    }
    errors.truncate(MOST_FAULTS);
    all(errors)?;
    Ok(Results {
        bootstrap: settings.bootstrap,
        tasks: results,
    })
}

/// One error for each item that is there twice under one condition.
fn repeated(predictions: &[Prediction]) -> Vec<Error> {
    let mut seen = HashSet::new();
    predictions
        .iter()
        // Two manifests of one task may use the same keys: the file and question tell them apart.
        .filter(|p| !seen.insert((&p.task, &p.id, &p.path, &p.prompt, p.control)))
        .map(|p| Error::data("predictions", place(p), "each item once", "it again"))
        .collect()
}

fn place(p: &Prediction) -> String {
    let condition = if p.control { " (silence)" } else { "" };
    format!("{}/{}{condition}", p.task, p.id)
}

/// `None` of no items. Faulty items go to `errors`; the score is then not to be used.
fn score_items(
    asked: &[&Prediction],
    rule: Rule,
    bootstrap: &Bootstrap,
    errors: &mut Vec<Error>,
) -> Result<Option<Score>> {
    let mut verdicts = Vec::with_capacity(asked.len());
    for p in asked {
        match rule.judge(&p.prediction, &p.reference, &p.labels, &p.prompt) {
            Ok(verdict) => verdicts.push(verdict),
            Err(fault) => {
                let key = format!("{}: {}", place(p), fault.key);
                errors.push(Error::data("predictions", key, fault.expected, fault.found));
                verdicts.push(Verdict::Wrong);
            }
        }
    }
    let right = || verdicts.iter().map(|v| *v == Verdict::Right);
    let count = Count::of(right());
    let Some(accuracy) = count.accuracy() else {
        return Ok(None);
    };
    let values: Vec<f64> = right().map(|r| f64::from(u8::from(r))).collect();
    let classes: Vec<String> = asked.iter().map(|p| normalise(&p.reference)).collect();
    let chances: Option<Vec<f64>> = asked.iter().map(|p| p.chance).collect();
    Ok(Some(Score {
        n: count.n,
        correct: count.correct,
        accuracy,
        interval: bootstrap.interval(&values)?,
        balanced_accuracy: match rule {
            Rule::Label => balanced(classes.iter().map(String::as_str).zip(right())),
            Rule::Exact | Rule::Number => None,
        },
        unparsed: verdicts.iter().filter(|v| **v == Verdict::Unparsed).count(),
        chance: chances.and_then(|c| mean(&c)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(id: usize, reference: &str, prediction: &str) -> Prediction {
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
            seconds: 0.25,
        }
    }

    fn quick() -> Settings {
        let mut settings = Settings::default();
        settings.bootstrap.resamples = 500;
        settings
    }

    fn lines(text: &str) -> Result<Vec<Prediction>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.jsonl");
        std::fs::write(&path, text).unwrap();
        read_predictions(&path)
    }

    #[test]
    fn counts_right_wrong_and_unparsed() {
        let all = [
            asked(0, "dog", "A dog."),
            asked(1, "dog", "rain"),
            asked(2, "dog", "dog or rain"),
            asked(3, "rain", "rain"),
        ];
        let results = score_with(&all, &quick()).unwrap();
        let row = &results.tasks[0];
        let score = row.audio.as_ref().unwrap();
        assert_eq!(
            (row.rule, score.n, score.correct, score.unparsed),
            (Rule::Label, 4, 2, 1)
        );
        assert_eq!(score.accuracy, 0.5);
        assert!(score.interval.low < 0.5 && 0.5 < score.interval.high);
        // dog 1 of 3, rain 1 of 1
        assert_eq!(score.balanced_accuracy, Some((1.0 / 3.0 + 1.0) / 2.0));
        assert_eq!(score.chance, Some(0.5));
        assert_eq!(row.silence, None);
        assert_eq!(results.macro_accuracy(), Some(0.5));
    }

    #[test]
    fn the_control_is_scored_apart_and_may_be_alone() {
        let mut control = asked(0, "dog", "rain");
        control.control = true;
        let results = score_with(&[asked(0, "dog", "dog"), control.clone()], &quick()).unwrap();
        assert_eq!(results.tasks[0].audio.as_ref().unwrap().correct, 1);
        assert_eq!(results.tasks[0].silence.as_ref().unwrap().correct, 0);
        let alone = score_with(&[control], &quick()).unwrap();
        assert_eq!(alone.tasks[0].audio, None);
        assert_eq!(alone.macro_accuracy(), None);
    }

    #[test]
    fn free_answers_are_compared_whole_and_have_no_chance() {
        let mut free = asked(0, "a dog barks", "A dog barks.");
        free.labels.clear();
        let mut unknown = asked(1, "rain", "it is rain");
        unknown.chance = None;
        let row = &score_with(&[free, unknown], &quick()).unwrap().tasks[0];
        let score = row.audio.as_ref().unwrap();
        assert_eq!((row.rule, score.correct), (Rule::Exact, 1));
        assert_eq!((score.chance, score.balanced_accuracy), (None, None));
    }

    #[test]
    fn an_item_twice_and_an_impossible_item_are_errors_told_together() {
        let all = [
            asked(0, "dog", "dog"),
            asked(0, "dog", "dog"),
            asked(1, "cat", "dog"),
        ];
        let text = score_with(&all, &quick()).unwrap_err().to_string();
        assert!(text.contains("events/0: expected each item once"), "{text}");
        assert!(text.contains("events/1: reference"), "{text}");
        assert!(score(&[]).is_err());
    }

    #[test]
    fn lines_survive_a_round_trip() {
        let before = vec![asked(0, "dog", "\"dog\"\n– Ωß"), asked(1, "rain", "")];
        let text: Vec<String> = before.iter().map(|p| serde_json::to_string(p).unwrap()).collect();
        assert_eq!(lines(&format!("{}\n\n", text.join("\n"))).unwrap(), before);
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = serde_json::to_string(&asked(0, "dog", "dog")).unwrap();
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
    fn results_survive_a_round_trip_and_are_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        let all: Vec<Prediction> = (0..9)
            .map(|i| asked(i, "dog", if i % 3 == 0 { "rain" } else { "dog" }))
            .collect();
        let results = score_with(&all, &quick()).unwrap();
        results.write(&path).unwrap();
        assert_eq!(Results::read(&path).unwrap(), results);
        assert_eq!(score_with(&all, &quick()).unwrap(), results);
        std::fs::write(&path, "{\n\"tasks\": 3}").unwrap();
        assert!(Results::read(&path).unwrap_err().to_string().contains("line 2"));
    }
}
