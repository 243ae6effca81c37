//! Gated cross-attention: how the language model listens. One block before every k-th LM block.
//!
//! Reference: `helpers.GatedCrossAttentionBlock`; paper section 3.2 (XATTN-Dense).

use super::bounds::{Sizes, HEADS, HEAD_DIM, LAYERS};
use super::layers::{LayerNorm, Linear};
use super::params::{Init, Scope, Shapes};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::path::Path;
use tch::{Kind, Tensor};

/// LM layers for each block.
pub(crate) const EVERY: RangeInclusive<i64> = LAYERS;
/// Inner width in multiples of the LM's.
pub(crate) const FF_MULT: RangeInclusive<i64> = 1..=1 << 6;
/// Frames for each `<audio>` under [`Frames::FewShotMask`].
pub(crate) const FRAMES: RangeInclusive<i64> = 1..=1 << 20;

/// Which audio frames a text token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frames {
    /// All frames of real windows. The reference's release tree, which the published weights are run with; the default.
    #[default]
    All,
    /// The reference's training tree: text after the i-th `<audio>` sees the first
    /// `i · max_window_per_audio` frames only. As shipped (1) that is frame 0 of 64·W.
    FewShotMask,
}

impl std::fmt::Display for Frames {
    /// As recipes write it.
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Frames::All => "all",
            Frames::FewShotMask => "few_shot_mask",
        })
    }
}

/// Sizes and the frame rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A block stands before LM block i when (i + 1) is a multiple of this.
    pub every: usize,
    /// Attention heads.
    pub heads: i64,
    /// Width of one head.
    pub head_dim: i64,
    /// Inner width of the feed-forward part, in multiples of the LM's width.
    pub ff_mult: i64,
    /// Which audio tokens a text token sees.
    pub frames: Frames,
    /// Only read under [`Frames::FewShotMask`].
    pub max_window_per_audio: i64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            every: 1,
            heads: 8,
            head_dim: 64,
            ff_mult: 4,
            frames: Frames::All,
            max_window_per_audio: 1,
        }
    }
}

impl Config {
    pub(super) fn check(&self, s: &mut Sizes) {
        s.count("every", self.every, EVERY);
        s.within("heads", self.heads, HEADS);
        s.within("head_dim", self.head_dim, HEAD_DIM);
        s.within("ff_mult", self.ff_mult, FF_MULT);
        s.within("max_window_per_audio", self.max_window_per_audio, FRAMES);
    }

    /// Every how many of an LM's `layers` a block stands, by `gate(i)`, the name of the gate before layer i.
    ///
    /// # Errors
    /// Blocks at no even distance.
    pub(crate) fn read_every(
        shapes: Shapes,
        gate: &dyn Fn(usize) -> String,
        path: &Path,
        layers: usize,
    ) -> Result<usize> {
        let have: Vec<usize> = (0..layers.min(*LAYERS.end() as usize))
            .filter(|i| shapes(&gate(*i)).is_some())
            .collect();
        let every = have.first().map(|i| i + 1).unwrap_or(1);
        let expected: Vec<usize> = (0..layers).filter(|i| (i + 1) % every == 0).collect();
        if !have.is_empty() && have != expected {
            return Err(Error::checkpoint(
                path,
                gate(0),
                format!("a cross-attention block before every {every}. layer"),
                format!("blocks before layers {have:?}"),
            ));
        }
        Ok(every)
    }

    /// Blocks in an LM of so many layers.
    pub(crate) fn blocks(&self, layers: usize) -> usize {
        layers / self.every.max(1)
    }

    /// Width of all heads together.
    fn inner(&self) -> f64 {
        (self.heads * self.head_dim) as f64
    }

    /// Floating-point operations of a block's keys and values of `l` frames, `audio` wide.
    pub(crate) fn listen_operations(&self, l: f64, audio: f64) -> f64 {
        4.0 * l * audio * self.inner()
    }

    /// Those of the rest of its forward pass, over `t` text tokens of an LM `d` wide.
    pub(crate) fn operations(&self, t: f64, l: f64, d: f64) -> f64 {
        let inner = self.inner();
        4.0 * t * d * inner + 4.0 * t * l * inner + 4.0 * t * self.ff_mult as f64 * d * d
    }

