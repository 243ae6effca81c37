//! A log of inspect: `EvalLog` of version 2 (`inspect_ai/log/_log.py`, 0.3.285), one a result. As `.json` it is one object, as
//! `.eval` a ZIP with a file a sample, which viewers open without reading the whole.

use super::exported::{file_name, item_facts, Exported, Text, HARNESS, HARNESS_VERSION, STANDARD_ERROR};
use super::file::File;
use crate::error::{Error, Result};
use crate::fsutil::{hex, Out};
use crate::run::scored::ScoredItem;
use serde::{Serialize, Serializer};
use serde_json::{json, Map, Value};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::ZipWriter;

const VERSION: u32 = 2;
/// What a name in a ZIP may have in bytes, less what stands around an id.
const LONGEST_ID: usize = 65_000;
/// Of a text in a summary, in characters.
const SUMMARY: usize = 1_000;

/// `out` itself where it ends in `.json` or `.eval`, else a file `.eval` in that folder for each result.
///
/// # Errors
/// Several results for one file; an id that no ZIP can hold.
pub(super) fn files<'a>(all: &'a [Exported], out: &Path) -> Result<Vec<File<'a>>> {
    let form = out.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if matches!(form, "json" | "eval") {
        let [e] = all else {
            let e = Error::usage(format!("a log of inspect holds one result, found {}", all.len()));
            return Err(e.hint("--out DIR writes one log each"));
        };
        let path = out.to_path_buf();
        return Ok(vec![match form {
            "json" => File::new(path, |w| as_json(e, w)),
            _ => archive(e, path)?,
        }]);
    }
    all.iter().map(|e| archive(e, out.join(name(e)))).collect()
}

/// As inspect names its logs.
fn name(e: &Exported) -> String {
    let created = e.time.iso().replace([':', '+'], "-");
    let task = file_name(&e.scored.benchmark).replace('_', "-");
    format!("{created}_{task}_{}.eval", id(e, "task"))
}

/// Of the evaluation, the run or the task: as long as inspect's.
fn id(e: &Exported, of: &str) -> String {
    hex(&e.id(&format!("inspect {of}")))[..22].to_owned()
}

fn archive<'a>(e: &'a Exported, path: std::path::PathBuf) -> Result<File<'a>> {
    if let Some(item) = e.scored.items.iter().find(|i| i.id.len() > LONGEST_ID) {
        let found = format!("one of {} bytes", item.id.len());
        let expected = format!("ids of at most {LONGEST_ID} bytes, which name files in a .eval");
        return Err(Error::data(&e.results, "items", expected, found).hint("--out FILE.json takes any"));
    }
    Ok(File::new(path, |w| as_eval(e, w)))
}

/// What stands before the samples.
struct Header {
    eval: Value,
    plan: Value,
    results: Value,
    stats: Value,
}

#[derive(Serialize)]
struct Log<'a> {
    version: u32,
    status: &'static str,
    eval: &'a Value,
    plan: &'a Value,
    results: &'a Value,
    stats: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    samples: Option<Samples<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reductions: Option<&'a Value>,
}

/// Made one by one while they are written.
struct Samples<'a>(&'a Exported);

impl Serialize for Samples<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(samples(self.0).map(|(_, _, sample)| sample))
    }
}

impl Header {
    fn of(e: &Exported) -> Self {
        Header {
            eval: eval(e),
            plan: json!({"name": "plan", "steps": [], "config": {}}),
            results: results(e),
            // When the answers were made nobody has said.
            stats: json!({"started_at": e.time.iso(), "completed_at": e.time.iso(), "model_usage": {}, "role_usage": {}}),
        }
    }

    fn log(&self) -> Log<'_> {
        Log {
            version: VERSION,
            status: "success",
            eval: &self.eval,
            plan: &self.plan,
            results: &self.results,
            stats: &self.stats,
            samples: None,
            reductions: None,
        }
    }
}

fn as_json(e: &Exported, w: &mut dyn Out) -> io::Result<()> {
    let (header, reductions) = (Header::of(e), reductions(e));
    let log = Log {
        samples: e.texts.is_ok().then_some(Samples(e)),
        reductions: Some(&reductions),
        ..header.log()
    };
    serde_json::to_writer(&mut *w, &log)?;
    w.write_all(b"\n")
}

