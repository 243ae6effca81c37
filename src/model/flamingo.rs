//! Audio Flamingo 2: HTSAT → audio transformer → gated cross-attention into a Qwen2 LM.
//!
//! Reference: `Flamingo` and `FlamingoLMMixin`; paper section 3.2, figure 2.

use super::audio_transformer::{self, AudioTransformer};
use super::cross_attention::{self, frame_mask, GatedCrossAttention, KeyValue};
use super::htsat::{self, Htsat, TrainMode};
use super::params::Scope;
use super::qwen2::{self, Cache, Naming, Qwen2};
use crate::shapes::TOKENS_PER_WINDOW;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Everything that fixes the shape of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub htsat: htsat::Config,
    pub audio_transformer: audio_transformer::Config,
    pub cross_attention: cross_attention::Config,
    pub lm: qwen2::Config,
    /// Embedding rows: the tokenizer's length with the four added tokens.
    pub vocab: i64,
    /// Id of `<audio>`.
    pub audio_token: i64,
}

/// The audio of a batch.
pub struct Audio {
    /// (N, 1001, 64) log-mel in dB of the N real windows; none where features are known.
    pub mel_nfm: Tensor,
    /// (B, W) float, 1 on real windows, 0 on padding.
    pub windows_bw: Tensor,
    /// Flat indices b·W + w of the real windows, known on the host.
    pub real: Vec<i64>,
}

impl Audio {
    /// True when no window is padding.
    pub fn full(&self) -> bool {
        self.windows_bw.numel() == self.real.len()
    }
}

/// The text of a batch, padded on the right.
pub struct Text {
    /// (B, T) int64.
    pub ids_bt: Tensor,
    /// (B, T), 0 on padding.
    pub mask_bt: Tensor,
}

/// The joined audio as the LM's blocks see it: keys and values per block, computed once.
pub struct Heard {
    kv: Vec<Option<KeyValue>>,
    windows_bw: Tensor,
    full: bool,
}

impl Heard {
    pub fn device(&self) -> tch::Device {
        self.windows_bw.device()
    }
}

/// What stands between audio file and loss, under the golden files' names.
pub struct Traced {
    /// (B, W, 64, D).
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
    pub clap: Htsat,
    audio_transformer_clap: AudioTransformer,
    lang_encoder: Qwen2,
    cross: Vec<Option<GatedCrossAttention>>,
    pub config: Config,
}

impl Flamingo {
    pub fn new(p: &Scope, config: &Config) -> Self {
        let width = config.htsat.output_dim();
        let clap = Htsat::new(&(p / "clap" / "nvclap"), &config.htsat);
        let audio = AudioTransformer::new(&(p / "audio_transformer_clap"), &config.audio_transformer, width);
        let lang = p / "lang_encoder";
        let every = config.cross_attention.every.max(1);
        let cross = (0..config.lm.num_hidden_layers)
            .map(|i| {
                let q = &lang / "model" / "layers" / i / "gated_cross_attn_layer_sound";
                ((i + 1) % every == 0).then(|| {
                    GatedCrossAttention::new(&q, &config.cross_attention, config.lm.hidden_size, width)
                })
            })
            .collect();
        Flamingo {
            clap,
            audio_transformer_clap: audio,
            lang_encoder: Qwen2::new(&lang, &config.lm, config.vocab, Naming::Wrapped),
            cross,
            config: config.clone(),
        }
    }

    /// # Shapes
    /// Returns (B, W, 64, D). Padded windows are not encoded but zero, unless `encode_padding`: nothing
    /// after this reads them, but the reference computes them, and a comparison may want them.
    pub fn encode(&self, audio: &Audio, mode: TrainMode, encode_padding: bool) -> Tensor {
        let (b, w) = audio.windows_bw.size2().unwrap_or_default();
        let width = self.config.htsat.output_dim();
        let features = if mode.clip_by_clip {
            self.clap.forward_clips(&audio.padded_mels(), mode)
        } else if encode_padding {
            self.clap
                .forward_windows(&audio.padded_mels().flatten(0, 1), mode)
        } else {
            let real = self.clap.forward_windows(&audio.mel_nfm, mode);
            match audio.full() {
                true => real,
                false => audio.scatter(&real, &[TOKENS_PER_WINDOW, width], 0.0),
            }
        };
        features.reshape([b, w, TOKENS_PER_WINDOW, width])
    }

