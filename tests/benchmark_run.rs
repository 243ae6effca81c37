//! `af2 eval --benchmarks`: from a checkpoint to scores by cards, with controls; killed and gone on with, shared out over ranks, the
//! same numbers each time; and what is wrong is said before anything is asked.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;
#[path = "common/scripted.rs"]
mod scripted;

use common::{af2, golden, wav};
use serde_json::{json, Value};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
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
    let controls = ["--control", "silence,fragment:1,permute:1"];
    let (code, out, err) = set.eval("animals,kitchen", "direct", &[]);
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
