//! The demo at its smallest: the line from an empty folder to a table must not break unnoticed.

use assert_cmd::Command;
use std::path::Path;

#[test]
fn from_nothing_to_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = |arguments: &[&str]| {
        let out = Command::cargo_bin("af2")
            .unwrap()
            .args(arguments)
            .output()
            .unwrap();
        let (stdout, stderr) = (
            String::from_utf8_lossy(&out.stdout).into_owned(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        );
        assert!(out.status.success(), "{arguments:?}\n{stdout}{stderr}");
        stdout
    };
    let shown = run(&["demo", "--smallest", "--output", out.to_str().unwrap()]);
    for task in [
        "demo-EventClassification",
        "demo-Counting",
        "demo-Order",
        "demo-Attribute",
        "demo-LongAudio",
    ] {
        assert!(shown.contains(task), "{shown}");
    }
    let has = |name: &str| assert!(out.join(name).exists(), "no {name}");
    for name in [
        "plan.yaml",
        "environment.json",
        "predictions.jsonl",
        "results.json",
        "table.md",
        "corpus/corpus.json",
        "llm/model.safetensors",
        "clap/clap.safetensors",
    ] {
        has(name);
    }
    for step in ["lm", "clap", "stage1", "stage2", "stage3"] {
        has(&format!("events/{step}/events.jsonl"));
        let tensorboard = std::fs::read_dir(out.join("events").join(step))
            .unwrap()
            .any(|f| f.unwrap().file_name().to_string_lossy().contains("tfevents"));
        assert!(tensorboard, "no TensorBoard file for {step}");
    }
    assert!(std::fs::read_dir(&out).unwrap().any(|f| f
        .unwrap()
        .path()
        .extension()
        .is_some_and(|e| e == "svg")));

    // Every sample was asked with its clip and with silence.
    let lines = std::fs::read_to_string(out.join("predictions.jsonl")).unwrap();
    let control = lines.matches("\"control\":true").count();
    assert!(control > 0 && control == lines.matches("\"control\":false").count());

    // A stage's folder is a checkpoint that answers.
    let wav = std::fs::read_dir(out.join("corpus/wavs"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let stage3 = out.join("checkpoints/stage3");
    let answer = run(&[
        "generate",
        "--checkpoint",
        stage3.to_str().unwrap(),
        "--audio",
        wav.to_str().unwrap(),
        "--prompt",
        "what is the sound?",
        "--max-new-tokens",
        "4",
        "--json",
    ]);
    assert!(answer.contains("\"tokens\""), "{answer}");

    // The table again, from the files alone.
    assert!(run(&["report", out.to_str().unwrap()]).contains("demo-Counting"));
    assert!(Path::new(&out.join("table.md")).exists());
}
