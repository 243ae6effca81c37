//! What a recipe's values may be: ranges of all numbers, spellings, names and paths; and that all that is wrong is told at once.
#![allow(clippy::unwrap_used)]

mod common;

use af2::curriculum;
use af2::recipe::{ranges, Precision, Recipe, DEMO};
use af2::recipe_file;
use af2::settings::Settings;
use af2::Error;
use common::{af2, af2_in};
use serde_yaml::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Makes every key of the demo's recipe one that is there.
const FULL: &[&str] = &[
    "train.peak_tflops=312",
    "eval.limit=5",
    "eval.memory=8000000000",
    "lm.optim.global_batch=32",
    "lm.optim.schedule_steps=600",
    "clap.optim.global_batch=24",
    "clap.optim.schedule_steps=600",
    "stages.stage1.batch_budget={windows: 30, tokens: 4000, items: 64, multiple: 4}",
    "stages.stage2.optim.global_batch=24",
    "stages.stage2.optim.schedule_steps=450",
];

fn demo(changes: &[&str]) -> Result<Recipe, Error> {
    let changes: Vec<String> = FULL.iter().chain(changes).map(|c| (*c).to_owned()).collect();
    recipe_file::demo(&changes)
}

/// The demo with lines replaced, as a file.
fn file(changes: &[(&str, &str)]) -> Result<Recipe, Error> {
    let text = changes.iter().fold(DEMO.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    });
    recipe_file::parse(&text, "r.yaml", &[])
}

/// Errors one by one.
fn told(result: Result<Recipe, Error>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(Error::Many(all)) => all.iter().map(Error::to_string).collect(),
        Err(e) => vec![e.to_string()],
    }
}

/// Paths of all values of a recipe; a stage is `*`, and so is the name of a set.
fn keys(value: &Value, path: &str, all: &mut BTreeSet<String>, nothing: &mut BTreeSet<String>) {
    let below = |part: &str| match path {
        "" => part.to_owned(),
        _ => format!("{path}.{part}"),
    };
    all.insert(path.to_owned());
    match value {
        Value::Mapping(map) => {
            for (key, value) in map {
                let named = path.ends_with("sets");
                let part = if named { "*" } else { key.as_str().unwrap() };
                keys(value, &below(part), all, nothing);
            }
        }
        Value::Sequence(list) => list.iter().for_each(|v| keys(v, &below("*"), all, nothing)),
        Value::Null => {
            nothing.insert(path.to_owned());
        }
        _ => {}
    }
}

#[test]
fn every_number_has_a_range_and_no_value_passes_it() {
    let full = demo(&[]).unwrap();
    // What no value stands for here is no number.
    let (mut all, mut nothing) = (BTreeSet::new(), BTreeSet::new());
    keys(&serde_yaml::to_value(&full).unwrap(), "", &mut all, &mut nothing);
    let elsewhere = [
        "stages.*.optim.global_batch",
        "stages.*.optim.schedule_steps",
        "stages.*.optim.groups.gates.weight_decay",
        "stages.*.optim.groups.gates.betas",
        "stages.*.batch_budget",
    ];
    let texts = [
        "model.checkpoint",
        "model.lm",
        "model.clap",
        "model.base",
        "data.root",
        "stages.*.from",
    ];
    let known: BTreeSet<String> = elsewhere.iter().chain(&texts).map(|k| (*k).to_owned()).collect();
    assert_eq!(nothing, known);

    let numbers = ranges::numbers(&full);
    assert!(numbers.len() > 90, "{}", numbers.len());
    let mut refused = 0;
    for (path, _) in &numbers {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        assert!(ranges::range_of(&parts).is_some(), "{path:?} has no range");
        for value in [
            ".nan",
            ".inf",
            "-.inf",
            "-1",
            "0",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "1e300",
            "-1e300",
            "1e-300",
            "0.5",
        ] {
            // Elements of lists are reached by their numbers, which a name of only digits is.
            let change = format!("{}={value}", path.join("."));
            let read = std::panic::catch_unwind(|| demo(&[&change]));
            match read.unwrap_or_else(|_| panic!("{change}")) {
                Err(e) => {
                    assert!([2, 4].contains(&e.exit_code()), "{change}: {e}");
                    let said = e.to_string();
                    let key = path.last().unwrap();
                    assert!(
                        said.contains(key.as_str()) && said.len() < 4000,
                        "{change}: {said}"
                    );
                    refused += 1;
                }
                Ok(recipe) => {
                    for (path, number) in ranges::numbers(&recipe) {
                        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
                        let range = ranges::range_of(&parts).unwrap();
                        assert!(range.holds(number.as_f64().unwrap()), "{change}: {path:?}");
                    }
                }
            }
        }
    }
    assert!(refused > 8 * numbers.len(), "{refused} of {}", numbers.len());
}

