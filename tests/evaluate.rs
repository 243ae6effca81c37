//! Evaluations that are killed, shared out over ranks, and gone on with: every question is answered once, and the file is that of a
//! run that nothing disturbed.
#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod common;
#[path = "common/runs.rs"]
mod runs;

use common::golden;
use rand::Rng;
use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder with short clips, several questions to each, a tiny model, and a recipe that asks it.
struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    /// Each item is asked with its clip and with silence.
    fn new(clips: usize, questions: usize) -> Self {
        let run = Run {
            folder: tempfile::tempdir().unwrap(),
        };
        let base = run.path("base");
        fs::create_dir_all(&base).unwrap();
        for part in ["safe_ckpt", "clap_ckpt", "llm"] {
            symlink(golden("F_tiny").join(part), base.join(part)).unwrap();
        }
        fs::copy(golden("F_tiny/config.yaml"), base.join("af2.yaml")).unwrap();
        let data = run.path("data/a");
        fs::create_dir_all(&data).unwrap();
        for clip in 0..clips {
            common::wav(&data.join(format!("{clip}.wav")), 2_000 + 100 * clip);
        }
        let texts = [
            "What is heard?",
            "How many?",
            "Which comes first? (A) rain. (B) a dog.",
            "Is it loud?",
            "Who speaks?",
        ];
        let mut items = serde_json::Map::new();
        for (q, text) in texts.iter().enumerate().take(questions) {
            // A clip's questions do not stand together.
            for clip in 0..clips {
                let item = json!({"name": format!("{clip}.wav"), "prompt": text, "output": "rain", "labels": ["rain", "a dog"]});
                items.insert((q * clips + clip).to_string(), item);
            }
        }
        run.write_manifest(items);
        let root = run.folder.path().display();
        let text = format!(
            "name: asking\ndevice: cpu\noutput: {root}/run\nmodel: {{checkpoint: {root}/base}}\n\
             data: {{root: {root}/data, sets: {{a: a/test.json}}}}\n\
             eval: {{sets: [a], windows: 1, max_new_tokens: 3}}\n"
        );
        fs::write(run.path("recipe.yaml"), text).unwrap();
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_manifest(&self, items: serde_json::Map<String, Value>) {
        let set = json!({"split": "test", "split_path": "a", "flamingo_task": "a", "total_num": items.len(), "data": items});
        fs::write(self.path("data/a/test.json"), set.to_string()).unwrap();
    }

    fn items(&self) -> serde_json::Map<String, Value> {
        let text = fs::read(self.path("data/a/test.json")).unwrap();
        let set: Value = serde_json::from_slice(&text).unwrap();
        set["data"].as_object().unwrap().clone()
    }

    fn command_of(&self, model: &str, ranks: usize, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_af2"));
        if ranks > 1 {
            command.args(["launch", "--grace", "10", "-n", &ranks.to_string(), "--"]);
        }
        command.arg("eval").arg(self.path("recipe.yaml"));
        command.arg("--checkpoint").arg(self.path(model)).args(more);
        command.env("OMP_NUM_THREADS", "1");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn command(&self, ranks: usize, more: &[&str]) -> Command {
        self.command_of("base", ranks, more)
    }

    fn ends(&self, ranks: usize, more: &[&str]) -> (i32, String) {
        runs::ended(self.command(ranks, more).spawn().unwrap())
    }

    /// Runs to the end; what it said.
    fn whole(&self, ranks: usize, more: &[&str]) -> String {
        let (code, said) = self.ends(ranks, more);
        assert_eq!(code, 0, "{said}");
        assert!(!self.path("run/predictions.partial").exists(), "{said}");
        said
    }

    /// The predictions, times aside.
    fn predictions(&self) -> Vec<Value> {
        predictions_in(&self.path("run"))
    }

    fn journals(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for folder in fs::read_dir(self.path("run/predictions.partial"))
            .into_iter()
            .flatten()
        {
            let files = fs::read_dir(folder.unwrap().path()).unwrap();
            all.extend(files.map(|f| f.unwrap().path()));
        }
        all.sort();
        all
    }

    /// What is in the journals so far: the questions of whole lines.
    fn answered(&self) -> Vec<String> {
        let mut all = Vec::new();
        for file in self.journals() {
            let text = fs::read(file).unwrap_or_default();
            let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
            for line in text[..whole].split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                let line: Value = serde_json::from_slice(line).unwrap();
                all.push(line["question"].as_str().unwrap().to_owned());
            }
        }
        all
    }

    /// Waits for so many more answers than there were, and a moment; then ends all of its processes at once. False where the
    /// evaluation was over before.
    fn kill_after(&self, mut child: Child, ranks: usize, more: usize, moment: Duration) -> bool {
        let before = self.answered().len();
        let until = Instant::now() + Duration::from_secs(60);
        while self.answered().len() < before + more {
            assert!(Instant::now() < until, "no {more} answers more than {before}");
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(moment);
        runs::kill_all(child, ranks);
        true
    }

    /// An evaluation that was killed behind so many answers.
    fn killed(&self, ranks: usize, answers: usize) -> usize {
        let child = self.command(ranks, &[]).spawn().unwrap();
        assert!(self.kill_after(child, ranks, answers, Duration::ZERO));
        let there = self.answered();
        let distinct: BTreeSet<&String> = there.iter().collect();
        assert_eq!(distinct.len(), there.len(), "a question was answered twice");
        there.len()
    }
}

fn predictions_in(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("predictions.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        assert!(line["seconds"].take().as_f64().unwrap() > 0.0);
        line
    };
    text.lines().map(line).collect()
}

fn there(answered: usize, all: usize) -> String {
    format!(
        "evaluate: {answered} of {all} answers are there, {} to ask",
        all - answered
    )
}

/// Ended with SIGKILL at twenty moments each.
#[test]
fn what_is_killed_again_and_again_answers_each_question_once() {
    let run = Run::new(30, 5);
    let said = run.whole(1, &[]);
    assert!(!said.contains("are there"), "{said}");
    let expected = run.predictions();
    assert_eq!(expected.len(), 300);
    // In the manifest's order, each item with its control behind it.
    for (i, line) in expected.iter().enumerate() {
        assert_eq!(line["id"], (i / 2).to_string());
        assert_eq!(line["control"].as_bool().unwrap(), i % 2 == 1);
    }
    let texts: BTreeSet<String> = expected.iter().map(|l| l["tokens"].to_string()).collect();
    assert!(texts.len() > 5, "{texts:?}");
    let mut random = rand::thread_rng();
    for ranks in [1, 2] {
        fs::remove_dir_all(run.path("run")).unwrap();
        let mut kills = 0;
        for i in 0..20 {
            let child = run.command(ranks, &[]).spawn().unwrap();
            let more = match i % 5 {
                0 => 0,
                _ => random.gen_range(1..10),
            };
            // So short that 300 questions outlast twenty of them, a thousand answers a second taken.
            let most = if more == 0 { 300_000 } else { 6_000 };
            let moment = Duration::from_micros(random.gen_range(0..most));
            kills += usize::from(run.kill_after(child, ranks, more, moment));
            let answered = run.answered();
            let distinct: BTreeSet<&String> = answered.iter().collect();
            assert_eq!(distinct.len(), answered.len(), "a question was answered twice");
        }
        assert!(kills >= 18, "{kills}");
        let answered = run.answered().len();
        println!(
            "{ranks} processes: {kills} kills, {answered} answers in {} files",
            run.journals().len()
        );
        let said = run.whole(ranks, &[]);
        // One that was too quick for its kill has ended, and the next began.
        match answered {
            0 => assert!(!said.contains("are there"), "{said}"),
            _ => assert!(said.contains(&there(answered, 300)), "{answered}: {said}"),
        }
        assert!(run.predictions() == expected, "{ranks} ranks");
    }
}

#[test]
fn another_number_of_ranks_goes_on_with_what_is_left() {
    let run = Run::new(8, 2);
    run.whole(1, &[]);
    let expected = run.predictions();
    for (first, then) in [(2, 3), (2, 1), (1, 2)] {
        let answered = run.killed(first, 9);
        let said = run.whole(then, &[]);
        assert!(said.contains(&there(answered, 32)), "{said}");
        assert!(run.predictions() == expected);
    }
    // An evaluation that ended is no part of the next; one that shall not go on begins.
    assert!(!run.whole(1, &[]).contains("are there"));
    run.killed(1, 5);
    assert!(!run.whole(2, &["--resume", "never"]).contains("are there"));
    assert!(run.predictions() == expected);
}

#[test]
fn only_answers_to_the_same_question_by_the_same_model_are_used() {
    let run = Run::new(8, 2);
    let answered = run.killed(1, 12);

    // The last bit of one weight.
    let other = run.path("other");
    fs::create_dir_all(other.join("safe_ckpt")).unwrap();
    for file in fs::read_dir(golden("F_tiny/safe_ckpt")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), other.join("safe_ckpt").join(file.file_name())).unwrap();
    }
    let chunk = other.join("safe_ckpt/chunk_3.safetensors");
    let mut bytes = fs::read(&chunk).unwrap();
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    fs::write(&chunk, bytes).unwrap();
    for part in ["clap_ckpt", "llm", "af2.yaml"] {
        symlink(run.path("base").join(part), other.join(part)).unwrap();
    }
    let (code, said) = runs::ended(run.command_of("other", 1, &[]).spawn().unwrap());
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("are there"), "{said}");
    assert!(
        said.contains("also holds answers of 1 unfinished evaluation(s)"),
        "{said}"
    );
    // Another decoding and another arithmetic are other evaluations, too.
    for change in ["eval.max_new_tokens=2", "eval.precision=amp_bf16"] {
        let (code, said) = run.ends(1, &[change]);
        assert_eq!(code, 0, "{said}");
        assert!(!said.contains("are there"), "{change}: {said}");
    }
    // What was left waits.
    assert_eq!(run.answered().len(), answered);

    // A prompt is another; nothing else is. How many slots there are is no part of a question.
    let mut items = run.items();
    items["0"]["prompt"] = "What is that?".into();
    run.write_manifest(items);
    let said = run.whole(1, &["eval.slots=3", "eval.memory=500000000"]);
    let expected = format!(
        "{}; 2 to questions that are others now are not used",
        there(answered - 2, 32)
    );
    assert!(said.contains(&expected), "{said}");
    let after = run.predictions();
    assert_eq!((after.len(), &after[0]["prompt"]), (32, &json!("What is that?")));

    // Another sound under the same name: both questions about it, each with its silence.
    let answered = run.killed(1, 12);
    common::wav(&run.path("data/a/0.wav"), 2_000 + 1);
    let said = run.whole(1, &[]);
    assert!(said.contains(&there(answered - 4, 32)), "{answered}: {said}");
}

