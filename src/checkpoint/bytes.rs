//! The bytes behind tensors: files and bytes at hand, read in pieces, checked as they are read.

use super::zip_entry::unpack;
use crate::error::{Error, Result};
use crate::fsutil::{lfs_error, lfs_pointer, open_regular};
use memmap2::Mmap;
use rayon::prelude::*;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Bytes that are read, converted or checked at once: small beside any model, large beside a system call.
const PIECE: usize = 4 << 20;

/// A whole file: mapped for its headers, whose places are known only as they are read; tensors are read from the
/// file itself, straight to where they shall be, so that no page of them is in memory twice.
pub(super) enum Source {
    File(File, Mmap),
    Owned(Vec<u8>),
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>> {
        let file = open_regular(path)?;
        // SAFETY: the map is private, read-only and outlives every slice of it; a file that another process cuts
        // short while its header is read ends this process with SIGBUS, as it would any reader of mapped files.
        // Checkpoints are written by rename, never in place.
        #[expect(unsafe_code, reason = "a memory map")]
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        if let Some(says) = lfs_pointer(&map) {
            return Err(lfs_error(path, &says));
        }
        Ok(Arc::new(Source::File(file, map)))
    }

    /// Fills `out` from the bytes at `offset`.
    fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), String> {
        match self {
            Source::File(file, _) => file
                .read_exact_at(out, offset as u64)
                .map_err(|e| format!("{} bytes at {offset} that cannot be read: {e}", out.len())),
            Source::Owned(bytes) => {
                let piece = offset
                    .checked_add(out.len())
                    .and_then(|end| bytes.get(offset..end));
                out.copy_from_slice(piece.ok_or_else(|| format!("{} bytes in all", bytes.len()))?);
                Ok(())
            }
        }
    }
}

impl std::ops::Deref for Source {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Source::File(_, map) => map,
            Source::Owned(bytes) => bytes,
        }
    }
}

/// One run of bytes in a file: a storage of a `.pt` file, a tensor of a safetensors file.
pub(super) struct Storage {
    source: Arc<Source>,
    /// In the file; in the unpacked entry where there is one.
    range: Range<usize>,
    /// The zip entry that has to be unpacked.
    packed: Option<Arc<str>>,
    /// CRC-32 of all its bytes, where the file says one.
    crc: Option<u32>,
    checked: AtomicBool,
}

impl Storage {
    /// None when the range is not inside of the file.
    pub(crate) fn plain(source: &Arc<Source>, range: Range<usize>, crc: Option<u32>) -> Option<Arc<Self>> {
        (range.start <= range.end && range.end <= source.len()).then(|| {
            Arc::new(Storage {
                source: source.clone(),
                range,
                packed: None,
                crc,
                checked: AtomicBool::new(false),
            })
        })
    }

