//! Many questions at once: sequences of several clips are written on together, and a clip is heard once for all that is asked
//! about it.

use super::decoding::Decoding;
use super::likelihood::{likelihood_of, Choice};
use super::{answers_to, Answer};
use crate::data::feed::{Clip, Ears};
use crate::error::Result;
use crate::load::Loaded;
use crate::model::flamingo::{Audio, Heard};
use crate::model::mode::Mode;
use crate::model::parts::Precision;
use ndarray::Array3;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tch::no_grad;

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sound {
    /// A file's, or a shard's.
    Clip(Clip),
    /// As many windows of silence as this clip has: the silence control.
    Silence(Clip),
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
    /// The question among others, for the seed: see [`super::sampling::Sampler::of`].
    pub item: String,
    /// Whether each token is told as it comes. Beams tell none: what they hold is not decided before the end.
    pub stream: bool,
}

/// Names a question that was [submitted](Engine::submit).
pub type Ticket = u64;

/// What came of a question.
#[derive(Debug)]
pub enum Found {
    /// The best first, or sample by sample.
    Said(Vec<Answer>),
    /// In the order in which they were given.
    Chosen(Vec<Choice>),
}

/// What a [step](Engine::step) brought.
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

/// How the engine works. No setting changes an answer.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most sequences that are written on together.
    pub slots: usize,
    /// Most bytes of what is heard and what is written, the model apart; none for a share of what the device has.
    pub memory: Option<u64>,
    /// In what is computed. The model must be ready for it: [`Loaded::ask_in`].
    pub precision: Precision,
    /// Most tokens of a prompt that are read between two tokens of the other answers.
    pub prefill: usize,
}

impl Default for Settings {
    /// Eight slots, fp32, 256 tokens of a prompt at once.
    fn default() -> Self {
        Settings {
            slots: 8,
            memory: None,
            precision: Precision::Fp32,
            prefill: 256,
        }
    }
}

/// A model that answers many questions.
///
/// Questions wait in the order in which they were [submitted](Engine::submit). Each [step](Engine::step) fills free slots, and writes
/// one more token of every sequence that has a slot.
pub struct Engine<'a> {
    model: &'a Loaded,
    ears: Arc<Ears>,
    settings: Settings,
    waiting: VecDeque<(Ticket, Ask, Instant)>,
    next: Ticket,
}

impl<'a> Engine<'a> {
    /// An engine without questions.
    pub fn new(model: &'a Loaded, ears: Arc<Ears>, settings: Settings) -> Self {
        Engine {
            model,
            ears,
            settings,
            waiting: VecDeque::new(),
            next: 0,
        }
    }

    /// Takes a question in. Questions about one sound are cheapest one after another.
    pub fn submit(&mut self, ask: Ask) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.waiting.push_back((ticket, ask, Instant::now()));
        ticket
    }

    /// Forgets a question; nothing more is told of it, and what it held is free.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.waiting.retain(|(t, ..)| *t != ticket);
    }

    /// Questions that have no slot yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Questions that are being answered.
    pub fn running(&self) -> usize {
        0
    }

    /// Whether there is nothing left to do.
    pub fn idle(&self) -> bool {
        self.waiting() + self.running() == 0
    }

    /// Goes on with all that have a slot, by one token. Waits for a sound only where nothing else is left to do.
    ///
    /// # Errors
    /// What ends all questions, such as a device that is gone. A question's own errors are told as its [`Event::Done`].
    pub fn step(&mut self) -> Result<Vec<Event>> {
        let Some((ticket, ask, since)) = self.waiting.pop_front() else {
            return Ok(Vec::new());
        };
        let found = self.answer(&ask);
        let mut events = Vec::new();
        if let (true, Ok(Found::Said(said))) = (ask.stream, &found) {
            for (sample, answer) in said.iter().enumerate() {
                events.extend(answer.tokens.iter().map(|t| Event::Token {
                    ticket,
                    sample,
                    token: *t,
                }));
            }
        }
        events.push(Event::Done {
            ticket,
            found,
            seconds: since.elapsed().as_secs_f64(),
        });
        Ok(events)
    }

    fn answer(&self, ask: &Ask) -> Result<Found> {
        let mel = match &ask.sound {
            Sound::Clip(clip) => self.ears.mel(clip)?,
            Sound::Silence(clip) => Arc::new(self.ears.silence(self.ears.mel(clip)?.shape()[0])),
            Sound::Given(given) => given.mel.clone(),
        };
        let audio = Audio::from_mels([&*mel], self.model.device);
        let heard: Heard = self.model.compute(self.settings.precision, || {
            no_grad(|| self.model.model.hear(&audio, Mode::EVAL))
        })?;
        self.model.compute(self.settings.precision, || {
            Ok(match &ask.wanted {
                Wanted::Answers(decoding) => Found::Said(answers_to(
                    self.model,
                    &heard,
                    &ask.prompt,
                    decoding,
                    &ask.item,
                    true,
                )?),
                Wanted::Choices(choices) => {
                    Found::Chosen(likelihood_of(self.model, &heard, &ask.prompt, choices)?)
                }
            })
        })?
    }
}
