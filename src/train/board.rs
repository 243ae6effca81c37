//! TensorBoard's event files: scalars, and where a run went on.
//!
//! A file is a row of TFRecords, each an `Event` message (tensorflow's `core/util/event.proto`, `core/framework/summary.proto`,
//! `core/lib/io/record_writer.cc`).

use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// In the name of every event file: TensorBoard goes by it.
const MARK: &str = "tfevents";
/// A host's name is no longer.
const HOST_LETTERS: usize = 64;

// Fields of the messages.
const WALL_TIME: u64 = 1;
const STEP: u64 = 2;
const FILE_VERSION: u64 = 3;
const SUMMARY: u64 = 5;
const SESSION_LOG: u64 = 7;
const SUMMARY_VALUE: u64 = 1;
const VALUE_TAG: u64 = 1;
const VALUE_SIMPLE: u64 = 2;
/// `SessionLog { status: START }`.
const STARTED: [u8; 2] = [1 << 3, 1];

// How a field's value is written.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// One event file that is written to.
pub struct Board {
    path: PathBuf,
    file: File,
}

impl Board {
    /// A new file in the folder, behind those that are there: TensorBoard reads them in the order of their names, which begin
    /// with a second. `resumed`: the run goes on behind this step, and what the files before say of later ones is void.
    pub fn create(folder: &Path, resumed: Option<u64>) -> Result<Self> {
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
        board.write(0, FILE_VERSION, b"brain.Event:2")?;
        if let Some(step) = resumed {
            // TensorBoard then drops what it has of this step and of later ones.
            board.write(step + 1, SESSION_LOG, &STARTED)?;
        }
        Ok(board)
    }

    /// One event. TensorBoard's values are `f32`.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (name, value) in values {
            let mut own = Vec::with_capacity(name.len() + 8);
            bytes(&mut own, VALUE_TAG, name.as_bytes());
            varint(&mut own, VALUE_SIMPLE << 3 | FOUR_BYTES);
            own.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, SUMMARY_VALUE, &own);
        }
        match values.is_empty() {
            true => Ok(()),
            false => self.write(step, SUMMARY, &summary),
        }
    }

    fn write(&mut self, step: u64, what: u64, content: &[u8]) -> Result<()> {
        let mut event = Vec::with_capacity(content.len() + 32);
        varint(&mut event, WALL_TIME << 3 | EIGHT_BYTES);
        event.extend(now().to_le_bytes());
        varint(&mut event, STEP << 3 | VARINT);
        varint(&mut event, step);
        bytes(&mut event, what, content);
        // One write a record: a reader beside us sees whole ones.
        let io = |e| Error::io(&self.path, e);
        self.file.write_all(&record(&event)).map_err(io)
    }

    /// Brings all records to the disk.
    pub fn flush(&mut self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))
    }
}

/// The event files of a folder.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
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

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    let name: String = name.trim().chars().filter(plain).take(HOST_LETTERS).collect();
    match name.is_empty() {
        true => "host".into(),
        false => name,
    }
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    varint(out, field << 3 | LENGTH);
    varint(out, content.len() as u64);
    out.extend(content);
}

/// Length, its checksum, the event, its checksum.
fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(event.len() + 16);
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(event);
    out.extend(masked(event).to_le_bytes());
    out
}

/// CRC-32C, turned so that a checksum inside checked data does no harm.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The event of PyTorch's `SummaryWriter` for `add_scalar("loss", 2.5, 300)`, and the check value of CRC-32C.
    #[test]
    fn records_are_tensorflows() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let whole = record(b"abc");
        assert_eq!(whole[..8], 3u64.to_le_bytes());
        assert_eq!(whole[12..15], *b"abc");
        let sum = u32::from_le_bytes([whole[15], whole[16], whole[17], whole[18]]);
        // tensorflow's Unmask.
        assert_eq!(
            sum.wrapping_sub(0xa282_ead8).rotate_left(15),
            crc32c::crc32c(b"abc")
        );
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
