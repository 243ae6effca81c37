//! Bounds of every size that a file gives: configurations, checkpoints' tensors, recipes. What lies outside is a slip or
//! worse, and must reach neither an allocation nor libtorch.

use super::{audio_transformer, clap, cross_attention, flamingo, htsat, t5};
use std::ops::RangeInclusive;

/// Rows of an embedding.
pub const VOCABULARY: RangeInclusive<i64> = 1..=1 << 24;
/// Width of a transformer, of a head, of a projection.
pub const WIDTH: RangeInclusive<i64> = 1..=1 << 17;
/// Inner width of a feed-forward part.
pub const INNER: RangeInclusive<i64> = 1..=1 << 19;
pub const LAYERS: RangeInclusive<i64> = 1..=1 << 10;
pub const HEADS: RangeInclusive<i64> = 1..=1 << 12;
pub const HEAD_DIM: RangeInclusive<i64> = 1..=1 << 12;
/// LM layers for each cross-attention block.
pub const EVERY: RangeInclusive<i64> = LAYERS;
/// Inner width in multiples of the LM's.
pub const FF_MULT: RangeInclusive<i64> = 1..=1 << 6;
/// Frames for each `<audio>` under the training tree's mask.
pub const FRAMES: RangeInclusive<i64> = 1..=1 << 20;
/// Windows of 10 s of one clip.
pub const WINDOWS: RangeInclusive<i64> = 1..=1 << 12;
pub const POSITIONS: RangeInclusive<i64> = 1..=1 << 30;
/// Stages of HTSAT: its 64 tokens a window come of four.
pub const ENCODER_STAGES: usize = 4;
/// Its first width: the fusion of longer clips works in a quarter of it.
pub const ENCODER_WIDTH: RangeInclusive<i64> = 4..=1 << 13;
pub const ENCODER_DEPTH: RangeInclusive<i64> = 1..=1 << 8;
pub const ENCODER_HEADS: RangeInclusive<i64> = 1..=1 << 10;
pub const CLASSES: RangeInclusive<i64> = 1..=1 << 16;

/// A size that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// As the configuration writes it, such as `audio_transformer.n_head`.
    pub key: String,
    pub expected: String,
    pub found: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(
            f,
            "{}: expected {}, found {}",
            self.key, self.expected, self.found
        )
    }
}

/// Collects what is wrong under one place, such as `clap.text`.
pub(super) struct Sizes {
    place: &'static str,
    pub(super) wrong: Vec<Wrong>,
}

