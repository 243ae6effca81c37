//! A model with its tokenizer, asked in words: from a clip to what is heard, from a question to an answer.

use super::{generate, sampling::Sampler, Options};
use crate::data::feed::{Clip, Ears};
use crate::error::Result;
use crate::load::Loaded;
use crate::model::flamingo::{Audio, Heard};
use crate::model::mode::Mode;
use tch::no_grad;

/// What a model says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Without special tokens.
    pub text: String,
    /// The ids, the end of text included where it came.
    pub tokens: Vec<i64>,
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
    Ok(no_grad(|| model.model.hear(&audio, Mode::EVAL)))
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
    let tokens = generate(&model.model, heard, &ids, options, sampler);
    Ok(Answer {
        text: model.tokenizer.decode(&tokens, true)?,
        tokens,
    })
}
