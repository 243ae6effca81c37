//! WAV, RF64 and BW64: what a header promises, checked against the file, and written anew for the decoder library.
//!
//! The library believes the sizes in a header, knows no sizes of 64 bits, and refuses headers for fields that say nothing
//! about where the samples are. So it is shown the data behind a header of ours. A `data` chunk that is longer than the file
//! is an error (a cut-off copy must not pass for a short recording); the sizes that programs writing to a pipe leave open are
//! replaced by what the file really holds.

use super::{
    fmt::{Format, Wave},
    kind::not_sound,
    view::View,
};
use crate::error::{Error, Result};
use std::{io, path::Path};

/// Sizes that stand for "not known when the header was written": SoX's and espeak's, arecord's, those of all bits.
const MARKS: [u32; 4] = [0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, u32::MAX];
/// What is taken off a mark for the header.
const HEADERS: u32 = 80;
/// Chunks before the data that are looked at. Real files have a handful.
const MAX_CHUNKS: usize = 4096;
/// Bytes of the largest `fmt ` chunk that says anything.
const FORMAT: usize = 64;

/// Chunks that are known by name: where an odd size is not padded, they tell where the next chunk begins.
const NAMES: [&[u8; 4]; 12] = [
    b"fmt ", b"data", b"LIST", b"fact", b"bext", b"JUNK", b"junk", b"PEAK", b"cue ", b"id3 ", b"iXML",
    b"PAD ",
];

/// Sizes of 64 bits, of a `ds64` chunk.
#[derive(Default)]
struct Wide {
    data: Option<u64>,
    others: Vec<([u8; 4], u64)>,
}

/// The sound of a WAV, RF64 or BW64 file.
///
/// # Errors
/// [`Error::Audio`] when it has no `fmt ` or `data` chunk, the data ends after the file does, or its codec is not known;
/// [`Error::Io`].
pub(super) fn open(path: &Path, mut view: View) -> Result<Wave> {
    let io = |e| Error::io(path, e);
    let length = view.length();
    let Some(first) = view.read_at::<12>(0).map_err(io)? else {
        return Err(not_sound(path, "the beginning of a WAV file and no more"));
    };
    let promised = u32::from_le_bytes([first[4], first[5], first[6], first[7]]);
    let (mut format, mut wide) = (None, None);
    let mut at = 12u64;
    for _ in 0..MAX_CHUNKS {
        let Some([name @ .., a, b, c, d]) = view.read_at::<8>(at).map_err(io)? else {
            break;
        };
        let size = u32::from_le_bytes([a, b, c, d]);
        let body = at + 8;
        match &name {
            b"ds64" => wide = Some(Wide::read(&mut view, body, size).map_err(io)?),
            b"fmt " if format.is_none() => {
                let bytes = view.bytes_at(body, FORMAT.min(size as usize)).map_err(io)?;
                format = Some((Format::read(path, &bytes)?, bytes));
            }
            b"data" => {
                let Some((format, bytes)) = format else {
                    return Err(not_sound(path, "a WAV file without a fmt chunk before its data"));
                };
                format.check(path, &bytes)?;
                let there = length.saturating_sub(body);
                // A size of 0 is meant where the size of the whole is right and another chunk follows.
                let size = match (size, &wide) {
                    (u32::MAX, Some(Wide { data: Some(size), .. })) => Size::of_wide(*size),
                    (0, _)
                        if length.abs_diff(u64::from(promised) + 8) <= 1
                            && named(&mut view, body).map_err(io)? =>
                    {
                        Size::Known(0)
                    }
                    _ => Size::of(size, there),
                };
                let bytes = size.bytes(path, there)?;
                return Ok(format.behind_header(view, body..body + bytes));
            }
            _ => {}
        }
        let size = wide.as_ref().map_or(u64::from(size), |w| w.size(name, size));
        let end = body.saturating_add(size);
        at = match size % 2 {
            0 => end,
            _ => padded(&mut view, end).map_err(io)?,
        };
    }
    Err(not_sound(path, "a WAV file without a data chunk"))
}

/// Where the chunk behind one of an odd size begins: a byte later, but for writers that forget to fill up.
fn padded(view: &mut View, end: u64) -> io::Result<u64> {
    let next = end.saturating_add(1);
    Ok(if !named(view, next)? && named(view, end)? {
        end
    } else {
        next
    })
}

/// Whether a chunk that is known begins at `at`.
fn named(view: &mut View, at: u64) -> io::Result<bool> {
    let name = view.read_at::<4>(at)?;
    Ok(name.is_some_and(|name| NAMES.contains(&&name)))
}

/// How many bytes of sound a header says that there are.
enum Size {
    Known(u64),
    /// Left open: to the end of the file.
    Open,
}

impl Size {
    fn of_wide(size: u64) -> Self {
        match size {
            0 | u64::MAX => Size::Open,
            size => Size::Known(size),
        }
    }

