//! Answers: prefill, then one token at a time, with the text's keys and values cached and the audio's computed once.

mod ask;
pub mod sampling;

pub use ask::{ask, hear, Answer};

use crate::load::Loaded;
use crate::model::flamingo::{Flamingo, Heard};
use crate::model::lm::Cache;
use sampling::Sampler;
use tch::{no_grad, Tensor};

/// When to stop, and whether to keep the caches.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most tokens of the answer.
    pub max_new_tokens: usize,
    /// Ends the answer, and is part of it.
    pub eos: i64,
    /// Without it every step recomputes the whole text: slower, the same tokens; for checking.
    pub cache: bool,
}

impl Options {
    /// At most 256 tokens, up to the end of text of the model's tokenizer, with the caches.
    pub fn new(model: &Loaded) -> Self {
        Options {
            max_new_tokens: 256,
            eos: model.tokenizer.eos,
            cache: true,
        }
    }
}

/// Generates for one clip and one prompt.
///
/// `prompt` are token ids, `heard` the clip's audio (batch 1). Returns the new ids, the end of text included
/// where it came. Reference: `model.generate` of the release tree's inference script.
pub fn generate(
    model: &Flamingo,
    heard: &Heard,
    prompt: &[i64],
    options: &Options,
    sampler: &mut Sampler,
) -> Vec<i64> {
    no_grad(|| {
        let device = heard.device();
        let row = |ids: &[i64]| Tensor::from_slice(ids).unsqueeze(0).to_device(device);
        let mut text = prompt.to_vec();
        let mut cache = Cache::default();
        let mut seen = row(&[0]);
        let mut fed = 0;
        for _ in 0..options.max_new_tokens {
            if !options.cache {
                (cache, seen, fed) = (Cache::default(), row(&[0]), 0);
            }
            let new = row(&text[fed..]);
            let logits = model.decode(&new, heard, &mut cache, &seen);
            seen += model.audio_tokens(&new);
            fed = text.len();
            let next = sampler.next(&logits.flatten(0, 2));
            text.push(next);
            if next == options.eos {
                break;
            }
        }
        text.split_off(prompt.len())
    })
}