    /// Bytes that a block keeps of each frame, `audio` wide, for its backward pass: its input and keys and values, at `low` bytes
    /// an element.
    pub(crate) fn listen_activations(&self, audio: f64, low: f64) -> f64 {
        (2.0 * self.inner() + audio) * low
    }

    /// Those of each text token: queries, out and the inner layer twice, at `low` bytes an element of a matrix product, and norms
    /// at `full`.
    pub(crate) fn activations(&self, d: f64, low: f64, full: f64) -> f64 {
        (4.0 + 2.0 * self.ff_mult as f64) * d * low + 2.0 * self.inner() * low + 2.0 * d * full
    }
}

/// What a block attends to: computed once per clip, kept over all decoding steps.
pub struct KeyValue {
    pub(super) k_bhld: Tensor,
    pub(super) v_bhld: Tensor,
}

impl KeyValue {
    pub(super) fn bytes(&self) -> u64 {
        let (k, v) = (&self.k_bhld, &self.v_bhld);
        ((k.numel() + v.numel()) * k.kind().elt_size_in_bytes()) as u64
    }

    /// Each head's keys in one piece: a token reads all of them, and rows of a projection for all heads lie pages apart.
    pub(super) fn by_head(self) -> Self {
        KeyValue {
            k_bhld: self.k_bhld.contiguous(),
            v_bhld: self.v_bhld.contiguous(),
        }
    }
}

/// Texts about one clip, next to each other among others that are written on together.
pub(crate) struct Listener<'a> {
    pub kv: &'a KeyValue,
    pub texts: i64,
    /// Of these texts, see [`frame_mask`].
    pub mask: Option<&'a Tensor>,
}

/// From the texts' own order to clip by clip, and back: (n) int64 each.
pub(crate) struct ByClip {
    pub order: Tensor,
    pub back: Tensor,
}

/// The block.
pub struct GatedCrossAttention {
    attn_gate: Tensor,
    ff_gate: Tensor,
    norm: LayerNorm,
    to_q: Linear,
    to_kv: Linear,
    to_out: Linear,
    ff_norm: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
    heads: i64,
}

impl GatedCrossAttention {
    /// `dim` is the LM's width, `dim_audio` the audio transformer's.
    pub fn new(p: &Scope, config: &Config, dim: i64, dim_audio: i64) -> Self {
        let inner = config.heads * config.head_dim;
        let (a, f) = (p / "attn", p / "ff");
        GatedCrossAttention {
            // Gates begin closed: the frozen LM's answer is untouched at the first step.
            attn_gate: p.weight("attn_gate", &[1], Init::Const(0.0)),
            ff_gate: p.weight("ff_gate", &[1], Init::Const(0.0)),
            norm: LayerNorm::new(&a / "norm", dim, 1e-5),
            to_q: Linear::new(&a / "to_q", dim, inner, false),
            to_kv: Linear::new(&a / "to_kv", dim_audio, 2 * inner, false),
            to_out: Linear::new(&a / "to_out", inner, dim, false),
            ff_norm: LayerNorm::new(&f / 0, dim, 1e-5),
            ff_in: Linear::new(&f / 1, dim, config.ff_mult * dim, false),
            ff_out: Linear::new(&f / 3, config.ff_mult * dim, dim, false),
            heads: config.heads,
        }
    }

    /// # Shapes
    /// `media_bld` (B, L, dim_audio) → keys and values, each (B, H, L, head_dim).
    pub fn key_value(&self, media_bld: &Tensor) -> KeyValue {
        let (b, l, _) = media_bld.size3().unwrap_or((0, 0, 0));
        let kv = self.to_kv.forward(media_bld).chunk(2, -1);
        let heads = |t: &Tensor| t.reshape([b, l, self.heads, -1]).transpose(1, 2);
        KeyValue {
            k_bhld: heads(&kv[0]),
            v_bhld: heads(&kv[1]),
        }
    }

    /// # Shapes
    /// `x_btd` (B, T, dim); `kv` of B clips, or of one that all B texts are about; `mask` from [`frame_mask`];
    /// returns (B, T, dim).
    pub fn forward(&self, x_btd: &Tensor, kv: &KeyValue, mask: Option<&Tensor>) -> Tensor {
        self.gated(x_btd, &self.attend(x_btd, kv, mask))
    }

