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

use af2::checkpoint::{items, write_safetensors};
use af2::dist::Ranks;
use af2::ffi::{cuda, kernels};
use af2::load::{Loaded, Report};
use af2::model::flamingo::{Config, Flamingo};
use af2::model::input::matrix;
use af2::model::params::{Origin, Role, Store};
use af2::model::{audio_transformer, cost, cross_attention, htsat, presets, qwen2};
use af2::plan;
use af2::recipe::{Held, Precision, StageRecipe, TrainRecipe};
use af2::report::table::Table;
use af2::shapes::{MEL_BINS, WINDOW_FRAMES};
use af2::text::labels::{labels, Batch as TextBatch, IGNORED};
use af2::text::tokenizer::Tokenizer;
use af2::train::batch::{Batch, Encoded};
use af2::train::{number, stage, Steps};
use ndarray::{Array2, Array3};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tch::{no_grad, Device, Kind, Tensor};

const LEARNING_RATE: f64 = 1e-4;
/// So far, relative, may both sides' first loss and gradient norm in fp32 be from each other. Seen: 1e-6; with the
/// tanh of one gate left out, between this and 1e-3.
const SAME: f64 = 1e-4;

/// What one process measures; the peer reads it too.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    /// Where weights, batch and sizes lie for the peer.
    folder: PathBuf,
    size: String,
    /// The audio encoder trains.
    clap: bool,
    /// Activation checkpointing.
    again: bool,
    bf16: bool,
    /// Frozen matrices are held in bf16; the peer never does.
    held_bf16: bool,
    /// `cpu` or `cuda:N`; the peer knows the CPU only.
    device: String,
    items: usize,
    windows: usize,
    text: usize,
    threads: usize,
    warmup: usize,
    steps: usize,
    learning_rate: f64,
}

