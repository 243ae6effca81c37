//! The audio transformer ("transformation layers"): joins the windows of a clip in time.
//!
//! Reference: `helpers.TransformerEncoder`; paper section 3.2. Post-norm layers, rotary positions
//! over the flattened L = 64·W axis, padded windows masked.

use super::bounds::{Sizes, HEADS, INNER, LAYERS};
use super::layers::{rotary_tables, rotate_half, LayerNorm, Linear};
use super::mode::Mode;
use super::params::{in_a_row, Init, Scope, Shapes};
use crate::error::{Error, Result};
use crate::ffi::kernels::{recompute, Shared};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// Base of the rotary frequencies (paper section 3.2).
const ROTARY_BASE: f64 = 4096.0;
/// Epsilon of every LayerNorm in here.
const EPS: f64 = 1e-6;

/// Sizes; the width is the audio encoder's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Attention heads.
    pub n_head: i64,
    /// Layers; 0 leaves the encoder's features as they are but scaled and normalised.
    pub n_layers: usize,
    /// Inner width of the feed-forward part.
    pub d_inner: i64,
    /// Attention dropout, which training puts into its [`Mode`]. The reference's code applies 0.1 though its configuration
    /// says 0.
    #[serde(default)]
    pub attention_dropout: f64,
}

impl Config {
    /// The sizes of the paper: 3 layers of 8 heads.
    pub fn paper() -> Self {
        Config {
            n_head: 8,
            n_layers: 3,
            d_inner: 2048,
            attention_dropout: 0.0,
        }
    }

    /// Its sizes over features `width` wide; without it only what they are by themselves.
    pub(super) fn check(&self, width: Option<i64>, s: &mut Sizes) {
        s.within("n_head", self.n_head, HEADS);
        s.within("d_inner", self.d_inner, INNER);
        s.count("n_layers", self.n_layers, 0..=*LAYERS.end());
        let rate = self.attention_dropout;
        s.number(
            "attention_dropout",
            rate,
            (0.0..1.0).contains(&rate),
            "a number from 0, below 1",
        );
        if let (true, Some(width)) = (s.wrong.is_empty(), width) {
            let head = width / self.n_head;
            let rotated = rotary_dims(head);
            if width % self.n_head != 0 || rotated > head || rotated % 2 != 0 {
                let expected =
                    format!("heads of at least 32 dimensions, an even half of them, that divide {width}");
                s.add("n_head", expected, self.n_head);
            }
        }
    }

    /// The sizes of the tensors under `prefix`, and whether `n_head` is sure: it shows only in the rotary table. Where several
    /// numbers fit it is the most likely of them.
    ///
    /// # Errors
    /// A rotary table that fits no number of heads.
    pub fn read(shapes: Shapes, prefix: &str, path: &Path, width: i64) -> Result<(Self, bool)> {
        let n_layers = in_a_row(shapes, |i| format!("{prefix}.layer_stack.{i}.pos_ffn.w_1.weight"));
        let first = |key: &str| shapes(key).and_then(|s| s.first().copied());
        let d_inner = match n_layers {
            0 => 1,
            _ => first(&format!("{prefix}.layer_stack.0.pos_ffn.w_1.weight")).unwrap_or(1),
        };
        let key = format!("{prefix}.position_enc.inv_freq");
        let rotated = match first(&key) {
            Some(n) if (1..=1 << 16).contains(&n) => Some(2 * n),
            Some(n) => {
                return Err(Error::checkpoint(
                    path,
                    key,
                    "1 to 65536 frequencies",
                    n.to_string(),
                ))
            }
            None => None,
        };
        let fits = |heads: i64| {
            let head = width / heads;
            let own = rotary_dims(head);
            width % heads == 0 && own <= head && rotated.is_none_or(|r| r == own)
        };
        let candidates: Vec<i64> = (1..=width.min(*HEADS.end())).filter(|h| fits(*h)).collect();
        let paper = Config::paper().n_head;
        let n_head = match candidates.as_slice() {
            [] => {
                return Err(Error::checkpoint(
                    path,
                    key,
                    format!("frequencies for heads that divide {width}"),
                    format!("{rotated:?} rotated dimensions"),
                ))
            }
            c if c.contains(&paper) => paper,
            c => c[c.len() - 1],
        };
        let config = Config {
            n_head,
            n_layers,
            d_inner,
            attention_dropout: 0.0,
        };
        Ok((config, candidates.len() == 1))
    }

    /// Floating-point operations of the forward pass over `l` frames, `d` wide.
    pub(crate) fn operations(&self, l: f64, d: f64) -> f64 {
        self.n_layers as f64 * (l * (8.0 * d * d + 4.0 * d * self.d_inner as f64) + 4.0 * l * l * d)
    }

    /// Bytes that one layer keeps of each frame for its backward pass: `low` bytes an element of a matrix product, `full` of a
    /// norm or a sum. Five inputs of matrix products, q, k, v, out, the inner layer, two norms.
    pub(crate) fn layer_activations(&self, d: f64, low: f64, full: f64) -> f64 {
        (9.0 * d + self.d_inner as f64) * low + 2.0 * d * full
    }
}

/// Dimensions of a head that are rotated.
fn rotary_dims(head_dim: i64) -> i64 {
    (head_dim / 2).max(32)
}

