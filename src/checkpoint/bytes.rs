//! The bytes behind tensors: mapped files and bytes at hand, read in pieces, checked as they are read.

use super::torch_zip;
use crate::error::{Error, Result};
use memmap2::{Mmap, UncheckedAdvice};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Bytes that are copied and checked at once: small beside any model, large beside a system call.
const PIECE: usize = 16 << 20;
/// Mapped pages are given back in whole pages.
const PAGE: usize = 4096;

/// A whole file.
pub(super) enum Source {
    Map(Mmap),
    Owned(Vec<u8>),
}

impl Source {
    /// A private, read-only map of a file.
    pub fn map(path: &Path) -> Result<Arc<Self>> {
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        // SAFETY: the map is read-only and outlives every slice of it; a file that another process cuts short while
        // we read ends this process with SIGBUS, as it would any reader of mapped files. Checkpoints are written by
        // rename, never in place.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Arc::new(Source::Map(map)))
    }

    /// Forgets pages that were read, so that a file's bytes and the tensors made of them are not both counted as
    /// this process's memory. The kernel keeps them in its cache.
    fn release(&self, range: Range<usize>) {
        if let Source::Map(map) = self {
            let from = range.start.next_multiple_of(PAGE);
            let to = range.end / PAGE * PAGE;
            if from < to {
                // SAFETY: a read-only map of a file: pages that are given back are read again where they are touched.
                let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) };
            }
        }
    }
}

impl std::ops::Deref for Source {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Source::Map(map) => map,
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
    pub fn plain(source: &Arc<Source>, range: Range<usize>, crc: Option<u32>) -> Option<Arc<Self>> {
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
    pub fn packed(source: &Arc<Source>, entry: &str, size: usize) -> Arc<Self> {
        Arc::new(Storage {
            source: source.clone(),
            range: 0..size,
            packed: Some(entry.into()),
            crc: None,
            checked: AtomicBool::new(false),
        })
    }

    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Feeds the bytes of `part` to `take` piece by piece; checks the whole storage the first time.
    fn read(&self, part: Range<usize>, mut take: impl FnMut(usize, &[u8])) -> Result<(), String> {
        if let Some(entry) = &self.packed {
            take(0, &torch_zip::unpack(&self.source, entry, part)?);
            return Ok(());
        }
        let crc = self.crc.filter(|_| !self.checked.load(Ordering::Relaxed));
        let whole = part == (0..self.len());
        if let (Some(crc), false) = (crc, whole) {
            self.check(crc)?;
        }
        let mut hash = crc32fast::Hasher::new();
        for (offset, range) in pieces(self.range.start + part.start..self.range.start + part.end) {
            let bytes = self
                .source
                .get(range.clone())
                .ok_or_else(|| format!("{} bytes in the file", self.source.len()))?;
            if crc.is_some() && whole {
                hash.update(bytes);
            }
            take(offset, bytes);
            self.source.release(range);
        }
        match crc {
            Some(crc) if whole => self.settle(crc, hash.finalize()),
            _ => Ok(()),
        }
    }

    fn check(&self, crc: u32) -> Result<(), String> {
        let mut hash = crc32fast::Hasher::new();
        for (_, range) in pieces(self.range.clone()) {
            hash.update(self.source.get(range.clone()).unwrap_or_default());
            self.source.release(range);
        }
        self.settle(crc, hash.finalize())
    }

    fn settle(&self, expected: u32, found: u32) -> Result<(), String> {
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
    pub fn new(storage: &Arc<Storage>, part: Range<usize>) -> Option<Self> {
        (part.start <= part.end && part.end <= storage.len()).then(|| Bytes {
            storage: storage.clone(),
            part,
        })
    }

    pub fn len(&self) -> usize {
        self.part.len()
    }

    /// Address and length of bytes that are not compressed: equal for views of the same elements.
    pub fn place(&self) -> Option<(usize, usize)> {
        let storage = &self.storage;
        let at = storage.source.as_ptr() as usize + storage.range.start + self.part.start;
        (storage.packed.is_none() && self.len() > 0).then_some((at, self.len()))
    }

    pub fn same_place(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage) && self.part == other.part
    }

    /// The bytes as a flat tensor of their own kind on the CPU, or converted piece by piece: beside the result, no
    /// more than a piece is ever in memory.
    pub fn flat(&self, kind: Kind, target: Kind, device: Device) -> Result<Tensor, String> {
        let width = kind.elt_size_in_bytes();
        let out = Tensor::f_empty([(self.len() / width) as i64], (target, device)).map_err(|e| e.to_string())?;
        let direct = kind == target && device == Device::Cpu;
        let mut failed = None;
        self.storage.read(self.part.clone(), |offset, bytes| {
            // libtorch reads a bool's byte as it is: another value than 0 or 1 is undefined behaviour there.
            if kind == Kind::Bool && bytes.iter().any(|b| *b > 1) {
                failed.get_or_insert_with(|| "bools that are neither 0 nor 1".to_owned());
                return;
            }
            if direct {
                // A compressed entry may unpack to another length than the zip's directory says.
                if offset + bytes.len() > self.len() {
                    failed.get_or_insert_with(|| "more bytes than the directory says".to_owned());
                    return;
                }
                // SAFETY: `out` is contiguous, on the CPU, of this dtype, with `self.len()` bytes; `offset` and the
                // piece stay inside of it, as was just checked, and nobody else has it yet.
                unsafe {
                    let to = out.data_ptr().cast::<u8>().add(offset);
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
                }
                return;
            }
            let count = bytes.len() / width;
            let converted = Tensor::f_from_data_size(&bytes[..count * width], &[count as i64], kind)
                .and_then(|piece| {
                    let mut place = out.f_narrow(0, (offset / width) as i64, count as i64)?;
                    place.f_copy_(&piece)
                });
            if let Err(e) = converted {
                failed.get_or_insert(e.to_string());
            }
        })?;
        failed.map_or(Ok(out), Err)
    }
}
