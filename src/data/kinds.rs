//! What a file is, by its first bytes: what was packed, or is of another tool, is called by its name.

use crate::error::{Error, Result};
use crate::fsutil;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// First bytes, what they are of, and what to do.
const KNOWN: &[(&[u8], &str, &str)] = &[
    (b"\x1f\x8b", "gzip", "unpack it: gunzip FILE"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unpack it: zstd -d FILE"),
    (b"\xfd7zXZ\0", "xz", "unpack it: unxz FILE"),
    (b"BZh", "bzip2", "unpack it: bunzip2 FILE"),
    (b"\x04\x22\x4d\x18", "lz4", "unpack it: lz4 -d FILE"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip", "unpack it: 7z x FILE"),
    (b"PK\x03\x04", "a zip archive", "unpack it: unzip FILE"),
    (
        b"PAR1",
        "Parquet",
        "write an object a line: pandas.read_parquet(FILE).to_json(OUT, orient=\"records\", lines=True)",
    ),
    (
        b"ARROW1",
        "Arrow",
        "write an object a line: datasets.Dataset.from_file(FILE).to_json(OUT)",
    ),
    (b"\x89HDF\r\n\x1a\n", "HDF5", "write an object a line, as JSON"),
    (b"SQLite format 3\0", "SQLite", "write an object a line, as JSON"),
    (
        b"RIFF",
        "a sound file",
        "a manifest is a text that names sound files",
    ),
    (
        b"fLaC",
        "a sound file",
        "a manifest is a text that names sound files",
    ),
];

/// What a manifest can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Text in UTF-16 with a byte order mark.
    Utf16,
    Tar,
}

/// The first bytes of a file, at most 512.
pub(super) fn first(path: &Path, file: &File) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 512];
    let mut have = 0;
    while have < bytes.len() {
        match file.read_at(&mut bytes[have..], have as u64) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) => return Err(Error::io(path, e)),
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}

/// Tells texts from shards.
///
/// # Errors
/// What is neither, by its name.
pub(super) fn of(path: &Path, first: &[u8]) -> Result<Kind> {
    let refused = |found: &str, hint: &str| {
        let expected = "JSON, JSON lines or a tar shard";
        Err(Error::data(path, "file", expected, found).hint(hint))
    };
    if let Some(says) = fsutil::lfs_pointer(first) {
        return Err(fsutil::lfs_error(path, &says));
    }
    if let Some((_, name, hint)) = KNOWN.iter().find(|(magic, _, _)| first.starts_with(magic)) {
        return refused(name, hint);
    }
    if first.get(257..262) == Some(b"ustar") {
        return Ok(Kind::Tar);
    }
    match first {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => refused("UTF-32", "save it as UTF-8"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Ok(Kind::Utf16),
        [0, a, ..] | [a, 0, ..] if a.is_ascii_graphic() || a.is_ascii_whitespace() => {
            refused("UTF-16 without a byte order mark", "save it as UTF-8")
        }
        _ if is_page(first) => refused("a web page", "the download failed: fetch it again"),
        _ if first.contains(&0) => refused("bytes that are no text", "is it the right file?"),
        _ => Ok(Kind::Text),
    }
}

fn is_page(first: &[u8]) -> bool {
    let begin = first.trim_ascii_start();
    [&b"<!doctype html"[..], b"<html"].iter().any(|sign| {
        let own = begin.get(..sign.len()).unwrap_or_default();
        own.eq_ignore_ascii_case(sign)
    })
}

/// The name of what a file was packed with, by its first bytes.
pub(super) fn packed(first: &[u8]) -> Option<(&'static str, &'static str)> {
    let known = KNOWN[..7].iter().find(|(magic, _, _)| first.starts_with(magic));
    known.map(|(_, name, hint)| (*name, *hint))
}
