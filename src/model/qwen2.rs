//! The Qwen2 decoder: RMSNorm, grouped-query attention with rotary positions, SwiGLU.
//!
//! Follows Hugging Face's `Qwen2ForCausalLM` (the LM of the paper is Qwen2.5-3B); the names are AF2's, whose
//! reference wraps each decoder layer: `lang_encoder.model.layers.N.decoder_layer.…`.

use super::layers::{rotary_tables, rotate_half, Linear, RmsNorm};
use super::params::{Init, Scope};
use crate::error::Result;
use crate::ffi::kernels::Shared;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// The part of a Hugging Face `config.json` that fixes the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Reads and checks an LM folder's `config.json`; refuses what this decoder does not compute.
    pub fn read(folder: &Path) -> Result<Self> {
        super::hf_config::read(&folder.join("config.json"))
    }

    pub fn head_dim(&self) -> i64 {
        self.hidden_size / self.num_attention_heads
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

/// Keys and values of the text so far, per layer (B, H_kv, T, head_dim).
#[derive(Default)]
pub struct Cache {
    layers: Vec<Option<(Tensor, Tensor)>>,
}

impl Cache {
    /// Tokens held.
    pub fn len(&self) -> i64 {
        match self.layers.first() {
            Some(Some((k, _))) => k.size()[2],
            _ => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn extend(&mut self, layer: usize, k: Tensor, v: Tensor) -> (Tensor, Tensor) {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, || None);
        }
        let (k, v) = match self.layers[layer].take() {
            Some((k0, v0)) => (Tensor::cat(&[k0, k], 2), Tensor::cat(&[v0, v], 2)),
            None => (k, v),
        };
        self.layers[layer] = Some((k.shallow_clone(), v.shallow_clone()));
        (k, v)
    }
}

/// What attention is told of padding, beside that no token sees what comes after it.
///
/// What libtorch 2.11 runs where (its `sdp_utils`; on CUDA with cuDNN's attention off), the LM's heads being grouped
/// (`enable_gqa`):
///
/// | | CUDA, bf16 | CUDA, fp32 | CPU |
/// |---|---|---|---|
/// | [`Padding::Behind`] | flash: takes groups, no mask | math: flash has no fp32, the memory-efficient kernel no groups | flash |
/// | [`Padding::Masked`] | math, in fp32: flash takes no mask, the memory-efficient kernel no groups | math | flash |
///
/// The math path keeps (B, H, T, T) in fp32 for the backward pass, flash the output and one number a head and token.
#[derive(Clone, Copy)]
pub enum Padding<'a> {
    /// None, or all of it behind the text: no mask is needed. What real tokens compute is the same to the last bit as if they
    /// had one; padded positions see the text before them and themselves, which is finite, and which nobody may read.
    Behind,
    /// (B, past + T), 0 where nobody may look, wherever that is; padded positions come out as the reference's do.
    Masked(&'a Tensor),
}

/// What all layers of one forward pass share.
pub struct Context {
    cos: Tensor,
    sin: Tensor,
    mask: Option<Tensor>,
    causal: bool,
}

/// Embeddings, decoder layers and head; the cross-attention between them is the caller's.
pub struct Qwen2 {
    pub embed_tokens: Tensor,
    pub layers: Vec<Shared<DecoderLayer>>,
    norm: RmsNorm,
    lm_head: Option<Tensor>,
    inv_freq: Tensor,
}

/// How an LM's layers are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `model.layers.N.self_attn…`, a plain Hugging Face folder.
    Plain,
    /// `model.layers.N.decoder_layer.self_attn…`, inside AF2.
    Wrapped,
}