/// What it found.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Measured {
    /// Of each timed step.
    seconds: Vec<f64>,
    /// Of each step from the first.
    losses: Vec<f64>,
    norms: Vec<f64>,
    /// Forward, backward, and from there to the end of the step: mean seconds.
    split: [f64; 3],
    /// The process before there is a model.
    empty_mib: f64,
    /// Of the process, or of the GPU's tensors.
    peak_mib: f64,
    parameters: i64,
    trained: i64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, job] = arguments.as_slice() {
        if flag == "--job" {
            let job: Job = serde_json::from_str(job).expect("a job as this program writes it");
            let measured = measure(&job);
            println!("{}", serde_json::to_string(&measured).expect("numbers"));
            return;
        }
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

/// One process's work: steps on one batch, the first of them untimed.
fn measure(job: &Job) -> Measured {
    tch::set_num_threads(job.threads as i32);
    let device = cuda::device(&job.device).expect("a device that is there");
    let empty_mib = process_mib("VmRSS:");
    let mut loaded = model(job, device);
    loaded.model.again = job.again;
    let batch = {
        let (mels, text) = inputs(job, &loaded.tokenizer);
        Batch::new(&[], &mels, &text, &Encoded::default(), device)
    };
    let stage_recipe = stage_of(job);
    let held = if job.held_bf16 { Held::Bf16 } else { Held::Fp32 };
    let train = TrainRecipe {
        precision: if job.bf16 {
            Precision::AmpBf16
        } else {
            Precision::Fp32
        },
        activation_checkpointing: job.again,
        frozen: held,
        ..TrainRecipe::default()
    };
    let mut steps = Steps::new(&loaded, &stage_recipe, &train, &Rc::new(Ranks::alone())).expect("a stage");
    if held == Held::Bf16 {
        round_frozen(&loaded);
    }
    stage::hold_frozen(&loaded.params, held, true).expect("frozen weights");

    let (mut seconds, mut losses, mut norms) = (Vec::new(), Vec::new(), Vec::new());
    let mut step = |steps: &mut Steps, watched: bool| {
        steps.clock.begin(watched);
        let start = Instant::now();
        let micro = steps.micro_step(&batch).expect("a forward and backward pass");
        let done = steps.step(false).expect("an update");
        // Reading them waits for the device.
        losses.push(number(&micro.loss).expect("a loss"));
        norms.push(number(&done.grad_norm).expect("a norm"));
        start.elapsed().as_secs_f64()
    };
    for _ in 0..job.warmup {
        step(&mut steps, false);
    }
    steps.clock.read();
    for _ in 0..job.steps {
        seconds.push(step(&mut steps, false));
    }
    if let Device::Cuda(_) = device {
        // Only where the host waits between the phases do they show; such a step is not timed.
        step(&mut steps, true);
    }
    let phases = steps.clock.read();
    let phase = |name: &str| {
        let found = phases.iter().find(|(n, _)| n.ends_with(name));
        found.map_or(f64::NAN, |(_, s)| *s)
    };
    let peak_mib = match device {
        Device::Cuda(_) => {
            kernels::device_memory(device).map_or(f64::NAN, |(_, peak)| peak as f64 / 1048576.0)
        }
        _ => process_mib("VmHWM:"),
    };
    Measured {
        split: ["forward", "backward", "optimizer"].map(phase),
        seconds,
        losses,
        norms,
        empty_mib,
        peak_mib,
        parameters: loaded.params.count(),
        trained: steps.optimizer.params().map(|(_, p)| p.numel() as i64).sum(),
    }
}

/// The tiny model of the golden tests, one of 90 million parameters, or a published size.
fn sizes(job: &Job) -> Config {
    let lm = |hidden: i64, ff: i64, layers: usize, heads: i64, vocab: i64| qwen2::Config {
        vocab_size: vocab,
        hidden_size: hidden,
        intermediate_size: ff,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: 2,
        max_position_embeddings: 1024,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        tie_word_embeddings: true,
    };
    let encoder = |embed_dim: i64, depths: [usize; 4], num_heads: [i64; 4], class_num: i64| htsat::Config {
        embed_dim,
        depths: depths.to_vec(),
        num_heads: num_heads.to_vec(),
        class_num,
    };
    let audio_token = tokenizer().audio;
    match job.size.as_str() {
        "tiny" => Config {
            htsat: encoder(8, [1, 1, 2, 1], [1, 2, 2, 4], 20),
            audio_transformer: audio_transformer::Config {
                n_head: 2,
                n_layers: 3,
                d_inner: 80,
                attention_dropout: 0.0,
            },
            cross_attention: cross_attention::Config::default(),
            lm: lm(64, 128, 4, 4, 597),
            vocab: 597,
            audio_token,
        },
        "mid" => Config {
            htsat: encoder(64, [2, 2, 6, 2], [2, 4, 8, 16], 527),
            audio_transformer: audio_transformer::Config::paper(),
            cross_attention: cross_attention::Config::default(),
            lm: lm(512, 1408, 8, 8, 32_000),
            vocab: 32_000,
            audio_token,
        },
        // Its tokens are the small tokenizer's: which rows of the embedding they are does not matter.
        preset => Config {
            audio_token,
            ..presets::preset(preset).expect("a published size")
        },
    }
}

/// A tokenizer: only its special tokens' ids are used.
fn tokenizer() -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/F_tiny/llm");
    Tokenizer::open(&folder).expect("the golden tokenizer")
}

/// Random weights, the same in every process.
fn model(job: &Job, device: Device) -> Loaded {
    tch::manual_seed(1);
    let store = Store::new(Origin::Fresh, device);
    let model = Flamingo::new(&store.root(), &sizes(job));
    let params = store.finish().expect("a model");
    for (_, entry) in params.iter().filter(|(n, _)| n.ends_with("_gate")) {
        // Behind closed gates the cross-attention would be left out of the comparison.
        let _ = no_grad(|| entry.tensor.shallow_clone().fill_(0.5));
    }
    Loaded {
        model,
        params,
        tokenizer: tokenizer(),
        max_windows: job.windows,
        llm: PathBuf::new(),
        device,
        report: Report::default(),
        torch: None,
        notes: Vec::new(),
    }
}

/// Random weights are not bf16, as a published LM's are: rounded, the frozen ones can be held in it.
fn round_frozen(loaded: &Loaded) {
    no_grad(|| {
        for (_, entry) in loaded.params.iter() {
            let mut t = entry.tensor.shallow_clone();
            if entry.role == Role::Weight && !t.requires_grad() {
                t.copy_(&t.to_kind(Kind::BFloat16).to_kind(Kind::Float));
            }
        }
    });
}

