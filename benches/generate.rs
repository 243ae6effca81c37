//! How fast answers come: what a token costs beside the bound that reading the weights sets, and what sharing a clip, decoding
//! together and likelihood win.
//!
//! `make bench-generate` runs this: random weights of two sizes, in fp32 and bf16, beside the reference's loop (keys and values
//! of the audio projected again at each token), the same loop with them projected once, and transformers' LM alone. Each side runs
//! in processes of its own, in turn, on the same weights, sound, prompt and number of threads; in fp32 both must give the same
//! tokens. Milliseconds are the machine's; ratios are what compares.
//!
//! ```text
//! make bench-generate ARGS='mid fp32'       one size (mid, af2-0.5b), one precision (fp32, bf16)
//! make bench-generate ARGS='--no-peer'      without Python
//! AF2_BENCH_THREADS=2 AF2_BENCH_ROUNDS=3    threads of each side (all cores), rounds of both sides (3)
//! ```
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout
)]

mod step;

use af2::cores::Yielding;
use af2::data::feed::Ears;
use af2::generate::decoding::Decoding;
use af2::generate::engine::{Ask, Engine, Event, Given, Settings, Sound, Stats, Wanted};
use af2::load::Loaded;
use af2::model::parts::{Part, Precision};
use af2::report::table::Table;
use af2::shapes::{MEL_BINS, WINDOW_FRAMES};
use ndarray::Array3;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;
use step::{environment, median, model, Job};
use tch::{no_grad, Device, Kind, Tensor};

/// Sizes, and the tokens that a timed answer has.
const SIZES: [(&str, usize); 2] = [("mid", 48), ("af2-0.5b", 24)];
/// Windows of the two clips that are asked about alone.
const WINDOWS: [usize; 2] = [1, 30];
const PROMPT: usize = 40;
/// Questions about one clip, its windows, tokens of an answer.
const QUESTIONS: (usize, usize, usize) = (15, 3, 16);
const CHOICES: [&str; 4] = [
    "a dog barks",
    "rain on a roof",
    "a car passes by",
    "two people talk",
];

/// What one process measures; the peer reads it too.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    /// Where weights, mels and prompt lie for the peer.
    folder: PathBuf,
    size: String,
    bf16: bool,
    threads: usize,
    answer: usize,
    prompt: Vec<i64>,
}

/// One clip and one answer.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Spoken {
    /// Seconds to the first token: hearing and reading the prompt.
    first: f64,
    /// Median seconds of each other token.
    token: f64,
    ids: Vec<i64>,
}

/// What our process found.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Ours {
    /// Bytes a second that a large matrix–vector product reads.
    rate: f64,
    /// How much faster 8 rows are in the library's products with the model's own matrices than 8 times one row.
    eight_rows: f64,
    /// Of the weights that one token reads.
    bytes: f64,
    /// Of [`WINDOWS`].
    alone: Vec<Spoken>,
    /// Of all [`QUESTIONS`], each alone, and through the engine with 8 and with 16 slots.
    item_by_item: f64,
    by_clip: [f64; 2],
    /// Tokens a second of steps that do nothing else, with one slot and with eight; the same of the whole run.
    speaking: [f64; 2],
    whole: [f64; 2],
    /// Share of slots that wrote a token, over the steps with eight.
    busy: f64,
    /// Windows that were encoded over those that the clips have.
    encoded: f64,
    /// Of [`CHOICES`] about a clip that is heard, and of an answer of 16 tokens.
    choices: f64,
    sixteen: f64,
}