impl Qwen2 {
    /// `p` is `lang_encoder` inside AF2, the root for an LM alone. `vocab` is the number of embedding rows
    /// (the tokenizer's length inside AF2).
    pub fn new(p: &Scope, config: &Config, vocab: i64, naming: Naming) -> Self {
        let m = p / "model";
        let embed_tokens =
            (&m / "embed_tokens").weight("weight", &[vocab, config.hidden_size], Init::Normal(0.02));
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let q = &m / "layers" / i;
                let q = if naming == Naming::Wrapped {
                    q / "decoder_layer"
                } else {
                    q
                };
                Shared::new(DecoderLayer::new(&q, config))
            })
            .collect();
        let norm = RmsNorm::new(&m / "norm", config.hidden_size, config.rms_norm_eps);
        let lm_head = (!config.tie_word_embeddings)
            .then(|| (p / "lm_head").weight("weight", &[vocab, config.hidden_size], Init::Normal(0.02)));
        let dim = config.head_dim();
        let exponents = Tensor::arange_start_step(0, dim, 2, (Kind::Float, p.device())) / dim as f64;
        // 1 / theta^x in float32, as the reference computes it.
        let inv_freq = Tensor::full([1], config.rope_theta, (Kind::Float, p.device()))
            .pow(&exponents)
            .reciprocal();
        Qwen2 {
            embed_tokens,
            layers,
            norm,
            lm_head,
            inv_freq,
        }
    }

    /// # Shapes
    /// `ids_bt` (B, T) int64 → (B, T, D)
    pub fn embed(&self, ids_bt: &Tensor) -> Tensor {
        // Where frozen weights are held in bf16, what runs through the blocks is float32 all the same.
        Tensor::embedding(&self.embed_tokens, ids_bt, -1, false, false).to_kind(Kind::Float)
    }

    /// Positions and what attention needs for `tokens` new tokens after `past` cached ones.
    pub fn context(&self, tokens: i64, past: i64, padding: Padding) -> Context {
        let device = self.embed_tokens.device();
        let positions = Tensor::arange_start(past, past + tokens, (Kind::Int64, device));
        let (cos, sin) = rotary_tables(&positions, &self.inv_freq);
        let causal_tk = || {
            let keys = Tensor::arange(past + tokens, (Kind::Int64, device));
            keys.le_tensor(&positions.unsqueeze(-1))
        };
        let mask = match padding {
            Padding::Masked(real) => Some(causal_tk().logical_and(&real.ne(0).unsqueeze(1)).unsqueeze(1)),
            // A block of new tokens after cached ones needs its own triangle; one token sees everything.
            Padding::Behind if past > 0 && tokens > 1 => Some(causal_tk()),
            Padding::Behind => None,
        };
        Context {
            causal: mask.is_none() && past == 0 && tokens > 1,
            cos,
            sin,
            mask,
        }
    }

    /// The final norm. (B, T, D) → (B, T, D).
    pub fn normed(&self, x_btd: &Tensor) -> Tensor {
        self.norm.forward(x_btd)
    }

    /// The head on normed states. (…, D) → (…, V).
    pub fn logits(&self, x: &Tensor) -> Tensor {
        x.linear(self.head(), None::<&Tensor>)
    }

    /// The head's weight (V, D): the embeddings where they are tied.
    pub fn head(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// The LM alone: token ids (B, T), padded at most behind each text → logits (B, T, V).
    pub fn forward(&self, ids_bt: &Tensor) -> Tensor {
        let context = self.context(ids_bt.size()[1], 0, Padding::Behind);
        let mut x = self.embed(ids_bt);
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.get().forward(&x, &context, None, i);
        }
        self.logits(&self.normed(&x))
    }
}

/// One decoder layer.
pub struct DecoderLayer {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
}

impl DecoderLayer {
    fn new(p: &Scope, c: &Config) -> Self {
        let (a, m) = (p / "self_attn", p / "mlp");
        let (d, hd, init) = (c.hidden_size, c.head_dim(), Init::Normal(0.02));
        let linear = |p: Scope, i: i64, o: i64, bias: bool| Linear::with_init(p, i, o, bias, init);
        DecoderLayer {
            q_proj: linear(&a / "q_proj", d, c.num_attention_heads * hd, true),
            k_proj: linear(&a / "k_proj", d, c.num_key_value_heads * hd, true),
            v_proj: linear(&a / "v_proj", d, c.num_key_value_heads * hd, true),
            o_proj: linear(&a / "o_proj", c.num_attention_heads * hd, d, false),
            gate_proj: linear(&m / "gate_proj", d, c.intermediate_size, false),
            up_proj: linear(&m / "up_proj", d, c.intermediate_size, false),
            down_proj: linear(&m / "down_proj", c.intermediate_size, d, false),
            input_layernorm: RmsNorm::new(p / "input_layernorm", d, c.rms_norm_eps),
            post_attention_layernorm: RmsNorm::new(p / "post_attention_layernorm", d, c.rms_norm_eps),
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head_dim: hd,
        }
    }

    /// # Shapes
    /// `x_btd` (B, T, D) → (B, T, D). With a cache, T new tokens follow the cached ones.
    pub fn forward(
        &self,
        x_btd: &Tensor,
        context: &Context,
        cache: Option<&mut Cache>,
        index: usize,
    ) -> Tensor {
        let x = x_btd + self.attention(&self.input_layernorm.forward(x_btd), context, cache, index);
        let y = self.post_attention_layernorm.forward(&x);
        let hidden = self.gate_proj.forward(&y).silu() * self.up_proj.forward(&y);
        x + self.down_proj.forward(&hidden)
    }

