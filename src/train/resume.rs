//! Going on where a run was: stages that are done, the newest checkpoint that can be read, and what is saved when the other
//! ranks are lost.

use super::state::{self, Saver};
use super::{Resume, Steps};
use crate::checkpoint::{numbered, open_torch, training};
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::fsutil::write_json;
use crate::recipe::{Recipe, StageRecipe};
use std::path::{Path, PathBuf};

/// Written when a stage's model is: the stage is not run again.
fn mark(recipe: &Recipe, stage: &StageRecipe) -> PathBuf {
    recipe.stage_folder(&stage.name).join("done.json")
}

pub fn done(recipe: &Recipe, stage: &StageRecipe) -> Result<()> {
    write_json(
        &mark(recipe, stage),
        &serde_json::json!({ "steps": stage.optim.steps }),
    )
}

/// Whether the stage was run to the step that the recipe asks for.
pub fn is_done(recipe: &Recipe, stage: &StageRecipe) -> bool {
    let text = std::fs::read_to_string(mark(recipe, stage)).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    value["steps"].as_u64() == Some(stage.optim.steps as u64)
}

/// Removes the mark: the stage is about to be changed.
pub fn not_done(recipe: &Recipe, stage: &StageRecipe, ranks: &Ranks) -> Result<()> {
    let path = mark(recipe, stage);
    match std::fs::remove_file(&path) {
        Err(e) if ranks.first() && e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path, e)),
        _ => Ok(()),
    }
}

/// The stage that a run begins with.
///
/// # Errors
/// A file that is no checkpoint, or of a stage that the recipe does not have.
pub fn first_stage(recipe: &Recipe, resume: &Resume) -> Result<usize> {
    let Resume::From(path) = resume else {
        return Ok(0);
    };
    let file = open_torch(path)?;
    let Some(name) = training::read(&file)?.stage else {
        return Ok(0);
    };
    let stage = recipe.stages.iter().position(|s| s.name == name);
    let names: Vec<&str> = recipe.stages.iter().map(|s| s.name.as_str()).collect();
    stage.ok_or_else(|| {
        let expected = format!("a stage of the recipe: {}", names.join(", "));
        Error::checkpoint(path, "af2.stage", expected, name)
    })
}

/// Says from which checkpoint on a folder's are this run's.
const BEGUN: &str = "begun.json";

/// A new run of a stage: checkpoints that an earlier one left stay, and are not gone on from.
pub fn begin(folder: &Path, ranks: &Ranks) -> Result<()> {
    if !ranks.first() {
        return Ok(());
    }
    let next = numbered(folder)?.into_keys().next_back().map_or(0, |n| n + 1);
    write_json(&folder.join(BEGUN), &serde_json::json!({ "checkpoint": next }))
}

fn begun(folder: &Path) -> u64 {
    let text = std::fs::read_to_string(folder.join(BEGUN)).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    value["checkpoint"].as_u64().unwrap_or(0)
}

/// Puts the stage into the state of a checkpoint.
///
/// # Errors
/// A file that is damaged, or not of this stage.
pub fn from(path: &Path, steps: &mut Steps) -> Result<()> {
    let file = open_torch(path)?;
    state::restore_weights(steps, &file)?;
    state::restore(steps, &file)?;
    if steps.ranks.first() {
        eprintln!(
            "resume: {} from {}, step {}",
            steps.stage.name,
            path.display(),
            steps.done
        );
    }
    Ok(())
}

/// Puts the stage into the state of its newest checkpoint; where that is damaged of the one before, and says so. A folder
/// without any leaves it at its beginning.
///
/// # Errors
/// None of the checkpoints can be gone on from: what is wrong with each.
pub fn newest(folder: &Path, steps: &mut Steps) -> Result<()> {
    let first = begun(folder);
    let mut damaged = Vec::new();
    for (_, path) in numbered(folder)?.split_off(&first).into_iter().rev() {
        let Err(e) = from(&path, steps) else {
            return Ok(());
        };
        if steps.ranks.first() {
            eprintln!("resume: a checkpoint cannot be used: {e}");
        }
        damaged.push(e);
    }
    crate::error::all(damaged)
}

/// After an error: saves the last whole step where it was another rank's and this rank is the first that is left. Returns what
/// the user is told.
pub fn rescue(error: Error, steps: &Steps, saver: &mut Saver) -> Error {
    let (error, saves) = steps.ranks.explain(error, steps.done);
    if !saves {
        return error;
    }
    match saver.rescue(steps) {
        Ok(Some(path)) => eprintln!("saved step {} in {}", steps.done, path.display()),
        Ok(None) => eprintln!(
            "step {} is not saved: other ranks keep a part of its state",
            steps.done
        ),
        Err(e) => eprintln!("step {} is not saved: {e}", steps.done),
    }
    error
}
