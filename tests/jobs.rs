//! Whole runs of the small language model (`af2 lm`) and of AF-CLAP (`af2 clap`): split over ranks, killed, resumed, told to stop,
//! gone wrong, and under each of their keys. The same as tests/training.rs asks of the curriculum.

#![allow(clippy::panic, clippy::unwrap_used)]

mod common;
#[path = "common/runs.rs"]
mod runs;

use af2::recipe::{Recipe, DEMO};
use af2::recipe_file;
use af2::train::Which;
use runs::{distance, ended, kill_all, on_a_full_disk, signal, Left};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tch::Tensor;

const JOBS: [&str; 2] = ["lm", "clap"];

/// A folder with nineteen short clips and a recipe with both jobs.
struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = Run { folder };
        fs::create_dir_all(run.path("a")).unwrap();
        for i in 0..19 {
            common::wav(&run.path(&format!("a/{i}.wav")), 1_000 + 700 * i);
        }
        run.manifest("train", 0..19);
        run.manifest("val", 12..19);
        let root = run.folder.path().display();
        // Batches of four: the last of a pass over 19 pairs has three.
        let optim = "{steps: 6, batch_size: 4, learning_rate: 1.0e-3, warmup: 2}";
        let save = "{every: 2, keep_last: 3}";
        let text = format!(
            "name: jobs\nseed: 7\ndevice: cpu\noutput: {root}/run\n\
             model: {{audio_transformer: {{n_head: 2, n_layers: 1, d_inner: 8}}}}\n\
             data: {{root: {root}, threads: 1, sets: {{a: a/train.json}}}}\ntrain: {{log_every: 1}}\n\
             lm:\n  vocab_size: 300\n  hidden_size: 32\n  intermediate_size: 64\n  layers: 2\n  heads: 2\n  kv_heads: 1\n  \
             optim: {optim}\n  save: {save}\n\
             clap:\n  audio: {{embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2], class_num: 4}}\n  \
             text: {{d_model: 16, d_kv: 8, d_ff: 32, num_layers: 1, num_heads: 2}}\n  joint_dim: 16\n  sets: [a]\n  \
             optim: {optim}\n  save: {save}\n\
             stages: []\n"
        );
        fs::write(run.recipe(), text).unwrap();
        run
    }

    fn recipe(&self) -> PathBuf {
        self.path("recipe.yaml")
    }

    /// Clips and what they sound like: each in words of its own.
    fn manifest(&self, split: &str, items: std::ops::Range<usize>) {
        let item = |i: usize| {
            let output = format!("sound {} {}", i, "again and ".repeat(1 + i % 5));
            (
                i.to_string(),
                json!({"name": format!("{i}.wav"), "prompt": "What is heard?", "output": output}),
            )
        };
        let data: serde_json::Map<_, _> = items.map(item).collect();
        let set = json!({"split": split, "split_path": "a", "flamingo_task": "a", "total_num": data.len(), "data": data});
        fs::write(self.path(&format!("a/{split}.json")), set.to_string()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `JOB RECIPE output=OUT …`, over so many ranks. In `more`, `JOB.` stands for the job's own section.
    fn command(&self, job: &str, ranks: usize, out: &str, more: &[&str]) -> Command {
        self.verb(&[job], job, ranks, out, more)
    }

    fn verb(&self, verb: &[&str], job: &str, ranks: usize, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_af2"));
        if ranks > 1 {
            command.args(["launch", "--grace", "5", "-n", &ranks.to_string(), "--"]);
        }
        command
            .args(verb)
            .arg(self.recipe())
            .arg(format!("output={}", self.path(out).display()));
        if job == "clap" {
            command.arg(format!("model.lm={}", plain("lm").join("llm").display()));
        }
        command
            .args(more.iter().map(|m| m.replace("JOB.", &format!("{job}."))))
            .env("OMP_NUM_THREADS", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn train(&self, job: &str, ranks: usize, out: &str, more: &[&str]) -> (i32, String) {
        ended(self.command(job, ranks, out, more).spawn().unwrap())
    }

    fn succeeds(&self, job: &str, ranks: usize, out: &str, more: &[&str]) -> String {
        let (code, said) = self.train(job, ranks, out, more);
        assert_eq!(code, 0, "{job}: {said}");
        said
    }

    fn fails(&self, job: &str, ranks: usize, out: &str, more: &[&str], code: i32, pieces: &[&str]) -> String {
        let (found, said) = self.train(job, ranks, out, more);
        assert_eq!(found, code, "{job} {more:?}: {said}");
        has(&said, pieces);
        said
    }

    fn left<'j>(&self, job: &'j str, out: &str) -> Left<'j> {
        Left {
            run: self.path(out),
            job,
        }
    }

    /// Losses and weights are to the last bit those of [`plain`].
    fn same_as_plain(&self, job: &str, out: &str) {
        self.same(job, out, plain(job).to_str().unwrap());
    }

    fn losses(&self, job: &str, out: &str) -> Vec<(u64, u64, u64)> {
        self.left(job, out).losses()
    }

    fn values(&self, job: &str, out: &str, name: &str) -> Vec<f64> {
        self.left(job, out).values(name)
    }

    /// Where the job's model is when it is done.
    fn model(&self, job: &str, out: &str) -> PathBuf {
        self.path(out).join(match job {
            "lm" => "llm/model.safetensors",
            _ => "clap/clap.safetensors",
        })
    }

    fn weights(&self, job: &str, out: &str) -> Vec<(String, Tensor)> {
        let all = runs::weights(&self.model(job, out));
        assert!(all.len() > 10, "{job} {out}");
        all
    }

    fn same(&self, job: &str, out: &str, whole: &str) {
        assert_eq!(self.losses(job, out), self.losses(job, whole), "{job} {out}");
        let (off, name) = distance(&self.weights(job, whole), &self.weights(job, out), &[]);
        assert_eq!(off, 0.0, "{job} {out}: {name}");
    }
}

/// The folder of a job's run as the recipe says it, on one rank: made once, for all tests here. AF-CLAP's words are the language
/// model's.
fn plain(job: &str) -> &'static Path {
    static PLAIN: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
    PLAIN[usize::from(job == "clap")].get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("jobs-{job}"));
        let _ = fs::remove_dir_all(&folder);
        Run::new().succeeds(job, 1, folder.to_str().unwrap(), &[]);
        folder
    })
}

