//! The disk that a run fills: checkpoints by the rule that keeps them, each stage's model, its log.

use crate::checkpoint::names;
use crate::error::Result;
use crate::model::flamingo::{Config, Flamingo};
use crate::model::params::{Origin, Role, Store};
use crate::recipe::{Held, Part, Recipe, SaveRecipe, StageRecipe};
use serde::Serialize;
use tch::Device;

/// Log entries of a stage whose `train.log_every` is 0.
const LOG_ENTRIES: u64 = 100;
/// Bytes of an entry in `events.jsonl` and TensorBoard's file, and of each gate in it: measured on short runs, rounded up.
const LOG_ENTRY: u64 = 4000;
const LOG_GATE: u64 = 100;

/// What a stage writes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Disk {
    /// One `checkpoint_N.pt`: what trains, what the optimizer keeps of it, embeddings and buffers; with `save.full` everything.
    pub checkpoint: u64,
    /// Checkpoints that the stage writes.
    pub written: u64,
    /// Those that are left of them in the end.
    pub kept: u64,
    /// The stage's model in the released layout: what the next one begins with.
    pub model: u64,
    /// Its log, about.
    pub events: u64,
    /// All that is left in the end.
    pub left: u64,
    /// The most while it runs: a checkpoint is whole before the one that it replaces goes.
    pub most: u64,
}

/// The tensors of a model without their memory.
pub(crate) struct Shapes(Vec<Shape>);

struct Shape {
    name: String,
    elements: u64,
    /// Bytes of an element.
    width: u64,
    weight: bool,
    matrix: bool,
}

impl Shapes {
    /// Those of a configuration.
    ///
    /// # Errors
    /// Sizes that make no model.
    pub(crate) fn of(config: &Config) -> Result<Self> {
        let store = Store::new(Origin::Shapes, Device::Cpu);
        Flamingo::new(&store.root(), config);
        let params = store.finish()?;
        let shapes = params.iter().map(|(name, entry)| Shape {
            name: name.to_owned(),
            elements: entry.tensor.size().iter().product::<i64>() as u64,
            width: entry.tensor.kind().elt_size_in_bytes() as u64,
            weight: entry.role == Role::Weight,
            matrix: entry.tensor.dim() >= 2,
        });
        Ok(Shapes(shapes.collect()))
    }

    /// What a stage of so many steps, with so many micro-steps each, writes.
    pub(crate) fn stage(
        &self,
        recipe: &Recipe,
        stage: &StageRecipe,
        config: &Config,
        steps: u64,
        micro: u64,
    ) -> Disk {
        let tied = config.lm.decoder().tie_word_embeddings;
        let state = 4 * stage.optim.optimizer.keeps().len() as u64;
        let (mut checkpoint, mut model) = (0u64, 0u64);
        for shape in &self.0 {
            let part = Part::of(&shape.name);
            let trains = shape.weight && stage.train.contains(&part);
            // As memory has it: of the frozen parts only the LM's own matrices are known to lose nothing in bf16.
            let held = recipe.train.frozen == Held::Bf16 && part.of_the_lm() && shape.matrix && !trains;
            let bytes = shape.elements * if held { 2 } else { shape.width };
            model += bytes;
            if stage.save.full || names::saved_by_trainer(&shape.name, trains, tied) {
                checkpoint += bytes;
            }
            if trains {
                checkpoint += state * shape.elements;
            }
        }
        let written = steps.checked_div(stage.save.every as u64).unwrap_or(0);
        let left = kept(&stage.save, written);
        let blocks = (config.lm.decoder().num_hidden_layers / config.cross_attention.every.max(1)) as u64;
        let entries = match recipe.train.log_every as u64 {
            0 => LOG_ENTRIES.min(steps),
            1 => steps.saturating_mul(1 + micro),
            n => steps / n,
        };
        let events = entries.saturating_mul(LOG_ENTRY + 2 * blocks * LOG_GATE);
        let of = |n: u64| n.saturating_mul(checkpoint).saturating_add(events);
        Disk {
            checkpoint,
            written,
            kept: left,
            model,
            events,
            left: of(left).saturating_add(model),
            most: match written {
                0 => of(0).saturating_add(model),
                n => of(kept(&stage.save, n - 1) + 1).max(of(left).saturating_add(model)),
            },
        }
    }
}

/// How many of so many checkpoints, numbered from 0, stay: the rule of [`crate::checkpoint::Keep`].
fn kept(save: &SaveRecipe, written: u64) -> u64 {
    let newest = written.min(save.keep_last.max(1) as u64);
    let older = written - newest;
    newest
        + match save.keep_every as u64 {
            0 => 0,
            every => older.div_ceil(every),
        }
}

/// Of a whole run: what it leaves, and the most while it runs.
pub(crate) fn run(stages: impl IntoIterator<Item = Disk>) -> (u64, u64) {
    let (mut left, mut most) = (0u64, 0u64);
    for stage in stages {
        most = most.max(left.saturating_add(stage.most));
        left = left.saturating_add(stage.left);
    }
    (left, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{file_name, numbered, Keep};
    use crate::model::presets::preset;
    use crate::recipe_file;

    #[test]
    fn as_many_are_counted_as_the_rule_leaves() {
        for (last, every) in [(2, 5), (1, 0), (0, 3), (3, 2), (1_000_000, 5)] {
            let save = SaveRecipe {
                every: 1,
                keep_last: last,
                keep_every: every,
                full: false,
            };
            let folder = tempfile::tempdir().unwrap();
            for written in 0..14u64 {
                let rule = Keep { last, every };
                rule.apply(folder.path()).unwrap();
                let left = numbered(folder.path()).unwrap().len() as u64;
                assert_eq!(kept(&save, written), left, "{last} {every} {written}");
                std::fs::write(folder.path().join(file_name(written)), "").unwrap();
            }
        }
    }

    #[test]
    fn a_3b_checkpoint_is_21_to_24_gb() {
        let recipe = recipe_file::load("recipes/af2-3b.yaml".as_ref(), &[]).unwrap();
        let config = preset("af2-3b").unwrap();
        let shapes = Shapes::of(&config).unwrap();
        let stages: Vec<Disk> = recipe
            .stages
            .iter()
            .map(|s| shapes.stage(&recipe, s, &config, s.optim.steps as u64, 1))
            .collect();
        let gb = |n: u64| n as f64 / 1e9;
        // Twelve bytes of what trains, and a little that does not.
        assert!(
            (gb(stages[0].checkpoint) - 12.0 * 1.745_406).abs() < 0.1,
            "{stages:?}"
        );
        assert!(
            (gb(stages[1].checkpoint) - 12.0 * 2.024_176).abs() < 0.1,
            "{stages:?}"
        );
        // 53 written: eleven of them every fifth, and the newest two.
        assert_eq!((stages[1].written, stages[1].kept), (53, 13));
        // Everything once: the LM's 2.8 billion in bf16, the rest in fp32.
        let model = gb(stages[0].model);
        assert!((13.0..14.0).contains(&model), "{model}");
        let (left, most) = run(stages.iter().copied());
        assert!(most > left - stages[2].model && most >= left, "{left} {most}");
    }
}
