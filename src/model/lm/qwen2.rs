//! Qwen2 and Qwen2.5: queries, keys and values have biases, heads share the model's width out. The LM of the paper is
//! Qwen2.5-3B.
//!
//! Reference: transformers' `Qwen2Config`, `Qwen2ForCausalLM`.

use super::decoder;
use super::json::{Reader, NO, YES};
use super::rotary::Rotary;
use crate::model::bounds::Sizes;
use serde::{Deserialize, Serialize};

/// The part of a Hugging Face `config.json` that fixes the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the keys of `config.json`, by their names")]
pub struct Config {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub num_hidden_layers: usize,
    pub num_attention_heads: i64,
    pub num_key_value_heads: i64,
    pub max_position_embeddings: i64,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub tie_word_embeddings: bool,
}

impl Config {
    pub(super) fn read(r: &mut Reader) -> Self {
        let c = r.common();
        let num_key_value_heads = match r.says_null("num_key_value_heads") {
            true => c.num_attention_heads,
            false => r.size("num_key_value_heads"),
        };
        let max_position_embeddings = r.integer("max_position_embeddings").unwrap_or(32768);
        let rotary = r.rotary(max_position_embeddings, false);
        let biased = "true: queries, keys and values have biases";
        r.only(&[
            ("attention_bias", biased, YES),
            ("qkv_bias", biased, YES),
            ("mlp_bias", "false: the feed-forward part has no biases", NO),
            ("use_qk_norm", "false: queries and keys are not normalised", NO),
            ("qk_norm", "false: queries and keys are not normalised", NO),
        ]);
        let derived = c.hidden_size.checked_div(c.num_attention_heads).unwrap_or(0);
        if let Some(found) = r.integer("head_dim").filter(|d| *d != derived) {
            let expected = format!("{derived}, hidden_size / num_attention_heads");
            r.wrong("head_dim", expected, found.to_string());
        }
        Config {
            vocab_size: c.vocab_size,
            hidden_size: c.hidden_size,
            intermediate_size: c.intermediate_size,
            num_hidden_layers: c.num_hidden_layers,
            num_attention_heads: c.num_attention_heads,
            num_key_value_heads,
            max_position_embeddings,
            rms_norm_eps: c.rms_norm_eps,
            rope_theta: rotary.theta,
            tie_word_embeddings: c.tie_word_embeddings,
        }
    }

    pub(super) fn check(&self, s: &mut Sizes) {
        self.decoder().check(s);
        self.decoder().check_shared_width(s);
    }

    /// What it computes.
    pub fn decoder(&self) -> decoder::Config {
        decoder::Config {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self
                .hidden_size
                .checked_div(self.num_attention_heads)
                .unwrap_or(0),
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rotary: Rotary::plain(self.rope_theta),
            tie_word_embeddings: self.tie_word_embeddings,
            qkv_bias: true,
            o_bias: false,
            mlp_bias: false,
            qk_norm: false,
        }
    }

    /// The `config.json` that transformers opens.
    pub fn to_json(&self, eos: i64) -> serde_json::Value {
        let mut json = serde_json::json!({
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "bos_token_id": eos,
            "eos_token_id": eos,
            "initializer_range": 0.02,
            "max_window_layers": self.num_hidden_layers,
            "rope_scaling": null,
            "sliding_window": null,
            "torch_dtype": "float32",
            "use_cache": true,
            "use_sliding_window": false,
        });
        if let (Some(all), Ok(serde_json::Value::Object(own))) =
            (json.as_object_mut(), serde_json::to_value(self))
        {
            all.extend(own);
        }
        json
    }
}
