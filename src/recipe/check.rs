//! What the types of a recipe cannot say.

use super::{sizes, ClapMode, ClipAt, Held, LossMean, Part, Precision, Recipe, StageRecipe};
use crate::error::{all, nearest, Error, Result};
use crate::shapes::WINDOW_SECONDS;
use std::path::Path;

impl Recipe {
    /// What the stages need of the recipe before the first of them runs, on so many ranks: batches that can be shared out, and
    /// steps to make. Files are looked at by `preflight`.
    ///
    /// # Errors
    /// All that is missing.
    pub fn ready(&self, world: usize) -> Result<()> {
        let mut errors = self.without_steps(&self.name);
        for stage in &self.stages {
            let place = format!("stages.{}", stage.name);
            let mut wrong = |message: String, hint: &str| {
                errors.push(Error::recipe(&self.name, format!("{place}.{message}")).hint(hint));
            };
            if let Err(Error::Recipe { message, hint, .. }) = stage.optim.split(world) {
                wrong(message, &hint.unwrap_or_default());
            }
        }
        all(errors)
    }

    /// Stages that make no step, as errors of `file`. Such a recipe can be read and written: that is how the reference's is
    /// imported where its manifests are not.
    pub fn without_steps(&self, file: &str) -> Vec<Error> {
        let idle = self.stages.iter().filter(|s| s.optim.steps == 0);
        let error = |s: &StageRecipe| {
            let message = format!("stages.{}.optim.steps: 0: nothing would be trained", s.name);
            Error::recipe(file, message).hint(
                "a recipe that was imported without its manifests does not know its steps: import it where they are",
            )
        };
        idle.map(error).collect()
    }

    fn stage(&self, name: &str) -> Option<&StageRecipe> {
        self.stages.iter().find(|s| s.name == name)
    }

