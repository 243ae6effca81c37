//! How fast predictions are scored: a million multiple-choice answers from file to results, captions, resamples of the bootstrap, the
//! list of benchmarks.
//!
//! `make bench-eval` runs this: each part beside the same work in Python in the same run. Items, answers and captions are drawn with
//! a seed, and both sides must come to the same scores. Seconds are the machine's; ratios are what compares.
//!
//! ```text
//! make bench-eval ARGS='items captions'     some parts of it (items, captions, bootstrap, list)
//! make bench-eval ARGS='--no-peer'          without Python
//! AF2_BENCH_ITEMS=100000 AF2_BENCH_ROUNDS=5 items (1,000,000), rounds of both sides (3)
//! ```
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout
)]

use af2::benchmark::Registry;
use af2::eval::scoring::{self, Kind, Source};
use af2::metrics::bootstrap::Bootstrap;
use af2::metrics::captions;
use af2::metrics::statistics::clusters::Clusters;
use af2::report::table::Table;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const PARTS: [&str; 4] = ["items", "captions", "bootstrap", "list"];
/// The card whose format the items have.
const BENCHMARK: &str = "mmau-mini-v05.15.25";
/// Python's loop goes over this share of the items.
const SHARE: usize = 10;
/// Clips of AudioCaps' test set, and captions of each.
const CLIPS: (usize, usize) = (975, 5);
/// Clusters of a resample.
const CLUSTERS: usize = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let named = |word: &str| arguments.iter().any(|a| a == word);
    let peer = (!named("--no-peer"))
        .then(|| std::env::var_os("AF2_PEER_PYTHON").expect("`make bench-eval` sets AF2_PEER_PYTHON"));
    let all = !PARTS.iter().any(|part| named(part));
    let bench = Bench {
        peer,
        rounds: environment("AF2_BENCH_ROUNDS", 3).max(1),
        folder: tempfile::tempdir().expect("a temporary folder").keep(),
    };
    let parts: [fn(&Bench); 4] = [items, captions_of, bootstrap, list];
    for (name, part) in PARTS.into_iter().zip(parts) {
        if all || named(name) {
            part(&bench);
        }
    }
    std::fs::remove_dir_all(&bench.folder).expect("to take the folder away again");
    println!(
        "{} cores, medians of {} rounds",
        af2::cores::allowed(),
        bench.rounds
    );
}

struct Bench {
    peer: Option<OsString>,
    rounds: usize,
    folder: PathBuf,
}

impl Bench {
    /// What Python says to a task; none without it.
    fn ask(&self, task: &Value) -> Option<Value> {
        let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/eval.py");
        let mut command = Command::new(self.peer.as_ref()?);
        command.arg(peer).arg(task.to_string()).stderr(Stdio::inherit());
        let done = command.output().expect("to run the peer");
        assert!(done.status.success(), "the peer ended with {}", done.status);
        let text = String::from_utf8(done.stdout).expect("UTF-8");
        let last = text.lines().last().expect("a line of JSON");
        Some(serde_json::from_str(last).expect("what the peer prints"))
    }

    /// Both sides, round after round, neither always the first.
    fn rounds(&self, what: &str, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
        for round in 0..self.rounds {
            eprintln!("{what}, round {} of {} …", round + 1, self.rounds);
            if round % 2 == 0 {
                ours();
                theirs();
            } else {
                theirs();
                ours();
            }
        }
    }
}

/// Seconds by name, a number a round.
#[derive(Default)]
struct Times(BTreeMap<String, Vec<f64>>);

impl Times {
    fn time<T>(&mut self, name: &str, f: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = f();
        self.add(name, start.elapsed().as_secs_f64());
        value
    }

    fn add(&mut self, name: &str, seconds: f64) {
        self.0.entry(name.to_owned()).or_default().push(seconds);
    }

    fn median(&self, name: &str) -> f64 {
        let mut all = self.0.get(name).cloned().unwrap_or_default();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn sum(&self, names: &[&str]) -> f64 {
        names.iter().map(|n| self.median(n)).sum()
    }
}

fn environment(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |v| {
        v.parse()
            .unwrap_or_else(|_| panic!("{name}: expected a number, found `{v}`"))
    })
}

