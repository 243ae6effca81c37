//! Every Eval Ever, schema 0.3.0 (`eval.schema.json` and `instance_level_eval.schema.json` of the package every-eval-ever 0.3.0):
//! an aggregate file of one benchmark's results, and beside it a line for each item. Both lie as the datastore wants them,
//! `data/COLLECTION/DEVELOPER/MODEL/UUID.json` and `UUID_samples.jsonl`.

use super::exported::{sha256, Exported, Text, HARNESS, HARNESS_VERSION, INTERVAL, STANDARD_ERROR};
use super::file::{line, File};
use crate::error::{Error, Result};
use crate::fsutil::hex;
use crate::run::scored::{Group, ScoredItem};
use serde_json::{json, Map, Value};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::path::Path;

const SCHEMA: &str = "0.3.0";

/// Who has evaluated, beside who has made the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Relationship {
    /// The model's makers.
    FirstParty,
    /// Others.
    ThirdParty,
    /// Both.
    Collaborative,
    /// Not said.
    #[default]
    Other,
}

impl Relationship {
    fn name(self) -> &'static str {
        match self {
            Relationship::FirstParty => "first_party",
            Relationship::ThirdParty => "third_party",
            Relationship::Collaborative => "collaborative",
            Relationship::Other => "other",
        }
    }
}

/// Two files a result; one where no texts are known.
///
/// # Errors
/// A result without a score; a model whose name makes no place in the datastore.
pub(super) fn files<'a>(
    all: &'a [Exported],
    out: &Path,
    organization: Option<&str>,
    relationship: Relationship,
) -> Result<Vec<File<'a>>> {
    let mut files = Vec::new();
    for e in all {
        let place = place(e)?;
        let folder = out.join(&place);
        let uuid = uuid(e.id("every eval ever"));
        let samples = format!("{uuid}_samples.jsonl");
        let detailed = match &e.texts {
            Err(_) => None,
            Ok(texts) => {
                let mut hashing = Hashing(Sha256::new());
                instances(e, &mut hashing).map_err(|e| Error::io(&folder, e))?;
                files.push(File::new(folder.join(&samples), move |w| instances(e, w)));
                Some(json!({
                    "format": "jsonl",
                    "file_path": format!("{place}/{samples}"),
                    "hash_algorithm": "sha256",
                    "checksum": hex(&hashing.0.finalize()),
                    "total_rows": texts.len(),
                }))
            }
        };
        let value = aggregate(e, organization, relationship, detailed)?;
        files.push(File::json(folder.join(format!("{uuid}.json")), value));
    }
    Ok(files)
}

/// What is written to it is hashed and gone.
struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `data/COLLECTION/DEVELOPER/MODEL`, by the datastore's own rules.
fn place(e: &Exported) -> Result<String> {
    let refused = |found: &str| {
        let e = Error::usage(format!(
            "the model: expected ORGANIZATION/NAME, under which Every Eval Ever files it, found {found}"
        ));
        e.hint("--model ORGANIZATION/NAME, as on Hugging Face")
    };
    let Some((developer, name)) = e.model.split_once('/') else {
        return Err(refused(&format!("`{}`", crate::error::short(&e.model))));
    };
    let mut parts = Vec::new();
    for part in std::iter::once(developer).chain(name.split('/')) {
        let part = part.trim().replace(':', "_");
        let device = part.split('.').next().unwrap_or_default().to_uppercase();
        let numbered = |of: &str| {
            device
                .strip_prefix(of)
                .is_some_and(|n| n.len() == 1 && ("1"..="9").contains(&n))
        };
        let reserved =
            ["CON", "PRN", "AUX", "NUL"].contains(&device.as_str()) || numbered("COM") || numbered("LPT");
        let bad = |c: char| "<>\"\\|?*".contains(c) || c.is_control();
        let placeholder = ["unknown", "data"].contains(&part.to_lowercase().as_str());
        if part.is_empty()
            || part.ends_with('.')
            || part.contains(bad)
            || reserved
            || placeholder
            || part.len() > 200
        {
            return Err(refused(&format!("the part `{}`", crate::error::short(&part))));
        }
        parts.push(part);
    }
    Ok(format!(
        "data/{}/{}/{}",
        e.scored.benchmark,
        parts[0],
        parts[1..].join("_")
    ))
}

/// A UUID of version 4 in its form; its digits are a hash's, so that the same results have the same one.
fn uuid(hash: [u8; 32]) -> String {
    let mut digits = hash;
    digits[6] = 0x40 | digits[6] & 0x0f;
    digits[8] = 0x80 | digits[8] & 0x3f;
    let all = hex(&digits[..16]);
    let parts = [&all[..8], &all[8..12], &all[12..16], &all[16..20], &all[20..]];
    parts.join("-")
}

fn evaluation_id(e: &Exported) -> String {
    let s = &e.scored;
    format!("{}-{}/{}/{}", s.benchmark, s.kind, e.model, e.time.seconds)
}