/// The transformer.
pub struct AudioTransformer {
    inv_freq: Tensor,
    layers: Vec<Shared<Layer>>,
    layer_norm: LayerNorm,
    width: i64,
}

impl AudioTransformer {
    /// `width` D is the audio encoder's (2048 in the paper).
    pub fn new(p: &Scope, config: &Config, width: i64) -> Self {
        let rotated = rotary_dims(width / config.n_head);
        let inv_freq = (p / "position_enc").buffer("inv_freq", &[rotated / 2], Kind::Float, || {
            let exponents =
                Tensor::arange_start_step(0, rotated, 2, (Kind::Float, tch::Device::Cpu)) / rotated as f64;
            (exponents * -ROTARY_BASE.ln()).exp()
        });
        AudioTransformer {
            inv_freq,
            layers: (0..config.n_layers)
                .map(|i| Shared::new(Layer::new(&(p / "layer_stack" / i), config, width)))
                .collect(),
            layer_norm: LayerNorm::new(p / "layer_norm", width, EPS),
            width,
        }
    }

    /// # Shapes
    /// `x_bld` (B, L, D) features of all windows in a row; `real_bl` (B, L) bool, false on padded windows, none where there
    /// are none: a mask of zeros changes no bit, but shuts flash attention out on CUDA. Returns (B, L, D).
    pub fn forward(&self, x_bld: &Tensor, real_bl: Option<&Tensor>, mode: Mode) -> Tensor {
        let positions = Tensor::arange(x_bld.size()[1], (Kind::Float, x_bld.device()));
        let tables = Shared::new(rotary_tables(&positions, &self.inv_freq));
        // Reference: masked_fill(−1e9). Adding −1e9 in float32 gives the same softmax, an all-masked row included.
        let mask_b11l = real_bl.map(|real_bl| {
            let mask = real_bl.logical_not().to_kind(Kind::Float) * -1e9;
            mask.unsqueeze(1).unsqueeze(1)
        });
        let dropout = mode.attention_dropout;
        let mut x = self.layer_norm.forward(&(x_bld * (self.width as f64).sqrt()));
        for layer in &self.layers {
            x = match mode.recompute {
                false => layer
                    .get()
                    .forward(&x, &tables.get(), mask_b11l.as_ref(), dropout),
                true => {
                    let (layer, tables) = (layer.clone(), tables.clone());
                    let mask = mask_b11l.as_ref().map(Tensor::shallow_clone);
                    recompute(&[x], move |t| {
                        layer.get().forward(&t[0], &tables.get(), mask.as_ref(), dropout)
                    })
                }
            };
        }
        x
    }
}

struct Layer {
    w_qs: Linear,
    w_ks: Linear,
    w_vs: Linear,
    fc: Linear,
    attn_norm: LayerNorm,
    w_1: Linear,
    w_2: Linear,
    ffn_norm: LayerNorm,
    heads: i64,
}

impl Layer {
    fn new(p: &Scope, config: &Config, width: i64) -> Self {
        let (a, f) = (p / "slf_attn", p / "pos_ffn");
        let xavier = Init::XavierNormal(width, width);
        Layer {
            w_qs: Linear::with_init(&a / "w_qs", width, width, false, xavier),
            w_ks: Linear::with_init(&a / "w_ks", width, width, false, xavier),
            w_vs: Linear::with_init(&a / "w_vs", width, width, false, xavier),
            fc: Linear::with_init(&a / "fc", width, width, false, xavier),
            attn_norm: LayerNorm::new(&a / "layer_norm", width, EPS),
            w_1: Linear::new(&f / "w_1", width, config.d_inner, true),
            w_2: Linear::new(&f / "w_2", config.d_inner, width, true),
            ffn_norm: LayerNorm::new(&f / "layer_norm", width, EPS),
            heads: config.n_head,
        }
    }

    fn forward(&self, x: &Tensor, tables: &(Tensor, Tensor), mask: Option<&Tensor>, dropout: f64) -> Tensor {
        let (b, l, d) = x.size3().unwrap_or((0, 0, 0));
        let heads = |t: Tensor| t.reshape([b, l, self.heads, d / self.heads]).transpose(1, 2);
        let q_bhld = rotate(&heads(self.w_qs.forward(x)), tables);
        let k_bhld = rotate(&heads(self.w_ks.forward(x)), tables);
        let v_bhld = heads(self.w_vs.forward(x));
        let out = Tensor::scaled_dot_product_attention(
            &q_bhld, &k_bhld, &v_bhld, mask, dropout, false, None, false,
        );
        let out = self.fc.forward(&out.transpose(1, 2).reshape([b, l, d]));
        let x = self.attn_norm.forward(&(out + x));
        let hidden = self.w_2.forward(&self.w_1.forward(&x).relu());
        self.ffn_norm.forward(&(hidden + x))
    }
}

/// Rotates the leading dimensions of each head, as many as the tables are wide; the rest pass through.
fn rotate(x_bhld: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Tensor {
    let (rotated, width) = (cos.size()[1], x_bhld.size()[3]);
    let head = x_bhld.narrow(-1, 0, rotated);
    let turned = &head * cos + rotate_half(&head) * sin;
    if rotated == width {
        turned
    } else {
        Tensor::cat(&[turned, x_bhld.narrow(-1, rotated, width - rotated)], -1)
    }
}
