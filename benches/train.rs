//! How fast a training step is and what memory it takes, beside the same step in PyTorch and transformers.
//!
//! `make bench-train` runs this: two sizes, with the audio encoder frozen and trained, each also with activation checkpointing
//! and under bf16 autocast. Each side runs in processes of its own, in turn, on the same weights, batch and number of threads;
//! both must give the same loss. Milliseconds are the machine's; the ratio is what compares.
//!
//! ```text
//! make bench-train ARGS='tiny'              one size
//! AF2_BENCH_THREADS=2 AF2_BENCH_ROUNDS=3    threads of each side (all cores), rounds of both sides (3)
//! make bench-train ARGS='--full-size'       the 3B shapes with random weights on one GPU, without a peer
//!   AF2_BENCH_DEVICE=cuda:0 AF2_BENCH_PEAK_TFLOPS=312 AF2_BENCH_ITEMS=4 AF2_BENCH_SIZE=af2-3b
//! ```
#![allow(clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

mod step;

use af2::model::cost;
use af2::model::input::matrix;
use af2::plan;
use af2::report::table::Table;
use af2::train::jobs::curriculum::batch;
use af2::train::jobs::curriculum::encoded::Encoded;
use std::path::{Path, PathBuf};
use std::process::Command;
use step::{
    environment, hand_over_model, hand_over_tensors, inputs, median, model, own_process, real_tokens, run,
    sizes, stage_of, Job, Measured, LEARNING_RATE,
};
use tch::{Device, Kind, Tensor};

/// So far, relative, may both sides' first loss and gradient norm in fp32 be from each other. Seen: 1e-6; with the
/// tanh of one gate left out, between this and 1e-3.
const SAME: f64 = 1e-4;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if step::as_job(&arguments) {
        return;
    }
    if arguments.iter().any(|a| a == "--full-size") || std::env::var_os("AF2_BENCH_DEVICE").is_some() {
        full_size();
    } else {
        beside_the_peer(&arguments);
    }
}

fn beside_the_peer(only: &[String]) {
    let python = std::env::var_os("AF2_PEER_PYTHON").expect("`make bench-train` sets AF2_PEER_PYTHON");
    let threads = environment("AF2_BENCH_THREADS", rayon::current_num_threads()).max(1);
    let rounds = environment("AF2_BENCH_ROUNDS", 3).max(1);
    let mut times = Table::new([
        "step",
        "af2, ms",
        "Python, ms",
        "Python ÷ af2",
        "lowest to highest",
        "af2, tokens/s",
        "Python, tokens/s",
        "losses differ by",
        "norms differ by",
    ]);
    let mut memory = Table::new([
        "peak memory, MiB (empty process)",
        "af2",
        "Python",
        "Python ÷ af2",
        "the same above the empty process",
    ]);
    let mut parts = Table::new([
        "mean ms",
        "forward: af2",
        "Python",
        "backward: af2",
        "Python",
        "clip and AdamW: af2",
        "Python",
    ]);
    let sizes = [("tiny", 2, 32, 3, 20), ("mid", 2, 64, 1, 4)];
    for (size, windows, text, warmup, steps) in sizes {
        if !only.is_empty() && !only.iter().any(|o| o == size) {
            continue;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let job = Job {
            folder: folder.path().to_path_buf(),
            size: size.to_owned(),
            clap: false,
            again: false,
            bf16: false,
            held_bf16: false,
            device: "cpu".to_owned(),
            items: 2,
            windows,
            text,
            threads,
            warmup,
            steps,
            learning_rate: LEARNING_RATE,
            answer: 0,
        };
        hand_over(&job);
        for (clap, (variant, again, bf16)) in [false, true].into_iter().flat_map(|clap| {
            let variants = [
                ("", false, false),
                (", activation checkpointing", true, false),
                (", amp_bf16", false, true),
            ];
            variants.map(|v| (clap, v))
        }) {
            let job = Job {
                clap,
                again,
                bf16,
                ..job.clone()
            };
            let encoder = if clap { "CLAP trained" } else { "CLAP frozen" };
            let name = format!("{size}, {encoder}{variant}");
            eprintln!("{name} …");
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                // Neither side is always the one behind the other.
                let mut first = || ours.push(own_process(&job));
                let mut second = || theirs.push(run(Command::new(&python).arg(peer()), &job));
                if round % 2 == 0 {
                    first();
                    second();
                } else {
                    second();
                    first();
                }
            }
            let (a, p) = (&ours[0], &theirs[0]);
            assert_eq!(
                (a.parameters, a.trained),
                (p.parameters, p.trained),
                "{name}: parameters, and those that train: af2 and the peer"
            );
            let (loss, norm) = (apart(&a.losses, &p.losses), apart(&a.norms, &p.norms));
            let first = (apart(&a.losses[..1], &p.losses[..1])).max(apart(&a.norms[..1], &p.norms[..1]));
            assert!(
                bf16 || first <= SAME,
                "{name}: not the same step: losses {:?} and {:?}, gradient norms {:?} and {:?}",
                a.losses,
                p.losses,
                a.norms,
                p.norms
            );
            if variant.is_empty() {
                eprintln!(
                    "  {} parameters, {} train, on both sides",
                    a.parameters, a.trained
                );
            }
            let step = |all: &[Measured]| median(all.iter().map(|m| median(m.seconds.iter().copied())));
            let (own, other) = (step(&ours), step(&theirs));
            let each = ours
                .iter()
                .zip(&theirs)
                .map(|(a, p)| median(p.seconds.iter().copied()) / median(a.seconds.iter().copied()));
            let each: Vec<f64> = each.collect();
            let tokens = real_tokens(&job) as f64;
            times.row([
                name.clone(),
                format!("{:.1}", 1e3 * own),
                format!("{:.1}", 1e3 * other),
                format!("{:.2}", other / own),
                format!(
                    "{:.2}–{:.2}",
                    each.iter().copied().fold(f64::INFINITY, f64::min),
                    each.iter().copied().fold(0.0, f64::max)
                ),
                format!("{:.0}", tokens / own),
                format!("{:.0}", tokens / other),
                format!("{loss:.0e}"),
                format!("{norm:.0e}"),
            ]);
            let peak = |all: &[Measured]| median(all.iter().map(|m| m.peak_mib));
            let empty = |all: &[Measured]| median(all.iter().map(|m| m.empty_mib));
            memory.row([
                name.clone(),
                format!("{:.0} ({:.0})", peak(&ours), empty(&ours)),
                format!("{:.0} ({:.0})", peak(&theirs), empty(&theirs)),
                format!("{:.2}", peak(&theirs) / peak(&ours)),
                format!(
                    "{:.2}",
                    (peak(&theirs) - empty(&theirs)) / (peak(&ours) - empty(&ours))
                ),
            ]);
            let part =
                |all: &[Measured], i: usize| format!("{:.1}", 1e3 * median(all.iter().map(|m| m.split[i])));
            let cells = (0..3).flat_map(|i| [part(&ours, i), part(&theirs, i)]);
            parts.row(std::iter::once(name).chain(cells));
        }
    }
    println!(
        "{threads} threads, {rounds} rounds, medians; text tokens that are no padding\n{}\n{}\n{}",
        times.terminal(),
        memory.terminal(),
        parts.terminal()
    );
}

