//! Bounds of the sizes that a recipe gives: what lies outside is a slip, and must not reach an allocation.

use super::{ClapRecipe, LmRecipe, OptimRecipe, Recipe};
use std::ops::RangeInclusive;

/// Stages of the audio encoder: its 64 tokens a window come of four.
const ENCODER_STAGES: usize = 4;

/// Sizes that are out of bounds or do not divide; each message begins with the key.
pub(super) fn wrong(recipe: &Recipe) -> Vec<String> {
    let mut sizes = Sizes(Vec::new());
    for stage in &recipe.stages {
        let place = format!("stages.{}", stage.name);
        sizes.optim(&place, &stage.optim);
        if let Some(budget) = &stage.batch_budget {
            let place = format!("{place}.batch_budget");
            sizes.counts(&place, &[("windows", budget.windows)], 1..=1 << 24);
            // Both are without bound where nothing is said.
            let all = [
                ("items", budget.items),
                ("tokens", budget.tokens),
                ("multiple", budget.multiple),
            ];
            sizes.counts(&place, &all, 1..=i64::MAX);
        }
    }
    if let Some(lm) = &recipe.lm {
        sizes.language_model(lm);
    }
    if let Some(clap) = &recipe.clap {
        sizes.clap(clap);
    }
    sizes.joint(recipe);
    sizes.0
}

struct Sizes(Vec<String>);

impl Sizes {
    fn within(&mut self, key: String, value: i64, bounds: RangeInclusive<i64>) {
        if !bounds.contains(&value) {
            let (least, most) = bounds.into_inner();
            self.0
                .push(format!("{key}: {value} is not from {least} to {most}"));
        }
    }

    fn counts(&mut self, place: &str, all: &[(&str, usize)], bounds: RangeInclusive<i64>) {
        for (key, value) in all {
            let value = i64::try_from(*value).unwrap_or(i64::MAX);
            self.within(format!("{place}.{key}"), value, bounds.clone());
        }
    }

    /// `part` must divide `whole`; told only where both are numbers that can be.
    fn divides(&mut self, key: &str, (part, of): (i64, &str), whole: i64) {
        if part > 0 && whole > 0 && whole % part != 0 {
            self.0
                .push(format!("{key}: {whole} is no multiple of {part}, {of}"));
        }
    }

    fn optim(&mut self, place: &str, o: &OptimRecipe) {
        let place = format!("{place}.optim");
        let mut all = vec![("batch_size", o.batch_size), ("accumulate", o.accumulate)];
        all.extend(o.global_batch.map(|n| ("global_batch", n)));
        self.counts(&place, &all, 1..=1 << 24);
        self.counts(&place, &[("steps", o.steps), ("warmup", o.warmup)], 0..=1 << 40);
    }

    fn language_model(&mut self, lm: &LmRecipe) {
        self.optim("lm", &lm.optim);
        self.counts("lm", &[("vocab_size", lm.vocab_size)], 1..=1 << 24);
        self.counts("lm", &[("layers", lm.layers)], 1..=1 << 10);
        self.within("lm.hidden_size".into(), lm.hidden_size, 1..=1 << 17);
        self.within("lm.intermediate_size".into(), lm.intermediate_size, 1..=1 << 19);
        self.within("lm.heads".into(), lm.heads, 1..=1 << 12);
        self.within("lm.kv_heads".into(), lm.kv_heads, 1..=1 << 12);
        let twice = lm.heads.saturating_mul(2);
        self.divides("lm.hidden_size", (twice, "twice lm.heads"), lm.hidden_size);
        self.divides("lm.heads", (lm.kv_heads, "lm.kv_heads"), lm.heads);
    }

    fn clap(&mut self, clap: &ClapRecipe) {
        self.optim("clap", &clap.optim);
        self.within("clap.joint_dim".into(), clap.joint_dim, 1..=1 << 16);
        let (t, a) = (&clap.text, &clap.audio);
        for (key, value) in [("d_model", t.d_model), ("d_kv", t.d_kv), ("d_ff", t.d_ff)] {
            self.within(format!("clap.text.{key}"), value, 1..=1 << 17);
        }
        self.within("clap.text.num_heads".into(), t.num_heads, 1..=1 << 12);
        self.counts("clap.text", &[("num_layers", t.num_layers)], 1..=1 << 10);

        self.within("clap.audio.embed_dim".into(), a.embed_dim, 1..=1 << 13);
        self.within("clap.audio.class_num".into(), a.class_num, 1..=1 << 16);
        for (key, found) in [("depths", a.depths.len()), ("num_heads", a.num_heads.len())] {
            if found != ENCODER_STAGES {
                let message = format!("clap.audio.{key}: {found} stages, the encoder has {ENCODER_STAGES}");
                self.0.push(message);
            }
        }
        for (i, depth) in a.depths.iter().enumerate() {
            self.counts("clap.audio.depths", &[(&i.to_string(), *depth)], 1..=1 << 8);
        }
        for (i, heads) in a.num_heads.iter().enumerate().take(ENCODER_STAGES) {
            let key = format!("clap.audio.num_heads.{i}");
            self.within(key.clone(), *heads, 1..=1 << 10);
            self.divides(
                &key,
                (*heads, "the heads of this stage"),
                a.embed_dim.saturating_mul(1 << i),
            );
        }
    }

    fn joint(&mut self, recipe: &Recipe) {
        let (a, x) = (recipe.model.audio_transformer(), recipe.model.cross_attention());
        let place = "model.audio_transformer";
        self.within(format!("{place}.n_head"), a.n_head, 1..=1 << 12);
        self.within(format!("{place}.d_inner"), a.d_inner, 1..=1 << 18);
        self.counts(place, &[("n_layers", a.n_layers)], 0..=1 << 10);
        if !(0.0..1.0).contains(&a.attention_dropout) {
            let message = format!(
                "{place}.attention_dropout: {} is not from 0 to below 1",
                a.attention_dropout
            );
            self.0.push(message);
        }
        let place = "model.cross_attention";
        self.counts(place, &[("every", x.every)], 1..=1 << 10);
        for (key, value, most) in [
            ("heads", x.heads, 1 << 12),
            ("head_dim", x.head_dim, 1 << 12),
            ("ff_mult", x.ff_mult, 1 << 6),
            ("max_window_per_audio", x.max_window_per_audio, 1 << 20),
        ] {
            self.within(format!("{place}.{key}"), value, 1..=most);
        }
        self.counts("model", &[("max_windows", recipe.model.max_windows)], 1..=1 << 12);
        // `<audio>`, `<SEP>`, two tokens at the end, and something between.
        self.counts("data", &[("max_tokens", recipe.data.max_tokens)], 6..=1 << 20);
    }
}
