//! Named tensors and where their bytes lie. Nothing is read before it is asked for.

use super::{folder, safetensors, torch_zip};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use memmap2::Mmap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// What is known of a tensor without reading it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    pub shape: Vec<i64>,
    pub kind: Kind,
    /// The file that holds it.
    pub file: PathBuf,
}

/// Where a tensor's bytes lie.
#[derive(Clone)]
pub(super) enum Bytes {
    /// A range of a mapped file.
    Mapped(Arc<Mmap>, std::ops::Range<usize>),
    /// Held in memory: a compressed entry that had to be unpacked.
    Held(Arc<Vec<u8>>),
}

impl Bytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map, range) => map.get(range.clone()).unwrap_or_default(),
            Bytes::Held(bytes) => bytes,
        }
    }
}

#[derive(Clone)]
pub(super) struct Entry {
    pub info: TensorInfo,
    pub bytes: Bytes,
    /// Element offset and strides into the bytes; none for a contiguous tensor from the first byte.
    pub view: Option<(i64, Vec<i64>)>,
}

/// The named tensors of one file or folder.
#[derive(Clone, Default)]
pub struct Archive {
    pub(super) entries: IndexMap<String, Entry>,
}

impl Archive {
    /// Opens `.safetensors`, a zip file of `torch.save` (`.pt`, `.pth`, `.bin`), or a folder: a Hugging Face model
    /// folder, or `safe_ckpt/` with its `metadata.json`.
    pub fn open(path: &Path) -> Result<Self> {
        let kind = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if kind.is_dir() {
            return folder::open(path);
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => safetensors::open(path),
            Some("pt" | "pth" | "bin" | "ckpt") => torch_zip::open(path),
            _ => Err(Error::checkpoint(
                path,
                "file name",
                "one that ends in .safetensors, .pt, .pth, .bin or .ckpt",
                path.display().to_string(),
            )),
        }
    }

    /// Names in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.entries.get(name).map(|e| &e.info)
    }

    /// The tensor on the CPU in the file's dtype: its own memory, contiguous.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| Error::checkpoint("checkpoint", name, "a tensor of this name", "none"))?;
        let (info, bytes) = (&entry.info, entry.bytes.as_slice());
        let Some((offset, strides)) = &entry.view else {
            return Ok(Tensor::f_from_data_size(bytes, &info.shape, info.kind)?);
        };
        let elements = bytes.len() / info.kind.elt_size_in_bytes().max(1);
        let flat = Tensor::f_from_data_size(bytes, &[elements as i64], info.kind)?;
        Ok(flat.f_as_strided(&info.shape, strides, *offset)?.contiguous().copy())
    }

    /// New names; `None` drops the tensor. Two names that fall on one must mean the same tensor: the first stays.
    pub fn rename(self, f: impl Fn(&str) -> Option<String>) -> Archive {
        let mut entries = IndexMap::new();
        for (name, entry) in self.entries {
            if let Some(new) = f(&name) {
                entries.entry(new).or_insert(entry);
            }
        }
        Archive { entries }
    }

    /// Both archives' tensors; where both have a name, `other`'s.
    pub fn overlay(mut self, other: Archive) -> Archive {
        self.entries.extend(other.entries);
        self
    }
}

/// Elements of a shape, or nothing when they are negative or past what memory can address.
pub(super) fn elements(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?))
}

/// A private, read-only map of a file.
pub(super) fn map(path: &Path) -> Result<Arc<Mmap>> {
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is read-only and outlives its tensors' copies; a file that another process cuts short while
    // we read ends this process with SIGBUS, as it would any reader of mapped files. Checkpoints are written by
    // rename, never in place.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    Ok(Arc::new(map))
}
