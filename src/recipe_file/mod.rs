//! From files and changes to a checked recipe.

mod layers;
mod renamed;
mod understand;
mod write;

pub(crate) use layers::Layers;

use crate::curriculum;
use crate::data::blend::Set;
use crate::error::{all, Error, Result};
use crate::recipe::{texts, Recipe, Schedule, DEMO};
use crate::reference::Imported;
use serde_yaml::Value;
use std::path::Path;

/// A stage of so many steps that keeps no checkpoint is worth a word.
const MANY_STEPS: usize = 1000;

/// Reads a file over its bases; `overrides` are `key=value` from the command line. The reference's own `pretrain.yaml` and
/// `sft.yaml` are taken as they are, see [`crate::reference`]; their epochs are those of one rank.
///
/// # Errors
/// Files that cannot be read, and everything that is wrong with the recipe at once.
pub fn load(path: &Path, overrides: &[String]) -> Result<Recipe> {
    open(path, overrides, 1).map(|(recipe, _)| recipe)
}

/// [`load`] for so many ranks, with the layers that tell where each value is from.
///
/// # Errors
/// As [`load`].
pub(crate) fn open(path: &Path, overrides: &[String], ranks: usize) -> Result<(Recipe, Layers)> {
    let mut layers = Layers::load(path)?;
    layers.change(overrides);
    let recipe = of(&mut layers, &path.display().to_string(), ranks, false)?;
    Ok((recipe, layers))
}

/// [`load`] of a recipe that could run: one whose stages have steps to make.
///
/// # Errors
/// As [`load`].
pub(crate) fn sound(path: &Path) -> Result<Recipe> {
    of(&mut Layers::load(path)?, &path.display().to_string(), 1, true)
}

/// The embedded demo.
pub fn demo(overrides: &[String]) -> Result<Recipe> {
    parse(DEMO, "recipes/demo.yaml (built in)", overrides)
}

/// [`load`] of a text; `file` is named in errors, and its base is looked for beside it.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, file: &str, overrides: &[String]) -> Result<Recipe> {
    let mut layers = Layers::of(text, file)?;
    layers.change(overrides);
    of(&mut layers, file, 1, false)
}

fn of(layers: &mut Layers, file: &str, ranks: usize, runs: bool) -> Result<Recipe> {
    let understood = layers.understand::<Recipe>();
    let whole = understood.value.as_ref().filter(|_| !layers.incomplete);
    let mut checked = whole.map(|recipe| recipe.check(file)).unwrap_or_default();
    if let Some(recipe) = whole.filter(|_| runs && layers.imported.is_none()) {
        checked.extend(recipe.without_steps(file));
    }
    checked.retain(|e| !understood.is_moot(e));
    let mut errors: Vec<Error> = understood.faults.into_iter().map(elsewhere).collect();
    errors.extend(checked.into_iter().map(|e| layers.placed(e)));
    // As one reads: the command, then each file from its top.
    errors.sort_by_key(|e| match e {
        Error::Recipe { file, line, .. } => (1, file.clone(), line.unwrap_or((usize::MAX, 0))),
        _ => (0, String::new(), (0, 0)),
    });
    all(errors)?;
    let Some(mut recipe) = understood.value else {
        return Err(Error::recipe(file, "cannot be read"));
    };
    recipe.notes = texts::notes(&recipe);
    recipe.notes.append(&mut layers.renamed);
    if let Some(imported) = &layers.imported {
        recipe.notes.extend(imported.notes.iter().cloned());
        count_steps(&mut recipe, imported, ranks);
        if let Some(stage) = recipe.stages.first() {
            let steps = [
                ("optim.steps", stage.optim.steps),
                ("optim.schedule_steps", stage.optim.schedule_steps.unwrap_or(0)),
                ("save.every", stage.save.every),
            ];
            layers.counted(&steps)?;
        }
    }
    if runs && layers.imported.is_some() {
        // No line of the reference's own file says its steps.
        all(recipe.without_steps(file))?;
    }
    for stage in &recipe.stages {
        if stage.save.every == 0 && stage.optim.steps >= MANY_STEPS {
            let note = format!(
                "stages.{}.save: no checkpoint in {} steps; `save: {{every: N}}` bounds what a crash costs",
                stage.name, stage.optim.steps
            );
            recipe.notes.push(note);
        }
    }
    Ok(recipe)
}

/// The reference counts epochs, we count steps.
fn count_steps(recipe: &mut Recipe, imported: &Imported, ranks: usize) {
    let Some(stage) = recipe.stages.first().filter(|s| s.optim.steps == 0) else {
        return;
    };
    let epochs = imported.epochs();
    match curriculum::blend(recipe, stage, None) {
        Ok(blend) => {
            let share = |s: &Set| (s.manifest.len(), blend.global_weight * s.weight);
            let sets: Vec<_> = blend.sets.iter().map(share).collect();
            let counted = imported.steps(&sets, stage.optim.batch_size, stage.optim.accumulate, ranks);
            let steps = counted.steps;
            if let Some(stage) = recipe.stages.first_mut() {
                stage.optim.steps = steps;
                stage.save.every = counted.an_epoch.max(1);
                if stage.optim.schedule != Schedule::Constant && stage.optim.schedule_steps.is_none() {
                    stage.optim.schedule_steps = Some(counted.schedule.max(1));
                }
            }
            let s = if ranks == 1 { "" } else { "s" };
            recipe.notes.push(format!(
                "train_config.num_epochs: {epochs} virtual epochs of the manifests are {steps} steps on {ranks} rank{s}"
            ));
        }
        // The training loop opens the same manifests and stops there.
        Err(e) => recipe.notes.push(format!(
            "train_config.num_epochs: steps are epochs times items, which the manifests tell: optim.steps stays 0 \
             ({})",
            e.to_string().lines().next().unwrap_or_default()
        )),
    }
}

/// An unknown key that is one elsewhere: the error says where.
fn elsewhere(mut error: Error) -> Error {
    let (Error::Recipe { message, hint, .. } | Error::Usage { message, hint }) = &mut error else {
        return error;
    };
    let Some((place, rest)) = message.split_once("unknown field `") else {
        return error;
    };
    let key = rest.split('`').next().unwrap_or_default();
    let whole = demo(&[]).ok().and_then(|demo| serde_yaml::to_value(demo).ok());
    let mut above = Vec::new();
    if let Some(whole) = &whole {
        holders(whole, "", key, &mut above);
    }
    let of_stages = |place: &String| place.starts_with("stages");
    if place.contains("stages") && above.iter().any(of_stages) {
        above.retain(of_stages);
    }
    above.dedup();
    if !above.is_empty() {
        *hint = Some(format!("`{key}` stands under {}", above.join(", ")));
    }
    error
}

/// Where in a recipe a key stands.
fn holders(value: &Value, place: &str, key: &str, above: &mut Vec<String>) {
    match value {
        // Names of sets are no keys.
        Value::Mapping(map) if !place.ends_with("sets") => {
            if map.contains_key(key) && !place.is_empty() {
                above.push(place.to_owned());
            }
            for (own, value) in map {
                let own = own.as_str().unwrap_or_default();
                let joint = if place.is_empty() { "" } else { "." };
                holders(value, &format!("{place}{joint}{own}"), key, above);
            }
        }
        Value::Sequence(list) => {
            for value in list {
                holders(value, &format!("{place}.NAME"), key, above);
            }
        }
        _ => {}
    }
}
