//! Audio Flamingo 2: audio encoder → audio transformer → gated cross-attention into an LM.
//!
//! Reference: `Flamingo` and `FlamingoLMMixin`; paper section 3.2, figure 2.

use super::audio::{self, Encoder};
use super::audio_transformer::{self, AudioTransformer};
use super::bounds::{Sizes, Wrong, VOCABULARY};
use super::cross_attention::{self, frame_mask, ByClip, GatedCrossAttention, KeyValue, Listener};
use super::lm::{self, Cache, Context, Decoder, DecoderLayer, Naming, Padding, Slots};
use super::mode::Mode;
use super::params::Scope;
use crate::ffi::kernels::{recompute, Shared};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Everything that fixes the shape of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Under the name of the architecture that was the only one when files were first written.
    #[serde(rename = "htsat")]
    pub encoder: audio::Config,
    /// The audio transformer.
    pub audio_transformer: audio_transformer::Config,
    /// The cross-attention blocks.
    pub cross_attention: cross_attention::Config,
    /// The language model.
    pub lm: lm::Config,
    /// Embedding rows: the tokenizer's length with the four added tokens.
    pub vocab: i64,
    /// Id of `<audio>`.
    pub audio_token: i64,
}

impl Config {
    /// Sizes that cannot be, of any part.
    pub(crate) fn check(&self) -> Vec<Wrong> {
        let mut wrong = self.encoder.check("htsat");
        let width = wrong.is_empty().then(|| self.encoder.width());
        let mut audio = Sizes::of("audio_transformer");
        self.audio_transformer.check(width, &mut audio);
        let mut cross = Sizes::of("cross_attention");
        self.cross_attention.check(&mut cross);
        let mut own = Sizes::of("");
        own.within("vocab", self.vocab, VOCABULARY);
        if !(0..self.vocab).contains(&self.audio_token) {
            own.add(
                "audio_token",
                format!("an id below {}, the vocabulary's size", self.vocab),
                self.audio_token,
            );
        }
        wrong.extend(audio.wrong);
        wrong.extend(cross.wrong);
        wrong.extend(self.lm.check("lm"));
        wrong.extend(own.wrong);
        wrong
    }
}

/// The audio of a batch.
pub struct Audio {
    /// (N, F, M) log-mel in dB of the N real windows; none where features are known.
    pub mel_nfm: Tensor,
    /// (B, W) float, 1 on real windows, 0 on padding.
    pub windows_bw: Tensor,
    /// Flat indices b·W + w of the real windows, known on the host.
    pub real: Vec<i64>,
}

impl Audio {
    /// True when no window is padding.
    pub(crate) fn full(&self) -> bool {
        self.windows_bw.numel() == self.real.len()
    }
}

/// The text of a batch; `Text::from_arrays` makes it.
pub struct Text {
    /// (B, T) int64.
    pub ids_bt: Tensor,
    /// (B, T), 0 on padding.
    pub mask_bt: Tensor,
    /// Whether no row has a token behind padding, known on the host.
    pub(super) padded_behind: bool,
}

impl Text {
    /// What attention must be told where real positions alone are read: nothing, but where a mask from outside has padding
    /// before a text or in it.
    pub(crate) fn padding(&self) -> Padding<'_> {
        match self.padded_behind {
            true => Padding::Behind,
            false => Padding::Masked(&self.mask_bt),
        }
    }
}

/// The joined audio as the LM's blocks see it: keys and values per block, computed once.
pub struct Heard {
    kv: Vec<Option<KeyValue>>,
    windows_bw: Tensor,
    full: bool,
}

impl Heard {
    /// Where it lies.
    pub fn device(&self) -> tch::Device {
        self.windows_bw.device()
    }

    /// Whether no block has anything to attend to: each is passed over.
    fn deaf(&self) -> bool {
        self.kv.iter().all(Option::is_none)
    }

    /// What it holds, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.kv.iter().flatten().map(KeyValue::bytes).sum()
    }

    /// The same, laid out to be listened to token by token.
    pub(crate) fn by_head(self) -> Self {
        Heard {
            kv: self.kv.into_iter().map(|kv| kv.map(KeyValue::by_head)).collect(),
            ..self
        }
    }
}

