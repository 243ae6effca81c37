//! What a user sees: help, answers, and errors that name the file, the key, what was expected and what was found.
#![allow(clippy::unwrap_used)]

mod common;

use common::{af2, as_items, golden};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs, expects this exit code and every one of these pieces in the error.
fn fails(arguments: &[&str], code: i32, pieces: &[&str]) {
    let (found, _, err) = af2(arguments);
    assert_eq!(found, code, "{err}");
    assert!(!err.contains("panicked"), "{err}");
    for piece in pieces {
        assert!(err.contains(piece), "`{piece}` is not in: {err}");
    }
}

fn generate(audio: &Path) -> Vec<String> {
    let dir = text(&golden("F_tiny"));
    let config = text(&golden("F_tiny/config.yaml"));
    [
        "generate",
        "--checkpoint",
        &dir,
        "--config",
        &config,
        "--audio",
        &text(audio),
        "--prompt",
        "what is it?",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn generate_fails(audio: &Path, code: i32, pieces: &[&str]) {
    let arguments = generate(audio);
    fails(
        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
        code,
        pieces,
    );
}

fn temporary(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn every_verb_has_help_that_names_its_arguments() {
    let (code, out, _) = af2(&["--help"]);
    assert_eq!(code, 0);
    for verb in [
        "demo", "synth", "lm", "clap", "train", "eval", "report", "generate", "trace",
    ] {
        assert!(out.contains(verb), "{out}");
        let (code, own, _) = af2(&[verb, "--help"]);
        assert_eq!(code, 0);
        assert!(own.contains("Usage: af2"), "{own}");
    }
    assert!(af2(&["generate", "--help"]).1.contains("--temperature"));
    assert!(af2(&["trace", "--help"]).1.contains("--few-shot-mask"));
    assert_eq!(af2(&["transcribe"]).0, 2);
}

#[test]
fn one_question_and_many_get_the_references_answers() {
    let file = golden("wavs/speech_16k_mono_3p7s.wav");
    let mut arguments = generate(&file);
    arguments[8] = "What is the emotion of the speaker?".into();
    arguments.push("--json".into());
    let (code, out, err) = af2(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code, 0, "{err}");
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["text"], "the speaker is angry.");
    assert_eq!(answer["path"], text(&file));
    assert_eq!(
        answer["tokens"],
        serde_json::json!([462, 398, 269, 274, 584, 88, 13, 594, 590])
    );
    assert!(answer["seconds"].as_f64().unwrap() > 0.0);

    let questions =
        "{\"path\": \"speech_16k_mono_3p7s.wav\", \"prompt\": \"What is the emotion of the speaker?\"}\n\
        {\"path\": \"gone.wav\", \"prompt\": \"?\"}\n\
        {\"path\": \"flac_16k_mono_12p5s.flac\", \"prompt\": \"Is the bell ringing? (A) yes. (B) no.\"}\n";
    let (_keep, input) = temporary("q.jsonl", questions.as_bytes());
    let (dir, root, input) = (text(&golden("F_tiny")), text(&golden("wavs")), text(&input));
    let (code, out, err) = af2(&[
        "generate",
        "--checkpoint",
        &dir,
        "--input",
        &input,
        "--data-root",
        &root,
        "--json",
    ]);
    // The answers about the good files are there; the bad one is named.
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains("gone.wav") && err.contains("1 of 3 questions"),
        "{err}"
    );
    let texts: Vec<String> = out
        .lines()
        .map(|l| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["text"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(texts, ["the speaker is angry.", "(b) no."]);
}

/// `generate` with a question and more options; the lines that it printed.
fn asked(file: &str, prompt: &str, more: &[&str]) -> Vec<String> {
    let mut arguments = generate(&golden("wavs").join(file));
    arguments[8] = prompt.into();
    arguments.extend(more.iter().map(|a| (*a).to_owned()));
    let (code, out, err) = af2(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code, 0, "{more:?}: {err}");
    out.lines().map(str::to_owned).collect()
}

fn lines(out: &[String]) -> Vec<serde_json::Value> {
    out.iter().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The reference's own numbers: `tests/golden/N_generation`.
#[test]
fn beams_and_samples_are_a_line_each() {
    let (file, prompt) = ("tones_16k_mono_10s.wav", "Classify this sound.");
    let beams = [
        "--num-beams",
        "3",
        "--num-return-sequences",
        "2",
        "--length-penalty",
        "0.6",
    ];
    let more = [
        &beams[..],
        &[
            "--max-new-tokens",
            "24",
            "--early-stopping",
            "true",
            "--json",
            "--logprobs",
        ],
    ]
    .concat();
    let found = lines(&asked(file, prompt, &more));
    assert_eq!(found.len(), 2);
    let score = |i: usize| found[i]["score"].as_f64().unwrap();
    assert!((score(0) + 0.118_289_8).abs() < 1e-4 && (score(1) + 1.020_075_4).abs() < 1e-4);
    assert_eq!(found[0]["text"], "a dog barks twice while rain is falling.");
    let numbers = |key: &str| {
        found[0][key]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p.as_f64().unwrap())
            .collect::<Vec<_>>()
    };
    let (tokens, logprobs) = (numbers("tokens"), numbers("logprobs"));
    assert_eq!(tokens.len(), logprobs.len());
    // Without processors the score is these, summed and divided.
    let sum: f64 = logprobs.iter().sum();
    assert!((sum / (tokens.len() as f64).powf(0.6) - score(0)).abs() < 1e-4);
    let said = asked(file, prompt, &[&beams[..], &["--max-new-tokens", "24"]].concat());
    assert_eq!(
        (said.len(), &said[0][..]),
        (2, "a dog barks twice while rain is falling.")
    );

    let samples = |seed: &str, n: &str| {
        let warped = [
            "--temperature",
            "4",
            "--top-k",
            "0",
            "--top-p",
            "1",
            "--min-p",
            "0.0001",
        ];
        let more = [
            &warped[..],
            &[
                "--max-new-tokens",
                "6",
                "--seed",
                seed,
                "--num-return-sequences",
                n,
            ],
        ]
        .concat();
        asked(file, prompt, &[&more[..], &["--json"]].concat())
            .iter()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["tokens"].to_string())
            .collect::<Vec<_>>()
    };
    let three = samples("1", "3");
    assert_eq!((three.len(), &three[..1]), (3, &samples("1", "1")[..]));
    assert_ne!(three[0], three[1]);
    assert_ne!(samples("2", "3"), three);

    let greedy = |more: &[&str]| asked(file, prompt, more).remove(0);
    assert_eq!(greedy(&["--stop", " twice"]), "a dog barks");
    assert_eq!(greedy(&["--stop-token-ids", "9,509"]), "a dog bar");
    let long = [
        "--min-new-tokens",
        "20",
        "--max-new-tokens",
        "20",
        "--repetition-penalty",
        "1.2",
    ];
    let long = [&long[..], &["--no-repeat-ngram-size", "3", "--json"]].concat();
    assert_eq!(
        lines(&asked(file, prompt, &long))[0]["tokens"]
            .as_array()
            .unwrap()
            .len(),
        20
    );
}

/// The reference's own numbers: `tests/golden/N_generation`.
#[test]
fn given_answers_are_weighed_instead_of_asking() {
    let (file, prompt) = (
        "flac_16k_mono_12p5s.flac",
        "Is the bell ringing? (A) yes. (B) no.",
    );
    let given = ["--choices", "(a) yes.| (b) no. |(c) maybe."];
    let found = &lines(&asked(file, prompt, &[&given[..], &["--json"]].concat()))[0];
    assert_eq!(
        (&found["text"], found.get("tokens")),
        (&serde_json::json!("(b) no."), None)
    );
    let choices = found["choices"].as_array().unwrap();
    let names: Vec<&str> = choices.iter().map(|c| c["choice"].as_str().unwrap()).collect();
    assert_eq!(names, ["(a) yes.", "(b) no.", "(c) maybe."]);
    for (i, key, expected) in [
        (0, "logprob", -24.073_364),
        (0, "logprob_answer", -24.067_558),
        (0, "per_token", -4.813_512),
        (1, "logprob", -0.036_873_6),
        (1, "per_character", -0.031_515_5 / 7.0),
        (2, "logprob", -59.011_55),
    ] {
        let found = choices[i][key].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-4, "{key} of {i}: {found}");
    }
    // No bars where nobody watches: choice, share, log-probability.
    let said = asked(file, prompt, &given);
    assert_eq!(said[1], "(b) no.\t1.0000\t-0.0369");

    // Lines with their own choices, with those of the command line, and with none.
    let question = |more: &str| format!("{{\"path\": \"{file}\", \"prompt\": \"{prompt}\"{more}}}\n");
    let input = question(", \"choices\": [\"yes\", \"(b) no.\"]") + &question("");
    let (_keep, input) = temporary("q.jsonl", input.as_bytes());
    let (dir, root, input) = (text(&golden("F_tiny")), text(&golden("wavs")), text(&input));
    let many = [
        "generate",
        "--checkpoint",
        &dir,
        "--input",
        &input,
        "--data-root",
        &root,
    ];
    let (code, out, err) = af2(&[&many[..], &["--json"]].concat());
    assert_eq!(code, 0, "{err}");
    let out: Vec<String> = out.lines().map(str::to_owned).collect();
    let found = lines(&out);
    assert_eq!(found[0]["choices"].as_array().unwrap().len(), 2);
    assert!(found[1].get("choices").is_none() && found[1]["text"] == "(b) no.");
    let (code, out, err) = af2(&[&many[..], &["--choices", "yes|no|maybe"]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(
        out.lines()
            .next()
            .unwrap()
            .ends_with("ringing? (A) yes. (B) no.\t(b) no."),
        "{out}"
    );
    let (_keep, input) = temporary("q.jsonl", question(", \"choices\": []").as_bytes());
    let pieces = ["line 1", "choices: []"];
    fails(
        &["generate", "--checkpoint", &dir, "--input", &text(&input)],
        6,
        &pieces,
    );
}

#[test]
fn settings_that_cannot_be_are_named_before_the_model_is_opened() {
    let wrong = |more: &[&str], pieces: &[&str]| {
        let begin = [
            "generate",
            "--checkpoint",
            "nowhere",
            "--audio",
            "a.wav",
            "--prompt",
            "what?",
        ];
        fails(&[&begin[..], more].concat(), 2, pieces);
    };
    wrong(
        &["--num-beams", "0"],
        &["--num-beams: expected 1 to 256, found 0"],
    );
    wrong(
        &["--temperature", "-1"],
        &[
            "--temperature: expected a number above 0, found -1",
            "0 is greedy",
        ],
    );
    wrong(
        &["--top-p", "2", "--min-p", "-1"],
        &["--top-p: expected", "--min-p: expected"],
    );
    wrong(
        &["--num-return-sequences", "2"],
        &["--num-return-sequences: expected 1 without beams"],
    );
    wrong(
        &["--num-beams", "2", "--temperature", "1"],
        &["--num-beams: expected 1 where tokens are drawn"],
    );
    wrong(
        &["--early-stopping", "never"],
        &["--early-stopping", "--num-beams"],
    );
    wrong(
        &["--num-beams", "2", "--early-stopping", "maybe"],
        &["maybe", "true, never"],
    );
    wrong(&["--stop", ""], &["--stop: expected texts"]);
    wrong(&["--logprobs"], &["--json"]);
    wrong(
        &["--choices", "a|b", "--num-beams", "2"],
        &["--choices", "--num-beams"],
    );
    let audio = text(&golden("wavs/speech_16k_mono_3p7s.wav"));
    let begin = [
        "generate",
        "--checkpoint",
        "nowhere",
        "--audio",
        &audio,
        "--prompt",
        "what?",
    ];
    fails(
        &[&begin[..], &["--choices", "a||b"]].concat(),
        2,
        &["--choices", "an empty one"],
    );
    let mut arguments = generate(Path::new(&audio));
    arguments.extend(["--stop-token-ids".into(), "597".into()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    fails(
        &arguments,
        2,
        &["--stop-token-ids: expected ids below 597", "found 597"],
    );
}

#[test]
fn the_precision_of_an_answer_is_named_and_fp32_is_what_it_was() {
    let file = golden("wavs/speech_16k_mono_3p7s.wav");
    let asked = |more: &[&str]| {
        let mut arguments = generate(&file);
        arguments[8] = "What is the emotion of the speaker?".into();
        arguments.extend(more.iter().map(|a| (*a).to_owned()));
        af2(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for more in [
        &["--precision", "fp32"][..],
        &["--tf32"],
        &["--precision", "amp_bf16"],
    ] {
        // This answer is far enough from any other for bf16, too.
        let (code, out, err) = asked(more);
        assert_eq!(
            (code, out.trim()),
            (0, "the speaker is angry."),
            "{more:?}: {err}"
        );
    }
    for verb in [
        &["generate", "--checkpoint", "x", "--input", "y"][..],
        &["eval", "r.yaml"],
    ] {
        let (option, value) = match verb[0] {
            "generate" => ("--dtype", "bf16"),
            _ => ("--precision", "amp_bf16"),
        };
        let wrong = value.replace("16", "61");
        let pieces = [&wrong, option, &format!("a similar value exists: '{value}'")];
        fails(&[verb, &[option, &wrong]].concat(), 2, &pieces);
    }
}

#[test]
fn trace_writes_every_tensor_and_compares_with_a_dump() {
    let folder = tempfile::tempdir().unwrap();
    let out = text(&folder.path().join("t.safetensors"));
    let (dir, config, dump) = (
        text(&golden("F_tiny")),
        text(&golden("F_tiny/config.yaml")),
        text(&golden("F_tiny/golden_forward.safetensors")),
    );
    let (manifest, root) = (
        text(&golden("F_tiny/manifests/tiny-AQA/train.json")),
        text(&golden("")),
    );
    let base = [
        "trace",
        "--checkpoint",
        &dir,
        "--config",
        &config,
        "--manifest",
        &manifest,
        "--data-root",
        &root,
        "--items",
        "3,6",
    ];
    let with =
        |more: &[&'static str]| -> Vec<String> { base.iter().chain(more).map(|s| s.to_string()).collect() };
    let run = |arguments: Vec<String>| af2(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut arguments = with(&["--prefix", "batch0", "--out"]);
    arguments.extend([out.clone(), "--compare".into(), dump.clone()]);
    let (code, shown, err) = run(arguments.clone());
    assert_eq!(code, 0, "{err}{shown}");
    assert!(shown.contains("batch0/none/logits"), "{shown}");
    let names: Vec<String> = tch::Tensor::read_safetensors(&out)
        .unwrap()
        .into_iter()
        .map(|(n, _)| n)
        .collect();
    for name in [
        "input_ids",
        "attention_mask",
        "labels",
        "audio_embed_mask",
        "mel",
        "clap_out",
        "audio_transformer_out",
        "layer3",
        "logits",
        "loss",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} is not in {names:?}");
    }
    // The other frame rule's dump is not ours: named, and a code of its own.
    let mut arguments = with(&["--prefix", "batch0/few_shot", "--compare"]);
    arguments.push(dump.clone());
    let (code, _, err) = run(arguments);
    assert_eq!(code, 9, "{err}");
    assert!(err.contains("logits"), "{err}");
    let mut arguments = with(&["--few-shot-mask", "--prefix", "batch0/few_shot", "--compare"]);
    arguments.push(dump.clone());
    assert_eq!(run(arguments).0, 0);
    let mut arguments = with(&["--prefix", "nothing", "--compare"]);
    arguments.push(dump);
    let (code, _, err) = run(arguments);
    assert_eq!(code, 6, "{err}");
    let mut items = base.map(str::to_owned).to_vec();
    items[10] = "3,99".into();
    let (code, _, err) = run(items);
    assert_eq!(code, 6);
    assert!(err.contains("data.99"), "{err}");
}

#[test]
fn sound_files_that_cannot_be_used() {
    generate_fails(Path::new("nowhere.wav"), 3, &["nowhere.wav", "No such file"]);
    let good = std::fs::read(golden("wavs/speech_16k_mono_3p7s.wav")).unwrap();
    let (_k, path) = temporary("cut.wav", &good[..good.len() / 2]);
    generate_fails(&path, 5, &["cut.wav", "expected", "found"]);
    let (_k, path) = temporary("empty.wav", b"");
    generate_fails(&path, 5, &["empty.wav"]);
    let (_k, path) = temporary("text.wav", b"this is a letter, not a sound");
    generate_fails(&path, 5, &["text.wav"]);
    let folder = tempfile::tempdir().unwrap();
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 32,
        sample_format: hound::SampleFormat::Float,
    };
    for (name, value, n) in [("nan.wav", f32::NAN, 16_000), ("none.wav", 0.0, 0)] {
        let path = folder.path().join(name);
        let mut wav = hound::WavWriter::create(&path, spec).unwrap();
        (0..n).for_each(|_| wav.write_sample(value).unwrap());
        wav.finalize().unwrap();
        generate_fails(&path, 5, &[name]);
    }
}

/// A copy of the tiny checkpoint whose safe_ckpt can be spoilt.
fn spoilt(change: impl Fn(&mut Vec<(String, tch::Tensor)>)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = Vec::new();
    for i in 0..4 {
        tensors.extend(
            tch::Tensor::read_safetensors(golden(&format!("F_tiny/safe_ckpt/chunk_{i}.safetensors")))
                .unwrap(),
        );
    }
    change(&mut tensors);
    af2::checkpoint::write_released(&folder.path().join("safe_ckpt"), &as_items(&tensors), 1 << 30).unwrap();
    // Without the LM's own weights: what safe_ckpt lacks is nowhere else.
    let llm = folder.path().join("llm");
    std::fs::create_dir(&llm).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(golden(&format!("F_tiny/llm/{file}")), llm.join(file)).unwrap();
    }
    folder
}

#[test]
fn checkpoints_with_missing_unexpected_and_misshaped_tensors() {
    let wav = golden("wavs/speech_16k_mono_3p7s.wav");
    let on = |folder: &TempDir| {
        let mut arguments = generate(&wav);
        arguments[2] = text(folder.path());
        arguments
    };
    let check = |folder: &TempDir, pieces: &[&str]| {
        let arguments = on(folder);
        fails(
            &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
            7,
            pieces,
        );
    };
    let norm = "lang_encoder.model.norm.weight";
    check(
        &spoilt(|t| t.retain(|(n, _)| n != norm)),
        &[norm, "expected a tensor of shape [64]", "no such tensor"],
    );
    let odd = "lang_encoder.model.layers.0.decoder_layer.self_attn.z_proj.weight";
    let extra = spoilt(|t| t.push((odd.into(), tch::Tensor::from_slice(&[1f32, 2.0]))));
    check(&extra, &[odd, "shape [2]", "--allow-unexpected"]);
    let mut arguments = on(&extra);
    arguments.push("--allow-unexpected".into());
    assert_eq!(
        af2(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).0,
        0
    );
    let gate = "lang_encoder.model.layers.1.gated_cross_attn_layer_sound.ff_gate";
    let shaped = spoilt(|t| {
        t.retain(|(n, _)| n != norm);
        t.iter_mut()
            .filter(|(n, _)| n == gate)
            .for_each(|(_, v)| *v = tch::Tensor::from_slice(&[1f32, 2.0]));
    });
    // All that is wrong, at once.
    check(&shaped, &[gate, "expected shape [1], found shape [2]", norm]);
    let empty = tempfile::tempdir().unwrap();
    check(&empty, &["safe_ckpt", "hint"]);
}

fn recipe_fails(change: impl Fn(String) -> String, code: i32, pieces: &[&str]) {
    let (_k, path) = temporary("r.yaml", change(af2::recipe::DEMO.to_owned()).as_bytes());
    fails(&["train", &text(&path)], code, pieces);
}

#[test]
fn recipes_with_unknown_keys_wrong_types_and_too_many_windows() {
    let line = |needle: &str| {
        af2::recipe::DEMO
            .lines()
            .position(|l| l.contains(needle))
            .unwrap()
            + 1
    };
    let at = |needle: &str| format!("r.yaml:{}:", line(needle));
    recipe_fails(
        |r| r.replace("  max_windows:", "  max_window:"),
        4,
        &[
            &at("  max_windows:"),
            "unknown field `max_window`",
            "did you mean `max_windows`?",
            "^",
        ],
    );
    recipe_fails(
        |r| r.replace("seed: 1\ndevice", "seed: once\ndevice"),
        4,
        &[&at("seed: 1"), "invalid type", "seed"],
    );
    recipe_fails(
        |r| r.replace("max_windows: 9", "max_windows: 5"),
        4,
        &[
            "stages.stage3.windows: 9 windows",
            "1 to 5",
            "raise model.max_windows",
        ],
    );
    recipe_fails(
        |r| r.replace("sets: [captions]", "sets: [caption]"),
        4,
        &["no set `caption`", "did you mean `captions`?"],
    );
    let (_k, path) = temporary("r.yaml", af2::recipe::DEMO.as_bytes());
    fails(
        &["train", &text(&path), "stages.stage1.optim.stepss=3"],
        2,
        &["command line", "stepss", "did you mean `steps`?"],
    );
    fails(&["train", "nowhere.yaml"], 3, &["nowhere.yaml"]);
}

#[test]
fn manifests_with_a_missing_field() {
    let manifest = std::fs::read_to_string(golden("F_tiny/manifests/tiny-AQA/train.json")).unwrap();
    let (_k, path) = temporary(
        "train.json",
        manifest.replacen("\"output\"", "\"answer\"", 1).as_bytes(),
    );
    fails(
        &[
            "trace",
            "--checkpoint",
            &text(&golden("F_tiny")),
            "--manifest",
            &text(&path),
            "--data-root",
            "x",
            "--items",
            "3",
        ],
        6,
        &["train.json", "data.0.output", "expected a string, found nothing"],
    );
}
