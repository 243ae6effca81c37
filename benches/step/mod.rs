//! What `bench-train` and `bench-busy` share: a process of its own that makes training steps, or answers, on random weights.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, unreachable_pub)]
// Each bench takes its part.
#![allow(dead_code)]

use af2::checkpoint::{items, write_safetensors};
use af2::cores::Yielding;
use af2::dist::Ranks;
use af2::ffi::kernels;
use af2::generate::{generate, sampling, Options};
use af2::load::{Loaded, Report};
use af2::model::flamingo::{Audio, Config, Flamingo};
use af2::model::mode::Mode;
use af2::model::params::{Origin, Role, Store};
use af2::model::{
    audio::{self, htsat},
    audio_transformer, cross_attention, lm, presets,
};
use af2::recipe::{Held, Precision, StageRecipe, TrainRecipe};
use af2::shapes::{MEL_BINS, WINDOW_FRAMES};
use af2::text::labels::{labels, Batch as TextBatch, IGNORED};
use af2::text::tokenizer::Tokenizer;
use af2::train::engine::frozen;
use af2::train::jobs::curriculum::batch;
use af2::train::jobs::curriculum::encoded::Encoded;
use af2::train::jobs::curriculum::Stage;
use af2::train::{number, Steps};
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

pub const LEARNING_RATE: f64 = 1e-4;

/// What one process measures; the peer reads it too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Where weights, batch and sizes lie for the peer.
    pub folder: PathBuf,
    pub size: String,
    /// The audio encoder trains.
    pub clap: bool,
    /// Activation checkpointing.
    pub again: bool,
    pub bf16: bool,
    /// Frozen matrices are held in bf16; the peer never does.
    pub held_bf16: bool,
    /// `cpu` or `cuda:N`; the peer knows the CPU only.
    pub device: String,
    pub items: usize,
    pub windows: usize,
    pub text: usize,
    pub threads: usize,
    pub warmup: usize,
    pub steps: usize,
    pub learning_rate: f64,
    /// Instead of training: answers of so many tokens, greedy.
    #[serde(default)]
    pub answer: usize,
}

impl Job {
    /// A size's model alone, on the CPU: nothing is trained.
    pub fn of_model(size: &str, windows: usize, threads: usize) -> Self {
        Job {
            folder: PathBuf::new(),
            size: size.to_owned(),
            clap: false,
            again: false,
            bf16: false,
            held_bf16: false,
            device: "cpu".to_owned(),
            items: 1,
            windows,
            text: 0,
            threads,
            warmup: 0,
            steps: 0,
            learning_rate: LEARNING_RATE,
            answer: 0,
        }
    }
}

/// What it found.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Measured {
    /// Of each timed step.
    pub seconds: Vec<f64>,
    /// Of each step from the first.
    pub losses: Vec<f64>,
    pub norms: Vec<f64>,
    /// Forward, backward, and from there to the end of the step: mean seconds.
    pub split: [f64; 3],
    /// The process before there is a model.
    pub empty_mib: f64,
    /// Of the process, or of the GPU's tensors.
    pub peak_mib: f64,
    pub parameters: i64,
    pub trained: i64,
}

