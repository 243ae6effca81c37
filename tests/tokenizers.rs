//! Tokenizer folders of other tools against transformers, and those that cannot be read.
#![allow(clippy::unwrap_used)]

mod common;

use af2::text::{labels, prompt, tokenizer::Tokenizer};
use common::golden;
use serde_json::{json, Map, Value};
use std::path::Path;

/// The tiny model's tokenizer: 590 entries, then three special tokens where a file says them.
const ENTRIES: usize = 590;

/// A folder with some of the tiny model's files, and others.
fn folder(own: &[&str], files: &[(&str, Value)]) -> tempfile::TempDir {
    let d = tempfile::tempdir().unwrap();
    for name in own {
        std::fs::copy(golden("F_tiny/llm").join(name), d.path().join(name)).unwrap();
    }
    for (name, content) in files {
        std::fs::write(d.path().join(name), content.to_string()).unwrap();
    }
    d
}

const PLAIN: [&str; 3] = ["vocab.json", "merges.txt", "config.json"];
const WHOLE: [&str; 2] = ["tokenizer.json", "config.json"];

fn token(content: &str) -> Value {
    json!({"content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true})
}

/// `tokenizer_config.json` with these ids.
fn decoder(ids: &[(usize, &str)]) -> Value {
    let list: Map<String, Value> = ids.iter().map(|(i, t)| (i.to_string(), token(t))).collect();
    json!({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>", "unk_token": null, "added_tokens_decoder": list})
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn special_tokens_have_the_ids_that_transformers_gives_them_wherever_they_stand() {
    let all = json_of(&golden("I_tokenizers/cases.json"));
    let text = all["text"].as_str().unwrap();
    let cases = all["cases"].as_object().unwrap();
    assert!(cases.len() >= 16);
    for (name, case) in cases {
        let files: Vec<(&str, Value)> = case["files"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(n, v)| (n.as_str(), v.clone()))
            .collect();
        let own: &[&str] = if case["json"] == true { &WHOLE } else { &PLAIN };
        let d = folder(own, &files);
        let t = Tokenizer::open(d.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let want = &case["want"];
        assert_eq!(json!(t.encode(text).unwrap()), want["ids"], "{name}");
        assert_eq!(json!([t.end_of_text, t.eos]), want["eos"], "{name}");
        assert_eq!(json!([t.separator, t.sep]), want["sep"], "{name}");
        assert_eq!(
            json!([t.len(), t.audio, t.end_of_chunk, t.pad]),
            json!([want["len"], want["audio"], want["eoc"], want["pad"]]),
            "{name}"
        );
        let ids = t.encode(text).unwrap();
        assert_eq!(json!(t.decode(&ids, true).unwrap()), want["skip"], "{name}");
        // What is exported is read as the same tokenizer, from `tokenizer.json` or from the list of added tokens.
        let exported = folder(&["config.json"], &[]);
        let write = |file: &str, text: &str| std::fs::write(exported.path().join(file), text).unwrap();
        write("tokenizer.json", &t.to_json().unwrap());
        let config = json!({"eos_token": t.end_of_text, "sep_token": t.separator, "unk_token": null, "pad_token": null,
            "added_tokens_decoder": t.added_tokens_decoder()});
        write("tokenizer_config.json", &config.to_string());
        for without in ["", "tokenizer.json"] {
            if !without.is_empty() {
                std::fs::remove_file(exported.path().join(without)).unwrap();
                for file in ["vocab.json", "merges.txt"] {
                    std::fs::copy(d.path().join(file), exported.path().join(file))
                        .or_else(|_| {
                            std::fs::copy(golden("F_tiny/llm").join(file), exported.path().join(file))
                        })
                        .unwrap();
                }
            }
            let again = Tokenizer::open(exported.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(again.encode(text).unwrap(), ids, "{name}");
            assert_eq!((again.len(), again.eos), (t.len(), t.eos), "{name}");
        }
    }
}

#[test]
fn ids_that_collide_or_leave_a_hole_are_refused_by_file_and_token() {
    let n = ENTRIES;
    let mut holed = json_of(&golden("F_tiny/llm/vocab.json"));
    holed
        .as_object_mut()
        .unwrap()
        .insert("Ġbehind".into(), (n + 1).into());
    let mut twice = json_of(&golden("F_tiny/llm/vocab.json"));
    twice.as_object_mut().unwrap().insert("Ġtwice".into(), 7.into());
    const CONFIG: &str = "tokenizer_config.json";
    let renumbered = {
        let mut all = json_of(&golden("F_tiny/llm/tokenizer.json"));
        all["added_tokens"][2]["id"] = (n + 7).into();
        all
    };
    let vocab_twice = {
        let mut all = json_of(&golden("F_tiny/llm/tokenizer.json"));
        all["model"]["vocab"]["!!"] = 0.into();
        all["added_tokens"] = json!([]);
        all
    };
    type Case<'a> = (&'a [&'a str], Vec<(&'a str, Value)>, &'a [&'a str]);
    let cases: Vec<Case> = vec![
        (
            &PLAIN,
            vec![(CONFIG, decoder(&[(n, "<|endoftext|>"), (n + 2, "<audio>")]))],
            &[CONFIG, "<audio>", "hole"],
        ),
        (
            &PLAIN,
            vec![(CONFIG, decoder(&[(5, "<|endoftext|>")]))],
            &[CONFIG, "<|endoftext|>", "the vocabulary's `&` there"],
        ),
        (
            &PLAIN,
            vec![(CONFIG, decoder(&[(n, "<|endoftext|>"), (n + 1, "!")]))],
            &[CONFIG, "!", "0 in its vocabulary"],
        ),
        (
            &PLAIN,
            vec![(CONFIG, decoder(&[(n, "<|endoftext|>"), (n + 1, "<|endoftext|>")]))],
            &[CONFIG, "one id"],
        ),
        (
            &PLAIN,
            vec![(CONFIG, json!({"added_tokens_decoder": {"x": token("<a>")}}))],
            &[CONFIG, "an id as the key"],
        ),
        (
            &PLAIN,
            vec![(CONFIG, json!({"added_tokens_decoder": {"590": "<a>", "591": 3}}))],
            &[CONFIG, "591"],
        ),
        (
            &PLAIN,
            vec![(
                CONFIG,
                json!({"added_tokens_decoder": {"590": {"content": "<a>", "lstrip": 1}}}),
            )],
            &[CONFIG, "flags"],
        ),
        (
            &PLAIN,
            vec![(CONFIG, json!({"added_tokens_decoder": [token("<a>")]}))],
            &[CONFIG, "an object of id to token"],
        ),
        (
            &PLAIN,
            vec![("added_tokens.json", json!({"<a>": n, "<b>": n}))],
            &["added_tokens.json", "`<a>` and `<b>`"],
        ),
        (
            &PLAIN,
            vec![("added_tokens.json", json!({"<a>": -1}))],
            &["added_tokens.json", "<a>", "an id"],
        ),
        (
            &PLAIN,
            vec![("added_tokens.json", json!(["<a>"]))],
            &["added_tokens.json", "a JSON object"],
        ),
        (
            &PLAIN,
            vec![("vocab.json", holed.clone())],
            &["vocab.json", "id 590", "a token for each id"],
        ),
        (
            &PLAIN,
            vec![("vocab.json", twice)],
            &["vocab.json", "id 7", "`Ġtwice`"],
        ),
        (
            &PLAIN,
            vec![("vocab.json", json!({"a": "0"}))],
            &["vocab.json", "an id"],
        ),
        (
            &PLAIN,
            vec![(CONFIG, json!({"eos_token": 5}))],
            &[CONFIG, "eos_token", "a token's text"],
        ),
        (
            &PLAIN,
            vec![(CONFIG, json!({"eos_token": ""}))],
            &[CONFIG, "eos_token"],
        ),
        (
            &PLAIN,
            vec![(CONFIG, json!({"additional_special_tokens": "<a>"}))],
            &[CONFIG, "additional_special_tokens", "a list"],
        ),
        (
            &PLAIN,
            vec![(CONFIG, json!({"eos_token": "<|endofchunk|>"}))],
            &["five tokens"],
        ),
        (
            &WHOLE,
            vec![("tokenizer.json", renumbered)],
            &["tokenizer.json", "<|im_end|>", "the id 597, as the file says"],
        ),
        (
            &WHOLE,
            vec![("tokenizer.json", vocab_twice)],
            &["tokenizer.json", "id 0", "`!`"],
        ),
        (
            &WHOLE,
            vec![(CONFIG, decoder(&[(n + 1, "<|endoftext|>")]))],
            &[CONFIG, "<|endoftext|>", "590 in its vocabulary"],
        ),
        (
            &WHOLE,
            vec![("generation_config.json", json!({"eos_token_id": "x"}))],
            &["generation_config.json", "eos_token_id"],
        ),
    ];
    for (own, files, told) in cases {
        let d = folder(own, &files);
        let e = match Tokenizer::open(d.path()) {
            Ok(_) => panic!("{told:?} was taken"),
            Err(e) => e,
        };
        assert_eq!(e.exit_code(), 7, "{e}");
        for piece in told {
            assert!(e.to_string().contains(piece), "no {piece:?} in {e}");
        }
    }
    // A hole that a token with an id fills is none.
    let filled = [
        ("vocab.json", holed),
        (CONFIG, decoder(&[(n, "<|endoftext|>"), (n + 2, "<|im_end|>")])),
    ];
    let d = folder(&PLAIN, &filled);
    let t = Tokenizer::open(d.path()).unwrap();
    assert_eq!((t.eos, t.audio), (n as i64, n as i64 + 3));
    assert_eq!(
        t.encode("<|endoftext|><|im_end|>").unwrap(),
        [n as i64, n as i64 + 2]
    );
}

#[test]
fn a_text_is_neither_cut_nor_padded_whatever_the_file_says() {
    let plain = Tokenizer::open(&golden("F_tiny/llm")).unwrap();
    let whole = prompt::example(
        &plain,
        "What does the audio describe? ".repeat(9).as_str(),
        "a dog",
    );
    let ids = plain.encode(&whole).unwrap();
    let truncation = |most: usize, stride: usize| json!({"direction": "Right", "max_length": most, "strategy": "LongestFirst", "stride": stride});
    let padding = |strategy: Value| json!({"strategy": strategy, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 3, "pad_type_id": 0, "pad_token": "$"});
    for (cut, pad, told) in [
        (truncation(5, 0), Value::Null, "cuts texts to 5 tokens"),
        // The library stops the program at a stride that is not below the length.
        (truncation(5, 9), Value::Null, "cuts texts to 5 tokens"),
        (truncation(0, 0), Value::Null, "cuts texts to 0 tokens"),
        (Value::Null, padding(json!("BatchLongest")), "pads texts"),
        (Value::Null, padding(json!({"Fixed": 1u64 << 40})), "pads texts"),
        (
            truncation(12, 0),
            padding(json!({"Fixed": 64})),
            "cuts texts to 12 tokens and pads texts",
        ),
    ] {
        let mut all = json_of(&golden("F_tiny/llm/tokenizer.json"));
        all["truncation"] = cut;
        all["padding"] = pad;
        let d = folder(&["config.json"], &[("tokenizer.json", all)]);
        let t = Tokenizer::open(d.path()).unwrap();
        assert_eq!(t.encode(&whole).unwrap(), ids, "{told}");
        assert!(t.notes[0].contains(told), "{:?}", t.notes);
        let written: Value = serde_json::from_str(&t.to_json().unwrap()).unwrap();
        assert_eq!(
            (&written["truncation"], &written["padding"]),
            (&Value::Null, &Value::Null)
        );
    }
}

#[test]
fn what_breaks_inside_the_tokenizer_library_is_an_error_with_its_file() {
    let with = |key: &str, value: Value| {
        let mut all = json_of(&golden("F_tiny/llm/tokenizer.json"));
        all[key] = value;
        folder(&["config.json"], &[("tokenizer.json", all)])
    };
    // Character maps: not base64, too short for their own length, a table that leads out of itself.
    let map = |bytes: &str| json!({"type": "Precompiled", "precompiled_charsmap": bytes});
    for (key, value) in [
        ("normalizer", map("!!")),
        ("normalizer", map("")),
        ("normalizer", map("/////w==")),
        ("normalizer", map("BAAAAP////8A")),
        ("normalizer", map("BAAAAAD8/38A")),
        (
            "normalizer",
            json!({"type": "Sequence", "normalizers": [map("BAAAAP////8A")]}),
        ),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        (
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
        ),
        (
            "model",
            json!({"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}),
        ),
        (
            "model",
            json!({"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}, "merges": []}),
        ),
        ("version", json!("9.9")),
        ("added_tokens", json!([{"id": 590}])),
    ] {
        let d = with(key, value.clone());
        let e = match Tokenizer::open(d.path()) {
            Ok(_) => panic!("{key} {value} was taken"),
            Err(e) => e,
        };
        assert_eq!(e.exit_code(), 7);
        let told = e.to_string();
        assert!(told.contains("tokenizer.json"), "{key}: {told}");
        assert!(told.lines().count() <= 3 && told.len() < 700, "{told}");
    }
}

#[test]
fn training_ends_its_answers_where_generation_stops() {
    for eos in ["<|endoftext|>", "<|im_end|>", "<|im_start|>"] {
        let mut config = json_of(&golden("F_tiny/llm/tokenizer_config.json"));
        config["eos_token"] = eos.into();
        let own = ["tokenizer.json", "config.json", "generation_config.json"];
        let d = folder(&own, &[("tokenizer_config.json", config)]);
        let t = Tokenizer::open(d.path()).unwrap();
        let text = prompt::example(&t, "What?", "A dog.");
        assert_eq!(text, format!("<audio>what?<SEP>a dog.<|endofchunk|>{eos}"));
        let ids = t.encode(&text).unwrap();
        assert_eq!(ids.last(), Some(&t.eos));
        // Chunk's end and text's end count, in this order.
        let labels = labels::labels(&ids, &t);
        assert_eq!(labels[labels.len() - 2..], [t.end_of_chunk, t.eos]);
        // config.json and generation_config.json both say <|endoftext|>.
        let said: Vec<&String> = t
            .notes
            .iter()
            .filter(|n| n.contains("ends a text with"))
            .collect();
        match eos {
            "<|endoftext|>" => assert!(said.is_empty(), "{said:?}"),
            _ => {
                assert_eq!(said.len(), 1, "{said:?}");
                for piece in [
                    eos,
                    "config.json says <|endoftext|> (590)",
                    "generation_config.json says",
                ] {
                    assert!(said[0].contains(piece), "{said:?}");
                }
            }
        }
    }
    // A list that holds the tokenizer's agrees with it; one that does not is told whole.
    for (ids, told) in [
        (json!([592, 590]), None),
        (json!([592, 7000]), Some("<|im_end|> (592), 7000, which")),
    ] {
        let d = folder(
            &WHOLE,
            &[("generation_config.json", json!({"eos_token_id": ids}))],
        );
        let t = Tokenizer::open(d.path()).unwrap();
        let said = t.notes.iter().find(|n| n.contains("ends a text with"));
        assert_eq!(said.is_some(), told.is_some(), "{said:?}");
        if let (Some(said), Some(told)) = (said, told) {
            assert!(said.contains(told), "{said}");
        }
    }
}
