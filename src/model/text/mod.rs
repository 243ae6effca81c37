//! Encoders of text: AF-CLAP's T5; BERT and RoBERTa, whose tokens BERTScore compares.

pub mod t5;