fn milliseconds(seconds: f64) -> String {
    match seconds {
        s if s.is_nan() => "–".to_owned(),
        s if s < 0.0005 => format!("{:.4}", 1000.0 * s),
        s if s < 1.0 => format!("{:.1}", 1000.0 * s),
        s => format!("{:.0}", 1000.0 * s),
    }
}

fn ratio(theirs: f64, ours: f64) -> String {
    match theirs / ours {
        r if r.is_nan() => "–".to_owned(),
        r if r < 100.0 => format!("{r:.1}"),
        r => format!("{r:.0}"),
    }
}

fn af2() -> Command {
    Command::new(env!("CARGO_BIN_EXE_af2"))
}

const SOUNDS: [&str; 24] = [
    "A dog barking",
    "Rain on a roof",
    "Car horn",
    "Children playing",
    "Bass guitar",
    "Acoustic guitar",
    "A minor",
    "C major",
    "4/4",
    "Footsteps on gravel",
    "The man is angry",
    "The woman is happy",
    "Door slam",
    "Glass breaking",
    "Wind",
    "Thunder",
    "Church bells",
    "Electric piano",
    "Two people",
    "A crowd",
    "Running water",
    "Train passing by",
    "Bird song",
    "Engine idling",
];
const QUESTIONS: [&str; 6] = [
    "Which sound is heard first in the clip?",
    "What is the most likely source of the sound that is heard throughout the recording?",
    "Based on the given audio, what is the speaker's emotion?",
    "Which instrument plays the melody?",
    "What happens after the second event?",
    "Which of the following describes the background of this recording best?",
];

/// An item as MMAU has it, with an answer in one of the forms that models have.
fn item(rng: &mut ChaCha8Rng) -> Value {
    let mut choices = SOUNDS;
    let (choices, _) = choices.partial_shuffle(rng, 4);
    let right = rng.gen_range(0..4usize);
    let said = if rng.gen_bool(0.6) {
        right
    } else {
        rng.gen_range(0..4)
    };
    let (text, letter) = (choices[said], char::from(b'A' + said as u8));
    let answer = match rng.gen_range(0..12) {
        0..4 => text.to_owned(),
        4 | 5 => format!("({letter}) {text}"),
        6 => format!("{}. {}", letter.to_ascii_lowercase(), text.to_lowercase()),
        7 => letter.to_string(),
        8 => format!("The answer is {text}."),
        9 => format!(
            "There is {} at first, but what goes on throughout is something else, so the correct answer is ({letter}).",
            choices[rng.gen_range(0..4)].to_lowercase()
        ),
        10 => ["", "I'm sorry, but I can't listen to audio.", "Nothing of that kind is heard."][rng.gen_range(0..3)].to_owned(),
        _ => format!("**{text}**\n\nIt is heard \"clearly\" from 0:03 on."),
    };
    let id = format!(
        "{:08x}-{:04x}-{:04x}-{:012x}",
        rng.gen::<u32>(),
        rng.gen::<u16>(),
        rng.gen::<u16>(),
        rng.gen::<u64>() >> 16
    );
    let question = QUESTIONS.choose(rng);
    let task = ["sound", "music", "speech"].choose(rng);
    let category = ["Reasoning", "Information Extraction"].choose(rng);
    let difficulty = ["easy", "medium", "hard"].choose(rng);
    json!({
        "id": id,
        "audio_id": format!("./test-mini-audios/{id}.wav"),
        "question": question,
        "choices": choices,
        "answer": choices[right],
        "dataset": "drawn",
        "task": task,
        "split": "test-mini",
        "category": category,
        "sub-category": format!("Sub-category {}", rng.gen_range(0..27)),
        "difficulty": difficulty,
        "model_output": answer,
    })
}

fn write_items(path: &Path, n: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut out = BufWriter::new(File::create(path).expect("a file of items"));
    for i in 0..n {
        out.write_all(if i == 0 { b"[" } else { b",\n " })
            .expect("room on the disk");
        serde_json::to_writer(&mut out, &item(&mut rng)).expect("room on the disk");
    }
    out.write_all(b"]\n")
        .and_then(|()| out.flush())
        .expect("room on the disk");
}

