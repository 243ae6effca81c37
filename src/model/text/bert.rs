//! BERT and RoBERTa: encoders of text whose layers are alike, and which count positions in two ways.
//!
//! Follows transformers' `BertModel` and `RobertaModel` without their pooler; names as in their checkpoints.

use crate::error::{self, short, Error, Result};
use crate::model::bounds::{Sizes, HEADS, INNER, LAYERS, POSITIONS, VOCABULARY, WIDTH};
use crate::model::layers::{LayerNorm, Linear};
use crate::model::params::{Init, Scope};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// How positions are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Family {
    /// From 0 on.
    Bert,
    /// From behind the padding's id on, over what is no padding; padding itself stands at that id.
    Roberta,
}

/// The part of `config.json` that fixes the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Config {
    pub family: Family,
    /// As the file names it: `bert`, `roberta`, `xlm-roberta`.
    pub model_type: String,
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: usize,
    pub num_attention_heads: i64,
    pub intermediate_size: i64,
    pub max_position_embeddings: i64,
    pub type_vocab_size: i64,
    pub layer_norm_eps: f64,
    pub pad_token_id: i64,
    activation: Activation,
}

/// Between the two matrices of a feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Activation {
    Gelu,
    GeluTanh,
    Relu,
}

/// `config.json`, with what transformers takes where nothing is said.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: usize,
    num_attention_heads: i64,
    intermediate_size: i64,
    max_position_embeddings: i64,
    #[serde(default = "two")]
    type_vocab_size: i64,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    pad_token_id: Option<i64>,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default, rename = "_name_or_path")]
    name: Option<String>,
}

fn two() -> i64 {
    2
}
fn eps() -> f64 {
    1e-12
}
fn gelu() -> String {
    "gelu".to_owned()
}
fn absolute() -> Option<String> {
    Some("absolute".to_owned())
}

impl Config {
    /// Reads a folder's `config.json`; beside the sizes the name under which the model was published, where the file has it.
    ///
    /// # Errors
    /// Another architecture, or sizes that cannot be.
    pub(crate) fn read(folder: &Path) -> Result<(Self, Option<String>)> {
        let path = folder.join("config.json");
        let text = crate::fsutil::read_text(&path)?;
        let raw: Raw = serde_json::from_str(&text).map_err(|e| {
            let expected = "the sizes of a BERT or RoBERTa";
            Error::checkpoint(&path, "file", expected, short(&e))
        })?;
        let mut wrong = Vec::new();
        let mut refuse = |key: &str, expected: &str, found: &str| {
            wrong.push(Error::checkpoint(&path, key, expected, short(&found)));
        };
        let model_type = raw.model_type.unwrap_or_default();
        let family = match model_type.as_str() {
            "bert" => Family::Bert,
            "roberta" | "xlm-roberta" => Family::Roberta,
            other => {
                refuse("model_type", "bert, roberta or xlm-roberta", other);
                Family::Bert
            }
        };
        let activation = match raw.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => {
                refuse("hidden_act", "gelu, gelu_new, gelu_pytorch_tanh or relu", other);
                Activation::Gelu
            }
        };
        match raw.position_embedding_type.as_deref() {
            None | Some("absolute") => {}
            Some(other) => refuse("position_embedding_type", "absolute", other),
        }
        if raw.is_decoder {
            refuse("is_decoder", "false: each token sees all others", "true");
        }
        error::all(wrong)?;
        let config = Config {
            family,
            model_type,
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            intermediate_size: raw.intermediate_size,
            max_position_embeddings: raw.max_position_embeddings,
            type_vocab_size: raw.type_vocab_size,
            layer_norm_eps: raw.layer_norm_eps,
            pad_token_id: raw.pad_token_id.unwrap_or(match family {
                Family::Bert => 0,
                Family::Roberta => 1,
            }),
            activation,
        };
        let wrong = config.check().wrong.into_iter();
        error::all(
            wrong
                .map(|w| Error::checkpoint(&path, w.key, w.expected, w.found))
                .collect(),
        )?;
        Ok((config, raw.name.filter(|name| !name.is_empty())))
    }

    fn check(&self) -> Sizes {
        let mut s = Sizes::of("");
        s.within("vocab_size", self.vocab_size, VOCABULARY);
        s.within("hidden_size", self.hidden_size, WIDTH);
        s.within("num_attention_heads", self.num_attention_heads, HEADS);
        s.within("intermediate_size", self.intermediate_size, INNER);
        s.within("max_position_embeddings", self.max_position_embeddings, POSITIONS);
        s.within("type_vocab_size", self.type_vocab_size, VOCABULARY);
        s.within("pad_token_id", self.pad_token_id, 0..=*VOCABULARY.end());
        s.count("num_hidden_layers", self.num_hidden_layers, LAYERS);
        let eps = self.layer_norm_eps;
        s.number(
            "layer_norm_eps",
            eps,
            eps > 0.0 && eps < 1.0,
            "a number from 0 to 1",
        );
        s.multiple(
            "hidden_size",
            self.hidden_size,
            self.num_attention_heads,
            "as heads share the width out",
        );
        if self.max_tokens() < 2 {
            s.add(
                "max_position_embeddings",
                "places for two tokens",
                self.max_position_embeddings,
            );
        }
        s
    }

    /// Tokens of the longest text that has positions.
    pub(crate) fn max_tokens(&self) -> i64 {
        match self.family {
            Family::Bert => self.max_position_embeddings,
            Family::Roberta => self.max_position_embeddings - self.pad_token_id - 1,
        }
    }
}

