//! What a run says about itself while it trains: `events.jsonl` for us, TensorBoard's event files for the browser.

use crate::error::{Error, Result};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tensorboard_rs::summary_writer::SummaryWriter;

/// The file's name in a recorder's folder.
pub const EVENTS: &str = "events.jsonl";
/// Characters of a TensorBoard file's name after its first words: time, a host's name of up to 64, process, number.
const LONGEST_NAME: usize = 90;
/// A longer line is not one of ours.
const MOST_LINE_BYTES: u64 = 1 << 20;

/// One line of `events.jsonl`: `{"step":8,"micro_step":2,"epoch":0,"stage":"stage1","time":1.7e9,"loss":2.5,...}`.
///
/// JSON has no NaN: values that are not finite are the strings `"NaN"`, `"inf"` and `"-inf"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Optimizer steps made.
    pub step: u64,
    /// The micro-step of that step, from 1, and the epoch of its data, from 0, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_step: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The folder's name: lines of several files can be put together.
    pub stage: String,
    /// Seconds since 1970.
    pub time: f64,
    /// Whatever was measured, in the order of the record: `loss`, `learning_rate`, `grad_norm`, …
    #[serde(flatten)]
    pub values: IndexMap<String, Value>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, Default)]
pub struct At {
    pub step: u64,
    pub micro_step: Option<u64>,
    pub epoch: Option<u64>,
}

/// A number as it stands in `events.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value(pub f64);

impl Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0.is_finite() {
            true => s.serialize_f64(self.0),
            false => s.serialize_str(&self.0.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Text(String),
        }
        match Form::deserialize(d) {
            Ok(Form::Number(v)) => Ok(Value(v)),
            Ok(Form::Text(t)) if ["NaN", "inf", "-inf"].contains(&t.as_str()) => {
                t.parse().map(Value).map_err(serde::de::Error::custom)
            }
            _ => Err(serde::de::Error::custom(
                "a value that is neither a number nor NaN, inf, -inf",
            )),
        }
    }
}

/// Writes both forms into one folder.
///
/// Every record reaches the operating system before [`Recorder::record`] returns; a crash of the process loses none.
pub struct Recorder {
    path: PathBuf,
    stage: String,
    file: File,
    board: Board,
}

impl Recorder {
    /// Makes the folder and appends to what is there: a resumed run continues its file. A last line that a crash cut
    /// short is removed first.
    pub fn create(folder: &Path) -> Result<Self> {
        // tensorboard-rs would panic where it cannot make it.
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let path = folder.join(EVENTS);
        let io = |e| Error::io(&path, e);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io)?;
        let whole = whole_lines(&mut file).map_err(io)?;
        file.set_len(whole).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Recorder {
            stage: folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            board: Board::create(folder)?,
            path,
            file,
        })
    }

    /// One line and one TensorBoard scalar a value. TensorBoard's values are `f32`.
    ///
    /// # Errors
    /// A name that is empty, given twice, or one of `step`, `stage`, `time`; a disk that is full.
    pub fn record(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        self.line(
            At {
                step,
                ..At::default()
            },
            values,
        )?;
        self.board.scalars(step, values)
    }

    /// The same for a place within a step: `on_board` says whether TensorBoard, which knows steps only, hears of it.
    pub fn record_at(&mut self, at: At, values: &[(&str, f64)], on_board: bool) -> Result<()> {
        self.line(at, values)?;
        match on_board {
            true => self.board.scalars(at.step, values),
            false => Ok(()),
        }
    }

    fn line(&mut self, at: At, values: &[(&str, f64)]) -> Result<()> {
        let mut map = IndexMap::with_capacity(values.len());
        for (name, value) in values {
            let taken = ["", "step", "micro_step", "epoch", "stage", "time"].contains(name);
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
        let mut line = serde_json::to_vec(&event).map_err(|e| Error::io(&self.path, e.into()))?;
        line.push(b'\n');
        // One write a line: a reader beside us sees whole lines.
        self.file.write_all(&line).map_err(|e| Error::io(&self.path, e))
    }

    /// Brings all records to the disk.
    pub fn flush(&mut self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))?;
        self.board.guarded(SummaryWriter::flush)
    }
}

