//! Where the sound of an MP4 file begins: its edit list.
//!
//! AAC encoders put a run-up before the first sample (1024 or 2112 frames) and say so in an edit list. The decoder
//! library hands it on; ffmpeg, through which the reference reads such files, drops it.

use super::riff::{read_at, Patched};
use std::{io, ops::Range};

/// Boxes that are looked at in one file. Real files have some dozens before the sound's tables.
const MAX_BOXES: usize = 4096;

/// Where the first audio track's sound begins, in seconds as a fraction: ticks, and ticks per second. None for files that
/// are no MP4 or do not say.
///
/// # Errors
/// What reading fails with. A malformed file is the decoder's to refuse.
pub fn beginning(file: &mut Patched, length: u64) -> io::Result<Option<(u64, u32)>> {
    if read_at::<8>(file, 0)?.is_none_or(|h| !h.ends_with(b"ftyp")) {
        return Ok(None);
    }
    let mut left = MAX_BOXES;
    let Some(movie) = find(file, 0..length, b"moov", &mut left)?.into_iter().next() else {
        return Ok(None);
    };
    for track in find(file, movie, b"trak", &mut left)? {
        let Some(media) = first(file, &track, &[b"mdia"], &mut left)? else {
            continue;
        };
        let handler = first(file, &media, &[b"hdlr"], &mut left)?;
        let kind = handler.map(|h| read_at::<4>(file, h.start + 8)).transpose()?;
        if kind.flatten() != Some(*b"soun") {
            continue;
        }
        let list = first(file, &track, &[b"edts", b"elst"], &mut left)?;
        let header = first(file, &media, &[b"mdhd"], &mut left)?;
        let (Some(list), Some(header)) = (list, header) else {
            return Ok(None);
        };
        return Ok(Some((edit(file, &list)?, ticks(file, &header)?)));
    }
    Ok(None)
}

/// The media time at which the first edit that is not a pause begins.
fn edit(file: &mut Patched, list: &Range<u64>) -> io::Result<u64> {
    let Some([version, .., a, b, c, d]) = read_at::<8>(file, list.start)? else {
        return Ok(0);
    };
    let entries = u64::from(u32::from_be_bytes([a, b, c, d])).min(16);
    for entry in 0..entries {
        let time = match version {
            0 => {
                read_at::<4>(file, list.start + 8 + 12 * entry + 4)?.map(|t| i64::from(i32::from_be_bytes(t)))
            }
            _ => read_at::<8>(file, list.start + 8 + 20 * entry + 8)?.map(i64::from_be_bytes),
        };
        if let Some(Ok(time)) = time.map(u64::try_from) {
            return Ok(time);
        }
    }
    Ok(0)
}

/// Ticks per second of the media's clock.
fn ticks(file: &mut Patched, header: &Range<u64>) -> io::Result<u32> {
    let version = read_at::<1>(file, header.start)?.map_or(0, |[v]| v);
    let at = header.start + if version == 0 { 12 } else { 20 };
    Ok(read_at::<4>(file, at)?.map_or(0, u32::from_be_bytes))
}

/// The body of the first box on a path of names.
fn first(
    file: &mut Patched,
    within: &Range<u64>,
    path: &[&[u8; 4]],
    left: &mut usize,
) -> io::Result<Option<Range<u64>>> {
    let mut at = within.clone();
    for name in path {
        match find(file, at, name, left)?.into_iter().next() {
            Some(inner) => at = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// Bodies of the boxes of a name that lie in `within`.
fn find(
    file: &mut Patched,
    within: Range<u64>,
    name: &[u8; 4],
    left: &mut usize,
) -> io::Result<Vec<Range<u64>>> {
    let (mut at, mut found) = (within.start, Vec::new());
    while at.saturating_add(8) <= within.end && *left > 0 {
        *left -= 1;
        let Some([a, b, c, d, kind @ ..]) = read_at::<8>(file, at)? else {
            break;
        };
        let (size, head) = match u64::from(u32::from_be_bytes([a, b, c, d])) {
            // To the end of what it is in; in 64 bits behind the name.
            0 => (within.end - at, 8),
            1 => (read_at::<8>(file, at + 8)?.map_or(0, u64::from_be_bytes), 16),
            n => (n, 8),
        };
        let end = at.saturating_add(size).min(within.end);
        if size < head || end < at + head {
            break;
        }
        if kind == *name {
            found.push(at + head..end);
        }
        at = end;
    }
    Ok(found)
}