    /// Everything that the types cannot say, all at once.
    pub(super) fn check(&self, file: &str) -> Result<()> {
        let mut errors = Vec::new();
        let mut wrong = |message: String, hint: Option<String>| {
            errors.push(Error::Recipe {
                file: file.into(),
                line: None,
                message,
                hint,
            })
        };
        let known = |name: &str| self.data.sets.contains_key(name);
        let names = || self.data.sets.keys().map(String::as_str);
        let mut unknown_set = |place: String, name: &str| {
            if !known(name) {
                wrong(
                    format!("{place}: no set `{name}` in data.sets"),
                    nearest(name, names()).map(|n| format!("did you mean `{n}`?")),
                );
            }
        };
        for stage in &self.stages {
            for set in stage.sets.keys() {
                unknown_set(format!("stages.{}.sets", stage.name), set);
            }
        }
        for set in self.clap.iter().flat_map(|c| &c.sets) {
            unknown_set("clap.sets".into(), set);
        }
        for set in self.eval.iter().flat_map(|e| &e.sets) {
            unknown_set("eval.sets".into(), set);
        }
        let windows = self
            .stages
            .iter()
            .map(|s| (format!("stages.{}.windows", s.name), s.windows));
        let eval = self.eval.iter().map(|e| ("eval.windows".to_owned(), e.windows));
        for (place, n) in windows.chain(eval) {
            if n == 0 || n > self.model.max_windows {
                wrong(
                    format!(
                        "{place}: {n} windows of {WINDOW_SECONDS} s, but the model has positions for 1 to {}",
                        self.model.max_windows
                    ),
                    Some("raise model.max_windows, or lower the stage's windows".into()),
                );
            }
        }
        let optims = self
            .stages
            .iter()
            .map(|s| (format!("stages.{}", s.name), &s.optim));
        let lm = self.lm.iter().map(|l| ("lm".to_owned(), &l.optim));
        let clap = self.clap.iter().map(|c| ("clap".to_owned(), &c.optim));
        for (place, o) in optims.chain(lm).chain(clap) {
            for (key, good) in [
                (
                    "learning_rate",
                    o.learning_rate.is_finite() && o.learning_rate >= 0.0,
                ),
                ("gate_rate", o.gate_rate.is_finite() && o.gate_rate >= 0.0),
                ("clap_rate", o.clap_rate.is_finite() && o.clap_rate >= 0.0),
                ("clip", o.clip > 0.0),
                (
                    "weight_decay",
                    o.weight_decay.is_finite() && o.weight_decay >= 0.0,
                ),
            ] {
                if !good {
                    wrong(format!("{place}.optim.{key}: must be positive"), None);
                }
            }
        }
        if !(0.0..=1.0).contains(&self.data.skip_budget) {
            wrong(
                format!("data.skip_budget: {} is not from 0 to 1", self.data.skip_budget),
                Some("a share of the items: 0.01 is one in a hundred".into()),
            );
        }
        let d = &self.data;
        for (key, good, expected) in [
            (
                "global_weight",
                d.global_weight.is_finite() && d.global_weight > 0.0,
                "above 0",
            ),
            (
                "subset",
                d.subset > 0.0 && d.subset <= 1.0,
                "above 0 and at most 1",
            ),
            ("ahead", (1..=1024).contains(&d.ahead), "1 to 1024 batches"),
            ("threads", d.threads <= 1024, "at most 1024"),
        ] {
            if !good {
                wrong(format!("data.{key}: must be {expected}"), None);
            }
        }
        let t = &self.train;
        for (key, good, expected) in [
            (
                "bucket_mib",
                (1..=1 << 20).contains(&t.bucket_mib),
                "1 to 1048576 MiB",
            ),
            (
                "timeout",
                (1..=1 << 20).contains(&t.timeout),
                "1 to 1048576 seconds",
            ),
            ("nonfinite_limit", t.nonfinite_limit > 0, "at least 1"),
            (
                "peak_tflops",
                t.peak_tflops.is_none_or(|p| p.is_finite() && p > 0.0),
                "above 0",
            ),
            (
                "frozen",
                t.frozen == Held::Fp32 || t.precision == Precision::AmpBf16,
                "fp32 where train.precision is not amp_bf16",
            ),
        ] {
            if !good {
                wrong(format!("train.{key}: must be {expected}"), None);
            }
        }
        for (i, stage) in self.stages.iter().enumerate() {
            let place = format!("stages.{}", stage.name);
            if self.stages[..i].iter().any(|s| s.name == stage.name) {
                wrong(format!("{place}: two stages of this name"), None);
            }
            let name = &stage.name;
            // A path of keys reaches a stage by its name or its number.
            let number = name.parse::<usize>().is_ok();
            if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') || number {
                let what = if number { "a number" } else { "no folder's name" };
                wrong(format!("{place}.name: `{name}` is {what}"), None);
            }
            let later = |from: &String| self.stages[i..].iter().any(|s| s.name == *from);
            if let Some(from) = stage.from.as_ref().filter(|from| later(from)) {
                wrong(format!("{place}.from: `{from}` does not come before it"), None);
            }
            let plain = |from: &String| !from.contains(['/', '.']) && !Path::new(from).exists();
            let unknown = |from: &&String| self.stage(from).is_none() && plain(from);
            if let Some(from) = stage.from.as_ref().filter(unknown) {
                let names = self.stages[..i].iter().map(|s| s.name.as_str());
                let near = nearest(from, names).map(|n| format!("did you mean `{n}`?"));
                let otherwise = "an earlier stage's name, or a checkpoint's path".to_owned();
                wrong(
                    format!("{place}.from: `{from}` is no stage, and no file or folder here"),
                    Some(near.unwrap_or(otherwise)),
                );
            }
            if stage.clip_at == ClipAt::MicroStep && t.loss == LossMean::Tokens {
                wrong(
                    format!("{place}.clip_at: micro_step clips what is not yet divided by the step's tokens"),
                    Some("set train.loss to mean_of_means, as the reference, or clip_at to step".into()),
                );
            }
            if stage.optim.global_batch.is_some()
                && (stage.optim.accumulate != 1 || stage.batch_budget.is_some())
            {
                wrong(
                    format!("{place}.optim.global_batch: goes with neither accumulate nor batch_budget"),
                    Some(format!(
                        "{place}.optim.global_batch=null leaves it out: the size of a step is then accumulate × ranks × batch"
                    )),
                );
            }
        }
        for stage in &self.stages {
            if let Some(b) = stage.batch_budget.as_ref().filter(|b| b.windows < stage.windows) {
                wrong(
                    format!(
                        "stages.{}.batch_budget.windows: {} is less than one item of {} windows",
                        stage.name, b.windows, stage.windows
                    ),
                    Some("a budget is at least the stage's `windows`".into()),
                );
            }
            if stage.train.is_empty() {
                wrong(format!("stages.{}.train: nothing to train", stage.name), None);
            }
            for (set, weight) in &stage.sets {
                if !(weight.is_finite() && *weight > 0.0) {
                    wrong(
                        format!("stages.{}.sets.{set}: a weight must be above 0", stage.name),
                        None,
                    );
                }
            }
            let moves = stage.train.contains(&Part::Clap) || stage.clap_mode == ClapMode::Train;
            if stage.cache_features && moves {
                wrong(
                    format!(
                        "stages.{}.cache_features: CLAP's features change while this stage trains",
                        stage.name
                    ),
                    Some("set cache_features to false".into()),
                );
            }
        }
        let width = self.clap.as_ref().map(|c| c.audio.output_dim());
        let heads = self.model.audio_transformer().n_head;
        if let Some(width) = width.filter(|w| heads > 0 && (w % heads != 0 || w / heads < 32)) {
            wrong(
                format!("model.audio_transformer.n_head: {heads} heads do not divide the encoder's {width} dimensions into heads of at least 32"),
                Some("rotary positions turn at least 32 dimensions of a head".into()),
            );
        }
        sizes::wrong(self)
            .into_iter()
            .for_each(|message| wrong(message, None));
        all(errors)
    }
}
