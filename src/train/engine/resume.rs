//! Going on where a run was: stages that are done, the newest checkpoint that can be read, and what is saved when the other
//! ranks are lost.

use super::saver::Saver;
use super::steps::Steps;
use super::{guard, made_with, state};
use crate::checkpoint::{file_name, numbered, open_torch, training};
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::run;
use crate::train::job::Job;
use std::path::Path;

/// A job's place on the disk, and how far the recipe wants it to go: known before its model is made.
pub(crate) struct Task<'a> {
    /// The recipe's, for messages.
    pub recipe: &'a str,
    pub name: &'a str,
    /// Where its keys stand.
    pub section: &'a str,
    /// Where its checkpoints and marks are.
    pub folder: &'a Path,
    pub steps: usize,
}

impl Task<'_> {
    /// Marks a job whose model is written: it is not run again.
    pub(crate) fn done(&self) -> Result<()> {
        run::done::write(self.folder, self.steps)
    }

    /// Whether the job was run to the step that the recipe asks for, and its model is there (`opens` looks): what the first rank
    /// sees, on all.
    ///
    /// # Errors
    /// A job that was run further; a mark of a newer version.
    pub(crate) fn is_done(&self, ranks: &Ranks, opens: impl FnOnce() -> Result<()>) -> Result<bool> {
        let mut seen = [run::done::read(self.folder)? as f64, 0.0];
        if ranks.first() && seen[0] as usize == self.steps {
            match opens() {
                Ok(()) => seen[1] = 1.0,
                Err(e) => crate::say!(
                    "resume: {} is marked as done, but its model cannot be used: {}",
                    self.name,
                    crate::error::short(&e)
                ),
            }
        }
        ranks.of_first(&mut seen)?;
        let there = format!("{} is done", self.folder.display());
        self.not_beyond(seen[0] as usize, &there)?;
        Ok(seen[1] > 0.0)
    }

    /// A job ends at its last step; one that is beyond it can neither be gone on with nor taken for shorter.
    ///
    /// # Errors
    /// A recipe that asks for fewer steps than are made.
    pub(crate) fn not_beyond(&self, made: usize, what: &str) -> Result<()> {
        let wanted = self.steps;
        if made <= wanted {
            return Ok(());
        }
        let key = format!("{}.optim.steps", self.section);
        let message = format!("{key}: {wanted}, but {what} with {made} steps: nothing is left to train");
        Err(Error::recipe(self.recipe, message).hint(format!(
            "{key}={made} takes what is there; another `output`, or no --resume, trains {wanted} steps from the beginning"
        )))
    }

    /// Removes the mark: the job's model is about to be changed.
    pub(crate) fn not_done(&self, ranks: &Ranks) -> Result<()> {
        if !ranks.first() {
            return Ok(());
        }
        let path = run::done::path(self.folder);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path, e)),
            _ => Ok(()),
        }
    }
}

/// The job that a checkpoint says it is of; the reference's do not.
///
/// # Errors
/// A file that is no checkpoint.
pub(crate) fn job_of(path: &Path) -> Result<Option<String>> {
    Ok(training::read(&open_torch(path)?)?.stage)
}

/// A new run of a job: checkpoints that an earlier one left stay, and are not gone on from.
pub(crate) fn begin(folder: &Path, ranks: &Ranks) -> Result<()> {
    if !ranks.first() {
        return Ok(());
    }
    let next = numbered(folder)?.into_keys().next_back().map_or(0, |n| n + 1);
    run::begun::write(folder, next)
}

/// Puts the job into the state of a checkpoint, on all ranks. Says what decides what is learned and is another now than when it
/// was written.
///
/// # Errors
/// A file that is damaged, or not of this job; also where another rank says so of its own.
pub(crate) fn from<J: Job>(path: &Path, steps: &mut Steps<J>) -> Result<()> {
    let mut changes = Vec::new();
    let own = open_torch(path).and_then(|file| {
        let read = training::read(&file)?;
        let ours = steps.job.name();
        if let Some(other) = read.stage.as_deref().filter(|name| *name != ours) {
            // Before its tensors are looked for, none of which need be there.
            return Err(Error::checkpoint(
                path,
                "af2.stage",
                format!("{ours}, which is trained"),
                other,
            ));
        }
        let then = read.made_with.clone().unwrap_or_default();
        state::restore_weights(steps.job, &file)?;
        state::restore(steps, &file)?;
        changes = made_with::changes(&then, &steps.made_with);
        Ok(())
    });
    agree(path, steps, own)?;
    if steps.ranks.first() {
        crate::say!(
            "resume: {} from {}, step {}",
            steps.job.name(),
            path.display(),
            steps.done
        );
        for change in changes {
            crate::say!("resume: {change}");
        }
    }
    Ok(())
}