    /// A compressed entry of a zip file, unpacked when it is asked for. The unpacker checks its CRC-32.
    pub(crate) fn packed(source: &Arc<Source>, entry: &str, size: usize) -> Arc<Self> {
        Arc::new(Storage {
            source: source.clone(),
            range: 0..size,
            packed: Some(entry.into()),
            crc: None,
            checked: AtomicBool::new(false),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.range.len()
    }

    /// Fills `out` with the bytes of `part`, several pieces at a time; checks the whole storage the first time.
    fn fill(&self, part: &Range<usize>, out: &mut [u8]) -> Result<(), String> {
        let whole = *part == (0..self.len());
        let crc = self.unchecked();
        if let (Some(crc), false) = (crc, whole) {
            self.check(crc)?;
        }
        let start = self.range.start + part.start;
        let hashes = out
            .par_chunks_mut(PIECE)
            .enumerate()
            .map(|(i, piece)| {
                self.source.read(start + i * PIECE, piece)?;
                let mut hash = crc32fast::Hasher::new();
                if crc.is_some() && whole {
                    hash.update(piece);
                }
                Ok(hash)
            })
            .collect::<Result<Vec<_>, String>>()?;
        match crc {
            Some(crc) if whole => self.settle(crc, hashes),
            _ => Ok(()),
        }
    }

    /// The checksum, where there is one that was not looked at yet.
    fn unchecked(&self) -> Option<u32> {
        self.crc.filter(|_| !self.checked.load(Ordering::Relaxed))
    }

    fn check(&self, crc: u32) -> Result<(), String> {
        let hashes = pieces(self.range.clone())
            .collect::<Vec<_>>()
            .into_par_iter()
            .map_init(Vec::new, |buffer, (_, range)| {
                buffer.resize(range.len(), 0);
                self.source.read(range.start, buffer)?;
                let mut hash = crc32fast::Hasher::new();
                hash.update(buffer);
                Ok(hash)
            })
            .collect::<Result<Vec<_>, String>>()?;
        self.settle(crc, hashes)
    }

    fn settle(&self, expected: u32, pieces: Vec<crc32fast::Hasher>) -> Result<(), String> {
        let mut all = crc32fast::Hasher::new();
        pieces.iter().for_each(|piece| all.combine(piece));
        let found = all.finalize();
        if expected != found {
            return Err(format!(
                "bytes with the CRC-32 {found:08x} where {expected:08x} was written"
            ));
        }
        self.checked.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Cuts a range into pieces, each with its offset from the range's start.
fn pieces(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let (start, end) = (range.start, range.end);
    range
        .step_by(PIECE)
        .map(move |at| (at - start, at..end.min(at + PIECE)))
}

/// A part of a storage: from a tensor's first element to its last.
#[derive(Clone)]
pub(super) struct Bytes {
    storage: Arc<Storage>,
    part: Range<usize>,
}

impl Bytes {
    /// None when the part is not inside of the storage.
    pub(crate) fn new(storage: &Arc<Storage>, part: Range<usize>) -> Option<Self> {
        (part.start <= part.end && part.end <= storage.len()).then(|| Bytes {
            storage: storage.clone(),
            part,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.part.len()
    }

    /// Address and length of bytes that are not compressed: equal for views of the same elements.
    pub(crate) fn place(&self) -> Option<(usize, usize)> {
        let storage = &self.storage;
        let at = storage.source.as_ptr() as usize + storage.range.start + self.part.start;
        (storage.packed.is_none() && self.len() > 0).then_some((at, self.len()))
    }

    pub(crate) fn same_place(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage) && self.part == other.part
    }

    /// The bytes as a flat tensor in another dtype or on another device, converted piece by piece: beside the result,
    /// no more than a few pieces are ever in memory.
    pub(crate) fn flat(&self, kind: Kind, target: Kind, device: Device) -> Result<Tensor, String> {
        let width = kind.elt_size_in_bytes();
        let count = self.len() / width;
        if count * width != self.len() {
            return Err(format!("{} bytes for elements of {width}", self.len()));
        }
        let torch = |e: tch::TchError| e.to_string();
        let out = Tensor::f_empty([count as i64], (target, device)).map_err(torch)?;
        if kind == target && device == Device::Cpu {
            if count > 0 {
                // SAFETY: `out` is contiguous, on the CPU, of this dtype, with `self.len()` bytes that nobody else
                // has yet; they are written before they are read.
                #[expect(unsafe_code, reason = "a tensor's own memory, to read files into")]
                let bytes =
                    unsafe { std::slice::from_raw_parts_mut(out.data_ptr().cast::<u8>(), self.len()) };
                self.read(&self.part, bytes)?;
                check_bools(kind, bytes)?;
            }
            return Ok(out);
        }
        let unpacked = match &self.storage.packed {
            Some(entry) => Some(unpack(&self.storage.source, entry, self.part.clone())?),
            None => None,
        };
        let whole = self.part == (0..self.storage.len());
        let crc = self.storage.unchecked();
        if let (Some(crc), false) = (crc, whole) {
            self.storage.check(crc)?;
        }
        let (mut buffer, mut hash) = (Vec::new(), crc32fast::Hasher::new());
        for (offset, range) in pieces(self.part.clone()) {
            let bytes = match &unpacked {
                Some(all) => all
                    .get(offset..offset + range.len())
                    .ok_or("fewer bytes when unpacked")?,
                None => {
                    buffer.resize(range.len(), 0);
                    self.storage
                        .source
                        .read(self.storage.range.start + range.start, &mut buffer)?;
                    &buffer
                }
            };
            hash.update(bytes);
            check_bools(kind, bytes)?;
            let n = (range.len() / width) as i64;
            let piece = Tensor::f_from_data_size(bytes, &[n], kind).map_err(torch)?;
            let mut place = out.f_narrow(0, (offset / width) as i64, n).map_err(torch)?;
            place.f_copy_(&piece).map_err(torch)?;
        }
        match crc {
            Some(crc) if whole => self.storage.settle(crc, vec![hash])?,
            _ => {}
        }
        Ok(out)
    }

    fn read(&self, part: &Range<usize>, out: &mut [u8]) -> Result<(), String> {
        match &self.storage.packed {
            None => self.storage.fill(part, out),
            Some(entry) => {
                let bytes = unpack(&self.storage.source, entry, part.clone())?;
                // It may unpack to another length than the zip's directory says.
                let bytes = bytes
                    .get(..out.len())
                    .ok_or_else(|| format!("{} bytes when unpacked", bytes.len()))?;
                out.copy_from_slice(bytes);
                Ok(())
            }
        }
    }
}

/// libtorch reads a bool's byte as it is: another value than 0 or 1 is undefined behaviour there.
fn check_bools(kind: Kind, bytes: &[u8]) -> Result<(), String> {
    if kind == Kind::Bool && bytes.iter().any(|b| *b > 1) {
        return Err("bools that are neither 0 nor 1".into());
    }
    Ok(())
}
