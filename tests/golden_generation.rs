//! Decoding and likelihood on the tiny AF2 against the reference's own `generate`: ids, scores, distributions.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use af2::data::feed::{Clip, Ears};
use af2::generate::decoding::{Decoding, EarlyStopping};
use af2::generate::likelihood::{likelihood, token_logprobs};
use af2::generate::sampling::{Sampler, Sampling};
use af2::generate::stop::Stop;
use af2::generate::{answers, hear, warp, Answer, Job, Sequence};
use af2::load::{self, Loaded};
use af2::model::flamingo::Heard;
use af2::model::lm::Cache;
use af2::shapes::Seconds;
use common::{golden, tiny_options, Golden};
use serde_json::Value;
use std::collections::HashMap;
use tch::{no_grad, Device, Kind, Tensor};

/// Windows that the golden configuration gives a clip.
const WINDOWS: usize = 3;

/// The model, the golden file, and each clip heard once.
struct Case {
    model: Loaded,
    note: Value,
    tensors: Golden,
    heard: HashMap<String, Heard>,
}

impl Case {
    fn open() -> Self {
        Case::of(false)
    }

    fn of(few_shot_mask: bool) -> Self {
        let options = load::Options {
            few_shot_mask,
            ..tiny_options()
        };
        let model = load::open(&golden("F_tiny"), &options).unwrap();
        let note = std::fs::read_to_string(golden("N_generation/F_tiny.json")).unwrap();
        let note: Value = serde_json::from_str(&note).unwrap();
        let mut heard = HashMap::new();
        for case in note["a_greedy"].as_array().unwrap() {
            let file = text(&case["file"]);
            let clip = Clip::new(golden("wavs").join(&file), Seconds(0.0), WINDOWS);
            heard.insert(file, hear(&model, &Ears::new(0), &clip).unwrap());
        }
        Case {
            model,
            note,
            tensors: Golden::open("N_generation/F_tiny.safetensors"),
            heard,
        }
    }

    fn list(&self, section: &str) -> &[Value] {
        self.note[section].as_array().unwrap()
    }

    fn heard(&self, case: &Value) -> &Heard {
        &self.heard[&text(&case["file"])]
    }

    fn prompt(&self, case: &Value) -> Vec<i64> {
        self.model
            .tokenizer
            .question(case["prompt"].as_str().unwrap())
            .unwrap()
    }

    fn sequences(&self, case: &Value, decoding: &Decoding, cache: bool) -> Vec<Sequence> {
        assert_eq!(decoding.check(), []);
        let job = Job {
            model: &self.model.model,
            heard: self.heard(case),
            prompt: &self.prompt(case),
            decoding,
            stop: &Stop::of(&self.model, decoding),
            cache,
        };
        job.run("").unwrap()
    }

    /// (V) of what follows these ids, without a cache.
    fn logits(&self, case: &Value, ids: &[i64]) -> Tensor {
        let ids = Tensor::from_slice(ids).unsqueeze(0);
        let seen = Tensor::zeros([1, 1], (Kind::Int64, Device::Cpu));
        let model = &self.model.model;
        no_grad(|| model.decode(&ids, self.heard(case), &mut Cache::default(), &seen)).flatten(0, 2)
    }
}

fn text(v: &Value) -> String {
    v.as_str().unwrap().to_owned()
}

fn ids(v: &Value) -> Vec<i64> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_i64().unwrap())
        .collect()
}

fn floats(v: &Value) -> Vec<f64> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect()
}

/// The largest distance; what is −∞ must be so in both.
fn apart(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let one = |(a, b): (&f32, &f32)| match b.is_infinite() {
        true => {
            assert_eq!(a, b);
            0.0
        }
        false => f64::from((a - b).abs()),
    };
    found.iter().zip(expected).map(one).fold(0.0, f64::max)
}

fn values(t: &Tensor) -> Vec<f32> {
    Vec::try_from(t.flatten(0, -1)).unwrap()
}

/// The settings of a golden case, which have our names.
fn settings(case: &Value, names: &[&str]) -> Decoding {
    let own = case.as_object().unwrap();
    let chosen = names
        .iter()
        .filter_map(|n| Some(((*n).to_owned(), own.get(*n)?.clone())));
    serde_json::from_value(Value::Object(chosen.collect())).unwrap()
}

