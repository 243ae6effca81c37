//! Hugging Face: a model card whose metadata holds a `model-index` (`modelcard.md` of huggingface/hub-docs), and, where the
//! benchmark's place on the Hub is known, `.eval_results/NAME.yaml` (`docs/hub/eval-results.md` there). Neither holds items.

use super::exported::{file_name, Exported, HARNESS, HARNESS_VERSION};
use super::file::File;
use super::yaml;
use crate::error::{Error, Result};
use crate::report::table::Table;
use serde_json::{json, Value};
use std::path::Path;

/// The pipeline tag of models that answer a text about a sound.
const TASK: &str = "audio-text-to-text";

/// A benchmark on the Hub: a dataset that has said that it is one.
pub(crate) struct Hub {
    /// `ORGANIZATION/NAME`.
    pub dataset: String,
    /// A task that the dataset's `eval.yaml` names.
    pub task: String,
    /// A commit of the dataset.
    pub revision: Option<String>,
}

/// `README.md`, and a file in `.eval_results`.
///
/// # Errors
/// Several models, results without a score; several results where the Hub's benchmark is named, which is one.
pub(super) fn files<'a>(
    all: &'a [Exported],
    out: &Path,
    hub: Option<&Hub>,
    notes: &mut Vec<String>,
) -> Result<Vec<File<'a>>> {
    let Some(first) = all.first() else {
        return Ok(Vec::new());
    };
    if let Some(other) = all.iter().find(|e| e.model != first.model) {
        let (a, b) = (
            crate::error::short(&first.model),
            crate::error::short(&other.model),
        );
        let e = Error::usage(format!(
            "a model card is one model's, found results of `{a}` and of `{b}`"
        ));
        return Err(e.hint("export each model's results to its own folder"));
    }
    let results = all.iter().map(result).collect::<Result<Vec<_>>>()?;
    let index = json!({"model-index": [{"name": first.model, "results": results}]});
    let card = format!("---\n{}---\n\n{}", yaml::block(&index), body(first, all));
    let mut files = vec![File::text(out.join("README.md"), card)];
    match (hub, all) {
        (Some(hub), [one]) => {
            let path = out.join(".eval_results").join(format!("{}.yaml", file_name(&one.scored.benchmark)));
            files.push(File::text(path, yaml::block(&json!([entry(one, hub)]))));
        }
        (Some(_), _) => {
            let e = Error::usage(format!("--hub-dataset is one benchmark's, found {} results", all.len()));
            return Err(e.hint("export that benchmark's result alone"));
        }
        (None, _) => notes.push(
            "no .eval_results: --hub-dataset and --hub-task name the benchmark on the Hub, which cards do not".to_owned(),
        ),
    }
    notes.push("Hugging Face's forms hold no items: the other formats do".to_owned());
    Ok(files)
}

fn score(e: &Exported) -> Result<f64> {
    let none = || Error::data(&e.results, "score", "a score, which a model card demands", "null");
    e.scored.score.ok_or_else(none)
}

/// One of the index: the task, the dataset, its metrics.
fn result(e: &Exported) -> Result<Value> {
    let s = &e.scored;
    let mut metrics = vec![json!({
        "type": s.metric,
        "value": score(e)?,
        "name": format!("{}, {}, rule {} ({})", s.metric, s.name, s.rule, s.kind),
        "args": without_nulls(e.facts()),
    })];
    if let Some((other, score)) = s.other.as_ref().and_then(|o| Some((o, o.score?))) {
        let kind = e.other_kind();
        metrics.push(json!({
            "type": s.metric,
            "value": score,
            "name": format!("{}, {}, rule {} ({kind})", s.metric, s.name, other.rule),
            "args": without_nulls(json!({"rule": other.rule, "kind": kind, "unread": other.unread})),
        }));
    }
    Ok(json!({
        "task": {"type": TASK, "name": e.card.task.name()},
        "dataset": {
            "type": e.hub_dataset().unwrap_or(&s.benchmark),
            "name": e.card.title,
            "split": e.card.scored,
        },
        "metrics": metrics,
    }))
}

/// What is not known is not there: huggingface_hub drops such keys.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let known = map.into_iter().filter(|(_, v)| !v.is_null());
            Value::Object(known.map(|(k, v)| (k, without_nulls(v))).collect())
        }
        other => other,
    }
}

/// One of `.eval_results`.
fn entry(e: &Exported, hub: &Hub) -> Value {
    let s = &e.scored;
    let mut dataset = json!({"id": hub.dataset, "task_id": hub.task});
    if let (Some(revision), Value::Object(map)) = (&hub.revision, &mut dataset) {
        map.insert("revision".into(), json!(revision));
    }
    let mut notes = format!(
        "{}, {}, rule {} ({}), n = {}; {HARNESS} {HARNESS_VERSION}, card version {}, sha256 {}; items sha256 {}",
        s.metric, s.name, s.rule, s.kind, s.n, s.card.version, s.card.sha256, s.data.sha256
    );
    if let Some(i) = s.interval {
        notes += &format!(
            "; {}% interval {} to {}",
            100.0 * s.bootstrap.level,
            i.low,
            i.high
        );
    }
    json!({"dataset": dataset, "value": s.score, "date": e.time.iso(), "notes": notes})
}

/// For readers of the page.
fn body(first: &Exported, all: &[Exported]) -> String {
    let mut table = Table::new([
        "benchmark",
        "metric",
        "rule",
        "score",
        "95% interval",
        "n",
        "date",
    ]);
    for e in all {
        let s = &e.scored;
        let interval = s
            .interval
            .map_or("–".to_owned(), |i| format!("{:.4} to {:.4}", i.low, i.high));
        table.row([
            s.name.clone(),
            s.metric.clone(),
            format!("{} ({})", s.rule, s.kind),
            s.score.map_or("–".to_owned(), |v| format!("{v:.4}")),
            interval,
            s.n.to_string(),
            e.time.date(),
        ]);
    }
    let model: String = first.model.chars().filter(|c| !c.is_control()).collect();
    format!(
        "# Results of {model}\n\nScored by {HARNESS} {HARNESS_VERSION}, shares from 0 to 1. The metadata above hold them in full.\n\n{}",
        table.markdown()
    )
}
