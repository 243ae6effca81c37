//! Which tokens count in the loss, and batches of padded text.

use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use ndarray::Array2;

/// The label of a token that does not count.
pub const IGNORED: i64 = -100;

/// A batch of texts, padded on the right.
///
/// # Shapes
/// all (B, T), T the longest text of the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Ids of the tokens.
    pub input_ids: Array2<i64>,
    /// 0 on padding.
    pub attention_mask: Array2<u8>,
    /// [`IGNORED`] where nothing counts.
    pub labels: Array2<i64>,
}

/// Labels of one text: the answer after each `<SEP>`, its `<|endofchunk|>`, and the end of text behind the last one
/// count; the prompt, `<audio>`, `<SEP>` and padding do not.
///
/// Reference: an answer that truncation cut before its `<|endofchunk|>` does not count at all.
pub fn labels(ids: &[i64], t: &Tokenizer) -> Vec<i64> {
    let mut labels = vec![IGNORED; ids.len()];
    let mut start = None;
    for (i, &id) in ids.iter().enumerate() {
        if id == t.sep {
            start = Some(i + 1);
        } else if id == t.end_of_chunk {
            if let Some(from) = start.take() {
                labels[from..=i].copy_from_slice(&ids[from..=i]);
                if ids.get(i + 1) == Some(&t.eos) {
                    labels[i + 1] = t.eos;
                }
            }
        }
    }
    for (label, id) in labels.iter_mut().zip(ids) {
        if *id == t.audio {
            *label = IGNORED;
        }
    }
    labels
}

/// Tokenizes (prompt, answer) pairs, cuts them to `max_tokens` and pads them.
pub fn collate(tokenizer: &Tokenizer, pairs: &[(&str, &str)], max_tokens: usize) -> Result<Batch> {
    let rows = pairs
        .iter()
        .map(|(p, a)| {
            let mut ids = tokenizer.example(p, a)?;
            ids.truncate(max_tokens);
            Ok(ids)
        })
        .collect::<Result<Vec<_>>>()?;
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    if width == 0 {
        return Err(Error::recipe("text", "a batch without tokens"));
    }
    let mut batch = Batch {
        input_ids: Array2::from_elem((rows.len(), width), tokenizer.pad),
        attention_mask: Array2::zeros((rows.len(), width)),
        labels: Array2::from_elem((rows.len(), width), IGNORED),
    };
    for (b, ids) in rows.iter().enumerate() {
        for (t, (id, label)) in ids.iter().zip(labels(ids, tokenizer)).enumerate() {
            batch.input_ids[[b, t]] = *id;
            batch.attention_mask[[b, t]] = 1;
            batch.labels[[b, t]] = label;
        }
    }
    Ok(batch)
}