/// The first layers of an encoder.
pub(crate) struct BertEncoder {
    words: Tensor,
    positions: Tensor,
    token_types: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    config: Config,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_out: Linear,
    attention_norm: LayerNorm,
    inner: Linear,
    out: Linear,
    norm: LayerNorm,
}

impl BertEncoder {
    /// Its embeddings and the first `layers` of its layers, by the names under `p`.
    pub(crate) fn new(p: &Scope, config: &Config, layers: usize) -> Self {
        let (d, eps) = (config.hidden_size, config.layer_norm_eps);
        let e = p / "embeddings";
        let table = |name: &str, rows: i64| (&e / name).weight("weight", &[rows, d], Init::Normal(0.02));
        let linear =
            |p: Scope, input: i64, output: i64| Linear::with_init(p, input, output, true, Init::Normal(0.02));
        let layer = |i: usize| {
            let q = p / "encoder" / "layer" / i;
            let attention = &q / "attention";
            let own = &attention / "self";
            Layer {
                query: linear(&own / "query", d, d),
                key: linear(&own / "key", d, d),
                value: linear(&own / "value", d, d),
                attention_out: linear(&attention / "output" / "dense", d, d),
                attention_norm: LayerNorm::new(&attention / "output" / "LayerNorm", d, eps),
                inner: linear(&q / "intermediate" / "dense", d, config.intermediate_size),
                out: linear(&q / "output" / "dense", config.intermediate_size, d),
                norm: LayerNorm::new(&q / "output" / "LayerNorm", d, eps),
            }
        };
        BertEncoder {
            words: table("word_embeddings", config.vocab_size),
            positions: table("position_embeddings", config.max_position_embeddings),
            token_types: table("token_type_embeddings", config.type_vocab_size),
            norm: LayerNorm::new(&e / "LayerNorm", d, eps),
            layers: (0..layers.min(config.num_hidden_layers)).map(layer).collect(),
            config: config.clone(),
        }
    }

    /// # Shapes
    /// `ids_bt` (B, T) int64 below the vocabulary's size, `real_bt` (B, T) int64, 0 on padding → the last of its layers' states
    /// (B, T, D). T is at most [`Config::max_tokens`].
    pub(crate) fn forward(&self, ids_bt: &Tensor, real_bt: &Tensor) -> Tensor {
        let (_, t) = ids_bt.size2().unwrap_or((0, 0));
        let places = match self.config.family {
            Family::Bert => Tensor::arange(t, (Kind::Int64, ids_bt.device())).unsqueeze(0),
            Family::Roberta => {
                let own = ids_bt.ne(self.config.pad_token_id).to_kind(Kind::Int64);
                own.cumsum(1, Kind::Int64) * &own + self.config.pad_token_id
            }
        };
        let look = |table: &Tensor, ids: &Tensor| Tensor::embedding(table, ids, -1, false, false);
        let x = look(&self.words, ids_bt) + look(&self.positions, &places) + self.token_types.get(0);
        let mut x = self.norm.forward(&x);
        let seen = real_bt.ne(0).unsqueeze(1).unsqueeze(1);
        for layer in &self.layers {
            x = layer.forward(&x, &seen, &self.config);
        }
        x
    }
}

impl Layer {
    /// `seen` (B, 1, 1, T), false on padding.
    fn forward(&self, x: &Tensor, seen: &Tensor, config: &Config) -> Tensor {
        let (b, t, _) = x.size3().unwrap_or((0, 0, 0));
        let split = |z: Tensor| z.reshape([b, t, config.num_attention_heads, -1]).transpose(1, 2);
        let (q, k, v) = (
            split(self.query.forward(x)),
            split(self.key.forward(x)),
            split(self.value.forward(x)),
        );
        let heard = Tensor::scaled_dot_product_attention(&q, &k, &v, Some(seen), 0.0, false, None, false);
        let heard = heard.transpose(1, 2).reshape([b, t, -1]);
        let x = self
            .attention_norm
            .forward(&(x + self.attention_out.forward(&heard)));
        let inner = self.inner.forward(&x);
        let inner = match config.activation {
            Activation::Gelu => inner.gelu("none"),
            Activation::GeluTanh => inner.gelu("tanh"),
            Activation::Relu => inner.relu(),
        };
        self.norm.forward(&(&x + self.out.forward(&inner)))
    }
}