#[test]
fn greedy_answers_have_the_references_tokens_and_log_probabilities() {
    let case = Case::open();
    let mut worst = 0.0f64;
    for (i, greedy) in case.list("a_greedy").iter().enumerate() {
        let decoding = Decoding {
            max_new_tokens: 48,
            ..Decoding::default()
        };
        let found = case.sequences(greedy, &decoding, true);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].tokens, ids(&greedy["new_tokens"]), "{i}");
        let logprobs = case.tensors.get(&format!("greedy{i}/token_logprobs"));
        worst = worst.max(apart(&found[0].logprobs, &values(&logprobs)));
        let sum: f64 = found[0].logprobs.iter().map(|p| f64::from(*p)).sum();
        assert!((found[0].score - sum / found[0].tokens.len() as f64).abs() < 1e-9);
    }
    assert_eq!(case.list("a_greedy_exactly_48_tokens").len(), 8);
    for (i, greedy) in case.list("a_greedy_exactly_48_tokens").iter().enumerate() {
        let decoding = settings(&greedy["settings"], &["max_new_tokens", "min_new_tokens"]);
        assert_eq!(decoding.min_new_tokens, 48);
        for cache in [true, false] {
            let found = case.sequences(greedy, &decoding, cache);
            assert_eq!(found[0].tokens, ids(&greedy["new_tokens"]), "{i}");
        }
    }
    println!("log-probabilities of greedy tokens: {worst:.1e}");
    assert!(worst <= 1e-4, "{worst}");
}

#[test]
fn beam_searches_find_the_references_sequences_and_scores() {
    let case = Case::open();
    let names = [
        "num_beams",
        "length_penalty",
        "early_stopping",
        "num_return_sequences",
        "max_new_tokens",
    ];
    let (mut worst, mut never) = (0.0f64, 0);
    assert_eq!(case.list("b_beam").len(), 96);
    for beam in case.list("b_beam") {
        let decoding = settings(beam, &names);
        never += usize::from(decoding.early_stopping == EarlyStopping::Never);
        let found = case.sequences(beam, &decoding, true);
        compare(beam, &found, &mut worst);
    }
    assert_eq!(never, 8);
    // Without caches the rows are read whole: they must be the right ones all the same.
    for beam in case.list("b_beam").iter().step_by(19) {
        compare(
            beam,
            &case.sequences(beam, &settings(beam, &names), false),
            &mut worst,
        );
    }
    println!("scores of beams: {worst:.1e}");
    assert!(worst <= 1e-4, "{worst}");
}

fn compare(beam: &Value, found: &[Sequence], worst: &mut f64) {
    let key = &beam["key"];
    let tokens: Vec<Vec<i64>> = beam["new_tokens"].as_array().unwrap().iter().map(ids).collect();
    assert_eq!(
        found.iter().map(|s| s.tokens.clone()).collect::<Vec<_>>(),
        tokens,
        "{key}"
    );
    for (s, score) in found.iter().zip(floats(&beam["sequences_scores"])) {
        *worst = worst.max((s.score - score).abs());
        assert_eq!(s.logprobs.len(), s.tokens.len());
    }
}

#[test]
fn processors_act_on_greedy_and_on_beams_as_the_references_do() {
    let case = Case::open();
    let names = [
        "repetition_penalty",
        "no_repeat_ngram_size",
        "min_new_tokens",
        "num_beams",
        "num_return_sequences",
        "max_new_tokens",
    ];
    let (mut scores, mut rows, mut greedy) = (0.0f64, 0.0f64, 0);
    for own in case.list("c_processors") {
        let decoding = settings(&own["settings"], &names);
        let found = case.sequences(own, &decoding, true);
        if decoding.num_beams > 1 {
            compare(own, &found, &mut scores);
            continue;
        }
        greedy += 1;
        assert_eq!(found[0].tokens, ids(&own["new_tokens"][0]), "{}", own["key"]);
        let expected = case
            .tensors
            .get(&format!("{}/processed_first2", text(&own["key"])));
        for new in 0..2 {
            let ids = [&case.prompt(own)[..], &found[0].tokens[..new]].concat();
            let logits = case.logits(own, &ids);
            let ends = [case.model.tokenizer.eos];
            let processed = warp::process(&decoding, &logits, &ids, new, &ends);
            rows = rows.max(apart(&values(&processed), &values(&expected.get(new as i64))));
        }
    }
    assert_eq!((greedy, case.list("c_processors").len()), (32, 48));
    println!("processed logits: {rows:.1e}, scores of beams: {scores:.1e}");
    assert!(rows <= 1e-4 && scores <= 1e-4, "{rows} {scores}");
}

