//! The special tokens that a tokenizer's folder names beside its vocabulary, read as transformers reads them.
//!
//! ```text
//! tokenizer_config.json: added_tokens_decoder ─────────────── ids and flags; the two files below do not count then
//! added_tokens.json: ids ┐
//! special_tokens_map.json┴─ where tokenizer_config.json has no added_tokens_decoder
//! bos, eos, unk, sep, pad, cls, mask, additional ──────────── behind all of these, where none has an id for them
//! ```

use super::library::{add, json_object};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use tokenizers::{AddedToken, Model, Tokenizer as Inner};

/// Qwen's end of text, where the tokenizer's files name none.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// transformers' names for the special tokens, in the order in which it adds them.
const SLOTS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
const ADDITIONAL: &str = "additional_special_tokens";
const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const IDS: &str = "added_tokens.json";

/// What a folder says of its special tokens.
#[derive(Default)]
pub(super) struct Special {
    /// Tokens with their ids, and the file that says them.
    added: BTreeMap<u32, (AddedToken, &'static str)>,
    /// Tokens that need an id, in transformers' order.
    named: Vec<AddedToken>,
    /// The end of text, where the folder names one.
    pub eos: Option<String>,
    /// What separates question and answer, where the folder names one.
    pub sep: Option<String>,
}

impl Special {
    /// Reads a folder's three files, as far as they are there.
    ///
    /// # Errors
    /// A file that is no JSON object, a token that is no text, an id that is none, one token with two ids or two tokens
    /// with one.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let open = |name: &str| -> Result<Option<Map<String, Value>>> {
            let path = folder.join(name);
            path.exists().then(|| json_object(&path)).transpose()
        };
        let mut config = open(CONFIG)?.unwrap_or_default();
        let mut special = Special::default();
        let listed = config.remove("added_tokens_decoder");
        match listed.filter(|v| !v.is_null()) {
            Some(list) => special.decoder(&folder.join(CONFIG), &list)?,
            None => {
                if let Some(map) = open(MAP)? {
                    overlay(&mut config, map, &folder.join(MAP))?;
                }
                if let Some(ids) = open(IDS)? {
                    let names = names(&config, &folder.join(CONFIG))?;
                    special.ids(&folder.join(IDS), &ids, &names)?;
                }
            }
        }
        special.slots(folder, &config)?;
        Ok(special)
    }

    /// `added_tokens_decoder`: id → token with its flags.
    fn decoder(&mut self, path: &Path, list: &Value) -> Result<()> {
        let wrong = |key: &str, expected: &str, found: &Value| {
            let key = format!("added_tokens_decoder{key}");
            Error::checkpoint(path, key, expected, short(found))
        };
        let map = list
            .as_object()
            .ok_or_else(|| wrong("", "an object of id to token", list))?;
        for (key, value) in map {
            let id = key
                .parse()
                .map_err(|_| wrong(&format!(".{key}"), "an id as the key", &key.as_str().into()))?;
            let token = token(value, false).ok_or_else(|| {
                let expected = "an object with the text `content` and flags that are true or false";
                wrong(&format!(".{key}"), expected, value)
            })?;
            self.add(path, id, token, CONFIG)?;
        }
        Ok(())
    }

    /// `added_tokens.json`: token → id. Those that are special by name are not normalised before they are looked for.
    fn ids(&mut self, path: &Path, ids: &Map<String, Value>, special: &[String]) -> Result<()> {
        for (content, id) in ids {
            let wrong = || Error::checkpoint(path, content, "an id", short(id));
            let id = id
                .as_u64()
                .and_then(|i| u32::try_from(i).ok())
                .ok_or_else(wrong)?;
            let token = AddedToken::from(content.clone(), special.contains(content));
            self.add(path, id, token, IDS)?;
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, id: u32, token: AddedToken, file: &'static str) -> Result<()> {
        let content = token.content.clone();
        match self.added.insert(id, (token, file)) {
            Some((before, _)) if before.content != content => {
                let found = format!("`{}` and `{content}`", before.content);
                Err(Error::checkpoint(path, format!("id {id}"), "one token", found))
            }
            _ => Ok(()),
        }
    }

    /// The tokens that have a name, such as `eos_token`.
    fn slots(&mut self, folder: &Path, config: &Map<String, Value>) -> Result<()> {
        let path = folder.join(CONFIG);
        let class = config.get("tokenizer_class").and_then(Value::as_str);
        // What transformers' Qwen2 classes take where nothing is said.
        let qwen = class.is_none_or(|c| c.starts_with("Qwen2"));
        for slot in SLOTS {
            let named = match config.get(slot) {
                None if qwen && matches!(slot, "eos_token" | "unk_token" | "pad_token") => {
                    Some(AddedToken::from(END_OF_TEXT, true))
                }
                None | Some(Value::Null) => None,
                Some(value) => Some(named(&path, slot, value)?),
            };
            let Some(token) = named else { continue };
            match slot {
                "eos_token" => self.eos = Some(token.content.clone()),
                "sep_token" => self.sep = Some(token.content.clone()),
                _ => {}
            }
            self.named.push(token);
        }
        for value in additional(&path, config)? {
            self.named.push(named(&path, ADDITIONAL, value)?);
        }
        let mut by_content: HashMap<&str, u32> = HashMap::new();
        for (id, (token, file)) in &self.added {
            if let Some(other) = by_content.insert(&token.content, *id) {
                let found = format!("{other} and {id}");
                return Err(Error::checkpoint(
                    folder.join(file),
                    &token.content,
                    "one id",
                    found,
                ));
            }
        }
        Ok(())
    }

    /// Puts tokens whose ids are missing among a vocabulary's into it; returns it by id.
    ///
    /// # Errors
    /// Ids that are none, that two tokens have, or that nothing fills.
    pub(crate) fn fill(&self, path: &Path, vocab: &mut Map<String, Value>) -> Result<()> {
        let mut by_id: BTreeMap<u32, &str> = BTreeMap::new();
        for (token, id) in vocab.iter() {
            let found = id.as_u64().and_then(|i| u32::try_from(i).ok());
            let id = found.ok_or_else(|| Error::checkpoint(path, token, "an id", short(id)))?;
            if let Some(other) = by_id.insert(id, token) {
                let found = format!("`{other}` and `{token}`");
                return Err(Error::checkpoint(path, format!("id {id}"), "one token", found));
            }
        }
        let mut filled = Vec::new();
        let mut expected = 0;
        for id in by_id.keys() {
            for hole in expected..*id {
                let (token, _) = self.added.get(&hole).ok_or_else(|| {
                    let found = format!("none, and {id} after it");
                    Error::checkpoint(path, format!("id {hole}"), "a token for each id", found)
                        .hint("a hole is filled only by added_tokens_decoder or added_tokens.json")
                })?;
                filled.push((token.content.clone(), hole));
            }
            expected = id + 1;
        }
        for (content, id) in filled {
            if let Some(other) = vocab.insert(content.clone(), id.into()) {
                let found = format!("{other} and {id}");
                return Err(Error::checkpoint(path, content, "one id", found));
            }
        }
        Ok(())
    }

    /// Adds the tokens to a tokenizer, and sees that each has the id that its file says.
    ///
    /// # Errors
    /// Ids that collide with others, or with a hole before them.
    pub(crate) fn apply(&self, inner: &mut Inner, folder: &Path) -> Result<()> {
        let known = inner.get_added_tokens_decoder();
        let at = |id: &u32| {
            let added = known.get(id).map(|t| t.content.clone());
            added.or_else(|| inner.get_model().id_to_token(*id))
        };
        for (id, (token, file)) in &self.added {
            let other = at(id).filter(|t| *t != token.content);
            let elsewhere = inner.token_to_id(&token.content).filter(|i| i != id);
            let found = match (elsewhere, other) {
                (Some(i), _) => format!("{i} in its vocabulary"),
                (None, Some(other)) => format!("the vocabulary's `{other}` there"),
                (None, None) => continue,
            };
            let expected = format!("the id {id}, which nothing else has");
            return Err(Error::checkpoint(
                folder.join(file),
                &token.content,
                expected,
                found,
            ));
        }
        add(inner, folder, self.added.values().map(|(token, _)| token.clone()))?;
        for (id, (token, file)) in &self.added {
            let found = inner.token_to_id(&token.content);
            if found != Some(*id) {
                let found = found.map_or("none".to_owned(), |i| {
                    format!("a hole: the next id that is free is {i}")
                });
                let expected = format!("the id {id} behind the others");
                return Err(Error::checkpoint(
                    folder.join(file),
                    &token.content,
                    expected,
                    found,
                ));
            }
        }
        let known = inner.get_added_tokens_decoder();
        let known: HashSet<&str> = known.values().map(|t| t.content.as_str()).collect();
        let new = self.named.iter().filter(|t| !known.contains(t.content.as_str()));
        add(inner, folder, new.cloned())
    }
}

