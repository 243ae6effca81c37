//! TensorBoard's event files: scalars, and where a run went on.
//!
//! Records and messages are tensorboard-rs's. Its writer of whole files is not used: it names files by the second, so that one
//! started twice in a second loses the first, and panics on a full disk.

use crate::dist::machine;
use crate::error::{Error, Result};
use protobuf::Message;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tensorboard_proto::event::{Event, Event_oneof_what as What, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::summary::{Summary, Summary_Value};
use tensorboard_rs::record_writer::RecordWriter;

/// In the name of every event file: TensorBoard goes by it.
const MARK: &str = "tfevents";
/// A host's name is no longer.
const HOST_LETTERS: usize = 64;

/// One event file that is written to.
pub(crate) struct Board {
    path: PathBuf,
    file: File,
}

impl Board {
    /// A new file in the folder, behind those that are there: TensorBoard reads them in the order of their names, which begin
    /// with a second. `resumed`: the run goes on behind this step, and what the files before say of later ones is void.
    pub(crate) fn create(folder: &Path, resumed: Option<u64>) -> Result<Self> {
        let newest = files(folder)?.iter().filter_map(|f| second(f)).max();
        let mut at = newest.map_or(0, |n| n.saturating_add(1)).max(now() as u64);
        let (host, process) = (host(), std::process::id());
        let (path, file) = loop {
            let path = folder.join(format!("events.out.{MARK}.{at:010}.{host}.{process}.0"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => at += 1,
                Err(e) => return Err(Error::io(&path, e)),
            }
        };
        let mut board = Board { path, file };
        board.write(0, What::file_version("brain.Event:2".into()))?;
        if let Some(step) = resumed {
            // TensorBoard then drops what it has of this step and of later ones.
            let mut log = SessionLog::new();
            log.set_status(SessionLog_SessionStatus::START);
            board.write(step + 1, What::session_log(log))?;
        }
        Ok(board)
    }

    /// One event. TensorBoard's values are `f32`.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Summary::new();
        for (name, value) in values {
            let mut own = Summary_Value::new();
            own.set_tag((*name).to_owned());
            own.set_simple_value(*value as f32);
            summary.mut_value().push(own);
        }
        match values.is_empty() {
            true => Ok(()),
            false => self.write(step, What::summary(summary)),
        }
    }

    fn write(&mut self, step: u64, what: What) -> Result<()> {
        let io = |e| Error::io(&self.path, e);
        let mut event = Event::new();
        event.set_wall_time(now());
        event.set_step(i64::try_from(step).unwrap_or(i64::MAX));
        event.what = Some(what);
        let event = event.write_to_bytes().map_err(|e| io(e.into()))?;
        // One write a record: a reader beside us sees whole ones.
        let mut record = Vec::with_capacity(event.len() + 16);
        RecordWriter::new(&mut record).write(&event).map_err(io)?;
        self.file.write_all(&record).map_err(io)
    }

    /// Brings all records to the disk.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))
    }
}

/// The event files of a folder.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, e);
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_string_lossy().contains(MARK) && entry.path().is_file() {
            all.push(entry.path());
        }
    }
    Ok(all)
}

/// The second in a file's name.
fn second(file: &Path) -> Option<u64> {
    let name = file.file_name()?.to_str()?;
    let (_, rest) = name.split_once(&format!(".{MARK}."))?;
    // Not more than ten digits, which sort as numbers do.
    let digits = rest.split('.').next()?;
    digits.parse().ok().filter(|_| digits.len() == 10)
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |d| d.as_secs_f64())
}

/// The machine's name as a part of a file's.
fn host() -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    let name: String = machine::host().chars().filter(plain).take(HOST_LETTERS).collect();
    match name.is_empty() {
        true => "host".into(),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The event of PyTorch's `SummaryWriter` for `add_scalar("loss", 2.5, 300)`.
    #[test]
    fn records_are_tensorflows() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = Board::create(folder.path(), None).unwrap();
        board.scalars(300, &[("loss", 2.5)]).unwrap();
        let all = fs::read(&board.path).unwrap();
        let last = &all[all.len() - 31..all.len() - 4];
        assert_eq!(last[0], 0x09);
        assert_eq!(
            last[9..],
            *b"\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x20\x40"
        );
    }

    #[test]
    fn a_later_file_is_read_later_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let ahead = now() as u64 + 500;
        fs::write(
            folder
                .path()
                .join(format!("events.out.tfevents.{ahead}.node.7.0")),
            "",
        )
        .unwrap();
        let names: Vec<PathBuf> = (0..3)
            .map(|_| Board::create(folder.path(), Some(4)).unwrap().path)
            .collect();
        assert!(names.is_sorted() && names[0] < names[1] && names[1] < names[2]);
        assert_eq!(second(&names[0]), Some(ahead + 1));
    }
}
