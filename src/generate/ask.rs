//! A model with its tokenizer, asked in words: from a clip to what is heard, from a question to an answer.

use super::{decoding::Decoding, sampling::Sampler, single, stop::Stop, Job, Options, Sequence, NEAR_TIE};
use crate::data::feed::{Clip, Ears};
use crate::error::Result;
use crate::load::Loaded;
use crate::model::flamingo::{Audio, Heard};
use crate::model::mode::Mode;
use tch::no_grad;

/// What a model says.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Without special tokens, up to a stop string.
    pub text: String,
    /// The ids, what ended the answer included.
    pub tokens: Vec<i64>,
    /// The model's log-probability of each token, before processors and warpers.
    pub logprobs: Vec<f32>,
    /// See [`Sequence::score`].
    pub score: f64,
    /// See [`Sequence::least_lead`].
    pub least_lead: Option<f32>,
}

impl Answer {
    /// Whether a token of it was as good as another one: see [`NEAR_TIE`].
    pub fn near_tie(&self) -> bool {
        self.least_lead.is_some_and(|lead| lead < NEAR_TIE)
    }
}

/// Hears a clip, once for all questions about it: decodes, cuts into windows of 10 s, encodes and transforms.
///
/// Runs in fp32 unless it is called inside [`Loaded::compute`].
///
/// # Errors
/// Those of [`Ears::mel`]: a file that is not there, or whose sound cannot be used.
pub fn hear(model: &Loaded, ears: &Ears, clip: &Clip) -> Result<Heard> {
    let mel = ears.mel(clip)?;
    let audio = Audio::from_mels([&*mel], model.device);
    Ok(no_grad(|| model.model.hear(&audio, Mode::EVAL).by_head()))
}

/// Asks one question about what was heard. The prompt is lower-cased and stripped, as the training texts are.
///
/// # Errors
/// A prompt with special tokens, where the tokenizer refuses those; ids that are no text.
pub fn ask(
    model: &Loaded,
    heard: &Heard,
    prompt: &str,
    options: &Options,
    sampler: &mut Sampler,
) -> Result<Answer> {
    let ids = model.tokenizer.question(prompt)?;
    let said = single(&model.model, heard, &ids, options, sampler)?;
    in_words(model, said, &Stop::at(options.eos))
}

/// Asks one question by all rules of `decoding`, which must be [checked](Decoding::check); the best answer first, or sample by sample.
/// `item` names the question among others, see [`Sampler::of`]; without `cache` every step recomputes the whole text.
///
/// # Errors
/// As [`ask`].
pub fn answers(
    model: &Loaded,
    heard: &Heard,
    prompt: &str,
    decoding: &Decoding,
    item: &str,
    cache: bool,
) -> Result<Vec<Answer>> {
    let ids = model.tokenizer.question(prompt)?;
    answers_to(model, heard, &ids, decoding, item, cache)
}

/// [`answers`] to a question in token ids.
pub(crate) fn answers_to(
    model: &Loaded,
    heard: &Heard,
    prompt: &[i64],
    decoding: &Decoding,
    item: &str,
    cache: bool,
) -> Result<Vec<Answer>> {
    let stop = Stop::of(model, decoding);
    let job = Job {
        model: &model.model,
        heard,
        prompt,
        decoding,
        stop: &stop,
        cache,
    };
    let said = job.run(item)?;
    said.into_iter().map(|s| in_words(model, s, &stop)).collect()
}

pub(crate) fn in_words(model: &Loaded, said: Sequence, stop: &Stop) -> Result<Answer> {
    let text = model.tokenizer.decode(&said.tokens, true)?;
    Ok(Answer {
        text: stop.cut(&text),
        tokens: said.tokens,
        logprobs: said.logprobs,
        score: said.score,
        least_lead: said.least_lead,
    })
}