#[test]
fn numbers_that_ended_in_an_abort_are_refused_by_name() {
    for (change, said) in [
        (
            "stages.stage1.sets.counting=1.0e9",
            "stages.stage1.sets.counting: 1000000000 is not from 1e-5 to 1000",
        ),
        (
            "data.global_weight=1.0e-8",
            "data.global_weight: 1e-8 is not from 1e-5 to 1000",
        ),
        (
            "corpus.scenes=18446744073709551000",
            "corpus.scenes: 18446744073709551000 is not from 0 to 1000000",
        ),
        (
            "train.loss_chunk=18446744073709551000",
            "train.loss_chunk: 18446744073709551000 is not",
        ),
        (
            "corpus.val_fraction=.nan",
            "corpus.val_fraction: NaN is not from 0 to 0.5",
        ),
        ("corpus.test_fraction=-0.1", "corpus.test_fraction: -0.1 is not"),
    ] {
        let e = demo(&[change]).unwrap_err();
        assert_eq!(e.exit_code(), 4, "{e}");
        assert!(e.to_string().contains(said), "{change}: {e}");
    }
    // Each alone is possible.
    for (changes, said) in [
        (
            &["data.global_weight=1e-3", "stages.stage1.sets.counting=1e-3"][..],
            "passes over the set in an epoch",
        ),
        (
            &["data.global_weight=500", "stages.stage1.sets.counting=3"],
            "passes over the set in an epoch",
        ),
        (
            &["corpus.scenes=600000", "corpus.long=600000"],
            "1000000 are the most",
        ),
        (
            &["corpus.val_fraction=0.5", "corpus.test_fraction=0.5"],
            "nothing is left to train on",
        ),
        (
            &[
                "stages.stage3.optim.batch_size=1000000",
                "stages.stage3.optim.accumulate=1000000",
            ],
            "items of a rank in one step",
        ),
        (
            &[
                "lm.hidden_size=32768",
                "lm.layers=512",
                "lm.intermediate_size=262144",
            ],
            "weights by its sizes",
        ),
        (
            &[
                "clap.audio.embed_dim=8192",
                "clap.audio.depths=[256, 256, 256, 256]",
            ],
            "weights by its sizes",
        ),
    ] {
        let e = demo(changes).unwrap_err();
        assert_eq!(e.exit_code(), 4, "{e}");
        assert!(e.to_string().contains(said), "{changes:?}: {e}");
    }
}

#[test]
fn a_list_in_the_place_of_a_mapping_is_refused_wherever_there_is_one() {
    let full = serde_yaml::to_value(demo(&[]).unwrap()).unwrap();
    let mut mappings = Vec::new();
    fn find(value: &Value, path: &str, mappings: &mut Vec<String>) {
        match value {
            Value::Mapping(map) => {
                mappings.push(path.to_owned());
                for (key, value) in map {
                    find(value, &format!("{path}.{}", key.as_str().unwrap()), mappings);
                }
            }
            Value::Sequence(list) => {
                for (i, value) in list.iter().enumerate() {
                    find(value, &format!("{path}.{i}"), mappings);
                }
            }
            _ => {}
        }
    }
    find(&full, "", &mut mappings);
    assert!(mappings.len() > 25, "{mappings:?}");
    for path in mappings.iter().filter_map(|p| p.strip_prefix('.')) {
        for list in ["[]", "[2, 3, 5, false]", "[a]"] {
            let change = format!("{path}={list}");
            let e = demo(&[&change]).unwrap_err();
            let said = e.to_string();
            assert!(said.contains("a list, expected a mapping"), "{change}: {said}");
            assert_eq!(e.exit_code(), 2, "{said}");
        }
    }
    // In a file.
    let e = file(&[(
        "  audio_transformer: {n_head: 2, n_layers: 3, d_inner: 256}",
        "  audio_transformer: [2, 3, 256]",
    )]);
    let e = e.unwrap_err();
    assert_eq!(e.exit_code(), 4);
    assert!(
        e.to_string()
            .contains("each value stands behind its key: `n_head`"),
        "{e}"
    );
}

#[test]
fn a_list_is_no_question() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("questions.jsonl");
    std::fs::write(&path, "[\"a.wav\", \"what?\"]\n").unwrap();
    let path = path.display().to_string();
    let (code, _, err) = af2(&["generate", "--checkpoint", "x", "--input", &path]);
    assert!(
        code == 6 && err.contains("line 1") && err.contains("found a list"),
        "{code} {err}"
    );
}