fn rule(own: &Value) -> Sampling {
    let decoding = Decoding {
        do_sample: true,
        ..settings(own, &["temperature", "top_k", "top_p"])
    };
    decoding.sampling()
}

#[test]
fn warped_distributions_are_the_references() {
    let case = Case::open();
    let (mut warping, mut whole) = (0.0f64, 0.0f64);
    for own in case.list("d_warped") {
        let rule = rule(own);
        let expected = case
            .tensors
            .get(&format!("{}/greedy_prefix_probs", text(&own["key"])));
        let logits = case
            .tensors
            .get(&format!("warp{}/greedy_prefix_logits", own["greedy_index"]));
        let prefix = ids(&own["greedy_prefix"]);
        let kept = ids(&own["kept"]);
        // The last row stands after the end of text where the answer is that short: left out in the file.
        assert!(kept.len() >= 2 && kept.len() <= prefix.len() + 1);
        for (t, kept) in kept.into_iter().enumerate() {
            let expected = values(&expected.get(t as i64));
            let text = [&case.prompt(own)[..], &prefix[..t]].concat();
            // Of the reference's own logits, and of ours.
            for (row, worst) in [
                (logits.get(t as i64), &mut warping),
                (case.logits(own, &text), &mut whole),
            ] {
                let found = values(&rule.probabilities(&row));
                assert_eq!(
                    found.iter().filter(|p| **p > 0.0).count() as i64,
                    kept,
                    "{}",
                    own["key"]
                );
                *worst = worst.max(apart(&found, &expected));
            }
        }
    }
    println!("probabilities: of the same logits {warping:.1e}, of ours {whole:.1e}");
    assert!(warping <= 1e-5 && whole <= 1e-5, "{warping} {whole}");
}

/// Pearson's statistic of counts against probabilities, tokens that are expected less than 5 times taken together; and its degrees
/// of freedom.
fn chi_square(counts: &[f64], probabilities: &[f32]) -> (f64, f64) {
    let total: f64 = counts.iter().sum();
    let (mut statistic, mut cells, mut rare) = (0.0, 0, (0.0, 0.0));
    for (count, p) in counts.iter().zip(probabilities) {
        let expected = f64::from(*p) * total;
        if expected >= 5.0 {
            statistic += (count - expected).powi(2) / expected;
            cells += 1;
        } else {
            rare = (rare.0 + count, rare.1 + expected);
        }
    }
    if rare.1 > 0.0 {
        statistic += (rare.0 - rare.1).powi(2) / rare.1;
        cells += 1;
    }
    (statistic, f64::from(cells - 1))
}

/// The statistic that chance exceeds once in 1,000 times, by Wilson and Hilferty's approximation: 3.0902 is that quantile of the
/// normal distribution. The draws are seeded, so that a sampler that passes always passes.
fn threshold(degrees: f64) -> f64 {
    let a = 2.0 / (9.0 * degrees);
    degrees * (1.0 - a + 3.0902 * a.sqrt()).powi(3)
}

