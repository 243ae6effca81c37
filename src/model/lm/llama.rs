//! Llama 2 and 3, and what others publish in its form: no biases as published, rotary positions plain or stretched as
//! Llama 3.1's.
//!
//! Reference: transformers' `LlamaConfig`, `LlamaForCausalLM`.

use super::decoder;
use super::json::{Reader, NO};
use super::rotary::{Llama3, Rotary};
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
    /// Without it heads share the model's width out.
    pub head_dim: Option<i64>,
    pub max_position_embeddings: i64,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: Option<Llama3>,
    pub tie_word_embeddings: bool,
    /// Of all four projections.
    pub attention_bias: bool,
    pub mlp_bias: bool,
}

impl Config {
    pub(super) fn read(r: &mut Reader) -> Self {
        let c = r.common();
        let max_position_embeddings = r.integer("max_position_embeddings").unwrap_or(2048);
        let rotary = r.rotary(max_position_embeddings, true);
        r.only(&[
            ("qkv_bias", "false: attention_bias says what has biases", NO),
            ("use_qk_norm", "false: queries and keys are not normalised", NO),
            ("qk_norm", "false: queries and keys are not normalised", NO),
        ]);
        Config {
            vocab_size: c.vocab_size,
            hidden_size: c.hidden_size,
            intermediate_size: c.intermediate_size,
            num_hidden_layers: c.num_hidden_layers,
            num_attention_heads: c.num_attention_heads,
            // Llama 1 and most of Llama 2 say nothing of groups: every head has its own.
            num_key_value_heads: r.integer("num_key_value_heads").unwrap_or(c.num_attention_heads),
            head_dim: r.integer("head_dim"),
            max_position_embeddings,
            rms_norm_eps: c.rms_norm_eps,
            rope_theta: rotary.theta,
            rope_scaling: rotary.scaling,
            tie_word_embeddings: c.tie_word_embeddings,
            attention_bias: r.flag("attention_bias"),
            mlp_bias: r.flag("mlp_bias"),
        }
    }

    pub(super) fn check(&self, s: &mut Sizes) {
        self.decoder().check(s);
        match self.head_dim {
            Some(_) => self.decoder().check_own_width(s),
            None => self.decoder().check_shared_width(s),
        }
    }

    /// What it computes.
    pub fn decoder(&self) -> decoder::Config {
        let shared = self.hidden_size.checked_div(self.num_attention_heads);
        decoder::Config {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim.or(shared).unwrap_or(0),
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rotary: Rotary {
                theta: self.rope_theta,
                scaling: self.rope_scaling,
            },
            tie_word_embeddings: self.tie_word_embeddings,
            qkv_bias: self.attention_bias,
            o_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
            qk_norm: false,
        }
    }
}
