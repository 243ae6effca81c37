//! Special tokens inside texts of a data set: `<|endofchunk|>` in the middle of an answer would end it there, `<audio>` in a
//! question would be a sound that is not there.

use super::library::without_added;
use super::prompt;
use super::special::END_OF_TEXT;
use super::tokenizer::{SpecialTokens, Tokenizer, AUDIO, END_OF_CHUNK, PAD, SEP};
use crate::error::{Error, Result};

impl Tokenizer {
    /// Ids of a whole training example, see [`prompt::example`].
    ///
    /// # Errors
    /// A special token in one of the texts, where these are refused.
    pub fn example(&self, prompt: &str, answer: &str) -> Result<Vec<i64>> {
        let whole = self.encode(&prompt::example(self, prompt, answer))?;
        let own = [self.audio, self.sep, self.end_of_chunk, self.eos];
        if self.holds_only(&whole, &own, &[prompt, answer])? {
            return Ok(whole);
        }
        let mut ids = vec![self.audio];
        ids.extend(self.literal(&prompt::clean(prompt))?);
        ids.push(self.sep);
        ids.extend(self.literal(&prompt::clean(answer))?);
        ids.extend([self.end_of_chunk, self.eos]);
        Ok(ids)
    }

    /// Ids of a question, see [`prompt::question`].
    ///
    /// # Errors
    /// As [`Tokenizer::example`].
    pub fn question(&self, prompt: &str) -> Result<Vec<i64>> {
        let whole = self.encode(&prompt::question(self, prompt))?;
        if self.holds_only(&whole, &[self.audio, self.sep], &[prompt])? {
            return Ok(whole);
        }
        let mut ids = vec![self.audio];
        ids.extend(self.literal(&prompt::clean(prompt))?);
        ids.push(self.sep);
        Ok(ids)
    }

    /// Ids of a text alone.
    ///
    /// # Errors
    /// As [`Tokenizer::example`].
    pub fn text(&self, text: &str) -> Result<Vec<i64>> {
        let whole = self.encode(text)?;
        match self.holds_only(&whole, &[], &[text])? {
            true => Ok(whole),
            false => self.literal(text),
        }
    }

    /// Ids of a text without any token but those of the vocabulary itself.
    fn literal(&self, text: &str) -> Result<Vec<i64>> {
        let plain = self.literal.get_or_init(|| without_added(&self.inner));
        self.ids(plain, text)
    }

    fn added_names(&self) -> Vec<String> {
        let all = self.inner.get_added_tokens_decoder();
        all.into_values().map(|token| token.content).collect()
    }

    /// Whether ids are to be taken as they are: their only special tokens are those of the layout.
    fn holds_only(&self, ids: &[i64], layout: &[i64], texts: &[&str]) -> Result<bool> {
        let special = |id: &&i64| self.added.contains(id);
        let others = ids.iter().filter(special).count() > layout.iter().filter(special).count();
        match self.special_tokens {
            _ if !others => Ok(true),
            SpecialTokens::AsTokens => Ok(true),
            SpecialTokens::Text => Ok(false),
            SpecialTokens::Refuse => {
                let names = Names::of(Some(self));
                let found = texts.iter().flat_map(|text| names.within(text));
                let found: Vec<String> = found.map(|(name, _)| name.to_owned()).collect();
                let found = format!("a text that holds {}", found.join(", "));
                Err(Error::recipe("data.special_tokens_in_texts: refuse", found)
                    .hint("`text` reads its letters, `as_tokens` the token itself, as the reference"))
            }
        }
    }
}

/// Names of special tokens.
pub struct Names {
    all: Vec<String>,
    /// Bytes that one of them begins with: most texts have none.
    first: [bool; 256],
}

impl Names {
    /// A tokenizer's added tokens; without one those of AF2 and of every Qwen2.
    pub fn of(tokenizer: Option<&Tokenizer>) -> Self {
        let known = [
            AUDIO,
            END_OF_CHUNK,
            PAD,
            SEP,
            END_OF_TEXT,
            "<|im_start|>",
            "<|im_end|>",
        ];
        let mut all: Vec<String> = match tokenizer {
            Some(t) => t.added_names(),
            None => known.map(str::to_owned).to_vec(),
        };
        all.retain(|name| !name.trim().is_empty());
        all.sort();
        let mut first = [false; 256];
        all.iter()
            .for_each(|name| first[usize::from(name.as_bytes()[0])] = true);
        Names { all, first }
    }

    /// Those that a text holds, before it is lower-cased or after, and how often.
    pub fn within(&self, text: &str) -> Vec<(&str, usize)> {
        let mut found = Vec::new();
        let begins = |b: u8| self.first[usize::from(b)] || self.first[usize::from(b.to_ascii_lowercase())];
        if !text.bytes().any(begins) {
            return found;
        }
        let cleaned = prompt::clean(text);
        for name in &self.all {
            let n = text
                .matches(name.as_str())
                .count()
                .max(cleaned.matches(name.as_str()).count());
            if n > 0 {
                found.push((name.as_str(), n));
            }
        }
        found
    }
}