/// The result that the items belong to.
fn main_id(e: &Exported) -> String {
    format!("{}:{}", e.scored.metric, e.scored.kind)
}

fn aggregate(
    e: &Exported,
    organization: Option<&str>,
    relationship: Relationship,
    detailed: Option<Value>,
) -> Result<Value> {
    let s = &e.scored;
    let Some(score) = s.score else {
        let expected = "a score, which Every Eval Ever demands";
        return Err(Error::data(&e.results, "score", expected, "null"));
    };
    let mut value = json!({
        "schema_version": SCHEMA,
        "evaluation_id": evaluation_id(e),
        "evaluation_timestamp": e.time.seconds.to_string(),
        "retrieved_timestamp": e.time.seconds.to_string(),
        "source_metadata": {
            "source_name": HARNESS,
            "source_type": "evaluation_run",
            "source_organization_name": organization.unwrap_or("unknown"),
            "evaluator_relationship": relationship.name(),
            "additional_details": strings(&e.facts()),
        },
        "eval_library": {"name": HARNESS, "version": HARNESS_VERSION},
        "model_info": {
            "name": e.model,
            "id": e.model,
            "developer": e.model.split('/').next(),
            // Predictions say neither.
            "additional_details": {"deployment_type": "unknown", "model_availability": "unknown"},
        },
        "evaluation_results": results(e, score),
    });
    if let (Some(detailed), Value::Object(map)) = (detailed, &mut value) {
        map.insert("detailed_evaluation_results".into(), detailed);
    }
    Ok(value)
}

/// The score, what it is made of, the other rule's, the whole file's, each category's.
fn results(e: &Exported, score: f64) -> Vec<Value> {
    let s = &e.scored;
    let mut all = Vec::new();
    let mut uncertainty = Map::new();
    if let Some(value) = e.standard_error() {
        uncertainty.insert(
            "standard_error".into(),
            json!({"value": value, "method": STANDARD_ERROR}),
        );
    }
    if let Some(i) = s.interval {
        let interval = json!({
            "lower": i.low, "upper": i.high, "confidence_level": s.bootstrap.level, "method": INTERVAL,
        });
        uncertainty.insert("confidence_interval".into(), interval);
        uncertainty.insert("num_bootstrap_samples".into(), json!(s.bootstrap.resamples));
    }
    uncertainty.insert("num_samples".into(), json!(s.n));
    let details = json!({
        "states": s.states, "unread_share": s.unread, "left_out": s.left_out, "items_expected": s.data.expected,
    });
    let own = json!({"rule": s.rule, "kind": s.kind});
    let of = |id: &str, name: &str, metric: &str, rule: &Value, details: Value| {
        json!({
            "evaluation_result_id": id,
            "evaluation_name": name,
            "source_data": source_data(e),
            "evaluation_timestamp": e.time.seconds.to_string(),
            "metric_config": metric_config(e, metric, rule),
            "score_details": details,
        })
    };
    all.push(of(
        &main_id(e),
        &s.name,
        &s.metric,
        &own,
        json!({"score": score, "details": strings(&details), "uncertainty": uncertainty}),
    ));
    if let Some((other, score)) = s.other.as_ref().and_then(|o| Some((o, o.score?))) {
        let kind = e.other_kind();
        let details = json!({"unread_share": other.unread, "difference": other.difference});
        all.push(of(
            &format!("{}:{kind}", s.metric),
            &s.name,
            &s.metric,
            &json!({"rule": other.rule, "kind": kind}),
            json!({"score": score, "details": strings(&details), "uncertainty": {"num_samples": s.n}}),
        ));
    }
    for (name, value) in &s.parts {
        all.push(of(
            &format!("part:{name}"),
            &format!("{}, {name}", s.name),
            name,
            &own,
            json!({"score": value}),
        ));
    }
    if let Some((whole, score)) = s.whole.as_ref().and_then(|w| Some((w, w.score?))) {
        all.push(of(
            &format!("{}:{}:whole", s.metric, s.kind),
            &format!("{} (all {} items of the file)", s.benchmark, whole.n),
            &s.metric,
            &own,
            json!({"score": score, "details": strings(&json!({"parts": whole.parts})), "uncertainty": {"num_samples": whole.n}}),
        ));
    }
    for (key, values) in &s.categories {
        for (value, group) in values {
            let Some(details) = group_details(e, group) else {
                continue;
            };
            all.push(of(
                &format!("category:{key}:{value}"),
                &format!("{}, {key}: {value}", s.name),
                "accuracy",
                &own,
                details,
            ));
        }
    }
    all
}

fn group_details(e: &Exported, group: &Group) -> Option<Value> {
    let interval = group.interval.map(|i| {
        json!({
            "lower": i.low, "upper": i.high, "confidence_level": e.scored.bootstrap.level, "method": "Wilson",
        })
    });
    let mut uncertainty = json!({"num_samples": group.n});
    if let (Some(interval), Value::Object(map)) = (interval, &mut uncertainty) {
        map.insert("confidence_interval".into(), interval);
    }
    let details = strings(&json!({"correct": group.correct}));
    Some(json!({"score": group.score?, "details": details, "uncertainty": uncertainty}))
}

