//! Who may use whom: data flows one way. A module that reaches upwards fails here.

use std::path::{Path, PathBuf};

/// module → the modules of this crate that it may name. What is not listed may use everything.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("panics", &["error", "screen"]),
    ("screen", &["error"]),
    ("shapes", &[]),
    ("cores", &["ffi", "screen"]),
    ("device", &["error", "ffi", "screen"]),
    ("yaml", &["error"]),
    ("fsutil", &["error", "yaml"]),
    ("progress", &["screen"]),
    ("audio", &["error", "shapes", "fsutil"]),
    ("text", &["error", "shapes", "fsutil", "panics", "screen"]),
    ("data", &["error", "shapes", "fsutil", "audio", "text"]),
    ("model", &["error", "shapes", "fsutil", "ffi"]),
    ("checkpoint", &["error", "shapes", "fsutil", "panics", "screen"]),
    ("ffi", &["error", "panics"]),
    ("metrics", &["error"]),
    ("synth", &["error", "shapes", "fsutil", "data"]),
    (
        "recipe",
        &[
            "error", "shapes", "fsutil", "yaml", "model", "synth", "data", "text",
        ],
    ),
    (
        "load",
        &[
            "cores",
            "error",
            "fsutil",
            "checkpoint",
            "model",
            "recipe",
            "settings",
            "text",
        ],
    ),
    ("settings", &["error", "fsutil", "model"]),
    ("generate", &["error", "shapes", "model"]),
    (
        "plan",
        &["error", "checkpoint", "data", "load", "model", "recipe", "text"],
    ),
    (
        "preflight",
        &[
            "error",
            "fsutil",
            "screen",
            "checkpoint",
            "data",
            "load",
            "model",
            "plan",
            "recipe",
            "text",
        ],
    ),
    (
        "gpu_check",
        &[
            "error",
            "shapes",
            "fsutil",
            "panics",
            "screen",
            "cores",
            "device",
            "ffi",
            "model",
            "checkpoint",
            "load",
            "plan",
            "recipe",
            "text",
            "train",
            "generate",
            "dist",
            "report",
        ],
    ),
    ("dist", &["error", "fsutil", "screen", "cores", "ffi"]),
    ("report", &["error", "fsutil", "metrics", "eval", "train"]),
];

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for f in std::fs::read_dir(folder).unwrap() {
        let path = f.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Names after `crate::` in code, doc comments left out.
fn uses(text: &str) -> Vec<String> {
    text.lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .flat_map(|l| l.split("crate::").skip(1))
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .filter(|name: &String| name.chars().next().is_some_and(char::is_lowercase))
        // The macros of `screen`.
        .map(|name| match name.as_str() {
            "out" | "say" => "screen".to_owned(),
            _ => name,
        })
        .collect()
}

#[test]
fn data_flows_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut checked = 0;
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let module = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        let Some((_, allowed)) = MAY_USE.iter().find(|(m, _)| *m == module) else {
            continue;
        };
        checked += 1;
        for name in uses(&std::fs::read_to_string(&file).unwrap()) {
            let fine = name == module || allowed.contains(&name.as_str());
            assert!(
                fine,
                "{} names crate::{name}; {module} may use {allowed:?}",
                inside.display()
            );
        }
    }
    assert!(checked > 25, "only {checked} files checked");
}

#[test]
fn metrics_and_report_touch_no_tensor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for module in ["metrics", "report"] {
        let mut files = Vec::new();
        sources(&src.join(module), &mut files);
        assert!(!files.is_empty());
        for file in files {
            assert!(
                !std::fs::read_to_string(&file).unwrap().contains("tch::"),
                "{}",
                file.display()
            );
        }
    }
}

/// `println!` panics where its reader has left, `eprintln!` where the terminal is closed.
#[test]
fn there_is_one_way_to_print() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests may print: cargo captures it.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let odd = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
        let found = code
            .lines()
            .find(|l| !l.trim_start().starts_with("//") && odd.iter().any(|word| l.contains(word)));
        let tests = file.ends_with("tests.rs");
        assert!(found.is_none() || tests, "{}: {found:?}", file.display());
    }
}

#[test]
fn unsafe_is_only_where_libtorch_or_a_map_needs_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    for file in files {
        let inside = file.strip_prefix(&src).unwrap().display().to_string();
        let allowed = inside.starts_with("ffi") || inside == "checkpoint/bytes.rs";
        let has = std::fs::read_to_string(&file).unwrap().contains("unsafe {");
        assert!(!has || allowed, "{inside}");
    }
}

/// tch's names a device, of which libtorch warns twice at each call; `kernels::pinned` does not.
#[test]
fn memory_is_locked_without_naming_a_device() {
    let mut files = Vec::new();
    for folder in ["src", "benches"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains(".pin_memory(") && !text.contains(".f_pin_memory("),
            "{}",
            file.display()
        );
    }
}
