//! Who may use whom: data flows one way. A module that reaches upwards fails here.
#![allow(clippy::unwrap_used)]

#[path = "common/imports.rs"]
mod imports;

use std::path::{Path, PathBuf};

/// room → the rooms that it may use, from the ground up: each may use only such as stand above it here, so that there is no
/// circle. Every file and folder of `src` is a room; `main.rs` and `lib.rs` alone are none.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("shapes", &[]),
    ("proc", &[]),
    ("screen", &["error"]),
    ("panics", &["error", "screen"]),
    ("yaml", &["error"]),
    ("fsutil", &["error", "yaml"]),
    ("benchmark", &["error", "panics", "fsutil", "yaml"]),
    ("llm", &["error", "screen", "fsutil"]),
    ("npy", &["error", "fsutil"]),
    ("progress", &["screen"]),
    ("ffi", &["error", "panics"]),
    ("cores", &["ffi", "screen"]),
    ("device", &["error", "ffi", "screen"]),
    ("dist", &["error", "fsutil", "screen", "proc", "cores", "ffi"]),
    ("metrics", &["error"]),
    ("run", &["error", "fsutil", "metrics"]),
    ("report", &["error", "fsutil", "benchmark", "metrics", "run"]),
    ("lock", &["error", "screen", "ffi", "dist", "run"]),
    ("audio", &["error", "shapes", "fsutil"]),
    ("text", &["error", "shapes", "fsutil", "panics", "screen"]),
    ("data", &["error", "shapes", "fsutil", "run", "audio", "text"]),
    ("model", &["error", "shapes", "fsutil", "ffi"]),
    ("optim", &["error", "ffi"]),
    ("checkpoint", &["error", "shapes", "fsutil", "panics", "screen"]),
    (
        "reference",
        &["error", "shapes", "fsutil", "yaml", "run", "model"],
    ),
    ("settings", &["error", "fsutil", "yaml", "model", "reference"]),
    (
        "load",
        &[
            "cores",
            "error",
            "fsutil",
            "checkpoint",
            "ffi",
            "model",
            "settings",
            "text",
        ],
    ),
    (
        "generate",
        &["error", "shapes", "proc", "ffi", "data", "text", "model", "load"],
    ),
    ("trace", &["error", "checkpoint", "data", "load", "model"]),
    ("synth", &["error", "shapes", "fsutil", "data"]),
    (
        "recipe",
        &[
            "error", "shapes", "run", "model", "generate", "optim", "synth", "data", "text",
        ],
    ),
    ("curriculum", &["error", "data", "recipe"]),
    (
        "recipe_file",
        &[
            "error",
            "fsutil",
            "yaml",
            "reference",
            "data",
            "recipe",
            "curriculum",
        ],
    ),
    (
        "plan",
        &[
            "error",
            "checkpoint",
            "data",
            "load",
            "model",
            "recipe",
            "curriculum",
            "recipe_file",
            "text",
        ],
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
        "doctor",
        &["error", "proc", "cores", "device", "ffi", "preflight"],
    ),
    (
        "train",
        &[
            "error",
            "shapes",
            "fsutil",
            "panics",
            "progress",
            "screen",
            "ffi",
            "dist",
            "run",
            "data",
            "text",
            "model",
            "optim",
            "checkpoint",
            "load",
            "recipe",
            "curriculum",
            "recipe_file",
            "plan",
            "preflight",
        ],
    ),
    (
        "eval",
        &[
            "error",
            "shapes",
            "screen",
            "fsutil",
            "progress",
            "benchmark",
            "llm",
            "dist",
            "metrics",
            "run",
            "data",
            "load",
            "generate",
            "text",
            "recipe",
        ],
    ),
    (
        "gpu_check",
        &[
            "doctor",
            "error",
            "shapes",
            "fsutil",
            "panics",
            "screen",
            "cores",
            "device",
            "ffi",
            "model",
            "optim",
            "checkpoint",
            "load",
            "plan",
            "recipe",
            "recipe_file",
            "text",
            "train",
            "generate",
            "dist",
            "report",
        ],
    ),
    (
        "serve",
        &[
            "error", "shapes", "panics", "screen", "cores", "ffi", "dist", "data", "text", "load", "generate",
        ],
    ),
    (
        "cli",
        &[
            "error",
            "benchmark",
            "llm",
            "shapes",
            "screen",
            "panics",
            "fsutil",
            "progress",
            "cores",
            "device",
            "ffi",
            "dist",
            "metrics",
            "npy",
            "run",
            "report",
            "lock",
            "audio",
            "text",
            "data",
            "model",
            "checkpoint",
            "reference",
            "load",
            "generate",
            "trace",
            "synth",
            "recipe",
            "curriculum",
            "recipe_file",
            "plan",
            "preflight",
            "train",
            "eval",
            "doctor",
            "gpu_check",
            "serve",
        ],
    ),
    (
        "prelude",
        &["error", "shapes", "data", "model", "load", "generate"],
    ),
];