/// What the peer found.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Theirs {
    /// Of [`WINDOWS`]: keys and values projected at each token, as the reference does.
    reference: Vec<Spoken>,
    /// The same, projected once.
    once: Vec<Spoken>,
    /// Seconds a token of the LM alone, and the bytes of its weights.
    lm: f64,
    lm_bytes: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, task] = &arguments[..] {
        if flag == "--job" {
            let task: Task = serde_json::from_str(task).expect("a task as this program writes it");
            println!("{}", serde_json::to_string(&measure(&task)).expect("numbers"));
            return;
        }
    }
    let named = |word: &str| arguments.iter().any(|a| a == word);
    let any = |words: &[&str]| words.iter().any(|w| named(w));
    let python = (!named("--no-peer"))
        .then(|| std::env::var_os("AF2_PEER_PYTHON").expect("`make bench-generate` sets AF2_PEER_PYTHON"));
    let threads = environment("AF2_BENCH_THREADS", af2::cores::allowed()).max(1);
    let rounds = environment("AF2_BENCH_ROUNDS", 3).max(1);
    let mut tables = Tables::new();
    for (size, answer) in SIZES {
        if any(&SIZES.map(|(s, _)| s)) && !named(size) {
            continue;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let task = Task {
            folder: folder.path().to_owned(),
            size: size.to_owned(),
            bf16: false,
            threads,
            answer,
            prompt: prompt(&mut ChaCha8Rng::seed_from_u64(3), PROMPT),
        };
        if python.is_some() {
            hand_over(&task);
        }
        for (name, bf16) in [("fp32", false), ("bf16", true)] {
            if any(&["fp32", "bf16"]) && !named(name) {
                continue;
            }
            let task = Task { bf16, ..task.clone() };
            let own = std::env::current_exe().expect("this program");
            let (mut ours, mut theirs): (Vec<Ours>, Vec<Theirs>) = Default::default();
            for round in 0..rounds {
                eprintln!("{size} {name}, round {} of {rounds} …", round + 1);
                let mut first = || ours.push(run(Command::new(&own).arg("--job"), &task));
                let mut second = || {
                    if let Some(python) = &python {
                        theirs.push(run(Command::new(python).arg(peer()), &task));
                    }
                };
                // Neither side is always the one behind the other.
                match round % 2 == 0 {
                    true => {
                        first();
                        second();
                    }
                    false => {
                        second();
                        first();
                    }
                }
            }
            if let (false, [a, ..], [p, ..]) = (bf16, &ours[..], &theirs[..]) {
                for ((a, p), windows) in a.alone.iter().zip(&p.once).zip(WINDOWS) {
                    assert_eq!(a.ids, p.ids, "{size}, {windows} windows: not the same answer");
                }
            }
            tables.add(&format!("{size} {name}"), &ours, &theirs);
        }
    }
    tables.print(threads, rounds);
}

/// All that one process of ours measures.
fn measure(task: &Task) -> Ours {
    tch::set_num_threads(task.threads as i32);
    let _yielding = Yielding::begin();
    let loaded = with_bf16_lm(&shapes(task));
    let precision = match task.bf16 {
        true => Precision::AmpBf16,
        false => Precision::Fp32,
    };
    loaded.ask_in(precision).expect("a model that can be cast");
    let settings = Settings {
        precision,
        ..Settings::default()
    };
    let matrices = matrices(&loaded);
    let (bytes, eight_rows) = (matrices.iter().map(bytes_of).sum(), eight_rows(&matrices));
    drop(matrices);
    let kind = match task.bf16 {
        true => Kind::BFloat16,
        false => Kind::Float,
    };
    let (item_by_item, by_clip) = questions(&loaded, &settings);
    let all = mixed();
    let slots = |slots| Settings {
        slots,
        ..settings.clone()
    };
    // One after another takes long: a part of them tells as much.
    let (speaking1, whole1, _) = together(&loaded, &slots(1), &all[..all.len() / 8]);
    let (speaking8, whole8, stats) = together(&loaded, &slots(8), &all);
    let (choices, sixteen) = choices(&loaded, &settings, task);
    // As `af2 chat` does, which writes one answer at a time.
    loaded.lay_out_to_speak().expect("memory for a copy");
    let alone = WINDOWS.map(|windows| {
        // What is asked a first time also pays for what the library sets up.
        let all = [(); 2].map(|()| spoken(&loaded, &settings, windows, task));
        let [_, second] = all;
        second
    });
    Ours {
        rate: rate(kind),
        eight_rows,
        bytes,
        alone: alone.into(),
        item_by_item,
        by_clip,
        speaking: [speaking1, speaking8],
        whole: [whole1, whole8],
        busy: stats.spoken as f64 / (8 * stats.steps) as f64,
        encoded: stats.windows as f64 / all.iter().map(|(w, ..)| w).sum::<usize>() as f64,
        choices,
        sixteen,
    }
}

/// The sizes' job of the other benches, for the model alone.
fn shapes(task: &Task) -> Job {
    Job::of_model(&task.size, WINDOWS[1], task.threads)
}

