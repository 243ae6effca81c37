//! How likely given answers are: a choice among options without a rule that reads free text.

use super::texts::Texts;
use crate::error::Result;
use crate::load::Loaded;
use crate::model::flamingo::{Flamingo, Heard};
use crate::text::prompt::clean;
use serde::Serialize;
use tch::{no_grad, Kind, Tensor};

/// Answers that are computed together, and positions whose logits are there at once: 64 of 151,669 are 39 MB.
pub(super) const ROWS: usize = 64;

/// How likely one answer is. Natural logarithms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// As it was given.
    pub choice: String,
    /// Of all that is written: the answer, `<|endofchunk|>` and the end of text.
    pub logprob: f64,
    /// Of the answer without these two.
    pub logprob_answer: f64,
    /// `logprob_answer` over the answer's tokens; 0 of an answer without any.
    pub per_token: f64,
    /// `logprob_answer` over the answer's characters, lower-cased and stripped as the model reads it.
    pub per_character: f64,
}

/// How likely each of several answers to a question about a clip is. Both sides are lower-cased and stripped, as the training
/// texts are; an answer ends as theirs do.
///
/// The question is read once.
///
/// # Errors
/// Special tokens in a text, where the tokenizer refuses those.
pub fn likelihood(model: &Loaded, heard: &Heard, prompt: &str, choices: &[String]) -> Result<Vec<Choice>> {
    likelihood_of(model, heard, &model.tokenizer.question(prompt)?, choices)
}

/// [`likelihood`] after a question in token ids.
pub(crate) fn likelihood_of(
    model: &Loaded,
    heard: &Heard,
    prompt: &[i64],
    choices: &[String],
) -> Result<Vec<Choice>> {
    let (read, first) = no_grad(|| Texts::read(&model.model, heard, &[prompt.to_vec()]));
    after(model, &read, &first, choices)
}

/// [`likelihood`] after a question that was read, whose scores for the next token are `first` (1, V).
pub(crate) fn after(model: &Loaded, read: &Texts, first: &Tensor, choices: &[String]) -> Result<Vec<Choice>> {
    let tokenizer = &model.tokenizer;
    let texts: Vec<String> = choices.iter().map(|c| clean(c)).collect();
    let ends = [tokenizer.end_of_chunk, tokenizer.eos];
    let ids = |text: &String| Ok([&tokenizer.text(text)?[..], &ends].concat());
    let answers = texts.iter().map(ids).collect::<Result<Vec<_>>>()?;
    let logprobs = no_grad(|| each_after(&model.model, read, first, &answers));
    let all = choices.iter().zip(&texts).zip(logprobs);
    Ok(all
        .map(|((choice, text), logprobs)| {
            let sum = |of: &[f32]| of.iter().map(|p| f64::from(*p)).sum::<f64>();
            let answer = &logprobs[..logprobs.len().saturating_sub(ends.len())];
            let logprob_answer = sum(answer);
            let over = |n: usize| logprob_answer / n.max(1) as f64;
            Choice {
                choice: choice.clone(),
                logprob: sum(&logprobs),
                logprob_answer,
                per_token: over(answer.len()),
                per_character: over(text.chars().count()),
            }
        })
        .collect())
}

/// The likeliest of several, by [`Choice::logprob`]; of equals the first.
pub(crate) fn likeliest(choices: &[Choice]) -> Option<&Choice> {
    choices.iter().reduce(|best, c| match c.logprob > best.logprob {
        true => c,
        false => best,
    })
}

/// The share of each among the given answers: their probabilities, scaled to a sum of 1.
pub(crate) fn shares(choices: &[Choice]) -> Vec<f64> {
    let most = choices
        .iter()
        .map(|c| c.logprob)
        .fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = choices.iter().map(|c| (c.logprob - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// The log-probability of every token of each answer (none empty) after the prompt, which is read once. An answer's tokens are one
/// forward pass over its cache, some dozens together; `heard` has one clip.
pub fn token_logprobs(
    model: &Flamingo,
    heard: &Heard,
    prompt: &[i64],
    answers: &[Vec<i64>],
) -> Vec<Vec<f32>> {
    no_grad(|| {
        let (read, first) = Texts::read(model, heard, &[prompt.to_vec()]);
        each_after(model, &read, &first, answers)
    })
}

fn each_after(model: &Flamingo, read: &Texts, first: &Tensor, answers: &[Vec<i64>]) -> Vec<Vec<f32>> {
    let first = first.log_softmax(-1, Kind::Float).squeeze_dim(0);
    let answers_of = |some: &[Vec<i64>]| rest(model, read, some);
    answers
        .chunks(ROWS)
        .flat_map(|some| some.iter().zip(answers_of(some)).collect::<Vec<_>>())
        .map(|(answer, rest)| {
            let first = answer.first().map(|t| first.double_value(&[*t]) as f32);
            first.into_iter().chain(rest).collect()
        })
        .collect()
}

/// Of all tokens but each answer's first.
fn rest(model: &Flamingo, read: &Texts, answers: &[Vec<i64>]) -> Vec<Vec<f32>> {
    let count = |answer: &Vec<i64>| answer.len().saturating_sub(1);
    let longest = answers.iter().map(count).max().unwrap_or(0);
    if longest == 0 {
        return vec![Vec::new(); answers.len()];
    }
    let mut texts = read.fork();
    texts.select(&vec![0; answers.len()]);
    let fed: Vec<Vec<i64>> = answers.iter().map(|a| a[..count(a)].to_vec()).collect();
    let states = texts.states(&fed).flatten(0, 1);
    // Those of the real tokens, in the answers' order, each with the token behind it.
    let (mut at, mut targets) = (Vec::new(), Vec::<i64>::new());
    for (row, answer) in answers.iter().enumerate() {
        at.extend((0..count(answer)).map(|t| (row * longest + t) as i64));
        targets.extend(answer.iter().skip(1));
    }
    let device = states.device();
    let mut logprobs = Vec::with_capacity(at.len());
    for (at, targets) in at.chunks(ROWS).zip(targets.chunks(ROWS)) {
        let at = Tensor::from_slice(at).to_device(device);
        let targets = Tensor::from_slice(targets).to_device(device).unsqueeze(1);
        let logits = model.logits(&states.index_select(0, &at)).to_kind(Kind::Float);
        let own = logits.log_softmax(-1, Kind::Float).gather(1, &targets, false);
        logprobs.extend(Vec::<f32>::try_from(own.flatten(0, 1)).unwrap_or_default());
    }
    let mut logprobs = logprobs.into_iter();
    answers
        .iter()
        .map(|a| logprobs.by_ref().take(count(a)).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_one_and_the_first_of_equals_is_taken() {
        let choice = |choice: &str, logprob: f64| Choice {
            choice: choice.into(),
            logprob,
            logprob_answer: logprob,
            per_token: logprob,
            per_character: logprob,
        };
        let all = [choice("a", -2000.0), choice("b", -1999.0), choice("c", -1999.0)];
        assert_eq!(likeliest(&all).unwrap().choice, "b");
        assert_eq!(likeliest(&[]), None);
        let shares = shares(&all);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((shares[1] / shares[0] - 1f64.exp()).abs() < 1e-9);
    }
}
