//! What texts take, and how much there is.

use super::question::{Ask, Wanted};
use crate::error::Error;
use crate::generate::likelihood;
use crate::model::lm::{DecoderConfig, SLOT_STEP};
use crate::proc;
use tch::{Device, Kind};

/// How large the keys and values of a text are.
pub(super) struct TextSize {
    /// Numbers of one token, in all layers.
    token: i64,
    /// Bytes of a number.
    pub element: u64,
}

impl TextSize {
    pub(super) fn of(lm: &DecoderConfig, kind: Kind) -> Self {
        TextSize {
            token: 2 * lm.num_hidden_layers as i64 * lm.num_key_value_heads * lm.head_dim,
            element: kind.elt_size_in_bytes() as u64,
        }
    }

    /// Of so many texts of so many tokens, whose room grows in steps.
    pub(super) fn bytes(&self, rows: usize, tokens: i64) -> u64 {
        let steps = tokens.div_euclid(SLOT_STEP) + 1;
        rows as u64 * steps as u64 * (SLOT_STEP * self.token) as u64 * self.element
    }
}

/// Sequences that a question writes at once, and the most tokens of each.
pub(super) fn rows_of(ask: &Ask) -> (usize, i64) {
    let tokens = |new: usize| (ask.prompt.len() + new) as i64;
    match &ask.wanted {
        Wanted::Answers(d) => (d.num_beams.max(1), tokens(d.max_new_tokens)),
        // An answer has no more tokens than bytes, and the two that end it.
        Wanted::Choices(all) => {
            let longest = all.iter().map(String::len).max().unwrap_or(0);
            (all.len().min(likelihood::ROWS), tokens(longest + 2))
        }
    }
}

pub(super) fn too_large(needs: u64, memory: u64) -> Error {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (needs, memory) = (mib(needs), mib(memory));
    Error::device(format!(
        "a question about this sound takes {needs} MiB, and {memory} MiB may be used"
    ))
    .hint("allow more memory (--memory), hear fewer windows, or ask for fewer tokens or beams")
}

/// What may be used where nobody says: a quarter of what is free.
pub(super) fn share(device: Device) -> u64 {
    let free = match crate::ffi::check::memory(device) {
        Ok(Some(gpu)) => u64::try_from(gpu.free).ok(),
        _ => proc::available_memory(),
    };
    free.map_or(1 << 30, |free| free / 4)
}
