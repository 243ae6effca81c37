//! What a run has written so far, while it goes on or afterwards: the checkpoints of its stages, each as a whole model.

use super::engine::state;
use super::jobs::curriculum::{self, Stage};
use crate::checkpoint::{self, numbered, open_torch, training};
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::load::{self, Loaded};
use crate::recipe::{Recipe, StageRecipe};
use crate::run;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use tch::Device;

/// A checkpoint that is whole: `checkpoint_N.pt` appears by a rename, and a stage's own model is there once `done.json` says so.
pub(crate) struct Written {
    /// The stage's number in the recipe.
    stage: usize,
    /// N; none of the model that the stage has written at its end.
    pub number: Option<u64>,
    /// The file, or the stage's folder.
    pub path: PathBuf,
    /// When it was written, in nanoseconds since 1970.
    pub written_ns: u64,
}

/// A checkpoint as a model, and how many steps were made.
pub(crate) struct Opened {
    pub model: Loaded,
    pub step: u64,
}

/// All that this run has written, the oldest first. A stage's own model is among it only where no checkpoint is of its last step.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn all(recipe: &Recipe) -> Result<Vec<Written>> {
    let mut all = Vec::new();
    for (i, stage) in recipe.stages.iter().enumerate() {
        let folder = recipe.stage_folder(&stage.name);
        if !folder.is_dir() {
            continue;
        }
        // Older ones are another run's.
        let own = numbered(&folder)?.split_off(&run::begun::read(&folder)?);
        let steps = run::done::read(&folder)?;
        // Asked only at a stage's end: whoever watches a run looks here again and again.
        let newest = own.last_key_value().filter(|_| steps > 0);
        let again = newest.and_then(|(_, path)| step_of(path).ok());
        for (number, path) in own {
            all.extend(Written::of(i, Some(number), path.clone(), &path));
        }
        if steps > 0 && again != Some(steps) {
            all.extend(Written::of(i, None, folder.clone(), &run::done::path(&folder)));
        }
    }
    Ok(all)
}

/// Whether every stage of the run is done.
///
/// # Errors
/// A mark of a newer version.
pub(crate) fn done(recipe: &Recipe) -> Result<bool> {
    for stage in &recipe.stages {
        if run::done::read(&recipe.stage_folder(&stage.name))? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn step_of(path: &Path) -> Result<u64> {
    let steps = training::read(&open_torch(path)?)?.steps;
    Ok(u64::try_from(steps).unwrap_or_default())
}

impl Written {
    /// None where `mark` is gone by now.
    fn of(stage: usize, number: Option<u64>, path: PathBuf, mark: &Path) -> Option<Self> {
        let written = std::fs::metadata(mark).and_then(|m| m.modified()).ok()?;
        let since = written.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Written {
            stage,
            number,
            path,
            written_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        })
    }

    /// The stage that has written it.
    pub(crate) fn stage<'r>(&self, recipe: &'r Recipe) -> &'r StageRecipe {
        &recipe.stages[self.stage]
    }

    /// `checkpoint_N`, or `model`.
    pub(crate) fn name(&self) -> String {
        match self.number {
            Some(number) => checkpoint::file_name(number).trim_end_matches(".pt").to_owned(),
            None => "model".to_owned(),
        }
    }

    /// The whole model: what its stage has begun with, and over it what the file has, which is no more than what trains.
    ///
    /// # Errors
    /// A file that is gone, damaged or another stage's; what the stage has begun with and is not there any more.
    pub(crate) fn open(&self, recipe: &Recipe, device: Device) -> Result<Opened> {
        let stage = self.stage(recipe);
        if self.number.is_none() {
            let mut model = load::open(&self.path, &load::Options::new(device))?;
            model.tokenizer.special_tokens = recipe.data.special_tokens_in_texts;
            let step = run::done::read(&self.path)?;
            return Ok(Opened { model, step });
        }
        // Held open from here on: training may take the file away meanwhile.
        let file = open_torch(&self.path)?;
        let read = training::read(&file)?;
        if let Some(other) = read.stage.as_deref().filter(|name| *name != stage.name) {
            let expected = format!("{}, in whose folder it lies", stage.name);
            return Err(Error::checkpoint(&self.path, "af2.stage", expected, other));
        }
        let step = u64::try_from(read.steps).unwrap_or_default();
        let model = curriculum::start(recipe, self.stage, &Ranks::alone(), device)?;
        state::restore_weights(&Stage::new(&model, stage, &recipe.train), &file)?;
        model.params.train_only(|_| false);
        Ok(Opened { model, step })
    }
}