    fn attention(&self, x: &Tensor, context: &Context, cache: Option<&mut Cache>, index: usize) -> Tensor {
        let (b, t, _) = x.size3().unwrap_or((0, 0, 0));
        let heads = |y: Tensor, n: i64| y.reshape([b, t, n, self.head_dim]).transpose(1, 2);
        // Under autocast attention would cast what is turned in fp32: cast here, the cache holds it as it is used.
        let turn = |y: Tensor| (&y * &context.cos + rotate_half(&y) * &context.sin).to_kind(y.kind());
        let q_bhtd = turn(heads(self.q_proj.forward(x), self.heads));
        let k_bhtd = turn(heads(self.k_proj.forward(x), self.kv_heads));
        let v_bhtd = heads(self.v_proj.forward(x), self.kv_heads);
        let (k_bhtd, v_bhtd) = match cache {
            Some(cache) => cache.extend(index, k_bhtd, v_bhtd),
            None => (k_bhtd, v_bhtd),
        };
        let out = Tensor::scaled_dot_product_attention(
            &q_bhtd,
            &k_bhtd,
            &v_bhtd,
            context.mask.as_ref(),
            0.0,
            context.causal,
            None,
            self.heads != self.kv_heads,
        );
        self.o_proj.forward(&out.transpose(1, 2).reshape([b, t, -1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::{Origin, Store};
    use tch::Device;

    fn lm() -> Qwen2 {
        tch::manual_seed(1);
        let config = Config {
            vocab_size: 50,
            hidden_size: 32,
            intermediate_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            tie_word_embeddings: true,
        };
        let store = Store::new(Origin::Fresh, Device::Cpu);
        let lm = Qwen2::new(&store.root(), &config, 50, Naming::Plain);
        store.finish().unwrap();
        lm
    }

    /// A mask would shut flash attention out on CUDA, which its own rules say (`check_for_attn_mask`).
    #[test]
    fn padding_behind_the_text_needs_no_mask_but_a_block_after_a_cache_and_a_hole_do() {
        let lm = lm();
        let context = lm.context(7, 0, Padding::Behind);
        assert!(context.mask.is_none() && context.causal);
        let next = lm.context(1, 7, Padding::Behind);
        assert!(next.mask.is_none() && !next.causal);
        let block = lm.context(3, 7, Padding::Behind);
        assert_eq!(block.mask.unwrap().size(), [3, 10]);
        let real = Tensor::from_slice(&[0u8, 1, 1, 0, 1]).unsqueeze(0);
        let masked = lm.context(5, 0, Padding::Masked(&real));
        assert_eq!(masked.mask.unwrap().size(), [1, 1, 5, 5]);
        assert!(!masked.causal);
    }

    /// The kernel that libtorch says it would choose for what a layer hands over: 1 is flash.
    #[test]
    fn causal_grouped_attention_is_a_fused_kernels() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let heads = |n: i64| Tensor::randn([2, n, 9, 8], (kind, Device::Cpu)).set_requires_grad(true);
            let (q, k, v) = (heads(4), heads(2), heads(2));
            let choice =
                Tensor::internal_fused_sdp_choice(&q, &k, &v, None::<&Tensor>, 0.0, true, None, true);
            assert_eq!(choice, 1, "{kind:?}");
        }
    }

    /// The LM's own part of what `tests/golden_flamingo.rs` shows of the whole model; rows without a text are finite, too.
    #[test]
    fn real_tokens_are_the_same_with_and_without_a_mask() {
        let lm = lm();
        let ids = Tensor::randint(50, [3, 6], (Kind::Int64, Device::Cpu));
        let real = Tensor::from_slice2(&[[1u8, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]);
        let run = |padding: Padding| {
            let context = lm.context(6, 0, padding);
            let mut x = lm.embed(&ids);
            for (i, layer) in lm.layers.iter().enumerate() {
                x = layer.get().forward(&x, &context, None, i);
            }
            lm.normed(&x)
        };
        let (with, without) = (run(Padding::Masked(&real)), run(Padding::Behind));
        assert!(without.isfinite().all().int64_value(&[]) == 1);
        let read = real.ne(0).unsqueeze(-1);
        assert!(with
            .masked_select(&read)
            .allclose(&without.masked_select(&read), 0.0, 1e-6, false));
        assert!(
            !with.allclose(&without, 0.0, 1e-3, false),
            "padded positions differ"
        );
    }
}
