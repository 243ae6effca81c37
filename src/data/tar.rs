//! The members of a tar file: their names and where they lie. Headers are read, what they describe is skipped.

use super::kinds;
use super::problems::Problems;
use crate::error::{Error, Result};
use crate::fsutil;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tar::EntryType;

/// A header, and what everything is rounded up to.
const BLOCK: u64 = 512;
/// Names and other words about a member are not longer.
const MOST_WORDS: u64 = 1 << 20;
/// How far behind the end the next tar file is looked for. tar itself rounds up to 10 KiB.
const MOST_PADDING: u64 = 1 << 20;

/// A regular file in a tar file.
pub(super) struct Member {
    pub name: String,
    pub at: u64,
    pub len: u64,
}

/// Gives every regular file to `take`; what a shard cannot hold goes to `problems`.
///
/// # Errors
/// What is no tar file, or one that is damaged.
pub(super) fn members(
    path: &Path,
    file: &File,
    problems: &mut Problems,
    mut take: impl FnMut(Member, &mut Problems),
) -> Result<()> {
    let io = |e| Error::io(path, e);
    let damaged = |e: std::io::Error| {
        Error::data(path, "member", "a whole tar file", e.to_string()).hint("copy or download it again")
    };
    let length = file.metadata().map_err(io)?.len();
    refuse_others(path, file, length)?;
    // Raw: the words about a member are read here, so that their size is bounded.
    let mut archive = tar::Archive::new(file);
    let members = archive.entries_with_seek().map_err(damaged)?.raw(true);
    let (mut end, mut long, mut words) = (0u64, None::<String>, Words::default());
    for member in members {
        let member = member.map_err(damaged)?;
        let kind = member.header().entry_type();
        let (at, len) = (member.raw_file_position(), member.size());
        let own = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        if at.checked_add(len).is_none_or(|end| end > length) {
            let named = words.path.as_ref().or(long.as_ref()).unwrap_or(&own);
            let found = format!("{}: the shard is cut off", length.saturating_sub(at));
            problems.add(named, &format!("{len} bytes"), &found);
            return Ok(());
        }
        end = (at + len).next_multiple_of(BLOCK);
        match kind {
            EntryType::GNULongName | EntryType::XHeader => {
                if len > MOST_WORDS {
                    let expected = format!("at most {MOST_WORDS} bytes about a member");
                    problems.add(&own, &expected, &len.to_string());
                    return Ok(());
                }
                let mut bytes = vec![0; len as usize];
                file.read_exact_at(&mut bytes, at).map_err(io)?;
                match kind {
                    EntryType::XHeader => words = Words::read(&bytes),
                    _ => {
                        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
                        long = Some(String::from_utf8_lossy(&bytes[..end]).into_owned());
                    }
                }
                continue;
            }
            // Neither is about this member's name.
            EntryType::GNULongLink | EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let named = words.path.take().or(long.take()).unwrap_or(own);
        let words = std::mem::take(&mut words);
        long = None;
        if words.sparse {
            problems.hint(
                &named,
                "a regular file",
                "a sparse one",
                "write the shard without tar's --sparse",
            );
        } else if words.size.is_some_and(|size| size != len) {
            problems.add(&named, "a sound or a text", "a member of 8 GiB or more");
            return Ok(());
        } else if kind.is_dir() || named.ends_with('/') {
            continue;
        } else if kind.is_file() || kind == EntryType::Continuous {
            take(Member { name: named, at, len }, problems);
        } else {
            problems.add(&named, "a regular file", &format!("\"{kind:?}\""));
        }
    }
    if follows(file, end, length).map_err(io)? {
        problems.hint(
            &format!("byte {end}"),
            "the end of the shard, as its end mark says",
            "more behind it",
            "tar files that were joined with cat: keep them as shards of their own, or join them with tar --concatenate",
        );
    }
    Ok(())
}

fn refuse_others(path: &Path, file: &File, length: u64) -> Result<()> {
    let first = kinds::first(path, file)?;
    if let Some(says) = fsutil::lfs_pointer(&first) {
        return Err(fsutil::lfs_error(path, &says));
    }
    let refused = |found: &str| Error::data(path, "file", "a tar shard", found);
    if let Some((name, hint)) = kinds::packed(&first) {
        return Err(refused(name).hint(hint));
    }
    match length {
        0 => Err(refused("0 bytes")),
        _ => Ok(()),
    }
}

/// Whether anything but zeros stands behind the last member.
fn follows(file: &File, end: u64, length: u64) -> std::io::Result<bool> {
    let mut bytes = vec![0; length.saturating_sub(end).min(MOST_PADDING) as usize];
    file.read_exact_at(&mut bytes, end)?;
    Ok(bytes.iter().any(|b| *b != 0))
}

/// What a PAX header says of the member behind it.
#[derive(Default)]
struct Words {
    path: Option<String>,
    size: Option<u64>,
    sparse: bool,
}

impl Words {
    /// Records are `LENGTH KEY=VALUE\n`, and values may hold line ends.
    fn read(mut bytes: &[u8]) -> Self {
        let mut words = Words::default();
        while let Some(space) = bytes.iter().position(|b| *b == b' ') {
            let length = std::str::from_utf8(&bytes[..space]).ok();
            let length: Option<usize> = length.and_then(|l| l.parse().ok());
            let Some(record) = length.and_then(|l| bytes.get(space + 1..l)) else {
                break;
            };
            bytes = &bytes[space + 1 + record.len()..];
            let record = String::from_utf8_lossy(record.strip_suffix(b"\n").unwrap_or(record));
            match record.split_once('=') {
                Some(("path", name)) => words.path = Some(name.to_owned()),
                Some(("size", size)) => words.size = size.parse().ok(),
                Some((key, _)) if key.starts_with("GNU.sparse.") => words.sparse = true,
                _ => {}
            }
        }
        words
    }
}
