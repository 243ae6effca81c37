//! The published sizes by name.

use super::{audio, audio_transformer, cross_attention, flamingo, lm};
use crate::error::{nearest, Error, Result};

/// Length of Qwen2.5's tokenizer with AF2's four added tokens (the embedding is resized to it).
pub(crate) const QWEN25_VOCAB: i64 = 151_669;
/// Id of `<audio>` in that tokenizer.
pub(crate) const QWEN25_AUDIO_TOKEN: i64 = 151_665;

/// Names that [`preset`] knows.
pub(crate) const NAMES: [&str; 4] = ["af2-0.5b", "af2-1.5b", "af2-3b", "af2-7b"];

/// AF2 over a Qwen2.5 LM of the named size (paper table 19).
pub fn preset(name: &str) -> Result<flamingo::Config> {
    // hidden, intermediate, layers, heads, key/value heads, tied; from the LMs' published config.json.
    let (d, ff, layers, heads, kv, tied) = match name {
        "af2-0.5b" => (896, 4864, 24, 14, 2, true),
        "af2-1.5b" => (1536, 8960, 28, 12, 2, true),
        "af2-3b" => (2048, 11008, 36, 16, 2, true),
        "af2-7b" => (3584, 18944, 28, 28, 4, false),
        other => {
            let e = Error::usage(format!("unknown model `{other}`, expected one of {NAMES:?}"));
            return Err(match nearest(other, NAMES) {
                Some(n) => e.hint(format!("did you mean `{n}`?")),
                None => e,
            });
        }
    };
    Ok(flamingo::Config {
        encoder: audio::Config::published(),
        audio_transformer: audio_transformer::Config::paper(),
        cross_attention: cross_attention::Config::default(),
        lm: lm::Config::Qwen2(lm::qwen2::Config {
            vocab_size: QWEN25_VOCAB,
            hidden_size: d,
            intermediate_size: ff,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv,
            max_position_embeddings: 32768,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            tie_word_embeddings: tied,
        }),
        vocab: QWEN25_VOCAB,
        audio_token: QWEN25_AUDIO_TOKEN,
    })
}
