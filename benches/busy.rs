//! What another program on the cores costs, and what our bounded spin and our yielding (`src/cores.rs`) win.
//!
//! `make bench-busy` runs this: training steps and answers of two sizes, each with OpenMP's own settings and with ours, on a
//! quiet machine and beside one program that keeps one core busy, in processes of their own, in turn.
//!
//! ```text
//! make bench-busy ARGS='tiny train'    what is named alone: sizes tiny, mid, af2-0.5b (only where named); train, answer
//! AF2_BENCH_ROUNDS=3                   rounds
//! ```
#![allow(clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

mod step;

use af2::report::table::Table;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use step::{environment, median, Job, Measured, LEARNING_RATE};

/// Who has not ended after so long is not waited for.
const LIMIT: Duration = Duration::from_secs(30);

/// Name, environment, threads (0: all cores).
type Setting = (&'static str, &'static [(&'static str, &'static str)], usize);
const SETTINGS: [Setting; 6] = [
    (
        "af2",
        &[("GOMP_SPINCOUNT", "10000"), ("AF2_BOUNDED_SPIN", "1")],
        0,
    ),
    ("OpenMP's default", &[], 0),
    ("GOMP_SPINCOUNT=10000", &[("GOMP_SPINCOUNT", "10000")], 0),
    ("GOMP_SPINCOUNT=2000", &[("GOMP_SPINCOUNT", "2000")], 0),
    ("OMP_WAIT_POLICY=passive", &[("OMP_WAIT_POLICY", "passive")], 0),
    ("one thread", &[], 1),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if step::as_job(&arguments) {
        return;
    }
    if arguments == ["--spin"] {
        loop {
            std::hint::spin_loop();
        }
    }
    let named = |word: &str| arguments.iter().any(|a| a == word);
    let none = |words: &[&str]| !words.iter().any(|w| named(w));
    let cores = af2::cores::allowed();
    let rounds = environment("AF2_BENCH_ROUNDS", 3).max(1);
    let mut table = Table::new([
        "",
        "settings",
        "quiet, ms",
        "busy, ms",
        "busy ÷ quiet",
        "quiet ÷ OpenMP's default",
    ]);
    let sizes = [("tiny", 32, 10, 60), ("mid", 64, 2, 8), ("af2-0.5b", 64, 1, 3)];
    for (size, text, warmup, steps) in sizes {
        let wanted = named(size) || none(&["tiny", "mid", "af2-0.5b"]) && size != "af2-0.5b";
        for (what, answer) in [("train", 0), ("answer", 32)] {
            if !wanted || !(named(what) || none(&["train", "answer"])) {
                continue;
            }
            let job = Job {
                folder: Default::default(),
                size: size.to_owned(),
                clap: false,
                again: false,
                bf16: false,
                held_bf16: false,
                device: "cpu".to_owned(),
                items: 2,
                windows: 2,
                text,
                threads: cores,
                warmup,
                steps,
                learning_rate: LEARNING_RATE,
                answer,
            };
            let mut all = vec![[Vec::new(), Vec::new()]; SETTINGS.len()];
            for round in 0..rounds {
                for busy in [false, true] {
                    // Nobody is always the first.
                    for i in (0..SETTINGS.len()).map(|i| (i + round) % SETTINGS.len()) {
                        eprintln!(
                            "{size} {what}, {}{} …",
                            SETTINGS[i].0,
                            if busy { ", busy" } else { "" }
                        );
                        all[i][usize::from(busy)].push(seconds(&job, &SETTINGS[i], busy));
                    }
                }
            }
            let middle = |of: &[f64]| median(of.iter().copied());
            let default = middle(&all[1][0]);
            let unit = if answer > 0 {
                "answer, a token"
            } else {
                "training, a step"
            };
            for ((name, ..), [quiet, busy]) in SETTINGS.iter().zip(&all) {
                let (quiet, busy) = (middle(quiet), middle(busy));
                let shown = |s: f64| match s.is_finite() {
                    true => format!("{:.1}", 1e3 * s),
                    false => format!("not done in {} s", LIMIT.as_secs()),
                };
                let ratio = |r: f64| match r.is_finite() {
                    true => format!("{r:.2}"),
                    false => "–".to_owned(),
                };
                table.row([
                    format!("{size}, {unit}"),
                    (*name).to_owned(),
                    shown(quiet),
                    shown(busy),
                    ratio(busy / quiet),
                    ratio(quiet / default),
                ]);
            }
        }
    }
    println!(
        "{cores} cores, {rounds} rounds, medians of each round's mean\n{}",
        table.terminal()
    );
}

/// Mean seconds of a step or a token; infinite where it took too long.
fn seconds(job: &Job, (_, environment, threads): &Setting, busy: bool) -> f64 {
    let job = Job {
        threads: if *threads == 0 { job.threads } else { *threads },
        ..job.clone()
    };
    let own = std::env::current_exe().expect("this program");
    let _busy = busy.then(|| Busy::start(&own));
    let count = job.threads.to_string();
    let mut child = Command::new(&own)
        .arg("--job")
        .arg(serde_json::to_string(&job).expect("a job"))
        .envs(["OMP_NUM_THREADS", "MKL_NUM_THREADS"].map(|n| (n, &count)))
        .env_remove("GOMP_SPINCOUNT")
        .env_remove("OMP_WAIT_POLICY")
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a program that starts");
    let start = Instant::now();
    while child.try_wait().expect("our process").is_none() {
        if start.elapsed() > LIMIT {
            child.kill().expect("our process");
            child.wait().expect("our process");
            return f64::INFINITY;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let out = child.wait_with_output().expect("our process");
    assert!(out.status.success(), "a measurement failed");
    let text = String::from_utf8_lossy(&out.stdout);
    let measured: Measured =
        serde_json::from_str(text.lines().last().unwrap_or_default()).expect("measurements");
    measured.seconds.iter().sum::<f64>() / measured.seconds.len() as f64
}

/// A program that keeps a core busy. In a session of its own, as a program in another terminal is: Linux shares the cores out
/// between sessions, whatever the priorities within them.
struct Busy(Child);

impl Busy {
    fn start(own: &std::path::Path) -> Self {
        let mut command = Command::new("setsid");
        Busy(
            command
                .arg(own)
                .arg("--spin")
                .spawn()
                .expect("setsid, of util-linux"),
        )
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