/// A model whose LM's numbers are bf16, as a published one's are: it can be held so.
fn with_bf16_lm(job: &Job) -> Loaded {
    let loaded = model(job, Device::Cpu);
    for (name, entry) in loaded.params.iter() {
        if matches!(Part::of(name), Part::Lm | Part::Embeddings) {
            let rounded = entry.tensor.to_kind(Kind::BFloat16);
            no_grad(|| entry.tensor.shallow_clone().copy_(&rounded));
        }
    }
    loaded
}

/// What one token reads: every matrix of the LM and of the cross-attention but the projection of keys and values. The embedding
/// counts once, as the head.
fn matrices(loaded: &Loaded) -> Vec<Tensor> {
    let read = |name: &str| name.starts_with("lang_encoder.") && !name.contains("to_kv");
    let all = loaded
        .params
        .iter()
        .filter(|(n, e)| read(n) && e.tensor.dim() == 2);
    all.map(|(_, e)| e.tensor.detach()).collect()
}

fn bytes_of(t: &Tensor) -> f64 {
    (t.numel() * t.kind().elt_size_in_bytes()) as f64
}

/// Bytes a second of a product that reads 512 MiB once.
fn rate(kind: Kind) -> f64 {
    let elements = (512 << 20) / kind.elt_size_in_bytes() as i64;
    let matrix = Tensor::zeros([elements / 4096, 4096], (kind, Device::Cpu));
    let row = Tensor::ones([1, 4096], (kind, Device::Cpu));
    let seconds = timed(7, || drop(row.linear(&matrix, None::<Tensor>)));
    bytes_of(&matrix) / seconds
}

/// All matrices one after another, as a token meets them.
fn eight_rows(matrices: &[Tensor]) -> f64 {
    let seconds = |rows: i64| {
        let inputs: Vec<Tensor> = matrices
            .iter()
            .map(|m| Tensor::ones([rows, m.size()[1]], (m.kind(), Device::Cpu)))
            .collect();
        timed(5, || {
            for (input, matrix) in inputs.iter().zip(matrices) {
                drop(input.linear(matrix, None::<Tensor>));
            }
        })
    };
    8.0 * seconds(1) / seconds(8)
}

/// Median seconds, after one that is not counted.
fn timed(times: usize, mut f: impl FnMut()) -> f64 {
    let each = (0..=times).map(|_| {
        let start = Instant::now();
        no_grad(&mut f);
        start.elapsed().as_secs_f64()
    });
    median(each.collect::<Vec<_>>().into_iter().skip(1))
}

/// Noise in the place of a sound.
fn sound(windows: usize, seed: u64) -> Sound {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shape = (windows, WINDOW_FRAMES, MEL_BINS);
    Sound::Given(Given {
        key: format!("{windows} windows, {seed}"),
        mel: Arc::new(Array3::from_shape_simple_fn(shape, || rng.gen_range(-2.0..2.0))),
    })
}

fn prompt(rng: &mut ChaCha8Rng, tokens: usize) -> Vec<i64> {
    let t = step::tokenizer();
    let words = (1..tokens).map(|_| rng.gen_range(0..t.eos));
    std::iter::once(t.audio).chain(words).collect()
}

/// An answer of exactly so many tokens.
fn tokens(n: usize) -> Decoding {
    Decoding {
        max_new_tokens: n,
        min_new_tokens: n,
        ..Decoding::default()
    }
}

fn ask(sound: &Sound, prompt: &[i64], wanted: Wanted) -> Ask {
    Ask {
        sound: sound.clone(),
        prompt: prompt.to_vec(),
        wanted,
        item: String::new(),
        stream: true,
    }
}

fn engine<'a>(loaded: &'a Loaded, settings: &Settings) -> Engine<'a> {
    Engine::new(loaded, Arc::new(Ears::new(0)), settings.clone())
}

/// Goes on until all is answered.
fn finish(engine: &mut Engine) {
    while !engine.idle() {
        for event in engine.step().expect("a device that works") {
            if let Event::Done { found, .. } = event {
                found.expect("an answer");
            }
        }
    }
}

/// One question about one clip, to its end.
fn spoken(loaded: &Loaded, settings: &Settings, windows: usize, task: &Task) -> Spoken {
    let mut engine = engine(loaded, settings);
    let start = Instant::now();
    engine.submit(ask(
        &sound(windows, 4),
        &task.prompt,
        Wanted::Answers(tokens(task.answer)),
    ));
    let (mut at, mut ids) = (Vec::new(), Vec::new());
    while !engine.idle() {
        for event in engine.step().expect("a device that works") {
            match event {
                Event::Token { token, .. } => {
                    at.push(start.elapsed().as_secs_f64());
                    ids.push(token);
                }
                Event::Done { found, .. } => drop(found.expect("an answer")),
            }
        }
    }
    // The first step gives two: what the prompt ends with, and one more.
    let each = at.windows(2).skip(1).map(|t| t[1] - t[0]);
    Spoken {
        first: at[0],
        token: median(each),
        ids,
    }
}