#[test]
fn twenty_thousand_draws_follow_the_references_distribution() {
    const DRAWS: usize = 20_000;
    // Tables: 16.27 at 3 degrees, 59.70 at 30.
    assert!((threshold(3.0) / 16.27 - 1.0).abs() < 0.02 && (threshold(30.0) / 59.70 - 1.0).abs() < 0.002);
    let case = Case::open();
    // The widest: 23 tokens, 117, and 5 of about the same weight.
    for (key, t) in [
        ("warp2/t1.0_k30_p0.95", 1),
        ("warp2/t1.0_k0_p0.9", 1),
        ("warp2/t1.3_k5_p1.0", 0),
    ] {
        let own = case.list("d_warped").iter().find(|w| w["key"] == key).unwrap();
        let expected = values(&case.tensors.get(&format!("{key}/greedy_prefix_probs")).get(t));
        let logits = case.tensors.get("warp2/greedy_prefix_logits").get(t);
        let count = |rule: Sampling| {
            let mut counts = vec![0.0; expected.len()];
            // One stream, and one for each of many items: both must be fair.
            let mut one = Sampler::of(rule, 7, key, 0);
            for draw in 0..DRAWS {
                let id = match draw % 2 {
                    0 => one.next(&logits),
                    _ => Sampler::of(rule, 7, key, draw as u64).next(&logits),
                };
                counts[id as usize] += 1.0;
            }
            counts
        };
        let counts = count(rule(own));
        let excluded = counts
            .iter()
            .zip(&expected)
            .filter(|(n, p)| **n > 0.0 && **p == 0.0);
        assert_eq!(excluded.count(), 0, "{key}: what is warped away is never drawn");
        let (statistic, degrees) = chi_square(&counts, &expected);
        println!(
            "{key}: {statistic:.1}, {degrees} degrees, threshold {:.1}",
            threshold(degrees)
        );
        assert!(
            statistic <= threshold(degrees),
            "{key}: {statistic} at {degrees} degrees"
        );
        // A temperature that is 15% off is found out.
        let other = Sampling {
            temperature: rule(own).temperature * 1.15,
            ..rule(own)
        };
        let (statistic, degrees) = chi_square(&count(other), &expected);
        assert!(
            statistic > threshold(degrees),
            "{key}: {statistic} at {degrees} degrees"
        );
    }
}

#[test]
fn given_answers_have_the_references_log_probabilities() {
    let case = Case::open();
    let mut worst = 0.0f64;
    let mut tokens_worst = 0.0f64;
    for (i, own) in case.list("e_option_logprobs").iter().enumerate() {
        let (heard, prompt) = (case.heard(own), own["prompt"].as_str().unwrap());
        let options = own["options"].as_array().unwrap();
        let choices: Vec<String> = options.iter().map(|o| text(&o["option"])).collect();
        let found = likelihood(&case.model, heard, prompt, &choices).unwrap();
        let answers: Vec<Vec<i64>> = options.iter().map(|o| ids(&o["answer_ids"])).collect();
        let tokens = token_logprobs(&case.model.model, heard, &case.prompt(own), &answers);
        for (o, option) in options.iter().enumerate() {
            let (found, number) = (&found[o], |key: &str| option[key].as_f64().unwrap());
            for (found, expected) in [
                (found.logprob, number("sum_with_tail")),
                (found.logprob_answer, number("sum_answer")),
                (found.per_token, number("mean_answer")),
                (
                    found.per_character,
                    number("sum_answer") / choices[o].trim().chars().count() as f64,
                ),
            ] {
                worst = worst.max((found - expected).abs());
            }
            let expected = case.tensors.get(&format!("mc{i}/option{o}/token_logprobs"));
            tokens_worst = tokens_worst.max(apart(&tokens[o], &values(&expected)));
            // Alone as among others.
            let alone = likelihood(&case.model, heard, prompt, &choices[o..=o]).unwrap();
            assert!((alone[0].logprob - found.logprob).abs() <= 1e-4);
            assert_eq!(alone[0].choice, choices[o]);
        }
    }
    println!("log-probabilities of answers {worst:.1e}, of their tokens {tokens_worst:.1e}");
    assert!(worst <= 1e-4 && tokens_worst <= 1e-4, "{worst} {tokens_worst}");
}

/// More answers than are computed together; answers that are one token or many.
#[test]
fn many_answers_of_many_lengths_are_each_as_alone() {
    let case = Case::open();
    let own = &case.list("a_greedy")[0];
    let prompt = case.prompt(own);
    let v = case.model.tokenizer.len() as i64;
    let answers: Vec<Vec<i64>> = (0..70i64)
        .map(|i| (0..=i % 9).map(|t| (17 * i + 31 * t) % (v - 10)).collect())
        .collect();
    let model = &case.model.model;
    let found = token_logprobs(model, case.heard(own), &prompt, &answers);
    for (answer, found) in answers.iter().zip(&found) {
        let mut text = prompt.clone();
        for (token, logprob) in answer.iter().zip(found) {
            let row = case.logits(own, &text).log_softmax(-1, Kind::Float);
            assert!((row.double_value(&[*token]) - f64::from(*logprob)).abs() <= 1e-4);
            text.push(*token);
        }
        assert_eq!(found.len(), answer.len());
    }
}

