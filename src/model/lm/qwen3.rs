//! Qwen3: the queries and keys of each head are normed before they are turned, no biases as published, and the
//! configuration says how wide a head is.
//!
//! Reference: transformers' `Qwen3Config`, `Qwen3ForCausalLM`.

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
    pub head_dim: i64,
    pub max_position_embeddings: i64,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub tie_word_embeddings: bool,
    /// Of all four projections.
    pub attention_bias: bool,
}

impl Config {
    pub(super) fn read(r: &mut Reader) -> Self {
        let c = r.common();
        let num_key_value_heads = match r.says_null("num_key_value_heads") {
            true => c.num_attention_heads,
            false => r.size("num_key_value_heads"),
        };
        if r.says_null("head_dim") {
            r.wrong("head_dim", "an integer", "null");
        }
        let max_position_embeddings = r.integer("max_position_embeddings").unwrap_or(32768);
        let rotary = r.rotary(max_position_embeddings, false);
        r.only(&[
            ("qkv_bias", "false: attention_bias says what has biases", NO),
            ("mlp_bias", "false: the feed-forward part has no biases", NO),
            ("use_qk_norm", "true: queries and keys are normalised", YES),
            ("qk_norm", "true: queries and keys are normalised", YES),
        ]);
        Config {
            vocab_size: c.vocab_size,
            hidden_size: c.hidden_size,
            intermediate_size: c.intermediate_size,
            num_hidden_layers: c.num_hidden_layers,
            num_attention_heads: c.num_attention_heads,
            num_key_value_heads,
            head_dim: r.integer("head_dim").unwrap_or(128),
            max_position_embeddings,
            rms_norm_eps: c.rms_norm_eps,
            rope_theta: rotary.theta,
            tie_word_embeddings: c.tie_word_embeddings,
            attention_bias: r.flag("attention_bias"),
        }
    }

    pub(super) fn check(&self, s: &mut Sizes) {
        self.decoder().check(s);
        self.decoder().check_own_width(s);
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
            head_dim: self.head_dim,
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rotary: Rotary::plain(self.rope_theta),
            tie_word_embeddings: self.tie_word_embeddings,
            qkv_bias: self.attention_bias,
            o_bias: self.attention_bias,
            mlp_bias: false,
            qk_norm: true,
        }
    }
}