/// Texts about one clip among others that are written on together: see [`Flamingo::speak`].
pub(crate) struct About<'a> {
    pub heard: &'a Heard,
    /// Which of all texts.
    pub rows: Vec<i64>,
    /// `<audio>` tokens of each of them so far.
    pub seen: Vec<i64>,
}

/// What stands between audio file and loss, under the golden files' names.
pub struct Traced {
    /// (B, W, tokens, D).
    pub clap_out: Tensor,
    /// (B, L, D).
    pub audio_transformer_out: Tensor,
    /// (B, T, D) after each LM layer.
    pub layers: Vec<Tensor>,
    /// (B, T, V).
    pub logits: Tensor,
}

/// The model.
pub struct Flamingo {
    /// The audio encoder.
    pub clap: Encoder,
    audio_transformer_clap: AudioTransformer,
    lang_encoder: Decoder,
    cross: Vec<Option<Shared<GatedCrossAttention>>>,
    /// Its sizes.
    pub config: Config,
}

impl Flamingo {
    /// Its weights, by the names under `p`.
    pub fn new(p: &Scope, config: &Config) -> Self {
        let width = config.encoder.width();
        let clap = Encoder::new(&(p / "clap" / "nvclap"), &config.encoder);
        let audio = AudioTransformer::new(&(p / "audio_transformer_clap"), &config.audio_transformer, width);
        let lang = p / "lang_encoder";
        let lm = config.lm.decoder();
        let every = config.cross_attention.every.max(1);
        let cross = (0..lm.num_hidden_layers)
            .map(|i| {
                let q = &lang / "model" / "layers" / i / "gated_cross_attn_layer_sound";
                ((i + 1) % every == 0).then(|| {
                    Shared::new(GatedCrossAttention::new(
                        &q,
                        &config.cross_attention,
                        lm.hidden_size,
                        width,
                    ))
                })
            })
            .collect();
        Flamingo {
            clap,
            audio_transformer_clap: audio,
            lang_encoder: Decoder::new(&lang, &lm, config.vocab, Naming::Wrapped),
            cross,
            config: config.clone(),
        }
    }

    /// # Shapes
    /// Returns (B, W, tokens, D). Padded windows are not encoded but zero, unless `encode_padding`: nothing
    /// after this reads them, but the reference computes them, and a comparison may want them.
    pub fn encode(&self, audio: &Audio, mode: Mode, encode_padding: bool) -> Tensor {
        let (b, w) = audio.windows_bw.size2().unwrap_or_default();
        let (tokens, width) = (self.tokens(), self.config.encoder.width());
        let features = if mode.encoder.clip_by_clip {
            self.clap.encode_clips(&audio.padded_mels(), mode)
        } else if encode_padding {
            self.clap.encode(&audio.padded_mels().flatten(0, 1), mode)
        } else {
            let real = self.clap.encode(&audio.mel_nfm, mode);
            match audio.full() {
                true => real,
                false => audio.scatter(&real, &[tokens, width], 0.0),
            }
        };
        features.reshape([b, w, tokens, width])
    }

    /// Of each window.
    fn tokens(&self) -> i64 {
        self.config.encoder.tokens_per_window()
    }

    /// Joins encoded windows in time. (B, W, tokens, D) → (B, L = W · tokens, D).
    pub fn join(&self, clap_out: &Tensor, audio: &Audio, mode: Mode) -> Tensor {
        let real_bl = (!audio.full()).then(|| {
            let windows_bw = &audio.windows_bw;
            windows_bw
                .repeat_interleave_self_int(self.tokens(), Some(1), None)
                .ne(0.0)
        });
        self.audio_transformer_clap
            .forward(&clap_out.flatten(1, 2), real_bl.as_ref(), mode)
    }