    fn of(size: u32, there: u64) -> Self {
        let open = MARKS
            .iter()
            .any(|mark| (0..=HEADERS).contains(&mark.wrapping_sub(size)));
        match size {
            0 => Size::Open,
            size if open && u64::from(size) > there => Size::Open,
            size => Size::Known(u64::from(size)),
        }
    }

    fn bytes(self, path: &Path, there: u64) -> Result<u64> {
        match self {
            Size::Known(size) if size > there => Err(Error::audio(
                path,
                format!("{size} bytes of sound, as its header says"),
                format!("{there}: the file is cut off"),
            )
            .hint("copy or download it again")),
            Size::Known(size) => Ok(size),
            Size::Open => Ok(there),
        }
    }
}

impl Wide {
    fn read(view: &mut View, at: u64, size: u32) -> io::Result<Self> {
        let bytes = view.bytes_at(at, (size as usize).min(28 + 12 * 256))?;
        let number =
            |at: usize| -> Option<u64> { Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
        // Sizes of the file and of the data, the number of samples, and a table of other chunks.
        let others = bytes.get(28..).unwrap_or_default().chunks_exact(12);
        Ok(Wide {
            data: number(8),
            others: others
                .filter_map(|entry| {
                    let (name, size) = entry.split_first_chunk::<4>()?;
                    Some((*name, u64::from_le_bytes(size.try_into().ok()?)))
                })
                .collect(),
        })
    }

    /// The size of a chunk whose header says `size`.
    fn size(&self, name: [u8; 4], size: u32) -> u64 {
        let wide = self
            .others
            .iter()
            .find(|(own, _)| size == u32::MAX && *own == name);
        wide.map_or(u64::from(size), |(_, size)| *size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as a file, opened.
    fn opened(bytes: &[u8]) -> Result<Wave> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        open(
            file.path(),
            View::new(
                super::super::view::Body::OnDisk(file.reopen().unwrap()),
                0..bytes.len() as u64,
            ),
        )
    }

    /// The bytes behind the header that the decoder sees.
    fn data(bytes: &[u8]) -> Vec<u8> {
        let mut wave = opened(bytes).unwrap();
        let all = wave.view.bytes_at(0, 1 << 20).unwrap();
        all[44..].to_vec()
    }

    /// A 16-bit mono header with the two sizes given, and what follows it.
    fn wav(riff: u32, size: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = b"RIFF".to_vec();
        bytes.extend(riff.to_le_bytes());
        bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data");
        bytes.extend(size.to_le_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn open_sizes_become_the_real_one() {
        for size in [
            0,
            u32::MAX,
            u32::MAX - 36,
            0x7FFF_F000,
            0x7FFF_FFFF,
            0x7FFF_FFDB,
            0x8000_0000,
        ] {
            for riff in [0, 36, u32::MAX, size.wrapping_add(36)] {
                assert_eq!(
                    data(&wav(riff, size, b"12345678_")),
                    b"12345678",
                    "{riff:x} {size:x}"
                );
            }
        }
        // The whole is as long as it says, so that the data are empty and another chunk follows.
        assert_eq!(data(&wav(44, 0, b"LIST\0\0\0\0")), b"");
    }

    #[test]
    fn a_cut_off_file_is_an_error() {
        for size in [12, 0x7FFF_0000, 0x7000_0000, 0xF000_0000] {
            let message = opened(&wav(46, size, b"1234567890")).err().unwrap().to_string();
            assert!(
                message.contains(&format!("{size} bytes")) && message.contains("found 10"),
                "{message}"
            );
        }
        assert_eq!(data(&wav(46, 10, b"1234567890")), b"1234567890");
    }

    #[test]
    fn chunk_sizes_near_the_limit_do_not_overflow() {
        for name in [b"junk", b"fmt ", b"ds64", b"LIST"] {
            let bytes = [b"RIFF\xff\xff\xff\xffWAVE".as_slice(), name, b"\xff\xff\xff\xff"].concat();
            assert!(opened(&bytes).is_err());
        }
        let mut bytes = b"RF64\xff\xff\xff\xffWAVEds64\x28\0\0\0".to_vec();
        bytes.extend([255; 24]);
        bytes.extend(b"\xff\xff\xff\xffjunk\xff\xff\xff\xff\xff\xff\xff\xffjunk\xff\xff\xff\xff");
        assert!(opened(&bytes).is_err());
    }

    #[test]
    fn chunks_of_odd_sizes_with_and_without_their_padding() {
        let plain = wav(0, 4, b"1234");
        for extra in [
            b"bext\x03\0\0\0abc\0".as_slice(),
            b"bext\x03\0\0\0abc",
            b"LIST\x05\0\0\0INFOx\0",
            b"LIST\x05\0\0\0INFOx",
            b"id3 \0\0\0\0",
            b"cue \x01\0\0\0x\0JUNK\x01\0\0\0y",
        ] {
            for at in [12, 36] {
                let mut bytes = plain.clone();
                bytes.splice(at..at, extra.iter().copied());
                assert_eq!(data(&bytes), b"1234", "{extra:?} at {at}");
            }
        }
    }
}
