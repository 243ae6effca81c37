//! `af2 export`: results of benchmarks in the forms of other tools. What those tools themselves say of them is in `interop.rs`.
#![allow(clippy::panic, clippy::unwrap_used)]

use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

const MODEL: &str = "our-lab/tiny";
const FORMATS: [&str; 4] = ["eee", "hf", "inspect", "lm-eval"];

fn golden(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/M_metrics/rules");
    folder.join(file)
}

/// Exit code, standard output, standard error.
fn af2(arguments: &[&str]) -> (i32, String, String) {
    let done = Command::new(assert_cmd::cargo::cargo_bin("af2"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        done.status.code().unwrap_or(-1),
        text(done.stdout),
        text(done.stderr),
    )
}

fn text_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Scores into a folder; returns its results.json.
fn score(benchmark: &str, predictions: &Path, out: &Path, more: &[&str]) -> Value {
    let (predictions, out) = (text_of(predictions), text_of(out));
    let line = [
        "score",
        "--benchmark",
        benchmark,
        "--predictions",
        &predictions,
        "--out",
        &out,
    ];
    let (code, _, err) = af2(&[&line[..], more].concat());
    assert_eq!(code, 0, "{err}");
    read(&Path::new(&out).join("results.json"))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The files, in the order in which they are told, and the notes.
fn export(results: &[&Path], format: &str, out: &Path, more: &[&str]) -> (Vec<PathBuf>, String) {
    let names: Vec<String> = results.iter().map(|p| text_of(p)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let out = text_of(out);
    let line = [
        &["export"],
        &names[..],
        &["--format", format, "--out", &out],
        more,
    ]
    .concat();
    let (code, files, notes) = af2(&line);
    assert_eq!(code, 0, "{format}: {notes}");
    (files.lines().map(PathBuf::from).collect(), notes)
}

fn refused(line: &[&str], code: i32, pieces: &[&str]) {
    let (found, out, err) = af2(line);
    assert_eq!((found, out.as_str()), (code, ""), "{line:?}: {err}");
    for piece in pieces {
        assert!(err.contains(piece), "{line:?}: {piece} is not in: {err}");
    }
}

fn one(files: &[PathBuf], ending: &str) -> PathBuf {
    let mut all = files.iter().filter(|f| text_of(f).ends_with(ending));
    let file = all.next().unwrap_or_else(|| panic!("no {ending} in {files:?}"));
    assert_eq!(all.next(), None, "{ending}");
    file.clone()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The metadata of a model card.
fn front_matter(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    let yaml = text.strip_prefix("---\n").unwrap().split_once("---\n").unwrap().0;
    serde_yaml::from_str(yaml).unwrap()
}

/// The JSON files of a ZIP.
fn zipped(path: &Path) -> BTreeMap<String, Value> {
    let mut zip = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let names: Vec<String> = zip.file_names().map(str::to_owned).collect();
    let mut all = BTreeMap::new();
    for name in names {
        let mut text = String::new();
        zip.by_name(&name).unwrap().read_to_string(&mut text).unwrap();
        all.insert(name, serde_json::from_str(&text).unwrap());
    }
    all
}

fn near(a: &Value, b: f64) -> bool {
    (a.as_f64().unwrap() - b).abs() < 1e-15
}

/// A share's standard error, from the verdicts.
fn standard_error(results: &Value) -> f64 {
    let items = results["items"].as_array().unwrap().iter();
    let values: Vec<f64> = items
        .filter(|i| i["counted"] == true)
        .map(|i| f64::from(u8::from(i["correct"] == true)))
        .collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (squares / (n - 1.0)).sqrt() / n.sqrt()
}

#[test]
fn every_form_has_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let results = score("mmau", &golden("mmau_input.json"), &run, &["--model", MODEL]);
    let (n, whole) = (
        results["n"].as_u64().unwrap(),
        results["items"].as_array().unwrap().len(),
    );
    assert!(n < whole as u64, "some items are not counted");
    let error = standard_error(&results);
    let at = |format: &str| folder.path().join(format);
    let name = results["benchmark"].as_str().unwrap();

    let (files, notes) = export(
        &[&run],
        "eee",
        &at("eee"),
        &["--organization", "us", "--evaluator", "first-party"],
    );
    assert_eq!(notes, "");
    let (rows, aggregate) = (lines(&one(&files, "_samples.jsonl")), read(&one(&files, ".json")));
    assert_eq!(aggregate["schema_version"], "0.3.0");
    assert_eq!(aggregate["model_info"]["id"], MODEL);
    assert_eq!(aggregate["eval_library"]["name"], "af2");
    assert_eq!(aggregate["source_metadata"]["source_organization_name"], "us");
    assert_eq!(
        aggregate["source_metadata"]["evaluator_relationship"],
        "first_party"
    );
    let all = aggregate["evaluation_results"].as_array().unwrap();
    let (main, other) = (&all[0], &all[1]);
    assert_eq!(main["score_details"]["score"], results["score"]);
    assert_eq!(main["metric_config"]["metric_id"], "accuracy");
    assert_eq!(main["metric_config"]["lower_is_better"], false);
    let uncertainty = &main["score_details"]["uncertainty"];
    assert_eq!(
        uncertainty["confidence_interval"]["lower"],
        results["interval"]["low"]
    );
    assert_eq!(
        uncertainty["confidence_interval"]["upper"],
        results["interval"]["high"]
    );
    assert_eq!(uncertainty["num_samples"], results["n"]);
    assert!(near(&uncertainty["standard_error"]["value"], error));
    assert_eq!(other["score_details"]["score"], results["other"]["score"]);
    assert_eq!(other["metric_config"]["additional_details"]["rule"], "choice");
    for (key, values) in results["categories"].as_object().unwrap() {
        for (value, group) in values.as_object().unwrap() {
            let id = format!("category:{key}:{value}");
            let found = all.iter().find(|r| r["evaluation_result_id"] == id).unwrap();
            assert_eq!(found["score_details"]["score"], group["score"]);
        }
    }
    let detailed = &aggregate["detailed_evaluation_results"];
    assert_eq!(detailed["total_rows"], whole);
    assert!(text_of(&one(&files, "_samples.jsonl")).ends_with(detailed["file_path"].as_str().unwrap()));
    for (row, item) in rows.iter().zip(results["items"].as_array().unwrap()) {
        assert_eq!(row["evaluation_id"], aggregate["evaluation_id"]);
        assert_eq!(
            (&row["sample_id"], &row["evaluation"]["is_correct"]),
            (&item["id"], &item["correct"])
        );
        assert_eq!(row["metadata"]["state"], item["state"]);
        assert_eq!(row.get("evaluation_result_id").is_some(), item["counted"] == true);
        let attributed = &row["answer_attribution"];
        match item["answer"].as_str() {
            Some(answer) => assert_eq!(attributed[0]["extracted_value"], answer),
            None => assert_eq!(attributed, &json!([])),
        }
        assert!(
            row["metadata"]
                .as_object()
                .unwrap()
                .values()
                .all(Value::is_string),
            "{row}"
        );
    }

    let more = ["--hub-dataset", "lab/mmau@0123abc", "--hub-task", "test-mini"];
    let (files, _) = export(&[&run], "hf", &at("hf"), &more);
    let index = front_matter(&at("hf").join("README.md"));
    assert_eq!(index["model-index"][0]["name"], MODEL);
    let metrics = &index["model-index"][0]["results"][0]["metrics"];
    assert_eq!(metrics[0]["value"], results["score"]);
    assert_eq!(metrics[0]["args"]["interval"]["low"], results["interval"]["low"]);
    assert_eq!(metrics[0]["args"]["categories"], results["categories"]);
    assert!(near(&metrics[0]["args"]["standard_error"]["value"], error));
    assert_eq!(metrics[1]["value"], results["other"]["score"]);
    let entry: Value = serde_yaml::from_str(
        &fs::read_to_string(one(&files, &format!(".eval_results/{name}.yaml"))).unwrap(),
    )
    .unwrap();
    assert_eq!(entry[0]["value"], results["score"]);
    let dataset = json!({"id": "lab/mmau", "task_id": "test-mini", "revision": "0123abc"});
    assert_eq!(entry[0]["dataset"], dataset);

    for log in ["log.json", "log.eval"] {
        let file = at(log);
        export(&[&run], "inspect", &file, &[]);
        let (header, samples) = match log {
            "log.json" => {
                let log = read(&file);
                let samples = log["samples"].as_array().unwrap().clone();
                (log, samples)
            }
            _ => {
                let mut files = zipped(&file);
                let header = files.remove("header.json").unwrap();
                assert_eq!(
                    files.remove("summaries.json").unwrap().as_array().unwrap().len(),
                    whole
                );
                assert_eq!(
                    files.remove("_journal/start.json").unwrap()["eval"],
                    header["eval"]
                );
                let reduced = files.remove("reductions.json").unwrap();
                assert_eq!(reduced[0]["samples"].as_array().unwrap().len() as u64, n);
                (header, files.into_values().collect())
            }
        };
        assert_eq!(
            (&header["version"], &header["status"]),
            (&json!(2), &json!("success"))
        );
        assert_eq!(header["eval"]["model"], MODEL);
        let scored = &header["results"]["scores"][0];
        assert_eq!(scored["metrics"]["accuracy"]["value"], results["score"]);
        assert!(near(&scored["metrics"]["stderr"]["value"], error));
        assert_eq!(
            header["eval"]["metadata"]["af2"]["interval"]["high"],
            results["interval"]["high"]
        );
        assert_eq!(samples.len(), whole);
        let by_id: BTreeMap<&str, &Value> = samples.iter().map(|s| (s["id"].as_str().unwrap(), s)).collect();
        for item in results["items"].as_array().unwrap() {
            let sample = by_id[item["id"].as_str().unwrap()];
            assert_eq!(sample["metadata"]["af2"]["state"], item["state"]);
            let Some(score) = sample.get("scores") else {
                assert_eq!(item["counted"], false);
                continue;
            };
            let value = if item["correct"] == true { "C" } else { "I" };
            assert_eq!(score["mmau"]["value"], value);
            assert_eq!(score["mmau"]["answer"], item["answer"]);
        }
    }

    let (files, _) = export(&[&run], "lm-eval", &at("lm"), &[]);
    assert!(
        files
            .iter()
            .all(|f| f.starts_with(at("lm").join("our-lab__tiny"))),
        "{files:?}"
    );
    let whole_run = files
        .iter()
        .find(|f| f.file_name().unwrap().to_str().unwrap().starts_with("results_"));
    let log = read(whole_run.unwrap());
    let task = &log["results"][name];
    assert_eq!(task["accuracy,none"], results["score"]);
    assert_eq!(task["accuracy_fair,none"], results["other"]["score"]);
    assert!(near(&task["accuracy_stderr,none"], error));
    assert_eq!(task["accuracy_fair_stderr,none"], "N/A");
    assert_eq!(log["higher_is_better"][name]["accuracy"], true);
    assert_eq!(log["n-samples"][name]["effective"], results["n"]);
    assert_eq!(log["versions"][name], results["card"]["version"]);
    assert_eq!(
        log["configs"][name]["metadata"]["card_sha256"],
        results["card"]["sha256"]
    );
    let rows = lines(&one(&files, ".jsonl"));
    let values: Vec<f64> = rows.iter().filter_map(|r| r.get("accuracy")?.as_f64()).collect();
    assert_eq!(values.len() as u64, n);
    assert!(near(&results["score"], values.iter().sum::<f64>() / n as f64));
}

/// What a score says of its items and of all of them, whatever order and file they stand in.
fn said(results: &Value, by_id: bool) -> Value {
    let mut items = results["items"].as_array().unwrap().clone();
    if by_id {
        items.sort_by_key(|i| i.to_string());
    }
    let mut all = json!({});
    for key in [
        "n",
        "score",
        "states",
        "unread",
        "left_out",
        "other",
        "parts",
        "whole",
        "rule",
        "benchmark",
    ] {
        all[key] = results.get(key).cloned().unwrap_or_default();
    }
    if !by_id {
        // Resamples go by the order of clips, and the hash by that of items.
        all["interval"] = results["interval"].clone();
        all["data"] = results["data"]["sha256"].clone();
        all["categories"] = results["categories"].clone();
    }
    all["items"] = Value::Array(items);
    all
}

fn ours(folder: &Path) -> PathBuf {
    let path = folder.join("predictions.jsonl");
    let line = |i: usize| {
        // As short as its letter, and as another choice.
        let labels = [["A", "B"], ["B", "A"], ["(A) a dog", "(B) a cat"], ["yes", "no"]][i % 4];
        json!({
            "version": 1, "id": format!("q{i}"), "task": (["first", "second"][i % 2]), "path": format!("{}.wav", i / 3),
            "prompt": "What is it? (A) a dog. (B) a cat.", "reference": labels[i % 2],
            "prediction": (["A", "(B) a cat", "yes", "", "cannot tell", "the answer is B"][i % 6]), "labels": labels,
        })
    };
    let text: String = (0..60).map(|i| line(i).to_string() + "\n").collect();
    fs::write(&path, text).unwrap();
    path
}

/// Our own reading of what we have written for others is the score that it was made of.
#[test]
fn exported_logs_are_scored_as_the_predictions_were() {
    let folder = tempfile::tempdir().unwrap();
    let bare = folder.path().join("bare.jsonl");
    let items = read(&golden("mmau_input.json"));
    let answers: String = items
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|i| {
            Some(json!({"id": i["id"], "prediction": i.get("model_output")?.as_str()?}).to_string() + "\n")
        })
        .collect();
    fs::write(&bare, answers).unwrap();
    let official = text_of(&golden("mmau_input.json"));
    for (benchmark, predictions, more) in [
        ("mmau", golden("mmau_input.json"), vec![]),
        ("mmau", golden("mmau_input.json"), vec!["--rule", "fair"]),
        ("mmau", bare, vec!["--items", &official]),
        ("mmar", golden("mmar_input.jsonl"), vec![]),
        ("muchomusic", golden("muchomusic_input.json"), vec![]),
        (
            "muchomusic",
            golden("muchomusic_input.json"),
            vec!["--rule", "fair"],
        ),
        ("cmm", golden("cmm_input.jsonl"), vec![]),
        ("air-bench", golden("airbench_foundation_input.jsonl"), vec![]),
        ("mmau", ours(folder.path()), vec![]),
        ("mmau", ours(folder.path()), vec!["--rule", "fair"]),
        ("muchomusic", ours(folder.path()), vec!["--rule", "fair"]),
    ] {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let first = score(
            benchmark,
            &predictions,
            &at("first"),
            &[&more[..], &["--model", MODEL]].concat(),
        );
        let rule: Vec<&str> = if more.contains(&"fair") {
            vec!["--rule", "fair"]
        } else {
            vec![]
        };
        let mut logs = vec![(at("log.json"), false), (at("log.eval"), true)];
        for (log, _) in &logs {
            export(&[&at("first")], "inspect", log, &[]);
        }
        let (files, _) = export(&[&at("first")], "lm-eval", &at("lm"), &[]);
        logs.push((one(&files, ".jsonl"), false));
        for (log, by_id) in logs {
            let again = score(benchmark, &log, &at("again"), &rule);
            let what = format!("{benchmark} {} {more:?} {}", predictions.display(), log.display());
            let (mut first, mut again) = (said(&first, by_id), said(&again, by_id));
            if more.contains(&"--items") {
                // There it was the hash of a file.
                first["data"] = Value::Null;
                again["data"] = Value::Null;
            }
            for key in ["n", "score", "states", "items", "interval", "categories"] {
                assert_eq!(first[key], again[key], "{what}: {key}");
            }
            assert_eq!(first, again, "{what}");
        }
    }
}

const HOSTILE: [&str; 9] = [
    "",
    "狗 и кот 🐕\u{200d}🦺",
    "\u{0}\u{1}\u{7f}\u{85}\u{2028}\u{feff}\u{ffff}",
    "<script>alert('A dog')</script>",
    "\r\n\r\n---\r\n...\n# no\n- a: b",
    "\"quoted\" \\ 'and' \\u0041 \\ud83d",
    "NaN",
    "{\"role\": \"system\"}",
    "[1, 2",
];
const IDS: [&str; 9] = [
    "../../etc/passwd",
    "/",
    "",
    "a\nb",
    "same",
    "same",
    "\u{0}",
    "CON:*?\"<>|",
    "é 狗 🐕 _epoch_1.json",
];

/// Each with another odd id, and one of a megabyte.
fn hostile(folder: &Path) -> PathBuf {
    let mut all = Vec::new();
    for (i, text) in HOSTILE.iter().enumerate() {
        all.push(json!({"id": IDS[i], "audio_id": format!("{}{i}", HOSTILE[2]), "question": format!("{text}?"), "choices": ["A dog", text],
            "answer": "A dog", "task": "sound", "difficulty": text, "sub-category": "s", "model_output": text}));
    }
    let large = "x\u{1}\u{2028}🐕".repeat(110_000);
    all.push(json!({"id": "large", "question": large, "choices": [large, "A dog"], "answer": "A dog", "task": "sound", "difficulty": "easy",
        "sub-category": "s", "model_output": large}));
    all.push(json!({"id": "half", "question": "?", "choices": ["A dog", "A cat"], "answer": "A dog", "task": "sound",
        "difficulty": "easy", "sub-category": "s", "model_output": "A dog HALF"}));
    let path = folder.join("hostile.json");
    // As Python writes half of a surrogate pair.
    fs::write(&path, Value::Array(all).to_string().replace("HALF", "\\ud83d")).unwrap();
    path
}

#[test]
fn hostile_texts_go_out_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let predictions = hostile(folder.path());
    let at = |name: &str| folder.path().join(name);
    let model = "our-lab/狗\u{200d} \"no\": # <x>";
    let results = score("mmau", &predictions, &at("run"), &["--model", model]);
    let texts: Vec<String> = HOSTILE.iter().map(|t| (*t).to_owned()).collect();
    let wanted = [
        &texts[..],
        &["x\u{1}\u{2028}🐕".repeat(110_000), "A dog \u{fffd}".to_owned()],
    ]
    .concat();
    // That model has no place in the datastore.
    refused(
        &[
            "export",
            &text_of(&at("run")),
            "--format",
            "eee",
            "--out",
            &text_of(&at("eee")),
        ],
        2,
        &["ORGANIZATION/NAME", "--model"],
    );
    let (files, notes) = export(&[&at("run")], "eee", &at("eee"), &["--model", MODEL]);
    assert!(notes.contains("surrogate"), "{notes}");
    let found: Vec<Value> = lines(&one(&files, ".jsonl"))
        .iter()
        .map(|r| r["output"]["raw"][0].clone())
        .collect();
    assert_eq!(found, wanted);
    let (files, _) = export(&[&at("run")], "lm-eval", &at("lm"), &[]);
    let found: Vec<Value> = lines(&one(&files, ".jsonl"))
        .iter()
        .map(|r| r["resps"][0][0].clone())
        .collect();
    assert_eq!(found, wanted);
    export(&[&at("run")], "inspect", &at("log.json"), &[]);
    let log = read(&at("log.json"));
    let found: Vec<Value> = log["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["output"]["completion"].clone())
        .collect();
    assert_eq!(found, wanted);
    export(&[&at("run")], "inspect", &at("log.eval"), &[]);
    let zipped = zipped(&at("log.eval"));
    for (i, id) in IDS.iter().enumerate() {
        // The second of an id is another epoch's.
        let epoch = if i == 5 { 2 } else { 1 };
        let sample = &zipped[&format!("samples/{id}_epoch_{epoch}.json")];
        assert_eq!(
            (&sample["id"], &sample["output"]["completion"]),
            (&json!(id), &json!(HOSTILE[i]))
        );
    }
    let (files, _) = export(&[&at("run")], "hf", &at("hf"), &[]);
    let index = front_matter(&files[0]);
    assert_eq!(index["model-index"][0]["name"], model);
    let metric = &index["model-index"][0]["results"][0]["metrics"][0];
    assert_eq!(metric["value"], results["score"]);
    assert_eq!(metric["args"]["categories"], results["categories"]);
    let text = fs::read_to_string(&files[0]).unwrap();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    // And they are read again.
    for log in ["log.json", "log.eval"] {
        let again = score("mmau", &at(log), &at("again"), &[]);
        assert_eq!(again["score"], results["score"]);
    }
    // An id that no ZIP has room for.
    let long = "i".repeat(70_000);
    let text = fs::read_to_string(&predictions)
        .unwrap()
        .replace("\"large\"", &format!("{long:?}"));
    fs::write(at("long.json"), text).unwrap();
    score("mmau", &at("long.json"), &at("long"), &["--model", MODEL]);
    let (run, out) = (text_of(&at("long")), text_of(&at("long.eval")));
    refused(
        &["export", &run, "--format", "inspect", "--out", &out],
        6,
        &["70000 bytes", "FILE.json"],
    );
    export(&[&at("long")], "inspect", &at("long_log.json"), &[]);
}

#[test]
fn several_results_go_out_together() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let at = |name: &str| folder.path().join(name);
    let of = |name: &str, benchmark: &str, file: &str, more: &[&str]| {
        score(
            benchmark,
            &golden(file),
            &runs.join(name),
            &[&["--model", MODEL], more].concat(),
        )
    };
    let all = [
        of("a/mmar", "mmar", "mmar_input.jsonl", &[]),
        of("b/mmau", "mmau", "mmau_input.json", &[]),
        of("c", "mmau", "mmau_input.json", &["--rule", "fair"]),
    ];
    // Another verb's results are none.
    fs::create_dir_all(runs.join("d")).unwrap();
    fs::write(runs.join("d/results.json"), "{\"version\": 1, \"tasks\": []}").unwrap();

    let (files, _) = export(&[&runs], "lm-eval", &at("lm"), &[]);
    let runs_of = files
        .iter()
        .filter(|f| f.extension().unwrap() == "json")
        .map(|f| read(f));
    let runs_of: Vec<Value> = runs_of.collect();
    assert_eq!(runs_of.len(), 2);
    assert_eq!(runs_of[0]["results"]["mmar"]["accuracy,none"], all[0]["score"]);
    let name = all[1]["benchmark"].as_str().unwrap();
    assert_eq!(runs_of[0]["results"][name]["accuracy,none"], all[1]["score"]);
    assert_eq!(runs_of[1]["results"][name]["accuracy,none"], all[2]["score"]);
    assert_eq!(
        runs_of[1]["results"][name]["accuracy_official,none"],
        all[1]["score"]
    );
    assert_eq!(files.len(), 5);

    let (files, _) = export(&[&runs], "eee", &at("eee"), &[]);
    assert_eq!(files.len(), 6);
    let (files, _) = export(&[&runs], "inspect", &at("logs"), &[]);
    assert_eq!(files.len(), 3);
    for (file, results) in files.iter().zip(&all) {
        let header = zipped(file).remove("header.json").unwrap();
        assert_eq!(
            header["results"]["scores"][0]["metrics"]["accuracy"]["value"],
            results["score"]
        );
    }
    export(&[&runs], "hf", &at("hf"), &[]);
    let index = front_matter(&at("hf").join("README.md"));
    let values: Vec<&Value> = index["model-index"][0]["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["metrics"][0]["value"])
        .collect();
    assert_eq!(values, all.iter().map(|r| &r["score"]).collect::<Vec<_>>());

    // A folder and what lies in it are the same results once.
    let (files, _) = export(
        &[&runs.join("c/results.json"), &runs],
        "inspect",
        &at("once"),
        &[],
    );
    assert_eq!(files.len(), 3);
    let (there, log) = (text_of(&runs), text_of(&at("log.json")));
    refused(
        &["export", &there, "--format", "inspect", "--out", &log],
        2,
        &["one result, found 3", "--out DIR"],
    );
    let hub = ["--hub-dataset", "a/b", "--hub-task", "c"];
    let line = ["export", &there, "--format", "hf", "--out", &log];
    refused(&[&line[..], &hub].concat(), 2, &["one benchmark's, found 3"]);
    score(
        "mmar",
        &golden("mmar_input.jsonl"),
        &runs.join("e"),
        &["--model", "their-lab/other"],
    );
    refused(
        &line,
        2,
        &["one model's", "`our-lab/tiny` and of `their-lab/other`"],
    );
    let (files, _) = export(&[&runs], "lm-eval", &at("two"), &[]);
    assert_eq!(files.len(), 7);
    // One of them cannot be read: none is written.
    fs::write(runs.join("d/results.json"), "{\"benchmark\": 5}").unwrap();
    refused(
        &[
            "export",
            &there,
            "--format",
            "lm-eval",
            "--out",
            &text_of(&at("none")),
        ],
        6,
        &["d/results.json"],
    );
    assert!(!at("none").exists());
}

/// Predictions that are gone leave scores and verdicts; ones that have changed leave nothing.
#[test]
fn predictions_that_are_gone_or_changed_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // In the results' folder, which is moved with them.
    fs::create_dir_all(at("made")).unwrap();
    fs::copy(golden("mmau_input.json"), at("made/said.json")).unwrap();
    score("mmau", &at("made/said.json"), &at("made"), &["--model", MODEL]);
    fs::rename(at("made"), at("run")).unwrap();
    let results = read(&at("run/results.json"));
    assert_eq!(results["predictions"]["path"], "said.json");
    let (files, notes) = export(&[&at("run")], "lm-eval", &at("lm"), &[]);
    assert_eq!((files.len(), notes.as_str()), (2, ""));

    let said = fs::read_to_string(at("run/said.json")).unwrap();
    fs::write(at("run/said.json"), said.replacen("Aminor", "A minor", 1)).unwrap();
    let run = text_of(&at("run"));
    let was = results["predictions"]["sha256"].as_str().unwrap();
    for format in FORMATS {
        let out = text_of(&at("out"));
        let (code, _, err) = af2(&["export", &run, "--format", format, "--out", &out]);
        assert!(
            code == 6 && err.contains(was) && err.contains("said.json: sha256"),
            "{code} {err}"
        );
        let hashes = err
            .split(|c: char| !c.is_ascii_hexdigit())
            .filter(|w| w.len() == 64);
        assert_eq!(hashes.collect::<std::collections::HashSet<_>>().len(), 2, "{err}");
        assert!(!at("out").exists());
    }

    fs::remove_file(at("run/said.json")).unwrap();
    for format in FORMATS {
        let (files, notes) = export(&[&at("run")], format, &at(&format!("gone_{format}")), &[]);
        assert!(notes.contains("said.json is not there"), "{notes}");
        assert_eq!(files.len(), 1, "{format}: {files:?}");
    }
    let (files, _) = export(&[&at("run")], "inspect", &at("gone.json"), &[]);
    let log = read(&files[0]);
    assert_eq!(log.get("samples"), None);
    let reduced = log["reductions"][0]["samples"].as_array().unwrap();
    let counted = results["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|i| i["counted"] == true);
    for (reduced, item) in reduced.iter().zip(counted) {
        assert_eq!(reduced["sample_id"], item["id"]);
        assert_eq!(reduced["value"] == "C", item["correct"] == true);
    }
    assert_eq!(
        log["results"]["scores"][0]["metrics"]["accuracy"]["value"],
        results["score"]
    );
    // Where it lay is nobody's business.
    assert_eq!(
        log["eval"]["metadata"]["af2"]["without_texts"],
        "said.json is not there"
    );
    assert!(!log.to_string().contains(folder.path().to_str().unwrap()));

    // The file of the items is held to its hash as well.
    let bare = at("bare.jsonl");
    let items = read(&golden("mmau_input.json"));
    let line = |i: &Value| json!({"id": i["id"], "prediction": "(A)"}).to_string() + "\n";
    fs::write(
        &bare,
        items.as_array().unwrap().iter().map(line).collect::<String>(),
    )
    .unwrap();
    fs::copy(golden("mmau_input.json"), at("items.json")).unwrap();
    score(
        "mmau",
        &bare,
        &at("with"),
        &["--model", MODEL, "--items", &text_of(&at("items.json"))],
    );
    export(&[&at("with")], "lm-eval", &at("with_items"), &[]);
    fs::write(at("items.json"), said.replacen("A minor", "A major", 1)).unwrap();
    let line = [
        "export",
        &text_of(&at("with")),
        "--format",
        "lm-eval",
        "--out",
        &text_of(&at("out")),
    ];
    refused(&line, 6, &["items.json: sha256", "expected"]);

    // Results of before the files were written down.
    let mut older = results.clone();
    older.as_object_mut().unwrap().remove("predictions");
    fs::create_dir_all(at("older")).unwrap();
    fs::write(at("older/results.json"), older.to_string()).unwrap();
    let (_, notes) = export(&[&at("older")], "lm-eval", &at("older_out"), &[]);
    assert!(notes.contains("do not name the prediction file"), "{notes}");
}

#[test]
fn nothing_is_replaced_or_half_written_and_what_is_missing_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    score("mmar", &golden("mmar_input.jsonl"), &at("run"), &[]);
    let run = text_of(&at("run"));
    let out = text_of(&at("out"));
    for format in FORMATS {
        let line = ["export", &run, "--format", format, "--out", &out];
        refused(&line, 6, &["results.json: model", "--model NAME"]);
    }
    let line = |more: &[&'static str]| -> Vec<String> {
        let all = [&["export", run.as_str(), "--out", out.as_str()], more].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let refuse = |more: &[&'static str], code: i32, pieces: &[&str]| {
        let line = line(more);
        refused(&line.iter().map(String::as_str).collect::<Vec<_>>(), code, pieces);
    };
    refuse(
        &["--format", "eee", "--model", "tiny"],
        2,
        &["ORGANIZATION/NAME", "`tiny`"],
    );
    for model in [
        "a/",
        "/b",
        "a/..",
        "unknown/b",
        "a/b\u{1}c",
        "NUL/b",
        "a/com7.x",
        "a/b|c",
    ] {
        let line = ["export", &run, "--out", &out, "--format", "eee", "--model", model];
        refused(&line, 2, &["the part"]);
    }
    refuse(
        &[
            "--format",
            "hf",
            "--model",
            "a/b",
            "--hub-dataset",
            "x",
            "--hub-task",
            "y",
        ],
        2,
        &["ORGANIZATION/NAME"],
    );
    refuse(
        &[
            "--format",
            "eee",
            "--model",
            "a/b",
            "--hub-dataset",
            "x/z",
            "--hub-task",
            "y",
        ],
        2,
        &["--format hf"],
    );
    refuse(
        &["--format", "hf", "--model", "a/b", "--organization", "x"],
        2,
        &["--format eee"],
    );
    assert!(!at("out").exists());

    for format in FORMATS {
        let out = at(format);
        let (files, _) = export(&[&at("run")], format, &out, &["--model", "a/b"]);
        let before: Vec<Vec<u8>> = files.iter().map(|f| fs::read(f).unwrap()).collect();
        let line = [
            "export",
            &run,
            "--format",
            format,
            "--out",
            &text_of(&out),
            "--model",
            "a/b",
        ];
        refused(&line, 3, &["it is there already", "--force"]);
        // The first is gone, the last is there: none is written.
        fs::write(&files[files.len() - 1], "mine").unwrap();
        if files.len() > 1 {
            fs::remove_file(&files[0]).unwrap();
            refused(&line, 3, &["it is there already"]);
            assert!(!files[0].exists());
        }
        // The same results give the same bytes.
        let (again, _) = export(&[&at("run")], format, &out, &["--model", "a/b", "--force"]);
        assert_eq!(again, files);
        assert_eq!(
            files.iter().map(|f| fs::read(f).unwrap()).collect::<Vec<_>>(),
            before
        );
    }

    fs::create_dir_all(at("empty")).unwrap();
    refused(
        &["export", &text_of(&at("empty")), "--format", "hf", "--out", &out],
        6,
        &["none", "af2 score --benchmark"],
    );
    refused(
        &[
            "export",
            &text_of(&at("nowhere")),
            "--format",
            "hf",
            "--out",
            &out,
        ],
        3,
        &["nowhere"],
    );
    for text in [
        "{\"version\": 1, \"bootstrap\": {}, \"tasks\": []}",
        "{",
        "{\"version\": 99}",
    ] {
        fs::write(at("results.json"), text).unwrap();
        let line = [
            "export",
            &text_of(&at("results.json")),
            "--format",
            "hf",
            "--out",
            &out,
        ];
        let (code, _, err) = af2(&line);
        assert!(code == 6 && err.contains("results.json"), "{code} {err}");
    }
    // A card of one's own is asked for.
    let mut results = read(&at("run/results.json"));
    results["benchmark"] = json!("kitchen-sounds");
    fs::write(at("results.json"), results.to_string()).unwrap();
    let line = [
        "export",
        &text_of(&at("results.json")),
        "--format",
        "hf",
        "--out",
        &out,
        "--model",
        "a/b",
    ];
    refused(&line, 6, &["no benchmark is called `kitchen-sounds`", "--cards"]);
    // Another file's items.
    let mut results = read(&at("run/results.json"));
    results["items"][3]["id"] = json!("someone else's");
    fs::write(at("results.json"), results.to_string()).unwrap();
    refused(&line, 6, &["someone else's", "score the predictions again"]);
    // No score, which some forms cannot say.
    let mut results = read(&at("run/results.json"));
    results["score"] = Value::Null;
    fs::write(at("results.json"), results.to_string()).unwrap();
    refused(&line, 6, &["score", "null"]);
    let (files, _) = export(
        &[&at("results.json")],
        "inspect",
        &at("no_score.json"),
        &["--model", "a/b"],
    );
    assert_eq!(
        read(&files[0])["results"]["scores"][0]["metrics"].get("accuracy"),
        None
    );
}

/// Parsing by two roundings, as JSON's readers may, would change one of ten such numbers.
#[test]
fn numbers_go_out_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut results = score(
        "mmar",
        &golden("mmar_input.jsonl"),
        &at("run"),
        &["--model", MODEL],
    );
    let shares: Vec<f64> = (1..1_187).map(|n| f64::from(n) / 1_187.0).collect();
    let parts = shares
        .iter()
        .enumerate()
        .map(|(i, share)| (format!("p{i}"), json!(share)));
    results["parts"] = Value::Object(parts.collect());
    fs::write(at("run/results.json"), results.to_string()).unwrap();
    let wanted: Vec<String> = shares.iter().map(|share| format!("{share:?}")).collect();
    for format in FORMATS {
        let (files, _) = export(&[&at("run")], format, &at(format), &[]);
        let text: String = match format {
            "inspect" => zipped(&files[0])["header.json"].to_string(),
            _ => files.iter().map(|f| fs::read_to_string(f).unwrap()).collect(),
        };
        let numbers: std::collections::HashSet<&str> = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || ".-+".contains(c)))
            .collect();
        for number in &wanted {
            assert!(numbers.contains(number.as_str()), "{format}: {number}");
        }
    }
}
