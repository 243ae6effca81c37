//! `af2 score --benchmark`: predictions of any model, by a card's rules; and the tables that are made of the results.
#![allow(clippy::panic, clippy::unwrap_used)]

#[path = "common/scores.rs"]
mod scores;

use scores::{af2, golden, read, scored};
use serde_json::{json, Value};
use std::fs;
use std::path::{Path, PathBuf};

fn expected(file: &str) -> Value {
    read(&golden(&format!("rules/{file}")))
}

fn near(a: &Value, b: f64) -> bool {
    (a.as_f64().unwrap() - b).abs() < 1e-12
}

/// By their official scripts: each item, the score, each category.
#[test]
fn official_files_are_scored_as_their_scripts_do() {
    for (card, input, output, keys) in [
        (
            "mmau",
            "mmau_input.json",
            "mmau_expected.json",
            [
                ("task", "task_metrics"),
                ("difficulty", "diff_metrics"),
                ("sub-category", "subcat_metrics"),
            ],
        ),
        (
            "mmar",
            "mmar_input.jsonl",
            "mmar_expected.json",
            [
                ("modality", "modality_metrics"),
                ("category", "category_metrics"),
                ("sub-category", "subcat_metrics"),
            ],
        ),
    ] {
        let (found, wanted) = (
            scored(card, &golden(&format!("rules/{input}")), &[]),
            expected(output),
        );
        let (correct, total) = (&wanted["correct"], &wanted["total"]);
        assert_eq!(&found["n"], total);
        assert!(near(
            &found["score"],
            correct.as_f64().unwrap() / total.as_f64().unwrap()
        ));
        let by_id = wanted["match_by_id"].as_object().unwrap();
        let items = found["items"].as_array().unwrap();
        let counted = items.iter().filter(|i| i["counted"] == true);
        assert_eq!(counted.clone().count(), by_id.len());
        for item in counted {
            let id = item["id"].as_str().unwrap();
            assert_eq!(item["correct"].as_bool().unwrap(), by_id[id] == 1, "{id}");
        }
        for (key, of) in keys {
            for (value, counts) in wanted[of].as_object().unwrap() {
                let group = &found["categories"][key][value];
                assert_eq!(
                    (&group["correct"], &group["n"]),
                    (&counts[0], &counts[1]),
                    "{value}"
                );
            }
        }
        let (low, high) = (&found["interval"]["low"], &found["interval"]["high"]);
        let score = found["score"].as_f64().unwrap();
        assert!(low.as_f64().unwrap() < score && score < high.as_f64().unwrap());
        assert_eq!(found["other"]["rule"], "choice");
        assert_eq!(found["data"]["known"], false);
        assert!(found["name"].as_str().unwrap().contains(&format!("({total} of ")));
    }
}

#[test]
fn muchomusic_cmm_and_air_bench() {
    let (found, wanted) = (
        scored("muchomusic", &golden("rules/muchomusic_input.json"), &[]),
        expected("muchomusic_expected.json"),
    );
    let verdicts = |found: &Value| -> Vec<bool> {
        let items = found["items"].as_array().unwrap();
        items.iter().map(|i| i["correct"].as_bool().unwrap()).collect()
    };
    let right: Vec<bool> = wanted["correct"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v == 1)
        .collect();
    assert_eq!(verdicts(&found), right);

    // Of the whole file what the script says; the card's row of the paper is one of its parts.
    let (found, wanted) = (
        scored("cmm", &golden("rules/cmm_input.jsonl"), &[]),
        expected("cmm_expected.json"),
    );
    let whole = &found["whole"];
    let share = |key: &str| wanted[key].as_f64().unwrap();
    assert!(near(&whole["parts"]["accuracy"], share("overall_accuracy")));
    assert!(near(&whole["parts"]["pa"], share("perception_accuracy")));
    assert!(near(&whole["parts"]["hr"], share("hallucination_resistance")));
    let part = &wanted["sub_category"]["audio-language"];
    let of = |a: &str, b: &str| part[a].as_f64().unwrap() / part[b].as_f64().unwrap();
    assert!(near(
        &found["parts"]["pa"],
        of("correct_yes", "total_yes_in_answer")
    ));
    assert!(near(
        &found["parts"]["hr"],
        of("correct_no", "total_no_in_answer")
    ));
    assert_eq!(found["n"], part["total"]);

    let (found, wanted) = (
        scored("air-bench", &golden("rules/airbench_foundation_input.jsonl"), &[]),
        expected("airbench_foundation_expected.json"),
    );
    assert_eq!(found["n"], wanted["total_sum"]);
    for (task, counts) in wanted["by_task"].as_object().unwrap() {
        let group = &found["categories"]["task"][task];
        assert_eq!(
            (&group["correct"], &group["n"]),
            (&counts["correct"], &counts["total"]),
            "{task}"
        );
    }
}

