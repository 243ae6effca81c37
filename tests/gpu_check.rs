//! `af2 gpu-check` on the CPU at tiny size: every part finds its rows, the report holds them, and what goes wrong is a row.
#![allow(clippy::panic, clippy::unwrap_used)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn run(out: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_af2"))
        .arg("gpu-check")
        .args(arguments)
        .arg("--out")
        .arg(out)
        // Where this machine has a GPU it is of no interest here.
        .env("CUDA_VISIBLE_DEVICES", "-1")
        .output()
        .unwrap()
}

fn tiny(out: &Path, more: &[&str]) -> (Output, Value, String) {
    let arguments: Vec<&str> = ["--device", "cpu", "--tiny"]
        .iter()
        .chain(more)
        .copied()
        .collect();
    let output = run(out, &arguments);
    let read = |name: &str| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        std::fs::read_to_string(out.join(name)).unwrap_or_else(|e| panic!("{name}: {e}\n{said}"))
    };
    let json = serde_json::from_str(&read("gpu-check.json")).unwrap();
    let markdown = read("gpu-check.md");
    (output, json, markdown)
}

/// Name and verdict of each row of a part.
fn rows(json: &Value, part: &str) -> Vec<(String, String)> {
    let parts = json["parts"].as_array().unwrap();
    let part = parts.iter().find(|p| p["name"] == part).unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let rows = part["rows"].as_array().unwrap().iter();
    rows.map(|r| (text(&r["name"]), text(&r["verdict"]))).collect()
}

#[test]
fn every_part_has_its_rows_in_both_reports() {
    let folder = tempfile::tempdir().unwrap();
    let (output, json, markdown) = tiny(&folder.path().join("out"), &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for key in [
        "schema",
        "af2",
        "libtorch",
        "device",
        "tiny",
        "minutes",
        "started_unix",
        "seconds",
        "verdict",
        "counts",
        "parts",
    ] {
        assert!(!json[key].is_null(), "no {key}");
    }
    assert_eq!((&json["schema"], &json["verdict"]), (&1.into(), &"ok".into()));
    let parts = json["parts"].as_array().unwrap();
    let names: Vec<&str> = parts.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "environment",
            "modules",
            "attention",
            "collectives",
            "resume",
            "steps",
            "speed"
        ]
    );
    for part in parts {
        let columns = part["columns"].as_array().unwrap();
        for row in part["rows"].as_array().unwrap() {
            for key in ["name", "verdict", "values", "note"] {
                assert!(!row[key].is_null(), "{row}");
            }
            let values = row["values"].as_object().unwrap();
            assert!(
                values.keys().eq(columns.iter().map(|c| c.as_str().unwrap())),
                "{row}"
            );
            let name = row["name"].as_str().unwrap();
            assert!(
                markdown.contains(&format!("| {name} |")),
                "no {name} in\n{markdown}"
            );
        }
        let title = part["title"].as_str().unwrap();
        assert!(markdown.contains(&format!("\n## {title}\n")), "{markdown}");
    }
    // What each part is there for.
    for (part, expected) in [
        ("environment", "libtorch"),
        ("modules", "HTSAT, 2 windows, fp32"),
        ("modules", "HTSAT, 2 windows, bf16 autocast"),
        ("modules", "audio transformer, 2 windows and padding, fp32"),
        ("modules", "cross-attention block, 3 windows, bf16 autocast"),
        ("modules", "Qwen2, 2 layers, fp32"),
        ("modules", "Flamingo, loss, bf16 autocast"),
        (
            "modules",
            "activation checkpointing beside none, both on the device",
        ),
        ("modules", "fused AdamW, 3 steps and one that is skipped"),
        ("modules", "random numbers go on from a saved state"),
        ("attention", "training, bf16: LM"),
        ("attention", "training, CLAP too, fp32, padded: HTSAT"),
        ("attention", "training, bf16, padded: cross-attention"),
        ("attention", "validation, bf16: audio transformer"),
        ("attention", "prefill, fp32: LM"),
        ("attention", "decoding, one token, bf16: cross-attention"),
        ("collectives", "all_reduce, sum"),
        ("collectives", "all_gather"),
        ("collectives", "the Reducer, two backward passes"),
        ("collectives", "a group is given up"),
        ("resume", "killed, and gone on"),
        ("resume", "--verify-resume"),
        ("steps", "stage2, all is kept"),
        ("steps", "stage3, activation checkpointing"),
        ("speed", "HTSAT, bf16"),
        ("speed", "prefill, fp32"),
        ("speed", "decoding, prefill included, fp32"),
        ("speed", "training step, CLAP frozen, bf16"),
    ] {
        let found = rows(&json, part);
        let row = found.iter().find(|(name, _)| name == expected);
        let verdict = row.unwrap_or_else(|| panic!("{part} has no {expected}: {found:?}"));
        assert!(["ok", "noted"].contains(&verdict.1.as_str()), "{verdict:?}");
    }
    assert!(markdown.contains("memory: not measured on the CPU"), "{markdown}");
    assert!(
        markdown.contains("Please send back `gpu-check.md` and `gpu-check.json`"),
        "{markdown}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(&markdown));
    // Each row is told as it is found.
    assert!(said.contains("killed, and gone on: ok"), "{said}");
}

