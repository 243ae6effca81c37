//! What it costs to see whether a model listens: the same questions without controls, and with silence and four further orders of their
//! options.
//!
//! `make bench-eval` runs this: random weights, sounds in files of 30 s, one question a clip, answers of a few tokens, as a benchmark of
//! multiple choice has them. Both runs read the same files and compute with the same settings. Seconds are the machine's; the ratio
//! is what compares: six answers an item, but one clip.
//!
//! ```text
//! cargo bench --bench controls -- af2-0.5b  another size (mid)
//! AF2_BENCH_ROUNDS=5 AF2_BENCH_CLIPS=32     rounds (3), clips (16)
//! AF2_BENCH_SLOTS=16                        answers that are written together (8)
//! ```
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout
)]

mod step;

use af2::cores::Yielding;
use af2::data::feed::{Clip, Ears};
use af2::generate::decoding::Decoding;
use af2::generate::engine::{Ask, Engine, Event, Settings, Sound, Stats, Wanted};
use af2::load::Loaded;
use af2::report::table::Table;
use af2::shapes::Seconds;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use step::{environment, median, model, Job};
use tch::Device;

/// Hz.
const SAMPLE_RATE: u32 = 16_000;
const SECONDS: usize = 30;
/// Tokens of a question, of which so many come before its options, and of an answer.
const PROMPT: (usize, usize) = (60, 24);
const ANSWER: usize = 8;
/// Further orders of the options.
const ORDERS: usize = 4;
/// What is asked beside the plain questions: whether with silence, and in how many further orders. The plain way is the first.
const WAYS: [(bool, usize); 4] = [(false, 0), (true, 0), (false, ORDERS), (true, ORDERS)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let size = arguments.first().map_or("mid", String::as_str);
    let rounds = environment("AF2_BENCH_ROUNDS", 3).max(1);
    let count = environment("AF2_BENCH_CLIPS", 16).max(1);
    let threads = af2::cores::allowed();
    tch::set_num_threads(threads as i32);
    let _yielding = Yielding::begin();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clips: Vec<Clip> = (0..count).map(|i| clip(folder.path(), i)).collect();
    let loaded = model(&Job::of_model(size, SECONDS.div_ceil(10), threads), Device::Cpu);
    // What is asked a first time also pays for what the library sets up.
    asked(&loaded, &clips[..1], WAYS[WAYS.len() - 1]);
    let mut seconds = vec![Vec::new(); WAYS.len()];
    for _ in 0..rounds {
        let mut plain = 0;
        for (way, seconds) in WAYS.into_iter().zip(&mut seconds) {
            let (took, heard) = asked(&loaded, &clips, way);
            seconds.push(took);
            match way {
                (false, 0) => plain = heard.windows,
                _ => assert!(
                    heard.windows <= plain + 1,
                    "a clip's windows are encoded once, and one of silence"
                ),
            }
        }
    }
    let mut table = Table::new(["", "answers", "s", "÷ plain"]);
    for ((silence, orders), own) in WAYS.into_iter().zip(&seconds) {
        let name = match (silence, orders) {
            (false, 0) => "plain".to_owned(),
            (true, 0) => "and silence".to_owned(),
            (false, n) => format!("and {n} orders"),
            (true, n) => format!("and silence, and {n} orders"),
        };
        let ratios = seconds[0].iter().zip(own).map(|(plain, with)| with / plain);
        table.row([
            name,
            ((1 + usize::from(silence) + orders) * count).to_string(),
            format!("{:.2}", median(own.iter().copied())),
            format!("{:.2}", median(ratios)),
        ]);
    }
    println!(
        "controls, {size}: clips of {SECONDS} s, questions of {} tokens, answers of {ANSWER}",
        PROMPT.0
    );
    println!("{}", table.terminal());
    println!("{threads} cores, medians of {rounds} rounds");
}

/// A file of noise.
fn clip(folder: &Path, number: usize) -> Clip {
    let path = folder.join(format!("{number}.wav"));
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: SAMPLE_RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(number as u64);
    let mut file = hound::WavWriter::create(&path, spec).expect("a file");
    for _ in 0..SECONDS * SAMPLE_RATE as usize {
        file.write_sample(rng.gen_range(-3000_i16..3000))
            .expect("a sample");
    }
    file.finalize().expect("a whole file");
    Clip::new(path, Seconds(0.0), SECONDS.div_ceil(10))
}

/// Seconds from the files to all answers, and what was heard.
fn asked(loaded: &Loaded, clips: &[Clip], (silence, orders): (bool, usize)) -> (f64, Stats) {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut asks = Vec::new();
    for clip in clips {
        let t = step::tokenizer();
        let mut words = |n: usize| (0..n).map(|_| rng.gen_range(0..t.eos)).collect::<Vec<i64>>();
        let question = [vec![t.audio], words(PROMPT.1 - 1)].concat();
        let options: Vec<Vec<i64>> = (0..=ORDERS)
            .map(|_| words((PROMPT.0 - PROMPT.1) / (ORDERS + 1)))
            .collect();
        let prompt = |by: usize| {
            let rotated = options.iter().cycle().skip(by).take(options.len());
            [question.clone(), rotated.flatten().copied().collect()].concat()
        };
        asks.push(ask(Sound::Clip(clip.clone()), prompt(0)));
        asks.extend((1..=orders).map(|by| ask(Sound::Clip(clip.clone()), prompt(by))));
        if silence {
            asks.push(ask(Sound::Silence(clip.clone()), prompt(0)));
        }
    }
    let settings = Settings {
        slots: environment("AF2_BENCH_SLOTS", 8),
        ..Settings::default()
    };
    let begin = Instant::now();
    let mut engine = Engine::new(loaded, Arc::new(Ears::new(0)), settings.clone());
    let mut asks = asks.into_iter();
    loop {
        while engine.waiting() < 4 * settings.slots {
            let Some(ask) = asks.next() else { break };
            engine.submit(ask);
        }
        if engine.idle() {
            break;
        }
        for event in engine.step().expect("a device that works") {
            if let Event::Done { found, .. } = event {
                found.expect("an answer");
            }
        }
    }
    (begin.elapsed().as_secs_f64(), engine.stats())
}

fn ask(sound: Sound, prompt: Vec<i64>) -> Ask {
    Ask {
        sound,
        prompt,
        wanted: Wanted::Answers(Decoding {
            max_new_tokens: ANSWER,
            min_new_tokens: ANSWER,
            ..Decoding::default()
        }),
        item: String::new(),
        stream: false,
    }
}
