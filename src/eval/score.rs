//! Predictions in, results out: no model, no audio; rerunnable on any machine from `predictions.jsonl`.

use super::rules::{judge, normalise, Verdict};
use crate::error::{all, Error, Result};
use crate::metrics::accuracy::{balanced, Count};
use crate::metrics::bootstrap::Bootstrap;
use crate::metrics::mean;
use crate::metrics::statistics::clusters::Clusters;
use crate::run::predictions::Prediction;
use crate::run::results::{Results, Rule, Score, TaskResult};
use indexmap::IndexMap;
use std::collections::HashSet;

/// Faulty items told one by one before the rest is left out.
const MOST_FAULTS: usize = 20;

/// How predictions are scored.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Settings {
    /// For all tasks. `None`: [`Rule::Label`] where every item of a task has labels, [`Rule::Exact`] elsewhere.
    pub rule: Option<Rule>,
    pub bootstrap: Bootstrap,
}

/// [`score_with`] the default settings.
pub(crate) fn score(predictions: &[Prediction]) -> Result<Results> {
    score_with(predictions, &Settings::default())
}

/// Scores the predictions, task by task, the silence control apart.
///
/// # Errors
/// No predictions; the same item twice under one condition, which would count it twice; items that no prediction could
/// answer under the rule, all told at once.
pub(crate) fn score_with(predictions: &[Prediction], settings: &Settings) -> Result<Results> {
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
        .filter(|p| !seen.insert((&p.task, &p.id, &p.path, &p.prompt, p.control, p.sample)))
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
        match judge(rule, &p.prediction, &p.reference, &p.labels, &p.prompt) {
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
    let values = right().map(|r| f64::from(u8::from(r)));
    let clips = Clusters::of(asked.iter().map(|p| p.path.as_str()).zip(values))?;
    let classes: Vec<String> = asked.iter().map(|p| normalise(&p.reference)).collect();
    let chances: Option<Vec<f64>> = asked.iter().map(|p| p.chance).collect();
    Ok(Some(Score {
        n: count.n,
        correct: count.correct,
        accuracy,
        interval: bootstrap.clustered_mean(&clips)?,
        clips: Some(clips.len()),
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
    use crate::run::predictions::asked;

    fn quick() -> Settings {
        let mut settings = Settings::default();
        settings.bootstrap.resamples = 500;
        settings
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
    }

    #[test]
    fn questions_about_one_clip_are_drawn_together() {
        // Four clips, two of them all right, with six questions each.
        let of = |clip: usize, n: usize| {
            let mut p = asked(6 * clip + n, "dog", if clip < 2 { "dog" } else { "rain" });
            p.path = format!("{clip}.wav");
            p
        };
        let all: Vec<Prediction> = (0..4).flat_map(|clip| (0..6).map(move |n| of(clip, n))).collect();
        let score = |all: &[Prediction]| score_with(all, &quick()).unwrap().tasks[0].audio.clone().unwrap();
        let together = score(&all);
        assert_eq!((together.clips, together.accuracy), (Some(4), 0.5));
        assert_eq!((together.interval.low, together.interval.high), (0.0, 1.0));
        let mut apart = all;
        apart.iter_mut().for_each(|p| p.path = p.id.clone());
        let apart = score(&apart);
        assert_eq!(apart.clips, Some(24));
        // As before clips counted.
        let values: Vec<f64> = (0..24).map(|i| f64::from(u8::from(i < 12))).collect();
        assert_eq!(apart.interval, quick().bootstrap.interval(&values).unwrap());
        // Results of before are read.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        let results = score_with(&[asked(0, "dog", "dog")], &quick()).unwrap();
        results.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let old = text.replace("\"clips\": 1,", "");
        assert_ne!(old, text);
        std::fs::write(&path, old).unwrap();
        let old = Results::read(&path).unwrap();
        assert_eq!(old.tasks[0].audio.as_ref().unwrap().clips, None);
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
