//! What the types of a recipe cannot say.

use super::{ranges, sizes, texts, ClapMode, ClipAt, Held, LossMean, Part, Precision, Recipe, StageRecipe};
use crate::error::{all, nearest, Error, Result};
use crate::generate::decoding::Decoding;
use crate::shapes::WINDOW_SECONDS;
use std::path::Path;

/// A message, which begins with the key, and what to try.
type Wrong = (String, Option<String>);

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
    pub(crate) fn without_steps(&self, file: &str) -> Vec<Error> {
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

    /// Everything that the types cannot say.
    pub(crate) fn check(&self, file: &str) -> Vec<Error> {
        let mut wrong = texts::wrong(self);
        wrong.extend(ranges::wrong(self));
        wrong.extend(sizes::wrong(self).into_iter().map(|message| (message, None)));
        self.sets(&mut wrong);
        self.windows(&mut wrong);
        self.answers(&mut wrong);
        if self.train.frozen == Held::Bf16 && self.train.precision != Precision::AmpBf16 {
            let message = "train.frozen: must be fp32 where train.precision is not amp_bf16";
            wrong.push((message.into(), None));
        }
        for (i, stage) in self.stages.iter().enumerate() {
            self.name_and_start(i, stage, &mut wrong);
            self.settings(stage, &mut wrong);
        }
        self.optims(&mut wrong);
        let width = self.clap.as_ref().map(|c| c.audio.width());
        let heads = self.model.audio_transformer().n_head;
        if let Some(width) = width.filter(|w| heads > 0 && (w % heads != 0 || w / heads < 32)) {
            wrong.push((
                format!("model.audio_transformer.n_head: {heads} heads do not divide the encoder's {width} dimensions into heads of at least 32"),
                Some("rotary positions turn at least 32 dimensions of a head".into()),
            ));
        }
        let error = |(message, hint)| Error::Recipe {
            file: file.into(),
            line: None,
            message,
            hint,
        };
        wrong.into_iter().map(error).collect()
    }

    /// Names of sets that are none.
    fn sets(&self, wrong: &mut Vec<Wrong>) {
        let of_stages = self.stages.iter().flat_map(|stage| {
            let place = format!("stages.{}.sets", stage.name);
            stage.sets.keys().map(move |set| (place.clone(), set))
        });
        let of_clap = self.clap.iter().flat_map(|c| &c.sets);
        let of_clap = of_clap.map(|set| ("clap.sets".to_owned(), set));
        let of_eval = self.eval.iter().flat_map(|e| &e.sets);
        let of_eval = of_eval.map(|set| ("eval.sets".to_owned(), set));
        for (place, set) in of_stages.chain(of_clap).chain(of_eval) {
            if !self.data.sets.contains_key(set) {
                let near = nearest(set, self.data.sets.keys().map(String::as_str));
                wrong.push((
                    format!("{place}: no set `{set}` in data.sets"),
                    near.map(|n| format!("did you mean `{n}`?")),
                ));
            }
        }
    }

    /// Settings of optimizers that do not go together, and patterns of groups that are none.
    fn optims(&self, wrong: &mut Vec<Wrong>) {
        let stages = self.stages.iter();
        let stages = stages.map(|s| (format!("stages.{}", s.name), &s.optim, s.batch_budget.is_some()));
        let lm = self.lm.iter().map(|l| ("lm".to_owned(), &l.optim, false));
        let clap = self.clap.iter().map(|c| ("clap".to_owned(), &c.optim, false));
        for (place, optim, budget) in stages.chain(lm).chain(clap) {
            if optim.global_batch.is_some() && (optim.accumulate != 1 || budget) {
                wrong.push((
                    format!("{place}.optim.global_batch: goes with neither accumulate nor batch_budget"),
                    Some(format!(
                        "{place}.optim.global_batch=null leaves it out: the size of a step is then accumulate × ranks × batch"
                    )),
                ));
            }
            if let Err(Error::Recipe { message, .. }) = optim.splits() {
                wrong.push((
                    format!("{place}.{message}"),
                    Some("names of weights as a checkpoint has them, with * for anything: clap.*".into()),
                ));
            }
        }
    }

    /// Windows that the model has no positions for.
    fn windows(&self, wrong: &mut Vec<Wrong>) {
        let stages = self.stages.iter();
        let stages = stages.map(|s| (format!("stages.{}.windows", s.name), s.windows));
        let eval = self.eval.iter().map(|e| ("eval.windows".to_owned(), e.windows));
        for (place, n) in stages.chain(eval) {
            if n > self.model.max_windows {
                wrong.push((
                    format!(
                        "{place}: {n} windows of {WINDOW_SECONDS} s, but the model has positions for 1 to {}",
                        self.model.max_windows
                    ),
                    Some("raise model.max_windows, or lower the stage's windows".into()),
                ));
            }
        }
    }

    /// How an evaluation's answers cannot be chosen.
    fn answers(&self, wrong: &mut Vec<Wrong>) {
        let Some(eval) = &self.eval else { return };
        let decoding = eval.decoding();
        for one in decoding.check() {
            wrong.push((
                format!(
                    "eval.decoding.{}: expected {}, found {}",
                    one.key, one.expected, one.found
                ),
                None,
            ));
        }
        if decoding.num_beams > 1 && decoding.num_return_sequences > 1 {
            wrong.push((
                "eval.decoding.num_return_sequences: expected 1 with beams, as only the best of them is the answer".into(),
                Some("samples are drawn: do_sample: true, num_beams: 1".into()),
            ));
        }
        let (own, default) = (eval.decoding.max_new_tokens, Decoding::default().max_new_tokens);
        if own != default && own != decoding.max_new_tokens {
            wrong.push((
                format!(
                    "eval.decoding.max_new_tokens: {own}, but eval.max_new_tokens says {}",
                    decoding.max_new_tokens
                ),
                Some("leave one of them out".into()),
            ));
        }
    }

    /// A stage's name, and where it starts.
    fn name_and_start(&self, i: usize, stage: &StageRecipe, wrong: &mut Vec<Wrong>) {
        let (name, place) = (&stage.name, format!("stages.{}", stage.name));
        if self.stages[..i].iter().any(|s| s.name == stage.name) {
            wrong.push((format!("{place}: two stages of this name"), None));
        }
        let section = (name == "lm" && self.lm.is_some()) || (name == "clap" && self.clap.is_some());
        if section {
            wrong.push((
                format!("{place}.name: `{name}` is the recipe's own section, whose events and checkpoints bear its name"),
                None,
            ));
        }
        // A path of keys reaches a stage by its name or its number.
        let number = name.parse::<usize>().is_ok();
        if let Some(odd) = texts::odd_name(name) {
            wrong.push((format!("{place}.name: {odd}"), None));
        } else if name.contains(['/', '\\']) || name.starts_with('.') || number {
            let what = if number { "a number" } else { "no folder's name" };
            wrong.push((format!("{place}.name: `{name}` is {what}"), None));
        }
        let Some(from) = &stage.from else { return };
        if self.stages[i..].iter().any(|s| s.name == *from) {
            wrong.push((format!("{place}.from: `{from}` does not come before it"), None));
        }
        let plain = !from.contains(['/', '.']) && !Path::new(from).exists();
        if plain && self.stage(from).is_none() {
            let names = self.stages[..i].iter().map(|s| s.name.as_str());
            let near = nearest(from, names).map(|n| format!("did you mean `{n}`?"));
            let otherwise = "an earlier stage's name, or a checkpoint's path".to_owned();
            wrong.push((
                format!("{place}.from: `{from}` is no stage, and no file or folder here"),
                Some(near.unwrap_or(otherwise)),
            ));
        }
    }

    /// Settings of a stage that do not go together.
    fn settings(&self, stage: &StageRecipe, wrong: &mut Vec<Wrong>) {
        let place = format!("stages.{}", stage.name);
        if stage.clip_at == ClipAt::MicroStep && self.train.loss == LossMean::Tokens {
            wrong.push((
                format!("{place}.clip_at: micro_step clips what is not yet divided by the step's tokens"),
                Some("set train.loss to mean_of_means, as the reference, or clip_at to step".into()),
            ));
        }
        if let Some(b) = stage.batch_budget.as_ref().filter(|b| b.windows < stage.windows) {
            wrong.push((
                format!(
                    "{place}.batch_budget.windows: {} is less than one item of {} windows",
                    b.windows, stage.windows
                ),
                Some("a budget is at least the stage's `windows`".into()),
            ));
        }
        if stage.train.is_empty() {
            wrong.push((format!("{place}.train: nothing to train"), None));
        }
        if stage.sets.is_empty() {
            wrong.push((format!("{place}.sets: nothing to train on"), None));
        }
        let moves = stage.train.contains(&Part::Clap) || stage.clap_mode == ClapMode::Train;
        if stage.cache_features && moves {
            wrong.push((
                format!("{place}.cache_features: CLAP's features change while this stage trains"),
                Some("set cache_features to false".into()),
            ));
        }
    }
}
