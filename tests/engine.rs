//! Many questions at once: whatever shares the slots, an answer is that of a question that is asked alone.

#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use af2::data::feed::{Clip, Ears};
use af2::generate::decoding::Decoding;
use af2::generate::engine::{Ask, Engine, Event, Found, Given, Settings, Sound, Wanted};
use af2::generate::{answers, hear, likelihood::likelihood, Answer};
use af2::load::{self, Loaded};
use af2::shapes::Seconds;
use ndarray::Array3;
use rand::{rngs::StdRng, seq::SliceRandom, Rng, SeedableRng};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use tch::Device;

fn model() -> Loaded {
    // The tests run beside each other, and teams of threads that wait for a core hold each other up.
    tch::set_num_threads(1);
    load::open(Path::new("tests/golden/F_tiny"), &load::Options::new(Device::Cpu)).unwrap()
}

/// Sounds of 1 to 12 windows of noise, each another one.
fn sounds(rng: &mut StdRng) -> Vec<Given> {
    let windows = (1..=12).map(|w| {
        let mel = Array3::from_shape_simple_fn((w, 1001, 64), || rng.gen_range(-80.0..10.0f32));
        Given {
            key: w.to_string(),
            mel: Arc::new(mel),
        }
    });
    windows.collect()
}

/// Runs all questions, and returns what came of each by its place.
fn run(model: &Loaded, asks: &[Ask], settings: Settings) -> (Vec<Found>, af2::generate::engine::Stats) {
    let memory = settings.memory;
    let mut engine = Engine::new(model, Arc::new(Ears::new(0)), settings);
    let tickets: HashMap<_, _> = (0..asks.len())
        .map(|i| (engine.submit(asks[i].clone()), i))
        .collect();
    let mut found: Vec<Option<Found>> = asks.iter().map(|_| None).collect();
    while !engine.idle() {
        for event in engine.step().unwrap() {
            if let Event::Done { ticket, found: f, .. } = event {
                let place = &mut found[tickets[&ticket]];
                assert!(place.is_none(), "told twice");
                *place = Some(f.unwrap());
            }
        }
    }
    let stats = engine.stats();
    if let Some(memory) = memory {
        assert!(stats.most_bytes <= memory, "{} of {memory}", stats.most_bytes);
    }
    (found.into_iter().map(Option::unwrap).collect(), stats)
}

fn said(found: &Found) -> &[Answer] {
    match found {
        Found::Said(said) => said,
        Found::Chosen(_) => panic!("choices"),
    }
}

/// 200 jobs of other lengths, sounds, prompts and ends.
#[test]
fn other_questions_change_no_answer() {
    let model = model();
    let mut rng = StdRng::seed_from_u64(11);
    let sounds = sounds(&mut rng);
    let vocabulary = model.tokenizer.len() as i64;
    let asks: Vec<Ask> = (0..200)
        .map(|i| {
            let question: String = (0..rng.gen_range(1..60))
                .map(|_| rng.gen_range('a'..='z'))
                .collect();
            let mut decoding = Decoding {
                max_new_tokens: rng.gen_range(1..=60),
                // Some end early, wherever the model says one of these.
                stop_token_ids: (0..rng.gen_range(0..20))
                    .map(|_| rng.gen_range(0..vocabulary))
                    .collect(),
                ..Decoding::default()
            };
            match i % 8 {
                5 => decoding.repetition_penalty = 1.3,
                6 => decoding.no_repeat_ngram_size = 2,
                7 => {
                    (decoding.do_sample, decoding.num_return_sequences) = (true, 3);
                    decoding.min_new_tokens = 1;
                }
                _ => {}
            }
            Ask {
                sound: Sound::Given(sounds[rng.gen_range(0..sounds.len())].clone()),
                prompt: model.tokenizer.question(&question).unwrap(),
                wanted: Wanted::Answers(decoding),
                item: i.to_string(),
                stream: false,
            }
        })
        .collect();
    let of = |slots: usize, memory: Option<u64>| Settings {
        slots,
        memory,
        // In another order each sound would be heard for each question.
        keep: if memory.is_none() { 12 } else { 4 },
        ..Settings::default()
    };
    let (alone, stats) = run(&model, &asks, of(1, None));
    assert_eq!(stats.spoken, stats.steps, "one slot");
    let mut ties = 0;
    // Of two slots, and of little memory, a part: what is heard anew for each question takes its time.
    for (slots, memory, some) in [
        (2, None, 50),
        (8, None, 200),
        (8, Some(24 << 20), 50),
        (16, None, 200),
    ] {
        let mut order: Vec<usize> = (0..asks.len()).collect();
        order.shuffle(&mut rng);
        order.truncate(some);
        let shuffled: Vec<Ask> = order.iter().map(|i| asks[*i].clone()).collect();
        let (found, stats) = run(&model, &shuffled, of(slots, memory));
        let busy = stats.spoken as f64 / (stats.steps * slots as u64) as f64;
        println!("{slots} slots, {memory:?}: {stats:?}, busy {busy:.2}");
        for (i, found) in order.iter().zip(&found) {
            let (found, alone) = (said(found), said(&alone[*i]));
            assert_eq!(found.len(), alone.len());
            for (a, b) in found.iter().zip(alone) {
                let tie = [a, b].iter().any(|x| x.near_tie());
                ties += usize::from(tie);
                if !tie {
                    assert_eq!(a.tokens, b.tokens, "{slots} slots, question {i}");
                    assert!((a.score - b.score).abs() < 1e-4, "{} {}", a.score, b.score);
                }
            }
        }
    }
    println!("{ties} near ties");
    assert!(ties < 8, "{ties}");
}