#[test]
fn bounds_that_do_not_hold_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let (output, json, markdown) = tiny(folder.path(), &["--parts", "modules", "--fault", "modules:bound"]);
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(json["verdict"], "broken");
    let found = rows(&json, "modules");
    assert!(
        found.len() > 15 && found.iter().all(|(_, v)| v == "broken"),
        "{found:?}"
    );
    assert!(markdown.contains("**BROKEN**"), "{markdown}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("error: gpu-check: modules: HTSAT"), "{said}");
}

#[test]
fn a_part_that_panics_crashes_or_hangs_does_not_end_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| folder.path().join(name);
    let parts = ["--parts", "modules,collectives", "--fault"];
    let with = |fault: &'static str| [&parts[..], &[fault]].concat();

    let (output, json, _) = tiny(&of("panic"), &with("modules:panic"));
    assert_eq!(output.status.code(), Some(9));
    let found = rows(&json, "modules");
    assert_eq!(found[0].1, "failed");
    assert!(
        found.len() > 15 && found[1..].iter().all(|(_, v)| v == "ok"),
        "{found:?}"
    );

    let (output, json, markdown) = tiny(&of("abort"), &with("modules:abort"));
    assert_eq!(output.status.code(), Some(9));
    let found = rows(&json, "modules");
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((found[0].1.as_str(), found[1].1.as_str()), ("ok", "failed"));
    assert!(markdown.contains("ended by signal 6"), "{markdown}");
    assert!(rows(&json, "collectives").iter().all(|(_, v)| v == "ok"));

    // Three seconds, and as many for the row that it is at; the last part finds no time.
    let hang = [
        "--parts",
        "collectives,resume",
        "--minutes",
        "0.05",
        "--fault",
        "collectives:hang",
    ];
    let (output, json, markdown) = tiny(&of("hang"), &hang);
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(
        rows(&json, "collectives"),
        [("a store".to_owned(), "failed".to_owned())]
    );
    assert_eq!(
        rows(&json, "resume"),
        [("resume".to_owned(), "not_run".to_owned())]
    );
    assert!(markdown.contains("its process was ended"), "{markdown}");
}

#[test]
fn without_a_gpu_it_says_so_in_one_line_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = run(&out, &["--quiet"]);
    assert_eq!(output.status.code(), Some(13));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("gpu-check: nothing was run: device:"), "{said}");
    assert!(output.stdout.is_empty() && !out.exists());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["--parts", "module"][..], "did you mean `modules`?"),
        (&["--device", "cpu"][..], "--tiny"),
        (&["--device", "cpu", "--parts", "speed"][..], "sizes for a GPU"),
        (&["--minutes", "0"][..], "above 0"),
    ] {
        let output = run(&folder.path().join("out"), arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let output = run(&folder.path().join("out"), &["--device", "gpu"]);
    assert_eq!(output.status.code(), Some(4));
}
