//! Manifests made at random: both forms say the same, and no bytes make a reader panic.
#![allow(clippy::unwrap_used)]

use af2::data::item::Item;
use af2::data::manifest::Manifest;
use rand::seq::SliceRandom;
use rand::Rng;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use serde_json::{json, Map, Value};
use std::path::Path;

fn text(rng: &mut ChaCha8Rng) -> String {
    let pieces = [
        "a",
        "Ü",
        "\"",
        "\\",
        "\n",
        "\u{1F50A}",
        " ",
        "{",
        "}",
        ",",
        "\u{0}",
        "x y",
        "\r",
    ];
    (0..rng.gen_range(1..12))
        .map(|_| *pieces.choose(rng).unwrap())
        .collect()
}

fn item(rng: &mut ChaCha8Rng) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert(
        ["name", "path"][usize::from(rng.gen_bool(0.2))].into(),
        text(rng).into(),
    );
    fields.insert("prompt".into(), text(rng).into());
    fields.insert("output".into(), text(rng).into());
    let seconds = [json!(0), json!(3.25), json!(1e-3), json!(null), json!(86_400)];
    for key in ["duration", "audio_start"] {
        if rng.gen_bool(0.5) {
            fields.insert(key.into(), seconds.choose(rng).unwrap().clone());
        }
    }
    if rng.gen_bool(0.3) {
        fields.insert("labels".into(), json!([text(rng), text(rng)]));
    }
    if rng.gen_bool(0.3) {
        fields.insert("chance".into(), json!(rng.gen_range(0.0..=1.0)));
    }
    if rng.gen_bool(0.3) {
        fields.insert("else".into(), json!({"deep": [[[]], {"a": null}]}));
    }
    fields
}

/// The manifest in the reference's form, its keys in any order, and as JSON lines with empty lines between.
fn both_forms(rng: &mut ChaCha8Rng, items: &[Map<String, Value>]) -> (String, String, Vec<usize>) {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.shuffle(rng);
    let data: Map<String, Value> = order
        .iter()
        .map(|i| (i.to_string(), items[*i].clone().into()))
        .collect();
    let top = json!({"split": "train", "split_path": "wavs", "flamingo_task": "a-AQA",
                     "total_num": items.len(), "data": data});
    let indent = rng.gen_bool(0.5);
    let json = if indent {
        serde_json::to_string_pretty(&top).unwrap()
    } else {
        top.to_string()
    };
    let mut lines = String::new();
    for fields in items {
        lines += &Value::from(fields.clone()).to_string();
        lines += ["\n", "\r\n", "\n\n", "\n  \n"].choose(rng).unwrap();
    }
    if rng.gen_bool(0.5) {
        lines.truncate(lines.trim_end().len());
    }
    (json, lines, order)
}

fn open(folder: &Path, name: &str, bytes: &[u8]) -> af2::Result<Manifest> {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    Manifest::open(&path)
}

#[test]
fn json_and_json_lines_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for _ in 0..150 {
        let items: Vec<_> = (0..rng.gen_range(0..25)).map(|_| item(&mut rng)).collect();
        let (json, lines, order) = both_forms(&mut rng, &items);
        let a = open(folder.path(), "m.json", json.as_bytes()).unwrap();
        let b = open(folder.path(), "m.jsonl", lines.as_bytes()).unwrap();
        let keyless = |m: &Manifest| -> Vec<Item> {
            let all = m.items().unwrap().into_iter();
            all.map(|i| Item {
                key: String::new(),
                ..i
            })
            .collect()
        };
        assert_eq!(keyless(&a), keyless(&b));
        assert_eq!(a.len(), items.len());
        assert_eq!(a.file_order(), order);
        for (i, fields) in items.iter().enumerate() {
            let read = a.item(i).unwrap();
            assert_eq!(read.key, i.to_string());
            assert_eq!(fields["prompt"], read.prompt);
            assert_eq!(fields["output"], read.output);
        }
        let half: Vec<usize> = (0..items.len()).filter(|_| rng.gen_bool(0.5)).collect();
        for mut m in [a, b] {
            let all = m.items().unwrap();
            m.retain(&half);
            assert_eq!(
                m.items().unwrap(),
                half.iter().map(|i| all[*i].clone()).collect::<Vec<_>>()
            );
        }
    }
}

/// What opens can be read; what cannot is an error that names the file.
#[test]
fn no_bytes_make_a_manifest_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..3000 {
        let items: Vec<_> = (0..rng.gen_range(1..4)).map(|_| item(&mut rng)).collect();
        let (json, lines, _) = both_forms(&mut rng, &items);
        let (name, mut bytes) = match round % 2 {
            0 => ("m.json", json.into_bytes()),
            _ => ("m.jsonl", lines.into_bytes()),
        };
        for _ in 0..rng.gen_range(1..4) {
            let at = rng.gen_range(0..bytes.len());
            match rng.gen_range(0..4) {
                0 => bytes[at] = rng.gen(),
                1 => bytes[at] = *b"{}[]\",:0-eE.n".choose(&mut rng).unwrap(),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
            if bytes.is_empty() {
                bytes.push(b'{');
            }
        }
        match open(folder.path(), name, &bytes) {
            Ok(m) => {
                let items = m.items();
                assert!(
                    items.is_ok(),
                    "{items:?} of {:?}",
                    String::from_utf8_lossy(&bytes)
                );
                opened += 1;
            }
            Err(e) => {
                assert!(
                    e.to_string().contains(name) && e.exit_code() == 6 || e.exit_code() == 3,
                    "{e}"
                );
                refused += 1;
            }
        }
    }
    println!("{opened} opened, {refused} refused");
    assert!(opened > 100 && refused > 1000);
}

#[test]
fn a_key_twice_and_an_item_that_is_too_long_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let item = r#"{"name": "a", "prompt": "p", "output": "o"}"#;
    let top = |data: &str, n: usize| {
        format!(
            r#"{{"split": "s", "split_path": "", "flamingo_task": "t", "total_num": {n}, "data": {{{data}}}}}"#
        )
    };
    let twice = top(&format!(r#""1": {item}, "0": {item}, "1": {item}"#), 3);
    let e = open(folder.path(), "m.json", twice.as_bytes())
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("data.1: expected each key once, found \"twice the same\""),
        "{e}"
    );
    let deep = item.replace(
        "\"o\"}",
        &format!("\"o\", \"x\": {}{}}}", "[".repeat(200), "]".repeat(200)),
    );
    let e = open(folder.path(), "m.jsonl", deep.as_bytes()).unwrap_err();
    assert!(e.to_string().contains("line 1: expected a JSON object"), "{e}");
    let long = item.replace("\"o\"", &format!("\"{}\"", "o".repeat(17 << 20)));
    let e = open(
        folder.path(),
        "m.json",
        top(&format!("\"0\": {long}"), 1).as_bytes(),
    )
    .unwrap_err();
    assert!(e.to_string().contains("data.0: expected at most"), "{e}");
    for lines in [format!("{item}\n{long}\n"), format!("{item}\n{long}")] {
        let e = open(folder.path(), "m.jsonl", lines.as_bytes()).unwrap_err();
        assert!(e.to_string().contains("line 2: expected at most"), "{e}");
    }
}
