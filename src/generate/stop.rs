//! What ends an answer: tokens, and strings in its text.

use super::decoding::Decoding;
use crate::error::Result;
use crate::load::Loaded;
use crate::text::tokenizer::Tokenizer;

/// The end of text, stop tokens and stop strings.
pub struct Stop<'a> {
    /// The end of text first.
    pub tokens: Vec<i64>,
    strings: &'a [String],
    tokenizer: Option<&'a Tokenizer>,
}

impl<'a> Stop<'a> {
    /// What `decoding` says, and the end of text of the model's tokenizer.
    pub fn of(model: &'a Loaded, decoding: &'a Decoding) -> Self {
        let tokens = [&[model.tokenizer.eos], &decoding.stop_token_ids[..]].concat();
        Stop {
            tokens,
            strings: &decoding.stop_strings,
            tokenizer: Some(&model.tokenizer),
        }
    }

    /// This token alone.
    pub(crate) fn at(eos: i64) -> Self {
        Stop {
            tokens: vec![eos],
            strings: &[],
            tokenizer: None,
        }
    }

    /// Whether the last of these new tokens ends the answer.
    ///
    /// # Errors
    /// Ids that are no text.
    pub(crate) fn ended(&self, new: &[i64]) -> Result<bool> {
        if new.last().is_some_and(|t| self.tokens.contains(t)) {
            return Ok(true);
        }
        match self.tokenizer {
            Some(tokenizer) if !self.strings.is_empty() => {
                let text = tokenizer.decode(new, false)?;
                Ok(self.strings.iter().any(|s| text.contains(s.as_str())))
            }
            _ => Ok(false),
        }
    }

    /// A text up to the first stop string in it.
    pub(crate) fn cut(&self, text: &str) -> String {
        let first = self.strings.iter().filter_map(|s| text.find(s.as_str())).min();
        text[..first.unwrap_or(text.len())].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_before_the_first_stop_string() {
        let strings = [";".to_owned(), "dog".to_owned()];
        let stop = Stop {
            strings: &strings,
            ..Stop::at(7)
        };
        assert_eq!(stop.cut("a dog; a cat"), "a ");
        assert_eq!(stop.cut("a cat; a dog"), "a cat");
        assert_eq!(stop.cut("a cat"), "a cat");
        assert!(stop.ended(&[1, 7]).unwrap() && !stop.ended(&[7, 1]).unwrap() && !stop.ended(&[]).unwrap());
    }
}