#[test]
fn weights_that_make_no_epoch_of_these_manifests_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let line = "{\"name\": \"a.wav\", \"prompt\": \"what?\", \"output\": \"a dog\"}\n";
    std::fs::create_dir_all(folder.path().join("A-AQA")).unwrap();
    let write =
        |items: usize| std::fs::write(folder.path().join("A-AQA/train.jsonl"), line.repeat(items)).unwrap();
    let text = format!(
        "name: x\noutput: out\nmodel: {{}}\ndata: {{root: '{}', sets: {{a: A-AQA/train.jsonl}}}}\nstages:\n  - name: one\n    \
         train: [cross_attention]\n    windows: 1\n    sets: {{a: 1}}\n    \
         optim: {{steps: 1, batch_size: 1, learning_rate: 0}}\n",
        folder.path().display()
    );
    let blend = |change: &str| {
        let recipe = recipe_file::parse(&text, "r.yaml", &[change.to_owned()]).unwrap();
        curriculum::blend(&recipe, &recipe.stages[0], None)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    write(20);
    for change in [
        "data.global_weight=1",
        "data.global_weight=0.005",
        "stages.one.sets.a=1000",
    ] {
        blend(change).unwrap();
    }
    let e = blend("data.global_weight=1e-5").unwrap_err();
    assert!(
        e.contains("stages.one.sets: ") && e.contains("epochs of 0.0002 items"),
        "{e}"
    );
    write(300_000);
    let e = blend("stages.one.sets.a=1000").unwrap_err();
    assert!(e.contains("epochs of 300000000.0 items"), "{e}");
}

#[test]
fn weights_of_the_references_own_file_have_the_same_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pretrain.yaml");
    let read = |all: &str, one: &str| {
        let text = format!(
            "data_config:\n  dataset_blending_global_weight: {all}\n  dataset_blending_config:\n    A-AQA/train: {{weight: {one}}}\n"
        );
        std::fs::write(&path, text).unwrap();
        af2::reference::Blending::read(&path)
    };
    assert!(read("0.005", "2.0").unwrap().is_some());
    assert!(read("0.005", "'2.5'").unwrap().is_some());
    for (all, one) in [
        ("1", "1.0e9"),
        ("1e300", "1"),
        ("1", "-1"),
        ("1", ".nan"),
        ("1", ".inf"),
        ("100", "100"),
        ("1", "nan"),
        ("1", "[1]"),
    ] {
        let e = read(all, one).unwrap_err();
        assert!(
            e.exit_code() == 4 && e.to_string().contains("weight"),
            "{all} {one}: {e}"
        );
    }
}