/// What the engine says is what the way says that asks one question at a time.
#[test]
fn answers_choices_and_beams_are_those_of_one_question_at_a_time() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let clips: Vec<Clip> = [8_000usize, 200_000]
        .iter()
        .map(|n| {
            let file = folder.path().join(format!("{n}.wav"));
            common::wav(&file, *n);
            Clip::new(file, Seconds(0.0), 3)
        })
        .collect();
    let ears = Arc::new(Ears::new(0));
    let wanted = [
        Wanted::Answers(Decoding::default()),
        Wanted::Answers(Decoding {
            num_beams: 3,
            num_return_sequences: 2,
            max_new_tokens: 12,
            ..Decoding::default()
        }),
        Wanted::Choices(vec!["a dog".into(), "rain".into(), "a car passes by".into()]),
        Wanted::Answers(Decoding {
            do_sample: true,
            num_return_sequences: 4,
            max_new_tokens: 9,
            ..Decoding::default()
        }),
    ];
    let mut engine = Engine::new(&model, ears.clone(), Settings::default());
    let mut expected = HashMap::new();
    for clip in &clips {
        for (i, wanted) in wanted.iter().enumerate() {
            let prompt = format!("what is heard? {i}");
            let ticket = engine.submit(Ask {
                sound: Sound::Clip(clip.clone()),
                prompt: model.tokenizer.question(&prompt).unwrap(),
                wanted: wanted.clone(),
                item: prompt.clone(),
                stream: true,
            });
            expected.insert(ticket, (clip, wanted, prompt));
        }
    }
    let mut told: HashMap<(u64, usize), Vec<(i64, f32)>> = HashMap::new();
    while !engine.idle() {
        for event in engine.step().unwrap() {
            let (ticket, found) = match event {
                Event::Token {
                    ticket,
                    sample,
                    token,
                    logprob,
                } => {
                    told.entry((ticket, sample)).or_default().push((token, logprob));
                    continue;
                }
                Event::Done { ticket, found, .. } => (ticket, found.unwrap()),
            };
            let (clip, wanted, prompt) = expected.remove(&ticket).unwrap();
            let heard = hear(&model, &ears, clip).unwrap();
            match (wanted, found) {
                (Wanted::Answers(decoding), Found::Said(said)) => {
                    let alone = answers(&model, &heard, prompt.as_str(), decoding, &prompt, true).unwrap();
                    assert_eq!(said.len(), alone.len());
                    for (sample, (a, b)) in said.iter().zip(&alone).enumerate() {
                        assert_eq!((&a.tokens, &a.text), (&b.tokens, &b.text), "{prompt}");
                        assert!((a.score - b.score).abs() < 1e-4);
                        if decoding.num_beams == 1 {
                            let whole = a.tokens.iter().copied().zip(a.logprobs.iter().copied());
                            assert!(told[&(ticket, sample)].iter().copied().eq(whole), "{prompt}");
                        }
                    }
                }
                (Wanted::Choices(choices), Found::Chosen(found)) => {
                    let alone = likelihood(&model, &heard, &prompt, choices).unwrap();
                    for (a, b) in found.iter().zip(&alone) {
                        assert!((a.logprob - b.logprob).abs() < 1e-4, "{a:?} {b:?}");
                        assert_eq!(a.choice, b.choice);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(expected.is_empty());
    let stats = engine.stats();
    // Each clip once, whatever was asked: a window and two.
    assert_eq!((stats.sounds, stats.windows), (2, 3), "{stats:?}");
    assert!(stats.shared > 0, "{stats:?}");
}

#[test]
fn silence_is_encoded_once_and_a_bad_file_is_its_own_questions_error() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.wav");
    common::wav(&file, 16_000 * 25);
    let good = Clip::new(file, Seconds(0.0), 12);
    let bad = Clip::new(folder.path().join("none.wav"), Seconds(0.0), 12);
    let ask = |sound: Sound, i: usize| Ask {
        sound,
        prompt: model.tokenizer.question(&format!("what? {i}")).unwrap(),
        wanted: Wanted::Answers(Decoding {
            max_new_tokens: 3,
            ..Decoding::default()
        }),
        item: i.to_string(),
        stream: false,
    };
    let mut engine = Engine::new(&model, Arc::new(Ears::new(0)), Settings::default());
    let sounds = [
        Sound::Silence(good.clone()),
        Sound::Clip(bad.clone()),
        Sound::Clip(good.clone()),
        Sound::Silence(bad),
        Sound::Silence(good),
    ];
    for (i, sound) in sounds.iter().enumerate() {
        engine.submit(ask(sound.clone(), i));
    }
    let mut found = HashMap::new();
    while !engine.idle() {
        for event in engine.step().unwrap() {
            if let Event::Done { ticket, found: f, .. } = event {
                found.insert(ticket, f);
            }
        }
    }
    for (ticket, bad) in [(0, false), (1, true), (2, false), (3, true), (4, false)] {
        match &found[&ticket] {
            Ok(_) => assert!(!bad, "{ticket}"),
            Err(e) => assert!(bad && e.to_string().contains("none.wav"), "{ticket}: {e}"),
        }
    }
    let tokens = |ticket: u64| said(found[&ticket].as_ref().unwrap())[0].tokens.clone();
    assert_eq!(tokens(0).len(), 3);
    let stats = engine.stats();
    // Three windows of the clip and one of silence.
    assert_eq!(stats.windows, 4, "{stats:?}");
}

#[test]
fn a_forgotten_question_frees_its_slot_and_the_others_go_on() {
    let model = model();
    let mut rng = StdRng::seed_from_u64(3);
    let sounds = sounds(&mut rng);
    let ask = |i: usize, tokens: usize| Ask {
        sound: Sound::Given(sounds[i].clone()),
        prompt: model.tokenizer.question(&format!("what is it? {i}")).unwrap(),
        wanted: Wanted::Answers(Decoding {
            max_new_tokens: tokens,
            min_new_tokens: tokens,
            ..Decoding::default()
        }),
        item: i.to_string(),
        stream: false,
    };
    let alone = run(&model, &[ask(0, 40)], Settings::default()).0;
    let settings = Settings {
        slots: 2,
        ..Settings::default()
    };
    let mut engine = Engine::new(&model, Arc::new(Ears::new(0)), settings);
    let (kept, forgotten) = (engine.submit(ask(0, 40)), engine.submit(ask(1, 60)));
    let never = engine.submit(ask(2, 60));
    let mut done = HashMap::new();
    for step in 0.. {
        if step == 5 {
            engine.cancel(forgotten);
            engine.cancel(never);
            assert_eq!((engine.waiting(), engine.running()), (0, 1));
        }
        if engine.idle() {
            break;
        }
        for event in engine.step().unwrap() {
            if let Event::Done { ticket, found, .. } = event {
                done.insert(ticket, found.unwrap());
            }
        }
    }
    assert_eq!(done.keys().collect::<Vec<_>>(), [&kept]);
    assert_eq!(said(&done[&kept])[0].tokens, said(&alone[0])[0].tokens);
}

#[test]
fn a_question_that_does_not_fit_is_told_so() {
    let model = model();
    let mut rng = StdRng::seed_from_u64(3);
    let sounds = sounds(&mut rng);
    let settings = Settings {
        memory: Some(1000),
        ..Settings::default()
    };
    let mut engine = Engine::new(&model, Arc::new(Ears::new(0)), settings);
    engine.submit(Ask {
        sound: Sound::Given(sounds[11].clone()),
        prompt: model.tokenizer.question("what?").unwrap(),
        wanted: Wanted::Answers(Decoding::default()),
        item: String::new(),
        stream: false,
    });
    let events = engine.step().unwrap();
    let [Event::Done { found: Err(e), .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(
        e.to_string().contains("MiB may be used") && e.to_string().contains("--memory"),
        "{e}"
    );
    assert!(engine.idle());
}
