//! The T5 v1.1 encoder (Flan-T5), AF-CLAP's text tower.
//!
//! Follows Hugging Face's `T5EncoderModel` with gated GELU; names as in AF-CLAP's `text_branch`.

use crate::error::{Error, Result};
use crate::ffi::kernels::{recompute, Shared};
use crate::model::bounds::{Sizes, HEADS, LAYERS, VOCABULARY, WIDTH};
use crate::model::layers::{Linear, RmsNorm};
use crate::model::mode::Mode;
use crate::model::params::{in_a_row, Init, Scope, Shapes};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys of `config.json`, by their names")]
pub struct Config {
    pub vocab_size: i64,
    pub d_model: i64,
    /// Width of one head; heads × d_kv need not be d_model.
    pub d_kv: i64,
    pub d_ff: i64,
    pub num_layers: usize,
    pub num_heads: i64,
    #[serde(default = "default_buckets")]
    pub relative_attention_num_buckets: i64,
    #[serde(default = "default_distance")]
    pub relative_attention_max_distance: i64,
}

fn default_buckets() -> i64 {
    32
}
fn default_distance() -> i64 {
    128
}

impl Config {
    /// Sizes by the shapes of a checkpoint's tensors under `prefix`; how far positions are told apart does not show in them and is
    /// what every published T5 has.
    ///
    /// # Errors
    /// No T5 encoder with a gated feed-forward part under these names.
    pub(crate) fn read(shapes: Shapes, prefix: &str, path: &Path) -> Result<Self> {
        let table = |name: &str| -> Result<[i64; 2]> {
            let name = format!("{prefix}.{name}");
            let shape = shapes(&name);
            match shape.as_deref() {
                Some([rows, columns]) => Ok([*rows, *columns]),
                found => {
                    let found = found.map_or("no such tensor".to_owned(), |s| format!("shape {s:?}"));
                    let e = Error::checkpoint(path, name, "a matrix of a T5 encoder (v1.1)", found);
                    Err(e.hint("AF-CLAP's text tower is Flan-T5's encoder"))
                }
            }
        };
        let first = "encoder.block.0.layer";
        let [vocab_size, d_model] = table("shared.weight")?;
        let [inner, _] = table(&format!("{first}.0.SelfAttention.q.weight"))?;
        let [buckets, num_heads] = table(&format!("{first}.0.SelfAttention.relative_attention_bias.weight"))?;
        let [d_ff, _] = table(&format!("{first}.1.DenseReluDense.wi_0.weight"))?;
        Ok(Config {
            vocab_size,
            d_model,
            d_kv: inner.checked_div(num_heads).unwrap_or(0),
            d_ff,
            num_layers: in_a_row(shapes, |i| {
                format!("{prefix}.encoder.block.{i}.layer.0.SelfAttention.q.weight")
            }),
            num_heads,
            relative_attention_num_buckets: buckets,
            relative_attention_max_distance: default_distance(),
        })
    }

    pub(in crate::model) fn check(&self, s: &mut Sizes) {
        s.within("vocab_size", self.vocab_size, VOCABULARY);
        for (key, value) in [
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
        ] {
            s.within(key, value, WIDTH);
        }
        s.within("num_heads", self.num_heads, HEADS);
        s.count("num_layers", self.num_layers, LAYERS);
        // Half of the buckets for each direction, half of these exact.
        let buckets = self.relative_attention_num_buckets;
        s.within("relative_attention_num_buckets", buckets, 4..=1 << 16);
        s.within(
            "relative_attention_max_distance",
            self.relative_attention_max_distance,
            buckets.clamp(1, 1 << 16)..=1 << 20,
        );
    }
}

/// The encoder stack.
pub(crate) struct T5Encoder {
    shared: Tensor,
    relative_attention_bias: Tensor,
    blocks: Vec<Shared<Block>>,
    final_layer_norm: RmsNorm,
    config: Config,
}

struct Block {
    attn_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    ff_norm: RmsNorm,
    wi_0: Linear,
    wi_1: Linear,
    wo: Linear,
}