#[test]
fn nesting_and_aliases_without_end_are_refused_at_every_door() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep.yaml");
    let mut laughs = String::from("a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]\n");
    for i in 1..10 {
        laughs.push_str(&format!("a{i}: &a{i} [{}]\n", format!("*a{}, ", i - 1).repeat(8)));
    }
    for text in [
        format!("a: {}", "[".repeat(100_000)),
        format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000)),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
        (0..1000).map(|i| " ".repeat(i) + "a:\n").collect(),
        laughs,
    ] {
        std::fs::write(&path, &text).unwrap();
        let start = &text[..text.len().min(20)];
        let recipe = recipe_file::load(&path, &[]).unwrap_err();
        let settings = Settings::read(&path).unwrap_err();
        for e in [recipe, settings] {
            let said = e.to_string();
            assert_eq!(e.exit_code(), 4, "{start}: {said}");
            assert!(
                said.contains("deep.yaml:") && said.len() < 1000,
                "{start}: {said}"
            );
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_no_recipe_is_neither_read_nor_a_base() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let fifo = at("fifo");
    assert!(std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap()
        .success());
    std::fs::write(at("empty.yaml"), "").unwrap();
    std::fs::write(at("comments.yaml"), "# nothing\n---\n").unwrap();
    std::fs::write(at("list.yaml"), "- a\n- b\n").unwrap();
    std::fs::write(at("text.yaml"), "just words\n").unwrap();
    std::fs::write(at("null.yaml"), "~\n").unwrap();
    std::fs::write(at("large.yaml"), "#".repeat(5 << 20)).unwrap();
    std::fs::write(at("binary.yaml"), b"\x7fELF\x02\x01\x01\0\xff").unwrap();
    std::fs::write(
        at("passwd"),
        "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(at("other.yaml"), "services: {web: {image: x}}\n").unwrap();
    for (path, said) in [
        (fifo.as_path(), "found a pipe"),
        (Path::new("/dev/zero"), "found a device"),
        (Path::new("/dev/null"), "found a device"),
        (folder.path(), "found a folder"),
        (&at("empty.yaml"), "nothing stands in it"),
        (&at("comments.yaml"), "nothing stands in it"),
        (&at("null.yaml"), "nothing stands in it"),
        (&at("list.yaml"), "found a list"),
        (&at("text.yaml"), "found a plain value"),
        (&at("passwd"), "found a plain value"),
        (&at("large.yaml"), "at most 1048576 bytes"),
        (&at("binary.yaml"), "0xff"),
        (&at("other.yaml"), "unknown field `services`"),
        (&at("gone.yaml"), "No such file"),
    ] {
        let alone = recipe_file::load(path, &[]).unwrap_err().to_string();
        assert!(alone.contains(said), "{}: {alone}", path.display());
        let over = at("over.yaml");
        std::fs::write(&over, format!("base: {}\n{DEMO}", path.display())).unwrap();
        let below = recipe_file::load(&over, &[]).unwrap_err().to_string();
        assert!(below.contains(said), "base: {}: {below}", path.display());
    }
}

#[test]
fn a_spelling_is_read_right_or_named() {
    let rate = "learning_rate: 4.0e-4, groups: {gates: {match: \"*_gate\", rate: 20}}";
    let steps = "steps: 800";
    // Read right.
    for (from, to, key, value) in [
        (rate, "learning_rate: 4e-4", "learning_rate", 4e-4),
        (rate, "learning_rate: 4.e-4", "learning_rate", 4e-4),
        (rate, "learning_rate: 4E-4", "learning_rate", 4e-4),
        (rate, "learning_rate: .0004", "learning_rate", 4e-4),
        (rate, "learning_rate: +0.0004", "learning_rate", 4e-4),
        (steps, "steps: 0x320", "steps", 800.0),
        (steps, "steps: 0o1440", "steps", 800.0),
        (steps, "\"steps\": 800", "steps", 800.0),
        (steps, "steps: !!int 800", "steps", 800.0),
    ] {
        let recipe = file(&[(from, to)]).unwrap_or_else(|e| panic!("{to}: {e}"));
        let optim = serde_yaml::to_value(&recipe.stages[0].optim).unwrap();
        assert_eq!(optim[key].as_f64(), Some(value), "{to}");
    }
    for text in [
        format!("\u{feff}{DEMO}"),
        DEMO.replace('\n', "\r\n"),
        format!("--- # one\n{DEMO}...\n"),
    ] {
        assert_eq!(recipe_file::parse(&text, "r.yaml", &[]).unwrap().seed, 1);
    }
    // UTF-16, as an editor of another system saves it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.yaml");
    for swap in [u16::to_le_bytes, u16::to_be_bytes] {
        let units = format!("\u{feff}{DEMO}");
        let bytes: Vec<u8> = units.encode_utf16().flat_map(swap).collect();
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(recipe_file::load(&path, &[]).unwrap().name, "demo");
    }
    // Named, at its line.
    for (from, to, said) in [
        (
            rate,
            "learning_rate: \"4e-4\"",
            "in quotation marks it is a text: write 4e-4",
        ),
        (rate, "learning_rate: '4e-4'", "in quotation marks"),
        (
            "  max_windows: 9",
            "  max_windows: 1,0",
            "write 10 or 1.0: a comma is neither",
        ),
        (rate, "learning_rate: 4e-4f", "a number"),
        (rate, "learning_rate: 4 e-4", "a number"),
        (rate, "learning_rate: four", "expected a number"),
        (
            rate,
            "learning_rate: ~",
            "invalid type: nothing, expected a number",
        ),
        (rate, "learning_rate: .inf", "inf is not from 0 to 1e38"),
        (steps, "steps: 010", "write 10, or 8 if octal was meant"),
        (steps, "steps: 1_000", "write 1000"),
        (steps, "steps: 1,000", "steps"),
        (steps, "steps: 1e3", "write 1000, without a point"),
        (steps, "steps: 800.0", "write 800, without a point"),
        (steps, "steps: 8e2.5", "a whole number"),
        (steps, "steps: -800", "-800"),
        (steps, "steps:800", "steps"),
        (steps, "Steps: 800", "did you mean `steps`"),
        (
            steps,
            "steps: 800, steps: 900",
            "duplicate entry with key `steps`",
        ),
        (
            steps,
            "steps: !!python/object:int 800",
            "a tag that does not belong here",
        ),
        (steps, "steps: !!float many", "expected a whole number"),
        (steps, "<<: {steps: 800}", "keys are not merged"),
        ("  silence_control: true", "  silence_control: yes", "write true"),
        ("  silence_control: true", "  silence_control: On", "write true"),
        ("  silence_control: true", "  silence_control: 1", "write true"),
        (
            "  silence_control: true",
            "  silence_control: 'true'",
            "without quotation marks",
        ),
        (
            "  silence_control: true",
            "\tsilence_control: true",
            "not with tabs",
        ),
        (
            "    train: [clap,",
            "    train: !!python/tuple [clap,",
            "`!!python/tuple`: a tag",
        ),
        (
            "  max_windows: 9",
            "  max_windows: nine",
            "expected a whole number",
        ),
        (
            "  max_windows: 9",
            "  max_windows: 9\n  max_windows: 8",
            "it stands in r.yaml:",
        ),
        ("  sets: [captions]", "  sets: captions", "[captions]"),
        ("eval:", "---\neval:", "a second document"),
        (
            "  max_windows: 9",
            "  max_windows: {a: ${HOME}/b}",
            "the braces of `${…}` are YAML's own here",
        ),
        (
            "name: demo",
            "name: demo\n\u{1b}[2Jx: 1",
            "does not stand in a YAML file",
        ),
        ("name: demo", "name: [demo]", "name: "),
    ] {
        let all = told(file(&[(from, to)]));
        let e = all.first().unwrap_or_else(|| panic!("{to} is taken"));
        assert!(e.starts_with("r.yaml:"), "{to}: {e}");
        assert!(all.iter().any(|e| e.contains(said)), "{to}: {all:#?}");
    }
}

#[test]
fn what_a_shell_would_replace_in_a_path_is_refused() {
    for (key, value) in [
        ("output", "${HOME}/run"),
        ("output", "$SCRATCH/run"),
        ("output", "~/run"),
        ("output", "~ann/run"),
        ("data.root", "${HOME}/data"),
        ("data.sets.counting", "$SETS/train.json"),
        ("model.checkpoint", "~/af2"),
        ("model.lm", "${MODELS}/Qwen2.5-3B"),
        ("model.clap", "$CLAP"),
        ("stages.stage2.from", "$HOME/checkpoint_1.pt"),
    ] {
        let e = demo(&[&format!("{key}={value}")]).unwrap_err();
        let said = e.to_string();
        assert!(
            said.contains("is not replaced by") && said.contains(&format!("{key}: `{value}`")),
            "{said}"
        );
    }
    let e = recipe_file::parse("base: $HOME/r.yaml\nname: x\n", "r.yaml", &[])
        .unwrap_err()
        .to_string();
    assert!(e.contains("`$HOME` is not replaced"), "{e}");
    // What no reader of paths replaces in the same way is taken, with a word.
    let recipe = demo(&["data.root=${WAVS%/wavs}"]).unwrap();
    assert!(
        recipe.notes[0].contains("`${WAVS%/wavs}` is taken as it is written"),
        "{:?}",
        recipe.notes
    );
    assert!(demo(&["data.root=a/~b/c~"]).unwrap().notes.is_empty());
}

#[test]
fn names_and_paths_do_not_steer_a_terminal() {
    for (from, to) in [
        ("name: demo", "name: \"a\\e[31mb\""),
        ("name: demo", "name: \"a\\rb\""),
        ("name: demo", "name: \"a\\nerror: b\""),
        ("name: demo", "name: \"a\\u202Eb\""),
        ("name: demo", "name: \"\""),
        ("name: stage1 ", "name: \"st\\x9b2Jage\" "),
        ("output: experiments/demo", "output: \"x\\e]0;y\\a\""),
        ("output: experiments/demo", "output: \"x\\0y\""),
        ("device: auto", "device: \"\\e[31m\""),
        ("device: auto", "device: gpu"),
        (
            "    classification: manifests",
            "    \"\\bclassification\": manifests",
        ),
    ] {
        let e = file(&[(from, to)]).unwrap_err();
        assert_eq!(e.exit_code(), 4, "{to}: {e}");
    }
    let folder = tempfile::tempdir().unwrap();
    let text = DEMO.replace("name: demo", "\"na\\e[31mme\": x\nname: \"a\\e[31mb\"\n");
    std::fs::write(folder.path().join("r\u{1b}[31m.yaml"), text).unwrap();
    let (_, _, err) = af2_in(folder.path(), &["recipe", "check", "r\u{1b}[31m.yaml"]);
    assert!(!err.contains('\u{1b}') && err.contains("\\u{1b}[31m"), "{err:?}");
}

#[test]
fn what_is_wrong_in_the_files_the_types_the_ranges_and_together_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let base = DEMO.replace(
        "  max_tokens: 64",
        "  max_tokens: 64\n  max_tokens: 65\n  ahed: 3",
    );
    std::fs::write(folder.path().join("base.yaml"), base).unwrap();
    let over = "base: base.yaml\nname: !mine over\nmodel: {max_windows: 7}\ntrain: {timeout: soon, loss_chunk: -1}\n\
        data: {skip_budget: 2}\nstages:\n  stage1: {optim: {steps: many, clip: 0}, cache_features: yes}\n  \
        stage2: {clip_at: micro_step, from: stage3}\n  stage9: {windows: 1}\neval: {sets: [test_count]}\n";
    std::fs::write(folder.path().join("over.yaml"), over).unwrap();
    let load = |changes: &[&str]| {
        let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        told(recipe_file::load(&folder.path().join("over.yaml"), &changes))
    };
    let all = load(&[
        "x",
        "lm.heads=three",
        "lm.layers=0",
        "seed=1=2",
        "stages.stage4.windows=2",
    ]);
    for said in [
        "command line: x: expected key=value",
        "command line: lm.heads=three: ",
        "command line: lm.layers=0: lm.layers: 0 is not from 1 to",
        "command line: seed=1=2: ",
        "no element `stage4`",
        "duplicate entry with key `max_tokens`",
        "unknown field `ahed`",
        "`!mine`: a tag",
        "stages.stage3.windows: 9 windows",
        "train.timeout: invalid type",
        "train.loss_chunk: invalid value: integer `-1`",
        "data.skip_budget: 2 is not from 0 to 1",
        "stages[0].optim.steps: invalid type",
        "stages.stage1.optim.clip: 0 is not from above 0",
        "write true",
        "stages.stage2.clip_at: micro_step",
        "stages.stage2.from: `stage3` does not come before it",
        "no element is named `stage9`",
        "eval.sets: no set `test_count` in data.sets",
        "eval.windows: 9 windows",
    ] {
        let found = all.iter().filter(|e| e.contains(said)).count();
        assert_eq!(found, 1, "`{said}` in {all:#?}");
    }
    assert_eq!(all.len(), 20, "{all:#?}");
    // What follows from another fault is not told: of max_windows nothing is known then.
    let all = load(&["model.max_windows=few", "data.sets=[]"]);
    assert!(
        !all.iter()
            .any(|e| e.contains("windows of 10 s") || e.contains("no set")),
        "{all:#?}"
    );
    // Nor what a base that cannot be read would have said.
    std::fs::remove_file(folder.path().join("base.yaml")).unwrap();
    let all = load(&[]);
    assert!(
        all.iter().any(|e| e.contains("base: ")) && all.iter().any(|e| e.contains("write true")),
        "{all:#?}"
    );
    assert!(!all.iter().any(|e| e.contains("missing field")), "{all:#?}");
}

#[test]
fn a_command_line_that_cannot_be_understood_ends_with_2() {
    for (change, code) in [
        ("steps", 2),
        ("=3", 2),
        ("stages..windows=3", 2),
        ("stages.0.steps=100", 2),
        ("stages.9.windows=3", 2),
        ("stages.stage1.optim.stepss=3", 2),
        ("seed.x=3", 2),
        ("lm.heads=many", 2),
        ("lm.heads=[", 2),
        ("lm.heads=!x 3", 2),
        ("train=[1]", 2),
        ("stages.stage1.clap_mode=trian", 2),
        // Understood, and no recipe for all that.
        ("lm.heads=0", 4),
        ("stages.stage1.windows=30", 4),
        ("stages.stage2.from=stgae1", 4),
        ("clap.sets=[caption]", 4),
    ] {
        let e = demo(&[change]).unwrap_err();
        assert_eq!(e.exit_code(), code, "{change}: {e}");
        assert!(
            e.to_string().contains("command line: ") && e.to_string().contains(change),
            "{change}: {e}"
        );
    }
    let demo = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("recipes/demo.yaml")
        .display()
        .to_string();
    for arguments in [
        &["train"][..],
        &["recipe", "check"],
        &["nothing"],
        &["recipe", "show", &demo, "stages.0.steps=3"],
        &["generate", "--checkpoint", "x", "--prompt", "what?"],
        &["data", "blend", &demo, "--rank", "2", "--world", "2"],
        &["data", "blend", &demo, "--stage", "stage7"],
        &["checkpoint", "verify", "x", "--model", "af2-3bb"],
        &["recipe", "import", &demo, "--ranks", "0"],
    ] {
        let (code, _, err) = af2(arguments);
        // `verify` looks at the file first.
        let codes = if arguments[0] == "checkpoint" {
            &[2, 3][..]
        } else {
            &[2]
        };
        assert!(codes.contains(&code), "{arguments:?}: {code} {err}");
    }
}

/// The string literals of a source file.
fn literals(code: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut rest = code.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => {
                rest.by_ref().find(|c| *c == '\n');
            }
            // A char, but no lifetime.
            '\'' => {
                let ahead: Vec<char> = rest.clone().take(3).collect();
                match ahead.as_slice() {
                    ['\\', ..] => {
                        rest.next();
                        rest.next();
                        rest.by_ref().find(|c| *c == '\'');
                    }
                    [_, '\'', ..] => {
                        rest.next();
                        rest.next();
                    }
                    _ => {}
                }
            }
            '"' => {
                let mut literal = String::new();
                while let Some(c) = rest.next() {
                    match c {
                        '"' => break,
                        '\\' => {
                            rest.next();
                            literal.push(' ');
                        }
                        c => literal.push(c),
                    }
                }
                all.push(literal);
            }
            _ => {}
        }
    }
    all
}

