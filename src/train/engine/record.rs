//! What a run says about itself while it trains: `events.jsonl` for us, TensorBoard's event files for the browser.

use super::board::{self, Board};
use crate::error::{Error, Result};
use crate::run::events::{supersede, Event, Value, EVENTS, SUPERSEDED, TAKEN};
use indexmap::IndexMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Before the number of a folder for what an earlier run wrote.
const EARLIER: &str = "earlier-";

/// What an event is about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct At {
    pub step: u64,
    pub micro_step: Option<u64>,
    pub epoch: Option<u64>,
}

/// Writes both forms into one folder.
///
/// Every record reaches the operating system before [`Recorder::record`] returns; a crash of the process loses none.
pub(crate) struct Recorder {
    path: PathBuf,
    stage: String,
    file: File,
    board: Board,
}

impl Recorder {
    /// Begins: makes the folder. What an earlier run wrote into it goes into a folder of its own beside it, `earlier-N`.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        set_aside(folder)?;
        Recorder::open(folder, None)
    }

    /// Goes on behind a step. Lines of later steps, which the run makes again, go to `superseded.jsonl`, and so does a last
    /// line that a crash cut short; TensorBoard is told to drop them.
    pub(crate) fn resume(folder: &Path, step: u64) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        supersede(folder, step)?;
        Recorder::open(folder, Some(step))
    }

    fn open(folder: &Path, resumed: Option<u64>) -> Result<Self> {
        let path = folder.join(EVENTS);
        let io = |e| Error::io(&path, e);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Recorder {
            stage: folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            board: Board::create(folder, resumed)?,
            path,
            file,
        })
    }

    /// Whether the run's folder is still there: what goes into files that nobody can find any more is lost without an error.
    ///
    /// # Errors
    /// [`Error::Io`] where it was removed, or another stands in its place.
    pub(crate) fn still_there(&self) -> Result<()> {
        let own = self.file.metadata().map_err(|e| Error::io(&self.path, e))?;
        let gone = match fs::metadata(&self.path) {
            // Some file systems number their files anew: then its length says whether it is ours.
            Ok(found) => (found.dev(), found.ino()) != (own.dev(), own.ino()) && found.len() != own.len(),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => true,
            Err(e) => return Err(Error::io(&self.path, e)),
        };
        if !gone {
            return Ok(());
        }
        let what = std::io::Error::new(
            ErrorKind::NotFound,
            "removed or replaced while the run wrote to it",
        );
        Err(Error::io(&self.path, what).hint("the run's folder must stay where it is while the run goes on"))
    }

    /// One line, and one TensorBoard scalar a value (`f32`) where `on_board` says so: TensorBoard knows no places within a step.
    ///
    /// # Errors
    /// A name that is empty, given twice, or one of the line's own (`step`, `stage`, `time`, …); a disk that is full; those of
    /// [`Recorder::still_there`].
    pub(crate) fn record(&mut self, at: At, values: &[(&str, f64)], on_board: bool) -> Result<()> {
        self.line(at, values)?;
        match on_board {
            true => {
                self.still_there()?;
                self.board.scalars(at.step, values)
            }
            false => Ok(()),
        }
    }

    fn line(&mut self, at: At, values: &[(&str, f64)]) -> Result<()> {
        let mut map = IndexMap::with_capacity(values.len());
        for (name, value) in values {
            let taken = name.is_empty() || TAKEN.contains(name);
            if taken || map.insert((*name).to_owned(), Value(*value)).is_some() {
                return Err(Error::data(
                    &self.path,
                    *name,
                    "a new name for each value",
                    "one that is taken",
                ));
            }
        }
        let event = Event {
            step: at.step,
            micro_step: at.micro_step,
            epoch: at.epoch,
            stage: self.stage.clone(),
            time: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |d| d.as_secs_f64()),
            values: map,
        };
        let line = event.line().map_err(|e| Error::io(&self.path, e.into()))?;
        // One write a line: a reader beside us sees whole lines.
        self.file.write_all(&line).map_err(|e| Error::io(&self.path, e))
    }

    /// Brings all records to the disk.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.still_there()?;
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))?;
        self.board.flush()
    }
}

