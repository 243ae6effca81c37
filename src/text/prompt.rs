//! The layout of a prompt: `<audio>{question}<SEP>{answer}<|endofchunk|><|endoftext|>`.
//!
//! Reference: `data.py` of the training tree and the release tree's inference script. Both sides are
//! lower-cased and stripped, in training and in evaluation.

use super::tokenizer::{AUDIO, END_OF_CHUNK, END_OF_TEXT, SEP};

/// `str.lower().strip()`. Rust lower-cases by the same Unicode tables, final sigma included; the characters that
/// Python strips are Unicode white space and the four separators U+001C to U+001F.
pub fn clean(text: &str) -> String {
    text.to_lowercase()
        .trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
        .to_owned()
}

/// What the model is given to answer.
pub fn question(prompt: &str) -> String {
    format!("{AUDIO}{}{SEP}", clean(prompt))
}

/// A whole training example.
pub fn example(prompt: &str, answer: &str) -> String {
    format!("{}{}{END_OF_CHUNK}{END_OF_TEXT}", question(prompt), clean(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_lower_case_and_stripped() {
        assert_eq!(
            example("  What happens first?\n", "\u{1f}A LOW tone "),
            "<audio>what happens first?<SEP>a low tone<|endofchunk|><|endoftext|>"
        );
        assert_eq!(question("ÉCOUTE: 音?"), "<audio>écoute: 音?<SEP>");
    }
}