/// Which frames a beam or an answer hears is told row by row under this rule, and the rows share one clip.
#[test]
fn rows_of_one_clip_hear_alike_under_the_few_shot_mask() {
    let case = Case::of(true);
    let beam = &case.list("b_beam")[0];
    let decoding = Decoding {
        num_beams: 3,
        num_return_sequences: 3,
        max_new_tokens: 12,
        ..Decoding::default()
    };
    let tokens = |cache| -> Vec<Vec<i64>> {
        let found = case.sequences(beam, &decoding, cache);
        found.into_iter().map(|s| s.tokens).collect()
    };
    assert_eq!(tokens(true), tokens(false));
    let own = &case.list("e_option_logprobs")[0];
    let answers: Vec<Vec<i64>> = own["options"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| ids(&o["answer_ids"]))
        .collect();
    let found = token_logprobs(&case.model.model, case.heard(own), &case.prompt(own), &answers);
    for (answer, found) in answers.iter().zip(&found) {
        let mut text = case.prompt(own);
        for (token, logprob) in answer.iter().zip(found) {
            let row = case.logits(own, &text).log_softmax(-1, Kind::Float);
            assert!((row.double_value(&[*token]) - f64::from(*logprob)).abs() <= 1e-4);
            text.push(*token);
        }
    }
}

#[test]
fn a_sample_depends_on_its_item_and_number_alone() {
    let case = Case::open();
    let own = &case.list("a_greedy")[2];
    let prompt = own["prompt"].as_str().unwrap();
    let ask = |item: &str, samples: usize| -> Vec<Answer> {
        let decoding = Decoding {
            do_sample: true,
            temperature: 3.0,
            num_return_sequences: samples,
            max_new_tokens: 10,
            seed: 5,
            ..Decoding::default()
        };
        answers(&case.model, case.heard(own), prompt, &decoding, item, true).unwrap()
    };
    let (five, two) = (ask("a", 5), ask("a", 2));
    assert_eq!(five[..2], two[..]);
    assert_ne!(five[0].tokens, five[1].tokens);
    assert_ne!(ask("b", 1)[0].tokens, five[0].tokens);
    // What is drawn is not what is likely: log-probabilities are the model's own, not the warped ones'.
    let first = case.logits(own, &case.prompt(own)).log_softmax(-1, Kind::Float);
    let own = first.double_value(&[five[0].tokens[0]]);
    assert!((own - f64::from(five[0].logprobs[0])).abs() <= 1e-4);
}

#[test]
fn stop_strings_and_stop_tokens_end_greedy_answers_and_beams() {
    let case = Case::open();
    let own = &case.list("a_greedy")[0];
    let prompt = own["prompt"].as_str().unwrap();
    let whole = text(&own["decoded"]);
    let tokens = ids(&own["new_tokens"]);
    assert_eq!(whole, "a dog barks twice while rain is falling.");
    let ask = |change: &dyn Fn(&mut Decoding)| {
        let mut decoding = Decoding {
            max_new_tokens: 48,
            ..Decoding::default()
        };
        change(&mut decoding);
        answers(&case.model, case.heard(own), prompt, &decoding, "", true).unwrap()
    };
    let stop = |d: &mut Decoding, text: &str| d.stop_strings = vec![text.to_owned(), "never said".to_owned()];
    let found = ask(&|d| stop(d, "s tw")).remove(0);
    assert_eq!(found.text, "a dog bark");
    assert!(found.tokens.len() < tokens.len() && tokens.starts_with(&found.tokens));
    // A special token's text is no part of the answer's.
    let found = ask(&|d| stop(d, "<|endofchunk|>")).remove(0);
    assert_eq!(
        (found.text, &found.tokens[..]),
        (whole.clone(), &tokens[..tokens.len() - 1])
    );
    let found = ask(&|d| d.stop_token_ids = vec![tokens[3]]).remove(0);
    assert_eq!(found.tokens, tokens[..4]);
    let beams = ask(&|d| {
        (d.num_beams, d.num_return_sequences) = (3, 3);
        stop(d, " twice");
    });
    assert_eq!((beams.len(), &beams[0].text[..]), (3, "a dog barks"));
    assert!(beams.iter().all(|b| !b.text.contains(" twice")));
    let beams = ask(&|d| {
        d.num_beams = 3;
        d.stop_token_ids = vec![tokens[3], case.model.tokenizer.end_of_chunk];
    });
    assert_eq!(beams[0].tokens, tokens[..4]);
}
