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

    // Its sets by their cards: one command from the checkpoint to a table.
    let cards = Path::new(env!("CARGO_MANIFEST_DIR")).join("data-manifests/demo");
    let cards = cards.to_str().unwrap();
    let (manifests, scored) = (folder.path().join("manifests"), folder.path().join("scored"));
    for (card, set) in [
        ("demo-sounds", "demo-EventClassification"),
        ("demo-sequences", "demo-Sequence"),
        ("demo-captions", "demo-AudioCaptioning"),
    ] {
        let set = out.join(format!("corpus/manifests/{set}/test.json"));
        run(&[
            "benchmark",
            "import",
            card,
            "--cards",
            cards,
            "--from",
            set.to_str().unwrap(),
            "--audio",
            out.join("corpus/wavs").to_str().unwrap(),
            "--out",
            manifests.to_str().unwrap(),
            "--accept",
        ]);
    }
    let table = run(&[
        "eval",
        "--checkpoint",
        stage3.to_str().unwrap(),
        "--cards",
        cards,
        "--manifests",
        manifests.to_str().unwrap(),
        "--benchmarks",
        "demo-sounds,demo-sequences,demo-captions",
        "--out",
        scored.to_str().unwrap(),
        "--limit",
        "4",
        "--control",
        "silence,text_only",
    ]);
    for shown in ["demo-sounds", "demo-captions", "text_only", "af2 judge run"] {
        assert!(table.contains(shown), "no {shown} in {table}");
    }
    let listening = std::fs::read_to_string(scored.join("demo-sounds/results.json")).unwrap();
    assert!(listening.contains("audio_gain"), "{listening}");

    // A stage again, now with sound files that are broken: each is skipped and named, and beyond the budget is an end.
    let plan = out.join("plan.yaml");
    let manifest = out.join("corpus/manifests/demo-EventClassification/train.json");
    let manifest: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
    let folder = out.join("corpus").join(manifest["split_path"].as_str().unwrap());
    let items = manifest["data"].as_object().unwrap();
    let broken: Vec<_> = items
        .values()
        .take(24)
        .map(|i| folder.join(i["name"].as_str().unwrap()))
        .collect();
    let (spoilt, gone) = broken.split_at(12);
    spoilt.iter().for_each(|f| std::fs::write(f, "no sound").unwrap());
    gone.iter().for_each(|f| std::fs::remove_file(f).unwrap());
    let train = |budget: &str| {
        let save = "stages.stage1.save={every: 1, keep_last: 1, keep_every: 0}";
        Command::cargo_bin("af2")
            .unwrap()
            .args(["train", plan.to_str().unwrap(), budget, save, "--quiet"])
            .output()
            .unwrap()
    };
    let stopped = train("data.skip_budget=0");
    let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert_eq!(stopped.status.code(), Some(10), "{said}");
    assert!(
        said.contains("skipped.jsonl") && said.contains("skip_budget"),
        "{said}"
    );
    std::fs::remove_file(out.join("skipped.jsonl")).unwrap();
    let done = train("data.skip_budget=0.5");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let ledger = std::fs::read_to_string(out.join("skipped.jsonl")).unwrap();
    for kind in [spoilt, gone] {
        let named = |f: &std::path::PathBuf| ledger.contains(f.to_str().unwrap());
        assert!(kind.iter().any(named), "{kind:?} are not in {ledger}");
    }
    for line in ledger.lines() {
        assert!(
            broken.iter().any(|f| line.contains(f.to_str().unwrap())),
            "{line}"
        );
    }
    let mut lines: Vec<&str> = ledger.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(
        lines.len(),
        ledger.lines().count(),
        "an item is named once a stage"
    );
    // The checkpoint that the stage wrote on its way.
    let checkpoints = af2::checkpoint::numbered(&out.join("checkpoints/stage1")).unwrap();
    assert_eq!(checkpoints.len(), 1, "{checkpoints:?}");
    run(&[
        "checkpoint",
        "verify",
        checkpoints.values().next().unwrap().to_str().unwrap(),
        "--base",
        stage3.to_str().unwrap(),
    ]);

    // The table again, from the files alone.
    assert!(run(&["report", out.to_str().unwrap()]).contains("demo-Counting"));
    assert!(Path::new(&out.join("table.md")).exists());
}
