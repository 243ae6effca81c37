//! Predicted captions beside those that people wrote: reading them, and the metrics that the official Java tools alone have.

mod bert_score;
mod clap_score;
mod official;
mod others;
mod read;

pub use bert_score::{Baseline, BertScore, BertScored, FOLLOWS};
pub use clap_score::{ClapScore, MOST_WINDOWS};
pub use official::{meteor, spice, Found, Tool};
pub use others::{others, Other};
pub use read::{read, Captioned};
