//! A Hugging Face tokenizer folder with AF2's four added tokens.

use super::library::{add, decode, encode, library, read};
use super::special::{Special, END_OF_TEXT};
use super::{byte_level, ends};
use crate::error::{short, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tokenizers::{AddedToken, Tokenizer as Inner};

/// Stands where the clip is heard.
pub(crate) const AUDIO: &str = "<audio>";
/// Ends an answer.
pub(crate) const END_OF_CHUNK: &str = "<|endofchunk|>";
/// Fills up a batch.
pub(crate) const PAD: &str = "<|PAD_TOKEN|>";
/// Between question and answer, where the tokenizer has no separator of its own.
pub(crate) const SEP: &str = "<SEP>";

/// An embedding of more rows than this is not believed (Qwen2.5's has 151,936).
const MOST_ROWS: u32 = 1 << 24;

/// How special tokens inside texts of a data set are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecialTokens {
    /// As text like any other: letter by letter.
    #[default]
    Text,
    /// An item that holds one is a bad item.
    Refuse,
    /// As the tokens themselves, which is what the reference's tokenizer makes of them.
    AsTokens,
}

/// The tokenizer and the ids that AF2 speaks of.
pub struct Tokenizer {
    pub(super) inner: Inner,
    /// The same without added tokens, made when it is first asked for.
    pub(super) literal: OnceLock<Inner>,
    /// Ids of all added tokens.
    pub(super) added: HashSet<i64>,
    /// How texts of a data set that hold added tokens are read.
    pub special_tokens: SpecialTokens,
    /// `<audio>`, where the text begins to hear.
    pub audio: i64,
    /// `<|endofchunk|>`, behind an answer.
    pub end_of_chunk: i64,
    /// `<PAD>`.
    pub pad: i64,
    /// `<SEP>`, or the folder's own separator: between question and answer.
    pub sep: i64,
    /// The one end of text: of training's texts, of answers, of what is exported.
    pub eos: i64,
    /// Its text, as the tokenizer's files name it.
    pub end_of_text: String,
    /// The separator's text.
    pub separator: String,
    /// Things a user may want to know of the folder, one line each.
    pub notes: Vec<String>,
    len: usize,
    /// For errors.
    path: PathBuf,
}

impl Tokenizer {
    /// Opens a folder's `tokenizer.json`, or builds Qwen2's byte-level BPE from `vocab.json` and `merges.txt`; special
    /// tokens that the folder's other files name follow, as transformers reads them. Then come the added tokens in the
    /// reference's order: `<audio>`, `<|endofchunk|>`, `<|PAD_TOKEN|>`, `<SEP>`.
    ///
    /// A text is neither cut nor padded, whatever `tokenizer.json` says.
    ///
    /// # Errors
    /// Files that are missing or broken; tokens whose ids collide, leave holes, or are others than the files say.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut notes = Vec::new();
        let Own { inner, special, path } = own(folder, &mut notes)?;
        if special.eos.is_none() {
            notes.push(format!(
                "{}: no eos_token is named: {END_OF_TEXT} is taken",
                folder.display()
            ));
        }
        let mut tokenizer = Tokenizer::with_added(inner, &path, &special)?;
        let known = |id: i64| tokenizer.token(id);
        notes.extend(ends::disagreement(
            folder,
            (tokenizer.eos, &tokenizer.end_of_text),
            &known,
        )?);
        tokenizer.notes = notes;
        // A broken table of characters shows only at a text: better now than at the first item.
        tokenizer.encode("What is that? 音, é, \u{301}\n 12")?;
        Ok(tokenizer)
    }

    fn with_added(mut inner: Inner, path: &Path, special: &Special) -> Result<Self> {
        let separator = special.sep.clone().unwrap_or_else(|| SEP.into());
        let end_of_text = special.eos.clone().unwrap_or_else(|| END_OF_TEXT.into());
        let own = [AUDIO, END_OF_CHUNK, PAD, separator.as_str()];
        let new = own.map(|name| AddedToken::from(name, true));
        add(&mut inner, path, new)?;
        let id = |name: &str| {
            inner
                .token_to_id(name)
                .map(i64::from)
                .ok_or_else(|| Error::checkpoint(path, name, "a token of this name", "none"))
        };
        let [audio, end_of_chunk, pad, sep] = [id(own[0])?, id(own[1])?, id(own[2])?, id(own[3])?];
        let eos = id(&end_of_text)?;
        let mut by_id: HashMap<u32, String> = HashMap::new();
        let mut most = 0;
        for (token, id) in inner.get_vocab(true) {
            most = most.max(id);
            if let Some(other) = by_id.insert(id, token.clone()) {
                let found = format!(
                    "`{}` and `{}`",
                    other.clone().min(token.clone()),
                    token.max(other)
                );
                return Err(Error::checkpoint(path, format!("id {id}"), "one token", found));
            }
        }
        if most >= MOST_ROWS {
            let expected = format!("ids below {MOST_ROWS}");
            return Err(Error::checkpoint(path, "vocab", expected, most.to_string()));
        }
        let mut distinct = vec![audio, end_of_chunk, pad, sep, eos];
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < 5 {
            let expected =
                format!("five tokens for {AUDIO}, {END_OF_CHUNK}, {PAD}, separator and end of text");
            let found = format!("the separator {separator} and the end of text {end_of_text}");
            return Err(Error::checkpoint(path, "special tokens", expected, found));
        }
        let added = inner.get_added_tokens_decoder();
        Ok(Tokenizer {
            literal: OnceLock::new(),
            added: added.into_keys().map(i64::from).collect(),
            special_tokens: SpecialTokens::default(),
            // Rows that an embedding needs: ids need not be dense.
            len: most as usize + 1,
            inner,
            audio,
            end_of_chunk,
            pad,
            sep,
            eos,
            end_of_text,
            separator,
            notes: Vec::new(),
            path: path.to_path_buf(),
        })
    }

    /// Rows of an embedding for all tokens: 151,669 for Qwen2.5.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The text of a token.
    pub(crate) fn token(&self, id: i64) -> Option<String> {
        self.inner.id_to_token(u32::try_from(id).ok()?)
    }

    /// All added tokens with their ids, as `tokenizer_config.json` lists them (`added_tokens_decoder`): transformers
    /// builds some tokenizers from that list and not from `tokenizer.json`.
    pub fn added_tokens_decoder(&self) -> Map<String, Value> {
        let all: BTreeMap<u32, AddedToken> = self.inner.get_added_tokens_decoder().into_iter().collect();
        all.into_iter()
            .map(|(id, t)| {
                let token = serde_json::json!({
                    "content": t.content, "lstrip": t.lstrip, "normalized": t.normalized, "rstrip": t.rstrip,
                    "single_word": t.single_word, "special": t.special,
                });
                (id.to_string(), token)
            })
            .collect()
    }

    /// `tokenizer.json` with the added tokens.
    pub fn to_json(&self) -> Result<String> {
        library(|| self.inner.to_string(true))
            .map_err(|e| Error::checkpoint(&self.path, "tokenizer", "one that can be written", e))
    }

    /// Special tokens in the text are recognised, none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>> {
        self.ids(&self.inner, text)
    }

    /// [`Tokenizer::encode`] by this tokenizer or the one without added tokens.
    pub(super) fn ids(&self, inner: &Inner, text: &str) -> Result<Vec<i64>> {
        encode(inner, &self.path, text)
    }

    /// Ids outside of the vocabulary are left out, as transformers does.
    pub fn decode(&self, ids: &[i64], skip_special: bool) -> Result<String> {
        decode(&self.inner, &self.path, ids, skip_special)
    }
}