/// Samples do not depend on slots, on ranks, or on where the evaluation was killed; beams give what the one question gets.
#[test]
fn samples_and_beams_are_asked_for_by_the_recipe() {
    let run = Run::new(4, 2);
    let drawn = [
        "eval.decoding.do_sample=true",
        "eval.decoding.temperature=2",
        "eval.decoding.num_return_sequences=3",
        "eval.decoding.seed=7",
    ];
    run.whole(1, &drawn);
    let samples = run.predictions();
    assert_eq!(samples.len(), 4 * 2 * 2 * 3);
    for (i, line) in samples.iter().enumerate() {
        assert_eq!(line["sample"].as_u64().unwrap_or(0), i as u64 % 3);
        assert_eq!(line["id"], samples[i / 3 * 3]["id"]);
    }
    let differ = samples.chunks(3).filter(|of| of[0]["tokens"] != of[1]["tokens"]);
    assert!(differ.count() > 8, "drawn at temperature 2");
    let results = fs::read_to_string(run.path("run/results.json")).unwrap();
    assert!(
        results.contains("\"n\":24") || results.contains("\"n\": 24"),
        "{results}"
    );

    let child = run.command(1, &drawn).spawn().unwrap();
    assert!(run.kill_after(child, 1, 7, Duration::ZERO));
    // The samples of a question that was being written are drawn again, and are the same.
    run.whole(2, &[&drawn[..], &["eval.slots=3"]].concat());
    assert_eq!(run.predictions(), samples);
    run.whole(1, &[&drawn[..3], &["eval.decoding.seed=8"]].concat());
    assert_ne!(run.predictions(), samples);

    run.whole(
        1,
        &["eval.decoding.num_beams=3", "eval.decoding.length_penalty=0.6"],
    );
    let beams = run.predictions();
    let one = Command::new(env!("CARGO_BIN_EXE_af2"))
        .args([
            "generate",
            "--num-beams",
            "3",
            "--length-penalty",
            "0.6",
            "--json",
            "--max-new-tokens",
            "3",
        ])
        .arg("--checkpoint")
        .arg(run.path("base"))
        .arg("--audio")
        .arg(run.path("data/a").join(beams[0]["path"].as_str().unwrap()))
        .args(["--prompt", beams[0]["prompt"].as_str().unwrap()])
        .output()
        .unwrap();
    let one: Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(one["tokens"], beams[0]["tokens"], "{one}");

    for (wrong, key) in [
        (
            "eval.decoding.num_return_sequences=2",
            "eval.decoding.num_return_sequences: expected 1 without beams",
        ),
        ("eval.decoding.temprature=1", "temprature"),
        (
            "eval.decoding.max_new_tokens=5",
            "eval.decoding.max_new_tokens: 5, but eval.max_new_tokens says 3",
        ),
        (
            "eval.decoding.stop_token_ids=[99999999]",
            "eval.decoding.stop_token_ids: expected ids below",
        ),
        ("eval.decoding.top_p=1.5", "eval.decoding.top_p"),
    ] {
        let (code, said) = run.ends(1, &[wrong]);
        // A key that is none is a slip of the command line, the others are the recipe's.
        let expected = if key == "temprature" { 2 } else { 4 };
        assert_eq!(
            (code, said.contains(key)),
            (expected, true),
            "{wrong}: {code} {said}"
        );
    }
    let (code, said) = run.ends(
        1,
        &[
            "eval.decoding.num_beams=3",
            "eval.decoding.num_return_sequences=2",
        ],
    );
    assert!(
        code == 4 && said.contains("only the best of them is the answer"),
        "{said}"
    );
}

