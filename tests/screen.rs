//! Losing the screen: a reader who has seen enough, a disk that is full, a terminal that is closed. No verb panics, and what a
//! verb writes to files is there.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use common::golden;
use std::fs::File;
use std::io::{pipe, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// The writing end of a pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// Exit code and what stands on standard error.
fn run(folder: &Path, arguments: &[&str], out: Stdio) -> (i32, String) {
    let out = Command::new(assert_cmd::cargo::cargo_bin("af2"))
        .args(arguments)
        .current_dir(folder)
        .env("OMP_NUM_THREADS", "1")
        .stdout(out)
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !err.contains("panicked") && !err.contains("a fault of af2"),
        "{arguments:?}: {err}"
    );
    (out.status.code().unwrap_or(-1), err)
}

/// A folder with a recipe `r.yaml` whose run has been asked already, and questions `q.jsonl`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
    std::fs::create_dir(root.join("run")).unwrap();
    let recipe =
        "name: screen\noutput: run\nmodel: {checkpoint: MODEL}\ndata: {root: ., sets: {a: a.jsonl}}\n\
                  eval: {sets: [a], windows: 1}\n";
    write("r.yaml", recipe);
    write(
        "a.jsonl",
        "{\"name\": \"a.wav\", \"prompt\": \"q\", \"output\": \"x\"}\n",
    );
    let asked = r#"{"id":"0","task":"t","path":"a.wav","prompt":"q","reference":"x","prediction":"x"}"#;
    write("run/predictions.jsonl", &format!("{asked}\n"));
    let wav = golden("wavs/short_16k_mono_0p2s.wav");
    let question = format!(
        "{{\"path\": {:?}, \"prompt\": \"what is it?\"}}\n",
        wav.display().to_string()
    );
    write("q.jsonl", &question.repeat(3));
    folder
}

#[test]
fn a_reader_who_leaves_and_a_full_disk_end_no_verb_with_a_panic() {
    let model = golden("F_tiny").display().to_string();
    let chunks = golden("F_tiny/safe_ckpt").display().to_string();
    let manifests = golden("F_tiny/manifests/tiny-AQA/train.json")
        .display()
        .to_string();
    let root = golden("").display().to_string();
    let config = golden("F_tiny/config.yaml").display().to_string();
    let verbs: &[(&[&str], i32)] = &[
        (&["--help"], 0),
        (&["recipe", "show", "r.yaml"], 0),
        (&["recipe", "check", "r.yaml"], 0),
        (&["data", "check", &manifests, "--data-root", &root], 6),
        (&["data", "check", &manifests, "--data-root", &root, "--json"], 6),
        (&["checkpoint", "ls", &chunks], 0),
        (&["checkpoint", "ls", &chunks, "--json"], 0),
        (&["checkpoint", "diff", &chunks, &chunks], 0),
        (&["checkpoint", "verify", &model, "--config", &config], 0),
        (&["eval", "r.yaml", "--score-only"], 0),
        (&["report", "run"], 0),
        (
            &[
                "generate",
                "--checkpoint",
                &model,
                "--config",
                &config,
                "--input",
                "q.jsonl",
                "--max-new-tokens",
                "2",
            ],
            0,
        ),
    ];
    let ready = |verb: &[&str]| {
        let here = folder();
        if verb[0] == "report" {
            assert_eq!(
                run(here.path(), &["eval", "r.yaml", "--score-only"], Stdio::null()).0,
                0
            );
        }
        here
    };
    for (verb, code) in verbs {
        let here = ready(verb);
        let (found, err) = run(here.path(), verb, closed());
        // A doctor's findings stay an error, whoever reads them.
        assert!(found == 0 || found == *code, "{verb:?}: {found}: {err}");
        assert!(!err.contains("standard output"), "{verb:?}: {err}");
        let here = ready(verb);
        let (found, err) = run(here.path(), verb, full());
        if verb[0] != "--help" && found != 6 {
            assert_eq!(found, 3, "{verb:?}: {err}");
            assert!(
                err.contains("standard output: No space left on device"),
                "{verb:?}: {err}"
            );
        }
        if matches!(verb[0], "eval" | "report") {
            for file in ["results.json", "table.md"] {
                let made = verb[0] == "eval" || file == "table.md";
                assert!(
                    !made || here.path().join("run").join(file).is_file(),
                    "{verb:?}: {file}"
                );
            }
        }
    }
}

#[test]
fn a_closed_terminal_ends_no_verb_with_a_panic() {
    let here = folder();
    for arguments in [
        &["recipe", "check", "nowhere.yaml"][..],
        &["recipe", "check", "r.yaml"],
        &["eval", "r.yaml", "--score-only"],
    ] {
        let (mut reader, writer) = pipe().unwrap();
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("af2"))
            .args(arguments)
            .current_dir(here.path())
            .stdout(writer)
            .stderr(closed())
            .spawn()
            .unwrap();
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        let code = child.wait().unwrap().code();
        let expected = if arguments[2] == "nowhere.yaml" {
            Some(3)
        } else {
            Some(0)
        };
        assert_eq!(code, expected, "{arguments:?}: {out}");
    }
}

#[test]
fn a_fault_is_one_line_and_exit_code_1() {
    // What libtorch refuses where nobody caught it; the sizes are those of no machine.
    let caught =
        af2::panics::caught(|| tch::Tensor::zeros([1i64 << 50], (tch::Kind::Float, tch::Device::Cpu)));
    let words = caught.unwrap_err();
    assert_eq!(words.lines().count(), 1, "{words}");
}