/// A text, or an object as transformers writes one.
fn token(value: &Value, special: bool) -> Option<AddedToken> {
    let object = match value {
        Value::String(text) => return Some(AddedToken::from(text.clone(), special)),
        Value::Object(object) => object,
        _ => return None,
    };
    let flag = |key: &str, otherwise: bool| match object.get(key) {
        None => Some(otherwise),
        Some(value) => value.as_bool(),
    };
    let special = flag("special", special)? || special;
    let token = AddedToken::from(object.get("content")?.as_str()?, special)
        .single_word(flag("single_word", false)?)
        .lstrip(flag("lstrip", false)?)
        .rstrip(flag("rstrip", false)?);
    let normalized = flag("normalized", token.normalized)?;
    Some(token.normalized(normalized))
}

/// A special token by its name.
fn named(path: &Path, slot: &str, value: &Value) -> Result<AddedToken> {
    token(value, true)
        .filter(|t| !t.content.is_empty())
        .ok_or_else(|| Error::checkpoint(path, slot, "a token's text", short(value)))
}

fn additional<'v>(path: &Path, config: &'v Map<String, Value>) -> Result<&'v [Value]> {
    match config.get(ADDITIONAL) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(other) => Err(Error::checkpoint(
            path,
            ADDITIONAL,
            "a list of tokens",
            short(other),
        )),
    }
}

/// The texts of all special tokens that have a name.
fn names(config: &Map<String, Value>, path: &Path) -> Result<Vec<String>> {
    let slots = SLOTS.iter().filter_map(|s| config.get(*s));
    let all = slots.filter(|v| !v.is_null()).chain(additional(path, config)?);
    Ok(all.filter_map(|v| token(v, true)).map(|t| t.content).collect())
}

/// `special_tokens_map.json` over `tokenizer_config.json`: its tokens replace the other's, its additional ones follow them.
fn overlay(config: &mut Map<String, Value>, map: Map<String, Value>, path: &Path) -> Result<()> {
    for (key, value) in map {
        let value = match value {
            Value::Array(list) if key == ADDITIONAL => {
                let mut all = additional(path, config)?.to_vec();
                for token in list {
                    if !all.contains(&token) {
                        all.push(token);
                    }
                }
                Value::Array(all)
            }
            other => other,
        };
        config.insert(key, value);
    }
    Ok(())
}

fn short(value: &Value) -> String {
    crate::error::short(value)
}