impl Sizes {
    pub(super) fn of(place: &'static str) -> Self {
        Sizes {
            place,
            wrong: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, key: &str, expected: impl Into<String>, found: impl ToString) {
        let dot = if self.place.is_empty() { "" } else { "." };
        self.wrong.push(Wrong {
            key: format!("{}{dot}{key}", self.place),
            expected: expected.into(),
            found: found.to_string(),
        });
    }

    pub(super) fn within(&mut self, key: &str, value: i64, bounds: RangeInclusive<i64>) {
        if !bounds.contains(&value) {
            self.add(key, format!("{} to {}", bounds.start(), bounds.end()), value);
        }
    }

    pub(super) fn count(&mut self, key: &str, value: usize, bounds: RangeInclusive<i64>) {
        self.within(key, i64::try_from(value).unwrap_or(i64::MAX), bounds);
    }

    pub(super) fn number(&mut self, key: &str, value: f64, fits: bool, expected: &str) {
        if !(value.is_finite() && fits) {
            self.add(key, expected, value);
        }
    }

    /// `whole` is a multiple of `part`; told only where both are sizes that can be.
    pub(super) fn multiple(&mut self, key: &str, whole: i64, part: i64, what: &str) {
        if whole > 0 && part > 0 && whole % part != 0 {
            self.add(key, format!("a multiple of {part}, {what}"), whole);
        }
    }
}

/// The audio transformer's sizes over features `width` wide; without it only its own.
pub fn audio_transformer(
    c: &audio_transformer::Config,
    width: Option<i64>,
    place: &'static str,
) -> Vec<Wrong> {
    let mut s = Sizes::of(place);
    s.within("n_head", c.n_head, HEADS);
    s.within("d_inner", c.d_inner, INNER);
    s.count("n_layers", c.n_layers, 0..=*LAYERS.end());
    let rate = c.attention_dropout;
    s.number(
        "attention_dropout",
        rate,
        (0.0..1.0).contains(&rate),
        "a number from 0, below 1",
    );
    if let (true, Some(width)) = (s.wrong.is_empty(), width) {
        let head = width / c.n_head;
        let rotated = audio_transformer::rotary_dims(head);
        if width % c.n_head != 0 || rotated > head || rotated % 2 != 0 {
            let expected =
                format!("heads of at least 32 dimensions, an even half of them, that divide {width}");
            s.add("n_head", expected, c.n_head);
        }
    }
    s.wrong
}

/// The cross-attention's sizes.
pub fn cross_attention(c: &cross_attention::Config, place: &'static str) -> Vec<Wrong> {
    let mut s = Sizes::of(place);
    s.count("every", c.every, EVERY);
    s.within("heads", c.heads, HEADS);
    s.within("head_dim", c.head_dim, HEAD_DIM);
    s.within("ff_mult", c.ff_mult, FF_MULT);
    s.within("max_window_per_audio", c.max_window_per_audio, FRAMES);
    s.wrong
}

/// The audio encoder's sizes.
pub fn htsat(c: &htsat::Config, place: &'static str) -> Vec<Wrong> {
    let mut s = Sizes::of(place);
    s.within("embed_dim", c.embed_dim, ENCODER_WIDTH);
    s.within("class_num", c.class_num, CLASSES);
    for (key, found) in [("depths", c.depths.len()), ("num_heads", c.num_heads.len())] {
        if found != ENCODER_STAGES {
            s.add(key, format!("{ENCODER_STAGES} stages"), found);
        }
    }
    for (i, depth) in c.depths.iter().enumerate().take(ENCODER_STAGES) {
        s.count(&format!("depths.{i}"), *depth, ENCODER_DEPTH);
    }
    for (i, heads) in c.num_heads.iter().enumerate().take(ENCODER_STAGES) {
        let key = format!("num_heads.{i}");
        s.within(&key, *heads, ENCODER_HEADS);
        let width = c.embed_dim.saturating_mul(1 << i);
        if *heads > 0 && width > 0 && width % heads != 0 {
            s.add(
                &key,
                format!("heads that divide the stage's width {width}"),
                heads,
            );
        }
    }
    s.wrong
}

/// The sizes of AF-CLAP's text tower.
pub fn t5(c: &t5::Config, place: &'static str) -> Vec<Wrong> {
    let mut s = Sizes::of(place);
    s.within("vocab_size", c.vocab_size, VOCABULARY);
    for (key, value) in [("d_model", c.d_model), ("d_kv", c.d_kv), ("d_ff", c.d_ff)] {
        s.within(key, value, WIDTH);
    }
    s.within("num_heads", c.num_heads, HEADS);
    s.count("num_layers", c.num_layers, LAYERS);
    // Half of the buckets for each direction, half of these exact.
    let buckets = c.relative_attention_num_buckets;
    s.within("relative_attention_num_buckets", buckets, 4..=1 << 16);
    s.within(
        "relative_attention_max_distance",
        c.relative_attention_max_distance,
        buckets.clamp(1, 1 << 16)..=1 << 20,
    );
    s.wrong
}

/// The sizes of both towers of AF-CLAP.
pub fn clap(c: &clap::Config) -> Vec<Wrong> {
    let mut s = Sizes::of("clap");
    s.within("joint_dim", c.joint_dim, WIDTH);
    s.wrong.extend(htsat(&c.audio, "clap.audio"));
    s.wrong.extend(t5(&c.text, "clap.text"));
    s.wrong
}

/// All sizes of a model.
pub fn flamingo(c: &flamingo::Config) -> Vec<Wrong> {
    let mut wrong = htsat(&c.htsat, "htsat");
    let width = wrong.is_empty().then(|| c.htsat.output_dim());
    wrong.extend(audio_transformer(
        &c.audio_transformer,
        width,
        "audio_transformer",
    ));
    wrong.extend(cross_attention(&c.cross_attention, "cross_attention"));
    wrong.extend(c.lm.check("lm"));
    let mut s = Sizes::of("");
    s.within("vocab", c.vocab, VOCABULARY);
    if !(0..c.vocab).contains(&c.audio_token) {
        s.add(
            "audio_token",
            format!("an id below {}, the vocabulary's size", c.vocab),
            c.audio_token,
        );
    }
    wrong.extend(s.wrong);
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{lm, presets};

    #[test]
    fn published_sizes_are_within_the_bounds() {
        for name in presets::NAMES {
            assert_eq!(flamingo(&presets::preset(name).unwrap()), [], "{name}");
        }
        let clap_sizes = clap::Config {
            audio: htsat::Config::large(),
            text: t5::Config::flan_t5_large(),
            joint_dim: 512,
        };
        assert_eq!(clap(&clap_sizes), []);
    }

    /// Zero, negative, huge and not dividing, for each size that could reach libtorch.
    #[test]
    fn a_size_that_cannot_be_is_named() {
        type Change = fn(&mut flamingo::Config);
        let cases: [(Change, &str); 30] = [
            (|c| c.htsat.embed_dim = 0, "htsat.embed_dim"),
            (|c| c.htsat.embed_dim = i64::MAX, "htsat.embed_dim"),
            (|c| c.htsat.embed_dim = -8, "htsat.embed_dim"),
            (|c| c.htsat.depths = vec![], "htsat.depths"),
            (|c| c.htsat.depths[2] = 0, "htsat.depths.2"),
            (|c| c.htsat.num_heads[1] = -8, "htsat.num_heads.1"),
            (|c| c.htsat.num_heads[1] = 7, "htsat.num_heads.1"),
            (|c| c.htsat.num_heads[0] = i64::MAX, "htsat.num_heads.0"),
            (|c| c.htsat.class_num = 0, "htsat.class_num"),
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
        fn lm(c: &mut flamingo::Config) -> &mut lm::qwen2::Config {
            match &mut c.lm {
                lm::Config::Qwen2(lm) => lm,
                other => panic!("{other:?}"),
            }
        }
        for (change, key) in cases {
            let mut config = presets::preset("af2-0.5b").unwrap();
            change(&mut config);
            let wrong = flamingo(&config);
            assert!(wrong.iter().any(|w| w.key == key), "{key}: {wrong:?}");
        }
    }
}