fn stage_of(job: &Job) -> StageRecipe {
    let clap = if job.clap { "clap, " } else { "" };
    let yaml = format!(
        "name: bench\ntrain: [{clap}audio_transformer, cross_attention, embeddings]\nwindows: {}\nsets: {{}}\n\
         optim: {{steps: 1000000, batch_size: {}, learning_rate: {}}}",
        job.windows, job.items, job.learning_rate
    );
    serde_yaml::from_str(&yaml).expect("a stage")
}

/// Tokens of an item that are no padding: later items are shorter, so that there is some.
fn length(job: &Job, item: usize) -> usize {
    job.text - item.min(4) * job.text / 8
}

fn real_tokens(job: &Job) -> usize {
    (0..job.items).map(|b| length(job, b)).sum()
}

/// Noise for mels and words; two thirds of each text are its answer.
fn inputs(job: &Job, t: &Tokenizer) -> (Vec<Arc<Array3<f32>>>, TextBatch) {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let shape = (job.windows, WINDOW_FRAMES, MEL_BINS);
    let mels =
        (0..job.items).map(|_| Arc::new(Array3::from_shape_simple_fn(shape, || rng.gen_range(-2.0..2.0))));
    let mels = mels.collect();
    let size = (job.items, job.text);
    let mut text = TextBatch {
        input_ids: Array2::from_elem(size, t.pad),
        attention_mask: Array2::zeros(size),
        labels: Array2::from_elem(size, IGNORED),
    };
    for b in 0..job.items {
        // The special tokens are the last of the vocabulary.
        let mut ids: Vec<i64> = (0..length(job, b)).map(|_| rng.gen_range(0..t.eos)).collect();
        let last = ids.len() - 1;
        (ids[0], ids[last / 3], ids[last - 1], ids[last]) = (t.audio, t.sep, t.end_of_chunk, t.eos);
        for (i, (id, label)) in ids.iter().zip(labels(&ids, t)).enumerate() {
            text.input_ids[[b, i]] = *id;
            text.attention_mask[[b, i]] = 1;
            text.labels[[b, i]] = label;
        }
    }
    (mels, text)
}

/// Writes what the peer needs to compute the same: sizes, weights, batch.
fn hand_over(job: &Job) {
    let loaded = model(job, Device::Cpu);
    let at = |name: &str| job.folder.join(name);
    let config = serde_json::to_vec(&loaded.model.config).expect("sizes");
    std::fs::write(at("config.json"), config).expect("a disk with room");
    let pt = [("format", "pt")];
    write_safetensors(&at("model.safetensors"), &items(loaded.params.tensors()), &pt)
        .expect("a disk with room");
    let (mels, text) = inputs(job, &loaded.tokenizer);
    let batch = Batch::new(&[], &mels, &text, &Encoded::default(), Device::Cpu);
    let rows = [loaded.tokenizer.audio, loaded.tokenizer.end_of_chunk];
    let tensors = [
        ("mel", batch.audio.mel_nfm),
        ("windows", batch.audio.windows_bw),
        ("ids", batch.text.ids_bt),
        ("mask", batch.text.mask_bt.to_kind(Kind::Int64)),
        ("labels", matrix(&text.labels)),
        ("rows", Tensor::from_slice(&rows)),
    ];
    let tensors = tensors.map(|(n, t)| (n.to_owned(), t));
    write_safetensors(&at("batch.safetensors"), &items(tensors.into()), &pt).expect("a disk with room");
}

fn peer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/train.py")
}

fn own_process(job: &Job) -> Measured {
    let own = std::env::current_exe().expect("this program");
    run(Command::new(own).arg("--job"), job)
}

fn run(command: &mut Command, job: &Job) -> Measured {
    let threads = job.threads.to_string();
    let out = command
        .arg(serde_json::to_string(job).expect("a job"))
        .envs(["OMP_NUM_THREADS", "MKL_NUM_THREADS"].map(|n| (n, &threads)))
        .output()
        .expect("a program that starts");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("measurements")
}

/// The largest distance of one side's numbers from the other's, relative.
fn apart(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let each = ours.iter().zip(theirs).map(|(a, p)| (a / p - 1.0).abs());
    // A NaN is not nothing.
    each.fold(0.0, |most, x| if x > most || x.is_nan() { x } else { most })
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn environment(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |v| {
        v.parse()
            .unwrap_or_else(|_| panic!("{name}: expected a number, found `{v}`"))
    })
}

fn process_mib(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(key));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