#[test]
fn a_torn_line_is_dropped_and_a_broken_one_is_named() {
    let run = Run::new(6, 2);
    run.whole(1, &[]);
    let expected = run.predictions();
    let answered = run.killed(1, 8);
    let file = run.journals().pop().unwrap();
    let text = fs::read(&file).unwrap();
    let torn = |cut: usize| {
        let whole = text.iter().rposition(|b| *b == b'\n').unwrap();
        fs::write(&file, &text[..whole + 1 - cut]).unwrap();
    };
    torn(40);
    assert!(run.whole(1, &[]).contains(&there(answered - 1, 24)));
    assert!(run.predictions() == expected);

    let answered = run.killed(1, 8);
    let file = run.journals().pop().unwrap();
    let good = fs::read_to_string(&file).unwrap();
    let broken = good.replacen('\n', "\nnonsense\n", 1);
    fs::write(&file, &broken).unwrap();
    let before = fs::read(run.path("run/predictions.jsonl")).unwrap();
    for ranks in [1, 2] {
        let (code, said) = run.ends(ranks, &[]);
        assert_eq!(code, 6, "{said}");
        let name = file.file_name().unwrap().to_str().unwrap();
        for piece in [name, "line 2: expected an answer as JSON", "--resume never"] {
            assert!(said.contains(piece), "`{piece}` is not in {said}");
        }
    }
    assert!(fs::read(run.path("run/predictions.jsonl")).unwrap() == before);
    fs::write(&file, &good).unwrap();
    assert!(run.whole(1, &[]).contains(&there(answered, 24)));
    assert!(run.predictions() == expected);
}