fn has(said: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(said.contains(piece), "`{piece}` is not in {said}");
    }
}

fn near(what: &str, found: &[f64], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(!found.is_empty(), "{what}");
    for (one, other) in found.iter().zip(expected) {
        let off = (one / other - 1.0).abs();
        assert!(
            off <= bound,
            "{what}: {off:e} off: {found:?} instead of {expected:?}"
        );
    }
}

/// Softmax does not feel a bias that all keys share, nor one that rotary positions turn little: its gradient is rounding noise, and
/// Adam makes steps of it, which all else then feels. These biases are held, so that the rest can be compared.
fn held(job: &str) -> String {
    let biases = if job == "lm" { "*k_proj.bias" } else { "*qkv.bias" };
    format!("{job}.optim.groups={{keys: {{match: \"{biases}\", rate: 0}}}}")
}

/// Each rank's batch norm keeps the running averages of the batches that it saw itself, and the first rank's are saved: they are not
/// those of one process, and not compared.
const RUNNING: [&str; 2] = ["running_", "num_batches_tracked"];

/// One process with four micro-steps, two with two, four with one: the same micro-batches, added up in another order.
#[test]
fn a_step_is_the_same_however_it_is_split_over_ranks_and_micro_steps() {
    let run = Run::new();
    for job in JOBS {
        let held = held(job);
        // Of AF-CLAP the gradient's norm is equal to the bit while no weight has moved (two steps), and then as far apart as rounding
        // and Adam have brought the weights: measured 1.6e-6, and 4.7e-6 for a bias that begins at 0. Of the LM: 0 and 1.2e-7.
        let (norms, bound) = if job == "lm" { (1e-6, 1e-6) } else { (5e-6, 1e-5) };
        let out = |ranks: usize, zero: bool| format!("{job}{ranks}{zero}");
        let same = ["JOB.optim.global_batch=16", "JOB.optim.steps=4", &held];
        // Four ranks share the optimizer's state; two do it both ways.
        for (ranks, zero) in [(1, false), (2, false), (2, true), (4, true)] {
            let zero_too = format!("train.zero={zero}");
            run.succeeds(job, ranks, &out(ranks, zero), &[&same[..], &[&zero_too]].concat());
        }
        let one = out(1, false);
        assert_eq!(run.values(job, &one, "step_loss").len(), 4);
        assert_eq!(run.losses(job, &one).len(), 16);
        for other in [out(2, false), out(4, true)] {
            for (name, bound) in [("step_loss", 1e-6), ("grad_norm", norms)] {
                let [found, expected] = [&other, &one].map(|out| run.values(job, out, name));
                let what = format!("{other} {name}");
                // Two units in the last place of a float32: by processor, sums come in another order.
                near(&what, &found[..2], &expected[..2], 2.5e-7);
                near(&what, &found, &expected, bound);
            }
            let (off, name) = distance(&run.weights(job, &one), &run.weights(job, &other), &RUNNING);
            println!("{other}: {off:.1e} ({name})");
            assert!(off <= bound, "{other}: {name} is off by {off:e}");
        }
        // Sharing the optimizer's state changes no bit.
        run.same(job, &out(2, true), &out(2, false));
        // A run goes on with another number of ranks: from the checkpoint of its second step.
        let (moved, first) = (format!("{job}moved"), "checkpoint_0.pt");
        let folder = run.left(job, &moved).checkpoints_folder();
        fs::create_dir_all(&folder).unwrap();
        let from = run.left(job, &one).checkpoints_folder();
        fs::copy(from.join(first), folder.join(first)).unwrap();
        let said = run.succeeds(job, 2, &moved, &[&same[..], &["--resume", "auto"]].concat());
        has(&said, &[&format!("resume: {job} from "), ", step 2\n"]);
        let [found, expected] = [&moved, &one].map(|out| run.values(job, out, "step_loss"));
        near(&moved, &found, &expected[2..], 1e-6);
    }
}

