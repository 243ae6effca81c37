//! What tells one model from another.

use super::Loaded;
use crate::checkpoint::Item;
use crate::error::{Error, Result};
use crate::model::params::Params;
use serde::Serialize;
use std::path::Path;

impl Loaded {
    /// Of all that a model's answers come from: names, dtypes, sizes and values of its tensors as they were loaded, its
    /// configuration, its tokenizer. Another folder or file form with the same contents has the same.
    ///
    /// Of the values and not of a file's size and time, which a copy keeps although its contents are others, and which change
    /// where these do not. Costs a pass over the weights, less than reading them did. To be asked before [`Loaded::ask_in`].
    ///
    /// # Errors
    /// A device that does not give a tensor back.
    pub(crate) fn identity(&self) -> Result<blake3::Hash> {
        identity(
            &self.params,
            &self.model.config,
            self.tokenizer.to_json()?,
            &self.llm,
        )
    }
}

/// Of tensors as they were loaded, a configuration, and a tokenizer as JSON. Errors name `path`.
pub(super) fn identity(
    params: &Params,
    config: &impl Serialize,
    tokenizer: String,
    path: &Path,
) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for (name, entry) in params.iter() {
        let tensor = entry.tensor.detach();
        let what = format!("{name} {:?} {:?}\n", tensor.kind(), tensor.size());
        hasher.update(what.as_bytes());
        Item::Here(tensor).bytes(|piece| {
            hasher.update(piece);
            Ok(())
        })?;
    }
    let config = serde_json::to_string(config)
        .map_err(|e| Error::checkpoint(path, "sizes", "something that JSON can say", e.to_string()))?;
    for text in [config, tokenizer] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    Ok(hasher.finalize())
}

/// What a model is called whose folder lies in Hugging Face's cache, where the folder's own name is a hash.
pub(super) fn cached_name(whole: &Path) -> Option<String> {
    let names = whole.ancestors().filter_map(|p| p.file_name());
    names.map(|name| name.to_string_lossy()).find_map(|name| {
        let name = name.strip_prefix("models--")?;
        Some(name.rsplit("--").next().unwrap_or(name).to_owned())
    })
}