/// Dotted keys that a text names, with what stands behind `=`.
fn named(text: &str) -> Vec<(String, Option<String>)> {
    const SECTIONS: [&str; 12] = [
        "stages",
        "model",
        "data",
        "train",
        "eval",
        "corpus",
        "lm",
        "clap",
        "optim",
        "save",
        "batch_budget",
        "clap_train",
    ];
    let inside = |c: char| c.is_ascii_alphanumeric() || "_.{}*".contains(c);
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find(inside).map(|i| at + i) {
        let end = text[start..]
            .find(|c| !inside(c))
            .map_or(text.len(), |i| start + i);
        at = end;
        let word = text[start..end].trim_end_matches(['.', '{', '}']);
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        // Parts of paths and of other programs' names.
        if before.is_some_and(|c| "/-<".contains(c)) || after.is_some_and(|c| "/-(".contains(c)) {
            continue;
        }
        let first = word.split('.').next().unwrap_or_default();
        if word.contains('.') && SECTIONS.contains(&first) {
            let value = text[start + word.len()..].strip_prefix('=').map(|rest| {
                let end = rest.find(|c: char| c.is_whitespace() || "`,;:\"…)".contains(c));
                rest[..end.unwrap_or(rest.len())].to_owned()
            });
            all.push((word.to_owned(), value.filter(|v| !v.is_empty())));
        }
    }
    all
}

