//! Sequences that are written on together, one token a step.

use super::question::Ticket;
use super::sounds::Held;
use crate::error::Result;
use crate::generate::decoding::Decoding;
use crate::generate::sampling::Sampler;
use crate::generate::sequence::{lead, least, no_token, Sequence};
use crate::generate::stop::Stop;
use crate::generate::warp;
use crate::load::Loaded;
use crate::model::flamingo::About;
use crate::model::lm::{Cache, Slots};
use crate::model::parts::Precision;
use std::rc::Rc;
use tch::{no_grad, Kind, Tensor};

/// What all samples of a question share.
pub(super) struct Question {
    pub ticket: Ticket,
    pub prompt: Vec<i64>,
    pub decoding: Decoding,
    pub held: Rc<Held>,
    /// `<audio>` tokens of the prompt.
    pub seen: i64,
}

/// One sequence.
pub(super) struct Row {
    pub question: Rc<Question>,
    pub sample: usize,
    pub said: Sequence,
    sampler: Sampler,
    seen: i64,
}

/// A token that was chosen.
struct Chosen {
    token: i64,
    /// The model's, before the processors.
    logprob: f32,
    /// How far it led, of greedy.
    lead: Option<f32>,
}

impl Row {
    pub(super) fn new(question: Rc<Question>, sample: usize, sampler: Sampler) -> Self {
        Row {
            seen: question.seen,
            question,
            sample,
            said: Sequence::default(),
            sampler,
        }
    }

    /// Whether the model's scores are all that its choice needs: the likeliest token is taken.
    fn plain(&self) -> bool {
        let d = &self.question.decoding;
        let processed = d.repetition_penalty != 1.0
            || d.no_repeat_ngram_size > 0
            || self.said.tokens.len() < d.min_new_tokens;
        !processed && !d.do_sample
    }

    /// Takes a token in. Returns whether the sequence ended with it.
    fn take(&mut self, model: &Loaded, chosen: &Chosen) -> Result<bool> {
        let decoding = &self.question.decoding;
        if !chosen.logprob.is_finite() {
            return Err(no_token());
        }
        let said = &mut self.said;
        said.tokens.push(chosen.token);
        said.logprobs.push(chosen.logprob);
        said.least_lead = least(said.least_lead, chosen.lead);
        let stop = Stop::of(model, decoding);
        let ended = said.tokens.len() >= decoding.max_new_tokens || stop.ended(&said.tokens)?;
        if ended {
            let sum = said.logprobs.iter().map(|p| f64::from(*p)).sum();
            said.score = decoding.score(sum, said.tokens.len());
        }
        Ok(ended)
    }

    /// The most tokens that its text may have.
    fn most(&self) -> i64 {
        most(&self.question)
    }
}

/// The most tokens of a text: its prompt and its answer.
pub(super) fn most(question: &Question) -> i64 {
    (question.prompt.len() + question.decoding.max_new_tokens) as i64
}

/// The next token of each row, from its scores.
///
/// # Shapes
/// `logits_nv` (n, V) float32
fn choose(model: &Loaded, rows: &mut [&mut Row], logits_nv: &Tensor) -> Vec<Chosen> {
    let floats = |t: &Tensor| Vec::<f32>::try_from(t.to_kind(Kind::Float)).unwrap_or_default();
    let likeliest = logits_nv.argmax(-1, false);
    let (best, _) = logits_nv.topk(2.min(logits_nv.size()[1]), -1, true, true);
    let normalizers = floats(&logits_nv.logsumexp([-1i64].as_slice(), false));
    let (best, likeliest) = (
        floats(&best.flatten(0, 1)),
        Vec::<i64>::try_from(likeliest).unwrap_or_default(),
    );
    let each = best.len() / rows.len().max(1);
    let chosen = rows.iter_mut().enumerate().map(|(i, row)| {
        let best = &best[i * each..(i + 1) * each];
        if row.plain() {
            return Chosen {
                token: likeliest[i],
                logprob: best[0] - normalizers[i],
                lead: best.get(1).map(|second| best[0] - second),
            };
        }
        let scores = logits_nv.get(i as i64);
        let question = &row.question;
        let ids = [&question.prompt[..], &row.said.tokens].concat();
        let ends = Stop::of(model, &question.decoding).tokens;
        let processed = warp::process(&question.decoding, &scores, &ids, row.said.tokens.len(), &ends);
        let lead = match question.decoding.do_sample {
            true => None,
            false => lead(&processed),
        };
        let token = row.sampler.next(&processed);
        let forbidden = processed.double_value(&[token]) == f64::NEG_INFINITY;
        Chosen {
            token,
            logprob: match forbidden {
                true => f32::NAN,
                false => (scores.double_value(&[token]) - f64::from(normalizers[i])) as f32,
            },
            lead,
        }
    });
    chosen.collect()
}