    /// Keys and values of every cross-attention block for joined audio (B, L, D).
    pub(crate) fn listen(&self, media_bld: &Tensor, audio: &Audio) -> Heard {
        Heard {
            kv: self
                .cross
                .iter()
                .map(|c| c.as_ref().map(|c| c.get().key_value(media_bld)))
                .collect(),
            windows_bw: audio.windows_bw.shallow_clone(),
            full: audio.full(),
        }
    }

    /// Bytes of what is heard of a clip, `element` bytes a number.
    pub(crate) fn heard_bytes(&self, windows: usize, element: u64) -> u64 {
        let (rule, layers) = (&self.config.cross_attention, self.cross.len());
        let frame = 2 * rule.blocks(layers) as u64 * (rule.heads * rule.head_dim) as u64;
        (windows as u64) * self.tokens() as u64 * frame * element
    }

    /// From mels to what the LM attends to.
    pub fn hear(&self, audio: &Audio, mode: Mode) -> Heard {
        let clap_out = self.encode(audio, mode, false);
        self.hear_encoded(&clap_out, audio, mode)
    }

    /// [`Flamingo::hear`] on features that [`Flamingo::encode`] gave before.
    pub(crate) fn hear_encoded(&self, clap_out: &Tensor, audio: &Audio, mode: Mode) -> Heard {
        self.listen(&self.join(clap_out, audio, mode), audio)
    }

    /// No sound: every cross-attention block is passed over, and the LM answers alone.
    pub(crate) fn deaf(&self) -> Heard {
        Heard {
            kv: self.cross.iter().map(|_| None).collect(),
            windows_bw: Tensor::ones([1, 1], (Kind::Float, self.lang_encoder.embed_tokens.device())),
            full: true,
        }
    }

    /// The LM's normed states (B, T, D) for whole texts. Those of padded positions are finite and mean nothing, see
    /// [`Padding::Behind`].
    pub fn states(&self, text: &Text, heard: &Heard, mode: Mode) -> Tensor {
        self.run(&text.ids_bt, text.padding(), heard, mode, None, &mut |_| {})
    }

    /// Normed states (B, T_new, D) of new tokens after those that `cache` holds; padded at most behind them. `heard` is of B
    /// clips, or of one that all B texts are about. `seen_b1` (B, 1) counts the `<audio>` tokens before.
    pub(crate) fn states_after(
        &self,
        ids_bt: &Tensor,
        heard: &Heard,
        cache: &mut Cache,
        seen_b1: &Tensor,
    ) -> Tensor {
        let before = Some((cache, seen_b1));
        self.run(ids_bt, Padding::Behind, heard, Mode::EVAL, before, &mut |_| {})
    }

    /// Logits (B, 1, V) of what follows new tokens; see [`Flamingo::states_after`]. Nothing may be padded.
    pub fn decode(&self, ids_bt: &Tensor, heard: &Heard, cache: &mut Cache, seen_b1: &Tensor) -> Tensor {
        let x = self.states_after(ids_bt, heard, cache, seen_b1);
        // Only the last token's logits are ever read: at V = 151,669 the others would cost more than the model.
        let last = x.narrow(1, x.size()[1] - 1, 1);
        self.lang_encoder.logits(&last)
    }

    /// Logits (B, V) of what follows each of several rows of new tokens about one clip; row i has `lengths[i]` of them, and is filled up
    /// behind. See [`Flamingo::states_after`].
    pub(crate) fn decode_rows(
        &self,
        ids_bt: &Tensor,
        lengths: &[i64],
        heard: &Heard,
        cache: &mut Cache,
        seen_b1: &Tensor,
    ) -> Tensor {
        let x = self.states_after(ids_bt, heard, cache, seen_b1);
        let (most, ends) = (x.size()[1], lengths.iter().enumerate());
        let ends: Vec<i64> = ends.map(|(i, n)| i as i64 * most + n - 1).collect();
        let ends = Tensor::from_slice(&ends).to_device(x.device());
        self.lang_encoder.logits(&x.flatten(0, 1).index_select(0, &ends))
    }

