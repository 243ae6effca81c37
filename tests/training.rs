//! Whole runs of `af2 train` on a tiny model: split over ranks, killed, resumed, told to stop, gone wrong.
#![allow(clippy::panic, clippy::unwrap_used, unsafe_code)]

mod common;
#[path = "common/runs.rs"]
mod runs;

use af2::run::events::{latest, read_events};
use common::golden;
use runs::{distance, ended, kill_all, on_a_full_disk, ranks_of, signal, wait, Left};
use serde_json::json;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tch::Tensor;

/// A folder with nineteen clips of one to three windows, a model to start from, and a recipe.
struct Run {
    folder: tempfile::TempDir,
}

/// One stage, logged step by step. Batches of two: the last of an epoch is short.
const STAGE: &str = "
  - name: one
    train: [audio_transformer, cross_attention, embeddings]
    windows: 3
    sets: {a: 1}
    save: {every: 2, keep_last: 3}
    optim: {steps: 10, batch_size: 2, global_batch: 8, learning_rate: 1.0e-3, warmup: 2}
";

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let base = root.join("base");
        fs::create_dir_all(&base).unwrap();
        for part in ["safe_ckpt", "clap_ckpt", "llm"] {
            let from = golden("F_tiny").join(part);
            std::os::unix::fs::symlink(from, base.join(part)).unwrap();
        }
        fs::copy(golden("F_tiny/config.yaml"), base.join("af2.yaml")).unwrap();
        fs::create_dir_all(root.join("a")).unwrap();
        for i in 0..19usize {
            let samples = [1_000, 3_000, 161_000, 2_000, 321_000][i % 5] + i;
            common::wav(&root.join(format!("a/{i}.wav")), samples);
        }
        let run = Run { folder };
        run.items(|i| ("What is heard?".into(), "a sound ".repeat(1 + i % 7)));
        run.recipe(STAGE);
        run
    }

    /// Writes the manifest: prompt and answer of each item.
    fn items(&self, texts: impl Fn(usize) -> (String, String)) {
        let item = |i: usize| {
            let (prompt, output) = texts(i);
            (
                i.to_string(),
                json!({"name": format!("{i}.wav"), "prompt": prompt, "output": output}),
            )
        };
        let items: serde_json::Map<_, _> = (0..19).map(item).collect();
        let set = json!({"split": "train", "split_path": "a", "flamingo_task": "a", "total_num": 19, "data": items});
        fs::write(self.path("a/train.json"), set.to_string()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn recipe(&self, stages: &str) {
        let root = self.folder.path().display();
        let text = format!(
            "name: training\nseed: 7\ndevice: cpu\noutput: {root}/run\nmodel: {{checkpoint: {root}/base}}\n\
             data: {{root: {root}, sets: {{a: a/train.json}}}}\ntrain: {{log_every: 1}}\nstages:{stages}"
        );
        fs::write(self.path("recipe.yaml"), text).unwrap();
    }

    /// `train RECIPE output=OUT …`, over so many ranks.
    fn command(&self, ranks: usize, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_af2"));
        if ranks > 1 {
            command.args(["launch", "--grace", "10", "-n", &ranks.to_string(), "--"]);
        }
        command
            .arg("train")
            .arg(self.path("recipe.yaml"))
            .arg(format!("output={}", self.path(out).display()))
            .args(more)
            .env("OMP_NUM_THREADS", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn train(&self, ranks: usize, out: &str, more: &[&str]) -> (i32, String) {
        ended(self.command(ranks, out, more).spawn().unwrap())
    }

    fn succeeds(&self, ranks: usize, out: &str, more: &[&str]) -> String {
        let (code, said) = self.train(ranks, out, more);
        assert_eq!(code, 0, "{said}");
        said
    }

    fn left(&self, out: &str) -> Left<'static> {
        Left {
            run: self.path(out),
            job: "one",
        }
    }

    fn losses(&self, out: &str) -> Vec<(u64, u64, u64)> {
        self.left(out).losses()
    }

    fn values(&self, out: &str, name: &str) -> Vec<f64> {
        self.left(out).values(name)
    }

    fn weights(&self, out: &str) -> Vec<(String, Tensor)> {
        runs::weights(&self.path(out).join("checkpoints/one/safe_ckpt"))
    }

    fn wait_for(&self, out: &str, lines: usize, child: &mut Child) {
        self.left(out).wait_for(lines, child);
    }

    fn checkpoints(&self, out: &str) -> usize {
        self.left(out).checkpoints().len()
    }

    fn wait_for_path(&self, name: &str, child: &mut Child) {
        wait(child, name, || self.path(name).exists());
    }

    fn wait_for_checkpoint(&self, out: &str, child: &mut Child) {
        self.left(out).wait_for_checkpoint(child);
    }
}

/// One process with four micro-steps, two with two, four with one: the same micro-batches, added up in another order.
#[test]
fn a_step_is_the_same_however_it_is_split_over_ranks_and_micro_steps() {
    let run = Run::new();
    // Four ranks share the optimizer's state; two do it both ways.
    for (ranks, zero) in [(1, false), (2, false), (2, true), (4, true)] {
        run.succeeds(ranks, &format!("{ranks}{zero}"), &[&format!("train.zero={zero}")]);
    }
    let (losses, norms) = (
        run.values("1false", "step_loss"),
        run.values("1false", "grad_norm"),
    );
    assert_eq!(losses.len(), 10);
    assert!(losses[9] < 0.5 * losses[0], "{losses:?}");
    let weights = run.weights("1false");
    for other in ["2false", "2true", "4true"] {
        for (name, expected) in [("step_loss", &losses), ("grad_norm", &norms)] {
            for (found, expected) in run.values(other, name).iter().zip(expected) {
                let off = (found / expected - 1.0).abs();
                assert!(off <= 1e-6, "{other} {name}: {found} instead of {expected}");
            }
        }
        let (off, name) = distance(&weights, &run.weights(other), &[]);
        println!("{other}: {off:.1e} ({name})");
        assert!(off <= 1e-6, "{other}: {name} is off by {off:e}");
    }
    // Sharing the optimizer's state changes no bit.
    assert_eq!(run.losses("2false"), run.losses("2true"));
    assert_eq!(
        distance(&run.weights("2false"), &run.weights("2true"), &[]).0,
        0.0
    );
}

/// Three ranks, a stage that trains CLAP (whose fusion and tagging head get no gradient), batches by a budget, and the
/// memory savers: the same steps once more.
#[test]
fn three_ranks_with_unused_weights_and_recomputed_blocks() {
    let run = Run::new();
    run.recipe(
        &STAGE
            .replace("train: [", "train: [clap, ")
            .replace("steps: 10", "steps: 5")
            .replace("global_batch: 8", "global_batch: 12"),
    );
    run.succeeds(1, "one", &[]);
    run.succeeds(3, "three", &["train.zero=true"]);
    run.succeeds(
        3,
        "saving",
        &[
            "train.activation_checkpointing=true",
            "train.loss_chunk=8",
            "train.bucket_mib=1",
        ],
    );
    let losses = run.values("one", "step_loss");
    for other in ["three", "saving"] {
        for (found, expected) in run.values(other, "step_loss").iter().zip(&losses) {
            let off = (found / expected - 1.0).abs();
            // The keys' biases below, and what comes of them.
            assert!(off <= 2e-6, "{other}: {found} instead of {expected}");
        }
        // Softmax does not feel a bias that all keys share: its gradient is rounding noise, and Adam makes steps of it.
        let (off, name) = distance(&run.weights("one"), &run.weights(other), &["qkv.bias"]);
        println!("{other}: {off:.1e} ({name})");
        assert!(off <= 5e-6, "{other}: {name} is off by {off:e}");
    }
}

/// CLAP in train mode draws random numbers in every step: these must go on, too.
fn random_stage(steps: usize) -> String {
    STAGE
        .replace("train: [", "clap_mode: train\n    train: [clap, ")
        .replace("steps: 10", &format!("steps: {steps}"))
        .replace("every: 2", "every: 3")
}

/// Long enough to be killed in, and nothing is saved but what a rescue saves.
fn unsaved_stage() -> String {
    STAGE
        .replace("steps: 10", "steps: 20")
        .replace("every: 2", "every: 0")
}

#[test]
fn five_kills_at_random_moments_change_no_loss() {
    let run = Run::new();
    run.recipe(&random_stage(16).replace("every: 3", "every: 1"));
    for ranks in [1, 2] {
        let (whole, killed) = (format!("whole{ranks}"), format!("killed{ranks}"));
        run.succeeds(ranks, &whole, &[]);
        for kill in 0..5 {
            let mut child = run
                .command(ranks, &killed, &["--resume", "auto"])
                .spawn()
                .unwrap();
            // From a clock, not from a seed: other moments in every run.
            let noise = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |d| d.subsec_micros() as usize);
            let (lines, pause) = (1 + noise % 4, noise / 7 % 25);
            println!("{ranks} ranks, kill {kill}: after {lines} micro-steps and {pause} ms");
            let have = run.left(&killed).lines();
            run.wait_for(&killed, have + lines, &mut child);
            // Chance may have it that no kill so far came behind a whole checkpoint: then nothing would be gone on from.
            if kill == 2 {
                run.wait_for_checkpoint(&killed, &mut child);
            }
            std::thread::sleep(Duration::from_millis(pause as u64));
            kill_all(child, ranks);
        }
        let said = run.succeeds(ranks, &killed, &["--resume", "auto"]);
        assert!(said.contains("resume: one from "), "{said}");
        assert_eq!(run.losses(&killed), run.losses(&whole), "{ranks} ranks");
        let (off, name) = distance(&run.weights(&whole), &run.weights(&killed), &[]);
        assert_eq!(off, 0.0, "{name}");
        // A run that is done stays so.
        let said = run.succeeds(ranks, &killed, &["--resume", "auto"]);
        assert!(!said.contains("train:"), "{said}");
    }
}

#[test]
fn a_dead_rank_is_named_and_its_run_goes_on_by_itself() {
    let run = Run::new();
    run.recipe(&unsaved_stage());
    run.succeeds(2, "whole", &[]);
    let mut child = run.command(2, "dead", &[]).spawn().unwrap();
    run.wait_for("dead", 7, &mut child);
    signal(ranks_of(&child, 2)[1], "KILL");
    let (code, said) = ended(child);
    assert_eq!(code, 137, "{said}");
    assert!(said.contains("rank 1 no longer answers: dead or hung"), "{said}");
    assert!(said.contains("saved step "), "{said}");
    // What rank 0 saved is the last whole step.
    run.succeeds(2, "dead", &["--resume", "auto"]);
    assert_eq!(run.losses("dead"), run.losses("whole"));

    // Also where the first rank is the one that died: the next saves, behind what is there.
    let arguments = ["stages.one.save.every=10"];
    let mut child = run.command(2, "first", &arguments).spawn().unwrap();
    run.wait_for_checkpoint("first", &mut child);
    signal(ranks_of(&child, 2)[0], "KILL");
    let (code, said) = ended(child);
    assert_eq!(code, 137, "{said}");
    assert!(said.contains("rank 0 no longer answers: dead or hung"), "{said}");
    let saved = said
        .lines()
        .find_map(|l| l.split_once("saved step "))
        .expect(&said);
    let said = run.succeeds(2, "first", &["--resume", "auto", "stages.one.save.every=10"]);
    let step = saved.1.split(' ').next().unwrap();
    assert!(said.contains(&format!(", step {step}\n")), "{said}");
    // Its random numbers are gone, but nothing here draws any.
    assert_eq!(run.losses("first"), run.losses("whole"));

    // The launcher starts all again, as torchrun does.
    let command = run.command(2, "again", &["--resume", "auto"]);
    let arguments: Vec<_> = command.get_args().map(|a| a.to_owned()).collect();
    let mut restarting = Command::new(command.get_program());
    restarting
        .args(&arguments[..1])
        .args(["--max-restarts", "2"])
        .args(&arguments[1..]);
    restarting
        .env("OMP_NUM_THREADS", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = restarting.spawn().unwrap();
    run.wait_for("again", 5, &mut child);
    signal(ranks_of(&child, 2)[0], "KILL");
    let (code, said) = ended(child);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("starting all ranks again (1 of 2)"), "{said}");
    assert!(said.contains("rank 0"), "{said}");
    assert_eq!(run.losses("again"), run.losses("whole"));
}

/// PyTorch's own torchrun, an agent on each of two nodes: one that counts a restart and one that does not.
#[test]
#[ignore = "make test-interop"]
fn torchrun_starts_a_run_again_on_two_nodes() {
    let python = std::env::var_os("AF2_INTEROP_PYTHON").expect("`make test-interop` sets AF2_INTEROP_PYTHON");
    let run = Run::new();
    run.recipe(&unsaved_stage());
    run.succeeds(2, "whole", &[]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let plain = run.command(1, "torchrun", &["train.timeout=60"]);
    let mut agents: Vec<Child> = (0..2)
        .map(|_| {
            let mut agent = Command::new(&python);
            agent
                .args([
                    "-m",
                    "torch.distributed.run",
                    "--nnodes",
                    "2",
                    "--nproc-per-node",
                    "1",
                ])
                .args(["--rdzv-backend", "c10d", "--rdzv-id", "one", "--rdzv-endpoint"])
                .arg(format!("127.0.0.1:{port}"))
                .args(["--max-restarts", "3", "--no-python"])
                .arg(plain.get_program())
                .args(plain.get_args())
                .env("OMP_NUM_THREADS", "1")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            agent.spawn().unwrap()
        })
        .collect();
    run.wait_for("torchrun", 9, &mut agents[0]);
    signal(ranks_of(&agents[1], 1)[0], "KILL");
    let said: Vec<String> = agents
        .into_iter()
        .map(|agent| {
            let (code, said) = ended(agent);
            assert_eq!(code, 0, "{said}");
            said
        })
        .collect();
    let said = said.concat();
    for piece in [
        "no longer answers: dead or hung",
        "saved step ",
        "the launcher has started this run again",
        "resume: one from ",
    ] {
        assert!(said.contains(piece), "`{piece}` is not in {said}");
    }
    assert_eq!(run.losses("torchrun"), run.losses("whole"));
}

#[test]
fn a_hung_rank_is_named_within_the_timeout() {
    let run = Run::new();
    run.recipe(&STAGE.replace("steps: 10", "steps: 400"));
    let mut child = run.command(2, "hung", &["train.timeout=10"]).spawn().unwrap();
    run.wait_for("hung", 5, &mut child);
    let hung = ranks_of(&child, 2)[1];
    let since = Instant::now();
    signal(hung, "STOP");
    let (code, said) = ended(child);
    assert_eq!(code, 11, "{said}");
    assert!(said.contains("rank 1 no longer answers: dead or hung"), "{said}");
    assert!(since.elapsed() < Duration::from_secs(90), "{:?}", since.elapsed());
    assert!(
        !Path::new(&format!("/proc/{hung}")).exists(),
        "the hung rank is left behind"
    );
}

#[test]
fn a_fault_of_one_rank_is_told_by_all() {
    let run = Run::new();
    let root = run.folder.path();
    // Broken sounds, and a budget that stands none: whoever meets one first stops everyone.
    for i in [3, 8, 13] {
        fs::write(root.join(format!("a/{i}.wav")), "no sound").unwrap();
    }
    let (code, said) = run.train(2, "fault", &["data.skip_budget=0"]);
    assert_eq!(code, 10, "{said}");
    assert!(said.contains("1 of 19 items cannot be used"), "{said}");

    // Alone, too, what was done by then is saved; the data is mended, and the run goes on.
    let sound = fs::read(root.join("a/0.wav")).unwrap();
    let (code, said) = run.train(1, "alone", &["data.skip_budget=0.1", "data.ahead=1"]);
    assert_eq!(code, 10, "{said}");
    let saved = said.contains("saved step ");
    for i in [3, 8, 13] {
        fs::write(root.join(format!("a/{i}.wav")), &sound).unwrap();
    }
    let said = run.succeeds(1, "alone", &["data.skip_budget=0.1", "--resume", "auto"]);
    assert_eq!(said.contains("resume: one from "), saved, "{said}");
}

/// Ranks that see other files would train other models: none goes on.
#[test]
fn ranks_that_do_not_share_their_folder_are_told() {
    let run = Run::new();
    run.succeeds(1, "own", &["stages.one.optim.steps=4"]);
    let other = run.path("other");
    fs::create_dir_all(&other).unwrap();
    // The second rank is given a folder of its own by a program between.
    let program = run.path("between.sh");
    let text = format!(
        "#!/usr/bin/env bash\n[[ $RANK == 0 ]] || set -- \"${{@/own/other}}\"\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_af2")
    );
    fs::write(&program, text).unwrap();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    drop(server);
    let plain = run.command(1, "own", &["--resume", "auto", "train.timeout=30"]);
    let ranks: Vec<Child> = (0..2)
        .map(|rank| {
            let mut command = Command::new("bash");
            command.arg(&program).args(plain.get_args());
            let rank = rank.to_string();
            for (name, value) in [
                ("RANK", rank.as_str()),
                ("WORLD_SIZE", "2"),
                ("MASTER_ADDR", "127.0.0.1"),
                ("MASTER_PORT", &port),
                ("OMP_NUM_THREADS", "1"),
            ] {
                command.env(name, value);
            }
            let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            piped.spawn().unwrap()
        })
        .collect();
    for child in ranks {
        // One has no such file, the other hears of it.
        let (code, said) = ended(child);
        assert!([3, 7].contains(&code), "{code}: {said}");
        assert!(
            said.contains("checkpoint_1.pt") || said.contains("the same file on all ranks"),
            "{said}"
        );
    }
}

#[test]
fn signals_save_and_end_or_go_on() {
    let run = Run::new();
    run.recipe(&random_stage(10).replace("every: 3", "every: 0"));
    for ranks in [1, 2] {
        let (whole, told) = (format!("whole{ranks}"), format!("told{ranks}"));
        run.succeeds(ranks, &whole, &[]);
        let mut child = run.command(ranks, &told, &[]).spawn().unwrap();
        run.wait_for(&told, 3, &mut child);
        signal(child.id(), "USR1");
        run.wait_for_checkpoint(&told, &mut child);
        signal(child.id(), "TERM");
        let (code, said) = ended(child);
        assert_eq!(code, 12, "{said}");
        assert!(said.contains("stopped by a signal after step"), "{said}");
        assert!((1..=2).contains(&run.checkpoints(&told)));
        run.succeeds(ranks, &told, &["--resume", "auto"]);
        assert_eq!(run.losses(&told), run.losses(&whole));
    }
}

/// A command whose standard error is read while it runs, line by line.
fn heard(command: &mut Command) -> (Child, std::sync::mpsc::Receiver<String>) {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let from = std::io::BufReader::new(child.stderr.take().unwrap());
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(from).map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    (child, lines)
}

/// Ctrl-C and a closed terminal throw nothing away: also where they reach a launcher and its ranks at once.
/// Whoever runs the tests may do it under nohup, which its children would inherit.
fn hears_hangups(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec, one system call that allocates nothing.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        })
    }
}