    /// Joins encoded windows in time. (B, W, 64, D) → (B, L = 64·W, D).
    pub fn join(&self, clap_out: &Tensor, windows_bw: &Tensor, train: bool) -> Tensor {
        let real_bl = windows_bw
            .repeat_interleave_self_int(TOKENS_PER_WINDOW, Some(1), None)
            .ne(0.0);
        self.audio_transformer_clap
            .forward(&clap_out.flatten(1, 2), &real_bl, train)
    }

    /// Keys and values of every cross-attention block for joined audio (B, L, D).
    pub fn listen(&self, media_bld: &Tensor, audio: &Audio) -> Heard {
        Heard {
            kv: self
                .cross
                .iter()
                .map(|c| c.as_ref().map(|c| c.key_value(media_bld)))
                .collect(),
            windows_bw: audio.windows_bw.shallow_clone(),
            full: audio.full(),
        }
    }

    /// From mels to what the LM attends to.
    pub fn hear(&self, audio: &Audio, mode: TrainMode, train: bool) -> Heard {
        let clap_out = self.encode(audio, mode, false);
        self.hear_encoded(&clap_out, audio, train)
    }

    /// [`Flamingo::hear`] on features that [`Flamingo::encode`] gave before.
    pub fn hear_encoded(&self, clap_out: &Tensor, audio: &Audio, train: bool) -> Heard {
        self.listen(&self.join(clap_out, &audio.windows_bw, train), audio)
    }

    /// The LM's normed states (B, T, D) for whole texts.
    pub fn states(&self, text: &Text, heard: &Heard) -> Tensor {
        self.run(&text.ids_bt, Some(&text.mask_bt), heard, None, None, &mut |_| {})
    }

    /// Logits (B, T_new, V) of new tokens after those that `cache` holds; nothing may be padded.
    /// `seen_b1` (B, 1) counts the `<audio>` tokens before.
    pub fn decode(&self, ids_bt: &Tensor, heard: &Heard, cache: &mut Cache, seen_b1: &Tensor) -> Tensor {
        let x = self.run(ids_bt, None, heard, Some(cache), Some(seen_b1), &mut |_| {});
        // Only the last token's logits are ever read: at V = 151,669 the others would cost more than the model.
        let last = x.narrow(1, x.size()[1] - 1, 1);
        self.lang_encoder.logits(&last)
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

    /// Mean cross-entropy over the texts' counted labels: position t predicts label t + 1.
    ///
    /// # Shapes
    /// `targets` and `positions` (N): each counted label and the flat index b·T + t of the state that predicts it.
    pub fn loss(&self, text: &Text, heard: &Heard, targets: &Tensor, positions: &Tensor) -> Tensor {
        let states = self.states(text, heard).flatten(0, 1).index_select(0, positions);
        self.logits(&states)
            .cross_entropy_loss::<Tensor>(targets, None, tch::Reduction::Mean, -100, 0.0)
    }

    /// One evaluation pass that keeps what is between.
    pub fn trace(&self, audio: &Audio, text: &Text) -> Traced {
        let clap_out = self.encode(audio, TrainMode::default(), true);
        let audio_transformer_out = self.join(&clap_out, &audio.windows_bw, false);
        let heard = self.listen(&audio_transformer_out, audio);
        let mut layers = Vec::new();
        let states = self.run(
            &text.ids_bt,
            Some(&text.mask_bt),
            &heard,
            None,
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

    fn run(
        &self,
        ids_bt: &Tensor,
        mask_bt: Option<&Tensor>,
        heard: &Heard,
        mut cache: Option<&mut Cache>,
        seen_b1: Option<&Tensor>,
        each_layer: &mut dyn FnMut(&Tensor),
    ) -> Tensor {
        let past = cache.as_ref().map_or(0, |c| c.len());
        let context = self.lang_encoder.context(ids_bt.size()[1], past, mask_bt);
        let few_shot = self.config.cross_attention.frames == cross_attention::Frames::FewShotMask;
        let mask = (few_shot || !heard.full).then(|| {
            let mut seen_bt = ids_bt.eq(self.config.audio_token).cumsum(1, Kind::Int64);
            if let Some(before) = seen_b1 {
                seen_bt += before;
            }
            frame_mask(&self.config.cross_attention, &heard.windows_bw, &seen_bt)
        });
        let mut x = self.lang_encoder.embed(ids_bt);
        for (i, layer) in self.lang_encoder.layers.iter().enumerate() {
            if let (Some(cross), Some(kv)) = (&self.cross[i], &heard.kv[i]) {
                x = cross.forward(&x, kv, mask.as_ref());
            }
            x = layer.forward(&x, &context, cache.as_deref_mut(), i);
            each_layer(&x);
        }
        self.lang_encoder.normed(&x)
    }
}