impl T5Encoder {
    pub(crate) fn new(p: &Scope, config: &Config) -> Self {
        let (d, inner) = (config.d_model, config.num_heads * config.d_kv);
        let shared = (p / "shared").weight("weight", &[config.vocab_size, d], Init::Normal(1.0));
        let first = p / "encoder" / "block" / 0 / "layer" / 0 / "SelfAttention" / "relative_attention_bias";
        let relative_attention_bias = first.weight(
            "weight",
            &[config.relative_attention_num_buckets, config.num_heads],
            Init::Normal((d as f64).powf(-0.5)),
        );
        let blocks = (0..config.num_layers)
            .map(|i| {
                let q = p / "encoder" / "block" / i / "layer";
                let (a, f) = (&q / 0, &q / 1);
                let (attn, ff) = (&a / "SelfAttention", &f / "DenseReluDense");
                // T5's own initialisation: attention is not scaled by √d_kv, so the query weights start smaller.
                let std = |n: i64| Init::Normal((n as f64).powf(-0.5));
                Shared::new(Block {
                    attn_norm: RmsNorm::new(&a / "layer_norm", d, 1e-6),
                    q: Linear::with_init(&attn / "q", d, inner, false, std(d * config.d_kv)),
                    k: Linear::with_init(&attn / "k", d, inner, false, std(d)),
                    v: Linear::with_init(&attn / "v", d, inner, false, std(d)),
                    o: Linear::with_init(&attn / "o", inner, d, false, std(inner)),
                    ff_norm: RmsNorm::new(&f / "layer_norm", d, 1e-6),
                    wi_0: Linear::with_init(&ff / "wi_0", d, config.d_ff, false, std(d)),
                    wi_1: Linear::with_init(&ff / "wi_1", d, config.d_ff, false, std(d)),
                    wo: Linear::with_init(&ff / "wo", config.d_ff, d, false, std(config.d_ff)),
                })
            })
            .collect();
        T5Encoder {
            shared,
            relative_attention_bias,
            blocks,
            final_layer_norm: RmsNorm::new(p / "encoder" / "final_layer_norm", d, 1e-6),
            config: config.clone(),
        }
    }

    /// # Shapes
    /// `ids_bt` (B, T) int64, `real_bt` (B, T), 0 on padding → last hidden state (B, T, D).
    pub(crate) fn forward(&self, ids_bt: &Tensor, real_bt: &Tensor, mode: Mode) -> Tensor {
        let (b, t) = ids_bt.size2().unwrap_or((0, 0));
        let mut x = Tensor::embedding(&self.shared, ids_bt, -1, false, false);
        let buckets = self.buckets(t).to_device(x.device());
        let bias_1hqk = self
            .relative_attention_bias
            .index_select(0, &buckets)
            .reshape([t, t, -1])
            .permute([2, 0, 1])
            .unsqueeze(0);
        let padded = real_bt.eq(0).unsqueeze(1).unsqueeze(1);
        let mask = (bias_1hqk + Tensor::zeros([b, 1, 1, t], (Kind::Float, x.device())))
            .masked_fill(&padded, f64::from(f32::MIN));
        for block in &self.blocks {
            let heads = self.config.num_heads;
            x = match mode.recompute {
                false => block.get().forward(&x, &mask, heads),
                true => {
                    let block = block.clone();
                    // All blocks share the mask, whose weights learn too.
                    recompute(&[x, mask.shallow_clone()], move |t| {
                        block.get().forward(&t[0], &t[1], heads)
                    })
                }
            };
        }
        self.final_layer_norm.forward(&x)
    }

    /// The bucket of each (query, key) distance, flattened (T·T): half for each direction, exact near, logarithmic far.
    fn buckets(&self, t: i64) -> Tensor {
        let half = self.config.relative_attention_num_buckets / 2;
        let exact = half / 2;
        let far = (self.config.relative_attention_max_distance as f64 / exact as f64).ln();
        let bucket = |distance: i64| {
            let side = if distance > 0 { half } else { 0 };
            let n = distance.abs();
            let place = if n < exact {
                n
            } else {
                let log = (n as f32 / exact as f32).ln() / far as f32;
                (exact + (log * (half - exact) as f32) as i64).min(half - 1)
            };
            side + place
        };
        let table: Vec<i64> = (0..t * t).map(|i| bucket(i % t - i / t)).collect();
        Tensor::from_slice(&table).to_device(Device::Cpu)
    }
}

impl Block {
    fn forward(&self, x: &Tensor, mask: &Tensor, heads: i64) -> Tensor {
        let (b, t, _) = x.size3().unwrap_or((0, 0, 0));
        let y = self.attn_norm.forward(x);
        let split = |z: Tensor| z.reshape([b, t, heads, -1]).transpose(1, 2);
        let (q, k, v) = (
            split(self.q.forward(&y)),
            split(self.k.forward(&y)),
            split(self.v.forward(&y)),
        );
        // T5 does not scale the scores.
        let out = Tensor::scaled_dot_product_attention(&q, &k, &v, Some(mask), 0.0, false, 1.0, false);
        let x = x + self.o.forward(&out.transpose(1, 2).reshape([b, t, -1]));
        let y = self.ff_norm.forward(&x);
        let hidden = self.wi_0.forward(&y).gelu("tanh") * self.wi_1.forward(&y);
        x + self.wo.forward(&hidden)
    }
}
