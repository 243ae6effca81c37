//! What a WAV header promises, checked against the file before the decoder sees it.
//!
//! The decoder library believes the sizes in the header. Here a `data` chunk that is longer than the file is
//! an error (a cut-off copy must not pass for a short recording), and the two sizes that programs writing to
//! a pipe leave open, 0 and 0xFFFFFFFF, are replaced by what the file really holds.

use super::decode::MAX_CHANNELS;
use crate::error::{Error, Result};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};
use symphonia::core::io::MediaSource;

/// Sizes that mean "not known when the header was written".
const OPEN: [u32; 2] = [0, u32::MAX];
/// The format tag of WAVE_FORMAT_EXTENSIBLE, and the least size of its `fmt ` chunk.
const EXTENSIBLE: [u8; 2] = [0xFE, 0xFF];
const EXTENSIBLE_SIZE: u32 = 40;
/// Bits of the longest sample, a 64-bit float.
const MAX_BITS: u16 = 64;
/// Loudspeakers that have a bit in the mask.
const MAX_SPEAKERS: u16 = 18;
/// Chunks before the data that are looked at. Real files have a handful.
const MAX_CHUNKS: usize = 4096;

/// A file of which some bytes are read differently from what is on the disk.
pub struct Patched {
    file: File,
    /// Where the sound begins in the file: not 0 in a shard.
    base: u64,
    position: u64,
    length: u64,
    patches: Vec<(u64, [u8; 4])>,
}

impl Patched {
    /// The `length` bytes of `file` from `base` on as they are, or with their RIFF sizes made right when they are a
    /// WAV file.
    ///
    /// # Errors
    /// [`Error::Audio`] when the data chunk ends after the file does; [`Error::Io`].
    pub fn new(path: &Path, file: File, base: u64, length: u64) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let mut plain = Patched {
            file,
            base,
            position: 0,
            length,
            patches: Vec::new(),
        };
        let patches = match read_at::<12>(&mut plain, 0).map_err(io)? {
            Some(h) if h.starts_with(b"RIFF") && h.ends_with(b"WAVE") => sizes(path, &mut plain, length)?,
            _ => Vec::new(),
        };
        plain.seek(SeekFrom::Start(0)).map_err(io)?;
        Ok(Patched { patches, ..plain })
    }
}

/// The patches for a RIFF/WAVE file.
fn sizes(path: &Path, file: &mut Patched, length: u64) -> Result<Vec<(u64, [u8; 4])>> {
    // Stale RIFF sizes are common and say nothing that the chunks do not: leave it open always.
    let mut patches = vec![(4, u32::MAX.to_le_bytes())];
    let mut at = 12u64;
    let mut frame = 1u64;
    for _ in 0..MAX_CHUNKS {
        let Some(header) = read_at::<8>(file, at).map_err(|e| Error::io(path, e))? else {
            break;
        };
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let body = at + 8;
        if header.starts_with(b"fmt ") {
            if let Some(fmt) = read_at::<16>(file, body).map_err(|e| Error::io(path, e))? {
                // Bytes per frame: "block align".
                frame = u64::from(u16::from_le_bytes([fmt[12], fmt[13]])).max(1);
                sane(path, &fmt)?;
                if fmt.starts_with(&EXTENSIBLE) && size >= EXTENSIBLE_SIZE {
                    patches.extend(extension(path, body, &fmt)?);
                }
            }
        }
        if header.starts_with(b"data") {
            let there = length.saturating_sub(body);
            if OPEN.contains(&size) {
                // One below the open mark, and whole frames, so that the decoder meets a clean end.
                let real = there.min(u64::from(u32::MAX - 1)) / frame * frame;
                patches.push((at + 4, (real as u32).to_le_bytes()));
            } else if u64::from(size) > there {
                return Err(Error::audio(
                    path,
                    format!("{size} bytes of sound, as its header says"),
                    format!("{there}: the file is cut off"),
                )
                .hint("copy or download it again"));
            }
            break;
        }
        at = body + u64::from(size) + u64::from(size & 1);
    }
    Ok(patches)
}

