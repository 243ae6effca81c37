//! A Hugging Face tokenizer folder with AF2's four added tokens.

use crate::error::{short, Error, Result};
use std::path::Path;
use tokenizers::{AddedToken, Tokenizer as Inner};

/// Stands where the clip is heard.
pub const AUDIO: &str = "<audio>";
/// Ends an answer.
pub const END_OF_CHUNK: &str = "<|endofchunk|>";
/// Fills up a batch.
pub const PAD: &str = "<|PAD_TOKEN|>";
/// Between question and answer.
pub const SEP: &str = "<SEP>";
/// Qwen's end of text.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Tokenizer files larger than this are not believed (Qwen2.5's is 7 MB).
const MOST_BYTES: u64 = 256 << 20;

/// The tokenizer and the ids that AF2 speaks of.
pub struct Tokenizer {
    inner: Inner,
    pub audio: i64,
    pub end_of_chunk: i64,
    pub pad: i64,
    pub sep: i64,
    pub eos: i64,
    len: usize,
}

impl Tokenizer {
    /// Opens a folder's `tokenizer.json`, or builds Qwen2's byte-level BPE from `vocab.json` and `merges.txt`.
    /// The added tokens follow in the reference's order: `<audio>`, `<|endofchunk|>`, `<|PAD_TOKEN|>`, `<SEP>`.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let inner = if path.exists() || !folder.join("vocab.json").exists() {
            let text = read(&path)?;
            Inner::from_bytes(text.as_bytes())
                .map_err(|e| Error::checkpoint(&path, "tokenizer", "a Hugging Face tokenizer", short(&e)))?
        } else {
            super::bpe::from_vocab_and_merges(folder)?
        };
        let eos = eos_name(folder)?;
        Tokenizer::with_added(inner, &path, &eos)
    }

    pub(super) fn with_added(mut inner: Inner, path: &Path, eos: &str) -> Result<Self> {
        for name in [AUDIO, END_OF_CHUNK, PAD, SEP] {
            if inner.token_to_id(name).is_none() {
                inner
                    .add_special_tokens([AddedToken::from(name, true)])
                    .map_err(|e| Error::checkpoint(path, name, "room for an added token", short(&e)))?;
            }
        }
        let id = |name: &str| {
            inner
                .token_to_id(name)
                .map(i64::from)
                .ok_or_else(|| Error::checkpoint(path, name, "a token of this name", "none"))
        };
        let (audio, end_of_chunk, pad, sep, eos) =
            (id(AUDIO)?, id(END_OF_CHUNK)?, id(PAD)?, id(SEP)?, id(eos)?);
        // Rows that an embedding needs: ids need not be dense.
        let most = inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |m| m as usize + 1);
        Ok(Tokenizer {
            len: most,
            inner,
            audio,
            end_of_chunk,
            pad,
            sep,
            eos,
        })
    }

    /// Rows of an embedding for all tokens: 151,669 for Qwen2.5.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The added tokens with their ids, as `tokenizer_config.json` lists them (`added_tokens_decoder`): transformers
    /// builds some tokenizers from that list and not from `tokenizer.json`.
    pub fn added_tokens_decoder(&self) -> serde_json::Map<String, serde_json::Value> {
        let ids = [
            (AUDIO, self.audio),
            (END_OF_CHUNK, self.end_of_chunk),
            (PAD, self.pad),
            (SEP, self.sep),
        ];
        ids.into_iter()
            .map(|(content, id)| {
                let token = serde_json::json!({
                    "content": content, "lstrip": false, "normalized": false, "rstrip": false,
                    "single_word": false, "special": true,
                });
                (id.to_string(), token)
            })
            .collect()
    }

    /// `tokenizer.json` with the added tokens.
    pub fn to_json(&self) -> Result<String> {
        self.inner
            .to_string(true)
            .map_err(|e| Error::recipe("tokenizer.json", format!("cannot be written: {}", short(&e))))
    }

    /// Special tokens in the text are recognised, none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>> {
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|e| Error::recipe("text", format!("cannot be tokenized: {}", short(&e))))?;
        Ok(encoding.get_ids().iter().map(|i| i64::from(*i)).collect())
    }

    /// Ids outside of the vocabulary are left out, as transformers does.
    pub fn decode(&self, ids: &[i64], skip_special: bool) -> Result<String> {
        let ids: Vec<u32> = ids.iter().filter_map(|i| u32::try_from(*i).ok()).collect();
        self.inner
            .decode(&ids, skip_special)
            .map_err(|e| Error::recipe("text", format!("cannot be decoded: {}", short(&e))))
    }
}

pub(super) fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path)
        .map_err(|e| Error::io(path, e).hint("an LM folder holds config.json, tokenizer.json and weights"))?
        .len();
    if size > MOST_BYTES {
        return Err(Error::checkpoint(
            path,
            "size",
            format!("at most {MOST_BYTES} bytes"),
            size.to_string(),
        ));
    }
    crate::fsutil::read_text(path)
}

/// The end-of-text token's name, from tokenizer_config.json where it says one.
fn eos_name(folder: &Path) -> Result<String> {
    let path = folder.join("tokenizer_config.json");
    if !path.exists() {
        return Ok(END_OF_TEXT.into());
    }
    let config: serde_json::Value = serde_json::from_str(&read(&path)?)
        .map_err(|e| Error::checkpoint(&path, "tokenizer_config", "JSON", e.to_string()))?;
    let eos = config.get("eos_token");
    let name = eos
        .and_then(|v| v.as_str())
        .or(eos.and_then(|v| v.get("content")).and_then(|v| v.as_str()));
    Ok(name.unwrap_or(END_OF_TEXT).to_owned())
}
