//! Predicted captions beside those that people wrote: reading them, and the metrics that the official Java tools alone have.

mod bert_score;
mod official;
mod others;
mod read;

pub use bert_score::{Baseline, BertScore, BertScored, FOLLOWS};
pub use official::{meteor, spice, Found, Tool};
pub use others::{others, Other};
pub use read::{read, Captioned};
