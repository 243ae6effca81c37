//! `make install`: af2 where PATH finds it, and what is said where its libtorch has moved.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The script, with the program that the tests have and this folder as libtorch.
fn install(prefix: &Path, torch: &Path, arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_af2"));
    let target = program.ancestors().nth(2).unwrap();
    assert!(
        program.ends_with("release/af2"),
        "the script installs what `make build` makes"
    );
    Command::new(Path::new(ROOT).join("scripts/install.sh"))
        .args(arguments)
        .env("PREFIX", prefix)
        .env("CARGO_TARGET_DIR", target)
        .env("LIBTORCH", torch)
        .env_remove("DESTDIR")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder with spaces whose `lib` is the libtorch of this build.
fn torch(folder: &Path) -> PathBuf {
    let own = af2::ffi::cuda::libtorch().unwrap_or_else(|| {
        // Loaded only where something of it is used.
        let _ = tch::get_num_threads();
        af2::ffi::cuda::libtorch().unwrap()
    });
    let torch = folder.join("a torch");
    std::fs::create_dir_all(&torch).unwrap();
    std::os::unix::fs::symlink(own, torch.join("lib")).unwrap();
    torch
}

#[test]
fn what_is_installed_runs_until_its_libtorch_moves_and_can_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let torch = torch(folder.path());
    let prefix = folder.path().join("a prefix");
    let done = install(&prefix, &torch, &[]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(
        text(&done.stdout).contains("is not in PATH"),
        "{}",
        text(&done.stdout)
    );
    let run = |path: &str| {
        Command::new(prefix.join("bin/af2"))
            .args(["recipe", "ls"])
            .current_dir(ROOT)
            .env("LD_LIBRARY_PATH", path)
            .output()
            .unwrap()
    };
    let said = run("");
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert!(text(&said.stdout).contains("af2-3b"), "{}", text(&said.stdout));
    for file in [
        "share/bash-completion/completions/af2",
        "share/zsh/site-functions/_af2",
        "share/fish/vendor_completions.d/af2.fish",
    ] {
        let found = std::fs::read_to_string(prefix.join(file)).unwrap();
        assert!(found.contains("verify-resume"), "{file}");
    }

    let lib = torch.join("lib");
    let own = std::fs::read_link(&lib).unwrap();
    std::fs::remove_file(&lib).unwrap();
    let said = run("");
    assert_eq!(said.status.code(), Some(127));
    let (err, hint) = (text(&said.stderr), "make install");
    assert!(
        err.contains(&lib.display().to_string()) && err.contains(hint),
        "{err}"
    );
    // Another place that LD_LIBRARY_PATH names serves as well.
    assert!(run(own.to_str().unwrap()).status.success());

    let removed = install(&prefix, &torch, &["--remove"]);
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    let left = walk(&prefix);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_cannot_be_installed_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let done = install(Path::new("relative"), &torch(folder.path()), &[]);
    assert!(!done.status.success());
    assert!(
        text(&done.stderr).contains("not an absolute path"),
        "{}",
        text(&done.stderr)
    );
    let done = install(folder.path(), &folder.path().join("nowhere"), &[]);
    assert!(!done.status.success());
    assert!(
        text(&done.stderr).contains("no libtorch at"),
        "{}",
        text(&done.stderr)
    );
}

/// All files below.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(walk(&path)),
            path => files.push(path),
        }
    }
    files
}