    /// One more token of each text in `slots`; `about` says what each of them is about, each text once.
    ///
    /// # Shapes
    /// `tokens` (n) → logits (n, V) float32 of what follows
    pub(crate) fn speak(&self, tokens: &[i64], about: &[About], slots: &mut Slots) -> Tensor {
        let lm = &self.lang_encoder;
        let device = lm.embed_tokens.device();
        let onto = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        let context = lm.context_at(&slots.begin());
        let few_shot = self.config.cross_attention.frames == cross_attention::Frames::FewShotMask;
        let hearing: Vec<&About> = about.iter().filter(|a| !a.heard.deaf()).collect();
        let masks: Vec<Option<Tensor>> = hearing
            .iter()
            .map(|a| {
                (few_shot || !a.heard.full).then(|| {
                    let (rule, seen_bt) = (&self.config.cross_attention, onto(&a.seen).unsqueeze(0));
                    frame_mask(rule, self.tokens(), &a.heard.windows_bw, &seen_bt)
                })
            })
            .collect();
        // Clip by clip; with texts about no sound among them, as places among those that hear.
        let mut order: Vec<i64> = hearing.iter().flat_map(|a| a.rows.iter().copied()).collect();
        let some = (order.len() < tokens.len()).then(|| {
            let mut rows = order.clone();
            rows.sort_unstable();
            for row in &mut order {
                *row = rows.partition_point(|r| r < row) as i64;
            }
            onto(&rows)
        });
        let sorted = order.iter().copied().eq(0..order.len() as i64);
        let sort = (!sorted).then(|| {
            let order = onto(&order);
            let back = order.argsort(0, false);
            ByClip { order, back }
        });
        let mut x = lm.embed(&onto(tokens).unsqueeze(1));
        for (i, layer) in lm.layers.iter().enumerate() {
            if let Some(cross) = self.cross[i].as_ref().filter(|_| !hearing.is_empty()) {
                let listeners: Vec<Listener> = hearing
                    .iter()
                    .zip(&masks)
                    .filter_map(|(a, mask)| {
                        Some(Listener {
                            kv: a.heard.kv[i].as_ref()?,
                            texts: a.rows.len() as i64,
                            mask: mask.as_ref(),
                        })
                    })
                    .collect();
                x = match &some {
                    None => cross.get().speak(&x, &listeners, sort.as_ref()),
                    Some(rows) => {
                        let own = x.index_select(0, rows);
                        x.index_copy(0, rows, &cross.get().speak(&own, &listeners, sort.as_ref()))
                    }
                };
            }
            x = layer.get().speak(&x, &context, slots, i);
        }
        slots.end();
        lm.logits(&lm.normed(&x)).squeeze_dim(1).to_kind(Kind::Float)
    }

    /// (…, D) normed states → (…, V).
    pub fn logits(&self, states: &Tensor) -> Tensor {
        self.lang_encoder.logits(states)
    }

    /// `<audio>` tokens per text, (B, 1) int64.
    pub fn audio_tokens(&self, ids_bt: &Tensor) -> Tensor {
        ids_bt
            .eq(self.config.audio_token)
            .sum_dim_intlist(1i64, true, Kind::Int64)
    }

    /// The sum of the cross-entropies of the counted labels; see [`Decoder::loss_sum`] for `chunk`.
    ///
    /// # Shapes
    /// `targets`, `positions` (N) of [`super::input::targets`] → scalar float32
    pub fn loss_sum(
        &self,
        text: &Text,
        heard: &Heard,
        targets: &Tensor,
        positions: &Tensor,
        chunk: i64,
        mode: Mode,
    ) -> Tensor {
        let states = self.states(text, heard, mode);
        let states_nd = states.flatten(0, 1).index_select(0, positions);
        self.lang_encoder.loss_sum(&states_nd, targets, chunk)
    }

    /// One evaluation pass that keeps what is between, at padded positions too: a comparison may read them.
    pub fn trace(&self, audio: &Audio, text: &Text) -> Traced {
        let clap_out = self.encode(audio, Mode::EVAL, true);
        let audio_transformer_out = self.join(&clap_out, audio, Mode::EVAL);
        let heard = self.listen(&audio_transformer_out, audio);
        let mut layers = Vec::new();
        let states = self.run(
            &text.ids_bt,
            Padding::Masked(&text.mask_bt),
            &heard,
            Mode::EVAL,
            None,
            &mut |x: &Tensor| layers.push(x.shallow_clone()),
        );
        Traced {
            clap_out,
            audio_transformer_out,
            layers,
            logits: self.logits(&states),
        }
    }