/// Long enough to be killed in. AF-CLAP draws random numbers in every step: these must go on, too.
fn long(job: &str) -> [&'static str; 3] {
    match job {
        "lm" => ["lm.optim.steps=120", "lm.optim.batch_size=2", "train.log_every=1"],
        _ => [
            "clap.optim.steps=18",
            "clap.augment=true",
            "clap.optim.batch_size=2",
        ],
    }
}

#[test]
fn kills_at_random_moments_change_no_loss() {
    let run = Run::new();
    // Each job on one rank and on two: here, and below where it is told to stop.
    for (job, ranks) in [("lm", 2), ("clap", 1)] {
        let (whole, killed) = (format!("{job}whole{ranks}"), format!("{job}killed{ranks}"));
        let resume = [&long(job)[..], &["JOB.save.every=1", "--resume", "auto"]].concat();
        run.succeeds(job, ranks, &whole, &resume[..4]);
        let left = run.left(job, &killed);
        for kill in 0..3 {
            let mut child = run.command(job, ranks, &killed, &resume).spawn().unwrap();
            // From a clock, not from a seed: other moments in every run.
            let noise = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |d| d.subsec_micros() as usize);
            let (lines, pause) = (1 + noise % 4, noise / 7 % 25);
            println!("{job}, {ranks} ranks, kill {kill}: after {lines} micro-steps and {pause} ms");
            left.wait_for(left.lines() + lines, &mut child);
            // Chance may have it that no kill so far came behind a whole checkpoint: then nothing would be gone on from.
            if kill == 1 {
                left.wait_for_checkpoint(&mut child);
            }
            std::thread::sleep(Duration::from_millis(pause as u64));
            kill_all(child, ranks);
        }
        assert!(!run.model(job, &killed).exists(), "{job}: no kill came in time");
        let said = run.succeeds(job, ranks, &killed, &resume);
        has(&said, &[&format!("resume: {job} from ")]);
        run.same(job, &killed, &whole);
    }
}

#[test]
fn a_signal_saves_and_ends_and_the_run_goes_on() {
    let run = Run::new();
    for (job, ranks) in [("lm", 1), ("clap", 2)] {
        let (whole, told) = (format!("{job}whole{ranks}"), format!("{job}told{ranks}"));
        let more = [&long(job)[..], &["JOB.save.every=0", "--resume", "auto"]].concat();
        run.succeeds(job, ranks, &whole, &more[..4]);
        let mut child = run.command(job, ranks, &told, &more[..4]).spawn().unwrap();
        let left = run.left(job, &told);
        left.wait_for(3, &mut child);
        signal(child.id(), "TERM");
        let (code, said) = ended(child);
        assert_eq!(code, 12, "{said}");
        has(
            &said,
            &[
                &format!("{job}: stopped by a signal after step"),
                "which is saved",
            ],
        );
        assert_eq!(left.checkpoints(), [0]);
        assert!(!run.model(job, &told).exists());
        run.succeeds(job, ranks, &told, &more);
        run.same(job, &told, &whole);
    }
}

#[test]
fn a_run_that_is_done_stays_so_goes_on_for_more_steps_and_is_refused_for_fewer() {
    let run = Run::new();
    for job in JOBS {
        let out = format!("{job}run");
        run.succeeds(job, 1, &out, &["JOB.optim.steps=4"]);
        let folder = run.left(job, &out).checkpoints_folder();
        let (model, done) = (run.model(job, &out), folder.join("done.json"));
        assert!(done.exists());
        let before = fs::metadata(&model).unwrap().modified().unwrap();
        let said = run.succeeds(job, 1, &out, &["JOB.optim.steps=4", "--resume", "auto"]);
        assert!(!said.contains("train") && !said.contains("resume:"), "{said}");
        assert_eq!(fs::metadata(&model).unwrap().modified().unwrap(), before);

        let steps = format!("{job}.optim.steps");
        let fewer = ["JOB.optim.steps=2", "--resume", "auto"];
        let refused = [
            format!("{steps}: 2, but "),
            format!("{steps}=4 takes what is there"),
        ];
        let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
        let said = run.fails(job, 1, &out, &fewer, 4, &refused);
        has(&said, &["is done with 4 steps"]);
        assert!(done.exists() && model.exists());
        let newest = folder.join("checkpoint_1.pt").display().to_string();
        run.fails(
            job,
            1,
            &out,
            &["JOB.optim.steps=2", "--resume", &newest],
            4,
            &refused,
        );

        // A model that is gone or cut short is written again, from the checkpoint.
        let whole = fs::read(&model).unwrap();
        fs::write(&model, &whole[..whole.len() / 2]).unwrap();
        let said = run.succeeds(job, 1, &out, &["JOB.optim.steps=4", "--resume", "auto"]);
        has(
            &said,
            &["is marked as done, but its model cannot be used", ", step 4\n"],
        );
        assert!(fs::read(&model).unwrap() == whole, "{job}");

        let said = run.succeeds(job, 1, &out, &["--resume", "auto"]);
        has(&said, &[&format!("resume: {job} from "), ", step 4\n"]);
        assert!(!said.contains(" now, it was "), "{said}");
        run.same_as_plain(job, &out);

        // What is learned by another rule is named; other batches are another order, and refused.
        let said = run.succeeds(
            job,
            1,
            &out,
            &["JOB.optim.steps=7", "JOB.optim.clip=0.5", "--resume", "auto"],
        );
        has(
            &said,
            &[&format!("resume: {job}.optim.clip: 0.5 now, it was 1.0\n")],
        );
        assert_eq!(said.matches(" now, it was ").count(), 1, "{said}");
        let other = ["JOB.optim.steps=9", "JOB.optim.batch_size=3", "--resume", "auto"];
        run.fails(
            job,
            1,
            &out,
            &other,
            8,
            &["in batches of 4, now ", "in batches of 3"],
        );

        // Without --resume it begins anew, and an earlier run's checkpoints are not gone on from.
        run.succeeds(job, 1, &out, &["JOB.save.every=0"]);
        run.same_as_plain(job, &out);
        let (code, said) = run.train(job, 1, &out, &["--resume", "nowhere.pt"]);
        assert_eq!(code, 3, "{said}");
        has(&said, &["nowhere.pt"]);
    }
}