/// Length of the part of the file that ends in a line break.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    const BLOCK: u64 = 4096;
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.clear();
        file.seek(SeekFrom::Start(start))?;
        Read::take(&mut *file, end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|b| *b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// tensorboard-rs behind a guard: it panics where its writing thread has stopped, which is all that it does about a
/// full disk; dropping it panics then, too.
struct Board {
    folder: PathBuf,
    /// `None` once it has stopped.
    writer: Option<SummaryWriter>,
}

impl Board {
    /// # Errors
    /// A folder in which a file with a name like TensorBoard's cannot be made. This is tried first: where its thread
    /// cannot make the file, tensorboard-rs may panic within a panic, which ends the process.
    fn create(folder: &Path) -> Result<Self> {
        let probe = folder.join(format!("events.out.tfevents.{:0>1$}", "probe", LONGEST_NAME));
        File::create(&probe)
            .and_then(|_| fs::remove_file(&probe))
            .map_err(|_| stopped(folder))?;
        let writer = catch_unwind(|| SummaryWriter::new(folder)).map_err(|_| stopped(folder))?;
        Ok(Board {
            folder: folder.to_path_buf(),
            writer: Some(writer),
        })
    }

    fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        self.guarded(|writer| {
            for (name, value) in values {
                writer.add_scalar(name, *value as f32, step);
            }
        })
    }

    fn guarded(&mut self, write: impl FnOnce(&mut SummaryWriter)) -> Result<()> {
        let writer = self.writer.as_mut().ok_or_else(|| stopped(&self.folder))?;
        if catch_unwind(AssertUnwindSafe(|| write(writer))).is_ok() {
            return Ok(());
        }
        self.close();
        Err(stopped(&self.folder))
    }

    fn close(&mut self) {
        let writer = self.writer.take();
        // Waits for the writing thread; a thread that has stopped has been told of already.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(writer)));
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.close();
    }
}

fn stopped(folder: &Path) -> Error {
    Error::io(folder, std::io::Error::other("the TensorBoard writer stopped"))
        .hint("is the disk full, or the folder gone?")
}

/// Reads `events.jsonl`. A last line that a crash cut short is left out.
///
/// # Errors
/// The first other line, counted from 1, that is not an event.
pub fn read_events(path: &Path) -> Result<Vec<Event>> {
    let io = |e| Error::io(path, e);
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let mut events = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut bounded = (&mut reader).take(MOST_LINE_BYTES);
        if bounded.read_until(b'\n', &mut line).map_err(io)? == 0 {
            break;
        }
        let long = line.len() as u64 == MOST_LINE_BYTES;
        let cut = line.last() != Some(&b'\n') && !long;
        match serde_json::from_slice(&line) {
            Ok(event) => events.push(event),
            Err(_) if cut => break,
            Err(e) => {
                let found = if long {
                    "a longer line".to_owned()
                } else {
                    e.to_string()
                };
                let expected = format!("an event as JSON, at most {MOST_LINE_BYTES} bytes");
                return Err(Error::data(path, format!("line {number}"), expected, found));
            }
        }
    }
    Ok(events)
}