#[test]
fn a_full_disk_loses_no_answer_that_was_written() {
    let run = Run::new(6, 2);
    run.whole(1, &[]);
    let expected = run.predictions();
    let before = fs::read(run.path("run/predictions.jsonl")).unwrap();
    let mut limited = runs::on_a_full_disk(&run.command(1, &[]), 4);
    let (code, said) = runs::ended(limited.env("OMP_NUM_THREADS", "1").spawn().unwrap());
    assert_eq!(code, 3, "{said}");
    for piece in ["rank-0.0.jsonl: ", "the same command asks only what is left"] {
        assert!(said.contains(piece), "{said}");
    }
    assert!(fs::read(run.path("run/predictions.jsonl")).unwrap() == before);
    let answered = run.answered().len();
    assert!(answered > 2 && answered < 24, "{answered}");
    assert!(run.whole(1, &[]).contains(&there(answered, 24)));
    assert!(run.predictions() == expected);
}

#[test]
fn sounds_that_cannot_be_heard_end_it_and_keep_what_was_answered() {
    let run = Run::new(6, 2);
    run.whole(1, &[]);
    let expected = run.predictions();
    let good = [1, 4].map(|i| {
        let path = run.path(&format!("data/a/{i}.wav"));
        (fs::read(&path).unwrap(), path)
    });
    // Not there: all are told before anything is asked.
    for (_, path) in &good {
        fs::remove_file(path).unwrap();
    }
    let (code, said) = run.ends(1, &[]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("1.wav") && said.contains("4.wav"), "{said}");
    assert!(run.journals().is_empty());
    // No sound: the others are answered.
    for ranks in [1, 2] {
        for (_, path) in &good {
            fs::write(path, "no sound").unwrap();
        }
        let (code, said) = run.ends(ranks, &[]);
        assert_eq!(code, 5, "{said}");
        for name in ["1.wav", "4.wav"] {
            assert_eq!(said.matches(&format!("a/{name}: expected")).count(), 1, "{said}");
        }
        assert_eq!(run.answered().len(), 16, "{said}");
        for (bytes, path) in &good {
            fs::write(path, bytes).unwrap();
        }
        assert!(run.whole(1, &[]).contains(&there(16, 24)));
        assert!(run.predictions() == expected);
    }
}

