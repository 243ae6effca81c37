//! Checkpoints of a job while it trains: when, where, and how many of them stay.

use super::finite;
use super::state::Snapshot;
use super::steps::Steps;
use crate::checkpoint::{self, Keep, Writer};
use crate::error::{Error, Result};
use crate::recipe::SaveRecipe;
use crate::train::job::Job;
use std::path::PathBuf;

/// Writes a job's `checkpoint_N.pt` in the background and keeps as many as the recipe says.
pub struct Saver {
    folder: PathBuf,
    settings: SaveRecipe,
    writer: Writer,
    /// The next checkpoint's number.
    next: u64,
    /// The step that was saved last: it need not be saved again. The same on all ranks.
    saved: Option<usize>,
    /// The step that this rank itself has written or read last.
    own: Option<usize>,
}

impl Saver {
    /// Checkpoints are numbered from behind the last that is there: those of an earlier run are kept or go as the
    /// recipe says, and are never taken for newer ones.
    ///
    /// # Errors
    /// A folder that cannot be made, written to or listed: before a day of training, not after.
    pub fn new(folder: PathBuf, settings: SaveRecipe) -> Result<Self> {
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        tempfile::tempfile_in(&folder).map_err(|e| {
            Error::io(&folder, e).hint("checkpoints are written here: is it writable, and is there room?")
        })?;
        let last = checkpoint::numbered(&folder)?.into_keys().next_back();
        Ok(Saver {
            folder,
            settings,
            writer: Writer::default(),
            next: last.map_or(0, |n| n + 1),
            saved: None,
            own: None,
        })
    }

    /// Whether the recipe asks for a checkpoint after this step.
    pub(crate) fn due<J: Job>(&self, steps: &Steps<J>) -> bool {
        self.settings.every > 0 && steps.done.is_multiple_of(self.settings.every)
    }

    /// Copies the state off the device and writes it while training goes on. All ranks come together for it; the first writes.
    ///
    /// # Errors
    /// Those of the checkpoint before; weights that are not finite.
    pub fn save<J: Job>(&mut self, steps: &Steps<J>) -> Result<()> {
        if self.saved == Some(steps.done) {
            return Ok(());
        }
        self.saved = Some(steps.done);
        finite::check(&self.name(self.next), &steps.job.section(), steps.job.params())?;
        let snapshot = Snapshot::of(steps, self.next as i64, self.settings.full)?;
        match snapshot {
            Some(snapshot) => {
                self.own = Some(steps.done);
                self.write(snapshot)
            }
            None => Ok(()),
        }
    }

    /// The job goes on from a file that is there.
    pub(crate) fn resumed<J: Job>(&mut self, steps: &Steps<J>) {
        self.own = Some(steps.done);
    }

    /// Saves what this rank alone knows, behind what others may have saved, and waits for it. Returns the file; none where the
    /// last step is saved already.
    ///
    /// # Errors
    /// A disk that is full; [`Error::Training`] where other ranks keep a part of the state, and for weights that are not finite.
    pub fn rescue<J: Job>(&mut self, steps: &Steps<J>) -> Result<Option<PathBuf>> {
        self.writer.wait()?;
        if self.own == Some(steps.done) || steps.done == 0 {
            return Ok(None);
        }
        let last = checkpoint::numbered(&self.folder)?.into_keys().next_back();
        let number = last.map_or(self.next, |n| (n + 1).max(self.next));
        finite::check(&self.name(number), &steps.job.section(), steps.job.params())?;
        let snapshot = Snapshot::alone(steps, number as i64, self.settings.full)?;
        let snapshot = snapshot.ok_or_else(|| Error::Training {
            message: "other ranks keep a part of its state".into(),
            hint: None,
        })?;
        // Nothing is removed for it: which of them is the better one is not known here.
        let file = self.folder.join(checkpoint::file_name(number));
        snapshot.write(&file)?;
        Ok(Some(file))
    }

    fn name(&self, number: u64) -> String {
        self.folder
            .join(checkpoint::file_name(number))
            .display()
            .to_string()
    }

    fn write(&mut self, snapshot: Snapshot) -> Result<()> {
        let number = self.next;
        self.next += 1;
        let folder = self.folder.clone();
        let keep = Keep {
            last: self.settings.keep_last,
            every: self.settings.keep_every,
        };
        self.writer.start(move || {
            snapshot.write(&folder.join(checkpoint::file_name(number)))?;
            keep.apply(&folder)
        })
    }

    /// Waits for the last checkpoint.
    pub fn finish(&mut self) -> Result<()> {
        self.writer.wait()
    }
}
