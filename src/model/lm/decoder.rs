//! The decoder of every LM family here: RMSNorm, grouped-query attention with rotary positions, SwiGLU.
//!
//! What a family computes beside that is a switch of [`Config`]. Follows Hugging Face's `Qwen2ForCausalLM`,
//! `Qwen3ForCausalLM` and `LlamaForCausalLM`; the names are AF2's, whose reference wraps each decoder layer:
//! `lang_encoder.model.layers.N.decoder_layer.…`.

use super::cache::Cache;
use super::rotary::Rotary;
use super::slots::Slots;
use crate::ffi::kernels::{recompute, Shared};
use crate::model::bounds::{Sizes, HEADS, HEAD_DIM, INNER, LAYERS, POSITIONS, VOCABULARY, WIDTH};
use crate::model::layers::{rotary_tables, rotate_half, Linear, RmsNorm};
use crate::model::mode::Mode;
use crate::model::params::{Init, Scope};
use tch::{Kind, Reduction, Tensor};

/// Sizes and switches, which a family's own configuration makes ([`super::Config::decoder`]).
#[derive(Debug, Clone, PartialEq)]
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
    pub rotary: Rotary,
    /// The head is the embedding.
    pub tie_word_embeddings: bool,
    /// Of queries, keys and values.
    pub qkv_bias: bool,
    /// Of attention's output.
    pub o_bias: bool,
    pub mlp_bias: bool,
    /// RMSNorm of each head's queries and keys, before they are turned.
    pub qk_norm: bool,
}

impl Config {
    /// Width of all heads together.
    fn heads_width(&self) -> i64 {
        self.num_attention_heads.saturating_mul(self.head_dim)
    }

    /// What no family can have.
    pub(super) fn check(&self, s: &mut Sizes) {
        s.within("vocab_size", self.vocab_size, VOCABULARY);
        s.within("hidden_size", self.hidden_size, WIDTH);
        s.within("intermediate_size", self.intermediate_size, INNER);
        s.count("num_hidden_layers", self.num_hidden_layers, LAYERS);
        s.within("num_attention_heads", self.num_attention_heads, HEADS);
        s.within("num_key_value_heads", self.num_key_value_heads, HEADS);
        s.within("max_position_embeddings", self.max_position_embeddings, POSITIONS);
        let (eps, theta) = (self.rms_norm_eps, self.rotary.theta);
        s.number(
            "rms_norm_eps",
            eps,
            eps > 0.0 && eps <= 1.0,
            "a number above 0, at most 1",
        );
        s.number(
            "rope_theta",
            theta,
            (1.0..=1e15).contains(&theta),
            "a number from 1 to 1e15",
        );
        let kv = self.num_key_value_heads;
        s.multiple(
            "num_attention_heads",
            self.num_attention_heads,
            kv,
            "num_key_value_heads",
        );
    }

    /// Where heads share the model's width out.
    pub(super) fn check_shared_width(&self, s: &mut Sizes) {
        let twice = self.num_attention_heads.saturating_mul(2);
        s.multiple(
            "hidden_size",
            self.hidden_size,
            twice,
            "twice num_attention_heads",
        );
    }

    /// Where the configuration says how wide a head is.
    pub(super) fn check_own_width(&self, s: &mut Sizes) {
        s.within("head_dim", self.head_dim, HEAD_DIM);
        s.multiple("head_dim", self.head_dim, 2, "as rotary positions turn pairs");
        s.within("num_attention_heads × head_dim", self.heads_width(), WIDTH);
    }

    /// Floating-point operations of one layer's forward pass over a text of `tokens` tokens.
    pub fn layer_operations(&self, tokens: f64) -> f64 {
        let (d, ff) = (self.hidden_size as f64, self.intermediate_size as f64);
        let q = (self.num_attention_heads * self.head_dim) as f64;
        let kv = (self.num_key_value_heads * self.head_dim) as f64;
        2.0 * tokens * (2.0 * d * q + 2.0 * d * kv + 3.0 * d * ff) + 4.0 * tokens * tokens * q
    }

