//! Which of a run's `checkpoint_N.pt` stay.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How many checkpoints a folder keeps. Reference: the last one, and every fifth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keep {
    /// The newest so many; at least one stays.
    pub last: usize,
    /// Every so-manieth by its number; 0 keeps none for its number.
    pub every: usize,
}

impl Keep {
    /// Removes the checkpoints that neither rule keeps, and what writers that were killed left behind. Only the one
    /// process that writes into the folder may call it, and not while it writes.
    pub(crate) fn apply(&self, folder: &Path) -> Result<()> {
        let numbered = numbered(folder)?;
        let newest = numbered.len().saturating_sub(self.last.max(1));
        for (number, path) in numbered.iter().take(newest) {
            let kept = self.every > 0 && number.is_multiple_of(self.every as u64);
            if !kept {
                std::fs::remove_file(path).map_err(|e| Error::io(path, e))?;
            }
        }
        for path in entries(folder)? {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if name.starts_with(".checkpoint_") && name.ends_with(".tmp") {
                std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
            }
        }
        Ok(())
    }
}

/// The name of checkpoint N.
pub(crate) fn file_name(number: u64) -> String {
    format!("checkpoint_{number}.pt")
}

/// A folder's checkpoints by their number.
pub fn numbered(folder: &Path) -> Result<BTreeMap<u64, PathBuf>> {
    let number = |p: &Path| -> Option<u64> {
        let name = p.file_name()?.to_str()?;
        let digits = name.strip_prefix("checkpoint_")?.strip_suffix(".pt")?;
        // Not `checkpoint_+7.pt` or `checkpoint_07.pt`: these are not ours.
        digits.parse().ok().filter(|n: &u64| n.to_string() == digits)
    };
    Ok(entries(folder)?
        .into_iter()
        .filter_map(|p| Some((number(&p)?, p)))
        .collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)
        .map_err(|e| Error::io(folder, e))?
        .map(|f| f.map(|f| f.path()).map_err(|e| Error::io(folder, e)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_and_every_fifth_stay_and_so_does_what_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let touch = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        (0..=12).for_each(|n| touch(&file_name(n)));
        [
            "checkpoint_x.pt",
            "checkpoint_07.pt",
            "notes.tmp",
            ".checkpoint_9.pt.a1.tmp",
        ]
        .into_iter()
        .for_each(touch);
        Keep { last: 2, every: 5 }.apply(folder.path()).unwrap();
        let left: Vec<u64> = numbered(folder.path()).unwrap().into_keys().collect();
        assert_eq!(left, [0, 5, 10, 11, 12]);
        assert!(folder.path().join("checkpoint_07.pt").exists());
        assert!(folder.path().join("notes.tmp").exists());
        assert!(!folder.path().join(".checkpoint_9.pt.a1.tmp").exists());
        Keep { last: 0, every: 0 }.apply(folder.path()).unwrap();
        assert_eq!(
            numbered(folder.path()).unwrap().into_keys().collect::<Vec<_>>(),
            [12]
        );
    }
}
