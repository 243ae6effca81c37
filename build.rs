//! Checks that the libtorch beside us is the one tch was made for, and lets the binary find it.

use std::{env, fs, path::PathBuf};

/// The libtorch release that tch 0.24 binds.
const WANTED: &str = "2.11.0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        stop("torch-sys did not say where libtorch lies. Run `make setup`.");
    };
    // In LIBTORCH mode torch-sys checks no version: a wrong one would fail as C++ errors, or worse, at run time.
    let version_py = lib.join("../version.py");
    match fs::read_to_string(&version_py) {
        Ok(text) => {
            let found = text
                .lines()
                .find_map(|l| l.strip_prefix("__version__ = "))
                .map(|v| v.trim_matches(|c| c == '\'' || c == '"').to_owned())
                .unwrap_or_default();
            if found.split('+').next() != Some(WANTED) {
                stop(&format!(
                    "libtorch {found} found at {}, but tch 0.24 needs {WANTED}. Run `make setup`, or point LIBTORCH at a {WANTED} folder.",
                    lib.display()
                ));
            }
        }
        // A plain libtorch archive has no version.py but a build-version file.
        Err(_) => {
            let stamp = fs::read_to_string(lib.join("../build-version")).unwrap_or_default();
            if !stamp.trim().starts_with(WANTED) {
                stop(&format!(
                    "no libtorch {WANTED} at {} (neither version.py nor build-version names it). Run `make setup`.",
                    lib.display()
                ));
            }
        }
    }
    println!("cargo:rustc-env=AF2_LIBTORCH={WANTED}");
    // A RUNPATH: cargo run, cargo test and doctests need no LD_LIBRARY_PATH, and one that is set still wins.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}

fn stop(message: &str) -> ! {
    eprintln!("\naf2: {message}\n");
    std::process::exit(1);
}
