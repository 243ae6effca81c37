//! Beam searches, which go on beside the rows.

use super::memory::TextSize;
use super::question::Ticket;
use super::rows::{most, Question};
use crate::error::{Error, Result};
use crate::generate::beam::Beams;
use crate::generate::sequence::{no_token, Sequence};
use crate::generate::stop::Stop;
use crate::generate::texts::Texts;
use crate::generate::Job;
use crate::load::Loaded;
use crate::model::lm::Cache;
use crate::model::parts::Precision;
use std::rc::Rc;
use tch::{no_grad, Tensor};

/// A beam search.
pub(super) struct Search {
    question: Rc<Question>,
    beams: Beams,
    cache: Cache,
    seen: Tensor,
    logits: Tensor,
}

/// How a search is after a step.
pub(super) enum State {
    Going,
    Over,
    /// By an error of its question alone.
    Failed(Error),
}

impl Search {
    /// After a prompt that was read: `seen` (1, 1) `<audio>` tokens, `logits` (1, V) of what follows.
    pub(super) fn new(
        model: &Loaded,
        question: Rc<Question>,
        cache: Cache,
        seen: Tensor,
        logits: Tensor,
    ) -> Self {
        let stop = Stop::of(model, &question.decoding);
        Search {
            beams: Beams::new(&question.decoding, stop.tokens.len()),
            question,
            cache,
            seen,
            logits,
        }
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.question.ticket
    }

    /// Slots that it takes, of so many.
    pub(super) fn slots(&self, of: usize) -> usize {
        self.question.decoding.num_beams.min(of)
    }

    /// What it holds, or will.
    pub(super) fn bytes(&self, texts: &TextSize) -> u64 {
        let (beams, tokens) = (self.question.decoding.num_beams, most(&self.question));
        self.cache.bytes().max(texts.bytes(beams, tokens))
    }

    /// One token more of each beam.
    ///
    /// # Errors
    /// The device's.
    pub(super) fn step(&mut self, model: &Loaded, precision: Precision) -> Result<State> {
        let Question {
            prompt,
            decoding,
            held,
            ..
        } = &*self.question;
        let stop = Stop::of(model, decoding);
        let job = Job {
            model: &model.model,
            heard: &held.heard,
            prompt,
            decoding,
            stop: &stop,
            cache: true,
        };
        let step = match no_grad(|| job.beams_step(&mut self.beams, &self.logits)) {
            Ok(Some(step)) => step,
            Ok(None) => return Ok(State::Over),
            Err(e) => return Ok(State::Failed(e)),
        };
        let (cache, seen) = (std::mem::take(&mut self.cache), self.seen.shallow_clone());
        let mut texts = Texts::of(job.model, job.heard, cache, seen);
        let go_on = || {
            no_grad(|| {
                texts.select(&step.from);
                texts.append(&step.tokens)
            })
        };
        self.logits = model.compute(precision, go_on)?;
        (self.cache, self.seen) = texts.parts();
        Ok(State::Going)
    }

    /// The best of what was found.
    ///
    /// # Errors
    /// Nothing was.
    pub(super) fn finish(self) -> Result<Vec<Sequence>> {
        let found = self.beams.finish();
        match found.is_empty() {
            true => Err(no_token()),
            false => Ok(found),
        }
    }
}
