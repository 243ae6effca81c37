//! `events/benchmarks/benchmarks.jsonl`: what a run's checkpoints score on benchmarks, a line each.
//!
//! Who trains writes `events/STAGE/events.jsonl`, takes lines out of it when it is resumed and moves it aside when it begins anew: nobody
//! else may append there. So these lines have a folder of their own, which training neither writes nor moves.

use super::version::{self, Versioned};
use crate::error::{Error, Result};
use crate::fsutil::open_regular;
use crate::metrics::bootstrap::Interval;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;
/// What a line is.
const KIND: &str = "benchmark";
/// A line takes some hundred bytes; a file of more was not written by this.
const MOST_BYTES: u64 = 1 << 28;
/// The folder's name below `events`, which no stage may have that is watched.
pub(crate) const NAME: &str = "benchmarks";

/// The folder of the file, and of TensorBoard's beside it.
pub(crate) fn folder(run: &Path) -> PathBuf {
    super::events::folder(run, NAME)
}

/// Where it lies.
pub fn path(run: &Path) -> PathBuf {
    folder(run).join("benchmarks.jsonl")
}

/// What one checkpoint scores on one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointScore {
    /// `benchmark`: lines of several files can be put together.
    pub kind: String,
    /// The stage that wrote it.
    pub stage: String,
    /// Optimizer steps that it has made.
    pub step: u64,
    /// The number of `checkpoint_N.pt`; none of the stage's own model, which it writes at its end.
    pub checkpoint: Option<u64>,
    /// When the checkpoint was written, in nanoseconds since 1970: another one of its number is another.
    pub written_ns: u64,
    /// The card's name.
    pub benchmark: String,
    /// The same, and of how many of its items where not all were asked.
    pub name: String,
    /// Of the score.
    pub metric: String,
    /// None where the answers leave it undefined.
    pub score: Option<f64>,
    /// Of the score.
    pub interval: Option<Interval>,
    /// Items in the score.
    pub n: usize,
    /// Only so many items were asked, from the front.
    pub limited: Option<usize>,
    /// A hash of how it was asked: items, words, decoding, rule.
    pub asked: String,
    /// Seconds since 1970.
    pub time: f64,
}

impl CheckpointScore {
    /// What a line's `kind` says.
    pub(crate) fn kind() -> String {
        KIND.to_owned()
    }

    /// Scores that make one curve.
    fn curve(&self) -> (&str, &str, &str) {
        (&self.stage, &self.name, &self.metric)
    }
}

/// All lines; none where there is no file. A last line without its end was being written when its process was killed, and is left out.
///
/// # Errors
/// The first other line, counted from 1, that is none of ours, or of a newer version.
pub fn read(run: &Path) -> Result<Vec<CheckpointScore>> {
    let path = path(run);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    let file = open_regular(&path)?;
    file.take(MOST_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io(&path, e))?;
    let mut all = Vec::new();
    let lines = bytes[..end_of_lines(&bytes)].split_inclusive(|b| *b == b'\n');
    for (i, line) in lines.enumerate() {
        let place = format!("line {}", i + 1);
        version::check(line, VERSION, &path, &place)?;
        let score = serde_json::from_slice(line)
            .map_err(|e| Error::data(&path, &place, "a checkpoint's score as JSON", e.to_string()))?;
        all.push(score);
    }
    Ok(all)
}

/// Appends lines, each in one write, and brings them to the disk. To be called by who has locked the folder. What a killed
/// process left of a line goes.
pub(crate) fn append(run: &Path, scores: &[CheckpointScore]) -> Result<()> {
    let path = path(run);
    let io = |e| Error::io(&path, e);
    fs::create_dir_all(folder(run)).map_err(io)?;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(io)?;
    let mut before = Vec::new();
    file.read_to_end(&mut before).map_err(io)?;
    file.set_len(end_of_lines(&before) as u64).map_err(io)?;
    file.seek(SeekFrom::End(0)).map_err(io)?;
    for score in scores {
        let line = Versioned {
            version: VERSION,
            value: score,
        };
        let mut line = serde_json::to_vec(&line).map_err(|e| io(e.into()))?;
        line.push(b'\n');
        file.write_all(&line).map_err(io)?;
    }
    file.sync_all().map_err(io)
}

/// Behind the last whole line.
fn end_of_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1)
}

/// The curves that count, each a stage's on one benchmark, in the order in which they begin and by steps: where a run was resumed from an
/// earlier step, or begun anew, later checkpoints take the place of those before them.
pub fn latest(mut scores: Vec<CheckpointScore>) -> Vec<Vec<CheckpointScore>> {
    // The stage's own model comes last. Of two lines about one checkpoint the later counts: the order of lines stays.
    scores.sort_by_key(|score| score.checkpoint.unwrap_or(u64::MAX));
    let mut curves: Vec<Vec<CheckpointScore>> = Vec::new();
    for score in scores {
        let own = curves.iter_mut().find(|c| c[0].curve() == score.curve());
        match own {
            Some(curve) => {
                let still = curve.partition_point(|before| before.step < score.step);
                curve.truncate(still);
                curve.push(score);
            }
            None => curves.push(vec![score]),
        }
    }
    curves.sort_by(|a, b| a[0].time.total_cmp(&b[0].time));
    curves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(checkpoint: Option<u64>, step: u64, value: f64) -> CheckpointScore {
        CheckpointScore {
            kind: CheckpointScore::kind(),
            stage: "one".into(),
            step,
            checkpoint,
            written_ns: 1_700_000_000_123_456_789,
            benchmark: "animals".into(),
            name: "animals (4 of 10 items)".into(),
            metric: "accuracy".into(),
            score: Some(value),
            interval: Some(Interval { low: 0.0, high: 1.0 }),
            n: 4,
            limited: Some(4),
            asked: "h".into(),
            time: step as f64,
        }
    }

    #[test]
    fn what_is_appended_is_read_and_a_torn_end_goes() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(read(run.path()).unwrap(), []);
        let [first, second, third] = [0, 1, 2].map(|n| score(Some(n), 2 * n, 0.5));
        append(run.path(), &[first.clone(), second.clone()]).unwrap();
        let path = path(run.path());
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"version\":1,\"kind\""].concat()).unwrap();
        assert_eq!(read(run.path()).unwrap(), [first.clone(), second.clone()]);
        append(run.path(), std::slice::from_ref(&third)).unwrap();
        assert_eq!(read(run.path()).unwrap(), [first, second, third]);
        fs::write(&path, "{}\n").unwrap();
        let e = read(run.path()).unwrap_err().to_string();
        assert!(e.contains("benchmarks.jsonl: line 1: "), "{e}");
        fs::write(&path, "{\"version\":2}\n").unwrap();
        assert!(read(run.path()).unwrap_err().to_string().contains("version 2"));
    }

    #[test]
    fn later_checkpoints_of_the_same_step_and_of_earlier_ones_count() {
        let all = vec![
            score(Some(0), 2, 0.1),
            score(Some(1), 4, 0.2),
            score(None, 6, 0.9),
            score(Some(2), 6, 0.3),
            // Resumed behind step 2.
            score(Some(3), 4, 0.4),
            // The same one again.
            score(Some(3), 4, 0.5),
        ];
        let curves = latest(all);
        assert_eq!(curves.len(), 1);
        let points: Vec<_> = curves[0].iter().map(|s| (s.step, s.score)).collect();
        assert_eq!(points, [(2, Some(0.1)), (4, Some(0.5)), (6, Some(0.9))]);
    }
}
