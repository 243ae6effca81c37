//! What tests of `af2 score` share.
#![allow(dead_code)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the official tools' numbers.
pub(crate) fn golden(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/M_metrics");
    folder.join(file)
}

pub(crate) fn read(file: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Exit code, standard output, standard error; METEOR and SPICE are not there.
pub(crate) fn af2(arguments: &[&str]) -> (i32, String, String) {
    let done = Command::new(assert_cmd::cargo::cargo_bin("af2"))
        .args(arguments)
        .env_remove("AF2_METEOR_JAR")
        .env_remove("AF2_SPICE_JAR")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        done.status.code().unwrap_or(-1),
        text(done.stdout),
        text(done.stderr),
    )
}

pub(crate) fn fine(arguments: &[&str]) -> String {
    let (code, out, err) = af2(arguments);
    assert_eq!(code, 0, "{arguments:?}: {err}");
    out
}

/// What a command says that ends with this code.
pub(crate) fn refused(arguments: &[&str], expected: i32) -> String {
    let (code, _, err) = af2(arguments);
    assert_eq!(code, expected, "{arguments:?}: {err}");
    assert!(!err.contains("panicked"), "{err}");
    err
}

/// A benchmark's score, as `--json` prints it.
pub(crate) fn scored(benchmark: &str, predictions: &Path, more: &[&str]) -> Value {
    let path = predictions.display().to_string();
    let line = [
        "score",
        "--benchmark",
        benchmark,
        "--predictions",
        &path,
        "--json",
    ];
    serde_json::from_str(&fine(&[&line[..], more].concat())).unwrap()
}