    /// `before`: what the text follows, and how many `<audio>` are in it.
    fn run(
        &self,
        ids_bt: &Tensor,
        padding: Padding,
        heard: &Heard,
        mode: Mode,
        before: Option<(&mut Cache, &Tensor)>,
        each_layer: &mut dyn FnMut(&Tensor),
    ) -> Tensor {
        let (mut cache, seen_b1) = before.unzip();
        let past = cache.as_ref().map_or(0, |c| c.len());
        let context = Shared::new(self.lang_encoder.context(ids_bt.size()[1], past, padding));
        let few_shot = self.config.cross_attention.frames == cross_attention::Frames::FewShotMask;
        let mask = (few_shot || !heard.full).then(|| {
            let mut seen_bt = ids_bt.eq(self.config.audio_token).cumsum(1, Kind::Int64);
            if let Some(before) = seen_b1 {
                seen_bt += before;
            }
            let rule = &self.config.cross_attention;
            frame_mask(rule, self.tokens(), &heard.windows_bw, &seen_bt)
        });
        let mut x = self.lang_encoder.embed(ids_bt);
        for (i, layer) in self.lang_encoder.layers.iter().enumerate() {
            let listens = self.cross[i].as_ref().zip(heard.kv[i].as_ref());
            if mode.recompute {
                x = block_again(x, listens, layer, &context, mask.as_ref(), i);
            } else {
                if let Some((cross, kv)) = listens {
                    x = cross.get().forward(&x, kv, mask.as_ref());
                }
                x = layer.get().forward(&x, &context.get(), cache.as_deref_mut(), i);
            }
            each_layer(&x);
        }
        self.lang_encoder.normed(&x)
    }
}

