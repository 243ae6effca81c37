//! Items that cannot be used: named in a ledger, counted, and bounded. Never replaced by others.

use super::feed::Example;
use crate::error::{Error, Result};
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

    /// Notes an item and why it is skipped: one JSON object a line, with stage, path, item, reason.
    ///
    /// # Errors
    /// [`Error::Skips`] when more items are bad than the budget allows; a ledger that cannot be written.
    pub fn skip(&self, example: &Example, reason: &Error) -> Result<()> {
        let mut state = self.lock();
        let own = (example.clip.path.clone(), example.item.key.clone());
        if !state.seen.insert(own) {
            return Ok(());
        }
        let line = serde_json::json!({
            "stage": self.stage, "path": example.clip.path, "item": example.item.key, "reason": reason.to_string(),
        });
        let io = |e| Error::io(&self.path, e);
        if state.file.is_none() {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
            let file = OpenOptions::new().create(true).append(true).open(&self.path);
            state.file = Some(file.map_err(io)?);
        }
        if let Some(file) = &mut state.file {
            file.write_all(format!("{line}\n").as_bytes()).map_err(io)?;
        }
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

    /// Bad items so far, each counted once.
    pub fn count(&self) -> usize {
        self.lock().seen.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A set and a file that is only appended to: nothing is half done after a panic.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}