#[test]
fn every_key_that_a_message_or_a_page_names_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let full = serde_yaml::to_value(demo(&[]).unwrap()).unwrap();
    let (mut all, mut nothing) = (BTreeSet::new(), BTreeSet::new());
    keys(&full, "", &mut all, &mut nothing);
    let known = |word: &str| {
        let mut parts: Vec<&str> = word.split('.').collect();
        // What a message puts in: of a stage its name, elsewhere any key.
        let open = parts
            .iter()
            .enumerate()
            .position(|(i, p)| p.contains('{') && !(i == 1 && parts[0] == "stages"));
        parts.truncate(open.unwrap_or(parts.len()));
        let own = ["optim", "save", "batch_budget", "clap_train"];
        if own.contains(&parts[0]) {
            parts.splice(0..0, ["stages", "*"]);
        }
        if parts[0] == "stages" && parts.len() > 1 {
            parts[1] = "*";
        }
        if let Some(at) = parts
            .iter()
            .position(|p| *p == "sets")
            .filter(|at| at + 1 < parts.len())
        {
            parts[at + 1] = "*";
        }
        all.contains(&parts.join("."))
    };
    // Files and tensors.
    let other = |word: &str| {
        let ends = [
            "json",
            "jsonl",
            "yaml",
            "safetensors",
            "pt",
            "log",
            "tar",
            "py",
            "csv",
            "md",
        ];
        ends.iter().any(|e| word.ends_with(&format!(".{e}")))
            // A pattern of tensors' names.
            || word.ends_with(".*")
            || [
                "model.layers",
                "model.embed_tokens",
                "model.norm",
                "clap.afclap",
                "clap.nvclap",
                "model.train",
                "model.decoder",
            ]
            .iter()
            .any(|p| word.starts_with(p))
            || word
                .split('.')
                .skip(1)
                .any(|p| p.contains('{') && !word.starts_with("stages."))
    };
    let mut texts = Vec::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let inside = path.strip_prefix(root).unwrap().display().to_string();
            // Names of tensors and of a tokenizer's parts stand there.
            let tensors = [
                "src/text",
                "src/checkpoint",
                "src/load",
                "src/model",
                "src/ffi",
                "src/settings.rs",
            ];
            if tensors.iter().any(|t| inside.starts_with(t)) || inside.ends_with("tests.rs") {
                continue;
            }
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let code = std::fs::read_to_string(&path).unwrap();
                    let code = code.split("#[cfg(test)]\nmod ").next().unwrap();
                    texts.extend(literals(code).into_iter().map(|l| (inside.clone(), l)));
                }
            }
        }
    }
    let manual = std::fs::read_dir(root.join("docs")).unwrap();
    let manual = manual.map(|f| format!("docs/{}", f.unwrap().file_name().to_str().unwrap()));
    let beside = [
        "README.md",
        "CONTRIBUTING.md",
        "recipes/README.md",
        "ablations/README.md",
        "data-manifests/README.md",
    ];
    for page in manual.chain(beside.map(str::to_owned)) {
        let mut text = std::fs::read_to_string(root.join(&page)).unwrap();
        if page == "docs/errors.md" {
            // Its examples are wrong on purpose.
            text = text.rsplit("```").next().unwrap().to_owned();
        }
        texts.push((page, text));
    }
    let (mut seen, mut tried) = (0, 0);
    for (file, text) in &texts {
        for (word, value) in named(text) {
            if other(&word) {
                continue;
            }
            assert!(known(&word), "{file}: `{word}` is no key of a recipe, in: {text}");
            seen += 1;
            let Some(value) = value.filter(|v| !v.contains(['{', '$', '/', '['])) else {
                continue;
            };
            if word.contains('{')
                || word.chars().any(char::is_uppercase)
                || value.chars().any(char::is_uppercase)
            {
                continue;
            }
            let change = format!("{word}={value}");
            // As it would be written behind a command.
            if let Err(e) = demo(&[&change]) {
                assert_ne!(e.exit_code(), 2, "{file}: {change}: {e}");
            }
            tried += 1;
        }
    }
    assert!(seen > 40 && tried > 3, "{seen} keys, {tried} of them with values");
}

