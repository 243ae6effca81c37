//! JSON lines: an item a line.

use super::fields::passes;
use super::files::Files;
use super::item;
use super::kinds::Kind;
use super::manifest::{Entry, Form, Keys, Manifest};
use super::problems::Problems;
use crate::error::{Error, Result};
use crate::fsutil;
use rayon::prelude::*;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

/// A line or an item that is longer is no question about a sound.
pub(super) const MOST_ITEM_BYTES: usize = 16 << 20;
/// Lines are checked so many bytes at a time.
const AT_ONCE: usize = 16 << 20;

/// Opens a file of lines. Its size does not matter: it is read piece by piece.
pub(super) fn open(path: &Path, mut file: File, kind: Kind) -> Result<Manifest> {
    let mut files = Files::default();
    let mut problems = Problems::new(path);
    let found = match kind {
        Kind::Utf16 => {
            let text = fsutil::read_text(path)?;
            let found = scan(path, &mut text.as_bytes(), &mut problems)?;
            files.add_text(path, text);
            found
        }
        _ => {
            file.seek(SeekFrom::Start(0)).map_err(|e| Error::io(path, e))?;
            let found = scan(path, &mut file, &mut problems)?;
            files.add(path, file)?;
            found
        }
    };
    problems.finish()?;
    let (entries, numbers) = found;
    let keys = match numbers.iter().copied().eq(0..numbers.len() as u64) {
        true => Keys::InOrder,
        false => Keys::Numbers(numbers),
    };
    Ok(Manifest {
        form: Form::Lines,
        files,
        entries,
        keys,
        ..Manifest::named(path)
    })
}

/// Where the items are, and the numbers of their lines.
fn scan(path: &Path, from: &mut dyn Read, problems: &mut Problems) -> Result<(Vec<Entry>, Vec<u64>)> {
    let (mut entries, mut numbers) = (Vec::new(), Vec::new());
    let mut buffer = Vec::new();
    // What was read so far: bytes before the buffer, and lines.
    let (mut before, mut lines) = (0u64, 0u64);
    loop {
        let old = buffer.len();
        let taken = (&mut *from).take(AT_ONCE as u64).read_to_end(&mut buffer);
        let last = taken.map_err(|e| Error::io(path, e))? == 0;
        if last && !buffer.is_empty() && !buffer.ends_with(b"\n") {
            buffer.push(b'\n');
        }
        let ends = memchr::memchr_iter(b'\n', &buffer[old..]).map(|i| old + i);
        let mut begin = 0;
        let mut found: Vec<(u64, Range<usize>)> = Vec::new();
        for end in ends {
            // Behind the first line one shows where files were joined.
            let mark = buffer[begin..end].starts_with(b"\xef\xbb\xbf");
            let line = begin + if mark { 3 } else { 0 }..end;
            if !buffer[line.clone()].trim_ascii().is_empty() {
                found.push((lines, line));
            }
            lines += 1;
            begin = end + 1;
        }
        let bad =
            |(_, line): &&(u64, Range<usize>)| line.len() > MOST_ITEM_BYTES || !passes(&buffer[line.clone()]);
        for (number, line) in found.par_iter().filter(bad).collect::<Vec<_>>() {
            let place = format!("line {}", number + 1);
            check(&number.to_string(), &place, &buffer[line.clone()], problems);
        }
        for (number, line) in found {
            entries.push(Entry {
                at: before + line.start as u64,
                len: line.len() as u32,
                file: 0,
            });
            numbers.push(number);
        }
        before += begin as u64;
        buffer.drain(..begin);
        if buffer.len() > MOST_ITEM_BYTES {
            let place = format!("line {}", lines + 1);
            problems.add(
                &place,
                &format!("at most {MOST_ITEM_BYTES} bytes"),
                "more, and no end",
            );
            break;
        }
        if last {
            break;
        }
    }
    Ok((entries, numbers))
}

/// Says what is wrong with an item's text.
pub(super) fn check(key: &str, place: &str, text: &[u8], problems: &mut Problems) {
    if text.len() > MOST_ITEM_BYTES {
        let expected = format!("at most {MOST_ITEM_BYTES} bytes");
        return problems.add(place, &expected, &format!("{} bytes", text.len()));
    }
    item::read(key, place, text, problems);
}
