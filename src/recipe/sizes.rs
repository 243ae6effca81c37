//! What numbers of a recipe must be to each other: what divides what, and products that would be no model or no run.

use super::{ClapRecipe, LmRecipe, OptimRecipe, Recipe};

/// Weights of an LM or encoder that a recipe may make from nothing.
const MOST_PARAMETERS: f64 = 1e11;
/// Items of a rank's optimizer step.
const MOST_ITEMS: u64 = 1 << 24;
/// Clips of a corpus.
const MOST_CLIPS: usize = 1_000_000;
/// Passes over a set in an epoch: with fewer, epochs without an item go on and on.
const FEWEST_PASSES: f64 = 1e-5;
const MOST_PASSES: f64 = 1e3;

/// Sizes that do not go together; each message begins with the key. Sizes that are out of their own ranges are left aside.
pub(super) fn wrong(recipe: &Recipe) -> Vec<String> {
    let mut sizes = Sizes(Vec::new());
    for stage in &recipe.stages {
        let place = format!("stages.{}", stage.name);
        sizes.optim(&place, &stage.optim);
        for (set, weight) in &stage.sets {
            let (all, bounds) = (recipe.data.global_weight, FEWEST_PASSES..=MOST_PASSES);
            let passes = weight * all;
            if bounds.contains(weight) && bounds.contains(&all) && !bounds.contains(&passes) {
                sizes.0.push(format!(
                    "{place}.sets.{set}: {weight} times data.global_weight is {passes:?} passes over the set in an epoch, not \
                     {FEWEST_PASSES:?} to {MOST_PASSES}"
                ));
            }
        }
    }
    if let Some(c) = &recipe.corpus {
        let kinds = [c.counting, c.scenes, c.attributes, c.long];
        let singles = c
            .singles_per_class
            .saturating_mul(crate::synth::sounds::CLASSES.len());
        let clips = kinds.into_iter().fold(singles, usize::saturating_add);
        if clips > MOST_CLIPS {
            let message = format!("corpus: {clips} clips of all kinds together, {MOST_CLIPS} are the most");
            sizes.0.push(message);
        }
        if c.val_fraction + c.test_fraction >= 1.0 {
            let message = "corpus.test_fraction: with corpus.val_fraction nothing is left to train on";
            sizes.0.push(message.into());
        }
    }
    if let Some(lm) = &recipe.lm {
        sizes.language_model(lm);
    }
    if let Some(clap) = &recipe.clap {
        sizes.clap(clap);
    }
    sizes.0
}

struct Sizes(Vec<String>);

impl Sizes {
    /// `part` must divide `whole`; told only where both are numbers that can be.
    fn divides(&mut self, key: &str, (part, of): (i64, &str), whole: i64) {
        if part > 0 && whole > 0 && whole % part != 0 {
            self.0
                .push(format!("{key}: {whole} is no multiple of {part}, {of}"));
        }
    }

    fn parameters(&mut self, key: &str, parameters: f64) {
        if parameters > MOST_PARAMETERS {
            self.0.push(format!(
                "{key}: about {parameters:.0e} weights by its sizes, {MOST_PARAMETERS:.0e} are the most"
            ));
        }
    }

    fn optim(&mut self, place: &str, o: &OptimRecipe) {
        let items = (o.batch_size as u64).saturating_mul(o.accumulate as u64);
        if items > MOST_ITEMS {
            self.0.push(format!(
                "{place}.optim.accumulate: {items} items of a rank in one step, {MOST_ITEMS} are the most"
            ));
        }
    }

    fn language_model(&mut self, lm: &LmRecipe) {
        self.optim("lm", &lm.optim);
        let twice = lm.heads.saturating_mul(2);
        self.divides("lm.hidden_size", (twice, "twice lm.heads"), lm.hidden_size);
        self.divides("lm.heads", (lm.kv_heads, "lm.kv_heads"), lm.heads);
        let (d, inner) = (lm.hidden_size as f64, lm.intermediate_size as f64);
        let layer = 4.0 * d * d + 3.0 * d * inner;
        self.parameters("lm.layers", lm.layers as f64 * layer + lm.vocab_size as f64 * d);
    }

    fn clap(&mut self, clap: &ClapRecipe) {
        self.optim("clap", &clap.optim);
        let (t, a) = (&clap.text, &clap.audio);
        let inner = t.d_kv as f64 * t.num_heads as f64;
        let layer = t.d_model as f64 * (4.0 * inner + 3.0 * t.d_ff as f64);
        self.parameters("clap.text.num_layers", t.num_layers as f64 * layer);
        self.parameters("clap.audio", a.block_weights());
        let wrong = a.check_together("clap.audio");
        self.0.extend(wrong.iter().map(ToString::to_string));
    }
}