fn as_eval(e: &Exported, w: &mut dyn Out) -> io::Result<()> {
    let header = Header::of(e);
    let mut zip = ZipWriter::new(w);
    let options = SimpleFileOptions::default();
    zip.start_file("_journal/start.json", options)?;
    let start = json!({"version": VERSION, "eval": header.eval, "plan": header.plan});
    serde_json::to_writer(&mut zip, &start)?;
    for (id, epoch, sample) in samples(e) {
        zip.start_file(format!("samples/{id}_epoch_{epoch}.json"), options)?;
        serde_json::to_writer(&mut zip, &sample)?;
    }
    if e.texts.is_ok() {
        zip.start_file("summaries.json", options)?;
        serde_json::to_writer(&mut zip, &Summaries(e))?;
    }
    zip.start_file("reductions.json", options)?;
    serde_json::to_writer(&mut zip, &reductions(e))?;
    zip.start_file("header.json", options)?;
    serde_json::to_writer(&mut zip, &header.log())?;
    zip.finish()?;
    Ok(())
}

fn eval(e: &Exported) -> Value {
    let s = &e.scored;
    let ids: Vec<&str> = s.items.iter().map(|i| i.id.as_str()).collect();
    json!({
        "eval_id": id(e, "eval"),
        "run_id": id(e, "run"),
        "created": e.time.iso(),
        "task": s.benchmark,
        "task_id": id(e, "task"),
        "task_version": s.card.version,
        "task_display_name": s.name,
        "task_description": e.card.about,
        "task_attribs": {},
        "task_args": {},
        "task_args_passed": {},
        "dataset": {
            "name": e.hub_dataset().unwrap_or(&s.benchmark),
            "samples": ids.len(),
            "sample_ids": ids,
            "shuffled": false,
        },
        "model": e.model,
        "model_generate_config": {},
        "model_args": {},
        "config": {},
        "packages": {HARNESS: HARNESS_VERSION},
        "metadata": {HARNESS: e.facts()},
        "scorers": [{
            "name": s.rule,
            "options": {"kind": s.kind},
            "metrics": [{"name": s.metric}],
        }],
    })
}

fn results(e: &Exported) -> Value {
    let s = &e.scored;
    let mut metrics = Map::new();
    let mut add = |key: String, metric: Value| {
        metrics.entry(key).or_insert(metric);
    };
    if let Some(value) = s.score {
        let interval = e.facts()["interval"].take();
        add(
            s.metric.clone(),
            json!({"name": s.metric, "value": value, "params": {}, "metadata": {"interval": interval}}),
        );
    }
    if let Some(value) = e.standard_error() {
        let metadata = json!({"method": STANDARD_ERROR});
        add(
            "stderr".into(),
            json!({"name": "stderr", "value": value, "params": {}, "metadata": metadata}),
        );
    }
    for (name, value) in &s.parts {
        add(
            format!("part: {name}"),
            json!({"name": name, "group": "part", "value": value, "params": {}}),
        );
    }
    for (key, values) in &s.categories {
        for (value, group) in values {
            if let Some(score) = group.score {
                add(
                    format!("{key}: {value}"),
                    json!({"name": value, "group": key, "value": score, "params": {}, "metadata": group}),
                );
            }
        }
    }
    let mut scores = vec![json!({
        "name": s.rule,
        "scorer": s.rule,
        "scored_samples": s.n,
        "unscored_samples": s.items.len() - s.n.min(s.items.len()),
        "params": {"kind": s.kind},
        "metrics": metrics,
    })];
    if let Some((other, score)) = s.other.as_ref().and_then(|o| Some((o, o.score?))) {
        scores.push(json!({
            "name": other.rule,
            "scorer": other.rule,
            "scored_samples": s.n,
            "params": {"kind": e.other_kind()},
            "metrics": {s.metric.as_str(): {"name": s.metric, "value": score, "params": {}}},
            "metadata": {"unread": other.unread, "difference": other.difference},
        }));
    }
    let n = s.items.len();
    json!({"total_samples": n, "completed_samples": n, "scores": scores})
}

