//! Text as the model sees it: tokenizer and special tokens, prompt layout, label mask.

pub mod bpe;
mod ends;
pub mod in_texts;
pub mod labels;
pub mod prompt;
mod special;
pub mod tokenizer;