/// Files that use each other, and why they may. Whoever reads one of a circle has to read all of it.
const CIRCLES: &[(&[&str], &str)] = &[
    (
        &["checkpoint/pickle.rs", "checkpoint/pickle/machine.rs"],
        "one parser in two files: the machine runs a pickle's instructions into the values that the other one hands out",
    ),
    (
        &["optim/adamw.rs", "optim/mod.rs"],
        "the one `match` over rules names each of them, and a rule moves the weights that the room hands it",
    ),
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

/// The code, without what is said about it.
fn code(text: &str) -> String {
    let lines = text.lines().map(|l| match l.find("//") {
        // Not within `https://`.
        Some(at) if !l[..at].ends_with(':') => &l[..at],
        _ => l,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The first names behind `crate::`, of each in `crate::{…}`, over as many lines as it takes.
fn uses(code: &str) -> Vec<String> {
    let first = |text: &str| -> String {
        let text = text.trim_start();
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.trim_start().strip_prefix('{') {
            None => names.push(first(rest)),
            Some(group) => {
                let (mut depth, mut begins) = (0, true);
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => begins = true,
                        c if begins && !c.is_whitespace() => {
                            names.push(first(&group[at..]));
                            begins = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    let room = |name: String| match name.as_str() {
        // The macros of `screen`, and what `lib.rs` hands on.
        "out" | "say" => "screen".to_owned(),
        "Error" | "Result" => "error".to_owned(),
        _ => name,
    };
    names.into_iter().map(room).collect()
}

/// The most rooms up that `super::super::…` leads in a text.
fn most_up(code: &str) -> usize {
    let mut most = 0;
    let mut rest = code;
    while let Some(at) = rest.find("super::") {
        rest = &rest[at..];
        let mut up = 0;
        while let Some(next) = rest.strip_prefix("super::") {
            (rest, up) = (next, up + 1);
        }
        most = most.max(up);
    }
    most
}

#[test]
fn data_flows_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let (mut entered, mut wrong) = (std::collections::BTreeSet::new(), Vec::new());
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        if ["lib.rs", "main.rs"].iter().any(|f| inside == Path::new(f)) {
            continue;
        }
        let parts: Vec<&str> = inside.iter().map(|p| p.to_str().unwrap()).collect();
        let room = parts[0].trim_end_matches(".rs");
        let shown = inside.display();
        let place = MAY_USE.iter().position(|(r, _)| *r == room);
        let place = place.unwrap_or_else(|| panic!("{shown}: the room {room} is not listed"));
        entered.insert(room.to_owned());
        let allowed = MAY_USE[place].1;
        let code = code(&std::fs::read_to_string(&file).unwrap());
        for name in uses(&code) {
            let fine = name == room || allowed.contains(&name.as_str());
            if !fine {
                wrong.push(format!("{shown} names crate::{name}; {room} may use {allowed:?}"));
            }
        }
        // Another way out of a room.
        let deep = parts.len() - usize::from(parts.last() == Some(&"mod.rs"));
        let (own, tests) = code.split_once("#[cfg(test)]\nmod ").unwrap_or((&code, ""));
        assert!(
            most_up(own) < deep && most_up(tests) <= deep,
            "{shown}: super:: leads out of the room {room}: write crate::"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (place, (room, allowed)) in MAY_USE.iter().enumerate() {
        assert!(entered.contains(*room), "{room}: no such room");
        for name in *allowed {
            let below = MAY_USE[..place].iter().any(|(r, _)| r == name);
            assert!(below, "{room} may use {name}, which does not stand above it");
        }
    }
}

#[test]
fn files_use_each_other_one_way() {
    let uses = imports::between_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let arrows: usize = uses.values().map(|to| to.len()).sum();
    assert!(arrows > 1000, "only {arrows} found");
    let found = imports::circles(&uses);
    for circle in &found {
        let within = |file: &String| {
            let to = uses[file].iter().filter(|to| circle.contains(to));
            format!("{file} uses {}", to.cloned().collect::<Vec<_>>().join(", "))
        };
        assert!(
            CIRCLES.iter().any(|(files, _)| files == circle),
            "files in a circle: give what both need a file of its own, or an argument\n{}",
            circle.iter().map(within).collect::<Vec<_>>().join("\n")
        );
    }
    for (files, _) in CIRCLES {
        assert!(found.iter().any(|c| c == files), "no circle any more: {files:?}");
    }
}

/// In a crate made for it: what is handed on is followed to its file; what only hands on, says or tests is in no circle.
#[test]
fn circles_are_found_behind_what_is_handed_on() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "pub mod room;\npub mod alone;\npub use room::One;");
    write(
        "room/mod.rs",
        "mod one;\nmod two;\nmod three;\npub use one::One;\npub use three::{help, three};\nfn one(three: u8) {}",
    );
    write(
        "room/one.rs",
        "use super::two;\npub struct One;\nfn f() { two::go::<u8>() }",
    );
    write(
        "room/two.rs",
        "pub fn go() { let a: crate::One; super::help('\"', \"'\") }",
    );
    write(
        "room/three.rs",
        "// use super::two::go;\npub fn help() {}\npub fn three() { \"super::two::go()\" }\n#[cfg(test)]\nmod tests {\n    use super::super::two::go;\n}",
    );
    write(
        "alone.rs",
        "use crate::room::{self, three as other};\nfn f() { room::help() }",
    );
    let uses = imports::between_files(folder.path());
    let of = |file: &str| uses[file].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("room/two.rs"), ["room/one.rs", "room/three.rs"]);
    assert_eq!(of("alone.rs"), ["room/three.rs"]);
    assert_eq!(of("room/mod.rs"), [""; 0]);
    assert_eq!(imports::circles(&uses), [["room/one.rs", "room/two.rs"]]);
    write(
        "room/three.rs",
        "use super::one as first;\npub fn help(_: first::One) {}",
    );
    let uses = imports::between_files(folder.path());
    let all = ["room/one.rs", "room/three.rs", "room/two.rs"];
    assert_eq!(imports::circles(&uses), [all]);
}

/// What hides an arrow: a method of another room's type is called without naming the room that has it.
#[test]
fn a_type_has_its_methods_in_its_own_room() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let room_of = |file: &Path| -> String {
        let inside = file.strip_prefix(&src).unwrap();
        let first = inside.iter().next().unwrap().to_str().unwrap();
        first.trim_end_matches(".rs").to_owned()
    };
    let name = |text: &str| -> String {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|f| (room_of(f), code(&std::fs::read_to_string(f).unwrap())))
        .collect();
    let mut types = std::collections::BTreeSet::new();
    for (room, text) in &texts {
        for word in ["struct ", "enum "] {
            types.extend(text.split(word).skip(1).map(|rest| (room.clone(), name(rest))));
        }
    }
    let mut seen = 0;
    for (room, text) in &texts {
        for line in text
            .lines()
            .map(str::trim_start)
            .filter(|l| l.starts_with("impl"))
        {
            let head = line.split('{').next().unwrap_or_default();
            if head.contains(" for ") || head.contains(" Fn") {
                continue;
            }
            // Behind `impl` and what stands in `<…>` next to it.
            let own = match head.strip_prefix("impl<") {
                Some(rest) => rest.split_once("> ").map_or("", |(_, own)| own),
                None => head.strip_prefix("impl ").unwrap_or_default(),
            };
            let own = name(own.trim_start());
            if own.is_empty() {
                continue;
            }
            seen += 1;
            assert!(
                types.contains(&(room.clone(), own.clone())),
                "{room} has methods of {own}, which is another room's type"
            );
        }
    }
    assert!(seen > 100, "only {seen} found");
}

#[test]
fn groups_and_uses_over_several_lines_are_read() {
    let text = "use crate::{\n    run::{self, events::Event},\n    Error,\n    text,\n};\nuse crate::\n    data::x;\n\
                // use crate::train;\nlet a = \"https://x\"; crate::say!(); crate::plan::of(crate::model::B)";
    let mut found = uses(&code(text));
    found.sort_unstable();
    let expected = ["data", "error", "model", "plan", "run", "screen", "text"];
    assert_eq!(found, expected);
    assert_eq!(most_up("use super::super::a; super::b"), 2);
}

#[test]
fn rooms_of_plain_values_touch_no_tensor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for module in ["benchmark", "llm", "metrics", "report", "run"] {
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

/// What goes to other threads although the compiler cannot see that it may: each says why where it stands.
#[test]
fn what_is_sent_to_other_threads_on_our_word_is_known() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut sent = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap().display().to_string();
        let code = code(&std::fs::read_to_string(&file).unwrap());
        let impls = code
            .lines()
            .map(str::trim_start)
            .filter(|l| l.starts_with("unsafe impl"));
        sent.extend(impls.map(|l| format!("{inside}: {}", l.trim_end_matches(" {}"))));
    }
    sent.sort_unstable();
    assert_eq!(
        sent,
        [
            "ffi/c10d.rs: unsafe impl Send for ProcessGroup",
            "ffi/c10d.rs: unsafe impl Send for Store",
            "ffi/c10d.rs: unsafe impl Sync for ProcessGroup",
            "ffi/c10d.rs: unsafe impl Sync for Store",
            "ffi/kernels.rs: unsafe impl Send for Mark",
        ]
    );
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

/// Code whose strings or names hold `word`, in small letters, but for tests.
fn naming(word: &str) -> Vec<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let holds = |file: &PathBuf| {
        let code = code(&std::fs::read_to_string(file).unwrap());
        let own = code.split("#[cfg(test)]\nmod ").next().unwrap();
        own.to_lowercase().contains(word)
    };
    let mut named: Vec<String> = files
        .iter()
        .filter(|f| holds(f) && !f.ends_with("tests.rs"))
        .map(|f| f.strip_prefix(&src).unwrap().display().to_string())
        .collect();
    named.sort_unstable();
    named
}

/// A further encoder is a file of `model/audio` and its lines in `mod.rs` there.
#[test]
fn an_audio_encoder_is_named_where_it_is_owned() {
    let outside: Vec<String> = naming("htsat")
        .into_iter()
        .filter(|f| !f.starts_with("model/audio/"))
        .collect();
    let expected = [
        // Models of its own to check, and what their rows are called.
        "gpu_check/attention.rs",
        "gpu_check/made.rs",
        "gpu_check/modules.rs",
        "gpu_check/speed.rs",
        // The key in files.
        "model/flamingo.rs",
    ];
    assert_eq!(outside, expected);
}

/// Which part a weight belongs to is asked of `Part::of`.
#[test]
fn names_of_weights_are_known_in_two_places() {
    let expected = ["checkpoint/names.rs", "model/flamingo.rs", "model/parts.rs"];
    for word in ["gated_cross_attn", "audio_transformer_clap", "\"clap.\""] {
        let unknown: Vec<String> = naming(word)
            .into_iter()
            .filter(|f| !expected.contains(&f.as_str()))
            .collect();
        assert_eq!(unknown, [""; 0], "{word}");
    }
}