/// One block whose activations are not kept: cross-attention, where there is one, and the LM's layer.
fn block_again(
    x: Tensor,
    listens: Option<(&Shared<GatedCrossAttention>, &KeyValue)>,
    layer: &Shared<DecoderLayer>,
    context: &Shared<Context>,
    mask: Option<&Tensor>,
    index: usize,
) -> Tensor {
    let mut inputs = vec![x];
    if let Some((_, kv)) = listens {
        inputs.extend([kv.k_bhld.shallow_clone(), kv.v_bhld.shallow_clone()]);
    }
    let cross = listens.map(|(cross, _)| cross.clone());
    let (layer, context) = (layer.clone(), context.clone());
    let mask = mask.map(Tensor::shallow_clone);
    recompute(&inputs, move |t| match (&cross, t) {
        (Some(cross), [x, k, v]) => {
            let kv = KeyValue {
                k_bhld: k.shallow_clone(),
                v_bhld: v.shallow_clone(),
            };
            let x = cross.get().forward(x, &kv, mask.as_ref());
            layer.get().forward(&x, &context.get(), None, index)
        }
        _ => layer.get().forward(&t[0], &context.get(), None, index),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::audio::htsat;
    use crate::model::presets;

    #[test]
    fn published_sizes_are_within_the_bounds() {
        for name in presets::NAMES {
            assert_eq!(presets::preset(name).unwrap().check(), [], "{name}");
        }
    }

    /// Zero, negative, huge and not dividing, for each size that could reach libtorch.
    #[test]
    fn a_size_that_cannot_be_is_named() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 30] = [
            (|c| htsat(c).embed_dim = 0, "htsat.embed_dim"),
            (|c| htsat(c).embed_dim = i64::MAX, "htsat.embed_dim"),
            (|c| htsat(c).embed_dim = -8, "htsat.embed_dim"),
            (|c| htsat(c).depths = vec![], "htsat.depths"),
            (|c| htsat(c).depths[2] = 0, "htsat.depths.2"),
            (|c| htsat(c).num_heads[1] = -8, "htsat.num_heads.1"),
            (|c| htsat(c).num_heads[1] = 7, "htsat.num_heads.1"),
            (|c| htsat(c).num_heads[0] = i64::MAX, "htsat.num_heads.0"),
            (|c| htsat(c).class_num = 0, "htsat.class_num"),
            (|c| c.audio_transformer.n_head = 0, "audio_transformer.n_head"),
            (|c| c.audio_transformer.n_head = -8, "audio_transformer.n_head"),
            (|c| c.audio_transformer.n_head = 7, "audio_transformer.n_head"),
            (
                |c| c.audio_transformer.n_head = 1 << 40,
                "audio_transformer.n_head",
            ),
            (|c| c.audio_transformer.d_inner = -1, "audio_transformer.d_inner"),
            (
                |c| c.audio_transformer.n_layers = 1 << 20,
                "audio_transformer.n_layers",
            ),
            (
                |c| c.audio_transformer.attention_dropout = f64::NAN,
                "audio_transformer.attention_dropout",
            ),
            (|c| c.cross_attention.heads = -8, "cross_attention.heads"),
            (|c| c.cross_attention.heads = 0, "cross_attention.heads"),
            (|c| c.cross_attention.head_dim = -64, "cross_attention.head_dim"),
            (|c| c.cross_attention.every = 0, "cross_attention.every"),
            (|c| c.cross_attention.ff_mult = 1 << 40, "cross_attention.ff_mult"),
            (
                |c| c.cross_attention.max_window_per_audio = 0,
                "cross_attention.max_window_per_audio",
            ),
            (|c| lm(c).hidden_size = -2048, "lm.hidden_size"),
            (|c| lm(c).num_attention_heads = 0, "lm.num_attention_heads"),
            (|c| lm(c).num_key_value_heads = 3, "lm.num_attention_heads"),
            (|c| lm(c).num_hidden_layers = usize::MAX, "lm.num_hidden_layers"),
            (|c| lm(c).rms_norm_eps = -1.0, "lm.rms_norm_eps"),
            (|c| lm(c).rope_theta = 0.0, "lm.rope_theta"),
            (|c| c.vocab = 0, "vocab"),
            (|c| c.audio_token = 1 << 40, "audio_token"),
        ];
        fn lm(c: &mut Config) -> &mut lm::qwen2::Config {
            match &mut c.lm {
                lm::Config::Qwen2(lm) => lm,
                other => panic!("{other:?}"),
            }
        }
        fn htsat(c: &mut Config) -> &mut htsat::Config {
            match &mut c.encoder {
                audio::Config::Htsat(sizes) => sizes,
            }
        }
        for (change, key) in cases {
            let mut config = presets::preset("af2-0.5b").unwrap();
            change(&mut config);
            let wrong = config.check();
            assert!(wrong.iter().any(|w| w.key == key), "{key}: {wrong:?}");
        }
    }

    /// Checkpoints, recipes and the peers of the benches read and write it so.
    #[test]
    fn the_encoder_is_written_as_before_there_were_several() {
        let config = presets::preset("af2-3b").unwrap();
        let json = serde_json::to_value(&config).unwrap();
        let sizes = serde_json::json!({
            "embed_dim": 256, "depths": [2, 2, 12, 2], "num_heads": [4, 8, 16, 32], "class_num": 527,
        });
        assert_eq!(json["htsat"], sizes);
        assert_eq!(serde_json::from_value::<Config>(json).unwrap(), config);
        // The tagging head's classes may be left out, and nothing may be there that is not known.
        let without =
            serde_json::json!({"embed_dim": 256, "depths": [2, 2, 12, 2], "num_heads": [4, 8, 16, 32]});
        assert_eq!(
            serde_json::from_value::<audio::Config>(without).unwrap(),
            config.encoder
        );
        let e = serde_json::from_value::<audio::Config>(serde_json::json!({"embed": 256})).unwrap_err();
        assert!(e.to_string().contains("unknown field `embed`"), "{e}");
    }
}
