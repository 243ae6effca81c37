//! What this program is, and which libtorch it has.

use super::line::{Line, LIBTORCH};
use crate::ffi::cuda;
use std::path::{Path, PathBuf};

/// The libtorch that this program was built with.
const BUILT: &str = env!("AF2_LIBTORCH");

pub(super) fn look() -> Vec<Line> {
    let version = env!("CARGO_PKG_VERSION");
    let program = std::env::current_exe().map_or_else(|_| String::new(), |p| format!(", {}", p.display()));
    let af2 = Line::ok("af2", format!("{version}{program}")).value("version", version);
    vec![af2, libtorch()]
}

fn libtorch() -> Line {
    const NAME: &str = "libtorch";
    // Something of its own must be used for it to be loaded.
    let _ = tch::get_num_threads();
    let Some(folder) = cuda::libtorch() else {
        return Line::ok(NAME, format!("{BUILT}; /proc does not say from where")).value("version", BUILT);
    };
    let by = source(&folder, &|name| std::env::var_os(name).map(PathBuf::from));
    let found = version(&folder);
    let set = match folder.join("libtorch_cuda.so").exists() {
        true => "CUDA set",
        false => "CPU set",
    };
    let text = format!(
        "{}, {set}, {} ({by})",
        found.as_deref().unwrap_or(BUILT),
        folder.display()
    );
    let line = match &found {
        Some(other) if other.split('+').next() != Some(BUILT) => Line::broken(
            NAME,
            LIBTORCH,
            text,
            format!(
                "this program was built for {BUILT}: take {by} away, or `make setup && make build` with the other"
            ),
        ),
        _ => Line::ok(NAME, text),
    };
    line.value("version", found.unwrap_or(BUILT.into()))
        .value("folder", folder.display().to_string())
        .value("by", by)
}

/// What has led the loader to a folder.
fn source(folder: &Path, variable: &dyn Fn(&str) -> Option<PathBuf>) -> &'static str {
    let same = |p: &Path| p.canonicalize().is_ok_and(|p| p == folder);
    let paths = variable("LD_LIBRARY_PATH").unwrap_or_default();
    // The loader takes the link, /proc says what it leads to.
    let leads = |p: PathBuf| {
        same(&p)
            || p.join("libtorch_cpu.so")
                .canonicalize()
                .is_ok_and(|f| f.parent() == Some(folder))
    };
    if std::env::split_paths(&paths).any(|p| !p.as_os_str().is_empty() && leads(p)) {
        return "LD_LIBRARY_PATH";
    }
    if variable("LIBTORCH").is_some_and(|p| same(&p.join("lib"))) {
        return "LIBTORCH";
    }
    match folder.components().any(|c| c.as_os_str() == ".venv") {
        true => ".venv",
        false => "where it was built",
    }
}

/// What a libtorch folder says of itself: the wheel's `version.py`, the archive's `build-version`.
fn version(lib: &Path) -> Option<String> {
    let python = std::fs::read_to_string(lib.join("../version.py")).ok();
    let python = python.and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("__version__ = "))?;
        Some(line.trim_matches(|c| c == '\'' || c == '"').to_owned())
    });
    let archive = || std::fs::read_to_string(lib.join("../build-version")).ok();
    python.or_else(|| archive().map(|t| t.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_led_to_libtorch() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let [lib, links] = ["a/lib", "links"].map(|p| root.join(p));
        std::fs::create_dir_all(&lib).unwrap();
        std::fs::create_dir_all(&links).unwrap();
        std::fs::write(lib.join("libtorch_cpu.so"), "").unwrap();
        std::os::unix::fs::symlink(lib.join("libtorch_cpu.so"), links.join("libtorch_cpu.so")).unwrap();
        let of = |name: &'static str, value: PathBuf| {
            source(&lib, &move |asked| (asked == name).then(|| value.clone()))
        };
        let several = format!("/nowhere::{}", lib.display());
        assert_eq!(of("LD_LIBRARY_PATH", several.into()), "LD_LIBRARY_PATH");
        assert_eq!(of("LD_LIBRARY_PATH", links), "LD_LIBRARY_PATH");
        assert_eq!(of("LIBTORCH", root.join("a")), "LIBTORCH");
        assert_eq!(of("LIBTORCH", root.join("b")), "where it was built");
        assert_eq!(source(Path::new("/x/.venv/lib/torch/lib"), &|_| None), ".venv");
    }

    #[test]
    fn both_ways_of_saying_a_version_are_read() {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join("lib");
        std::fs::create_dir(&lib).unwrap();
        assert_eq!(version(&lib), None);
        std::fs::write(root.path().join("build-version"), "2.11.0+cu130\n").unwrap();
        assert_eq!(version(&lib).unwrap(), "2.11.0+cu130");
        std::fs::write(
            root.path().join("version.py"),
            "__all__ = []\n__version__ = '2.10.0+cpu'\n",
        )
        .unwrap();
        assert_eq!(version(&lib).unwrap(), "2.10.0+cpu");
    }
}