/// The history that counts: where a run was resumed from an earlier step, or begun anew in the same folder, what it
/// did again takes the place of what it had done.
///
/// Steps are then never descending; several events of one step, as of its micro-steps or of training and validation, stay.
pub fn latest(events: Vec<Event>) -> Vec<Event> {
    let at = |e: &Event| (e.step, e.micro_step.unwrap_or(0));
    let mut kept: Vec<Event> = Vec::with_capacity(events.len());
    for event in events {
        let back = kept.last().is_some_and(|last| at(&event) < at(last));
        // The same place again is another measure of it, unless it measures the same.
        let again = (kept.iter().rev())
            .take_while(|k| at(k) == at(&event))
            .any(|k| k.values.keys().any(|name| event.values.contains_key(name)));
        if back || again {
            let still = kept.partition_point(|k| at(k) < at(&event));
            kept.truncate(still);
        }
        kept.push(event);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(events: &[Event]) -> Vec<u64> {
        events.iter().map(|e| e.step).collect()
    }

    #[test]
    fn records_come_back_with_their_stage_and_not_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let stage = folder.path().join("events").join("stage1");
        let mut recorder = Recorder::create(&stage).unwrap();
        recorder
            .record(8, &[("loss", 2.5), ("grad_norm", f64::NAN)])
            .unwrap();
        recorder
            .record(16, &[("loss", f64::NEG_INFINITY), ("tiny", 1e-300)])
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
    fn a_cut_last_line_is_tolerated_and_then_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS);
        Recorder::create(folder.path())
            .unwrap()
            .record(1, &[("loss", 1.0)])
            .unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        // Longer than the block in which the end is looked for.
        write!(file, "{{\"step\":2,\"stage\":\"{}", "x".repeat(10_000)).unwrap();
        assert_eq!(steps(&read_events(&path).unwrap()), [1]);
        Recorder::create(folder.path())
            .unwrap()
            .record(2, &[("loss", 0.5)])
            .unwrap();
        assert_eq!(steps(&read_events(&path).unwrap()), [1, 2]);
    }

    #[test]
    fn a_bad_line_before_the_last_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS);
        let good = "{\"step\":1,\"stage\":\"s\",\"time\":0,\"loss\":1}\n";
        for bad in [
            "{\"step\":2",
            "{\"step\":2,\"stage\":\"s\",\"time\":0,\"loss\":\"high\"}",
        ] {
            fs::write(&path, format!("{good}{bad}\n{good}")).unwrap();
            let text = read_events(&path).unwrap_err().to_string();
            assert!(text.contains("events.jsonl: line 2: "), "{text}");
        }
        fs::write(&path, "x".repeat(MOST_LINE_BYTES as usize + 10)).unwrap();
        assert!(read_events(&path)
            .unwrap_err()
            .to_string()
            .contains("a longer line"));
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
            assert!(recorder.record(1, values).is_err(), "{values:?}");
        }
        assert_eq!(read_events(&folder.path().join(EVENTS)).unwrap(), []);
    }

    #[test]
    fn what_was_done_again_takes_the_place_of_what_was_done() {
        let event = |step, micro, name: &str, loss| Event {
            step,
            micro_step: Some(micro),
            epoch: None,
            stage: "s".into(),
            time: 0.0,
            values: [(name.to_owned(), Value(loss))].into_iter().collect(),
        };
        let line = |step, loss| event(step, 1, "loss", loss);
        let all = [(1, 1.0), (2, 1.0), (3, 1.0), (2, 2.0), (4, 2.0)];
        let kept = latest(all.iter().map(|(s, l)| line(*s, *l)).collect());
        assert_eq!(kept, [(1, 1.0), (2, 2.0), (4, 2.0)].map(|(s, l)| line(s, l)));
        // Micro-steps and a validation of one step; then the run is killed in its second step, and does that again.
        let first = [
            event(1, 1, "loss", 1.0),
            event(1, 2, "loss", 2.0),
            event(1, 2, "validation_loss", 3.0),
            event(2, 1, "loss", 4.0),
        ];
        let second = [event(2, 1, "loss", 4.0), event(2, 2, "loss", 5.0)];
        let kept = latest([&first[..], &second[..]].concat());
        assert_eq!(kept, [&first[..3], &second[..]].concat());
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
        let error = Recorder::create(&folder).err().unwrap().to_string();
        assert!(error.contains("TensorBoard writer stopped"), "{error}");
    }
}
