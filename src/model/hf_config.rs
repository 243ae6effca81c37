//! A language model's `config.json`, key by key: sizes within their bounds, and of everything else what this decoder computes.
//!
//! Keys and defaults are those of transformers' `Qwen2Config`. A key that is not here changes nothing there either.

use super::bounds;
use super::qwen2::Config;
use crate::error::{self, nearest, short, Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

const SIZES: [&str; 6] = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
];

/// Reads a file; all that is wrong with it is told at once.
pub(super) fn read(path: &Path) -> Result<Config> {
    let text = crate::fsutil::read_text(path)?;
    let raw: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|e| Error::checkpoint(path, "file", "a JSON object", e.to_string()))?;
    let mut reader = Reader {
        path,
        raw: &raw,
        errors: Vec::new(),
    };
    let config = reader.config();
    reader.not_computed();
    reader.at_rest();
    let wrong = match reader.errors.is_empty() {
        true => bounds::language_model(&config, ""),
        // Sizes that are not there would be told twice.
        false => Vec::new(),
    };
    let bounds = wrong
        .into_iter()
        .map(|w| Error::checkpoint(path, w.key, w.expected, w.found));
    reader.errors.extend(bounds);
    if reader.errors.is_empty() {
        reader.head_dim(&config);
    }
    error::all(reader.errors)?;
    Ok(config)
}

struct Reader<'a> {
    path: &'a Path,
    raw: &'a Map<String, Value>,
    errors: Vec<Error>,
}