/// All that have a slot.
pub(super) struct Rows {
    rows: Vec<Row>,
    slots: Slots,
}

/// How a row's step went.
pub(super) struct Stepped {
    pub ticket: Ticket,
    pub sample: usize,
    /// The new token, and its log-probability.
    pub token: Option<(i64, f32)>,
    /// The whole sequence, once it has ended.
    pub ended: Option<Result<Sequence>>,
}

impl Rows {
    pub(super) fn new(slots: Slots) -> Self {
        Rows {
            rows: Vec::new(),
            slots,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What their texts, and so many more of `tokens` at most, may grow to, or hold now, in bytes.
    pub(super) fn bytes_with(&self, more: usize, tokens: i64) -> u64 {
        let most = self.rows.iter().map(Row::most).max().unwrap_or(0);
        let (rows, most) = ((self.rows.len() + more) as i64, most.max(tokens));
        self.slots.bytes().max(self.slots.bytes_of(rows, most))
    }

    /// Begins a sequence with its first token, of the scores (1, V) that its prompt gave; unless it ends with it, it takes a slot.
    pub(super) fn begin(&mut self, model: &Loaded, mut row: Row, logits: &Tensor, cache: &Cache) -> Stepped {
        let chosen = choose(model, &mut [&mut row], logits);
        let stepped = step(model, &mut row, &chosen[0]);
        if stepped.ended.is_none() {
            self.slots.push(cache);
            self.rows.push(row);
        }
        stepped
    }

    /// One token more of each.
    pub(super) fn speak(&mut self, model: &Loaded, precision: Precision) -> Result<Vec<Stepped>> {
        let tokens: Vec<i64> = self
            .rows
            .iter()
            .filter_map(|r| r.said.tokens.last().copied())
            .collect();
        let mut about: Vec<(&Rc<Held>, About)> = Vec::new();
        for (i, row) in self.rows.iter_mut().enumerate() {
            row.seen += i64::from(tokens.get(i) == Some(&model.model.config.audio_token));
            let held = &row.question.held;
            let at = about.iter().position(|(h, _)| Rc::ptr_eq(h, held));
            let at = at.unwrap_or_else(|| {
                let (rows, seen) = (Vec::new(), Vec::new());
                let heard = &held.heard;
                about.push((held, About { heard, rows, seen }));
                about.len() - 1
            });
            about[at].1.rows.push(i as i64);
            about[at].1.seen.push(row.seen);
        }
        let about: Vec<About> = about.into_iter().map(|(_, a)| a).collect();
        let slots = &mut self.slots;
        let logits = model.compute(precision, || {
            no_grad(|| model.model.speak(&tokens, &about, slots))
        })?;
        drop(about);
        let mut all: Vec<&mut Row> = self.rows.iter_mut().collect();
        let chosen = no_grad(|| choose(model, &mut all, &logits));
        let steps: Vec<Stepped> = self
            .rows
            .iter_mut()
            .zip(&chosen)
            .map(|(row, chosen)| step(model, row, chosen))
            .collect();
        // From behind: what comes into a place has been looked at.
        for (i, stepped) in steps.iter().enumerate().rev() {
            if stepped.ended.is_some() {
                self.remove(i);
            }
        }
        Ok(steps)
    }

    /// Gives back the room of sequences that have ended, where none is left.
    pub(super) fn clear(&mut self) {
        if self.rows.is_empty() {
            self.slots.clear();
        }
    }

    /// Takes the sequences of a question out.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        for i in (0..self.rows.len()).rev() {
            if self.rows[i].question.ticket == ticket {
                self.remove(i);
            }
        }
    }

    fn remove(&mut self, i: usize) {
        self.rows.swap_remove(i);
        self.slots.swap_remove(i);
    }
}

fn step(model: &Loaded, row: &mut Row, chosen: &Chosen) -> Stepped {
    let new = (chosen.token, chosen.logprob);
    let (token, ended) = match row.take(model, chosen) {
        Ok(false) => (Some(new), None),
        Ok(true) => (Some(new), Some(Ok(std::mem::take(&mut row.said)))),
        Err(e) => (None, Some(Err(e))),
    };
    Stepped {
        ticket: row.question.ticket,
        sample: row.sample,
        token,
        ended,
    }
}