/// Questions about one clip: each with an engine of its own, one after another, and all through one with 8 and with 16 slots.
fn questions(loaded: &Loaded, settings: &Settings) -> (f64, [f64; 2]) {
    let (count, windows, answer) = QUESTIONS;
    let sound = sound(windows, 5);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let asks: Vec<Ask> = (0..count)
        .map(|_| {
            let length = rng.gen_range(PROMPT / 2..PROMPT * 2);
            ask(&sound, &prompt(&mut rng, length), Wanted::Answers(tokens(answer)))
        })
        .collect();
    let start = Instant::now();
    for ask in &asks {
        let mut engine = engine(
            loaded,
            &Settings {
                slots: 1,
                ..settings.clone()
            },
        );
        engine.submit(ask.clone());
        finish(&mut engine);
    }
    let item_by_item = start.elapsed().as_secs_f64();
    let by_clip = [8, 16].map(|slots| {
        let settings = Settings {
            slots,
            ..settings.clone()
        };
        let start = Instant::now();
        let mut engine = engine(loaded, &settings);
        asks.iter().for_each(|ask| {
            engine.submit(ask.clone());
        });
        finish(&mut engine);
        start.elapsed().as_secs_f64()
    });
    (item_by_item, by_clip)
}

/// Clips of 1 to 3 windows, prompts of 20 to 80 tokens, answers of 4 to 40.
fn mixed() -> Vec<(usize, usize, usize)> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let one = |_| (rng.gen_range(1..=3), rng.gen_range(20..80), rng.gen_range(4..=40));
    (0..64).map(one).collect()
}

/// Tokens a second of the steps that speak and do nothing else, and of the whole.
fn together(loaded: &Loaded, settings: &Settings, all: &[(usize, usize, usize)]) -> (f64, f64, Stats) {
    let mut engine = engine(loaded, settings);
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for (i, &(windows, prompt_tokens, answer)) in all.iter().enumerate() {
        let prompt = prompt(&mut rng, prompt_tokens);
        engine.submit(ask(
            &sound(windows, i as u64),
            &prompt,
            Wanted::Answers(tokens(answer)),
        ));
    }
    let begin = Instant::now();
    let (mut seconds, mut spoken) = (0.0, 0);
    while !engine.idle() {
        let (before, start) = (engine.stats(), Instant::now());
        drop(engine.step().expect("a device that works"));
        let after = engine.stats();
        // Where all slots are taken, as long as something waits.
        let full = after.spoken - before.spoken == settings.slots as u64;
        if full && (after.read, after.windows) == (before.read, before.windows) {
            seconds += start.elapsed().as_secs_f64();
            spoken += after.spoken - before.spoken;
        }
    }
    let stats = engine.stats();
    let whole = stats.tokens as f64 / begin.elapsed().as_secs_f64();
    (spoken as f64 / seconds, whole, stats)
}

/// Seconds of choices by likelihood and of an answer of 16 tokens, about a sound that is heard.
fn choices(loaded: &Loaded, settings: &Settings, task: &Task) -> (f64, f64) {
    let sound = sound(1, 9);
    let mut engine = engine(
        loaded,
        &Settings {
            keep: 1,
            ..settings.clone()
        },
    );
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let mut seconds = |wanted: &Wanted| {
        let each = (0..4).map(|_| {
            let start = Instant::now();
            engine.submit(ask(&sound, &prompt(&mut rng, task.prompt.len()), wanted.clone()));
            finish(&mut engine);
            start.elapsed().as_secs_f64()
        });
        median(each.collect::<Vec<_>>().into_iter().skip(1))
    };
    let texts = CHOICES.map(str::to_owned).to_vec();
    (
        seconds(&Wanted::Choices(texts)),
        seconds(&Wanted::Answers(tokens(16))),
    )
}