#[test]
fn a_recipe_shows_that_it_resumes_exactly() {
    let run = Run::new();
    for (job, ranks) in [("lm", 1), ("lm", 2), ("clap", 1), ("clap", 2)] {
        let out = format!("{job}{ranks}");
        let mut more = vec!["--verify-resume", "JOB.optim.accumulate=2"];
        if job == "clap" {
            more.push("clap.augment=true");
        }
        let said = run.succeeds(job, ranks, &out, &more);
        has(
            &said,
            &[
                &format!("{job}: 3 steps, a checkpoint of "),
                "weights, bit for bit",
            ],
        );
        assert!(!run.path(&out).join("checkpoints").exists(), "it trained");
        assert!(!run.model(job, &out).exists() && !run.left(job, &out).events_file().exists());
    }
}

#[test]
fn a_run_that_diverges_skips_its_steps_and_ends() {
    let run = Run::new();
    for (job, ranks) in [("lm", 1), ("lm", 2), ("clap", 1), ("clap", 2)] {
        let limits = [(3, "1.0e+38", 0), (4, "1.0e+30", 1)];
        for (limit, rate, every) in limits.into_iter().skip(ranks - 1) {
            let out = format!("{job}{ranks}{limit}");
            let more = [
                format!("JOB.optim.learning_rate={rate}"),
                format!("train.nonfinite_limit={limit}"),
                "JOB.optim.steps=20".into(),
                "JOB.optim.warmup=0".into(),
                format!("JOB.save.every={every}"),
            ];
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            let said = run.fails(job, ranks, &out, &more, 8, &[]);
            has(
                &said,
                &[
                    &format!("{job}: the "),
                    " is not finite at step ",
                    &format!(", {limit} skipped in a row; items of rank "),
                    &format!("lower {job}.optim.learning_rate or raise its warmup"),
                    "nonfinite.jsonl names the items",
                    "sound ",
                ],
            );
            let ledger = fs::read_to_string(run.path(&out).join("nonfinite.jsonl")).unwrap();
            let lines: Vec<serde_json::Value> =
                ledger.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            let of = |rank: usize| lines.iter().filter(|l| l["rank"] == rank).count();
            // The last of them may end the other rank before it has written its own.
            let counts: Vec<usize> = (0..ranks).map(of).collect();
            assert!(
                counts.iter().all(|n| (limit - 1..=limit).contains(n)),
                "{counts:?}: {ledger}"
            );
            assert!(counts.contains(&limit), "{counts:?}: {ledger}");
            assert!(
                lines
                    .iter()
                    .all(|l| l["stage"] == job && l["not_finite"].is_string()),
                "{ledger}"
            );
            let skipped = run.values(job, &out, "skipped_steps");
            assert_eq!(skipped.last(), Some(&(limit as f64 - 1.0)), "{skipped:?}");

            // Nothing that holds NaN is left, and nothing says that it is done.
            assert!(!run.model(job, &out).exists());
            let left = run.left(job, &out);
            assert!(!left.checkpoints_folder().join("done.json").exists());
            for number in left.checkpoints() {
                let file = left.checkpoints_folder().join(format!("checkpoint_{number}.pt"));
                finite(&file);
            }
        }
        // Weights that are no numbers after the first step are not saved, neither under way nor as the model.
        let out = format!("{job}{ranks}bad");
        for (steps, every) in [(9, 1), (1, 0)].into_iter().take(3 - ranks) {
            let more = [
                format!("JOB.optim.steps={steps}"),
                format!("JOB.save.every={every}"),
                "JOB.optim.learning_rate=1.0e+38".into(),
                "JOB.optim.warmup=0".into(),
                "JOB.optim.groups={all: {match: \"*\", rate: 1.0e+4}}".into(),
            ];
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            let hint = format!("the run diverged: lower {job}.optim.learning_rate or raise its warmup");
            let pieces = ["is not written: ", "hold values that are not finite", &hint];
            run.fails(job, ranks, &out, &more, 8, &pieces);
            assert!(!run.model(job, &out).exists());
            assert!(run.left(job, &out).checkpoints().is_empty());
        }
    }
}