#[test]
fn a_key_in_the_wrong_place_is_told_where_it_stands() {
    for (change, said) in [
        ("stages.0.steps=3", "`steps` stands under stages.NAME.optim"),
        (
            "stages.stage1.learning_rate=1",
            "`learning_rate` stands under stages.NAME.optim",
        ),
        ("max_tokens=3", "`max_tokens` stands under data"),
        ("optim={}", "`optim` stands under lm, clap, stages.NAME"),
        ("data.windows=3", "`windows` stands under stages.NAME, eval"),
        // Not a key anywhere.
        ("stages.0.optim.stepss=3", "did you mean `steps`?"),
    ] {
        let e = demo(&[change]).unwrap_err().to_string();
        assert!(e.contains(said), "{change}: {e}");
    }
    // In a file from its top, the command line before it.
    let text = DEMO
        .replace("name: demo", "nmae: demo")
        .replace("  max_tokens: 64", "  max_tokens: few\n  windows: 3");
    let all = told(recipe_file::parse(&text, "r.yaml", &["zzz=1".into()]));
    let line = |e: &String| e.split(':').nth(1).and_then(|n| n.parse::<usize>().ok());
    let lines: Vec<_> = all.iter().map(line).collect();
    assert!(
        lines.len() > 3 && lines[0].is_none() && lines.is_sorted(),
        "{all:#?}"
    );
}