    /// One new token of each of n texts; `sort` where those about one clip are not next to each other.
    ///
    /// # Shapes
    /// (n, 1, dim) → (n, 1, dim)
    pub(crate) fn speak(&self, x_n1d: &Tensor, listeners: &[Listener], sort: Option<&ByClip>) -> Tensor {
        let place = |t: Tensor, to: Option<&Tensor>| to.map_or(t.shallow_clone(), |to| t.index_select(0, to));
        let q_n1i = place(self.queries(x_n1d), sort.map(|s| &s.order));
        let n = q_n1i.size()[0];
        let q_1hnd = q_n1i.reshape([1, n, self.heads, -1]).transpose(1, 2);
        let mut from = 0;
        let outs: Vec<Tensor> = listeners
            .iter()
            .map(|l| {
                let own = q_1hnd.narrow(2, from, l.texts);
                from += l.texts;
                look(&own, l.kv, l.mask)
            })
            .collect();
        if outs.is_empty() {
            return x_n1d.shallow_clone();
        }
        let out_n1i = Tensor::cat(&outs, 2).transpose(1, 2).reshape([n, 1, -1]);
        let attended = self.to_out.forward(&place(out_n1i, sort.map(|s| &s.back)));
        self.gated(x_n1d, &attended)
    }

    fn gated(&self, x_btd: &Tensor, attended: &Tensor) -> Tensor {
        let x = x_btd + attended * self.attn_gate.tanh();
        let hidden = self.ff_in.forward(&self.ff_norm.forward(&x)).gelu("none");
        &x + self.ff_out.forward(&hidden) * self.ff_gate.tanh()
    }

    /// The attention branch before its gate.
    pub fn attend(&self, x_btd: &Tensor, kv: &KeyValue, mask: Option<&Tensor>) -> Tensor {
        let (b, t, _) = x_btd.size3().unwrap_or((0, 0, 0));
        // Texts about one clip are so many more queries of its keys, which are neither copied nor read once a text.
        let clips = kv.k_bhld.size()[0];
        let queries = b / clips.max(1) * t;
        let q_bti = self.queries(x_btd);
        let q_bhtd = q_bti.reshape([clips, queries, self.heads, -1]).transpose(1, 2);
        let mask = mask.map(|m| match m.size()[0] > clips {
            true => m.reshape([clips, 1, queries, -1]),
            false => m.shallow_clone(),
        });
        let out_bhtd = look(&q_bhtd, kv, mask.as_ref());
        self.to_out.forward(&out_bhtd.transpose(1, 2).reshape([b, t, -1]))
    }

    fn queries(&self, x_btd: &Tensor) -> Tensor {
        self.to_q.forward(&self.norm.forward(x_btd))
    }
}

/// (B, H, T, head_dim) → the same.
fn look(q_bhtd: &Tensor, kv: &KeyValue, mask: Option<&Tensor>) -> Tensor {
    let (k, v) = (&kv.k_bhld, &kv.v_bhld);
    Tensor::scaled_dot_product_attention(q_bhtd, k, v, mask, 0.0, false, None, false)
}

/// The additive mask of every block of one forward pass, or none when every text token may see every frame.
///
/// # Shapes
/// `windows_bw` (B, W) float, 0 on padded windows, each of `tokens` frames; `audio_seen_bt` (B, T) int64, how many `<audio>`
/// tokens stand at or before each text token (needed under [`Frames::FewShotMask`] only);
/// returns (B, 1, 1 or T, L) float32.
pub fn frame_mask(config: &Config, tokens: i64, windows_bw: &Tensor, audio_seen_bt: &Tensor) -> Tensor {
    let real_bl = windows_bw.repeat_interleave_self_int(tokens, Some(1), None);
    let mut hidden_b1l = real_bl.eq(0.0).unsqueeze(1);
    if config.frames == Frames::FewShotMask {
        let frame = Tensor::arange(real_bl.size()[1], (Kind::Int64, real_bl.device()));
        // Reference: text before the first <audio> is treated as if it stood after it.
        let visible_bt1 = audio_seen_bt.clamp_min(1).unsqueeze(-1) * config.max_window_per_audio;
        hidden_b1l = hidden_b1l.logical_or(&frame.ge_tensor(&visible_bt1));
    }
    // Reference: masked_fill with the lowest float32, so a clip with every window padded attends uniformly.
    let lowest = f64::from(f32::MIN);
    let zeros = Tensor::zeros(hidden_b1l.size(), (Kind::Float, real_bl.device()));
    zeros.masked_fill(&hidden_b1l, lowest).unsqueeze(1)
}
