//! Text as the model sees it: tokenizer and special tokens, prompt layout, label mask.

pub(crate) mod bpe;
mod byte_level;
pub(crate) mod chat;
mod ends;
pub mod in_texts;
pub mod labels;
mod library;
pub mod prompt;
mod special;
pub mod tokenizer;
pub(crate) mod tower;
