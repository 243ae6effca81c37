//! `predictions.partial/EVALUATION/rank-R.N.jsonl`: the answers of an evaluation that is not done, one a line, each written as
//! soon as it is there. Every process has a file of its own, so that none is written by two; the evaluation's end takes the folder
//! away.

use super::predictions::{self, Prediction};
use super::version::{self, Versioned};
use crate::error::{Error, Result};
use crate::fsutil::create_next;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const VERSION: u64 = 1;
/// A power cut takes at most so many answers…
const MOST_UNSYNCED: usize = 64;
/// …or those of so long a time. A killed process loses none.
const LONGEST_UNSYNCED: Duration = Duration::from_secs(2);

/// Where the evaluations that are not done have their folders.
pub(crate) fn folders(run: &Path) -> PathBuf {
    run.join("predictions.partial")
}

/// The folder of one of them, named by whom it asks and how.
pub(crate) fn folder(run: &Path, evaluation: &str) -> PathBuf {
    folders(run).join(&evaluation[..evaluation.len().min(16)])
}

/// An answer, and what it is the answer of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// A hash of whom is asked and how: the model, the decoding, the precision.
    pub evaluation: String,
    /// A hash of what is asked: the manifest's item, its sound, the prompt's tokens, with the clip or with silence.
    pub question: String,
    pub prediction: Prediction,
}

/// All answers in an evaluation's folder; none where there is no folder. A last line without its end was being written when its
/// process was killed, and is left out.
///
/// # Errors
/// The first other line that is none of ours, by file and number.
pub(crate) fn read(folder: &Path) -> Result<Vec<Line>> {
    let mut all = Vec::new();
    for path in files(folder)? {
        predictions::lines(&path, |place, line| {
            if line.last() != Some(&b'\n') {
                return Ok(());
            }
            version::check(line, VERSION, &path, place)?;
            let line = serde_json::from_slice(line).map_err(|e| {
                let e = Error::data(&path, place, "an answer as JSON", e.to_string());
                e.hint(
                    "take the line out to have its question asked again, or start over with --resume never",
                )
            })?;
            all.push(line);
            Ok(())
        })?;
    }
    Ok(all)
}

/// The journals of a folder, by their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, e);
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// Takes an evaluation's journals away, and the folder of all of them with the last.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(folder, e)),
        _ => {}
    }
    // Another evaluation's may be in it.
    if let Some(all) = folder.parent() {
        let _ = fs::remove_dir(all);
    }
    Ok(())
}

/// What one process writes.
pub(crate) struct Journal {
    folder: PathBuf,
    rank: usize,
    /// From the first answer on.
    file: Option<(PathBuf, File)>,
    unsynced: usize,
    synced: Instant,
}

impl Journal {
    /// One in this folder, which is made with the first answer.
    pub(crate) fn new(folder: PathBuf, rank: usize) -> Self {
        Journal {
            folder,
            rank,
            file: None,
            unsynced: 0,
            synced: Instant::now(),
        }
    }

    /// Writes an answer. Whatever becomes of this process, it is there then; a power cut may still take it until it is
    /// [synced](Journal::sync_if_due).
    pub(crate) fn add(&mut self, line: &Line) -> Result<()> {
        let (path, file) = match &mut self.file {
            Some(open) => open,
            // One of this rank that was killed may still be ending.
            none => none.insert(create_next(&self.folder, |n| {
                format!("rank-{}.{n}.jsonl", self.rank)
            })?),
        };
        let mut text = serde_json::to_vec(&Versioned {
            version: VERSION,
            value: line,
        })
        .map_err(|e| Error::data(&*path, "prediction", "something that JSON can say", e.to_string()))?;
        text.push(b'\n');
        file.write_all(&text).map_err(|e| {
            Error::io(&*path, e)
                .hint("what was answered before is kept: the same command asks only what is left")
        })?;
        self.unsynced += 1;
        self.sync_if_due()
    }

    /// Brings what was written to the disk when that is due: to be called now and then.
    pub(crate) fn sync_if_due(&mut self) -> Result<()> {
        let waited = self.unsynced > 0 && self.synced.elapsed() > LONGEST_UNSYNCED;
        match self.unsynced >= MOST_UNSYNCED || waited {
            true => self.sync(),
            false => Ok(()),
        }
    }

    fn sync(&mut self) -> Result<()> {
        if let Some((path, file)) = &self.file {
            file.sync_data().map_err(|e| Error::io(path, e))?;
        }
        self.unsynced = 0;
        self.synced = Instant::now();
        Ok(())
    }

    /// All of it is on the disk, and other hosts see it.
    pub(crate) fn close(mut self) -> Result<()> {
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize) -> Line {
        Line {
            evaluation: "e".repeat(64),
            question: format!("q{n}"),
            prediction: predictions::asked(n, "dog", "dog"),
        }
    }

    #[test]
    fn what_is_written_is_read_and_a_torn_end_is_left_out() {
        let run = tempfile::tempdir().unwrap();
        let at = folder(run.path(), &"e".repeat(64));
        assert_eq!(read(&at).unwrap(), []);
        let mut first = Journal::new(at.clone(), 0);
        first.add(&line(0)).unwrap();
        first.add(&line(1)).unwrap();
        // The same rank again, the one before not closed; and another.
        let mut again = Journal::new(at.clone(), 0);
        again.add(&line(2)).unwrap();
        let mut other = Journal::new(at.clone(), 1);
        other.add(&line(3)).unwrap();
        first.close().unwrap();
        assert_eq!(fs::read_dir(&at).unwrap().count(), 3);
        assert_eq!(read(&at).unwrap(), [0, 1, 2, 3].map(line));

        let file = at.join("rank-0.1.jsonl");
        let whole = fs::read(&file).unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&file, &whole[..cut]).unwrap();
            assert_eq!(read(&at).unwrap(), [0, 1, 3].map(line), "{cut}");
        }
        // As a file is found after a power cut: its size is there, its bytes are not.
        fs::write(&file, [&whole[..], &[0; 300]].concat()).unwrap();
        assert_eq!(read(&at).unwrap(), [0, 1, 2, 3].map(line));
        for broken in ["\n", "{\"question\": \"a\"}\n", "\0\0\n"] {
            fs::write(&file, [&whole[..], broken.as_bytes(), &whole].concat()).unwrap();
            let e = read(&at).unwrap_err();
            let text = e.to_string();
            assert!(
                text.contains("rank-0.1.jsonl: line 2: expected an answer as JSON"),
                "{text}"
            );
            assert_eq!(e.exit_code(), 6);
        }
        fs::write(&file, "{\"version\":2}\n").unwrap();
        assert!(read(&at).unwrap_err().to_string().contains("found version 2"));
        remove(&at).unwrap();
        remove(&at).unwrap();
        assert!(!folders(run.path()).exists());
    }

    #[test]
    fn what_waits_is_synced_in_batches() {
        let run = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(folder(run.path(), "e"), 0);
        for n in 0..MOST_UNSYNCED - 1 {
            journal.add(&line(n)).unwrap();
        }
        assert_eq!(journal.unsynced, MOST_UNSYNCED - 1);
        journal.add(&line(0)).unwrap();
        assert_eq!(journal.unsynced, 0);
        journal.add(&line(0)).unwrap();
        journal.synced -= 2 * LONGEST_UNSYNCED;
        journal.sync_if_due().unwrap();
        assert_eq!(journal.unsynced, 0);
    }
}
