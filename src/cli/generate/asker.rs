//! Who answers.

use crate::data::feed::Ears;
use crate::error::Result;
use crate::generate::answers_to;
use crate::generate::engine::{Ask, Engine, Event, Found, Sound, Ticket, Wanted};
use crate::generate::likelihood::likelihood_of;
use crate::load::Loaded;
use crate::model::flamingo::Audio;
use crate::model::mode::Mode;
use crate::model::parts::Precision;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tch::no_grad;

/// Who answers: the engine, or for checking one question after another without caches.
pub(super) enum Asker<'a> {
    Engine(Box<Engine<'a>>),
    OneByOne(OneByOne<'a>),
}

impl Asker<'_> {
    pub(super) fn submit(&mut self, ask: Ask) -> Ticket {
        match self {
            Asker::Engine(engine) => engine.submit(ask),
            Asker::OneByOne(all) => {
                all.waiting.push_back((all.next, ask));
                all.next += 1;
                all.next - 1
            }
        }
    }

    pub(super) fn step(&mut self) -> Result<Vec<Event>> {
        match self {
            Asker::Engine(engine) => engine.step(),
            Asker::OneByOne(all) => Ok(all.step().into_iter().collect()),
        }
    }
}

pub(super) struct OneByOne<'a> {
    model: &'a Loaded,
    ears: Arc<Ears>,
    precision: Precision,
    waiting: VecDeque<(Ticket, Ask)>,
    next: Ticket,
}

impl<'a> OneByOne<'a> {
    pub(super) fn new(model: &'a Loaded, ears: Arc<Ears>, precision: Precision) -> Self {
        OneByOne {
            model,
            ears,
            precision,
            waiting: VecDeque::new(),
            next: 0,
        }
    }

    fn step(&mut self) -> Option<Event> {
        let (ticket, ask) = self.waiting.pop_front()?;
        let since = Instant::now();
        let found = self.answer(&ask);
        Some(Event::Done {
            ticket,
            found,
            seconds: since.elapsed().as_secs_f64(),
        })
    }

    fn answer(&self, ask: &Ask) -> Result<Found> {
        let model = self.model;
        let mel = match &ask.sound {
            Sound::Clip(clip) => Some(self.ears.mel(clip)?),
            Sound::Silence(clip) => Some(Arc::new(self.ears.silence(self.ears.mel(clip)?.shape()[0]))),
            Sound::Noise(clip) => Some(self.ears.noise(clip)?),
            Sound::Given(given) => Some(given.mel.clone()),
            Sound::Nothing => None,
        };
        model.compute(self.precision, || {
            let heard = match &mel {
                Some(mel) => {
                    let audio = Audio::from_mels([&**mel], model.device);
                    no_grad(|| model.model.hear(&audio, Mode::EVAL))
                }
                None => model.model.deaf(),
            };
            Ok(match &ask.wanted {
                Wanted::Answers(decoding) => Found::Said(answers_to(
                    model,
                    &heard,
                    &ask.prompt,
                    decoding,
                    &ask.item,
                    false,
                )?),
                Wanted::Choices(choices) => {
                    Found::Chosen(likelihood_of(model, &heard, &ask.prompt, choices)?)
                }
            })
        })?
    }
}