/// Ranks that read another file, or none, would train another model each: what one of them cannot use, none uses.
fn agree<J: Job>(path: &Path, steps: &Steps<J>, own: Result<()>) -> Result<()> {
    let step = steps.done as f64;
    let mut all = [f64::from(u8::from(own.is_err())), step, -step];
    steps.ranks.max(&mut all)?;
    own?;
    if all[0] > 0.0 || all[1] != -all[2] {
        let found = match all[0] > 0.0 {
            true => "a rank that cannot use it".to_owned(),
            false => format!("steps {} to {}", -all[2], all[1]),
        };
        let e = Error::checkpoint(path, "checkpoint", "the same file on all ranks", found);
        return Err(e.hint("the run's folder must be one that all machines share"));
    }
    Ok(())
}

/// Puts the job into the state of its newest checkpoint; where that is damaged of the one before, and says so. A folder
/// without any leaves it at its beginning, and that is said where a model is there. Which there are, the first rank says.
///
/// # Errors
/// None of the checkpoints can be gone on from: what is wrong with each.
pub(crate) fn newest<J: Job>(folder: &Path, steps: &mut Steps<J>) -> Result<()> {
    let first = run::begun::read(folder)?;
    let mut left = numbered(folder)?.split_off(&first);
    let mut damaged = Vec::new();
    loop {
        let mut next = [left.keys().next_back().map_or(-1.0, |n| *n as f64)];
        steps.ranks.of_first(&mut next)?;
        if next[0] < 0.0 {
            let model = folder.join("safe_ckpt/metadata.json");
            if damaged.is_empty() && steps.ranks.first() && model.exists() {
                crate::say!(
                    "note: {} holds a model, but no checkpoint to go on from: {} begins anew",
                    folder.display(),
                    steps.job.name()
                );
            }
            return crate::error::all(damaged);
        }
        let number = next[0] as u64;
        left.remove(&number);
        let Err(e) = from(&folder.join(file_name(number)), steps) else {
            return Ok(());
        };
        if matches!(e, Error::Ranks { .. }) {
            return Err(e);
        }
        if steps.ranks.first() {
            crate::say!("resume: a checkpoint cannot be used: {e}");
        }
        damaged.push(e);
    }
}

/// After an error: saves the last whole step, where it is this rank that should and `sound` says that it is worth it. Returns
/// what the user is told.
pub(crate) fn rescue<J: Job>(error: Error, steps: &Steps<J>, saver: &mut Saver, sound: bool) -> Error {
    // A signal's step is saved; a disk that is full or forbidden stays so.
    let saves = !matches!(error, Error::Stopped(_) | Error::Io { .. }) && sound;
    // To be asked before others are told: that gives up what the device waits for.
    let made = saves && steps.ranks.step_made();
    // The first rank need not ask who else is left, and a launcher may not leave it the time to.
    let first = saves && steps.ranks.first();
    if first {
        steps.ranks.tell(&error);
        save_alone(steps, saver, made);
    }
    let (error, ours) = steps.ranks.explain(error, steps.done);
    if saves && ours && !first {
        save_alone(steps, saver, made);
    }
    error
}

fn save_alone<J: Job>(steps: &Steps<J>, saver: &mut Saver, made: bool) {
    let step = steps.done;
    if !made {
        crate::say!("step {step} is not saved: the device was lost while it made it");
        return;
    }
    match guard::catch(&steps.train, &steps.job.section(), || saver.rescue(steps)) {
        Ok(Some(path)) => crate::say!("saved step {step} in {}", path.display()),
        Ok(None) => {}
        Err(e) => crate::say!("step {step} is not saved: {e}"),
    }
}