/// Refuses what would overflow where the decoder library multiplies channels by bytes: a panic in a debug build.
fn sane(path: &Path, fmt: &[u8; 16]) -> Result<()> {
    let (channels, bits) = (
        u16::from_le_bytes([fmt[2], fmt[3]]),
        u16::from_le_bytes([fmt[14], fmt[15]]),
    );
    if usize::from(channels) > MAX_CHANNELS || bits > MAX_BITS {
        let expected = format!("at most {MAX_CHANNELS} channels of {MAX_BITS} bits");
        return Err(Error::audio(path, expected, format!("{channels} of {bits}")));
    }
    Ok(())
}

/// What the decoder shall read behind the first 16 bytes of an extensible `fmt ` chunk. It refuses files for fields that
/// say nothing about where the samples are: a size other than 22, valid bits of 0, loudspeakers that it does not know
/// (0x80000000 is "all").
fn extension(path: &Path, body: u64, fmt: &[u8; 16]) -> Result<[(u64, [u8; 4]); 2]> {
    let channels = u16::from_le_bytes([fmt[2], fmt[3]]);
    if channels > MAX_SPEAKERS {
        let expected = format!("at most {MAX_SPEAKERS} channels in an extensible WAV");
        return Err(Error::audio(path, expected, channels.to_string()));
    }
    // The samples fill their bytes from the top, so that all bits count whatever is said to be valid.
    Ok([(body + 16, [22, 0, fmt[14], fmt[15]]), (body + 20, [0; 4])])
}

/// `N` bytes at `at`, or nothing when the file ends before.
pub(super) fn read_at<const N: usize>(file: &mut Patched, at: u64) -> io::Result<Option<[u8; N]>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = [0; N];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

impl Read for Patched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.position).min(buffer.len() as u64);
        let n = self.file.read(&mut buffer[..left as usize])?;
        for (at, bytes) in &self.patches {
            for (i, byte) in (*at..).zip(bytes) {
                if let Some(offset) = i.checked_sub(self.position).filter(|o| *o < n as u64) {
                    buffer[offset as usize] = *byte;
                }
            }
        }
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for Patched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let wanted = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a seek before the beginning");
        let wanted = wanted.ok_or_else(before)?;
        self.file
            .seek(SeekFrom::Start(self.base.saturating_add(wanted)))?;
        self.position = wanted;
        Ok(wanted)
    }
}

impl MediaSource for Patched {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 16-bit mono header with the two sizes given, and `frames` frames of 1.
    fn wav(riff: u32, data: u32, frames: usize) -> (tempfile::NamedTempFile, Vec<u8>) {
        let mut bytes = b"RIFF".to_vec();
        bytes.extend(riff.to_le_bytes());
        bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data");
        bytes.extend(data.to_le_bytes());
        bytes.extend([1, 0].repeat(frames));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        (file, bytes)
    }

    fn read(file: &tempfile::NamedTempFile) -> Result<Vec<u8>> {
        let length = file.as_file().metadata().unwrap().len();
        let mut patched = Patched::new(file.path(), file.reopen().unwrap(), 0, length)?;
        let mut bytes = Vec::new();
        // One byte at a time, so that a patch is met in every position of a buffer.
        let mut one = [0];
        while patched.read(&mut one).unwrap() == 1 {
            bytes.push(one[0]);
        }
        Ok(bytes)
    }

    #[test]
    fn open_sizes_become_the_real_one() {
        for size in OPEN {
            let (file, mut bytes) = wav(size, size, 5);
            bytes[4..8].copy_from_slice(&[255; 4]);
            bytes[40..44].copy_from_slice(&10u32.to_le_bytes());
            assert_eq!(read(&file).unwrap(), bytes);
        }
    }

    #[test]
    fn a_cut_off_file_is_an_error() {
        let (file, _) = wav(46, 12, 5);
        let message = read(&file).unwrap_err().to_string();
        assert!(
            message.contains("12 bytes") && message.contains("found 10"),
            "{message}"
        );
        assert!(read(&wav(46, 10, 5).0).is_ok());
    }

    #[test]
    fn chunk_sizes_near_the_limit_do_not_overflow() {
        let mut bytes = b"RIFF\xff\xff\xff\xffWAVE".to_vec();
        bytes.extend(b"junk\xff\xff\xff\xff");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        assert_eq!(read(&file).unwrap(), bytes);
    }
}