#[test]
fn the_first_interrupt_saves_and_the_second_ends_at_once() {
    let run = Run::new();
    run.recipe(&unsaved_stage().replace("steps: 20", "steps: 4000"));
    for (ranks, name) in [(1, "INT"), (1, "HUP"), (2, "INT"), (2, "HUP")] {
        let out = format!("{name}{ranks}");
        let mut child = hears_hangups(&mut run.command(ranks, &out, &[])).spawn().unwrap();
        run.wait_for(&out, 3, &mut child);
        let all = match ranks {
            1 => Vec::new(),
            _ => ranks_of(&child, ranks),
        };
        all.iter().chain([&child.id()]).for_each(|p| signal(*p, name));
        let (code, said) = ended(child);
        assert_eq!(code, 12, "{out}: {said}");
        assert!(
            said.contains(&format!("SIG{name}: the step in work is finished and saved")),
            "{out}: {said}"
        );
        assert!(
            said.contains("which is saved; `--resume auto` goes on"),
            "{out}: {said}"
        );
        assert_eq!(run.checkpoints(&out), 1, "{out}");
    }
    // A step without end: only the second ends it.
    let endless = [
        "stages.one.optim.global_batch=4000000",
        // A line of events for each of its micro-steps would fill any disk.
        "train.check_room=false",
    ];
    for ranks in [1, 2] {
        let out = format!("endless{ranks}");
        let (mut child, lines) = heard(&mut run.command(ranks, &out, &endless));
        run.wait_for_path(&format!("{out}/events/one/events.jsonl"), &mut child);
        signal(child.id(), "INT");
        let word = "once more ends it at once";
        if ranks == 1 {
            while !lines
                .recv_timeout(Duration::from_secs(60))
                .unwrap()
                .contains(word)
            {}
        }
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "the first ended it");
        signal(child.id(), "INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
    // Under nohup the terminal may go.
    let plain = run.command(1, "nohup", &[]);
    let mut nohup = Command::new("sh");
    nohup
        .args(["-c", "trap '' HUP; exec \"$@\"", "nohup"])
        .arg(plain.get_program());
    nohup.args(plain.get_args()).env("OMP_NUM_THREADS", "1");
    let mut child = nohup.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    run.wait_for("nohup", 3, &mut child);
    signal(child.id(), "HUP");
    run.wait_for("nohup", 20, &mut child);
    signal(child.id(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(12));
}

/// A terminal that was closed, a launcher's pipe that nobody reads, a log on a full disk: the run does not depend on them.
#[test]
fn a_screen_that_is_gone_loses_no_run() {
    let run = Run::new();
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    type Screen<'s> = &'s dyn Fn() -> Stdio;
    let cases: [(usize, &str, Screen); 3] = [
        (1, "full", &full),
        (1, "closed", &closed),
        (2, "launched", &closed),
    ];
    for (ranks, out, screen) in cases {
        // Both begin and go on; the second has a note to print before its first step.
        for steps in [2, 4] {
            let steps = format!("stages.one.optim.steps={steps}");
            let mut command = run.command(ranks, out, &["--resume", "auto", &steps, "stages.one.windows=2"]);
            let status = command.stdout(screen()).stderr(screen()).status().unwrap();
            assert!(status.success(), "{out} {steps}: {status}");
        }
        assert_eq!(run.values(out, "step_loss").len(), 4, "{out}");
    }
}

#[test]
fn a_stage_that_is_beyond_its_steps_is_refused_and_one_without_its_model_is_written_again() {
    let run = Run::new();
    run.succeeds(1, "run", &["stages.one.optim.steps=6"]);
    let before = run.weights("run");
    let model = run.path("run/checkpoints/one/safe_ckpt");
    let newest = run
        .path("run/checkpoints/one/checkpoint_2.pt")
        .display()
        .to_string();
    let refused = |resume: &str, place: &str| {
        let (code, said) = run.train(1, "run", &["--resume", resume, "stages.one.optim.steps=4"]);
        assert_eq!(code, 4, "{said}");
        for piece in [
            "stages.one.optim.steps: 4, but ",
            place,
            " 6 steps",
            "stages.one.optim.steps=6 takes what is there",
        ] {
            assert!(said.contains(piece), "`{piece}` is not in {said}");
        }
        assert!(!said.contains("200%") && !said.contains("6/4"), "{said}");
    };
    refused("auto", "is done with");
    refused(&newest, "the checkpoint");
    assert!(run.path("run/checkpoints/one/done.json").exists() && model.exists());
    fs::remove_dir_all(&model).unwrap();
    refused("auto", "is done with");
    // As many as there are: the model comes back, from the checkpoint.
    let said = run.succeeds(1, "run", &["--resume", "auto", "stages.one.optim.steps=6"]);
    assert!(
        said.contains("one is marked as done, but its model cannot be used"),
        "{said}"
    );
    assert_eq!(distance(&before, &run.weights("run"), &[]).0, 0.0);
    // Also where the run was ended before it could say that it is done.
    fs::remove_file(run.path("run/checkpoints/one/done.json")).unwrap();
    refused("auto", "the checkpoint");
}

/// A resumed run that learns by other rules than before goes on, and says which.
#[test]
fn what_is_another_than_in_the_run_that_is_resumed_is_named() {
    let run = Run::new();
    let steps = |n: usize| format!("stages.one.optim.steps={n}");
    run.succeeds(1, "run", &[&steps(2)]);
    run.items(|i| ("What is heard?".into(), "a sound ".repeat(1 + (i + 1) % 7)));
    let changes = [
        "--resume",
        "auto",
        &steps(4),
        "stages.one.optim.schedule=cosine",
        "stages.one.optim.clip=0.5",
        "stages.one.windows=2",
        "stages.one.optim.global_batch=4",
        "train.precision=amp_bf16",
        "train.tf32=true",
        "train.loss=mean_of_means",
        "data.max_tokens=64",
        "model.audio_transformer={n_head: 2, n_layers: 3, d_inner: 80, attention_dropout: 0.3}",
    ];
    let said = run.succeeds(1, "run", &changes);
    for line in [
        "stages.one.optim.schedule: cosine now, it was constant",
        "stages.one.optim.clip: 0.5 now, it was 1.0",
        "stages.one.windows: 2 now, it was 3",
        "stages.one.optim: items of a step: 4 now, it was 8",
        "stages.one.optim.steps: 4 now, it was nothing",
        "train.precision: amp_bf16 now, it was fp32",
        "train.tf32: true now, it was false",
        "train.loss: mean_of_means now, it was tokens",
        "data.max_tokens: 64 now, it was 512",
        "model.audio_transformer.attention_dropout: 0.3 now, it was ",
        "data.sets.a: its texts: ",
    ] {
        assert!(
            said.contains(&format!("resume: {line}")),
            "`{line}` is not in {said}"
        );
    }
    assert_eq!(said.matches(" now, it was ").count(), 11, "{said}");
    // The same once more: nothing to say.
    let said = run.succeeds(
        1,
        "run",
        &[&changes[..2], &[&steps(4) as &str], &changes[3..]].concat(),
    );
    assert!(!said.contains(" now, it was "), "{said}");
}

#[test]
fn a_runs_folder_that_is_gone_under_way_ends_it() {
    let run = Run::new();
    run.recipe(&unsaved_stage().replace("steps: 20", "steps: 4000"));
    for replaced in [false, true] {
        let out = format!("gone{replaced}");
        let mut child = run.command(1, &out, &[]).spawn().unwrap();
        run.wait_for(&out, 3, &mut child);
        let folder = run.path(&out);
        fs::rename(&folder, folder.with_extension("old")).unwrap();
        if replaced {
            fs::create_dir_all(folder.join("events/one")).unwrap();
            fs::write(folder.join("events/one/events.jsonl"), "").unwrap();
        }
        let (code, said) = ended(child);
        assert_eq!(code, 3, "{said}");
        assert!(
            said.contains("events.jsonl: removed or replaced while the run wrote to it"),
            "{said}"
        );
        assert!(
            !folder.join("checkpoints").exists(),
            "something was written after it"
        );
    }
}

/// Prompts so long that nothing of the answer is left, in a few items, in most and in all.
#[test]
fn items_without_a_counted_token_are_named_and_steps_of_them_change_nothing() {
    let run = Run::new();
    let stage = STAGE
        .replace("global_batch: 8", "global_batch: 1")
        .replace("batch_size: 2", "batch_size: 1");
    run.recipe(&stage.replace("steps: 10", "steps: 19"));
    let long = |i: usize, cut: &dyn Fn(usize) -> bool| {
        let words = if cut(i) { 60 } else { 1 };
        ("listen well ".repeat(words), "a sound".to_owned())
    };
    // One pass: six of nineteen steps.
    run.items(|i| long(i, &|i| i % 3 == 1));
    let few = ["data.max_tokens=40", "train.nonfinite_limit=10"];
    let said = run.succeeds(1, "few", &few);
    for piece in [
        "note: stages.one: 6 of 19 items have no counted token: data.max_tokens (40) cuts off their answers:",
        "a/1.wav (item 1: listen well",
        "and 1 more",
        "would keep the shortest of them whole",
        "6 steps skipped",
    ] {
        assert!(said.contains(piece), "`{piece}` is not in {said}");
    }
    let ledger = fs::read_to_string(run.path("few/nonfinite.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = ledger.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 6, "{ledger}");
    assert!(lines
        .iter()
        .all(|l| l["skipped"] == "no counted token" && l["items"].as_array().unwrap().len() == 1));
    assert_eq!(run.values("few", "loss").len(), 13);
    assert_eq!(run.values("few", "skipped_steps").last(), Some(&6.0));
    assert!(run.values("few", "loss").iter().all(|l| l.is_finite()));

    // A rank that has such an item adds nothing; together they make the step.
    run.recipe(
        &STAGE
            .replace("batch_size: 2", "batch_size: 1")
            .replace("steps: 10", "steps: 4"),
    );
    for loss in ["tokens", "mean_of_means"] {
        let changes = ["data.max_tokens=40", &format!("train.loss={loss}")];
        for ranks in [1, 2] {
            run.succeeds(ranks, &format!("{loss}{ranks}"), &changes);
        }
        let [one, two] = [1, 2].map(|ranks| run.values(&format!("{loss}{ranks}"), "step_loss"));
        assert!(
            one.iter().zip(&two).all(|(a, b)| (a / b - 1.0).abs() <= 1e-6),
            "{one:?} {two:?}"
        );
        let [one, two] = [1, 2].map(|ranks| run.weights(&format!("{loss}{ranks}")));
        let (off, name) = distance(&one, &two, &[]);
        assert!(off <= 1e-6, "{loss}: {name} is off by {off:e}");
    }

    run.recipe(&stage);
    run.items(|i| long(i, &|i| i != 7));
    let (code, said) = run.train(
        2,
        "most",
        &["data.max_tokens=40", "stages.one.optim.global_batch=2"],
    );
    assert_eq!(code, 8, "{said}");
    for piece in [
        "no counted token at step ",
        ", 3 skipped in a row; items of rank ",
        "data.max_tokens (40)",
    ] {
        assert!(said.contains(piece), "`{piece}` is not in {said}");
    }

    run.items(|i| long(i, &|_| true));
    let (code, said) = run.train(1, "all", &["data.max_tokens=40"]);
    assert_eq!(code, 8, "{said}");
    for piece in [
        "19 of 19 items have no counted token",
        "data.max_tokens (40)",
        "a/0.wav",
        "and 14 more",
    ] {
        assert!(said.contains(piece), "`{piece}` is not in {said}");
    }
    assert!(!run.path("all/events").exists() && !run.path("all/checkpoints").exists());

    // An empty answer still teaches where it ends.
    run.items(|i| {
        (
            "What is heard?".into(),
            if i < 2 { " \n".into() } else { "a sound".into() },
        )
    });
    let said = run.succeeds(1, "empty", &["stages.one.optim.steps=1"]);
    assert!(said.contains("2 of 19 items have an empty answer"), "{said}");
}

/// A language model and an AF-CLAP that diverge: nothing is written as done.
#[test]
fn weights_that_are_not_finite_are_not_written() {
    let run = Run::new();
    let root = run.folder.path().display();
    let optim = "optim: {steps: 4, batch_size: 4, learning_rate: 1.0e-3}";
    let text = format!(
        "name: diverging\nseed: 7\ndevice: cpu\noutput: {root}/run\nmodel: {{audio_transformer: {{n_head: 2, n_layers: 1, d_inner: 8}}}}\n\
         data: {{root: {root}, sets: {{a: a/train.json}}}}\n\
         lm: {{vocab_size: 300, hidden_size: 16, intermediate_size: 16, layers: 1, heads: 2, kv_heads: 1, {optim}}}\n\
         clap: {{audio: {{embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2], class_num: 4}}, text: {{d_model: 8, d_kv: 4, d_ff: 8, num_layers: 1, num_heads: 2}}, \
         joint_dim: 8, sets: [a], {optim}}}\nstages: []\n"
    );
    fs::write(run.path("diverging.yaml"), text).unwrap();
    let recipe = run.path("diverging.yaml").display().to_string();
    let train = |verb: &str, change: &str| common::af2(&[verb, &recipe, change, "--quiet"]);
    for (verb, file) in [("lm", "llm/model.safetensors"), ("clap", "clap/clap.safetensors")] {
        for rate in ["1.0e+30", "1.0e+38"] {
            let (code, _, said) = train(verb, &format!("{verb}.optim.learning_rate={rate}"));
            assert_eq!(code, 8, "{verb} {rate}: {said}");
            assert!(said.contains("not finite") && said.contains(verb), "{said}");
            assert!(!run.path("run").join(file).exists(), "{verb} {rate}");
        }
        let (code, _, said) = train(verb, "seed=8");
        assert_eq!(code, 0, "{verb}: {said}");
        assert!(run.path("run").join(file).exists());
    }
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let run = Run::new();
    run.recipe(&random_stage(8));
    run.succeeds(1, "whole", &[]);
    let mut child = run.command(1, "cut", &[]).spawn().unwrap();
    let second = run.path("cut").join("checkpoints/one/checkpoint_1.pt");
    let until = Instant::now() + Duration::from_secs(60);
    while !second.exists() {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(child.id(), "KILL");
    ended(child);
    let folder = run.path("cut").join("checkpoints/one");
    let mut newest = (1..9).map(|n| folder.join(format!("checkpoint_{n}.pt")));
    let newest = newest.rfind(|p| p.exists()).unwrap();
    let bytes = fs::read(&newest).unwrap();
    // One bit in the middle of a tensor: only its checksum shows it.
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 4;
    for damage in [&bytes[..bytes.len() / 2], &flipped] {
        fs::write(&newest, damage).unwrap();
        let copy = run.path("copy");
        let _ = fs::remove_dir_all(&copy);
        let done = Command::new("cp")
            .arg("-r")
            .arg(run.path("cut"))
            .arg(&copy)
            .status();
        assert!(done.unwrap().success());
        let said = run.succeeds(1, "copy", &["--resume", "auto"]);
        assert!(said.contains("resume: a checkpoint cannot be used: "), "{said}");
        assert_eq!(run.losses("copy"), run.losses("whole"));
    }
    // With none that can be read the run does not begin anew behind the user's back.
    for n in 0..9 {
        let path = run.path("cut").join(format!("checkpoints/one/checkpoint_{n}.pt"));
        if path.exists() {
            fs::write(path, "nothing").unwrap();
        }
    }
    let (code, said) = run.train(1, "cut", &["--resume", "auto"]);
    assert_eq!(code, 7, "{said}");
}

/// A run that is begun anew in its folder does not later go on from what the one before left there.
#[test]
fn an_earlier_runs_checkpoints_stay_and_are_not_gone_on_from() {
    let run = Run::new();
    run.succeeds(1, "run", &[]);
    // The second run is stopped before its first checkpoint.
    let mut child = run
        .command(1, "run", &["stages.one.save.every=0"])
        .spawn()
        .unwrap();
    run.wait_for_path("run/events/one/earlier-1", &mut child);
    run.wait_for("run", 2, &mut child);
    signal(child.id(), "KILL");
    ended(child);
    let said = run.succeeds(1, "run", &["--resume", "auto"]);
    assert!(!said.contains("resume: "), "{said}");
    // A file that is named is gone on from.
    let newest = run.path("run/checkpoints/one/checkpoint_8.pt");
    fs::copy(&newest, run.path("named.pt")).unwrap();
    let named = run.path("named.pt").display().to_string();
    let said = run.succeeds(1, "other", &["--resume", &named]);
    assert!(said.contains("named.pt, step 8"), "{said}");
    let mut rest = run.losses("run");
    rest.retain(|(step, ..)| *step > 8);
    assert!(rest.len() > 4);
    assert_eq!(run.losses("other"), rest);
    // Each run has its own events, and what was made twice of the second is once in them.
    for name in ["run/events/one/earlier-1", "run/events/one"] {
        let events = read_events(&run.path(name).join("events.jsonl")).unwrap();
        assert_eq!(events.iter().filter(|e| e.step == 1).count(), 4, "{name}");
        assert_eq!(latest(events.clone()), events, "{name}");
        let boards = fs::read_dir(run.path(name)).unwrap().flatten();
        let boards = boards.filter(|f| f.file_name().to_string_lossy().contains("tfevents"));
        assert_eq!(boards.count(), if name.ends_with("1") { 1 } else { 2 });
    }
    let (code, said) = run.train(1, "none", &["--resume", "nowhere.pt"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("nowhere.pt"), "{said}");
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_what_was_saved() {
    let run = Run::new();
    run.recipe(&STAGE.replace("every: 2", "every: 1"));
    run.succeeds(1, "full", &["stages.one.optim.steps=2"]);
    let saved = run.path("full").join("checkpoints/one/checkpoint_1.pt");
    let before = fs::read(&saved).unwrap();
    let plain = run.command(1, "full", &["stages.one.optim.steps=6", "--resume", "auto"]);
    let (code, said) = ended(on_a_full_disk(&plain, 200).spawn().unwrap());
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("checkpoint_2.pt"), "{said}");
    assert!(
        fs::read(&saved).unwrap() == before,
        "the checkpoint before was touched"
    );
    run.succeeds(1, "full", &["stages.one.optim.steps=6", "--resume", "auto"]);

    // And a folder that cannot be: told before anything is trained.
    fs::write(run.path("file"), "").unwrap();
    let (code, said) = run.train(1, "file/run", &[]);
    assert_eq!(code, 3, "{said}");
}

#[test]
fn steps_that_are_not_finite_are_skipped_and_stop_the_run_in_a_row() {
    let run = Run::new();
    let (code, said) = run.train(1, "wild", &["stages.one.optim.learning_rate=1.0e+30"]);
    assert_eq!(code, 8, "{said}");
    for piece in [
        "is not finite at step 5, 3 skipped in a row",
        "a/",
        "item ",
        "optim.learning_rate",
    ] {
        assert!(said.contains(piece), "`{piece}` is not in: {said}");
    }
    let ledger = fs::read_to_string(run.path("wild/nonfinite.jsonl")).unwrap();
    assert_eq!(ledger.lines().count(), 3, "{ledger}");
    assert!(ledger.contains("What is heard?"), "{ledger}");
}

#[test]
fn a_recipe_shows_that_it_resumes_exactly() {
    let run = Run::new();
    run.recipe(&random_stage(4));
    // Three ranks add up in another order where they are in other buckets; two cannot.
    for ranks in [1, 2, 3] {
        let items = format!("stages.one.optim.global_batch={}", 4 * ranks);
        let said = run.succeeds(ranks, "verify", &["--verify-resume", &items]);
        assert!(said.contains("weights, bit for bit"), "{said}");
    }
    assert!(!run.path("verify/checkpoints").exists(), "it trained");
}

#[test]
fn everything_that_is_promised_is_in_the_events() {
    let run = Run::new();
    // Validation hears one file that is none: it is named, and the others are asked.
    let text = fs::read_to_string(run.path("a/train.json")).unwrap();
    let mut set: serde_json::Value = serde_json::from_str(&text).unwrap();
    set["data"]["19"] = json!({"name": "broken.wav", "prompt": "What is heard?", "output": "nothing"});
    set["total_num"] = json!(20);
    fs::write(run.path("a/val.json"), set.to_string()).unwrap();
    fs::write(run.path("a/broken.wav"), "no sound").unwrap();
    run.succeeds(
        2,
        "run",
        &[
            "data.skip_budget=0.1",
            "train.peak_tflops=1.0",
            "train.precision=amp_bf16",
            "train.validate_every=5",
        ],
    );
    let text = fs::read_to_string(run.path("run/events/one/events.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["step"], &first["micro_step"], &first["epoch"]),
        (&json!(1), &json!(1), &json!(0))
    );
    assert!(first["loss"].is_number());
    let whole: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    for name in [
        "loss",
        "learning_rate",
        "grad_norm",
        "grad_norm/audio_transformer",
        "grad_norm/cross_attention",
        "grad_norm/embeddings",
        "gate/attn/0",
        "gate/ff/3",
        "tokens_per_second",
        "windows_per_second",
        "mfu",
        "memory_mib",
        "padding/windows",
        "padding/tokens",
        "skipped_items",
        "skipped_steps",
        "seconds/data",
        "seconds/transfer",
        "seconds/forward",
        "seconds/backward",
        "seconds/reduce",
        "seconds/optimizer",
    ] {
        assert!(whole[name].is_number(), "{name} is not in {whole}");
    }
    assert!(whole["mfu"].as_f64().unwrap() > 0.0);
    assert_eq!(run.values("run", "validation_loss").len(), 2);
    let skipped = fs::read_to_string(run.path("run/skipped.jsonl")).unwrap();
    assert_eq!(skipped.lines().count(), 1, "{skipped}");
    assert!(skipped.contains("broken.wav"), "{skipped}");
    let mut board = Vec::new();
    for file in fs::read_dir(run.path("run/events/one")).unwrap().flatten() {
        if file.file_name().to_string_lossy().contains("tfevents") {
            fs::File::open(file.path())
                .unwrap()
                .read_to_end(&mut board)
                .unwrap();
        }
    }
    for name in [
        "grad_norm/cross_attention",
        "gate/attn/0",
        "seconds/backward",
        "validation_loss",
    ] {
        assert!(
            board.windows(name.len()).any(|w| w == name.as_bytes()),
            "{name} is not on TensorBoard"
        );
    }
}