/// One process's work: steps on one batch, the first of them untimed.
pub fn measure(job: &Job) -> Measured {
    tch::set_num_threads(job.threads as i32);
    let _yielding = Yielding::begin();
    let device = af2::device::of(&job.device).expect("a device that is there");
    let empty_mib = process_mib("VmRSS:");
    let loaded = model(job, device);
    if job.answer > 0 {
        return answers(job, &loaded, empty_mib);
    }
    let batch = {
        let (mels, text) = inputs(job, &loaded.tokenizer);
        batch::of(&[], &mels, &text, &Encoded::default(), device)
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
    let training = Stage::new(&loaded, &stage_recipe, &train);
    let mut steps = Steps::new(&training, &train, &Rc::new(Ranks::alone())).expect("a stage");
    if held == Held::Bf16 {
        round_frozen(&loaded);
    }
    frozen::hold(&loaded.params, held, true).expect("frozen weights");

    let (mut seconds, mut losses, mut norms) = (Vec::new(), Vec::new(), Vec::new());
    let mut step = |steps: &mut Steps<Stage>, watched: bool| {
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

/// One clip and one question, asked again and again; a token's time is the answer's, prefill included, by its tokens.
fn answers(job: &Job, loaded: &Loaded, empty_mib: f64) -> Measured {
    let (mels, text) = inputs(job, &loaded.tokenizer);
    let audio = Audio::from_mels([&*mels[0]], loaded.device);
    let heard = no_grad(|| loaded.model.hear(&audio, Mode::EVAL));
    let prompt: Vec<i64> = text.input_ids.row(0).iter().copied().take(job.text / 2).collect();
    let options = Options {
        max_new_tokens: job.answer,
        // No token ends it.
        eos: -1,
        cache: true,
    };
    let ask = || {
        let start = Instant::now();
        let mut sampler = sampling::Sampler::new(sampling::Sampling::GREEDY, 0);
        let ids = generate(&loaded.model, &heard, &prompt, &options, &mut sampler);
        start.elapsed().as_secs_f64() / ids.len() as f64
    };
    (0..job.warmup).for_each(|_| {
        ask();
    });
    Measured {
        seconds: (0..job.steps).map(|_| ask()).collect(),
        losses: Vec::new(),
        norms: Vec::new(),
        split: [0.0; 3],
        empty_mib,
        peak_mib: process_mib("VmHWM:"),
        parameters: loaded.params.count(),
        trained: 0,
    }
}

/// The tiny model of the golden tests, one of 90 million parameters, or a published size.
pub fn sizes(job: &Job) -> Config {
    let lm = |hidden: i64, ff: i64, layers: usize, heads: i64, vocab: i64| {
        lm::Config::Qwen2(lm::qwen2::Config {
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
        })
    };
    let encoder = |embed_dim: i64, depths: [usize; 4], num_heads: [i64; 4], class_num: i64| {
        audio::Config::Htsat(htsat::Config {
            embed_dim,
            depths: depths.to_vec(),
            num_heads: num_heads.to_vec(),
            class_num,
        })
    };
    let audio_token = tokenizer().audio;
    match job.size.as_str() {
        "tiny" => Config {
            encoder: encoder(8, [1, 1, 2, 1], [1, 2, 2, 4], 20),
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
            encoder: encoder(64, [2, 2, 6, 2], [2, 4, 8, 16], 527),
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
pub fn tokenizer() -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/F_tiny/llm");
    Tokenizer::open(&folder).expect("the golden tokenizer")
}

/// Random weights, the same in every process.
pub fn model(job: &Job, device: Device) -> Loaded {
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
pub fn round_frozen(loaded: &Loaded) {
    no_grad(|| {
        for (_, entry) in loaded.params.iter() {
            let mut t = entry.tensor.shallow_clone();
            if entry.role == Role::Weight && !t.requires_grad() {
                t.copy_(&t.to_kind(Kind::BFloat16).to_kind(Kind::Float));
            }
        }
    });
}

pub fn stage_of(job: &Job) -> StageRecipe {
    let clap = if job.clap { "clap, " } else { "" };
    let yaml = format!(
        "name: bench\ntrain: [{clap}audio_transformer, cross_attention, embeddings]\nwindows: {}\nsets: {{}}\n\
         optim: {{steps: 1000000, batch_size: {}, learning_rate: {}}}",
        job.windows, job.items, job.learning_rate
    );
    serde_yaml::from_str(&yaml).expect("a stage")
}

/// Tokens of an item that are no padding: later items are shorter, so that there is some.
pub fn length(job: &Job, item: usize) -> usize {
    job.text - item.min(4) * job.text / 8
}

pub fn real_tokens(job: &Job) -> usize {
    (0..job.items).map(|b| length(job, b)).sum()
}

/// Noise for mels and words; two thirds of each text are its answer.
pub fn inputs(job: &Job, t: &Tokenizer) -> (Vec<Arc<Array3<f32>>>, TextBatch) {
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

pub fn own_process(job: &Job) -> Measured {
    let own = std::env::current_exe().expect("this program");
    run(Command::new(own).arg("--job"), job)
}

pub fn run(command: &mut Command, job: &Job) -> Measured {
    run_with(command, job.threads, job)
}

/// Runs a program that is told its job as JSON and prints what it found as its last line.
pub fn run_with<T: for<'a> Deserialize<'a>>(
    command: &mut Command,
    threads: usize,
    job: &impl Serialize,
) -> T {
    let threads = threads.to_string();
    let out = command
        .arg(serde_json::to_string(job).expect("a job"))
        .envs(["OMP_NUM_THREADS", "MKL_NUM_THREADS"].map(|n| (n, &threads)))
        .output()
        .expect("a program that starts");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("measurements")
}

/// Writes what the peer needs to build the same model: sizes and weights.
pub fn hand_over_model(loaded: &Loaded, folder: &Path) {
    let config = serde_json::to_vec(&loaded.model.config).expect("sizes");
    std::fs::write(folder.join("config.json"), config).expect("a disk with room");
    hand_over_tensors(&folder.join("model.safetensors"), loaded.params.tensors());
}

pub fn hand_over_tensors(file: &Path, tensors: Vec<(String, Tensor)>) {
    write_safetensors(file, &items(tensors), &[("format", "pt")]).expect("a disk with room");
}

pub fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

pub fn environment(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |v| {
        v.parse()
            .unwrap_or_else(|_| panic!("{name}: expected a number, found `{v}`"))
    })
}

pub fn process_mib(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(key));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// The job that this process was started for, if it was: does it, prints what it measured.
pub fn as_job(arguments: &[String]) -> bool {
    let [flag, job] = arguments else { return false };
    if flag != "--job" {
        return false;
    }
    let job: Job = serde_json::from_str(job).expect("a job as this program writes it");
    println!("{}", serde_json::to_string(&measure(&job)).expect("numbers"));
    true
}
