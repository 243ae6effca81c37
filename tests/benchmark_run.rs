//! `af2 eval --benchmarks`: from a checkpoint to scores by cards, with controls; killed and gone on with, shared out over ranks, the
//! same numbers each time; and what is wrong is said before anything is asked.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;
#[path = "common/scripted.rs"]
mod scripted;

use common::{af2, golden, wav};
use scripted::{says, Seen};
use serde_json::{json, Value};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the three cards share.
const CARD: &str = r#"
name: NAME
version: 1
title: NAME
about: A set of the tests.
task: TASK
skills: [sound]
held_out: false
paper: []
splits:
  - name: test
    items: {value: ITEMS, mark: computed, source: the test}
    REFERENCES
scored: test
official_format: FORMAT
files:
  - {name: FILE, from: the test, mark: checked, sha256: null, why: it is made on the spot}
obtain: The test makes it.
licence: unknown
prompt:
  template: "TEMPLATE"
  pool: POOL
  chosen: 0
  mark: checked
  source: ours
options: OPTIONS
LABELS
decoding: {temperature: 0.0, max_new_tokens: 4, num_beams: 1, mark: checked, source: ours}
rules: {official: RULE, fair: FAIR, mark: checked, source: ours}
metric: METRIC
aggregation: micro
chance: CHANCE
constant: {first: null, longest: null, shortest: null, why: not counted}
unit: UNIT
numbers:
  paper: {model: Audio Flamingo 2, value: null, why: not asked}
  previous: null
  later: []
citation: {key: ours, why: not published}
checks: [nothing]
"#;

/// A card's keys that differ.
fn card(values: &[(&str, &str)]) -> String {
    let defaults = [
        ("REFERENCES", ""),
        ("LABELS", ""),
        ("OPTIONS", "none"),
        ("UNIT", "percent"),
        ("METRIC", "accuracy"),
        ("POOL", "[\"What is the sound?\", \"Which sound is this?\"]"),
        ("CHANCE", "{value: null, why: free texts}"),
    ];
    let all = values.iter().chain(&defaults);
    all.fold(CARD.to_owned(), |text, (key, value)| text.replace(key, value))
}

/// A model, cards, official files, sounds and imported manifests.
struct Set(tempfile::TempDir);