/// A million answers, from the file to results.json.
fn items(bench: &Bench) {
    let n = environment("AF2_BENCH_ITEMS", 1_000_000).max(SHARE);
    let (path, part) = (bench.folder.join("items.json"), bench.folder.join("part.json"));
    write_items(&path, n);
    write_items(&part, n / SHARE);
    let bytes = std::fs::metadata(&path).expect("the file").len();
    let registry = Registry::with(None).expect("the cards");
    let card = registry
        .entry(BENCHMARK)
        .and_then(|e| e.card())
        .expect("the card");
    let (mut times, mut python) = (Times::default(), Times::default());
    let mut theirs = None;
    let source = || Source {
        items: None,
        model: None,
        card_sha256: String::new(),
        predictions: None,
        ..Source::default()
    };
    let [once, all] = [1, Bootstrap::default().resamples].map(|resamples| Bootstrap {
        resamples,
        ..Bootstrap::default()
    });
    let score = |path: &Path, times: &mut Times| {
        let file = times.time("read", || scoring::open(path)).expect("the items");
        let mut judge = |name: &str| {
            let judged = || scoring::answers(path, &file, None, &card, Kind::Official, false, None);
            times.time(name, judged).expect("answers")
        };
        let (answers, again) = (judge("judge"), judge("judge again"));
        let mut score = |name: &str, answers, bootstrap| {
            let scored = || scoring::score(&card, answers, source(), bootstrap, None);
            times.time(name, scored).expect("a score")
        };
        drop(score("score", answers, once));
        let scored = score("score and interval", again, all);
        let results = bench.folder.join("results.json");
        times.time("write", || scored.write(&results)).expect("results");
        let other = scored.other.as_ref().and_then(|other| other.score);
        let right = |share: Option<f64>| (share.expect("a score") * scored.n as f64).round() as u64;
        [right(scored.score), right(other)]
    };
    let ours = || {
        score(&path, &mut times);
        let out = bench.folder.join("out");
        let mut whole = af2();
        whole
            .args(["score", "--benchmark", BENCHMARK, "--predictions"])
            .arg(&path);
        whole.arg("--out").arg(&out).stdout(Stdio::null());
        let status = times.time("command", || whole.status()).expect("to run af2");
        assert!(status.success(), "af2 score ended with {status}");
    };
    bench.rounds("items", ours, || {
        if let Some(said) = bench.ask(&json!({"part": "items", "file": part})) {
            for key in ["load", "score"] {
                python.add(key, SHARE as f64 * said[key].as_f64().expect("seconds"));
            }
            theirs = Some(["correct", "fair"].map(|key| said[key].as_u64().expect("a number")));
        }
    });
    let right = score(&part, &mut Times::default());
    if let Some(theirs) = theirs {
        assert_eq!(
            right, theirs,
            "both sides count the same right answers, by both rules"
        );
    }
    let scored = times.sum(&["read", "judge", "score"]);
    let theirs = python.sum(&["load", "score"]);
    let head = format!("{n} items, {} MiB", bytes >> 20);
    let mut table = Table::new([head.as_str(), "af2, ms", "Python's loop, ms", "Python ÷ af2"]);
    let mut row = |name: &str, ours: f64, theirs: f64| {
        table.row([
            name.to_owned(),
            milliseconds(ours),
            milliseconds(theirs),
            ratio(theirs, ours),
        ]);
    };
    let none = f64::NAN;
    row(
        "reading the file (Python: and its records)",
        times.median("read"),
        python.median("load"),
    );
    row(
        "records judged by two rules, their sha256",
        times.median("judge"),
        python.median("score"),
    );
    row("scores and categories", times.median("score"), none);
    row("together", scored, theirs);
    row(
        "an interval of 10,000 resamples more",
        times.median("score and interval") - times.median("score"),
        none,
    );
    row("writing results.json", times.median("write"), none);
    row("`af2 score`, from start to end", times.median("command"), none);
    println!("{}\n", table.terminal());
}

