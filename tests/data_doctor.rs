//! The data doctor finds each kind of fault, and nothing in what is sound.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use common::{af2, golden};
use serde_json::{json, Value};
use std::fs;
use std::path::Path;

/// A folder with sound files and a manifest of each split; `items` are (name, prompt, output, duration).
fn write(root: &Path, split: &str, items: &[(&str, &str, &str, f64)]) -> String {
    let data: serde_json::Map<String, Value> = items
        .iter()
        .enumerate()
        .map(|(i, (name, prompt, output, duration))| {
            let item = json!({"name": name, "prompt": prompt, "output": output, "duration": duration});
            (i.to_string(), item)
        })
        .collect();
    let top = json!({"split": split, "split_path": "wavs", "flamingo_task": "toy-AQA", "total_num": items.len(), "data": data});
    let path = root.join("toy-AQA").join(format!("{split}.json"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, top.to_string()).unwrap();
    path.display().to_string()
}

fn root() -> tempfile::TempDir {
    let d = tempfile::tempdir().unwrap();
    let wavs = d.path().join("wavs");
    fs::create_dir(&wavs).unwrap();
    for (from, to) in [
        ("speech_16k_mono_3p7s.wav", "speech.wav"),
        ("speech_16k_mono_3p7s.wav", "same_speech.wav"),
        ("tones_16k_mono_10s.wav", "tones.wav"),
        ("long_16k_mono.wav", "long.wav"),
        ("mono_48k_1p1s.flac", "flac.flac"),
    ] {
        fs::copy(golden("wavs").join(from), wavs.join(to)).unwrap();
    }
    fs::write(wavs.join("empty.wav"), "").unwrap();
    fs::write(wavs.join("noise.wav"), "RIFF but no sound").unwrap();
    d
}

fn check(root: &Path, files: &[&str], more: &[&str]) -> (i32, Value, String) {
    let mut arguments = vec!["data", "check", "--json", "--data-root", root.to_str().unwrap()];
    arguments.extend(more);
    arguments.extend(files);
    let (code, out, err) = af2(&arguments);
    (
        code,
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}")),
        err,
    )
}

#[test]
fn a_sound_manifest_is_sound() {
    let d = root();
    let good = write(
        d.path(),
        "train",
        &[
            ("speech.wav", "who speaks?", "a woman", 3.7),
            ("long.wav", "what is it?", "noise", 32.0),
            ("tones.wav", "what is it?", "a tone", 10.0),
        ],
    );
    let (code, found, err) = check(d.path(), &[&good], &[]);
    assert_eq!((code, &found["findings"]), (0, &json!([])), "{err}");
    let summary = &found["manifests"][0];
    assert_eq!(summary["items"], 3);
    assert_eq!(summary["windows"], json!({"1": 2, "4": 1}));
    assert_eq!(summary["answers"]["a tone"], 1);
    // One batch of three, padded to four windows: 6 of 12 are real; in buckets nothing is padded.
    assert_eq!(
        (
            summary["padding_in_order"].as_f64(),
            summary["padding_in_buckets"].as_f64()
        ),
        (Some(0.5), Some(0.0))
    );
}

#[test]
fn every_kind_of_fault_is_found_and_named() {
    let d = root();
    let train = write(
        d.path(),
        "train",
        &[
            ("speech.wav", "who speaks?", "a woman", 3.7),
            ("gone.wav", "p", "o", 1.0),
            ("empty.wav", "p", "o", 1.0),
            ("noise.wav", "p", "o", 1.0),
            ("tones.wav", " ", "o", 10.0),
            ("tones.wav", "p", "", 25.0),
            ("speech.wav", "who speaks?", "a man", 3.7),
            ("same_speech.wav", "who else?", "nobody", 3.7),
            ("flac.flac", "what is it? and again and again and again and again and again and again and again and again and again", "o", 1.1),
        ],
    );
    let test = write(d.path(), "test", &[("tones.wav", "what is it?", "a tone", 10.0)]);
    let llm = golden("F_tiny/llm");
    let (code, found, err) = check(
        d.path(),
        &[&train, &test],
        &["--llm", llm.to_str().unwrap(), "--max-tokens", "30"],
    );
    assert_eq!(code, 6, "{err}");
    let expected = json!({
        "missing_audio": 1, "unreadable_audio": 2, "wrong_duration": 1, "empty_prompt": 1, "empty_output": 1,
        "long_text": 1, "duplicate_item": 1, "duplicate_audio": 1, "leak": 1,
    });
    assert_eq!(found["counts"], expected, "{}", found["findings"]);
    let of = |fault: &str| {
        let all = found["findings"].as_array().unwrap();
        all.iter().find(|f| f["fault"] == fault).unwrap().clone()
    };
    assert_eq!(of("missing_audio")["item"], "1");
    assert!(of("wrong_duration")["what"]
        .as_str()
        .unwrap()
        .contains("25 s, the file has 10.00 s"));
    let leak = of("leak");
    assert!(leak["what"].as_str().unwrap().contains("tones.wav"), "{leak}");
    // Headers alone know of no copies.
    let (_, quick, _) = check(d.path(), &[&train, &test], &["--no-hash"]);
    assert!(quick["counts"].get("leak").is_none() && quick["counts"].get("duplicate_audio").is_none());

    let (code, out, err) = af2(&["data", "check", "--data-root", d.path().to_str().unwrap(), &train]);
    assert_eq!(code, 6);
    for piece in [
        "missing audio: 1",
        "gone.wav",
        "unreadable audio: 2",
        "answers of toy-AQA/train",
        "padding",
    ] {
        assert!(out.contains(piece), "no {piece} in {out}");
    }
    assert!(
        err.contains("faults: ") && err.contains("1 missing audio"),
        "{err}"
    );
}