#[test]
fn a_check_says_what_it_did_not_look_at() {
    let folder = tempfile::tempdir().unwrap();
    let whole = DEMO.to_owned();
    let cut = whole.find("\neval:").unwrap();
    std::fs::write(folder.path().join("whole.yaml"), &whole).unwrap();
    std::fs::write(folder.path().join("cut.yaml"), &whole[..cut]).unwrap();
    let (code, out, err) = af2_in(folder.path(), &["recipe", "check", "whole.yaml"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(
        "whole.yaml: sound; 3 stages, 1550 optimizer steps; the files that it names were not looked at"
    ));
    assert!(!err.contains("evaluation"), "{err}");
    let (code, out, err) = af2_in(folder.path(), &["recipe", "check", "cut.yaml"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("steps, no evaluation; the files"), "{out}");
    assert!(err.contains("eval: {sets: [NAME, …], windows: N}"), "{err}");
}

#[test]
fn what_is_computed_in_is_one_of_two_words_and_tf32_is_off_or_on() {
    let recipe = demo(&[
        "eval.precision=amp_bf16",
        "train.encode_precision=amp_bf16",
        "train.tf32=true",
    ]);
    let recipe = recipe.unwrap();
    let eval = recipe.eval.as_ref().unwrap();
    assert_eq!((eval.precision, eval.tf32), (Precision::AmpBf16, false));
    let train = &recipe.train;
    assert_eq!(
        (train.precision, train.encode_precision, train.tf32),
        (Precision::Fp32, Precision::AmpBf16, true)
    );
    for (change, said) in [
        ("eval.precision=amp_bf61", "did you mean `amp_bf16`?"),
        ("train.encode_precision=pf32", "did you mean `fp32`?"),
        ("eval.precision=fp16", "fp32"),
        ("train.tf32=on", "expected"),
        ("eval.tf23=true", "did you mean `tf32`?"),
    ] {
        let e = demo(&[change]).unwrap_err();
        let (key, _) = change.split_once('=').unwrap();
        let key = key.replace("tf23", "tf");
        assert!(
            e.to_string().contains(said) && e.to_string().contains(&key),
            "{change}: {e}"
        );
    }
}