/// A folder's tokenizer as its files have it, without any token of AF2's.
pub(super) struct Own {
    pub inner: Inner,
    pub special: Special,
    /// For errors.
    pub path: PathBuf,
}

/// See [`Tokenizer::open`].
pub(super) fn own(folder: &Path, notes: &mut Vec<String>) -> Result<Own> {
    let path = folder.join("tokenizer.json");
    let special = Special::read(folder)?;
    let mut inner = if path.exists() || !folder.join("vocab.json").exists() {
        from_json(&path, notes)?
    } else {
        byte_level::from_vocab_and_merges(folder, &special)?
    };
    special.apply(&mut inner, folder)?;
    Ok(Own { inner, special, path })
}

/// What `tokenizer.json` says beside the model.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    added_tokens: Vec<Listed>,
    #[serde(default)]
    truncation: Option<Value>,
    #[serde(default)]
    padding: Option<Value>,
    #[serde(default)]
    model: Option<Dropout>,
}

#[derive(Deserialize)]
struct Listed {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct Dropout {
    #[serde(default)]
    dropout: Option<f64>,
}

pub(super) fn from_json(path: &Path, notes: &mut Vec<String>) -> Result<Inner> {
    let text = read(path)?;
    let expected = "a Hugging Face tokenizer";
    let head: Head =
        serde_json::from_str(&text).map_err(|e| Error::checkpoint(path, "tokenizer", expected, short(&e)))?;
    let mut inner = library(|| Inner::from_bytes(text.as_bytes()))
        .map_err(|e| Error::checkpoint(path, "tokenizer", expected, e))?;
    for listed in &head.added_tokens {
        // The library counts the ids itself and leaves aside what the file says.
        let found = inner.token_to_id(&listed.content);
        if found != Some(listed.id) {
            let found = found.map_or("none".to_owned(), |i| format!("{i} when its tokens are counted"));
            let expected = format!("the id {}, as the file says", listed.id);
            return Err(Error::checkpoint(
                path,
                format!("added_tokens: {}", listed.content),
                expected,
                found,
            )
            .hint("ids that collide, or a hole before them"));
        }
    }
    // A text that is cut or padded by the tokenizer is no longer the text that is trained on.
    let cut = head.truncation.as_ref().and_then(|t| t.get("max_length"));
    let left = [
        cut.map(|most| format!("cuts texts to {most} tokens")),
        head.padding.map(|_| "pads texts".to_owned()),
    ];
    let left: Vec<String> = left.into_iter().flatten().collect();
    if !left.is_empty() {
        let what = left.join(" and ");
        notes.push(format!(
            "{}: {what}: left aside, texts are taken whole",
            path.display()
        ));
    }
    if let Some(rate) = head.model.and_then(|m| m.dropout).filter(|d| *d > 0.0) {
        return Err(
            Error::checkpoint(path, "model.dropout", "null or 0", rate.to_string()).hint(
                "with it a text has other tokens each time: a checkpoint of it answers to none of them",
            ),
        );
    }
    library(|| inner.with_truncation(None).map(drop))
        .map_err(|e| Error::checkpoint(path, "truncation", "none", e))?;
    inner.with_padding(None);
    Ok(inner)
}
