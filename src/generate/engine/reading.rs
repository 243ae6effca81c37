//! Prompts on their way to their answers: one in pieces, or several about one sound at once, which reads the model's weights once.

use super::question::{Ask, Ticket, Wanted};
use super::sounds::Held;
use crate::model::lm::Cache;
use std::rc::Rc;
use std::time::Instant;
use tch::Tensor;

/// Prompts that share so many tokens more or fewer with what was read go together: the fewest are shared by all.
const NEAR: usize = 8;

/// A question that was not begun.
pub(super) struct Waiting {
    pub ticket: Ticket,
    pub ask: Ask,
    pub since: Instant,
    /// Others that went before it.
    pub passed: u32,
}

/// Prompts that are being read. Several have the same sound, and are read in one piece.
pub(super) struct Reading {
    pub prompts: Vec<Waiting>,
    pub held: Rc<Held>,
    /// Of one text: what all begin with, and what was read.
    pub cache: Cache,
    /// `<audio>` tokens so far, (1, 1).
    pub seen: Tensor,
    /// Tokens of each that were read, or need not be.
    pub at: usize,
}

/// Whether a prompt may be read beside others: an answer in words has its own room, once it has begun.
fn goes_along(ask: &Ask) -> bool {
    matches!(&ask.wanted, Wanted::Answers(decoding) if decoding.num_beams <= 1)
}

/// Tokens that a prompt shares with what was read; what follows its last token must be computed in any case.
pub(super) fn shared(read: &[i64], prompt: &[i64]) -> usize {
    let same = read.iter().zip(prompt).take_while(|(a, b)| a == b).count();
    same.min(prompt.len().saturating_sub(1))
}

/// The places in the queue of those that are read together with `first`, and how many tokens all of them share with what was `read`.
/// At most `most` tokens, filled up to the longest; `waiting`: those that are about the same sound; `fits`: whether there is room for
/// all of these.
pub(super) fn along<'w>(
    first: &'w Ask,
    waiting: impl Iterator<Item = (usize, &'w Waiting)>,
    read: &[i64],
    most: usize,
    fits: impl Fn(&[&'w Ask]) -> bool,
) -> (Vec<usize>, usize) {
    let (mut places, mut at) = (Vec::new(), shared(read, &first.prompt));
    if !goes_along(first) || at == 0 {
        return (places, at);
    }
    let begin = at;
    let mut asks = vec![first];
    for (place, other) in waiting {
        let own = shared(read, &other.ask.prompt);
        if !goes_along(&other.ask) || own.abs_diff(begin) > NEAR {
            continue;
        }
        asks.push(&other.ask);
        let least = at.min(own);
        let rests = || asks.iter().map(|ask| ask.prompt.len() - least);
        let (longest, sum) = (rests().max().unwrap_or(0), rests().sum::<usize>());
        let filled = longest * asks.len();
        // A quarter at most is filled up: what is computed for nothing must cost less than what is won.
        if filled > most || 4 * (filled - sum) > filled || !fits(&asks) {
            asks.pop();
            continue;
        }
        places.push(place);
        at = least;
    }
    (places, at)
}