/// A caption of some words, with what a tokenizer has to look at.
fn caption(rng: &mut ChaCha8Rng) -> String {
    const WORDS: [&str; 40] = [
        "a",
        "the",
        "dog",
        "man",
        "woman",
        "engine",
        "rain",
        "barks",
        "speaks",
        "idling",
        "falls",
        "while",
        "and",
        "then",
        "as",
        "in",
        "background",
        "distance",
        "loudly",
        "softly",
        "birds",
        "chirp",
        "wind",
        "blows",
        "children's",
        "voices",
        "don't",
        "stop",
        "water",
        "runs",
        "over",
        "rocks",
        "3",
        "times",
        "followed",
        "by",
        "low-pitched",
        "hum",
        "of",
        "traffic",
    ];
    let n = rng.gen_range(6..16);
    let mut words: Vec<String> = (0..n)
        .map(|_| WORDS[rng.gen_range(0..WORDS.len())].to_owned())
        .collect();
    if rng.gen_bool(0.3) {
        words[n / 2].push(',');
    }
    if rng.gen_bool(0.1) {
        words[n / 3] = format!("({})", words[n / 3]);
    }
    words[0] = words[0][..1].to_uppercase() + &words[0][1..];
    words.join(" ") + if rng.gen_bool(0.5) { "." } else { "" }
}

/// PTB tokens, BLEU, ROUGE-L and CIDEr-D.
fn captions_of(bench: &Bench) {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let all: Vec<(String, Vec<String>)> = (0..CLIPS.0)
        .map(|_| {
            let references: Vec<String> = (0..CLIPS.1).map(|_| caption(&mut rng)).collect();
            // Half of it is what a reference has.
            let own = caption(&mut rng);
            let half = |text: &str| text.split_whitespace().take(6).collect::<Vec<_>>().join(" ");
            (format!("{} {}", half(&references[0]), half(&own)), references)
        })
        .collect();
    let path = bench.folder.join("captions.jsonl");
    let lines = all.iter().enumerate().map(|(i, (prediction, references))| {
        json!({"id": i.to_string(), "prediction": prediction, "references": references}).to_string() + "\n"
    });
    std::fs::write(&path, lines.collect::<String>()).expect("a file of captions");
    let items: Vec<captions::Item> = all
        .iter()
        .map(|(prediction, references)| captions::Item {
            prediction,
            references: references.iter().map(String::as_str).collect(),
        })
        .collect();
    let (mut times, mut python) = (Times::default(), Times::default());
    let (mut cider, mut said) = (0.0, None);
    let ours = || {
        let scored = times.time("whole", || captions::score(&items)).expect("scores");
        cider = scored.corpus.cider;
        let mut command = af2();
        command
            .args(["score", "captions", "--json", "--predictions"])
            .arg(&path);
        // METEOR and SPICE are programs of their own.
        command
            .env("PATH", "")
            .env_remove("JAVA_HOME")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = times.time("command", || command.status()).expect("to run af2");
        assert!(status.success(), "af2 score captions ended with {status}");
    };
    bench.rounds("captions", ours, || {
        if let Some(answer) = bench.ask(&json!({"part": "captions", "file": path})) {
            for key in ["tokenizer", "scorers"] {
                python.add(key, answer[key].as_f64().unwrap_or(f64::NAN));
            }
            said = Some(answer);
        }
    });
    if let Some(theirs) = said.as_ref().and_then(|s| s["CIDEr"].as_f64()) {
        assert!(
            (theirs - cider).abs() < 1e-6,
            "CIDEr-D: {cider} here, {theirs} there"
        );
    }
    let head = format!("{} clips, {} references each", CLIPS.0, CLIPS.1);
    let mut table = Table::new([
        head.as_str(),
        "af2, ms",
        "pycocoevalcap, ms",
        "pycocoevalcap ÷ af2",
    ]);
    let ours = times.median("whole");
    let mut row = |name: &str, ours: f64, theirs: f64| {
        table.row([
            name.to_owned(),
            milliseconds(ours),
            milliseconds(theirs),
            ratio(theirs, ours),
        ]);
    };
    let whole = python.sum(&["tokenizer", "scorers"]);
    row("tokens, BLEU, ROUGE-L, CIDEr-D", ours, whole);
    row(
        "the same, there without the tokenizer",
        ours,
        python.median("scorers"),
    );
    row(
        "`af2 score captions`, from start to end",
        times.median("command"),
        f64::NAN,
    );
    println!("{}", table.terminal());
    match said.as_ref().map(|s| s["why"].as_str()) {
        Some(Some(why)) => println!("without its tokenizer: {why}\n"),
        _ => println!(),
    }
}

