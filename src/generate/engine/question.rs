//! A question about a sound, and what comes of it.

use crate::data::feed::Clip;
use crate::error::Result;
use crate::generate::decoding::Decoding;
use crate::generate::likelihood::Choice;
use crate::generate::Answer;
use ndarray::Array3;
use std::sync::Arc;

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sound {
    /// A file's, or a shard's.
    Clip(Clip),
    /// As many windows of silence as this clip has: the silence control.
    Silence(Clip),
    /// White noise as long and as loud as this clip: see [`crate::data::feed::Ears::noise`].
    Noise(Clip),
    /// None: the cross-attention blocks are passed over, and the LM answers alone.
    Nothing,
    /// One that is in memory.
    Given(Given),
}

/// A sound that is in memory.
#[derive(Debug, Clone)]
pub struct Given {
    /// Of two with the same key one is heard.
    pub key: String,
    /// (W, 1001, 64) log-mel in dB, W at least 1.
    pub mel: Arc<Array3<f32>>,
}

impl PartialEq for Given {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Given {}

impl std::hash::Hash for Given {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// What is wanted of a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Answers in the model's own words. [Checked](Decoding::check).
    Answers(Decoding),
    /// How likely each of these answers is.
    Choices(Vec<String>),
}

/// One question about one sound.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What is heard.
    pub sound: Sound,
    /// Token ids, of [`crate::text::tokenizer::Tokenizer::question`].
    pub prompt: Vec<i64>,
    /// What is wanted.
    pub wanted: Wanted,
    /// The question among others, for the seed: see [`crate::generate::sampling::Sampler::of`].
    pub item: String,
    /// Whether each token is told as it comes. Beams tell none: what they hold is not decided before the end.
    pub stream: bool,
}

/// Names a question that was [submitted](super::Engine::submit).
pub type Ticket = u64;

/// What came of a question.
#[derive(Debug)]
pub enum Found {
    /// The best first, or sample by sample.
    Said(Vec<Answer>),
    /// In the order in which they were given.
    Chosen(Vec<Choice>),
}

/// What a [step](super::Engine::step) brought.
#[derive(Debug)]
pub enum Event {
    /// A token of an answer that is still being written.
    Token {
        /// Whose.
        ticket: Ticket,
        /// Which of its samples.
        sample: usize,
        /// The token; the one that ends an answer is told, too.
        token: i64,
        /// Its log-probability by the model, before any processor.
        logprob: f32,
    },
    /// The last that is told of a question.
    Done {
        /// Which.
        ticket: Ticket,
        /// An error is this question's alone: the others go on.
        found: Result<Found>,
        /// From its submission to now.
        seconds: f64,
    },
}
