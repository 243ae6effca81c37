//! One sequence of tokens, and how sure the model was of it.

use crate::error::Error;
use tch::Tensor;

/// A token that was taken as the likeliest and leads the next one by less may be another with other neighbours, as sums are rounded
/// in another order. In float32: bf16 rounds more.
pub const NEAR_TIE: f32 = 1e-4;

/// What was generated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sequence {
    /// The new ids, what ended it included.
    pub tokens: Vec<i64>,
    /// The model's log-probability of each token, before processors and warpers.
    pub logprobs: Vec<f32>,
    /// See [`Decoding::score`]. Of a beam search as in `transformers`: after the processors. Else of `logprobs`.
    pub score: f64,
    /// The least by which a token that was taken as the likeliest led the next one; none where tokens are drawn, and of beams. Where
    /// it is next to nothing, another order of rounding may give another answer.
    pub least_lead: Option<f32>,
}

/// How far the largest of scores (V) leads the next one; none of a single one.
pub(super) fn lead(scores_v: &Tensor) -> Option<f32> {
    if scores_v.numel() < 2 {
        return None;
    }
    let (best, _) = scores_v.topk(2, -1, true, true);
    Some((best.double_value(&[0]) - best.double_value(&[1])) as f32)
}

pub(super) fn least(so_far: Option<f32>, lead: Option<f32>) -> Option<f32> {
    match (so_far, lead) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

pub(super) fn no_token() -> Error {
    Error::recipe(
        "answer",
        "no token may follow: every one is forbidden, or the model's scores are no numbers",
    )
}