#[test]
fn a_rank_that_dies_ends_the_others() {
    let run = Run::new(30, 5);
    let mut child = run.command(2, &["eval.max_new_tokens=60"]).spawn().unwrap();
    runs::wait(&mut child, "answers", || run.answered().len() >= 4);
    let ranks = runs::ranks_of(&child, 2);
    let begun = Instant::now();
    runs::signal(ranks[1], "KILL");
    let (code, said) = runs::ended(child);
    assert_eq!(code, 128 + 9, "{said}");
    for piece in [
        "error: rank 0, ",
        "rank 1 no longer answers: dead or hung",
        "the same command asks only what is left",
    ] {
        assert!(said.contains(piece), "`{piece}` is not in {said}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{said}");
    assert!(!run.path("run/predictions.jsonl").exists());
}

#[test]
fn a_rank_that_hangs_ends_the_others_when_the_time_is_over() {
    let run = Run::new(30, 5);
    let mut child = run.command(2, &["train.timeout=3"]).spawn().unwrap();
    runs::wait(&mut child, "answers", || run.answered().len() >= 4);
    let ranks = runs::ranks_of(&child, 2);
    runs::signal(ranks[1], "STOP");
    // The launcher has seen its end while the other one still hangs.
    let gone = Path::new("/proc").join(ranks[0].to_string());
    runs::wait(&mut child, "the other's end", || !gone.exists());
    runs::signal(ranks[1], "KILL");
    let (code, said) = runs::ended(child);
    assert_eq!(code, 11, "{said}");
    assert!(said.contains("rank 1 no longer answers: dead or hung"), "{said}");
}
