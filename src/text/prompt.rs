//! The layout of a prompt: `<audio>{question}<SEP>{answer}<|endofchunk|>{end of text}`; separator and end of text are the
//! tokenizer's, `<SEP>` and `<|endoftext|>` for Qwen2.5.
//!
//! Reference: `data.py` of the training tree and the release tree's inference script. Both sides are
//! lower-cased and stripped, in training and in evaluation.

use super::tokenizer::{Tokenizer, AUDIO, END_OF_CHUNK};

/// `str.lower().strip()`. Rust lower-cases by the same Unicode tables, final sigma included.
pub fn clean(text: &str) -> String {
    strip(&text.to_lowercase()).to_owned()
}

/// `str.strip()`: the characters that Python strips are Unicode white space and the four separators U+001C to U+001F.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

/// What the model is given to answer.
pub fn question(tokenizer: &Tokenizer, prompt: &str) -> String {
    format!("{AUDIO}{}{}", clean(prompt), tokenizer.separator)
}

/// A whole training example.
pub fn example(tokenizer: &Tokenizer, prompt: &str, answer: &str) -> String {
    let (question, end) = (question(tokenizer, prompt), &tokenizer.end_of_text);
    format!("{question}{}{END_OF_CHUNK}{end}", clean(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::bpe;

    #[test]
    fn both_sides_are_lower_case_and_stripped() {
        let folder = tempfile::tempdir().unwrap();
        let t = bpe::train(["a low tone"].into_iter(), 260, folder.path()).unwrap();
        assert_eq!(
            example(&t, "  What happens first?\n", "\u{1f}A LOW tone "),
            "<audio>what happens first?<SEP>a low tone<|endofchunk|><|endoftext|>"
        );
        assert_eq!(question(&t, "ÉCOUTE: 音?"), "<audio>écoute: 音?<SEP>");
    }
}