/// The verdicts alone: what there is where no texts are known.
fn reductions(e: &Exported) -> Value {
    let counted = e.scored.items.iter().filter(|i| i.counted);
    let samples = counted.map(|item| {
        let mut score = verdict(item);
        if let Value::Object(map) = &mut score {
            map.insert("sample_id".into(), json!(item.id));
        }
        score
    });
    json!([{"scorer": e.scored.rule, "samples": samples.collect::<Vec<_>>()}])
}

/// A `Score`: `C` and `I` are inspect's words for right and wrong.
fn verdict(item: &ScoredItem) -> Value {
    let reason = match &*item.state {
        "unparsed" => Some("invalid_response_format"),
        "refused" => Some("refusal"),
        "empty" => Some("no_response"),
        "error" => Some("scoring_failed"),
        _ => None,
    };
    json!({
        "value": if item.correct { "C" } else { "I" },
        "answer": item.answer,
        "explanation": item.reason,
        "reason": reason,
        "metadata": {"state": item.state, "by": item.by, "span": item.span},
    })
}

/// Each with its id and its epoch: an id that comes again is a further epoch's, as two samples cannot share both.
fn samples(e: &Exported) -> impl Iterator<Item = (&str, usize, Value)> {
    let mut epochs: HashMap<&str, usize> = HashMap::new();
    e.with_texts().map(move |(item, text)| {
        let epoch = epochs.entry(&item.id).or_default();
        *epoch += 1;
        (item.id.as_str(), *epoch, sample(e, item, text, *epoch))
    })
}

/// The letter of the right choice where it is known by its place, as inspect's `multiple_choice` has it; else its text.
fn target(text: &Text) -> String {
    let letter = text.right.filter(|at| *at < text.choices.len());
    let letter = letter.and_then(|at| (b'A'..=b'Z').nth(at));
    letter.map_or_else(|| text.target.clone(), |l| char::from(l).to_string())
}

fn sample(e: &Exported, item: &ScoredItem, text: &Text, epoch: usize) -> Value {
    let mut messages = vec![json!({"role": "user", "content": text.question, "source": "input"})];
    let mut output = json!({"model": e.model, "choices": []});
    if let (Some(said), Value::Object(map)) = (&text.prediction, &mut output) {
        let message = json!({"role": "assistant", "content": said, "source": "generate", "model": e.model});
        let reason = if text.truncated { "max_tokens" } else { "unknown" };
        map.insert(
            "choices".into(),
            json!([{"message": message, "stop_reason": reason}]),
        );
        map.insert("completion".into(), json!(said));
        messages.push(message);
    }
    let mut metadata = json!({HARNESS: item_facts(item, text)});
    if let (Some(record), Value::Object(map)) = (&text.record, &mut metadata) {
        map.insert("item".into(), record.clone());
    }
    let mut value = json!({
        "id": item.id,
        "epoch": epoch,
        "input": text.question,
        "choices": (!text.choices.is_empty()).then_some(&text.choices),
        "target": target(text),
        "messages": messages,
        "output": output,
        "scores": {e.scored.rule.as_str(): verdict(item)},
        "metadata": metadata,
        "store": {},
        "events": [],
        "model_usage": {},
        "attachments": {},
    });
    if let (false, Value::Object(map)) = (item.counted, &mut value) {
        // Not scored; what the rule says of it stands in the metadata.
        map.remove("scores");
    }
    value
}

/// What viewers list.
struct Summaries<'a>(&'a Exported);

impl Serialize for Summaries<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let short = |text: &str| text.chars().take(SUMMARY).collect::<String>();
        let mut epochs: HashMap<&str, usize> = HashMap::new();
        to.collect_seq(self.0.with_texts().map(move |(item, text)| {
            let epoch = epochs.entry(&item.id).or_default();
            *epoch += 1;
            let mut verdict = verdict(item);
            if let Some(answer) = &item.answer {
                verdict["answer"] = json!(short(answer));
            }
            let scores = item
                .counted
                .then(|| json!({self.0.scored.rule.as_str(): verdict}));
            json!({
                "id": item.id,
                "epoch": *epoch,
                "input": short(&text.question),
                "target": short(&target(text)),
                "scores": scores,
                "completed": true,
            })
        }))
    }
}