/// Moves what an earlier run wrote into the first folder `earlier-N` that is not there yet.
fn set_aside(folder: &Path) -> Result<()> {
    let mut old = board::files(folder)?;
    let lines = [EVENTS, SUPERSEDED].map(|name| folder.join(name));
    old.extend(
        lines
            .into_iter()
            .filter(|p| fs::metadata(p).is_ok_and(|m| m.len() > 0)),
    );
    if old.is_empty() {
        return Ok(());
    }
    let mut number = 1;
    let aside = loop {
        let path = folder.join(format!("{EARLIER}{number}"));
        match fs::create_dir(&path) {
            Ok(()) => break path,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(Error::io(&path, e)),
        }
    };
    for path in old {
        let to = aside.join(path.file_name().unwrap_or_default());
        fs::rename(&path, to).map_err(|e| Error::io(&path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::events::read_events;

    fn at(step: u64) -> At {
        At {
            step,
            ..At::default()
        }
    }

    fn steps(events: &[Event]) -> Vec<u64> {
        events.iter().map(|e| e.step).collect()
    }

    #[test]
    fn records_come_back_with_their_stage_and_not_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let stage = folder.path().join("events").join("stage1");
        let mut recorder = Recorder::create(&stage).unwrap();
        recorder
            .record(at(8), &[("loss", 2.5), ("grad_norm", f64::NAN)], true)
            .unwrap();
        recorder
            .record(at(16), &[("loss", f64::NEG_INFINITY), ("tiny", 1e-300)], true)
            .unwrap();
        recorder.flush().unwrap();
        let events = read_events(&stage.join(EVENTS)).unwrap();
        assert_eq!(steps(&events), [8, 16]);
        assert_eq!(events[0].stage, "stage1");
        assert!(events[0].time > 1.6e9);
        assert_eq!(events[0].values.keys().collect::<Vec<_>>(), ["loss", "grad_norm"]);
        assert!(events[0].values["grad_norm"].0.is_nan());
        assert_eq!(events[1].values["loss"].0, f64::NEG_INFINITY);
        assert_eq!(events[1].values["tiny"].0, 1e-300);
    }

    #[test]
    fn a_cut_last_line_is_tolerated_and_then_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS);
        Recorder::create(folder.path())
            .unwrap()
            .record(at(1), &[("loss", 1.0)], true)
            .unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        write!(file, "{{\"step\":2,\"stage\":\"{}", "x".repeat(10_000)).unwrap();
        assert_eq!(steps(&read_events(&path).unwrap()), [1]);
        Recorder::resume(folder.path(), 1)
            .unwrap()
            .record(at(2), &[("loss", 0.5)], true)
            .unwrap();
        assert_eq!(steps(&read_events(&path).unwrap()), [1, 2]);
        let aside = fs::read_to_string(folder.path().join(SUPERSEDED)).unwrap();
        assert!(
            aside.starts_with("{\"step\":2,\"stage\":\"xxx") && aside.ends_with("x\n"),
            "{aside}"
        );
    }

    #[test]
    fn a_resumed_run_does_not_count_its_lost_steps_twice_and_a_new_one_not_those_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS);
        let run = |mut recorder: Recorder, steps: std::ops::RangeInclusive<u64>| {
            for step in steps {
                recorder.record(at(step), &[("loss", step as f64)], true).unwrap();
            }
        };
        run(Recorder::create(folder.path()).unwrap(), 1..=5);
        run(Recorder::resume(folder.path(), 3).unwrap(), 4..=6);
        run(Recorder::resume(folder.path(), 6).unwrap(), 7..=7);
        assert_eq!(steps(&read_events(&path).unwrap()), [1, 2, 3, 4, 5, 6, 7]);
        let aside = folder.path().join(SUPERSEDED);
        assert_eq!(steps(&read_events(&aside).unwrap()), [4, 5]);
        // A run that never came to a checkpoint.
        run(Recorder::resume(folder.path(), 0).unwrap(), 1..=2);
        assert_eq!(steps(&read_events(&path).unwrap()), [1, 2]);
        assert_eq!(steps(&read_events(&aside).unwrap()), [4, 5, 1, 2, 3, 4, 5, 6, 7]);

        run(Recorder::create(folder.path()).unwrap(), 1..=1);
        run(Recorder::create(folder.path()).unwrap(), 8..=8);
        assert_eq!(steps(&read_events(&path).unwrap()), [8]);
        for (n, then) in [(1, vec![1, 2]), (2, vec![1])] {
            let old = folder.path().join(format!("{EARLIER}{n}")).join(EVENTS);
            assert_eq!(steps(&read_events(&old).unwrap()), then);
        }
        assert_eq!(board::files(&folder.path().join("earlier-1")).unwrap().len(), 4);
        assert_eq!(board::files(folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_folder_that_is_gone_or_another_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("events");
        type Loss = fn(&Path);
        let losses: [Loss; 4] = [
            |folder| fs::remove_dir_all(folder).unwrap(),
            |folder| fs::rename(folder, folder.with_extension("old")).unwrap(),
            |folder| fs::remove_file(folder.join(EVENTS)).unwrap(),
            |folder| {
                fs::remove_dir_all(folder).unwrap();
                fs::create_dir(folder).unwrap();
                fs::write(folder.join(EVENTS), "another run's").unwrap();
            },
        ];
        for lose in losses {
            let mut recorder = Recorder::create(&folder).unwrap();
            recorder.record(at(1), &[("loss", 1.0)], true).unwrap();
            lose(&folder);
            let e = recorder.record(at(2), &[("loss", 1.0)], true).unwrap_err();
            assert!(
                e.to_string().contains("removed or replaced while the run wrote"),
                "{e}"
            );
            assert_eq!(e.exit_code(), 3);
            assert!(recorder.flush().is_err());
        }
    }

    #[test]
    fn names_are_new_and_not_those_of_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(folder.path()).unwrap();
        for values in [
            &[("step", 1.0)][..],
            &[("loss", 1.0), ("loss", 2.0)],
            &[("", 1.0)],
        ] {
            assert!(recorder.record(at(1), values, true).is_err(), "{values:?}");
        }
        assert_eq!(read_events(&folder.path().join(EVENTS)).unwrap(), []);
    }

    /// TensorBoard's file cannot be made where the path grows past the system's limit; ours is shorter.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_tensorboard_file_that_cannot_be_made_is_an_error_and_no_panic() {
        const PATH_MAX: usize = 4096;
        let root = tempfile::tempdir().unwrap();
        let mut folder = root.path().to_path_buf();
        while folder.as_os_str().len() + 30 < PATH_MAX {
            let left = PATH_MAX - 25 - folder.as_os_str().len();
            folder.push("d".repeat(left.min(200)));
        }
        let error = Recorder::create(&folder).err().unwrap();
        assert!(error.to_string().contains("tfevents"), "{error}");
        assert_eq!(error.exit_code(), 3);
    }
}