/// Nothing in a checkpoint's model is NaN or infinite.
fn finite(file: &Path) {
    let archive = af2::checkpoint::open_torch(file).unwrap().tensors;
    let names: Vec<String> = archive.names().map(str::to_owned).collect();
    assert!(names.len() > 10, "{}", file.display());
    for name in names.iter().filter(|n| n.starts_with("model_state_dict")) {
        let whole = archive.get(name).unwrap().to_kind(tch::Kind::Double);
        assert!(
            bool::try_from(whole.isfinite().all()).unwrap(),
            "{}: {name}",
            file.display()
        );
    }
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_what_was_saved() {
    let run = Run::new();
    for job in JOBS {
        let out = format!("{job}full");
        run.succeeds(job, 1, &out, &["JOB.optim.steps=2", "JOB.save.every=1"]);
        let saved = run.left(job, &out).checkpoints_folder().join("checkpoint_1.pt");
        let before = fs::read(&saved).unwrap();
        let more = ["JOB.save.every=1", "--resume", "auto"];
        let plain = run.command(job, 1, &out, &more);
        let (code, said) = ended(on_a_full_disk(&plain, 80).spawn().unwrap());
        assert_eq!(code, 3, "{said}");
        has(&said, &["checkpoint_2.pt"]);
        assert!(
            fs::read(&saved).unwrap() == before,
            "the checkpoint before was touched"
        );
        assert_eq!(run.left(job, &out).checkpoints(), [0, 1]);
        run.succeeds(job, 1, &out, &more);
        run.same_as_plain(job, &out);

        // Where only the model itself does not fit: the one before stays, and nothing says that the run is done.
        let model = run.model(job, &out);
        let before = fs::read(&model).unwrap();
        let more = [
            "JOB.optim.learning_rate=0.1",
            "JOB.save.every=0",
            "JOB.optim.steps=2",
        ];
        let plain = run.command(job, 1, &out, &more);
        let (code, said) = ended(on_a_full_disk(&plain, 80).spawn().unwrap());
        assert_eq!(code, 3, "{said}");
        has(&said, &[&model.display().to_string()]);
        assert!(
            fs::read(&model).unwrap() == before,
            "the model before was touched"
        );
        assert!(!run
            .left(job, &out)
            .checkpoints_folder()
            .join("done.json")
            .exists());
        let names = fs::read_dir(model.parent().unwrap()).unwrap().flatten();
        let names: Vec<String> = names
            .map(|f| f.file_name().to_string_lossy().into_owned())
            .collect();
        let half_written = names.iter().filter(|n| n.starts_with('.') || n.contains("tmp"));
        assert_eq!(half_written.count(), 0, "{names:?}");

        // And a folder that cannot be: told before anything is trained.
        fs::write(run.path("file"), "").unwrap();
        let (code, said) = run.train(job, 1, "file/run", &[]);
        assert_eq!(code, 3, "{said}");
    }
}

#[test]
fn each_key_of_a_job_does_what_it_says() {
    let run = Run::new();
    for job in JOBS {
        let out = |name: &str| format!("{job}{name}");
        let plain = plain(job).to_str().unwrap();
        let rates = run.values(job, plain, "learning_rate");
        assert_eq!(rates, [0.0, 5e-4, 1e-3, 1e-3, 1e-3, 1e-3]);

        // Two micro-steps a step, said either way: one run, whether or not it validates.
        let four = "JOB.optim.steps=4";
        let global = [four, "JOB.optim.global_batch=8", "train.validate_every=2"];
        run.succeeds(job, 1, &out("accumulate"), &[four, "JOB.optim.accumulate=2"]);
        run.succeeds(job, 1, &out("global"), &global);
        let pairs: Vec<_> = run
            .losses(job, &out("global"))
            .iter()
            .map(|l| (l.0, l.1))
            .collect();
        assert_eq!(pairs.len(), 8);
        assert_eq!(pairs[..4], [(1, 1), (1, 2), (2, 1), (2, 2)]);
        run.same(job, &out("global"), &out("accumulate"));
        run.fails(
            job,
            1,
            "no",
            &["JOB.optim.global_batch=8", "JOB.optim.accumulate=2"],
            4,
            &[&format!(
                "{job}.optim.global_batch: goes with neither accumulate nor batch_budget"
            )],
        );
        let uneven = format!("{job}.optim.global_batch: 2 ranks cannot share 7 items evenly");
        run.fails(job, 2, "no", &["JOB.optim.global_batch=7"], 4, &[&uneven]);

        // A group with a rate of its own: it is in the events, and at 0 its weights stay.
        let own = if job == "lm" {
            "*embed_tokens*"
        } else {
            "text_branch.*"
        };
        let group = |rate: f64| format!("JOB.optim.groups={{own: {{match: \"{own}\", rate: {rate}}}}}");
        run.succeeds(job, 1, &out("group"), &[four, &group(3.0)]);
        let tripled: Vec<f64> = rates.iter().map(|r| 3.0 * r).collect();
        let of_the_group = run.values(job, &out("group"), "learning_rate/own");
        near("rate", &of_the_group[1..], &tripled[1..4], 1e-12);
        assert!(run.values(job, plain, "learning_rate/own").is_empty());
        run.succeeds(job, 1, &out("held"), &[four, &group(0.0)]);
        // The model's weights beside those of the second step.
        let second = run
            .left(job, &out("held"))
            .checkpoints_folder()
            .join("checkpoint_0.pt");
        let second = af2::checkpoint::open_torch(&second).unwrap().tensors;
        let mark = own.trim_matches('*').trim_end_matches('.');
        let differ = |is_own: bool| {
            let all = run.weights(job, &out("held")).into_iter();
            let mut all: Vec<_> = all.filter(|(name, _)| name.contains(mark) == is_own).collect();
            assert!(!all.is_empty());
            all.retain(|(name, w)| !second.get(&format!("model_state_dict.{name}")).unwrap().equal(w));
            all.len()
        };
        assert_eq!(differ(true), 0);
        assert!(differ(false) > 5);
        let bad = "JOB.optim.groups={own: {match: \"[\"}}";
        run.fails(
            job,
            1,
            "no",
            &[bad],
            4,
            &[&format!("{job}.optim.groups.own.match")],
        );

        // Another arithmetic, near the same losses.
        run.succeeds(job, 1, &out("bf16"), &["train.precision=amp_bf16"]);
        let [found, expected] = [&out("bf16"), plain].map(|o| run.values(job, o, "loss"));
        // Of AF-CLAP's small batches Adam soon makes other steps of other roundings: measured 8e-4 over the first three losses, then
        // 3.3% and 6.5% (5.6% with other kernels of the same processor), then 0.1%.
        near("amp_bf16", &found[..3], &expected[..3], 0.01);
        near("amp_bf16", &found, &expected, 0.15);
        assert!(found.iter().zip(&expected).all(|(a, b)| a != b), "{found:?}");

        // When what is logged, validated and saved.
        let more = [
            "train.log_every=3",
            "train.validate_every=2",
            "JOB.save.every=2",
            "JOB.save.keep_last=1",
            "JOB.save.keep_every=0",
        ];
        run.succeeds(job, 1, &out("when"), &more);
        let events = run.left(job, &out("when")).events();
        let steps = |name: &str| -> Vec<u64> {
            let all = events.iter().filter(|e| e.values.contains_key(name));
            all.map(|e| e.step).collect()
        };
        let validated = if job == "lm" {
            "validation_loss"
        } else {
            "validation_recall_at_1"
        };
        assert_eq!((steps("loss"), steps(validated)), (vec![3, 6], vec![2, 4, 6]));
        assert!(run
            .values(job, &out("when"), validated)
            .iter()
            .all(|v| v.is_finite() && *v >= 0.0));
        let left = run.left(job, &out("when"));
        assert_eq!(left.checkpoints(), [2]);
        let file = left
            .checkpoints_folder()
            .join("checkpoint_2.pt")
            .display()
            .to_string();
        let (code, listed, said) = common::af2(&["checkpoint", "ls", &file]);
        assert_eq!(code, 0, "{said}");
        has(
            &listed,
            &["exp_avg_sq", "embed_tokens"].map(|n| {
                if n == "embed_tokens" && job == "clap" {
                    "text_branch"
                } else {
                    n
                }
            }),
        );
        // Two ranks share what is validated; the LM's loss is the same but for rounding.
        run.succeeds(job, 2, &out("shared"), &global);
        let [found, expected] = ["shared", "global"].map(|o| run.values(job, &out(o), validated));
        assert_eq!(found.len(), 2);
        if job == "lm" {
            near("validation", &found, &expected, 1e-6);
        }
    }
    // A caption's negatives are those of its own batch.
    for (ranks, global) in [(1, 6), (2, 4), (2, 12)] {
        let global = format!("clap.optim.global_batch={global}");
        let pieces = [
            "is no multiple of clap.optim.batch_size (4)",
            "smaller ones are another loss",
        ];
        run.fails("clap", ranks, "no", &[&global], 4, &pieces);
    }
    assert!(!run.path("no/checkpoints").exists() && !run.path("no/events").exists());
}

#[test]
fn train_takes_the_job_that_is_asked_for_or_the_one_that_the_recipe_is_for() {
    let of = |changes: &[&str]| {
        let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        recipe_file::demo(&changes).and_then(|recipe: Recipe| Which::of(&recipe))
    };
    assert_eq!(of(&[]).unwrap(), Which::Curriculum);
    assert_eq!(of(&["stages=[]", "lm=null"]).unwrap(), Which::Clap);
    assert_eq!(of(&["stages=[]", "clap=null"]).unwrap(), Which::Lm);
    assert_eq!(of(&["lm=null", "clap=null"]).unwrap(), Which::Curriculum);
    for (changes, said) in [
        (
            &["stages=[]"][..],
            "no `stages`, and both `lm` and `clap`: which of them?",
        ),
        (
            &["stages=[]", "lm=null", "clap=null"],
            "the recipe has no section `stages`",
        ),
    ] {
        let e = of(changes).unwrap_err();
        assert!(e.to_string().contains(said), "{e}");
        assert_eq!(e.exit_code(), 4);
    }

    let run = Run::new();
    let train = |verb: &[&str], job: &str, out: &str, more: &[&str]| {
        ended(run.verb(verb, job, 1, out, more).spawn().unwrap())
    };
    for job in JOBS {
        // As by its short name.
        let long = format!("{job}long");
        let (code, said) = train(&["train", "--job", job], job, &long, &[]);
        assert_eq!(code, 0, "{said}");
        run.same_as_plain(job, &long);
        let null = format!("{job}=null");
        let none = format!("the recipe has no section `{job}`");
        let other = if job == "lm" { "clap.sets=[]" } else { "seed=7" };
        for verb in [&[job][..], &["train", "--job", job]] {
            let (code, said) = train(verb, job, "no", &[&null, other]);
            assert_eq!(code, 4, "{said}");
            has(&said, &[&none]);
        }
        // Each short name is its own job.
        assert_eq!(train(&[job, "--job", job], job, "no", &[]).0, 2);
    }
    // Of a recipe that has nothing else, it learns from all sets.
    run.succeeds("lm", 1, "lmalone", &["clap=null"]);
    run.same_as_plain("lm", "lmalone");
    let (code, said) = train(&["train"], "clap", "alone", &["lm=null"]);
    assert_eq!(code, 0, "{said}");
    run.same_as_plain("clap", "alone");
    for (verb, code, pieces) in [
        (
            &["train"][..],
            4,
            &["which of them?", "--job lm first", "jobs: no `stages`"][..],
        ),
        (&["train", "--job", "curriculum"], 4, &["no section `stages`"]),
        (&["train", "--job", "clip"], 2, &["curriculum, clap, lm"]),
    ] {
        let (found, said) = train(verb, "lm", "no", &[]);
        assert_eq!(found, code, "{said}");
        has(&said, pieces);
    }
    assert!(!run.path("no").exists());
}

#[test]
fn a_stage_cannot_bear_the_name_of_a_section() {
    for name in ["lm", "clap"] {
        let named = format!("stages.stage1.name={name}");
        let e = recipe_file::demo(std::slice::from_ref(&named)).unwrap_err();
        let said = e.to_string();
        has(
            &said,
            &["is the recipe's own section, whose events and checkpoints bear its name"],
        );
        let without = format!("{name}=null");
        recipe_file::demo(&[named, without]).unwrap();
        // In a file at its line.
        let text = DEMO.replace("name: stage1 ", &format!("name: {name} "));
        let line = 1 + text
            .lines()
            .position(|l| l.contains(&format!("- name: {name}")))
            .unwrap();
        let e = recipe_file::parse(&text, "r.yaml", &[]).unwrap_err();
        assert!(e.to_string().contains(&format!("r.yaml:{line}:")), "{e}");
        assert_eq!(e.exit_code(), 4);
    }
}

/// `gate_rate` and `clap_rate` of recipes that were written before there were groups.
#[test]
fn rates_of_their_own_by_their_old_keys_are_groups() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let new = "groups: {gates: {match: \"*_gate\", rate: 20}}";
    assert!(DEMO.contains(new));
    let old = DEMO.replace(new, "gate_rate: 20, clap_rate: 0.5");
    fs::write(at("old.yaml"), &old).unwrap();
    fs::write(at("new.yaml"), DEMO).unwrap();
    let groups = |recipe: &Recipe| -> Vec<(String, String, f64)> {
        let all = recipe.stages[0].optim.groups.iter();
        all.map(|(name, g)| (name.clone(), g.pattern.clone(), g.rate))
            .collect()
    };
    let group = |name: &str, pattern: &str, rate: f64| (name.to_owned(), pattern.to_owned(), rate);
    let (gates, clap) = (
        |rate| group("gates", "*_gate", rate),
        |rate| group("clap", "clap.*", rate),
    );
    let load = |file: &str, changes: &[&str]| {
        let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        recipe_file::load(&at(file), &changes)
    };

    // A file, with a note that says the place.
    let recipe = load("old.yaml", &[]).unwrap();
    assert_eq!(groups(&recipe), [gates(20.0), clap(0.5)]);
    let line = 1 + old.lines().position(|l| l.contains("clap_rate")).unwrap();
    let note = |key: &str, now: &str| {
        let own = recipe.notes.iter().filter(|n| n.contains(key) && n.contains(now));
        own.filter(|n| n.contains(&format!("old.yaml:{line}"))).count()
    };
    assert_eq!(
        note(
            "stages.stage1.optim.gate_rate is now",
            "stages.stage1.optim.groups.gates.rate"
        ),
        1
    );
    assert_eq!(note("stages.stage1.optim.clap_rate is now", "clap.*"), 1);
    assert!(load("new.yaml", &[])
        .unwrap()
        .notes
        .iter()
        .all(|n| !n.contains(" is now ")));

    // Old over new, new over old, and the command line over both.
    let over = |base: &str, optim: &str| {
        let text = format!("base: {base}\nstages: {{stage1: {{optim: {{{optim}}}}}}}\n");
        fs::write(at("over.yaml"), text).unwrap();
        groups(&load("over.yaml", &[]).unwrap_or_else(|e| panic!("{base}, {optim}: {e}")))
    };
    assert_eq!(over("new.yaml", "gate_rate: 3"), [gates(3.0)]);
    assert_eq!(over("old.yaml", "gate_rate: 3"), [gates(3.0), clap(0.5)]);
    assert_eq!(
        over("old.yaml", "groups: {gates: {rate: 4}}"),
        [gates(4.0), clap(0.5)]
    );
    assert_eq!(over("new.yaml", "clap_rate: 0.25"), [gates(20.0), clap(0.25)]);
    // Nothing takes out what the base says.
    assert_eq!(over("old.yaml", "gate_rate: null"), [clap(0.5)]);
    assert_eq!(over("new.yaml", "gate_rate: null"), []);
    for file in ["old.yaml", "new.yaml"] {
        let key = "stages.stage1.optim";
        let changed = load(file, &[&format!("{key}.gate_rate=5")]).unwrap();
        assert_eq!(groups(&changed)[0], gates(5.0), "{file}");
        assert!(changed
            .notes
            .iter()
            .any(|n| n.contains("command line") && n.contains("gate_rate is now")));
        let changed = load(
            file,
            &[
                &format!("{key}.gate_rate=5"),
                &format!("{key}.groups.gates.weight_decay=0"),
            ],
        );
        assert_eq!(
            changed.unwrap().stages[0].optim.groups["gates"].weight_decay,
            Some(0.0)
        );
        let without = load(file, &[&format!("{key}.gate_rate=null")]).unwrap();
        assert!(
            groups(&without).iter().all(|(name, ..)| name != "gates"),
            "{file}"
        );
    }

    // What is wrong with it stands at the user's line, in the job's sections too.
    for (value, said) in [
        ("fast", "expected a number"),
        ("-1", "stages.stage1.optim.groups.gates.rate: "),
        ("[1]", "expected a number"),
    ] {
        let text = old.replace("gate_rate: 20", &format!("gate_rate: {value}"));
        let e = recipe_file::parse(&text, "r.yaml", &[]).unwrap_err();
        assert_eq!(e.exit_code(), 4, "{e}");
        has(&e.to_string(), &[&format!("r.yaml:{line}:"), "gate_rate: ", said]);
        let change = format!("stages.stage1.optim.gate_rate={value}");
        let e = recipe_file::demo(&[change]).unwrap_err();
        has(&e.to_string(), &["gate_rate=", said]);
    }
    for job in JOBS {
        let recipe = recipe_file::demo(&[format!("{job}.optim.gate_rate=2")]).unwrap();
        let note = format!("{job}.optim.gate_rate is now {job}.optim.groups.gates.rate");
        assert!(
            recipe.notes.iter().any(|n| n.contains(&note)),
            "{:?}",
            recipe.notes
        );
    }
}

/// Blocks that are computed again, and logits a few tokens at a time: the same steps, in less memory.
#[test]
fn what_saves_memory_changes_no_step() {
    let run = Run::new();
    for job in JOBS {
        let held = held(job);
        let four = "JOB.optim.steps=4";
        run.succeeds(job, 1, &format!("{job}plain"), &[&held, four]);
        let saving = [
            &held,
            four,
            "train.activation_checkpointing=true",
            "train.loss_chunk=8",
        ];
        run.succeeds(job, 1, &format!("{job}saving"), &saving);
        let [plain, saved] =
            ["plain", "saving"].map(|out| run.values(job, &format!("{job}{out}"), "step_loss"));
        assert_eq!(plain.len(), 4);
        // Until a weight moves, in the third step, blocks that are computed again give the same; behind it AF-CLAP's steps are as
        // far apart as those over ranks, for the reason that is said there. Seen: 1.1e-7 and 1.2e-6.
        near(job, &saved[..2], &plain[..2], 1e-6);
        near(job, &saved, &plain, if job == "lm" { 1e-6 } else { 1e-5 });
    }
}
