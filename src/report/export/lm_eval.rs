//! lm-evaluation-harness 0.4.13: `results_DATE.json` (`EvalResults` of `lm_eval/result_schema.py`) and `samples_TASK_DATE.jsonl`
//! (`SampleResult` there), in a folder a model, as its `--output_path` and `--log_samples` write them.

use super::exported::{item_facts, sha256, Exported, Text, HARNESS};
use super::file::{line, File};
use crate::error::Result;
use crate::fsutil::hex;
use crate::run::scored::ScoredItem;
use indexmap::IndexMap;
use serde_json::{json, Map, Value};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

/// The rule reads the answer as it is: no filter of theirs stands before it.
const FILTER: &str = "none";

/// Of each model as many runs as some benchmark has results, each with its tasks' samples.
pub(super) fn files<'a>(all: &'a [Exported], out: &Path) -> Result<Vec<File<'a>>> {
    let mut models: IndexMap<String, Vec<&Exported>> = IndexMap::new();
    for e in all {
        models.entry(model_folder(&e.model)).or_default().push(e);
    }
    let mut files = Vec::new();
    for (model, results) in models {
        let folder = out.join(&model);
        let mut dates = HashSet::new();
        for run in runs(results) {
            let Some(mut time) = run.iter().map(|e| e.time).max() else {
                continue;
            };
            while !dates.insert(time.iso_micros()) {
                time = time.next();
            }
            let date = time.iso_micros().replace(':', "-");
            for e in run.iter().copied().filter(|e| e.texts.is_ok()) {
                let name = format!("samples_{}_{date}.jsonl", e.scored.benchmark);
                files.push(File::new(folder.join(name), |w| samples(e, w)));
            }
            let value = results_of(&run, time.unix());
            files.push(File::json(folder.join(format!("results_{date}.json")), value));
        }
    }
    Ok(files)
}

/// A model's name as a folder, as lm-evaluation-harness makes it.
fn model_folder(model: &str) -> String {
    let mut out = String::new();
    let mut within = false;
    for c in model.chars() {
        let bad = "\"<>:/|\\?*[]".contains(c);
        match (bad, within) {
            (true, false) => out += "__",
            (true, true) => {}
            (false, _) => out.push(c),
        }
        within = bad;
    }
    super::exported::file_name(&out)
}

/// Results in the order in which they came, so that no run has a benchmark twice.
fn runs(results: Vec<&Exported>) -> Vec<Vec<&Exported>> {
    let mut runs: Vec<Vec<&Exported>> = Vec::new();
    for e in results {
        // A model's name may differ from another one's in what a folder cannot say.
        let free = |run: &&mut Vec<&Exported>| {
            run.iter()
                .all(|r| r.scored.benchmark != e.scored.benchmark && r.model == e.model)
        };
        match runs.iter_mut().find(free) {
            Some(run) => run.push(e),
            None => runs.push(vec![e]),
        }
    }
    runs
}

fn results_of(run: &[&Exported], date: f64) -> Value {
    let mut all = Map::new();
    let by_task = |value: &dyn Fn(&Exported) -> Value| -> Value {
        Value::Object(
            run.iter()
                .map(|e| (e.scored.benchmark.clone(), value(e)))
                .collect(),
        )
    };
    let model = run.first().map(|e| e.model.as_str()).unwrap_or_default();
    let mut add = |key: &str, value: Value| {
        all.insert(key.to_owned(), value);
    };
    add("results", by_task(&metrics));
    add("group_subtasks", by_task(&|_| json!([])));
    add("configs", by_task(&config));
    add("versions", by_task(&|e| json!(e.scored.card.version)));
    // How many examples stood before a question nobody has said.
    add("n-shot", json!({}));
    add("higher_is_better", by_task(&higher));
    add(
        "n-samples",
        by_task(&|e| {
            let in_file = e.scored.items.len() as u64;
            json!({"original": e.scored.data.expected.unwrap_or(in_file), "effective": e.scored.n})
        }),
    );
    add("config", json!({}));
    add("date", json!(date));
    add("model_name", json!(model));
    add("model_name_sanitized", json!(model_folder(model)));
    let hashed = run.iter().filter(|e| e.texts.is_ok());
    let hashes = hashed.map(|e| (e.scored.benchmark.clone(), json!(task_hash(e))));
    add("task_hashes", Value::Object(hashes.collect()));
    Value::Object(all)
}