#[test]
fn a_manifest_that_is_none_is_a_finding_and_not_the_end() {
    let d = root();
    let good = write(d.path(), "train", &[("tones.wav", "p", "o", 10.0)]);
    let bad = d.path().join("bad.json");
    fs::write(&bad, r#"{"split": "train", "split_path": "", "flamingo_task": "t", "total_num": 9, "data": {"0": {"name": "a"}}}"#).unwrap();
    let (code, found, _) = check(d.path(), &[bad.to_str().unwrap(), &good], &[]);
    assert_eq!(code, 6);
    assert_eq!(found["counts"], json!({"manifest": 3}));
    assert_eq!(found["manifests"].as_array().unwrap().len(), 1);
}

#[test]
fn special_tokens_in_texts_are_counted_by_item() {
    let d = root();
    let good = write(
        d.path(),
        "train",
        &[
            (
                "speech.wav",
                "what?",
                "one <|endofchunk|> two <|endofchunk|>",
                3.7,
            ),
            ("tones.wav", "<audio>what <SEP>?", "a tone <|im_end|>", 10.0),
            ("flac.flac", "a < b?", "a tone", 1.1),
        ],
    );
    let llm = golden("F_tiny/llm");
    for more in [&[][..], &["--llm", llm.to_str().unwrap()]] {
        let (code, found, err) = check(d.path(), &[&good], more);
        assert_eq!(
            (code, &found["counts"]),
            (6, &json!({"special_tokens": 2})),
            "{err}"
        );
        let what: Vec<&str> = (0..2)
            .map(|i| found["findings"][i]["what"].as_str().unwrap())
            .collect();
        assert_eq!(
            what,
            [
                "output holds <|endofchunk|> 2 times",
                "prompt holds <SEP>, prompt holds <audio>, output holds <|im_end|>"
            ]
        );
        assert_eq!(found["findings"][1]["item"], "1");
    }
    let (_, out, _) = af2(&["data", "check", "--data-root", d.path().to_str().unwrap(), &good]);
    assert!(
        out.contains("special tokens: 2") && out.contains("data.special_tokens_in_texts"),
        "{out}"
    );
}

/// Names of another system, and names that a Mac wrote.
#[test]
fn a_missing_sound_that_nearly_is_there_says_how() {
    let d = root();
    fs::copy(
        d.path().join("wavs/tones.wav"),
        d.path().join("wavs/e\u{301}te.wav"),
    )
    .unwrap();
    let cases = [
        ("sub\\speech.wav", "Windows"),
        ("\u{e9}te.wav", "Unicode form"),
        ("Tones.WAV", "in other letters"),
        ("tones.wav ", "white space"),
    ];
    let items: Vec<_> = cases.iter().map(|(name, _)| (*name, "p", "o", 1.0)).collect();
    let (_, found, _) = check(d.path(), &[&write(d.path(), "train", &items)], &[]);
    assert_eq!(found["counts"], json!({"missing_audio": 4}));
    for (i, (_, words)) in cases.iter().enumerate() {
        let what = found["findings"][i]["what"].as_str().unwrap();
        assert!(what.contains(words), "{what}");
    }
}

/// The tokenizer, the limits and the sets are those that training takes.
#[test]
fn a_recipe_is_checked_as_it_trains() {
    let d = root();
    write(
        d.path(),
        "train",
        &[(
            "tones.wav",
            "what is it?",
            "a tone of ten seconds and no more",
            10.0,
        )],
    );
    let recipe = d.path().join("recipe.yaml");
    let text = |model: &str, stage: &str| {
        let text = format!(
            "name: check\noutput: {}\nmodel: {{{model}}}\ndata: {{root: {root}, max_tokens: 20, sets: {{a: toy-AQA/train.json}}}}\n\
             stages:\n  - {{name: one, train: [audio_transformer], windows: 3, sets: {{a: 1.0}}, {stage}\n     \
             optim: {{steps: 1, batch_size: 4, learning_rate: 1e-4}}}}\n",
            d.path().join("run").display(),
            root = d.path().display()
        );
        fs::write(&recipe, text).unwrap();
    };
    let file = recipe.to_str().unwrap();
    let tiny = golden("F_tiny").display().to_string();
    for (model, stage) in [
        (format!("lm: {tiny}/llm"), String::new()),
        (format!("checkpoint: {tiny}"), String::new()),
        (String::new(), format!("from: {tiny}, ")),
    ] {
        text(&model, &stage);
        let (code, out, err) = af2(&["data", "check", "--json", file]);
        let found: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        assert_eq!(
            (code, &found["counts"]),
            (6, &json!({"long_text": 1})),
            "{model} {stage} {err}"
        );
        assert!(
            found["findings"][0]["what"]
                .as_str()
                .unwrap()
                .contains("at most 20"),
            "{out}"
        );
        let (code, out, err) = af2(&["-q", "data", "read", file]);
        assert!(
            code == 0 && out.contains("1 items in 1 batches"),
            "{model} {stage} {out}{err}"
        );
    }
    text("lm: nowhere", "");
    let (code, _, err) = af2(&["data", "check", file]);
    assert!(
        code == 0 && err.contains("note: tokens are not counted"),
        "{code} {err}"
    );
    let (code, _, err) = af2(&["data", "read", file]);
    assert!(code == 3 && err.contains("nowhere"), "{code} {err}");
}
