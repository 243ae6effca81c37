//! What stands between the model's scores and the choice of a token: functions of one row of scores and of the ids so far.
//!
//! Reference: `generation/logits_process.py` of transformers 4.46.3, in the order of its `_get_logits_processor`: repetition
//! penalty, n-grams, minimal length; then, where tokens are drawn, temperature, top-k, top-p, min-p.

use super::decoding::{Decoding, Sampling};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// The processors. `scores_v` are logits, or in a beam search log-probabilities, which a repetition penalty changes in another
/// way: these are all below 0.
///
/// `ids` are the prompt's and the answer's so far, `new` of them the answer's; `ends` what may end it.
///
/// # Shapes
/// `scores_v` (V) float32 → (V) float32, −∞ where a token may not follow
pub fn process(decoding: &Decoding, scores_v: &Tensor, ids: &[i64], new: usize, ends: &[i64]) -> Tensor {
    let mut scores = scores_v.shallow_clone();
    if decoding.repetition_penalty != 1.0 {
        scores = penalize(&scores, ids, decoding.repetition_penalty);
    }
    let n = decoding.no_repeat_ngram_size;
    if n > 0 {
        scores = ban(&scores, &would_repeat(ids, n));
    }
    if new < decoding.min_new_tokens {
        scores = ban(&scores, ends);
    }
    scores
}

/// Scores of tokens that were there: divided by `penalty` where they are above 0, multiplied where below.
fn penalize(scores: &Tensor, ids: &[i64], penalty: f64) -> Tensor {
    let seen: Vec<i64> = ids
        .iter()
        .copied()
        .collect::<BTreeSet<i64>>()
        .into_iter()
        .collect();
    if seen.is_empty() {
        return scores.shallow_clone();
    }
    let seen = Tensor::from_slice(&seen).to_device(scores.device());
    let own = scores.index_select(0, &seen);
    let own = (&own * penalty).where_self(&own.lt(0.0), &(&own / penalty));
    scores.scatter(0, &seen, &own)
}

/// The tokens that would make an n-gram stand in `ids` once more.
fn would_repeat(ids: &[i64], n: usize) -> Vec<i64> {
    let Some(start) = (ids.len() + 1).checked_sub(n) else {
        return Vec::new();
    };
    let begun = &ids[start..];
    let again = ids.windows(n).filter(|gram| gram[..n - 1] == *begun);
    again.map(|gram| gram[n - 1]).collect()
}

fn ban(scores: &Tensor, ids: &[i64]) -> Tensor {
    match ids.is_empty() {
        true => scores.shallow_clone(),
        false => {
            let ids = Tensor::from_slice(ids).to_device(scores.device());
            scores.index_fill(0, &ids, f64::NEG_INFINITY)
        }
    }
}

/// The warpers. `rule` has a temperature above 0.
///
/// # Shapes
/// `scores_v` (V) → (V) float32, −∞ where a token is not drawn
pub(crate) fn warp(rule: &Sampling, scores_v: &Tensor) -> Tensor {
    let mut x = scores_v.to_kind(Kind::Float) / rule.temperature.max(1e-6);
    let v = x.size()[0];
    if rule.top_k > 0 && (rule.top_k as i64) < v {
        let (best, _) = x.topk(rule.top_k as i64, -1, true, true);
        let least = best.narrow(0, rule.top_k as i64 - 1, 1);
        x = x.masked_fill(&x.lt_tensor(&least), f64::NEG_INFINITY);
    }
    if rule.top_p < 1.0 {
        let (ascending, order) = x.sort(-1, false);
        // Ascending as transformers does it: drop what lies within the lower 1 − p, keep at least one.
        let below = ascending
            .softmax(-1, Kind::Float)
            .cumsum(-1, Kind::Float)
            .le(1.0 - rule.top_p);
        let _ = below.narrow(0, v - 1, 1).fill_(0);
        let drop = below.zeros_like().scatter(0, &order, &below);
        x = x.masked_fill(&drop, f64::NEG_INFINITY);
    }
    if rule.min_p > 0.0 {
        let probabilities = x.softmax(-1, Kind::Float);
        let least = probabilities.max() * rule.min_p;
        x = x.masked_fill(&probabilities.lt_tensor(&least), f64::NEG_INFINITY);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(t: &Tensor) -> Vec<f32> {
        Vec::try_from(t).unwrap()
    }

    /// As `RepetitionPenaltyLogitsProcessor`: each token once, however often it was there.
    #[test]
    fn what_was_there_is_made_less_likely_once() {
        let decoding = Decoding {
            repetition_penalty: 2.0,
            ..Decoding::default()
        };
        let scores = Tensor::from_slice(&[4.0f32, -4.0, 0.0, 1.0]);
        let found = process(&decoding, &scores, &[1, 0, 1, 0, 2], 3, &[]);
        assert_eq!(list(&found), [2.0, -8.0, 0.0, 1.0]);
        assert_eq!(list(&scores), [4.0, -4.0, 0.0, 1.0], "the model's own are kept");
        assert_eq!(list(&process(&decoding, &scores, &[], 0, &[])), list(&scores));
    }

    /// As `NoRepeatNGramLogitsProcessor`, and texts that are shorter than an n-gram.
    #[test]
    fn the_last_token_of_an_n_gram_that_was_there_is_banned() {
        assert_eq!(would_repeat(&[1, 1, 2, 1], 2), [1, 2]);
        assert_eq!(would_repeat(&[1, 1, 2, 1], 3), [] as [i64; 0]);
        assert_eq!(would_repeat(&[0, 1, 0, 1], 2), [0]);
        assert_eq!(would_repeat(&[0, 1, 0, 1], 3), [0]);
        assert_eq!(would_repeat(&[7, 8], 1), [7, 8]);
        for n in [2, 3, 9] {
            assert_eq!(would_repeat(&[], n), [] as [i64; 0]);
            assert_eq!(would_repeat(&[5], n), [] as [i64; 0]);
        }
    }

    #[test]
    fn nothing_ends_an_answer_before_its_least_length() {
        let decoding = Decoding {
            min_new_tokens: 2,
            ..Decoding::default()
        };
        let scores = Tensor::from_slice(&[0.0f32, 9.0, 8.0]);
        let at = |new| list(&process(&decoding, &scores, &[0, 0, 0], new, &[1, 2]));
        assert_eq!(at(1), [0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
        assert_eq!(at(2), [0.0, 9.0, 8.0]);
    }
}
