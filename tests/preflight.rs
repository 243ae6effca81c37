//! What is looked at before the first step: files of all stages, what they begin with, the disk, and how often items are seen.
#![allow(clippy::unwrap_used)]

mod common;

use common::{af2, af2_in, golden};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with a model of the released layout, two sets, and a recipe of two stages over them.
struct Place(TempDir);

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 6170000000\n";

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place(folder);
        let base = place.path("base");
        for part in ["safe_ckpt", "clap_ckpt", "llm"] {
            fs::create_dir_all(base.join(part)).unwrap();
            for file in fs::read_dir(golden("F_tiny").join(part)).unwrap() {
                let file = file.unwrap();
                symlink(file.path(), base.join(part).join(file.file_name())).unwrap();
            }
        }
        fs::copy(golden("F_tiny/config.yaml"), base.join("af2.yaml")).unwrap();
        for set in ["a", "b"] {
            for i in 0..3 {
                fs::create_dir_all(place.path(set)).unwrap();
                common::wav(&place.path(&format!("{set}/{i}.wav")), 2_000 + i);
            }
            place.manifest(&format!("{set}/train.json"), set);
        }
        place.write("r.yaml", &place.recipe("{checkpoint: base}"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        // Not through a link into the golden files.
        let _ = fs::remove_file(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn manifest(&self, file: &str, set: &str) {
        let items: serde_json::Map<_, _> = (0..3)
            .map(|i| {
                let item = json!({"name": format!("{i}.wav"), "prompt": "what?", "output": "a dog"});
                (i.to_string(), item)
            })
            .collect();
        let m =
            json!({"split": "train", "split_path": set, "flamingo_task": set, "total_num": 3, "data": items});
        self.write(file, &m.to_string());
    }

    fn recipe(&self, model: &str) -> String {
        format!(
            "name: two\nseed: 1\ndevice: cpu\noutput: run\nmodel: {model}\n\
             data: {{root: ., sets: {{a: a/train.json, b: b/train.json, test: b/test.json}}}}\n\
             train: {{log_every: 1}}\nstages:\n  \
             - {{name: one, train: [cross_attention], windows: 1, sets: {{a: 1}}, save: {{every: 1}}, optim: {{steps: 2, batch_size: 2, learning_rate: 1.0e-4}}}}\n  \
             - {{name: two, train: [audio_transformer], windows: 1, sets: {{a: 1, b: 1}}, optim: {{steps: 1, batch_size: 2, learning_rate: 1.0e-4}}}}\n"
        )
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        af2_in(self.0.path(), arguments)
    }

    /// `recipe check --files` after a change of the recipe's text.
    fn files(&self, changes: &[(&str, &str)]) -> (i32, String, String) {
        let mut text = fs::read_to_string(self.path("r.yaml")).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        self.write("changed.yaml", &text);
        self.run(&["recipe", "check", "--files", "changed.yaml"])
    }
}

fn says(text: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(text.contains(piece), "`{piece}` is not in:\n{text}");
    }
}

#[test]
fn a_papers_recipe_with_nothing_there_lists_it_all_at_once() {
    let empty = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recipe = root.join("recipes/af2-3b.yaml").display().to_string();
    for arguments in [&["train", &recipe][..], &["recipe", "check", "--files", &recipe]] {
        let (code, _, err) = af2_in(empty.path(), arguments);
        assert_eq!(code, 3, "{err}");
        let manifests = err.lines().filter(|l| l.contains("train.json: not there"));
        assert_eq!(manifests.count(), 38, "{err}");
        says(
            &err,
            &[
                "38 manifests",
                "data/LongAudio-AQA/train.json: not there (stage3)",
                "data/OpenAQA-AQA/train.json: not there (stage1, stage2)",
                "model.lm: checkpoints/Qwen2.5-3B: not there",
                "hf download Qwen/Qwen2.5-3B --local-dir checkpoints/Qwen2.5-3B",
                "model.clap: checkpoints/afclap/epoch_16.pt: not there",
                "hf download nvidia/audio-flamingo-2 --include \"clap_ckpt/*\" --local-dir checkpoints/afclap",
                "af2 recipe check --files",
                "af2 data check",
            ],
        );
    }
}

#[test]
fn what_a_later_stage_lacks_is_told_before_the_first_step_and_by_one_rank() {
    let place = Place::new();
    fs::remove_file(place.path("b/train.json")).unwrap();
    place.write("a/val.json", POINTER);
    let train = ["train", "r.yaml", "stages.two.from=elsewhere/checkpoint_3.pt"];
    for ranks in [1, 2] {
        let launch = ["launch", "-n", "2", "--"];
        let arguments = [&launch[..if ranks == 1 { 0 } else { 4 }], &train].concat();
        let (code, _, err) = place.run(&arguments);
        assert_eq!(code, 3, "{err}");
        says(
            &err,
            &[
                "3 things",
                "./b/train.json: not there (two)",
                "./a/val.json: a git-lfs pointer to a file of 6170000000 bytes",
                "stages.two.from: elsewhere/checkpoint_3.pt: not there (two)",
            ],
        );
        assert_eq!(err.matches("b/train.json").count(), 1, "{err}");
        assert!(!place.path("run/events").exists() && !place.path("run/checkpoints").exists());
    }
}

#[test]
fn what_this_run_writes_itself_is_not_missing_and_stages_that_are_done_need_nothing() {
    let place = Place::new();
    // By name, by the folder's path, and by a file that will be there.
    for from in [
        "one",
        "run/checkpoints/one",
        "./run/checkpoints/one",
        "run/checkpoints/one/checkpoint_1.pt",
    ] {
        let change = format!("{{name: two, from: {from},");
        let (code, out, err) = place.files(&[("{name: two,", &change)]);
        assert_eq!(code, 0, "{from}: {err}");
        assert!(out.contains("sound"), "{out}");
    }
    // Evaluation is another command's: a word, and training goes on.
    let text = place.recipe("{checkpoint: base}") + "eval: {sets: [test], windows: 1}\n";
    place.write("r.yaml", &text);
    let (code, _, err) = place.run(&["train", "r.yaml", "stages.two.from=run/checkpoints/one"]);
    assert_eq!(code, 0, "{err}");
    says(&err, &["`af2 eval` will miss ./b/test.json: not there"]);
    // Four items of three: no word; two of six: a third of one pass.
    says(
        &err,
        &["note: two: 1 steps of 2 items are 0.33 passes over its sets, of 6 items"],
    );
    assert!(!err.contains("note: one:"), "{err}");

    // A plan's bytes are the files'.
    let (_, out, err) = place.run(&["plan", "r.yaml", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {err}"));
    let disk = &plan["stages"][0]["disk"];
    let size = |path: PathBuf| fs::metadata(path).unwrap().len() as f64;
    let checkpoint = size(place.path("run/checkpoints/one/checkpoint_1.pt"));
    let chunks = fs::read_dir(place.path("run/checkpoints/one/safe_ckpt")).unwrap();
    let model: f64 = chunks.map(|f| size(f.unwrap().path())).sum();
    for (planned, written) in [(&disk["checkpoint"], checkpoint), (&disk["model"], model)] {
        let share = planned.as_f64().unwrap() / written;
        assert!((0.9..=1.0).contains(&share), "{disk}: {written}");
    }
    assert_eq!((&disk["written"], &disk["kept"]), (&json!(2), &json!(2)));

    // The first stage is done: its data may be gone. Without what it has written it is not done, and needs its data.
    fs::remove_file(place.path("run/checkpoints/two/done.json")).unwrap();
    let only_b = "stages.two.sets={b: 1}";
    fs::rename(place.path("a/train.json"), place.path("a/away.json")).unwrap();
    let (code, _, err) = place.run(&["train", "r.yaml", only_b, "--resume", "auto"]);
    assert_eq!(code, 0, "{err}");
    fs::remove_file(place.path("run/checkpoints/two/done.json")).unwrap();
    fs::remove_dir_all(place.path("run/checkpoints/one/safe_ckpt")).unwrap();
    let (code, _, err) = place.run(&["train", "r.yaml", only_b, "--resume", "auto"]);
    assert!([3, 7].contains(&code), "{code}: {err}");
    says(
        &err,
        &[
            "one is marked as done, but its model cannot be used: run/checkpoints/one",
            "safe_ckpt",
            "./a/train.json: not there (one)",
        ],
    );
}

#[test]
fn files_that_are_none_are_named_all_at_once_by_their_first_bytes() {
    let new = "{lm: base/llm, clap: base/clap_ckpt/epoch_16.pt, audio_transformer: {n_head: 2, n_layers: 3, d_inner: 80}, \
        cross_attention: {every: 1}, max_windows: 3}";
    let place = Place::new();
    place.write("r.yaml", &place.recipe(new));
    let (code, _, err) = place.files(&[]);
    assert_eq!(code, 0, "{err}");
    // Neither of these is read.
    place.write("base/llm/pytorch_model.bin", POINTER);
    place.write("base/safe_ckpt/chunk_9.safetensors", POINTER);
    assert_eq!(place.files(&[]).0, 0);
    assert_eq!(place.files(&[(new, "{checkpoint: base}")]).0, 0);

    place.write("base/llm/model-00002-of-00004.safetensors", POINTER);
    fs::remove_file(place.path("base/llm/model-00003-of-00004.safetensors")).unwrap();
    place.write("base/llm/tokenizer.json", "");
    place.write("base/clap_ckpt/epoch_16.pt", "<!doctype html>\n<html></html>");
    place.write("base/safe_ckpt/chunk_1.safetensors", POINTER);
    place.write("b/train.json", "{\"data\": {\"0\": {\"name\": \"x");
    let (code, _, err) = place.files(&[]);
    assert_eq!(code, 3, "{err}");
    let of_lm = [
        "base/llm/model-00002-of-00004.safetensors: a git-lfs pointer",
        "base/llm/model-00003-of-00004.safetensors: not there",
        "base/llm/tokenizer.json: empty",
    ];
    says(&err, &of_lm);
    says(
        &err,
        &[
            "5 things",
            "base/clap_ckpt/epoch_16.pt: a web page",
            "./b/train.json: cut short, or no JSON: its last character is `x` (two)",
            "hf download nvidia/audio-flamingo-2 --include \"clap_ckpt/*\" --local-dir base",
        ],
    );
    let (_, _, err) = place.files(&[(new, "{checkpoint: base}")]);
    says(&err, &of_lm);
    says(
        &err,
        &["model.checkpoint: base/safe_ckpt/chunk_1.safetensors: a git-lfs pointer"],
    );

    // Nothing of a released folder, and nothing of an LM's.
    let (code, _, err) = place.files(&[(new, "{checkpoint: checkpoints/audio-flamingo-2-0.5B}")]);
    assert_eq!(code, 3, "{err}");
    let at = "checkpoints/audio-flamingo-2-0.5B";
    says(
        &err,
        &[
            &format!("hf download nvidia/audio-flamingo-2-0.5B --local-dir {at}"),
            &format!("hf download Qwen/Qwen2.5-0.5B --local-dir {at}/llm"),
        ],
    );
}

#[test]
fn sizes_and_items_that_do_not_go_with_the_recipe_are_told_before_anything_runs() {
    let new = "{lm: base/llm, clap: base/clap_ckpt/epoch_16.pt, audio_transformer: {n_head: 2, n_layers: 3, d_inner: 80}, \
        cross_attention: {every: 1}, max_windows: 3}";
    let place = Place::new();
    place.write("r.yaml", &place.recipe(new));
    let config = fs::read_to_string(place.path("base/llm/config.json")).unwrap();
    place.write(
        "base/llm/config.json",
        &config.replace("\"hidden_size\": 64", "\"hidden_size\": 128"),
    );
    let (code, _, err) = place.files(&[]);
    assert_eq!(code, 7, "{err}");
    says(
        &err,
        &["model.lm and model.clap: base/llm", "expected shape", "128"],
    );
    place.write("base/llm/config.json", &config);
    // A folder that bears another size's name.
    symlink("base/llm", place.path("Qwen2.5-3B")).unwrap();
    let (code, _, err) = place.files(&[("lm: base/llm", "lm: Qwen2.5-3B")]);
    assert_eq!(code, 0, "{err}");
    says(
        &err,
        &[
            "note: Qwen2.5-3B: named after an LM 2048 wide with 36 layers",
            "has 64 and 4",
        ],
    );
    // A later stage's checkpoint of another model.
    let change = "{name: two, from: other,";
    symlink(place.path("base"), place.path("other")).unwrap();
    let (code, _, err) = place.files(&[("{name: two,", change), ("lm: base/llm", "lm: Qwen2.5-3B")]);
    assert_eq!(code, 0, "{err}");
    fs::remove_file(place.path("other")).unwrap();
    fs::create_dir(place.path("other")).unwrap();
    let (code, _, err) = place.files(&[("{name: two,", change)]);
    assert_eq!(code, 7, "{err}");
    says(&err, &["stages.two.from: other: safe_ckpt/", "(two)"]);

    // Passes, of each set.
    let (_, out, _) = place.files(&[
        ("steps: 1,", "steps: 30,"),
        ("sets: {a: 1, b: 1}", "sets: {a: 1, b: 4}"),
    ]);
    says(&out, &["two: 30 steps of 2 items; one pass over its sets, by their weights, is 15 items: 4.00 times of it"]);
    let row = |set: &str| {
        out.lines()
            .rev()
            .find(|l| l.contains(&format!(" {set} ")))
            .unwrap()
            .to_owned()
    };
    says(&row("a"), &["4.00 times"]);
    says(&row("b"), &["16 times"]);
    // Items that are wrong, and sounds that are not there.
    place.write(
        "b/train.json",
        "{\"split_path\": \"b\", \"data\": {\"0\": {\"name\": 3}}}",
    );
    place.manifest("a/train.json", "gone");
    let (code, _, err) = place.files(&[]);
    assert_eq!(code, 3, "{err}");
    says(
        &err,
        &[
            "./b/train.json",
            "./gone/0.wav: not there, as all 3 sounds of ./a/train.json",
        ],
    );
}

#[test]
fn a_run_that_cannot_fit_on_the_disk_is_told_what_takes_the_room() {
    let place = Place::new();
    // A thousand million checkpoints, all kept.
    let save = (
        "save: {every: 1}, optim: {steps: 2,",
        "save: {every: 1, keep_last: 1000000000}, optim: {steps: 1000000000,",
    );
    let (code, _, err) = place.files(&[save]);
    assert_eq!(code, 3, "{err}");
    says(
        &err,
        &[
            "1 thing",
            "room on the disk",
            "output: run: ",
            " GB free",
            "train.check_room=false",
            "stages.one.save.keep_every=0",
        ],
    );
    let (code, _, err) = place.files(&[
        save,
        (
            "train: {log_every: 1}",
            "train: {log_every: 1, check_room: false}",
        ),
    ]);
    assert_eq!(code, 0, "{err}");
    says(&err, &["note: output: run: "]);
}

#[test]
fn other_verbs_list_what_they_lack_too() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let demo = root.join("recipes/demo.yaml").display().to_string();
    let wav = root
        .join("tests/golden/wavs/short_16k_mono_0p2s.wav")
        .display()
        .to_string();
    let empty = tempfile::tempdir().unwrap();
    let manifest = |name: &str| format!("experiments/demo/corpus/manifests/demo-{name}/");
    for (arguments, pieces) in [
        (
            &["lm", &demo][..],
            vec![
                "7 manifests".into(),
                manifest("LongAudio") + "train.json: not there",
                "af2 synth RECIPE".into(),
            ],
        ),
        (
            &["clap", &demo],
            vec![
                manifest("AudioCaptioning"),
                "experiments/demo/llm: not there".into(),
                "af2 lm RECIPE".into(),
            ],
        ),
        (
            &["eval", &demo],
            vec![
                "6 manifests".into(),
                manifest("Order") + "test.json",
                "experiments/demo/checkpoints/stage3".into(),
            ],
        ),
        (
            &[
                "generate",
                "--checkpoint",
                "audio-flamingo-2",
                "--audio",
                &wav,
                "--prompt",
                "what?",
            ],
            vec!["hf download nvidia/audio-flamingo-2 --local-dir audio-flamingo-2".into()],
        ),
    ] {
        let (code, _, err) = af2_in(empty.path(), arguments);
        assert_eq!(code, 3, "{arguments:?}: {err}");
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        says(&err, &pieces);
    }
    assert_eq!(af2(&["recipe", "check", "--help"]).0, 0);
}
