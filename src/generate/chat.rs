//! Replies of a language model alone: each question is read by itself, what is said to several is written together.

use super::decoding::Sampling;
use super::sampling::Sampler;
use super::sequence::no_token;
use crate::error::Result;
use crate::load::ChatModel;
use tch::Tensor;

/// A question.
pub(crate) struct Ask {
    /// Ids of the chat up to the reply.
    pub prompt: Vec<i64>,
    pub rule: Sampling,
    pub seed: u64,
    /// Names the question among others: see [`Sampler::of`].
    pub item: String,
    /// Most tokens of the reply, from 1.
    pub most: usize,
}

/// What was said.
pub(crate) struct Reply {
    pub text: String,
    /// Tokens that were written, the one that ended it included.
    pub tokens: usize,
    /// Whether it ran into its most tokens.
    pub cut: bool,
}

/// A reply that is being written.
struct Row<'a> {
    /// Its question's place.
    at: usize,
    ask: &'a Ask,
    sampler: Sampler,
    said: Vec<i64>,
    ended: bool,
}

impl Row<'_> {
    /// Takes the next token of its scores (V). Returns whether the reply is whole.
    fn take(&mut self, model: &ChatModel, scores: &Tensor) -> Result<bool> {
        // Of scores that are no numbers any token would be the likeliest.
        if !scores.max().double_value(&[]).is_finite() {
            return Err(no_token());
        }
        let token = self.sampler.next(scores);
        self.ended = model.chat.ends.contains(&token);
        self.said.push(token);
        Ok(self.ended || self.said.len() >= self.ask.most)
    }

    fn reply(self, model: &ChatModel) -> Result<Reply> {
        let words = &self.said[..self.said.len() - usize::from(self.ended)];
        Ok(Reply {
            text: model.chat.decode(words)?,
            tokens: self.said.len(),
            cut: !self.ended,
        })
    }
}

/// Answers all of these, at most so many at once; `each` gets a reply with its question's place as soon as it is whole.
///
/// # Errors
/// Scores that are no numbers; a device that does not do its part; what `each` says.
pub(crate) fn replies(
    model: &ChatModel,
    asks: &[Ask],
    at_once: usize,
    each: &mut dyn FnMut(usize, Reply) -> Result<()>,
) -> Result<()> {
    let mut slots = model.slots();
    let mut rows: Vec<Row> = Vec::new();
    let mut left = asks.iter().enumerate();
    loop {
        while rows.len() < at_once.max(1) {
            let Some((at, ask)) = left.next() else { break };
            let (cache, scores) = model.read(&ask.prompt)?;
            let mut row = Row {
                at,
                ask,
                sampler: Sampler::of(ask.rule, ask.seed, &ask.item, 0),
                said: Vec::new(),
                ended: false,
            };
            if row.take(model, &scores)? {
                each(at, row.reply(model)?)?;
            } else {
                slots.push(&cache);
                rows.push(row);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let last: Vec<i64> = rows.iter().filter_map(|row| row.said.last().copied()).collect();
        let scores = model.speak(&last, &mut slots)?;
        // From behind: what comes into a place has been looked at.
        for i in (0..rows.len()).rev() {
            if rows[i].take(model, &scores.get(i as i64))? {
                let row = rows.swap_remove(i);
                slots.swap_remove(i);
                each(row.at, row.reply(model)?)?;
            }
        }
    }
}