/// The 3B shapes on one GPU: bf16 autocast, frozen matrices in bf16.
fn full_size() {
    let size = std::env::var("AF2_BENCH_SIZE").unwrap_or_else(|_| "af2-3b".to_owned());
    let device = std::env::var("AF2_BENCH_DEVICE").unwrap_or_else(|_| "cuda:0".to_owned());
    let peak: Option<f64> = std::env::var("AF2_BENCH_PEAK_TFLOPS")
        .ok()
        .map(|v| v.parse().expect("AF2_BENCH_PEAK_TFLOPS: a number"));
    let mut table = Table::new([
        "batch",
        "ms a step",
        "text tokens/s",
        "windows/s",
        "TFLOP/s",
        "MFU",
        "peak memory, MiB",
        "forward, ms",
        "backward",
        "clip and AdamW",
    ]);
    // As the curriculum's first two stages: 30 s and short texts, then 90 s, longer ones and CLAP.
    for (number, clap, windows, text) in [(1, false, 3, 128), (2, true, 9, 256)] {
        for again in [false, true] {
            let job = Job {
                folder: PathBuf::new(),
                size: size.clone(),
                clap,
                again,
                bf16: true,
                held_bf16: true,
                device: device.clone(),
                items: environment("AF2_BENCH_ITEMS", 4),
                windows,
                text,
                threads: rayon::current_num_threads(),
                warmup: 3,
                steps: 10,
                learning_rate: LEARNING_RATE,
                answer: 0,
            };
            let m = own_process(&job);
            let seconds = median(m.seconds.iter().copied());
            // Without what is computed again: that is the memory's price, not the model's work.
            let trains = plan::trains(&stage_of(&job));
            let flops = cost::train_flops(&sizes(&job), job.items, windows, text, trains, false);
            let rate = flops / seconds / 1e12;
            let checkpointing = if again { ", activation checkpointing" } else { "" };
            let mut cells = vec![
                format!(
                    "stage {number}: {} × ({windows} windows, {text} tokens){checkpointing}",
                    job.items
                ),
                format!("{:.1}", 1e3 * seconds),
                format!("{:.0}", real_tokens(&job) as f64 / seconds),
                format!("{:.1}", (job.items * windows) as f64 / seconds),
                format!("{rate:.1}"),
                peak.map_or("AF2_BENCH_PEAK_TFLOPS is not set".to_owned(), |p| {
                    format!("{:.1}%", 100.0 * rate / p)
                }),
                format!("{:.0}", m.peak_mib),
            ];
            cells.extend(m.split.map(|s| format!("{:.1}", 1e3 * s)));
            table.row(cells);
        }
    }
    println!(
        "{size}, random weights, amp_bf16, frozen matrices in bf16, {device}\n{}",
        table.terminal()
    );
}

/// Writes what the peer needs to compute the same: sizes, weights, batch.
fn hand_over(job: &Job) {
    let loaded = model(job, Device::Cpu);
    hand_over_model(&loaded, &job.folder);
    let (mels, text) = inputs(job, &loaded.tokenizer);
    let batch = batch::of(&[], &mels, &text, &Encoded::default(), Device::Cpu);
    let rows = [loaded.tokenizer.audio, loaded.tokenizer.end_of_chunk];
    let tensors = [
        ("mel", batch.input.audio.mel_nfm),
        ("windows", batch.input.audio.windows_bw),
        ("ids", batch.input.text.ids_bt),
        ("mask", batch.input.text.mask_bt.to_kind(Kind::Int64)),
        ("labels", matrix(&text.labels)),
        ("rows", Tensor::from_slice(&rows)),
    ];
    let tensors = tensors.map(|(n, t)| (n.to_owned(), t));
    hand_over_tensors(&job.folder.join("batch.safetensors"), tensors.into());
}

fn peer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/train.py")
}

/// The largest distance of one side's numbers from the other's, relative.
fn apart(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let each = ours.iter().zip(theirs).map(|(a, p)| (a / p - 1.0).abs());
    // A NaN is not nothing.
    each.fold(0.0, |most, x| if x > most || x.is_nan() { x } else { most })
}