const ITEMS: &str = r#"[
 {"id": "a", "audio_id": "x.wav", "question": "What barks?", "choices": ["A dog", "A cat"], "answer": "A dog", "task": "sound", "difficulty": "easy", "sub-category": "s"},
 {"id": "b", "audio_id": "x.wav", "question": "What purrs?", "choices": ["A dog", "A cat"], "answer": "A cat", "task": "sound", "difficulty": "hard", "sub-category": "s"},
 {"id": "c", "audio_id": "y.wav", "question": "What rings?", "choices": ["A bell", "A phone"], "answer": "A bell", "task": "music", "difficulty": "easy", "sub-category": "s"}
]"#;

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// The same answers in the forms of four tools.
#[test]
fn other_tools_predictions_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let items: Value = serde_json::from_str(ITEMS).unwrap();
    let said = ["(A) A dog", "the answer is a cat", "I cannot tell."];
    let lines = |of: &dyn Fn(&Value, &str) -> Value| -> String {
        let all = items.as_array().unwrap().iter().zip(said);
        all.map(|(item, said)| of(item, said).to_string() + "\n")
            .collect()
    };
    let lm_eval = lines(
        &|item, said| json!({"doc_id": item["id"], "doc": item, "target": item["answer"], "resps": [[said]], "filtered_resps": [said]}),
    );
    let ours = lines(&|item, said| {
        json!({"id": item["id"], "task": "mmau", "path": item["audio_id"], "prompt": item["question"], "reference": item["answer"],
               "prediction": said, "labels": item["choices"]})
    });
    let bare = lines(&|item, said| json!({"id": item["id"], "prediction": said}));
    let samples = items.as_array().unwrap().iter().zip(said).map(|(item, said)| {
        let right = item["choices"].as_array().unwrap().iter().position(|c| *c == item["answer"]);
        json!({"id": item["id"], "epoch": 1, "input": item["question"], "choices": item["choices"], "target": (["A", "B"][right.unwrap()]),
               "output": {"completion": said, "choices": [{"stop_reason": "stop"}]}})
    });
    let inspect = json!({"version": 2, "eval": {}, "samples": samples.collect::<Vec<_>>()}).to_string();
    let official = write(folder.path(), "mmau.json", ITEMS);
    let official = official.display().to_string();
    for (name, text, more) in [
        ("lm_eval.jsonl", lm_eval, vec![]),
        ("predictions.jsonl", ours, vec![]),
        ("inspect.json", inspect, vec![]),
        ("bare.jsonl", bare, vec!["--items", &official]),
    ] {
        let path = write(folder.path(), name, &text);
        let found = scored("mmau", &path, &[&more[..], &["--rule", "fair"]].concat());
        let states: Vec<&str> = found["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["state"].as_str().unwrap())
            .collect();
        assert_eq!(states, ["answered", "answered", "refused"], "{name}");
        assert_eq!(
            (&found["rule"], &found["n"]),
            (&json!("choice"), &json!(3)),
            "{name}"
        );
        assert!(near(&found["score"], 2.0 / 3.0), "{name}");
        let span = &found["items"][1]["span"];
        let (from, to) = (
            span[0].as_u64().unwrap() as usize,
            span[1].as_u64().unwrap() as usize,
        );
        let text: String = said[1].chars().skip(from).take(to - from).collect();
        assert_eq!(text, "a cat", "{name}");
    }
    // Of predictions that carry none the items are asked for.
    let path = folder.path().join("bare.jsonl").display().to_string();
    let (code, _, err) = af2(&["score", "--benchmark", "mmau", "--predictions", &path]);
    assert!(
        code == 6 && err.contains("line 1") && err.contains("--items"),
        "{code} {err}"
    );
    // An id that is none of theirs, and one twice.
    for (text, word) in [
        ("{\"id\": \"z\", \"prediction\": \"x\"}", "such as z"),
        (
            "{\"id\": \"a\", \"prediction\": \"x\"}\n{\"id\": \"a\", \"prediction\": \"y\"}",
            "a again",
        ),
        ("{\"id\": \"a\", \"prediction\": 5}", "a text"),
        ("{\"id\": \"a\"}", "one of"),
    ] {
        let path = write(folder.path(), "odd.jsonl", text).display().to_string();
        let (code, _, err) = af2(&[
            "score",
            "--benchmark",
            "mmau",
            "--predictions",
            &path,
            "--items",
            &official,
        ]);
        assert!(code == 6 && err.contains(word), "{code} {err}");
    }
}

