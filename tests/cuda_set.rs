//! The program beside libtorch's full CUDA set, on a machine without a GPU: what can be known before there is one.
//!
//! `make test-interop` runs these: its environment holds that set.
#![allow(clippy::unwrap_used)]

#[path = "common/full_set.rs"]
mod full_set;

use af2::ffi::c10d::WATCHDOG;
use full_set::full_set;
use std::path::Path;
use std::process::{Command, Output};

fn af2(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_af2"))
        .args(arguments)
        .env("LD_LIBRARY_PATH", full_set())
        .env_remove("CUDA_VISIBLE_DEVICES")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A machine with a GPU shows figures instead: `make gpu-check`.
fn has_gpu() -> bool {
    Path::new("/proc/driver/nvidia/version").exists()
}

#[test]
#[ignore = "make test-interop"]
fn libtorch_knows_what_holds_its_watchdog_back() {
    let library = std::fs::read(full_set().join("libtorch_cuda.so")).unwrap();
    for (name, _) in WATCHDOG {
        // As a string of its own, not as a part of another.
        let text = [&[0], name.as_bytes(), &[0]].concat();
        assert!(memchr::memmem::find(&library, &text).is_some(), "{name}");
    }
}

#[test]
#[ignore = "make test-interop"]
fn a_gpu_that_is_asked_for_and_does_not_answer_is_told_with_libtorchs_reason() {
    if has_gpu() {
        return;
    }
    let wav = "tests/golden/wavs";
    let wav = std::fs::read_dir(wav).unwrap().next().unwrap().unwrap().path();
    let ask = |device: &str| {
        let wav = wav.to_str().unwrap();
        af2(&[
            "generate",
            "--checkpoint",
            "nowhere",
            "--audio",
            wav,
            "--prompt",
            "?",
            "--device",
            device,
        ])
    };
    let asked = ask("cuda");
    let text = said(&asked);
    assert_eq!(asked.status.code(), Some(13), "{text}");
    assert!(
        text.contains("Found no NVIDIA driver") && text.contains("580"),
        "{text}"
    );
    assert!(
        !text.contains("frame #") && !text.contains("Exception raised"),
        "{text}"
    );
    // `auto` is the CPU and says why; what is then missing is the checkpoint.
    let auto = ask("auto");
    let text = said(&auto);
    assert_eq!(auto.status.code(), Some(3), "{text}");
    assert!(
        text.contains("note: `auto` is the CPU: CUDA does not answer: Found no NVIDIA driver"),
        "{text}"
    );
}

#[test]
#[ignore = "make test-interop"]
fn ranks_without_their_gpus_end_at_once_and_say_so() {
    if has_gpu() {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let output = format!("output={}", out.path().join("run").display());
    let began = std::time::Instant::now();
    let ran = af2(&[
        "launch",
        "-n",
        "2",
        "--",
        "train",
        "recipes/demo.yaml",
        "device=cuda",
        &output,
    ]);
    let text = said(&ran);
    assert_eq!(ran.status.code(), Some(13), "{text}");
    assert!(text.contains("Found no NVIDIA driver"), "{text}");
    // And not after the minutes that ranks wait for each other.
    assert!(began.elapsed().as_secs() < 60, "{text}");
    assert!(!out.path().join("run").exists(), "{text}");
}