/// The score, the other rule's, what the score is made of; each with its standard error, or `N/A`.
fn metrics(e: &Exported) -> Value {
    let s = &e.scored;
    let mut all = Map::new();
    all.insert("name".into(), json!(s.benchmark));
    all.insert("alias".into(), json!(s.name));
    all.insert("sample_len".into(), json!(s.n));
    for (name, value, error) in values(e) {
        all.insert(format!("{name},{FILTER}"), json!(value));
        let error = error.map_or(json!("N/A"), |error| json!(error));
        all.insert(format!("{name}_stderr,{FILTER}"), error);
    }
    Value::Object(all)
}

fn values(e: &Exported) -> Vec<(String, f64, Option<f64>)> {
    let s = &e.scored;
    let own = s.score.map(|v| (s.metric.clone(), v, e.standard_error()));
    let other = s.other.as_ref().and_then(|o| o.score);
    let other = other.map(|v| (format!("{}_{}", s.metric, e.other_kind()), v, None));
    let parts = s.parts.iter().map(|(name, v)| (format!("part_{name}"), *v, None));
    own.into_iter().chain(other).chain(parts).collect()
}

fn higher(e: &Exported) -> Value {
    Value::Object(
        values(e)
            .into_iter()
            .map(|(name, ..)| (name, json!(true)))
            .collect(),
    )
}

/// What a task's YAML says there, as far as it is known; the rest of `results.json` is its `metadata`.
fn config(e: &Exported) -> Value {
    let s = &e.scored;
    let mut facts = e.facts();
    if let Value::Object(map) = &mut facts {
        map.insert("version".into(), json!(s.card.version));
    }
    json!({
        "task": s.benchmark,
        "dataset_path": e.hub_dataset().unwrap_or(&s.benchmark),
        "test_split": e.card.scored,
        "description": e.card.about,
        "output_type": "generate_until",
        "metric_list": [{
            "metric": s.metric,
            "aggregation": if e.standard_error().is_some() { "mean" } else { s.metric.as_str() },
            "higher_is_better": true,
        }],
        "metadata": facts,
    })
}

/// Of all samples, as lm-evaluation-harness makes it of theirs.
fn task_hash(e: &Exported) -> String {
    let mut hasher = Sha256::new();
    for (i, (_, text)) in e.with_texts().enumerate() {
        hashes(&doc(i, text), text)
            .iter()
            .for_each(|h| hasher.update(h.as_bytes()));
    }
    hex(&hasher.finalize())
}

/// Of the document, the prompt and the target.
fn hashes(doc: &Value, text: &Text) -> [String; 3] {
    let pretty = serde_json::to_string_pretty(doc).unwrap_or_default();
    [sha256(&pretty), sha256(&text.question), sha256(&text.target)]
}

/// The item as its dataset has it.
fn doc(i: usize, text: &Text) -> Value {
    match &text.record {
        Some(record) => record.clone(),
        None => json!({"index": i, "question": text.question, "choices": text.choices}),
    }
}

fn samples(e: &Exported, w: &mut dyn Write) -> io::Result<()> {
    for (i, (item, text)) in e.with_texts().enumerate() {
        line(w, &sample(e, i, item, text))?;
    }
    Ok(())
}

fn sample(e: &Exported, i: usize, item: &ScoredItem, text: &Text) -> Value {
    let mut doc = doc(i, text);
    let [doc_hash, prompt_hash, target_hash] = hashes(&doc, text);
    if let Value::Object(map) = &mut doc {
        // The one part of a sample that may hold anything.
        map.insert(HARNESS.to_owned(), item_facts(item, text));
    }
    let said: Vec<&String> = text.prediction.iter().collect();
    let mut value = json!({
        "doc_id": i,
        "doc": doc,
        "target": text.target,
        "arguments": {"gen_args_0": {"arg_0": text.question, "arg_1": {}}},
        "resps": [said],
        "filtered_resps": said,
        "filter": FILTER,
        "metrics": [],
        "doc_hash": doc_hash,
        "prompt_hash": prompt_hash,
        "target_hash": target_hash,
    });
    if let (true, Value::Object(map)) = (item.counted, &mut value) {
        map.insert("metrics".into(), json!([e.scored.metric]));
        map.insert(e.scored.metric.clone(), json!(f64::from(u8::from(item.correct))));
    }
    value
}
