//! Text as the model sees it: tokenizer and special tokens, prompt layout, label mask.

pub mod bpe;
pub mod labels;
pub mod prompt;
pub mod tokenizer;
