//! The cores that are shared with other programs: the spin is bounded unless the user has chosen, and nothing else changes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use common::golden;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Asks one question; returns whether the program gave itself a bounded spin, and its answer.
fn asked(environment: &[(&str, &str)], more: &[&str]) -> (bool, String) {
    let text = |p: &str| golden(p).display().to_string();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("af2"));
    for name in [
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "GOMP_SPINCOUNT",
        "OMP_WAIT_POLICY",
        "AF2_BOUNDED_SPIN",
    ] {
        command.env_remove(name);
    }
    let mut child = command
        .args([
            "generate",
            "--checkpoint",
            &text("F_tiny"),
            "--config",
            &text("F_tiny/config.yaml"),
            "--audio",
        ])
        .args([
            &text("wavs/speech_16k_mono_3p7s.wav"),
            "--prompt",
            "What is the emotion of the speaker?",
        ])
        .args(["--max-new-tokens", "24"])
        .args(more)
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut bounded = false;
    while child.try_wait().unwrap().is_none() {
        let environ = std::fs::read(format!("/proc/{}/environ", child.id())).unwrap_or_default();
        bounded |= environ.split(|b| *b == 0).any(|v| v == b"AF2_BOUNDED_SPIN=1");
        std::thread::sleep(Duration::from_millis(2));
    }
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    (bounded, String::from_utf8(out.stdout).unwrap())
}

#[test]
fn the_spin_is_bounded_unless_the_user_has_chosen_and_the_answer_stays() {
    let several = af2::cores::allowed() > 1;
    let (bounded, answer) = asked(&[], &[]);
    assert_eq!(bounded, several);
    assert!(!answer.trim().is_empty());
    for (environment, more) in [
        (&[("GOMP_SPINCOUNT", "5000")][..], &[][..]),
        (&[("OMP_WAIT_POLICY", "passive")], &[]),
        (&[("OMP_NUM_THREADS", "1")], &[]),
        (&[], &["--threads", "1"]),
    ] {
        let (bounded, same) = asked(environment, more);
        assert!(!bounded, "{environment:?} {more:?}");
        assert_eq!(same, answer);
    }
}

#[test]
fn a_team_that_does_nothing_can_be_had_of_libtorchs_openmp() {
    // In a thread of its own, with which it goes.
    let made = std::thread::spawn(|| af2::ffi::openmp::team(3)).join().unwrap();
    assert!(made, "libtorch came with another OpenMP than GNU's");
}