fn source_data(e: &Exported) -> Value {
    let s = &e.scored;
    let details = strings(&json!({
        "card_version": s.card.version, "card_sha256": s.card.sha256, "split": e.card.scored,
        "data_sha256": s.data.sha256, "data_known": s.data.known, "data_of": e.data_of(),
    }));
    let name = &e.card.title;
    match (e.hub_dataset(), &e.card.citation.url) {
        (Some(repo), _) => {
            json!({"dataset_name": name, "source_type": "hf_dataset", "hf_repo": repo, "additional_details": details})
        }
        (None, Some(url)) => {
            json!({"dataset_name": name, "source_type": "url", "url": [url], "additional_details": details})
        }
        (None, None) => json!({"dataset_name": name, "source_type": "other", "additional_details": details}),
    }
}

fn metric_config(e: &Exported, metric: &str, rule: &Value) -> Value {
    // Ids that the schema itself names; any other metric is the benchmark's own.
    let (id, kind) = match metric {
        "accuracy" => ("accuracy".to_owned(), "accuracy"),
        "macro_f1" => ("f1_macro".to_owned(), "f1"),
        "micro_f1" => ("f1_micro".to_owned(), "f1"),
        "weighted_f1" => ("f1_weighted".to_owned(), "f1"),
        "balanced_accuracy" => ("balanced_accuracy".to_owned(), "accuracy"),
        other => (format!("{}.{other}", e.scored.benchmark), "accuracy"),
    };
    json!({
        "evaluation_description": e.card.about,
        "metric_id": id,
        "metric_name": metric,
        "metric_kind": kind,
        "metric_unit": "proportion",
        "lower_is_better": false,
        "score_type": "continuous",
        "min_score": 0,
        "max_score": 1,
        "additional_details": strings(rule),
    })
}

/// An object's values as texts: what is none already, as JSON. What is not there is left out.
fn strings(object: &Value) -> Value {
    let all = object.as_object().into_iter().flatten();
    let all = all.filter_map(|(key, value)| {
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some((key.clone(), Value::String(text)))
    });
    Value::Object(all.collect())
}

fn instances(e: &Exported, w: &mut dyn Write) -> io::Result<()> {
    let id = evaluation_id(e);
    let main = main_id(e);
    for (item, text) in e.with_texts() {
        line(w, &instance(e, item, text, &id, &main))?;
    }
    Ok(())
}

fn instance(e: &Exported, item: &ScoredItem, text: &Text, id: &str, main: &str) -> Value {
    let mut metadata = json!({
        "state": item.state,
        "by": item.by,
        "counted": item.counted,
        "span": item.span,
        "reason": item.reason,
        "clip": text.clip,
        "right": text.right,
        "truncated": text.truncated,
        "has_prediction": text.prediction.is_some(),
    });
    if let Value::Object(map) = &mut metadata {
        for (key, values) in &text.groups {
            map.insert(format!("category.{key}"), json!(values.join("; ")));
        }
        for (key, value) in &text.said {
            map.insert(format!("said.{key}"), value.clone());
        }
    }
    let attribution = item.answer.as_ref().map(|answer| {
        json!({
            "turn_idx": 0,
            "source": "output.raw",
            "extracted_value": answer,
            "extraction_method": format!("{} ({})", e.scored.rule, item.by),
            "is_terminal": true,
        })
    });
    let error = matches!(&*item.state, "error" | "refused").then(|| match &item.reason {
        Some(reason) => format!("{}: {reason}", item.state),
        None => item.state.to_string(),
    });
    let mut value = json!({
        "schema_version": SCHEMA,
        "evaluation_id": id,
        "model_id": e.model,
        "evaluation_name": e.scored.name,
        "evaluation_result_id": main,
        "sample_id": item.id,
        "sample_hash": sha256(&format!("{}{}", text.question, text.target)),
        "interaction_type": "single_turn",
        "input": {
            "raw": text.question,
            "reference": [text.target],
            "choices": (!text.choices.is_empty()).then_some(&text.choices),
        },
        "output": {"raw": text.prediction.iter().collect::<Vec<_>>()},
        "answer_attribution": attribution.into_iter().collect::<Vec<_>>(),
        "evaluation": {"score": f64::from(u8::from(item.correct)), "is_correct": item.correct},
        "error": error,
        "metadata": strings(&metadata),
    });
    if let (false, Value::Object(map)) = (item.counted, &mut value) {
        // No part of any aggregate.
        map.remove("evaluation_result_id");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_of_version_4() {
        for byte in [0, 0x5a, 0xff] {
            let id = uuid([byte; 32]);
            let parts: Vec<&str> = id.split('-').collect();
            let lengths: Vec<usize> = parts.iter().map(|p| p.len()).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert!(
                parts[2].starts_with('4') && "89ab".contains(&parts[3][..1]),
                "{id}"
            );
        }
    }
}