impl Set {
    fn new() -> Self {
        let set = Set(tempfile::tempdir().unwrap());
        let base = set.path("base");
        fs::create_dir_all(&base).unwrap();
        for part in ["safe_ckpt", "clap_ckpt", "llm"] {
            symlink(golden("F_tiny").join(part), base.join(part)).unwrap();
        }
        fs::copy(golden("F_tiny/config.yaml"), base.join("af2.yaml")).unwrap();
        fs::create_dir_all(set.path("sounds")).unwrap();
        for n in 0..5 {
            wav(&set.path("sounds").join(format!("{n}.wav")), 16_000 + 3_000 * n);
        }
        let cards = [
            (
                "animals",
                card(&[
                    ("NAME", "animals"),
                    ("TASK", "mcq"),
                    ("ITEMS", "10"),
                    ("FORMAT", "mmau_json"),
                    ("FILE", "animals.json"),
                    ("TEMPLATE", "{question}\\n{options}"),
                    ("OPTIONS", "lettered_lines"),
                    ("POOL", "[]"),
                    ("CHANCE", "{value: 0.25, mark: computed}"),
                    ("RULE", "mmau"),
                    ("FAIR", "choice"),
                ]),
            ),
            (
                "kitchen",
                card(&[
                    ("NAME", "kitchen"),
                    ("TASK", "closed_label"),
                    ("ITEMS", "5"),
                    ("FORMAT", "label_csv"),
                    ("FILE", "labels.csv"),
                    ("TEMPLATE", "{prompt}"),
                    ("CHANCE", "{value: 0.333333, mark: computed}"),
                    ("RULE", "label"),
                    ("FAIR", "label"),
                    (
                        "LABELS",
                        "labels: {of: [kettle, tap, knife], count: 3, mark: checked, source: ours}",
                    ),
                ]),
            ),
            (
                "tales",
                card(&[
                    ("NAME", "tales"),
                    ("TASK", "caption"),
                    ("ITEMS", "5"),
                    ("FORMAT", "clotho_csv"),
                    ("FILE", "captions.csv"),
                    ("REFERENCES", "references: 5"),
                    ("TEMPLATE", "{prompt}"),
                    ("RULE", "exact"),
                    ("FAIR", "exact"),
                    ("METRIC", "cider"),
                    ("UNIT", "plain"),
                ]),
            ),
        ];
        fs::create_dir_all(set.path("cards")).unwrap();
        for (name, text) in cards {
            fs::write(set.path(&format!("cards/{name}.yaml")), text).unwrap();
        }
        let options = ["a dog", "a cat", "a cow", "rain"];
        let animals: Vec<Value> = (0..10)
            .map(|i| json!({
                "id": format!("q{i}"), "audio_id": format!("{}.wav", i % 5), "question": format!("What is heard at {i}?"),
                "choices": options, "answer": options[i % 4], "task": if i < 5 { "sound" } else { "speech" },
                "difficulty": "easy", "sub-category": "x", "category": "y",
            }))
            .collect();
        fs::write(set.path("animals.json"), json!(animals).to_string()).unwrap();
        let labels: String = (0..5)
            .map(|i| format!("{i}.wav,{}\n", ["kettle", "tap", "knife"][i % 3]))
            .collect();
        fs::write(set.path("labels.csv"), format!("filename,label\n{labels}")).unwrap();
        let captions: String = (0..5)
            .map(|i| format!("{i}.wav,a dog barks,a dog,rain falls,it rains,a cat {i}\n"))
            .collect();
        let header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n";
        fs::write(set.path("captions.csv"), header.to_owned() + &captions).unwrap();
        for (card, file) in [
            ("animals", "animals.json"),
            ("kitchen", "labels.csv"),
            ("tales", "captions.csv"),
        ] {
            let (from, audio, out) = (set.word(file), set.word("sounds"), set.word("manifests"));
            let cards = set.word("cards");
            let done = af2(&[
                "benchmark",
                "import",
                card,
                "--cards",
                &cards,
                "--from",
                &from,
                "--audio",
                &audio,
                "--out",
                &out,
                "--accept",
            ]);
            assert_eq!(done.0, 0, "{}{}", done.1, done.2);
        }
        set
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn word(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn command(&self, benchmarks: &str, out: &str, more: &[&str]) -> Vec<String> {
        let (base, manifests, cards, out) = (
            self.word("base"),
            self.word("manifests"),
            self.word("cards"),
            self.word(out),
        );
        let head = [
            "eval",
            "--benchmarks",
            benchmarks,
            "--checkpoint",
            &base,
            "--out",
            &out,
            "--manifests",
            &manifests,
            "--cards",
            &cards,
            "--windows",
            "2",
            "--device",
            "cpu",
            "--model",
            "tiny",
        ];
        head.iter().chain(more).map(|w| (*w).to_owned()).collect()
    }

    fn eval(&self, benchmarks: &str, out: &str, more: &[&str]) -> (i32, String, String) {
        let command = self.command(benchmarks, out, more);
        af2(&command.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A run that trains two stages of a few steps on the set's sounds: `train/checkpoints/STAGE/checkpoint_N.pt`.
    fn train(&self, more: &[&str]) {
        let root = self.0.path().display();
        let item = |i: usize| {
            (
                i.to_string(),
                json!({"name": format!("{i}.wav"), "prompt": "What is heard?", "output": "a sound"}),
            )
        };
        let items: serde_json::Map<_, _> = (0..5).map(item).collect();
        let set = json!({"split": "train", "split_path": "sounds", "flamingo_task": "a", "total_num": 5, "data": items});
        fs::write(self.path("train.json"), set.to_string()).unwrap();
        let stage = |name: &str, trains: &str| {
            format!(
                "\n  - {{name: {name}, train: [{trains}], windows: 2, sets: {{a: 1}}, save: {{every: 2, keep_last: 9}}, \
                 optim: {{steps: 4, batch_size: 2, learning_rate: 1.0e-2, warmup: 1}}}}"
            )
        };
        let text = format!(
            "name: tiny\nseed: 7\ndevice: cpu\noutput: {root}/train\nmodel: {{checkpoint: {root}/base}}\n\
             data: {{root: {root}, sets: {{a: train.json}}}}\nstages:{}{}\n",
            stage("one", "cross_attention, embeddings"),
            stage("two", "audio_transformer"),
        );
        fs::write(self.path("recipe.yaml"), text).unwrap();
        let recipe = self.word("recipe.yaml");
        let (code, out, err) = af2(&[&["train", &recipe][..], more].concat());
        assert_eq!(code, 0, "{out}{err}");
    }

    fn watch(&self, benchmarks: &str, more: &[&str]) -> (i32, String, String) {
        let [run, out, manifests, cards] =
            ["train", "watched", "manifests", "cards"].map(|name| self.word(name));
        let head = [
            "eval",
            "--watch",
            &run,
            "--benchmarks",
            benchmarks,
            "--out",
            &out,
            "--manifests",
            &manifests,
            "--cards",
            &cards,
            "--windows",
            "2",
            "--device",
            "cpu",
        ];
        af2(&[&head[..], more].concat())
    }

    /// (stage, step, benchmark, score) of each line.
    fn scores(&self) -> Vec<(String, u64, String, Option<f64>)> {
        let all = af2::run::benchmarks::read(&self.path("train")).unwrap();
        all.into_iter()
            .map(|s| (s.stage, s.step, s.name, s.score))
            .collect()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn results(&self, run: &str, benchmark: &str) -> Value {
        serde_json::from_str(&self.read(&format!("{run}/{benchmark}/results.json"))).unwrap()
    }

    /// The answers less how long each took.
    fn answers(&self, file: &str) -> Vec<Value> {
        let lines = self.read(file);
        let line = |l: &str| {
            let mut value: Value = serde_json::from_str(l).unwrap();
            value.as_object_mut().unwrap().remove("seconds");
            value
        };
        lines.lines().map(line).collect()
    }
}

const THREE: &str = "animals,kitchen,tales";

#[test]
fn one_command_leads_from_a_checkpoint_to_a_table_and_what_is_there_is_not_asked_again() {
    let set = Set::new();
    let (code, out, err) = set.eval(THREE, "run", &[]);
    assert_eq!(code, 0, "{out}{err}");
    for (benchmark, n) in [("animals", 10), ("kitchen", 5), ("tales", 5)] {
        let results = set.results("run", benchmark);
        assert_eq!(
            (&results["n"], &results["model"]),
            (&json!(n), &json!("tiny")),
            "{benchmark}"
        );
        assert_eq!(results["name"], json!(benchmark));
        assert!(out.contains(benchmark), "{out}");
        assert_eq!(
            set.answers(&format!("run/{benchmark}/predictions.jsonl")).len(),
            n
        );
    }
    // The item's own fields are there to count by.
    let animals = set.results("run", "animals");
    assert_eq!(animals["categories"]["task"]["sound"]["n"], 5);
    assert_eq!(animals["items"][3]["id"], "q3");
    assert_eq!(animals["frame"]["chance"], 0.25);
    assert!(set.results("run", "tales")["score"].is_number());
    assert!(set.read("run/table.md").contains("| animals"));
    assert!(!set.path("run/predictions.partial").exists());
    // Again: nothing is asked, and nothing changes.
    let before = set.read("run/animals/results.json");
    let (code, out, err) = set.eval(THREE, "run", &[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("animals: all answers are there"), "{err}");
    assert_eq!(set.read("run/animals/results.json"), before);
    // Other questions of the same model are asked.
    let (code, out, err) = set.eval("kitchen", "run", &["--paraphrase", "1"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(
        set.answers("run/kitchen/predictions.jsonl")[0]["prompt"],
        "Which sound is this?"
    );
    // Results are made again without a model.
    let (code, out, err) = af2(&[
        "score",
        &set.word("run/animals"),
        "--check",
        "--cards",
        &set.word("cards"),
    ]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn ranks_and_a_kill_change_no_answer() {
    let set = Set::new();
    let controls = ["--control", "silence,permute:3,text_only"];
    let (code, out, err) = set.eval(THREE, "whole", &controls);
    assert_eq!(code, 0, "{out}{err}");
    let files = [
        "animals/predictions.jsonl",
        "animals/controls/permute-2.jsonl",
        "animals/controls/text_only.jsonl",
        "tales/predictions.jsonl",
    ];
    let same = |run: &str| {
        for file in files {
            assert_eq!(
                set.answers(&format!("{run}/{file}")),
                set.answers(&format!("whole/{file}")),
                "{run}/{file}"
            );
        }
        for benchmark in ["animals", "kitchen", "tales"] {
            let (mut one, mut other) = (set.results(run, benchmark), set.results("whole", benchmark));
            // Of how long each answer took is in the file, too.
            for results in [&mut one, &mut other] {
                results.as_object_mut().unwrap().remove("predictions");
            }
            assert_eq!(one, other, "{run}/{benchmark}");
        }
    };
    // Killed as soon as something is answered.
    let begin = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_af2"));
        command.args(set.command(THREE, "killed", &controls));
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut child = begin();
    let there = || fs::read_dir(set.path("killed/predictions.partial")).is_ok_and(|d| d.count() > 0);
    while !there() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, out, err) = set.eval(THREE, "killed", &controls);
    assert_eq!(code, 0, "{out}{err}");
    same("killed");
    // On two ranks.
    let mut command = ["launch", "-n", "2", "--"].map(str::to_owned).to_vec();
    command.extend(set.command(THREE, "ranks", &controls));
    let (code, out, err) = af2(&command.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code, 0, "{out}{err}");
    same("ranks");
}

#[test]
fn controls_ask_the_same_items_otherwise() {
    let set = Set::new();
    let all = "silence,noise,other_clip,fragment:1,permute:2,text_only";
    let (code, out, err) = set.eval("animals", "run", &["--control", all]);
    assert_eq!(code, 0, "{out}{err}");
    let plain = set.answers("run/animals/predictions.jsonl");
    let of = |name: &str| set.answers(&format!("run/animals/controls/{name}.jsonl"));
    for (name, condition) in [
        ("noise", "noise"),
        ("fragment-1", "fragment:1"),
        ("permute-1", "permute:1"),
    ] {
        let own = of(name);
        assert_eq!(own.len(), plain.len());
        assert_eq!(
            (&own[0]["control"], &own[0]["condition"]),
            (&json!(true), &json!(condition))
        );
    }
    // Options move by a place, and the right one with them.
    let moved = &of("permute-1")[1];
    assert_eq!(
        moved["labels"],
        json!(["(A) a cat", "(B) a cow", "(C) rain", "(D) a dog"])
    );
    assert_eq!(
        (&moved["reference"], &moved["order"]),
        (&json!("(A) a cat"), &json!([1, 2, 3, 0]))
    );
    assert!(moved["prompt"]
        .as_str()
        .unwrap()
        .ends_with("(A) a cat\n(B) a cow\n(C) rain\n(D) a dog"));
    // Without sound all items of one wording have one answer; here each has its own words, and the LM its own answer.
    assert!(of("text_only")
        .iter()
        .zip(&plain)
        .any(|(a, b)| a["tokens"] != b["tokens"]));
    let results = set.results("run", "animals");
    let listening = &results["listening"];
    for control in [
        "silence",
        "noise",
        "other_clip",
        "fragment:1",
        "text_only",
        "permute:1",
        "permute:2",
    ] {
        assert_eq!(listening["controls"][control]["n"], 10, "{control}: {listening}");
    }
    assert_eq!(listening["audio_gain"]["against"], "text_only");
    let orders = &listening["permutations"];
    assert_eq!((&orders["n"], &orders["orders"]), (&json!(10), &json!(3.0)));
    let places = orders["positions"].as_object().unwrap();
    assert_eq!(places.values().map(|g| g["n"].as_u64().unwrap()).sum::<u64>(), 30);
    assert!(
        out.contains("text_only") && out.contains("right in every order"),
        "{out}"
    );
    // Of several benchmarks each is asked in the ways that it can be asked.
    let (code, out, err) = set.eval("animals,kitchen", "both", &["--control", "permute:1,rephrase"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        err.contains("permute:1 is not asked of kitchen") && err.contains("rephrase is not asked of animals"),
        "{err}"
    );
    assert_eq!(
        set.answers("both/kitchen/controls/rephrase.jsonl")[0]["prompt"],
        "Which sound is this?"
    );
    assert!(!set.path("both/kitchen/controls/permute-1.jsonl").exists());
    // Captions have no right and wrong: the metric's values for the clips stand side by side.
    let (code, out, err) = set.eval("tales", "captions", &["--control", "silence"]);
    assert_eq!(code, 0, "{out}{err}");
    let captions = set.results("captions", "tales");
    let (beside, gain) = (
        &captions["listening"]["controls"]["silence"],
        &captions["listening"]["audio_gain"],
    );
    let less = captions["score"].as_f64().unwrap() - beside["score"].as_f64().unwrap();
    assert!(
        (beside["difference"].as_f64().unwrap() - less).abs() < 1e-9,
        "{captions}"
    );
    assert_eq!((&beside["n"], gain), (&json!(5), &Value::Null));
    // The control is no part of the score, and made again with it.
    assert_eq!(results["n"], 10);
    let (code, out, err) = af2(&[
        "score",
        &set.word("run/animals"),
        "--check",
        "--cards",
        &set.word("cards"),
    ]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn answers_of_others_to_items_without_ids_are_found_by_the_clips_names() {
    let set = Set::new();
    let lines: String = ["kettle", "tap", "tap", "kettle", "tap"]
        .iter()
        .enumerate()
        .map(|(i, label)| json!({"id": format!("{i}.wav"), "prediction": label}).to_string() + "\n")
        .collect();
    let scored = |text: &str| {
        fs::write(set.path("theirs.jsonl"), text).unwrap();
        let (cards, items, file) = (
            set.word("cards"),
            set.word("manifests/kitchen/test.json"),
            set.word("theirs.jsonl"),
        );
        let named = ["score", "--benchmark", "kitchen", "--json", "--cards", &cards];
        af2(&[&named[..], &["--items", &items, "--predictions", &file]].concat())
    };
    let (code, out, err) = scored(&lines);
    assert_eq!(code, 0, "{out}{err}");
    let results: Value = serde_json::from_str(&out).unwrap();
    // kettle, tap, knife, kettle, tap are right: four of five.
    assert_eq!((&results["n"], &results["score"]), (&json!(5), &json!(0.8)));
    let (code, _, err) = scored(&lines.replace("4.wav", "9.wav"));
    assert!(code == 6 && err.contains("such as 9.wav"), "{err}");
}

#[test]
fn a_limit_samples_and_likelihood_say_what_they_are() {
    let set = Set::new();
    let (code, out, err) = set.eval("animals", "few", &["--limit", "4"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(set.results("few", "animals")["name"], "animals (4 of 10 items)");
    assert!(out.contains("animals (4 of 10 items)"), "{out}");
    let (code, out, err) = set.eval(
        "animals",
        "samples",
        &["--samples", "3", "--temperature", "1.0", "--seed", "5"],
    );
    assert_eq!(code, 0, "{out}{err}");
    // How far a benchmark is, and what of its answers could not be read; no share of right ones without an interval.
    assert!(
        err.contains("animals 10/10, ") && err.contains("% not read, right ") && err.contains(" to "),
        "{err}"
    );
    assert_eq!(set.answers("samples/animals/predictions.jsonl").len(), 30);
    let (code, out, err) = set.eval("animals", "weighed", &["--answer", "likelihood"]);
    assert_eq!(code, 0, "{out}{err}");
    let own = &set.answers("weighed/animals/predictions.jsonl")[0];
    let choices = own["choices"].as_array().unwrap();
    let best = choices
        .iter()
        .max_by(|a, b| a["logprob"].as_f64().partial_cmp(&b["logprob"].as_f64()).unwrap());
    assert_eq!(own["prediction"], best.unwrap()["choice"]);
    assert_eq!(set.results("weighed", "animals")["unread"], 0.0);
    // Both: the model's own words are the score, and what the likeliest options get stands beside it.
    let (code, out, err) = set.eval("animals", "plain", &[]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = set.eval("animals,tales", "two", &["--answer", "both"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("likelihood is not asked of tales"), "{err}");
    let said = |run: &str| -> Vec<Value> {
        let all = set.answers(&format!("{run}/animals/predictions.jsonl"));
        all.iter().map(|a| a["prediction"].clone()).collect()
    };
    assert_eq!(said("two"), said("plain"));
    let likeliest: Vec<Value> = set
        .answers("two/animals/controls/likelihood.jsonl")
        .iter()
        .map(|a| a["prediction"].clone())
        .collect();
    assert_eq!(likeliest, said("weighed"));
    let (both, weighed) = (set.results("two", "animals"), set.results("weighed", "animals"));
    let beside = &both["listening"]["controls"]["likelihood"];
    assert_eq!((&beside["score"], &beside["n"]), (&weighed["score"], &json!(10)));
    assert!(out.contains("likelihood"), "{out}");
    let (code, _, err) = set.eval(
        "animals",
        "twice",
        &["--answer", "likelihood", "--control", "likelihood"],
    );
    assert!(code == 2 && err.contains("--answer both"), "{err}");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_asked() {
    let set = Set::new();
    let cases: [(&str, &[&str], i32, &[&str]); 9] = [
        ("animal", &[], 2, &["animal"]),
        (
            "esc-50",
            &[],
            3,
            &[
                "esc-50: no ",
                "af2 benchmark import esc-50 --from OFFICIAL_FILES --audio DIR",
            ],
        ),
        ("esc-50-zero-shot", &[], 3, &["it compares embeddings"]),
        (
            "animals",
            &["--control", "silent"],
            2,
            &["`silent`", "other_clip"],
        ),
        (
            "animals",
            &["--samples", "3"],
            2,
            &["all samples would be the same", "--temperature"],
        ),
        (
            "kitchen,tales",
            &["--control", "permute:1"],
            2,
            &["--control permute:1", "kitchen, tales"],
        ),
        ("animals", &["--control", "rephrase"], 2, &["--control rephrase"]),
        ("kitchen", &["--paraphrase", "7"], 6, &["prompt.pool", "2 in all"]),
        ("table99", &[], 2, &["table 99"]),
    ];
    for (benchmarks, more, code, pieces) in cases {
        let (found, out, err) = set.eval(benchmarks, "wrong", more);
        assert_eq!(found, code, "{benchmarks} {more:?}: {out}{err}");
        for piece in pieces {
            assert!(err.contains(piece), "{benchmarks} {more:?}: {piece}: {err}");
        }
        assert!(!set.path("wrong/animals/predictions.jsonl").exists());
    }
    // A recipe has keys for what goes with cards on the command line.
    let (code, _, err) = af2(&["eval", "recipes/demo.yaml", "--llm", "x"]);
    assert!(code == 2 && err.contains("--llm goes with --benchmarks"), "{err}");
    // A manifest that is another card's, or was imported by nobody.
    let manifest = set.read("manifests/kitchen/test.json");
    let spoil = |from: &str, to: &str| {
        assert!(manifest.contains(from));
        fs::write(
            set.path("manifests/kitchen/test.json"),
            manifest.replace(from, to),
        )
        .unwrap();
    };
    spoil("\"card\": \"kitchen\"", "\"card\": \"garden\"");
    let (code, _, err) = set.eval("kitchen", "wrong", &[]);
    assert!(
        code == 6 && err.contains("benchmark.card: expected kitchen, found garden"),
        "{err}"
    );
    spoil("\"benchmark\": {", "\"benchmarks\": {");
    let (code, _, err) = set.eval("kitchen", "wrong", &[]);
    assert!(
        code == 6 && err.contains("benchmark: expected what `af2 benchmark import` says"),
        "{err}"
    );
    // A sound that went away.
    fs::write(set.path("manifests/kitchen/test.json"), &manifest).unwrap();
    fs::remove_file(set.path("sounds/3.wav")).unwrap();
    let (code, _, err) = set.eval("kitchen", "wrong", &[]);
    assert!(code != 0 && err.contains("3.wav"), "{err}");
}

#[test]
fn sounds_may_have_moved() {
    let set = Set::new();
    fs::rename(set.path("sounds"), set.path("elsewhere")).unwrap();
    let (code, _, err) = set.eval("kitchen", "run", &[]);
    assert!(code != 0 && err.contains("sounds"), "{err}");
    let audio = format!("kitchen={}", set.word("elsewhere"));
    let (code, out, err) = set.eval("kitchen", "run", &["--audio", &audio]);
    assert_eq!(code, 0, "{out}{err}");
}

/// A server of the set's model, ended when it is dropped.
struct Server(std::process::Child, String);

impl Server {
    fn start(set: &Set) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_af2"));
        command.args([
            "serve",
            "--checkpoint",
            &set.word("base"),
            "--port",
            "0",
            "--name",
            "tiny",
            "--device",
            "cpu",
            "--windows",
            "2",
            "--text-only",
        ]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.split_whitespace().find(|word| word.starts_with("http://"));
        let address = address.map(str::to_owned);
        Server(child, address.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_of_the_same_model_gives_the_same_answers_and_scores() {
    let set = Set::new();
    let controls = ["--control", "silence,fragment:1,permute:1,text_only"];
    let (code, out, err) = set.eval("animals,kitchen", "direct", &["--control", "text_only"]);
    assert_eq!(code, 0, "{out}{err}");
    let server = Server::start(&set);
    let asked = |run: &str, more: &[&str]| {
        let (manifests, cards, out) = (set.word("manifests"), set.word("cards"), set.word(run));
        let url = server.1.clone();
        let head = [
            "eval",
            "--benchmarks",
            "animals,kitchen",
            "--endpoint",
            &url,
            "--model",
            "tiny",
            "--out",
            &out,
            "--manifests",
            &manifests,
            "--cards",
            &cards,
            "--windows",
            "2",
        ];
        af2(&[&head[..], more].concat())
    };
    let (code, out, err) = asked("served", &[]);
    assert_eq!(code, 0, "{out}{err}");
    for benchmark in ["animals", "kitchen"] {
        let words = |run: &str| -> Vec<(Value, Value)> {
            let all = set.answers(&format!("{run}/{benchmark}/predictions.jsonl"));
            all.into_iter()
                .map(|a| (a["id"].clone(), a["prediction"].clone()))
                .collect()
        };
        assert_eq!(words("served"), words("direct"), "{benchmark}");
        let (served, direct) = (set.results("served", benchmark), set.results("direct", benchmark));
        for key in ["score", "interval", "n", "items", "categories", "frame"] {
            assert_eq!(served[key], direct[key], "{benchmark}: {key}");
        }
    }
    // The other ways are asked as well; a server hears no silence of ours otherwise than another sound.
    let (code, out, err) = asked("controls", &controls);
    assert_eq!(code, 0, "{out}{err}");
    let listening = &set.results("controls", "animals")["listening"];
    assert_eq!(listening["controls"]["permute:1"]["n"], 10, "{listening}");
    // Without a sound the LM answers alone, here and there.
    let alone = |run: &str| -> Vec<Value> {
        let all = set.answers(&format!("{run}/animals/controls/text_only.jsonl"));
        all.into_iter().map(|a| a["prediction"].clone()).collect()
    };
    assert_eq!(alone("controls"), alone("direct"));
    // What was answered is stored: nothing is asked again, not even of a server that is gone.
    drop(server);
    let (code, out, err) = set.eval("kitchen", "direct", &["--endpoint", "http://127.0.0.1:9/v1"]);
    assert!(code == 2 && err.contains("found both"), "{out}{err}");
}

/// Checkpoints hold what trains and no more: each is the model that its stage has begun with, and what it has learned since.
#[test]
fn each_checkpoint_of_a_run_is_asked_once_as_the_model_that_it_was() {
    let set = Set::new();
    set.train(&[]);
    let few = ["--limit", "3", "--once"];
    let (code, out, err) = set.watch("kitchen,tales", &few);
    assert_eq!(code, 0, "{out}{err}");
    let first = set.scores();
    let places: Vec<(&str, u64, &str)> = first
        .iter()
        .map(|(stage, step, name, _)| (stage.as_str(), *step, name.as_str()))
        .collect();
    let names = ["kitchen (3 of 5 items)", "tales (3 of 5 items)"];
    let all = [("one", 2), ("one", 4), ("two", 2), ("two", 4)];
    let expected: Vec<(&str, u64, &str)> = (all.iter())
        .flat_map(|(stage, step)| names.map(|name| (*stage, *step, name)))
        .collect();
    assert_eq!(places, expected);
    // The table at the end, and where the run has its curves.
    assert!(
        out.contains("checkpoint") && out.contains("kitchen (3 of 5 items)"),
        "{out}"
    );
    let board = fs::read_dir(set.path("train/events/benchmarks")).unwrap();
    assert!(board
        .flatten()
        .any(|f| f.file_name().to_string_lossy().contains("tfevents")));
    let (code, out, err) = af2(&["report", &set.word("train")]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("kitchen (3 of 5 items)") && out.contains("curves-benchmarks.svg"),
        "{out}"
    );
    assert!(set.read("train/table.md").contains("kitchen (3 of 5 items)"));
    assert!(set
        .read("train/curves-benchmarks.svg")
        .contains("kitchen (3 of 5"));
    // The last checkpoint of a stage answers as the model that the stage has written.
    let last = set.word("train/checkpoints/two");
    let command = set.command("kitchen", "last", &["--limit", "3", "--checkpoint", &last]);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let base = set.word("base");
    // One --checkpoint, the later.
    let at = command.iter().position(|w| *w == base).unwrap();
    let command = [&command[..at - 1], &command[at + 1..]].concat();
    let (code, out, err) = af2(&command);
    assert_eq!(code, 0, "{out}{err}");
    let of = |folder: &str| set.answers(&format!("{folder}/kitchen/predictions.jsonl"));
    assert_eq!(of("watched/two/checkpoint_1"), of("last"));
    let asked = |folder: &str| -> Value {
        serde_json::from_str(&set.read(&format!("{folder}/kitchen/asked.json"))).unwrap()
    };
    assert_eq!(
        asked("watched/two/checkpoint_1")["evaluation"],
        asked("last")["evaluation"]
    );
    assert_ne!(
        asked("watched/two/checkpoint_0")["evaluation"],
        asked("last")["evaluation"]
    );
    // Again: nothing is asked, and without --once the run is done.
    for more in [&few[..], &few[..2]] {
        let (code, out, err) = set.watch("kitchen,tales", more);
        assert_eq!(code, 0, "{out}{err}");
        assert!(
            !err.contains(": step ") && out.contains("kitchen (3 of 5 items)"),
            "{out}{err}"
        );
        assert_eq!(set.scores(), first);
    }
    // A further checkpoint, and one that is broken, which keeps none from its turn.
    let folder = set.path("train/checkpoints/two");
    fs::write(folder.join("checkpoint_2.pt"), "broken").unwrap();
    fs::copy(folder.join("checkpoint_0.pt"), folder.join("checkpoint_3.pt")).unwrap();
    let (code, out, err) = set.watch("kitchen,tales", &few);
    assert_eq!(code, 7, "{out}{err}");
    assert!(
        err.contains("two/checkpoint_2: not asked: ")
            && err.contains("checkpoint_2.pt")
            && err.contains("two/checkpoint_3: step 2"),
        "{err}"
    );
    let more = set.scores();
    let new: Vec<(u64, &str)> = more[first.len()..]
        .iter()
        .map(|(_, step, name, _)| (*step, name.as_str()))
        .collect();
    // Behind the copy of an earlier step the stage's own model is one that no checkpoint is.
    assert_eq!(new, [(2, names[0]), (2, names[1]), (4, names[0]), (4, names[1])]);
    // Asked otherwise, it is asked again.
    fs::remove_file(folder.join("checkpoint_2.pt")).unwrap();
    let (code, out, err) = set.watch("kitchen", &["--limit", "2", "--once"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(set.scores()[more.len()..]
        .iter()
        .all(|(.., name, _)| name == "kitchen (2 of 5 items)"));
}

#[test]
fn a_run_is_watched_while_it_trains() {
    let set = Set::new();
    set.train(&["stages.one.optim.steps=2", "stages.two.optim.steps=2"]);
    fs::remove_file(set.path("train/checkpoints/two/done.json")).unwrap();
    // Who watches waits for what is written next, and ends with the run.
    let [run, out, manifests, cards] = ["train", "watched", "manifests", "cards"].map(|name| set.word(name));
    let mut child = Command::new(env!("CARGO_BIN_EXE_af2"))
        .args([
            "eval",
            "--watch",
            &run,
            "--benchmarks",
            "kitchen",
            "--out",
            &out,
            "--manifests",
            &manifests,
            "--cards",
            &cards,
        ])
        .args([
            "--windows",
            "2",
            "--device",
            "cpu",
            "--limit",
            "2",
            "--every",
            "1",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for its next checkpoint") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended");
    }
    assert_eq!(set.scores().len(), 2);
    // A second one may not write beside it.
    let (code, out, err) = set.watch("kitchen", &["--once"]);
    assert!(
        code == 3 && err.contains("another run has this folder"),
        "{out}{err}"
    );
    // Training goes on meanwhile: it has its own files.
    let recipe = set.word("recipe.yaml");
    let (code, out, err) = af2(&[
        "train",
        &recipe,
        "stages.one.optim.steps=2",
        "stages.two.optim.steps=6",
        "--resume",
        "auto",
    ]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(child.wait().unwrap().success());
    let steps: Vec<(String, u64)> = set
        .scores()
        .into_iter()
        .map(|(stage, step, ..)| (stage, step))
        .collect();
    let of = |stage: &str, steps: &[u64]| -> Vec<(String, u64)> {
        steps.iter().map(|s| (stage.to_owned(), *s)).collect()
    };
    assert_eq!(steps, [of("one", &[2]), of("two", &[2, 4, 6])].concat());
}

#[test]
fn what_cannot_be_watched_is_said() {
    let set = Set::new();
    let (code, _, err) = set.watch("kitchen", &["--once"]);
    assert!(
        code == 6 && err.contains("plan.yaml: expected what af2 train writes"),
        "{err}"
    );
    let (code, _, err) = set.watch("kitchen", &["--llm", "x"]);
    assert!(code == 2 && err.contains("--llm goes with --checkpoint"), "{err}");
    let (code, _, err) = set.watch("kitchen", &["--checkpoint", "x"]);
    assert!(code == 2 && err.contains("--checkpoint"), "{err}");
}

#[test]
fn a_cascade_asks_of_captions_which_are_made_once() {
    let set = Set::new();
    let (code, out, err) = set.eval("animals,kitchen", "run", &["--cascade", "1"]);
    assert_eq!(code, 0, "{out}{err}");
    // Five clips: the first is one second long, the others less than two.
    assert!(err.contains("9 pieces of 1 s, 9 to caption"), "{err}");
    for benchmark in ["animals", "kitchen"] {
        let captions = set.answers(&format!("run/{benchmark}/captions.jsonl"));
        assert_eq!(captions.len(), 9);
        assert_eq!(
            (&captions[1]["start"], &captions[1]["end"]),
            (&json!(0.0), &json!(1.0))
        );
        assert_eq!(
            (&captions[2]["start"], &captions[2]["end"]),
            (&json!(1.0), &json!(1.1875))
        );
        assert!(captions[0]["prompt"]
            .as_str()
            .unwrap()
            .contains("everything that is heard"));
    }
    let answers = set.answers("run/animals/predictions.jsonl");
    assert_eq!(
        (&answers[0]["condition"], &answers[0]["control"]),
        (&json!("cascade:1"), &json!(false))
    );
    // The question is the item's own, for the rules that look at it; captions have a file.
    assert!(answers[0]["prompt"]
        .as_str()
        .unwrap()
        .starts_with("What is heard at 0?"));
    let results = set.results("run", "animals");
    assert_eq!(
        (&results["name"], &results["condition"], &results["n"]),
        (&json!("animals (cascade:1)"), &json!("cascade:1"), &json!(10))
    );
    assert!(out.contains("animals (cascade:1)"), "{out}");
    let asked: Value = serde_json::from_str(&set.read("run/animals/asked.json")).unwrap();
    assert_eq!(asked["cascade"]["seconds"], 1);
    let (code, out, err) = af2(&[
        "score",
        &set.word("run/animals"),
        "--check",
        "--cards",
        &set.word("cards"),
    ]);
    assert_eq!(code, 0, "{out}{err}");
    // Again nothing is asked; with other words for the items no caption is.
    let (code, out, err) = set.eval("animals,kitchen", "run", &["--cascade", "1"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        err.contains("animals: all answers are there") && !err.contains("to caption"),
        "{err}"
    );
    let (code, out, err) = set.eval("kitchen", "run", &["--cascade", "1", "--paraphrase", "1"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        !err.contains("to caption") && !err.contains("all answers are there"),
        "{err}"
    );
    // Other words for the pieces are other captions, beside those that are there.
    let other = [
        "--cascade",
        "1",
        "--cascade-prompt",
        "What is it?",
        "--limit",
        "2",
    ];
    let (code, out, err) = set.eval("kitchen", "run", &other);
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("3 pieces of 1 s, 3 to caption"), "{err}");
    assert_eq!(set.answers("run/kitchen/captions.jsonl").len(), 12);
    // What was heard and what was read are two things.
    let (code, _, err) = set.eval("animals", "run", &[]);
    assert!(
        code == 6 && err.contains("expected answers of: heard, found cascade:1"),
        "{err}"
    );
    let (code, out, err) = set.eval("animals", "heard", &[]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, _, err) = set.eval("animals", "heard", &["--cascade", "1"]);
    assert!(
        code == 6 && err.contains("expected answers of: cascade:1, found heard"),
        "{err}"
    );
    assert!(!set.path("heard/animals/captions.jsonl").exists());
    let (code, _, err) = set.eval("animals", "long", &["--cascade", "21"]);
    assert!(
        code == 2 && err.contains("--cascade 21: expected at most 20 s"),
        "{err}"
    );
    let (code, _, err) = set.eval("animals", "long", &["--cascade", "1", "--control", "silence"]);
    assert!(code == 2 && err.contains("--control"), "{err}");
}

#[test]
fn a_cascade_that_is_killed_or_shared_out_gives_the_same_answers() {
    let set = Set::new();
    let cascade = ["--cascade", "1"];
    let (code, out, err) = set.eval("animals,tales", "whole", &cascade);
    assert_eq!(code, 0, "{out}{err}");
    let same = |run: &str| {
        for file in [
            "animals/predictions.jsonl",
            "tales/predictions.jsonl",
            "animals/captions.jsonl",
        ] {
            assert_eq!(
                set.answers(&format!("{run}/{file}")),
                set.answers(&format!("whole/{file}")),
                "{run}/{file}"
            );
        }
        assert!(!set.path(&format!("{run}/predictions.partial")).exists());
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_af2"))
        .args(set.command("animals,tales", "killed", &cascade))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let there = || fs::read_dir(set.path("killed/predictions.partial")).is_ok_and(|d| d.count() > 0);
    while !there() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, out, err) = set.eval("animals,tales", "killed", &cascade);
    assert_eq!(code, 0, "{out}{err}");
    same("killed");
    let mut command = ["launch", "-n", "2", "--"].map(str::to_owned).to_vec();
    command.extend(set.command("animals,tales", "ranks", &cascade));
    let (code, out, err) = af2(&command.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code, 0, "{out}{err}");
    same("ranks");
}

#[test]
fn a_cascade_asks_a_server_for_captions_and_then_without_a_sound() {
    let set = Set::new();
    let server = scripted::Server::new(|seen| {
        let asked = seen.body.contains("[0:00-0:01]");
        // Captions come first and have sounds, items have captions.
        assert_ne!(asked, seen.body.contains("input_audio"), "{}", seen.body);
        match asked {
            true if seen.body.contains("[0:01-0:02] a kettle sings") => scripted::says("kettle"),
            true => scripted::says("knife"),
            false => scripted::says("a kettle sings"),
        }
    });
    let (manifests, cards, out, url) = (
        set.word("manifests"),
        set.word("cards"),
        set.word("served"),
        server.url(),
    );
    let ask = || {
        af2(&[
            "eval",
            "--benchmarks",
            "kitchen",
            "--endpoint",
            &url,
            "--model",
            "deaf",
            "--out",
            &out,
            "--manifests",
            &manifests,
            "--cards",
            &cards,
            "--cascade",
            "1",
        ])
    };
    let (code, said, err) = ask();
    assert_eq!(code, 0, "{said}{err}");
    // Nine pieces; the four clips of two pieces read alike here, and what reads alike is asked once.
    let seen = server.seen();
    let heard = seen
        .iter()
        .filter(|seen| seen.body.contains("input_audio"))
        .count();
    assert_eq!((heard, seen.len() - heard), (9, 2));
    let answers = set.answers("served/kitchen/predictions.jsonl");
    let answers: Vec<&Value> = answers.iter().map(|a| &a["prediction"]).collect();
    // The first clip has one piece.
    assert_eq!(answers, ["knife", "kettle", "kettle", "kettle", "kettle"]);
    assert_eq!(set.answers("served/kitchen/captions.jsonl").len(), 9);
    assert_eq!(set.results("served", "kitchen")["name"], "kitchen (cascade:1)");
    let (code, said, err) = ask();
    assert_eq!(code, 0, "{said}{err}");
    assert_eq!(server.calls(), 11);
}

#[test]
fn what_a_judge_marks_is_asked_and_its_command_is_printed() {
    let set = Set::new();
    let row = |i: usize| json!({"audio_id": format!("{i}.wav"), "instruction": format!("Why at {i}?"), "output": "It rains."});
    let rows: Vec<Value> = (0..3).map(row).collect();
    fs::write(set.path("openaqa.json"), json!(rows).to_string()).unwrap();
    let (from, audio, out) = (
        set.word("openaqa.json"),
        set.word("sounds"),
        set.word("manifests"),
    );
    let head = ["benchmark", "import", "openaqa", "--accept"];
    let (code, said, err) = af2(&[&head[..], &["--from", &from, "--audio", &audio, "--out", &out]].concat());
    assert_eq!(code, 0, "{said}{err}");
    let (code, out, err) = set.eval("kitchen,openaqa", "run", &["--max-new-tokens", "4"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(set.results("run", "kitchen")["n"], 5);
    assert_eq!(set.answers("run/openaqa/predictions.jsonl").len(), 3);
    let line = out.lines().find(|line| line.starts_with("openaqa: a judge"));
    let command = line.unwrap().split("af2 ").nth(1).unwrap();
    let command: Vec<&str> = command
        .split_whitespace()
        .take_while(|w| *w != "--endpoint")
        .collect();
    let (code, out, err) = af2(&[&command[..], &["--estimate"]].concat());
    assert!(code == 0 && out.contains("3 requests to ask"), "{out}{err}");
}

/// A card whose answers a judge marks, by a protocol.
fn marked(name: &str, prompt: &str) -> String {
    let judge = format!(
        "judge: {{model: null, prompt: {prompt}, scale: [1.0, 5.0], protocol: ours, answer: marks, temperature: null, runs: 1, \
         mark: checked, source: ours}}"
    );
    card(&[
        ("NAME", name),
        ("TASK", "open_judge"),
        ("ITEMS", "3"),
        ("FORMAT", "openaqa_json"),
        ("FILE", "stories.json"),
        ("TEMPLATE", "{question}"),
        ("POOL", "[]"),
        ("RULE", "judge"),
        ("FAIR", "judge"),
        ("METRIC", "judge_mean"),
        ("LABELS", &judge),
    ])
}

impl Set {
    /// Three open questions, under a card that a judge marks and one whose judge is told nothing.
    fn with_stories() -> Self {
        let set = Set::new();
        let row = |i: usize| json!({"audio_id": format!("{i}.wav"), "instruction": format!("Why at {i}?"), "output": "It rains."});
        let rows: Vec<Value> = (0..3).map(row).collect();
        fs::write(set.path("stories.json"), json!(rows).to_string()).unwrap();
        for (name, prompt) in [("stories", "openaqa"), ("riddles", "null")] {
            fs::write(set.path(&format!("cards/{name}.yaml")), marked(name, prompt)).unwrap();
            let paths = ["stories.json", "sounds", "manifests", "cards"].map(|p| set.word(p));
            let [from, audio, out, cards] = &paths;
            let head = [
                "benchmark",
                "import",
                name,
                "--accept",
                "--from",
                from,
                "--audio",
                audio,
            ];
            let (code, said, err) = af2(&[&head[..], &["--out", out, "--cards", cards]].concat());
            assert_eq!(code, 0, "{said}{err}");
        }
        set
    }

    /// With a key and without proxies.
    fn judged(&self, arguments: &[String]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_af2"));
        command.args(arguments).env("AF2_API_KEY", "sk-0123456789abcdef");
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        let out = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
    }

    fn marks(&self, benchmarks: &str, out: &str, more: &[&str]) -> (i32, String, String) {
        let few = ["--max-new-tokens", "4", "--wait", "0.005"];
        self.judged(&self.command(benchmarks, out, &[&few[..], more].concat()))
    }
}

/// 3, 4 and 5 for the first question, 2 for all of the second, nothing that can be read for the third.
fn judge(seen: &Seen) -> scripted::Reply {
    let first = seen.json()["messages"][1]["content"].as_str().unwrap().to_owned();
    match first {
        of if of.contains("Why at 0?") => says(r#"{"clarity": 3, "correctness": 4, "engagement": 5}"#),
        of if of.contains("Why at 1?") => says(r#"{"clarity": 2, "correctness": 2, "engagement": 2}"#),
        _ => says("well"),
    }
}

#[test]
fn one_command_leads_to_a_table_with_what_a_judge_has_marked() {
    let set = Set::with_stories();
    let server = scripted::Server::new(judge);
    let url = server.url();
    let asks = ["--judge-endpoint", &url];
    let (code, out, err) = set.marks("stories,kitchen", "run", &asks);
    assert_eq!(code, 0, "{out}{err}");
    let scored = set.results("run", "stories");
    assert!(
        (scored["score"].as_f64().unwrap() - 0.6).abs() < 1e-12,
        "{scored}"
    );
    assert_eq!(
        (&scored["n"], &scored["judge"]["unscored"], &scored["model"]),
        (&json!(2), &json!(1), &json!("tiny"))
    );
    assert_eq!(scored["judge"]["model"], "gpt-4o-2024-11-20");
    // Two once, the third with two more tries; one table over both, in the order in which they were asked for.
    assert_eq!(server.calls(), 5);
    assert_eq!(
        server.seen()[0].headers["authorization"],
        "Bearer sk-0123456789abcdef"
    );
    let table = set.read("run/table.md");
    let row = |name: &str| {
        table
            .lines()
            .position(|l| l.starts_with(&format!("| {name}")))
            .unwrap()
    };
    assert!(row("stories") < row("kitchen"), "{table}");
    assert!(
        table.contains("| judge_mean | 60.0 | 40.0 to 80.0 | 2 |"),
        "{table}"
    );
    let who = table.lines().find(|l| l.contains("openaqa 1")).unwrap();
    assert!(
        who.contains("gpt-4o-2024-11-20") && who.contains("| 1 |") && who.contains("46.7 to 73.3"),
        "{who}"
    );
    assert!(
        out.contains("60.0") && !out.contains("a judge marks its answers"),
        "{out}"
    );
    assert!(err.contains("5 requests sent (0 again)"), "{err}");
    // Again: nobody is asked, and nothing changes.
    let written =
        |run: &str| ["results.json", "judgements.jsonl"].map(|f| set.read(&format!("{run}/stories/{f}")));
    let before = written("run");
    let (code, out, err) = set.marks("stories,kitchen", "run", &asks);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        server.calls() == 5 && err.contains("0 requests sent (0 again), 5 answers were there"),
        "{err}"
    );
    assert!(before == written("run") && table == set.read("run/table.md"));
    // `af2 judge run` writes the same bytes, and finds the answers.
    let by_itself = |run: &str, more: &[&str]| {
        let own = set.word(&format!("{run}/stories"));
        let (predictions, items, cards) = (
            format!("{own}/predictions.jsonl"),
            set.word("manifests/stories/test.json"),
            set.word("cards"),
        );
        for file in ["results.json", "judgements.jsonl"] {
            fs::remove_file(Path::new(&own).join(file)).unwrap();
        }
        let head = [
            "judge",
            "run",
            "--benchmark",
            "stories",
            "--cards",
            &cards,
            "--predictions",
            &predictions,
        ];
        let rest = ["--items", &items, "--out", &own, "--of", "tiny"];
        let all = [&head[..], &rest, more].concat();
        let done = set.judged(&all.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        assert_eq!(done.0, 0, "{}{}", done.1, done.2);
    };
    by_itself("run", &["--offline"]);
    assert!(before == written("run"));
    // What it has written is found as well: of predictions that are scored again nothing is asked.
    by_itself("run", &["--endpoint", &url, "--wait", "0.005"]);
    let (code, out, err) = set.marks("stories", "run", &[&asks[..], &["--score-only"]].concat());
    assert!(code == 0 && out.contains("60.0"), "{out}{err}");
    assert_eq!(server.calls(), 5);
    assert!(before == written("run"));
    // Of several ranks the first has them marked.
    let few = ["--max-new-tokens", "4", "--wait", "0.005"];
    let mut command = ["launch", "-n", "2", "--"].map(str::to_owned).to_vec();
    command.extend(set.command("stories,kitchen", "ranks", &[&few[..], &asks].concat()));
    let (code, out, err) = set.judged(&command);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(server.calls(), 10);
    assert_eq!(set.results("ranks", "stories")["items"], scored["items"]);
    // A server that fails for a while: what rules have read is shown, and the same command asks what is left.
    let busy = scripted::Server::new(|seen| match seen.number {
        0 => judge(seen),
        _ => scripted::fails(503, "busy"),
    });
    let url = busy.url();
    let late = ["--judge-endpoint", &url, "--tries", "2", "--at-once", "1"];
    let (code, out, err) = set.marks("stories,kitchen", "late", &late);
    assert_eq!(code, 15, "{out}{err}");
    assert!(
        err.contains("judgements have no answer") && out.contains("kitchen"),
        "{out}{err}"
    );
    assert!(!set.path("late/stories/results.json").exists());
    let (code, out, err) = set.marks("stories,kitchen", "late", &asks);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(server.calls(), 14);
    assert_eq!(set.results("late", "stories")["items"], scored["items"]);
}

#[test]
fn a_model_at_hand_marks_behind_the_asking() {
    let set = Set::with_stories();
    let lm = set.path("tiny-judge");
    fs::create_dir(&lm).unwrap();
    for file in fs::read_dir(golden("F_tiny/llm")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), lm.join(file.file_name())).unwrap();
    }
    let config = fs::read_to_string(lm.join("config.json")).unwrap();
    let config = config.replace(
        "\"max_position_embeddings\": 1024",
        "\"max_position_embeddings\": 16384",
    );
    fs::write(lm.join("config.json"), config).unwrap();
    let folder = lm.display().to_string();
    // It has never learnt to mark: nothing can be read, which is no score, and said as such.
    let (code, out, err) = set.marks("stories,kitchen", "run", &["--judge-checkpoint", &folder]);
    assert!(
        code == 6 && err.contains("none of 3 items; judgements.jsonl says why"),
        "{out}{err}"
    );
    assert!(
        out.contains("kitchen") && set.read("run/table.md").contains("| kitchen"),
        "{out}"
    );
    let judgements = set.read("run/stories/judgements.jsonl");
    assert!(
        judgements.lines().count() == 3 && judgements.contains("tiny-judge@"),
        "{judgements}"
    );
    assert!(!set.path("run/stories/results.json").exists());
}

#[test]
fn what_a_judge_cannot_do_is_said_before_anything_is_asked() {
    let set = Set::with_stories();
    let audio = golden("F_tiny").display().to_string();
    let file = set.word("stories.json");
    let here = "http://127.0.0.1:9/v1";
    let cases: [(&str, &[&str], i32, &str); 8] = [
        (
            "riddles",
            &["--judge-endpoint", here],
            2,
            "the card of riddles names no judge's protocol",
        ),
        (
            "stories",
            &["--judge-endpoint", "nowhere"],
            2,
            "an address such as",
        ),
        (
            "stories",
            &["--judge-endpoint", here, "--judge-key-file", "nowhere"],
            3,
            "nowhere",
        ),
        (
            "stories",
            &["--judge-endpoint", here, "--judge-checkpoint", &audio],
            2,
            "cannot be used with",
        ),
        ("stories", &["--judge-model", "x"], 2, "--judge-endpoint"),
        (
            "stories",
            &["--judge-checkpoint", &audio],
            7,
            "found a checkpoint of Audio Flamingo 2",
        ),
        ("stories", &["--judge-checkpoint", &file], 7, "found a file"),
        (
            "stories",
            &["--judge-endpoint", here, "--samples", "2", "--temperature", "1.0"],
            2,
            "expected one answer an item for a judge",
        ),
    ];
    for (benchmark, more, code, says) in cases {
        let (found, out, err) = set.marks(benchmark, "wrong", more);
        assert!(
            found == code && err.contains(says),
            "{benchmark} {more:?}: {out}{err}"
        );
        assert!(
            !set.path(&format!("wrong/{benchmark}/predictions.jsonl")).exists(),
            "{more:?}"
        );
    }
    let (code, _, err) = set.marks("kitchen", "rules", &["--judge-endpoint", here]);
    assert!(code == 0 && err.contains("no judge is needed"), "{err}");
}