impl<'a> Reader<'a> {
    /// Nothing where the key is missing or null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.raw.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&mut self, key: &str, expected: &str, found: &Value) {
        self.errors
            .push(Error::checkpoint(self.path, key, expected, short(found)));
    }

    /// The key's value where it is what is expected; a value that is not is told.
    fn value<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let read = read(value);
        if read.is_none() {
            self.wrong(key, expected, value);
        }
        read
    }

    fn integer(&mut self, key: &str) -> Option<i64> {
        self.value(key, "an integer", Value::as_i64)
    }

    fn number(&mut self, key: &str) -> Option<f64> {
        self.value(key, "a number", Value::as_f64)
    }

    fn config(&mut self) -> Config {
        let heads = self.raw.get("num_attention_heads");
        let mut sizes = [0; 6];
        for (size, key) in sizes.iter_mut().zip(SIZES) {
            *size = match self.get(key) {
                Some(_) => self.integer(key).unwrap_or_default(),
                // transformers: as many as there are heads.
                None if key == "num_key_value_heads" && self.raw.contains_key(key) => {
                    heads.and_then(Value::as_i64).unwrap_or_default()
                }
                None => {
                    let e = Error::checkpoint(self.path, key, "the size of a Qwen2 model", "nothing");
                    let near = nearest(key, self.raw.keys().map(String::as_str));
                    self.errors.push(match near {
                        Some(near) => e.hint(format!("did you mean {near}?")),
                        None => e,
                    });
                    0
                }
            };
        }
        let [vocab_size, hidden_size, intermediate_size, layers, num_attention_heads, num_key_value_heads] =
            sizes;
        let theta = self.number("rope_theta");
        Config {
            vocab_size,
            hidden_size,
            intermediate_size,
            // What is negative is past every bound as well.
            num_hidden_layers: usize::try_from(layers).unwrap_or_else(|_| {
                self.wrong("num_hidden_layers", "1 or more", &layers.into());
                0
            }),
            num_attention_heads,
            num_key_value_heads,
            max_position_embeddings: self.integer("max_position_embeddings").unwrap_or(32768),
            rms_norm_eps: self.number("rms_norm_eps").unwrap_or(1e-6),
            rope_theta: self.rope("rope_parameters").or(theta).unwrap_or(10000.0),
            tie_word_embeddings: self
                .value("tie_word_embeddings", "true or false", Value::as_bool)
                .unwrap_or(false),
        }
    }

    /// `rope_scaling`, and `rope_parameters`, which newer versions write instead: the plain rotary positions alone. Returns
    /// their base, where it is said there.
    fn rope(&mut self, key: &str) -> Option<f64> {
        let value = self.get(key)?;
        let plain = |map: &Map<String, Value>| {
            let kind = map.get("rope_type").or(map.get("type"));
            let kind = kind.and_then(Value::as_str);
            let whole = map
                .get("partial_rotary_factor")
                .is_none_or(|f| f.is_null() || f.as_f64() == Some(1.0));
            let default = match (kind, key) {
                (Some("default"), _) => true,
                (None, "rope_parameters") => !map.contains_key("rope_type") && !map.contains_key("type"),
                _ => false,
            };
            default && whole && map.get("mrope_section").is_none_or(Value::is_null)
        };
        let Some(map) = value.as_object().filter(|m| plain(m)) else {
            self.wrong(
                key,
                "null, or plain rotary positions (an object of rope_type default)",
                value,
            );
            return None;
        };
        let theta = map.get("rope_theta")?;
        if theta.as_f64().is_none() {
            self.wrong(&format!("{key}.rope_theta"), "a number", theta);
        }
        theta.as_f64()
    }

    /// Keys that ask for another computation than this decoder's.
    fn not_computed(&mut self) {
        type Fits = fn(&Value) -> bool;
        let no: Fits = |v| *v == Value::Bool(false);
        let yes: Fits = |v| *v == Value::Bool(true);
        let none: Fits = |v| v.as_f64() == Some(0.0);
        let whole: Fits = |v| v.as_f64() == Some(1.0);
        let only: [(&str, &str, Fits); 13] = [
            ("model_type", "qwen2", |v| v == "qwen2"),
            ("hidden_act", "silu", |v| v == "silu" || v == "swish"),
            ("use_sliding_window", "false: all layers attend to all tokens", no),
            ("layer_types", "full_attention for every layer", |v| {
                v.as_array()
                    .is_some_and(|l| l.iter().all(|t| t == "full_attention"))
            }),
            ("attention_dropout", "0: the decoder has no dropout", none),
            ("partial_rotary_factor", "1: all of a head is rotated", whole),
            ("use_mrope", "false", no),
            (
                "attention_bias",
                "true: queries, keys and values have biases",
                yes,
            ),
            ("qkv_bias", "true: queries, keys and values have biases", yes),
            ("mlp_bias", "false: the feed-forward part has no biases", no),
            ("use_qk_norm", "false: queries and keys are not normalised", no),
            ("qk_norm", "false: queries and keys are not normalised", no),
            ("quantization_config", "null: weights as they are", |_| false),
        ];
        for (key, expected, fits) in only {
            if let Some(value) = self.get(key).filter(|v| !fits(v)) {
                self.wrong(key, expected, value);
            }
        }
        let _ = self.rope("rope_scaling");
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
            self.value(key, "the name of a dtype", Value::as_str);
        }
        self.value("architectures", "a list of names", |v| {
            v.as_array().filter(|l| l.iter().all(Value::is_string))
        });
    }

    fn head_dim(&mut self, config: &Config) {
        let expected = format!("{}, hidden_size / num_attention_heads", config.head_dim());
        let _ = self.value("head_dim", &expected, |v| {
            v.as_i64().filter(|d| *d == config.head_dim())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(changes: &str) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let mut all: Map<String, Value> = serde_json::from_str(
            r#"{"model_type": "qwen2", "vocab_size": 640, "hidden_size": 64, "intermediate_size": 128,
                "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "rope_theta": 1e6, "hidden_act": "silu", "use_sliding_window": false, "rope_scaling": null}"#,
        )
        .unwrap();
        all.extend(serde_json::from_str::<Map<String, Value>>(changes).unwrap());
        std::fs::write(&path, Value::from(all).to_string()).unwrap();
        read(&path)
    }

    #[test]
    fn a_value_that_would_compute_something_else_is_refused_by_its_key() {
        for (key, values) in [
            (
                "vocab_size",
                &["0", "-1", "2e30", "\"640\"", "null", "640.5", "1e6"][..],
            ),
            ("hidden_size", &["0", "-64", "66", "4611686018427387904"]),
            ("intermediate_size", &["0", "[128]"]),
            (
                "num_hidden_layers",
                &["0", "-4", "18446744073709551615", "1048576", "true"],
            ),
            ("num_attention_heads", &["0", "-4", "3"]),
            ("num_key_value_heads", &["0", "-2", "99999999999"]),
            ("max_position_embeddings", &["0", "-1", "\"many\""]),
            ("rms_norm_eps", &["-1", "0", "2", "\"1e-6\"", "1e-400"]),
            ("rope_theta", &["0", "-1", "1e300", "[]"]),
            ("tie_word_embeddings", &["1", "\"true\""]),
            ("model_type", &["\"llama\"", "\"qwen2_moe\"", "\"qwen3\"", "2"]),
            ("hidden_act", &["\"gelu\"", "1"]),
            ("use_sliding_window", &["1", "true", "\"false\""]),
            (
                "rope_scaling",
                &[
                    "5",
                    "\"linear\"",
                    "{}",
                    r#"{"factor": 4.0}"#,
                    r#"{"type": "yarn", "factor": 4.0}"#,
                    r#"{"rope_type": "dynamic"}"#,
                    r#"{"rope_type": 1}"#,
                    r#"{"type": "default", "mrope_section": [16, 24, 24]}"#,
                ],
            ),
            (
                "rope_parameters",
                &[
                    "1",
                    r#"{"rope_type": "llama3"}"#,
                    r#"{"rope_theta": "x"}"#,
                    r#"{"partial_rotary_factor": 0.5}"#,
                ],
            ),
            (
                "layer_types",
                &["[\"full_attention\", \"sliding_attention\"]", "1"],
            ),
            ("attention_dropout", &["0.1", "\"0\""]),
            ("partial_rotary_factor", &["0.5"]),
            ("attention_bias", &["false", "0"]),
            ("mlp_bias", &["true"]),
            ("qk_norm", &["true"]),
            ("quantization_config", &[r#"{"quant_method": "gptq"}"#]),
            ("head_dim", &["32", "\"16\""]),
            ("sliding_window", &["-1", "\"4096\""]),
            ("eos_token_id", &["\"</s>\"", "[1, \"2\"]", "0.5"]),
            ("torch_dtype", &["16"]),
        ] {
            for value in values {
                let e = read_with(&format!("{{\"{key}\": {value}}}"));
                let e = e.expect_err(&format!("{key}: {value}"));
                assert_eq!(e.exit_code(), 7);
                let told = e.to_string();
                assert!(told.contains(key), "{key}: {value}: {told}");
                assert!(told.contains("expected"), "{told}");
            }
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let e = read_with(r#"{"rope_scaling": 5, "hidden_act": "relu", "use_sliding_window": true}"#);
        let told = e.unwrap_err().to_string();
        for key in ["rope_scaling", "hidden_act", "use_sliding_window"] {
            assert!(told.contains(key), "{told}");
        }
    }

    #[test]
    fn what_published_folders_say_is_taken() {
        let plain = read_with("{}").unwrap();
        for same in [
            r#"{"rope_scaling": {"type": "default"}, "sliding_window": 131072, "max_window_layers": 28, "use_mrope": false}"#,
            r#"{"rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}, "rope_theta": null}"#,
            r#"{"layer_types": ["full_attention", "full_attention"], "dtype": "bfloat16", "eos_token_id": [591, 590]}"#,
            r#"{"head_dim": 16, "attention_dropout": 0.0, "attention_bias": true, "pad_token_id": null, "x": {"y": 1}}"#,
        ] {
            assert_eq!(read_with(same).unwrap(), plain, "{same}");
        }
        let all_heads = read_with(r#"{"num_key_value_heads": null}"#).unwrap();
        assert_eq!(all_heads.num_key_value_heads, 4);
    }
}
