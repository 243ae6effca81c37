//! Encoders of text: AF-CLAP's T5; BERT and RoBERTa, whose tokens BERTScore compares.

pub(crate) mod bert;
pub mod t5;
