//! What an MP4 file says that the decoder library does not hand on: where its sound begins, and what is in its tracks.
//!
//! AAC encoders put a run-up before the first sample (1024 or 2112 frames) and say so in an edit list. The decoder
//! library hands it on; ffmpeg, through which the reference reads such files, drops it.

use super::view::View;
use std::{io, ops::Range};

/// Boxes that are looked at in one file. Real files have some dozens before the sound's tables.
const MAX_BOXES: usize = 4096;
const SOUND: [u8; 4] = *b"soun";

/// What the tracks of a file are.
#[derive(Debug, Default)]
pub(super) struct Movie {
    /// Where the first audio track's sound begins, in seconds as a fraction: ticks, and ticks per second.
    pub beginning: Option<(u64, u32)>,
    /// Of each track what handles it ("soun", "vide") and the name of its codec.
    tracks: Vec<([u8; 4], [u8; 4])>,
}

/// What an MP4 file says of its tracks; None of others. A malformed file is the decoder's to refuse.
///
/// # Errors
/// What reading fails with.
pub(super) fn movie(file: &mut View) -> io::Result<Option<Movie>> {
    if file.read_at::<8>(0)?.is_none_or(|h| !h.ends_with(b"ftyp")) {
        return Ok(None);
    }
    let mut left = MAX_BOXES;
    let mut movie = Movie::default();
    let whole = 0..file.length();
    let Some(boxes) = find(file, whole, b"moov", &mut left)?.into_iter().next() else {
        return Ok(Some(movie));
    };
    for track in find(file, boxes, b"trak", &mut left)? {
        let Some(media) = first(file, &track, &[b"mdia"], &mut left)? else {
            continue;
        };
        let handler = first(file, &media, &[b"hdlr"], &mut left)?;
        let kind = handler.map(|h| file.read_at::<4>(h.start + 8)).transpose()?;
        let Some(kind) = kind.flatten() else {
            continue;
        };
        if kind == SOUND && movie.tracks.iter().all(|(other, _)| *other != SOUND) {
            let list = first(file, &track, &[b"edts", b"elst"], &mut left)?;
            let header = first(file, &media, &[b"mdhd"], &mut left)?;
            if let (Some(list), Some(header)) = (list, header) {
                movie.beginning = Some((edit(file, &list)?, ticks(file, &header)?));
            }
        }
        let described = first(file, &media, &[b"minf", b"stbl", b"stsd"], &mut left)?;
        // The version and the number of entries; the size of the first entry and its name.
        let codec = described.map(|d| file.read_at::<4>(d.start + 12)).transpose()?;
        movie.tracks.push((kind, codec.flatten().unwrap_or_default()));
    }
    Ok(Some(movie))
}

impl Movie {
    /// What there is in place of sound that can be read.
    pub(crate) fn found(&self) -> String {
        let sound: Vec<String> = (self.tracks.iter())
            .filter(|(kind, _)| *kind == SOUND)
            .map(|(_, codec)| named(codec))
            .collect();
        let others: Vec<&str> = (self.tracks.iter())
            .filter_map(|(kind, _)| match kind {
                b"vide" => Some("video"),
                b"text" | b"sbtl" | b"subt" | b"clcp" => Some("text"),
                _ => None,
            })
            .collect();
        match (sound.is_empty(), others.is_empty()) {
            (false, _) => sound.join(", "),
            (true, false) => format!("{} and no sound", others.join(", ")),
            (true, true) => "none".into(),
        }
    }
}

/// The codec of a track by its four letters.
fn named(codec: &[u8; 4]) -> String {
    match codec {
        b"samr" => "AMR narrowband".into(),
        b"sawb" => "AMR wideband".into(),
        b"Opus" => "Opus".into(),
        b"ac-3" => "Dolby AC-3".into(),
        b"ec-3" => "Dolby E-AC-3".into(),
        b"ac-4" => "Dolby AC-4".into(),
        b"mlpa" => "Dolby TrueHD".into(),
        b"dtsc" | b"dtsh" | b"dtsl" | b"dtse" | b"dtsx" => "DTS".into(),
        b"mha1" | b"mhm1" => "MPEG-H 3D Audio".into(),
        b"enca" | b"drms" => "sound that is encrypted".into(),
        b"QDM2" | b"QDMC" => "QDesign Music".into(),
        b"Qclp" | b"sqcp" => "QCELP".into(),
        b"ima4" => "ADPCM (ima4)".into(),
        b"MAC3" | b"MAC6" => "MACE".into(),
        b"agsm" => "GSM 6.10".into(),
        other => format!("the codec {:?}", String::from_utf8_lossy(other)),
    }
}

/// The media time at which the first edit that is not a pause begins.
fn edit(file: &mut View, list: &Range<u64>) -> io::Result<u64> {
    let Some([version, .., a, b, c, d]) = file.read_at::<8>(list.start)? else {
        return Ok(0);
    };
    let entries = u64::from(u32::from_be_bytes([a, b, c, d])).min(16);
    for entry in 0..entries {
        let time = match version {
            0 => file
                .read_at::<4>(list.start + 8 + 12 * entry + 4)?
                .map(|t| i64::from(i32::from_be_bytes(t))),
            _ => file
                .read_at::<8>(list.start + 8 + 20 * entry + 8)?
                .map(i64::from_be_bytes),
        };
        if let Some(Ok(time)) = time.map(u64::try_from) {
            return Ok(time);
        }
    }
    Ok(0)
}

/// Ticks per second of the media's clock.
fn ticks(file: &mut View, header: &Range<u64>) -> io::Result<u32> {
    let version = file.read_at::<1>(header.start)?.map_or(0, |[v]| v);
    let at = header.start + if version == 0 { 12 } else { 20 };
    Ok(file.read_at::<4>(at)?.map_or(0, u32::from_be_bytes))
}

/// The body of the first box on a path of names.
fn first(
    file: &mut View,
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
    file: &mut View,
    within: Range<u64>,
    name: &[u8; 4],
    left: &mut usize,
) -> io::Result<Vec<Range<u64>>> {
    let (mut at, mut found) = (within.start, Vec::new());
    while at.saturating_add(8) <= within.end && *left > 0 {
        *left -= 1;
        let Some([a, b, c, d, kind @ ..]) = file.read_at::<8>(at)? else {
            break;
        };
        let (size, head) = match u64::from(u32::from_be_bytes([a, b, c, d])) {
            // To the end of what it is in; in 64 bits behind the name.
            0 => (within.end - at, 8),
            1 => (file.read_at::<8>(at + 8)?.map_or(0, u64::from_be_bytes), 16),
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
