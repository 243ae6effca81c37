//! `captions.jsonl` in a benchmark's folder: what a model has written about pieces of its clips, a line each.

use super::predictions::lines;
use super::version::{self, Versioned};
use crate::error::{Error, Result};
use crate::fsutil::write_atomic;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;

/// Where they lie.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join("captions.jsonl")
}

/// A piece of a clip in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Caption {
    /// A hash of whom was asked and in which arithmetic.
    pub evaluation: String,
    /// A hash of what was asked: sound, piece, words, decoding.
    pub question: String,
    /// A hash of the file's sound.
    pub sound: String,
    /// The file.
    pub path: String,
    /// Where the piece begins and ends in the file, in seconds.
    pub start: f64,
    pub end: f64,
    pub prompt: String,
    pub caption: String,
}

/// Writes all, whole or not at all.
pub(crate) fn write(folder: &Path, all: &[Caption]) -> Result<()> {
    let path = path(folder);
    write_atomic(&path, |out| {
        for caption in all {
            let line = Versioned {
                version: VERSION,
                value: caption,
            };
            let line = serde_json::to_string(&line).map_err(|e| Error::io(&path, e.into()))?;
            writeln!(out, "{line}").map_err(|e| Error::io(&path, e))?;
        }
        Ok(())
    })
}

/// Reads them; none where there is no file.
///
/// # Errors
/// The first line that is none, with its number.
pub(crate) fn read(folder: &Path) -> Result<Vec<Caption>> {
    let path = path(folder);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    lines(&path, |place, line| {
        version::check(line, VERSION, &path, place)?;
        let caption: Caption = serde_json::from_slice(line)
            .map_err(|e| Error::data(&path, place, "a caption as JSON", e.to_string()))?;
        all.push(caption);
        Ok(())
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), []);
        let caption = |n: usize| Caption {
            evaluation: "e".into(),
            question: format!("q{n}"),
            sound: "s".into(),
            path: "long.wav".into(),
            start: 30.0 * n as f64,
            end: 30.0 * (n + 1) as f64,
            prompt: "What is heard?".into(),
            caption: "a dog\nbarks".into(),
        };
        let all = [caption(0), caption(1)];
        write(folder.path(), &all).unwrap();
        assert_eq!(read(folder.path()).unwrap(), all);
        std::fs::write(path(folder.path()), "{}\n").unwrap();
        let e = read(folder.path()).unwrap_err().to_string();
        assert!(e.contains("captions.jsonl: line 1: "), "{e}");
    }
}