/// Nothing that a model may write ends the scoring.
#[test]
fn hostile_predictions_are_scored() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = [
        String::new(),
        "dog ".repeat(10_000),
        "x".repeat(1 << 20),
        "狗 и кот 🐕\u{200d}🦺".to_owned(),
        "\u{0}\u{1}\u{7f}\u{2028}".to_owned(),
        "<script>alert('A dog')</script>".to_owned(),
        "((((".repeat(50_000),
    ];
    let mut items = Vec::new();
    for (i, text) in hostile.iter().enumerate() {
        items.push(json!({"id": i.to_string(), "question": "?", "choices": ["A dog", "A cat"], "answer": "A dog", "task": "sound",
            "difficulty": "easy", "sub-category": "s", "model_output": text}));
    }
    let text = Value::Array(items).to_string();
    let half = text.replace("狗", "\\ud83d");
    for (name, text) in [("all.json", text), ("half.json", half)] {
        let path = write(folder.path(), name, &text);
        for rule in ["official", "fair"] {
            let found = scored("mmau", &path, &["--rule", rule]);
            assert_eq!(found["items"].as_array().unwrap().len(), hostile.len());
            assert_eq!(found["items"][0]["state"], "empty");
        }
    }
    for bad in ["", "[]", "[1]", "{\"a\": 1}\n[", "\u{feff}", "[{\"id\": 1}"] {
        let path = write(folder.path(), "bad.json", bad).display().to_string();
        let (code, _, err) = af2(&["score", "--benchmark", "mmau", "--predictions", &path]);
        assert!(code == 6 && err.contains("bad.json"), "{bad}: {code} {err}");
    }
    let (code, _, err) = af2(&["score", "--benchmark", "mmuu", "--predictions", "x"]);
    assert!(code == 2 && err.contains("did you mean"), "{code} {err}");
    let (code, _, err) = af2(&[
        "score",
        "--benchmark",
        "long-audio-bench",
        "--predictions",
        &golden("rules/cmm_input.jsonl").display().to_string(),
    ]);
    assert!(code != 0 && err.contains("judge"), "{code} {err}");
}

#[test]
fn tables_show_what_was_measured_and_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("experiments");
    let there = runs.display().to_string();
    let (code, out, err) = af2(&["tables", "--runs", &there]);
    assert_eq!(code, 0, "{err}");
    for piece in [
        "Table 1",
        "Table 2",
        "Table 13",
        "missing",
        "ClothoAQA unanimous",
        "86.9",
        "af2 eval --checkpoint CHECKPOINT --benchmarks",
    ] {
        assert!(out.contains(piece), "{piece}");
    }
    let out = runs.join("run/muchomusic").display().to_string();
    scored(
        "muchomusic",
        &golden("rules/muchomusic_input.json"),
        &["--out", &out, "--model", "tiny"],
    );
    fs::create_dir_all(runs.join("broken")).unwrap();
    write(&runs.join("broken"), "results.json", "{\"benchmark\": 5}");
    let file = folder.path().join("tables.md").display().to_string();
    let (code, out, err) = af2(&["tables", "--runs", &there, "--markdown", &file]);
    assert_eq!(code, 0, "{err}");
    assert!(
        err.contains("broken") && out.contains("limited: muchomusic (494 of 1187 items)"),
        "{err} {out}"
    );
    let text = fs::read_to_string(&file).unwrap();
    let row = text.lines().find(|l| l.starts_with("| MuchoMusic")).unwrap();
    assert!(
        row.contains("| 54.5 |") && row.contains("56.5") && row.contains("| 494 |") && row.contains("-2.0"),
        "{row}"
    );
    assert!(text.contains("run/muchomusic, tiny, rule muchomusic (official)"));
}

/// What a card may name is a rule on texts, or needs what is said here.
#[test]
fn the_cards_rules_are_there() {
    use af2::benchmark::names::Rule;
    use af2::eval::rules::RuleName;
    for rule in Rule::ALL {
        let needs_more = ["musicqa", "judge"].contains(&rule.name());
        assert_eq!(rule.name().parse::<RuleName>().is_err(), needs_more, "{rule}");
    }
}