/// One resample of many clusters, on one core.
fn bootstrap(bench: &Bench) {
    const RESAMPLES: usize = 2_000;
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let clusters = |different: bool, rng: &mut ChaCha8Rng| {
        let sums = (0..CLUSTERS).flat_map(|_| {
            let items = rng.gen_range(1..4usize);
            let right = (0..items).filter(|_| rng.gen_bool(0.6)).count();
            let own = if different { rng.gen_range(0.0..1.0) } else { 0.0 };
            [right as f64 + own, items as f64]
        });
        Clusters::of_sums(2, sums.collect()).expect("clusters")
    };
    let (few, many) = (clusters(false, &mut rng), clusters(true, &mut rng));
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a thread");
    let settings = Bootstrap {
        resamples: RESAMPLES,
        ..Bootstrap::default()
    };
    let (mut times, mut python) = (Times::default(), Times::default());
    let mut by = None;
    let ours = || {
        for (name, clusters) in [("few", &few), ("many", &many)] {
            let interval = times.time(name, || one.install(|| settings.clustered_mean(clusters)));
            assert!(interval.expect("an interval").low > 0.5, "not what was drawn");
        }
    };
    bench.rounds("bootstrap", ours, || {
        if let Some(answer) = bench.ask(&json!({"part": "bootstrap", "n": CLUSTERS})) {
            python.add("resample", answer["seconds"].as_f64().expect("seconds"));
            by = answer["by"].as_str().map(str::to_owned);
        }
    });
    let head = format!("one resample of {CLUSTERS}, one core");
    let mut table = Table::new([head.as_str(), "af2, ms", "Python, ms", "Python ÷ af2"]);
    for (name, what) in [
        ("few", "clips of 1 to 3 items, right or wrong"),
        ("many", "clips of which no two are alike"),
    ] {
        let (ours, theirs) = (times.median(name) / RESAMPLES as f64, python.median("resample"));
        table.row([
            what.to_owned(),
            milliseconds(ours),
            milliseconds(theirs),
            ratio(theirs, ours),
        ]);
    }
    println!("{}", table.terminal());
    println!(
        "{}\n",
        by.map_or(String::new(), |by| format!("Python: {by}, items without clips"))
    );
}

/// What there is to be scored by, as a command.
fn list(bench: &Bench) {
    let (mut times, mut python) = (Times::default(), Times::default());
    let mut why = None;
    let ours = || {
        for _ in 0..5 {
            let mut command = af2();
            command.args(["benchmark", "ls"]).stdout(Stdio::null());
            let status = times.time("ls", || command.status()).expect("to run af2");
            assert!(status.success(), "af2 benchmark ls ended with {status}");
        }
    };
    bench.rounds("list", ours, || {
        if let Some(answer) = bench.ask(&json!({"part": "list"})) {
            python.add("ls", answer["seconds"].as_f64().unwrap_or(f64::NAN));
            why = answer["why"].as_str().map(str::to_owned);
        }
    });
    let (ours, theirs) = (times.median("ls"), python.median("ls"));
    let mut table = Table::new([
        "the list",
        "af2 benchmark ls, ms",
        "lm-eval ls tasks, ms",
        "lm-eval ÷ af2",
    ]);
    table.row([
        "from start to end".to_owned(),
        milliseconds(ours),
        milliseconds(theirs),
        ratio(theirs, ours),
    ]);
    println!("{}", table.terminal());
    println!("{}\n", why.map_or(String::new(), |why| format!("lm-eval: {why}")));
}
