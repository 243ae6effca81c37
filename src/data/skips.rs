//! Items that cannot be used: named in a ledger, counted, and bounded. Replaced by others only where it is asked for.

use crate::error::{Error, Result};
use crate::run::skipped::Skipped;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// The bad items of one stage.
pub struct Ledger {
    path: PathBuf,
    stage: String,
    /// Items of all its sets, and how many of them may be bad.
    items: usize,
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// An item that comes again in a later epoch is the same fault.
    seen: HashSet<(PathBuf, String)>,
    file: Option<File>,
}

impl Ledger {
    /// Appends to `path`, which is made with the first bad item. `budget` is the share of `items` that may be bad; 0 stops
    /// at the first.
    pub fn new(path: &Path, stage: &str, items: usize, budget: f64) -> Self {
        Ledger {
            path: path.to_path_buf(),
            stage: stage.to_owned(),
            items,
            most: (items as f64 * budget) as usize,
            state: Mutex::default(),
        }
    }

    /// Notes an item, by its file and key, why it is not used, and what the batch has in its place where it is replaced:
    /// a line of `skipped.jsonl`.
    ///
    /// # Errors
    /// [`Error::Skips`] when more items are bad than the budget allows; a ledger that cannot be written.
    pub fn skip(&self, path: &Path, key: &str, reason: &Error, by: Option<&Path>) -> Result<()> {
        let mut state = self.lock();
        if state.seen.insert((path.to_path_buf(), key.to_owned())) {
            self.note(&mut state, path, key, reason, by)?;
        }
        // Also for one that was seen before: the batch that a thread made ahead may have met it first.
        match state.seen.len() {
            // Without any good item there would be no end.
            n if n > self.most || n >= self.items => Err(Error::Skips {
                ledger: self.path.clone(),
                skipped: n,
                items: self.items,
                most: self.most,
                last: reason.to_string(),
            }),
            _ => Ok(()),
        }
    }

    fn note(
        &self,
        state: &mut State,
        path: &Path,
        key: &str,
        reason: &Error,
        by: Option<&Path>,
    ) -> Result<()> {
        let io = |e| Error::io(&self.path, e);
        let skipped = Skipped {
            stage: &self.stage,
            path,
            item: key,
            reason: reason.to_string(),
            replaced_by: by,
        };
        let line = skipped.line().map_err(|e| io(e.into()))?;
        if state.file.is_none() {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
            let file = OpenOptions::new().create(true).append(true).open(&self.path);
            state.file = Some(file.map_err(io)?);
        }
        match &mut state.file {
            Some(file) => file.write_all(line.as_bytes()).map_err(io),
            None => Ok(()),
        }
    }

    /// Bad items so far, each counted once.
    pub fn count(&self) -> usize {
        self.lock().seen.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A set and a file that is only appended to: nothing is half done after a panic.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}
