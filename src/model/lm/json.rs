//! A language model's `config.json`, key by key: what the families read alike. A value that asks for another computation than
//! ours is an error by its key; a key that no family reads changes nothing in transformers either.

use super::rotary::{Llama3, Rotary};
use crate::error::{self, nearest, short, Error, Result};
use crate::model::bounds::{Wrong, POSITIONS};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Whether a value is one that we compute.
type Fits = fn(&Value) -> bool;
/// For [`Reader::only`].
pub(super) const NO: Fits = |v| *v == Value::Bool(false);
/// For [`Reader::only`].
pub(super) const YES: Fits = |v| *v == Value::Bool(true);

/// Sizes that every family has.
pub(super) struct Common {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub num_hidden_layers: usize,
    pub num_attention_heads: i64,
    pub rms_norm_eps: f64,
    pub tie_word_embeddings: bool,
}

/// An open file, and all that is wrong with it so far.
pub(super) struct Reader {
    path: PathBuf,
    raw: Map<String, Value>,
    errors: Vec<Error>,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let text = crate::fsutil::read_text(path)?;
        let raw = serde_json::from_str(&text)
            .map_err(|e| Error::checkpoint(path, "file", "a JSON object", e.to_string()))?;
        Ok(Reader {
            path: path.to_path_buf(),
            raw,
            errors: Vec::new(),
        })
    }

    /// # Errors
    /// All that was wrong with the file; else what `check` finds of its sizes.
    pub(crate) fn finish(self, check: impl FnOnce() -> Vec<Wrong>) -> Result<()> {
        // Sizes that are not there would be told twice.
        error::all(self.errors)?;
        let wrong = check().into_iter();
        error::all(
            wrong
                .map(|w| Error::checkpoint(&self.path, w.key, w.expected, w.found))
                .collect(),
        )
    }

    /// Nothing where the key is missing or null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.raw.get(key).filter(|v| !v.is_null())
    }

    pub(crate) fn says_null(&self, key: &str) -> bool {
        self.raw.get(key).is_some_and(Value::is_null)
    }

    pub(crate) fn wrong(&mut self, key: &str, expected: impl Into<String>, found: impl Into<String>) {
        self.errors
            .push(Error::checkpoint(&self.path, key, expected, found));
    }

    /// The key's value where it is what is expected; a value that is not is told.
    fn value<T>(&mut self, key: &str, expected: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.get(key)?;
        let (read, found) = (read(value), short(value));
        if read.is_none() {
            self.wrong(key, expected, found);
        }
        read
    }

    pub(crate) fn integer(&mut self, key: &str) -> Option<i64> {
        self.value(key, "an integer", Value::as_i64)
    }

    fn number(&mut self, key: &str) -> Option<f64> {
        self.value(key, "a number", Value::as_f64)
    }

    /// False where nothing is said.
    pub(crate) fn flag(&mut self, key: &str) -> bool {
        self.value(key, "true or false", Value::as_bool)
            .unwrap_or_default()
    }

    /// A size that must be said; 0 where it is not.
    pub(crate) fn size(&mut self, key: &str) -> i64 {
        if self.get(key).is_some() {
            return self.integer(key).unwrap_or_default();
        }
        let e = Error::checkpoint(&self.path, key, "the size of a language model", "nothing");
        let near = nearest(key, self.raw.keys().map(String::as_str));
        self.errors.push(match near {
            Some(near) => e.hint(format!("did you mean {near}?")),
            None => e,
        });
        0
    }

    /// What every family says, and what none of ours computes.
    pub(crate) fn common(&mut self) -> Common {
        self.not_computed();
        self.at_rest();
        let layers = self.size("num_hidden_layers");
        Common {
            vocab_size: self.size("vocab_size"),
            hidden_size: self.size("hidden_size"),
            intermediate_size: self.size("intermediate_size"),
            // What is negative is past every bound as well.
            num_hidden_layers: usize::try_from(layers).unwrap_or_else(|_| {
                self.wrong("num_hidden_layers", "1 or more", layers.to_string());
                0
            }),
            num_attention_heads: self.size("num_attention_heads"),
            rms_norm_eps: self.number("rms_norm_eps").unwrap_or(1e-6),
            tie_word_embeddings: self.flag("tie_word_embeddings"),
        }
    }

    /// `rope_theta` with `rope_scaling`, and `rope_parameters`, which newer versions write instead of both. `llama3`: that
    /// way of scaling is computed, too; every other is refused.
    pub(crate) fn rotary(&mut self, max_positions: i64, llama3: bool) -> Rotary {
        let theta = self.number("rope_theta");
        let mut found: Option<(&str, Rotary)> = None;
        for key in ["rope_scaling", "rope_parameters"] {
            let Some(rotary) = self.rope(key, theta, max_positions, llama3) else {
                continue;
            };
            match found {
                Some((other, before)) if before != rotary => {
                    self.wrong(
                        key,
                        format!("the same as {other}: {before:?}"),
                        format!("{rotary:?}"),
                    );
                }
                _ => found = Some((key, rotary)),
            }
        }
        found.map_or(Rotary::plain(theta.unwrap_or(10000.0)), |(_, rotary)| rotary)
    }

    fn rope(&mut self, key: &str, theta: Option<f64>, max_positions: i64, llama3: bool) -> Option<Rotary> {
        let value = self.get(key)?.clone();
        let expected = match llama3 {
            true => "null, or an object of rope_type default or llama3",
            false => "null, or plain rotary positions (an object of rope_type default)",
        };
        let refuse = |r: &mut Self| {
            r.wrong(key, expected, short(&value));
            None
        };
        let Some(map) = value.as_object() else {
            return refuse(self);
        };
        let named = map.get("rope_type").or(map.get("type"));
        let kind = match named {
            Some(kind) => kind.as_str().unwrap_or_default(),
            // In `rope_parameters` transformers takes it for granted.
            None if key == "rope_parameters" => "default",
            None => "",
        };
        let whole = map
            .get("partial_rotary_factor")
            .is_none_or(|f| f.is_null() || f.as_f64() == Some(1.0));
        // Sections of multimodal models, or other positions for some layers.
        let nested = map.values().any(|v| v.is_object() || v.is_array());
        let computed = kind == "default" || (llama3 && kind == "llama3");
        if !computed || !whole || nested {
            return refuse(self);
        }
        let base = match map.get("rope_theta").filter(|v| !v.is_null()) {
            None => theta.unwrap_or(10000.0),
            Some(said) => {
                let Some(base) = said.as_f64() else {
                    self.wrong(&format!("{key}.rope_theta"), "a number", short(said));
                    return None;
                };
                if let Some(other) = theta.filter(|t| *t != base) {
                    let expected = format!("{other}, as rope_theta says");
                    self.wrong(&format!("{key}.rope_theta"), expected, short(said));
                }
                base
            }
        };
        let scaling = match kind {
            "llama3" => Some(self.llama3(key, map, max_positions)?),
            _ => None,
        };
        Some(Rotary { theta: base, scaling })
    }

    fn llama3(&mut self, key: &str, map: &Map<String, Value>, max_positions: i64) -> Option<Llama3> {
        const TRAINED: &str = "original_max_position_embeddings";
        let before = self.errors.len();
        let mut number = |name: &str, most: f64| {
            let value = map.get(name).unwrap_or(&Value::Null);
            let number = value.as_f64().filter(|x| *x > 0.0 && *x <= most);
            if number.is_none() {
                let expected = format!("a number above 0, at most {most}");
                self.wrong(&format!("{key}.{name}"), expected, short(value));
            }
            number.unwrap_or(1.0)
        };
        let factor = number("factor", 1e6);
        let (low, high) = (number("low_freq_factor", 1e6), number("high_freq_factor", 1e6));
        if before == self.errors.len() && high <= low {
            let expected = format!("more than low_freq_factor, {low}");
            self.wrong(&format!("{key}.high_freq_factor"), expected, high.to_string());
        }
        let positions = |v: &Value| v.as_i64().filter(|n| POSITIONS.contains(n));
        let expected = format!("an integer from 1 to {}", POSITIONS.end());
        let trained = match map.get(TRAINED).filter(|v| !v.is_null()) {
            None => Some(max_positions),
            Some(said) => {
                let found = positions(said);
                if found.is_none() {
                    self.wrong(&format!("{key}.{TRAINED}"), expected, short(said));
                }
                found
            }
        };
        // Outside of the object it would count before the one in it.
        let outside = self.get(TRAINED).map(|v| (v.as_i64(), short(v)));
        if let Some((_, found)) = outside.filter(|(n, _)| *n != trained) {
            self.wrong(TRAINED, format!("the same as {key}.{TRAINED}"), found);
        }
        (before == self.errors.len()).then_some(Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: trained.unwrap_or(max_positions),
        })
    }

    /// Keys whose other values ask for another computation than the family's.
    pub(crate) fn only(&mut self, keys: &[(&str, &str, Fits)]) {
        for (key, expected, fits) in keys {
            if let Some(found) = self.get(key).filter(|v| !fits(v)).map(|v| short(v)) {
                self.wrong(key, *expected, found);
            }
        }
    }

    fn not_computed(&mut self) {
        let none: Fits = |v| v.as_f64() == Some(0.0);
        let whole: Fits = |v| v.as_f64() == Some(1.0);
        self.only(&[
            ("hidden_act", "silu", |v| v == "silu" || v == "swish"),
            ("use_sliding_window", "false: all layers attend to all tokens", NO),
            ("layer_types", "full_attention for every layer", |v| {
                v.as_array()
                    .is_some_and(|l| l.iter().all(|t| t == "full_attention"))
            }),
            ("attention_dropout", "0: the decoder has no dropout", none),
            ("partial_rotary_factor", "1: all of a head is rotated", whole),
            ("use_mrope", "false", NO),
            ("quantization_config", "null: weights as they are", |_| false),
        ]);
    }

    /// Keys that change nothing here, but are not what they are called.
    fn at_rest(&mut self) {
        let id = |v: &Value| v.as_i64().is_some_and(|i| i >= -1);
        for key in ["bos_token_id", "pad_token_id"] {
            self.value(key, "an id", |v| id(v).then_some(()));
        }
        self.value("eos_token_id", "an id or a list of ids", |v| {
            let ids = v.as_array().is_some_and(|l| l.iter().all(id));
            (ids || id(v)).then_some(())
        });
        for key in ["sliding_window", "max_window_layers"] {
            self.value(key, "null or an integer, 0 or more", Value::as_u64);
        }
        self.value("use_cache", "true or false", Value::as_bool);
        self.value("initializer_range", "a number, 0 or more", |v| {
            v.as_f64().filter(|x| *x >= 0.0)
        });
        for key in ["torch_dtype", "dtype"] {
            self.value(key, "the name of a dtype", |v| v.is_string().then_some(()));
        }
    }
}