    /// Bytes that one layer keeps of each token for its backward pass, in texts of `tokens` tokens: `low` bytes an element
    /// of a matrix product, `full` of a norm or a sum. `trains`: its own weights.
    ///
    /// Norms, q, k, v, out, the MLP. In bf16 attention is flash, which keeps one number a head and token of (B, H, T, T); in fp32
    /// grouped heads take libtorch's plain path, which keeps it all: see [`Padding`].
    pub(crate) fn layer_activations(&self, tokens: f64, trains: bool, low: f64, full: f64) -> f64 {
        let (d, ff) = (self.hidden_size as f64, self.intermediate_size as f64);
        let heads = self.num_attention_heads as f64;
        // Repeated for grouped heads, keys and values are as wide as queries.
        let q = heads * self.head_dim as f64;
        let trained = if trains { 2.0 * d + q + ff } else { 0.0 };
        let normed = match self.qk_norm {
            true => (heads + self.num_key_value_heads as f64) * self.head_dim as f64,
            false => 0.0,
        };
        let weights = match low < full || self.num_attention_heads == self.num_key_value_heads {
            true => heads * full,
            false => 3.0 * heads * tokens * full,
        };
        (4.0 * d + normed) * full + weights + (4.0 * q + 3.0 * ff + trained) * low
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
pub struct Decoder {
    /// (V, D).
    pub embed_tokens: Tensor,
    /// The layers, first to last.
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

impl Decoder {
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
        Decoder {
            embed_tokens,
            layers,
            norm,
            lm_head,
            inv_freq: config.rotary.inv_freq(config.head_dim, p.device()),
        }
    }

    /// # Shapes
    /// `ids_bt` (B, T) int64 → (B, T, D)
    pub(crate) fn embed(&self, ids_bt: &Tensor) -> Tensor {
        // Where frozen weights are held in bf16, what runs through the blocks is float32 all the same.
        Tensor::embedding(&self.embed_tokens, ids_bt, -1, false, false).to_kind(Kind::Float)
    }

    /// Positions and what attention needs for `tokens` new tokens after `past` cached ones.
    pub(crate) fn context(&self, tokens: i64, past: i64, padding: Padding) -> Context {
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

    /// One new token of each of n texts, at `positions_n` (n).
    pub(crate) fn context_at(&self, positions_n: &Tensor) -> Context {
        let (cos, sin) = rotary_tables(positions_n, &self.inv_freq);
        let each = |t: Tensor| t.unsqueeze(1).unsqueeze(1);
        Context {
            cos: each(cos),
            sin: each(sin),
            mask: None,
            causal: false,
        }
    }

    /// The final norm. (B, T, D) → (B, T, D).
    pub(crate) fn normed(&self, x_btd: &Tensor) -> Tensor {
        self.norm.forward(x_btd)
    }

    /// The head on normed states. (…, D) → (…, V).
    pub fn logits(&self, x: &Tensor) -> Tensor {
        x.linear(self.head(), None::<&Tensor>)
    }

    /// The head's weight (V, D): the embeddings where they are tied.
    pub(crate) fn head(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// The sum of the cross-entropies of the tokens behind these states. At most `chunk` states' logits (0: all) exist at once: those
    /// of a later chunk take their place, and in training they are computed again in the backward pass.
    ///
    /// # Shapes
    /// `states_nd` (N, D) normed, `targets` (N) int64 → scalar float32
    pub fn loss_sum(&self, states_nd: &Tensor, targets: &Tensor, chunk: i64) -> Tensor {
        let n = targets.numel() as i64;
        let sum = |states: &Tensor, head: &Tensor, targets: &Tensor| {
            let logits = states.linear(head, None::<&Tensor>).to_kind(Kind::Float);
            logits.cross_entropy_loss::<Tensor>(targets, None, Reduction::Sum, -100, 0.0)
        };
        if chunk == 0 || n <= chunk {
            return sum(states_nd, self.head(), targets);
        }
        let starts = (0..n).step_by(chunk as usize);
        let parts: Vec<Tensor> = starts
            .map(|at| {
                let own = chunk.min(n - at);
                let targets = targets.narrow(0, at, own);
                // The head is an input, not held: all chunks share it, and so does the input embedding where it is tied.
                let inputs = [states_nd.narrow(0, at, own), self.head().shallow_clone()];
                recompute(&inputs, move |t| sum(&t[0], &t[1], &targets))
            })
            .collect();
        Tensor::stack(&parts, 0).sum(Kind::Float)
    }

    /// The LM alone, in training: token ids (B, T), padded at most behind each text → normed states (B, T, D).
    pub(crate) fn train_states(&self, ids_bt: &Tensor, mode: Mode) -> Tensor {
        if !mode.recompute {
            return self.states(ids_bt, Padding::Behind, None, &mut |_| {});
        }
        let context = Shared::new(self.context(ids_bt.size()[1], 0, Padding::Behind));
        let mut x = self.embed(ids_bt);
        for (i, layer) in self.layers.iter().enumerate() {
            let (layer, context) = (layer.clone(), context.clone());
            x = recompute(&[x], move |t| layer.get().forward(&t[0], &context.get(), None, i));
        }
        self.normed(&x)
    }

    /// The LM alone: token ids (B, T), padded at most behind each text → logits (B, T, V).
    pub fn forward(&self, ids_bt: &Tensor) -> Tensor {
        self.logits(&self.states(ids_bt, Padding::Behind, None, &mut |_| {}))
    }

    /// The LM alone: the normed states (B, T, D) of T new tokens after those that `cache` holds. `each` sees what goes into
    /// the first layer and what comes out of every one.
    pub fn states(
        &self,
        ids_bt: &Tensor,
        padding: Padding,
        mut cache: Option<&mut Cache>,
        each: &mut dyn FnMut(&Tensor),
    ) -> Tensor {
        let past = cache.as_ref().map_or(0, |c| c.len());
        let context = self.context(ids_bt.size()[1], past, padding);
        let mut x = self.embed(ids_bt);
        each(&x);
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.get().forward(&x, &context, cache.as_deref_mut(), i);
            each(&x);
        }
        self.normed(&x)
    }

    /// The LM alone: one more token of each text in `slots`.
    ///
    /// # Shapes
    /// `tokens` (n) → logits (n, V) float32 of what follows
    pub(crate) fn speak(&self, tokens: &[i64], slots: &mut Slots) -> Tensor {
        let device = self.embed_tokens.device();
        let context = self.context_at(&slots.begin());
        let mut x = self.embed(&Tensor::from_slice(tokens).to_device(device).unsqueeze(1));
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.get().speak(&x, &context, slots, i);
        }
        slots.end();
        self.logits(&self.normed(&x)).squeeze_dim(1).to_kind(Kind::Float)
    }
}

/// One decoder layer.
pub struct DecoderLayer {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Of queries and of keys.
    head_norms: Option<(RmsNorm, RmsNorm)>,
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
        let (d, hd, ff) = (c.hidden_size, c.head_dim, c.intermediate_size);
        let (q, kv) = (c.num_attention_heads * hd, c.num_key_value_heads * hd);
        let linear =
            |p: Scope, i: i64, o: i64, bias: bool| Linear::with_init(p, i, o, bias, Init::Normal(0.02));
        let norm = |p: Scope, width: i64| RmsNorm::new(p, width, c.rms_norm_eps);
        // In transformers' order, by which an optimizer's state is numbered.
        DecoderLayer {
            q_proj: linear(&a / "q_proj", d, q, c.qkv_bias),
            k_proj: linear(&a / "k_proj", d, kv, c.qkv_bias),
            v_proj: linear(&a / "v_proj", d, kv, c.qkv_bias),
            o_proj: linear(&a / "o_proj", q, d, c.o_bias),
            head_norms: c
                .qk_norm
                .then(|| (norm(&a / "q_norm", hd), norm(&a / "k_norm", hd))),
            gate_proj: linear(&m / "gate_proj", d, ff, c.mlp_bias),
            up_proj: linear(&m / "up_proj", d, ff, c.mlp_bias),
            down_proj: linear(&m / "down_proj", ff, d, c.mlp_bias),
            input_layernorm: norm(p / "input_layernorm", d),
            post_attention_layernorm: norm(p / "post_attention_layernorm", d),
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
        self.around(x_btd, |y| {
            let (q_bhtd, k_bhtd, v_bhtd) = self.heads_of(y, context);
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
            out.transpose(1, 2).flatten(2, 3)
        })
    }

    /// One new token of each text in `slots`. (n, 1, D) → (n, 1, D)
    pub(crate) fn speak(&self, x_n1d: &Tensor, context: &Context, slots: &Slots, index: usize) -> Tensor {
        self.around(x_n1d, |y| {
            let (q, k, v) = self.heads_of(y, context);
            slots.attend(index, &q, &k, &v)
        })
    }

    /// The layer around its attention, which makes (B, T, all heads) of normed states (B, T, D).
    fn around(&self, x_btd: &Tensor, attention: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        let attended = attention(&self.input_layernorm.forward(x_btd));
        let x = x_btd + self.o_proj.forward(&attended);
        let y = self.post_attention_layernorm.forward(&x);
        let hidden = self.gate_proj.forward(&y).silu() * self.up_proj.forward(&y);
        x + self.down_proj.forward(&hidden)
    }

    /// Queries, keys and values of normed states, the first two turned to their positions: (B, H, T, head_dim) each.
    fn heads_of(&self, x: &Tensor, context: &Context) -> (Tensor, Tensor, Tensor) {
        let (b, t, _) = x.size3().unwrap_or((0, 0, 0));
        let heads = |y: Tensor, n: i64| y.reshape([b, t, n, self.head_dim]).transpose(1, 2);
        // Under autocast attention would cast what is normed and turned in fp32: cast here, the cache holds it as it is used.
        let turn = |y: Tensor, norm: Option<&RmsNorm>| {
            let kind = y.kind();
            let y = norm.map_or(y.shallow_clone(), |n| n.forward(&y.to_kind(Kind::Float)));
            (&y * &context.cos + rotate_half(&y) * &context.sin).to_kind(kind)
        };
        let (q_norm, k_norm) = self.head_norms.as_ref().map(|(q, k)| (q, k)).unzip();
        (
            turn(heads(self.q_proj.forward(x), self.heads), q_norm),
            turn(heads(self.k_proj.forward(x), self.kv_heads), k_norm),
            heads(self.v_proj.forward(x), self.kv_heads),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lm::qwen2;
    use crate::model::params::{Origin, Store};
    use tch::Device;

    fn lm() -> Decoder {
        tch::manual_seed(1);
        let config = qwen2::Config {
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
        }
        .decoder();
        let store = Store::new(Origin::Fresh, Device::Cpu);
        let lm = Decoder::new(&store.root(), &config, 50, Naming::Plain);
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
        let run = |padding: Padding| lm.states(&ids, padding, None, &mut |_| {});
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
