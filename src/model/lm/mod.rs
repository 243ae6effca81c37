//! Language models from Hugging Face folders, a file for each family, over one [`Decoder`].
//!
//! ```text
//! config.json ── json.rs ──► qwen2.rs, qwen3.rs, llama.rs ── decoder::Config ──► decoder.rs, rotary.rs
//! ```
//!
//! A family's file says what its `config.json` holds, what of it is refused, and which switches of the decoder it sets. A
//! further one is that file and its lines here.

mod cache;
mod decoder;
mod json;
pub mod llama;
pub mod qwen2;
pub mod qwen3;
pub mod rotary;
mod slots;

pub use cache::Cache;
pub use decoder::{Config as DecoderConfig, Context, Decoder, DecoderLayer, Naming, Padding};
pub(crate) use slots::{Slots, STEP as SLOT_STEP};

use super::bounds::{Sizes, Wrong};
use crate::error::{short, Result};
use json::Reader;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// A language model's configuration, by its family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename_all = "lowercase")]
pub enum Config {
    /// `model_type: qwen2`.
    Qwen2(qwen2::Config),
    /// `model_type: qwen3`.
    Qwen3(qwen3::Config),
    /// `model_type: llama`.
    Llama(llama::Config),
}

/// `model_type`, the entry of `architectures`, and what reads the rest.
type Family = (&'static str, &'static str, fn(&mut Reader) -> Config);
const FAMILIES: [Family; 3] = [
    ("qwen2", "Qwen2ForCausalLM", |r| {
        Config::Qwen2(qwen2::Config::read(r))
    }),
    ("qwen3", "Qwen3ForCausalLM", |r| {
        Config::Qwen3(qwen3::Config::read(r))
    }),
    ("llama", "LlamaForCausalLM", |r| {
        Config::Llama(llama::Config::read(r))
    }),
];

impl Config {
    /// Reads and checks a folder's `config.json`.
    ///
    /// # Errors
    /// A family that is none of ours; whatever asks for another computation, and sizes that cannot be: all of it at once.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut reader = Reader::open(&folder.join("config.json"))?;
        let Some((_, class, read)) = family(&mut reader) else {
            reader.finish(Vec::new)?;
            return Err(crate::error::Error::checkpoint(
                folder.join("config.json"),
                "model_type",
                supported(),
                "nothing",
            ));
        };
        let says = reader.get("architectures").cloned();
        if let Some(said) = says {
            if !said.as_array().is_some_and(|l| l.iter().any(|c| c == class)) {
                reader.wrong(
                    "architectures",
                    format!("[{class}], as model_type says"),
                    short(&said),
                );
            }
        }
        let config = read(&mut reader);
        reader.finish(|| config.check(""))?;
        Ok(config)
    }

    /// Sizes and switches of what is computed.
    pub fn decoder(&self) -> DecoderConfig {
        match self {
            Config::Qwen2(c) => c.decoder(),
            Config::Qwen3(c) => c.decoder(),
            Config::Llama(c) => c.decoder(),
        }
    }

    /// Sizes that cannot be, under a place such as `lm`.
    pub(crate) fn check(&self, place: &'static str) -> Vec<Wrong> {
        let mut sizes = Sizes::of(place);
        match self {
            Config::Qwen2(c) => c.check(&mut sizes),
            Config::Qwen3(c) => c.check(&mut sizes),
            Config::Llama(c) => c.check(&mut sizes),
        }
        sizes.wrong
    }
}

/// The family of a file; what is none of ours is told.
fn family(reader: &mut Reader) -> Option<Family> {
    let (key, found) = match (reader.get("model_type"), reader.get("architectures")) {
        (Some(kind), _) => ("model_type", kind.clone()),
        (None, Some(classes)) => ("architectures", classes.clone()),
        (None, None) => return None,
    };
    let named = |(kind, class, _): &Family| match &found {
        Value::Array(classes) => classes.iter().any(|c| c == class),
        other => other == kind,
    };
    let family = FAMILIES.into_iter().find(named);
    if family.is_none() {
        reader.wrong(key, supported(), short(&found));
    }
    family
}

fn supported() -> String {
    let all: Vec<String> = FAMILIES
        .map(|(kind, class, _)| format!("{kind} ({class})"))
        .into();
    format!("one of {}", all.join(", "))
}

#[cfg(test)]
mod tests;