/// Writes what the peer needs to compute the same.
fn hand_over(task: &Task) {
    let loaded = with_bf16_lm(&shapes(task));
    step::hand_over_model(&loaded, &task.folder);
    let mels = WINDOWS.map(|windows| {
        let Sound::Given(given) = sound(windows, 4) else {
            panic!("a sound that was given");
        };
        (
            format!("mel_{windows}"),
            Tensor::try_from(&*given.mel).expect("a tensor"),
        )
    });
    step::hand_over_tensors(&task.folder.join("mels.safetensors"), mels.into());
}

fn peer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/generate.py")
}

fn run<T: for<'a> Deserialize<'a>>(command: &mut Command, task: &Task) -> T {
    step::run_with(command, task.threads, task)
}

/// What is shown.
struct Tables {
    token: Table,
    hearing: Table,
    sharing: Table,
}

impl Tables {
    fn new() -> Self {
        Tables {
            token: Table::new([
                "a token alone",
                "af2, ms",
                "× the bound",
                "reference's loop, ms",
                "÷ af2",
                "projected once, ms",
                "÷ af2",
                "transformers' LM alone, × its bound",
            ]),
            hearing: Table::new([
                "hearing and the first token",
                "af2, s",
                "Python, s",
                "Python ÷ af2",
            ]),
            sharing: Table::new([
                "",
                "15 questions a clip: item by item ÷ by clip",
                "with 16 slots",
                "8 slots ÷ 1, tokens a second",
                "library, 8 rows ÷ 1",
                "share of it",
                "slots busy",
                "whole run, 8 slots ÷ 1",
                "windows encoded ÷ heard",
                "4 choices ÷ 16 tokens",
            ]),
        }
    }

    fn add(&mut self, name: &str, ours: &[Ours], theirs: &[Theirs]) {
        let own = |f: &dyn Fn(&Ours) -> f64| median(ours.iter().map(f));
        let peers = |f: &dyn Fn(&Theirs) -> f64| match theirs.is_empty() {
            true => f64::NAN,
            false => median(theirs.iter().map(f)),
        };
        let shown = |x: f64, digits: usize| match x.is_finite() {
            true => format!("{x:.digits$}"),
            false => "–".to_owned(),
        };
        let rate = own(&|o| o.rate);
        for (i, windows) in WINDOWS.iter().enumerate() {
            let s = if *windows == 1 { "" } else { "s" };
            let row = format!("{name}, {windows} window{s}");
            let token = own(&|o| o.alone[i].token);
            let [reference, once] = [peers(&|p| p.reference[i].token), peers(&|p| p.once[i].token)];
            self.token.row([
                row.clone(),
                shown(1e3 * token, 1),
                shown(own(&|o| o.alone[i].token * o.rate / o.bytes), 2),
                shown(1e3 * reference, 1),
                shown(reference / token, 2),
                shown(1e3 * once, 1),
                shown(once / token, 2),
                shown(peers(&|p| p.lm * rate / p.lm_bytes), 2),
            ]);
            let (first, other) = (own(&|o| o.alone[i].first), peers(&|p| p.reference[i].first));
            self.hearing
                .row([row, shown(first, 2), shown(other, 2), shown(other / first, 2)]);
        }
        let percent = |x: f64| format!("{:.0}%", 100.0 * x);
        self.sharing.row([
            name.to_owned(),
            shown(own(&|o| o.item_by_item / o.by_clip[0]), 2),
            shown(own(&|o| o.item_by_item / o.by_clip[1]), 2),
            shown(own(&|o| o.speaking[1] / o.speaking[0]), 2),
            shown(own(&|o| o.eight_rows), 2),
            shown(own(&|o| o.speaking[1] / o.speaking[0] / o.eight_rows), 2),
            percent(own(&|o| o.busy)),
            shown(own(&|o| o.whole[1] / o.whole[0]), 2),
            shown(own(&|o| o.encoded), 2),
            shown(own(&|o| o.choices / o.sixteen), 2),
        ]);
        eprintln!(
            "  {name}: a token reads {:.0} MB, a large product {:.1} GB/s; {:.1} tokens/s with 8 slots",
            own(&|o| o.bytes) / 1e6,
            rate / 1e9,
            own(&|o| o.speaking[1]),
        );
    }

    fn print(&self, threads: usize, rounds: usize) {
        println!(
            "{threads} threads, {rounds} rounds, medians; bound: bytes of the weights that a token reads ÷ the rate of a large \
             matrix–vector product in the same process\n{}\n{}\n{}",
            self.token.terminal(),
            self.hearing.terminal(),
            self.sharing.terminal()
        );
    }
}
