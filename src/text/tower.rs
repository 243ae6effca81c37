//! Texts for a text encoder: T5's, BERT's and RoBERTa's tokenizers as their folders have them, with their own special tokens.
//! [`Tokenizer`] is the language model's.

use super::library::library;
use super::prompt;
use super::tokenizer::{from_json, Tokenizer};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use tokenizers::models::ModelWrapper;
use tokenizers::{Tokenizer as Inner, TruncationParams};

/// The file's name in every Hugging Face folder.
pub(crate) const FILE: &str = "tokenizer.json";

/// A text encoder's own tokenizer.
pub(crate) struct TowerTokenizer {
    inner: Inner,
    path: PathBuf,
}

impl TowerTokenizer {
    /// Opens a `tokenizer.json`. Texts are cut to `most` tokens, special ones included; what the file says of that and of padding is
    /// left aside, as transformers does where it is told a length.
    ///
    /// # Errors
    /// No tokenizer; one that cannot be cut so.
    pub(crate) fn open(path: &Path, most: usize) -> Result<Self> {
        let mut inner = from_json(path, &mut Vec::new())?;
        let cut = TruncationParams {
            max_length: most,
            ..TruncationParams::default()
        };
        library(|| inner.with_truncation(Some(cut)).map(drop))
            .map_err(|e| Error::checkpoint(path, "truncation", format!("texts of {most} tokens"), e))?;
        Ok(TowerTokenizer {
            inner,
            path: path.to_owned(),
        })
    }

    /// Whether it is SentencePiece's unigram model, as T5's.
    pub(crate) fn is_unigram(&self) -> bool {
        matches!(self.inner.get_model(), ModelWrapper::Unigram(_))
    }

    /// The id of a token.
    ///
    /// # Errors
    /// No such token.
    pub(crate) fn id(&self, token: &str) -> Result<i64> {
        let id = self.inner.token_to_id(token).map(i64::from);
        id.ok_or_else(|| Error::checkpoint(&self.path, token, "a token of this name", "none"))
    }

    /// Rows that an embedding needs for all its tokens.
    pub(crate) fn rows(&self) -> i64 {
        let most = self.inner.get_vocab(true).into_values().max();
        most.map_or(0, |id| i64::from(id) + 1)
    }

    /// A text's ids with the special tokens around them, cut to the most that were told.
    ///
    /// # Errors
    /// The library's.
    pub(crate) fn ids(&self, text: &str) -> Result<Vec<i64>> {
        let encoding = library(|| self.inner.encode(text, true)).map_err(|e| {
            let expected = format!("tokens for the text {:?}", crate::error::short(&text));
            Error::checkpoint(&self.path, "tokenizer", expected, e)
        })?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// As `tokenizer.json` says it, with what was left aside.
    pub(crate) fn to_json(&self) -> Result<String> {
        library(|| self.inner.to_string(false))
            .map_err(|e| Error::checkpoint(&self.path, "tokenizer", "one that can be written", e))
    }
}

impl Tokenizer {
    /// A caption for an AF-CLAP that was trained here: cleaned as every text, at most `most` tokens with the end of text, which is
    /// always the last.
    ///
    /// # Errors
    /// As [`Tokenizer::example`].
    pub(crate) fn caption(&self, caption: &str, most: usize) -> Result<Vec<i64>> {
        let mut own = self.text(&prompt::clean(caption))?;
        own.truncate(most.saturating_sub(1));
        own.push(self.eos);
        Ok(own)
    }
}
