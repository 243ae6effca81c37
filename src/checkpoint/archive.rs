//! Named tensors and where their bytes lie. Nothing is read before it is asked for.

use super::{folder, safetensors, torch_zip};
use crate::error::{self, Error, Result};
use indexmap::{map, IndexMap};
use memmap2::Mmap;
use std::borrow::Cow;
use std::ops::Range;
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

/// Two tensors of one file that [`Archive::rename`] gave the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The new name.
    pub name: String,
    /// The old name of the tensor that stayed.
    pub kept: String,
    /// The old name of the tensor that went.
    pub dropped: String,
    /// Whether both have the same shape and dtype. Their values are not compared: that would read the file.
    pub alike: bool,
}

/// Where a tensor's bytes lie.
#[derive(Clone)]
pub(super) enum Bytes {
    /// A range of a mapped file.
    Mapped(Arc<Mmap>, Range<usize>),
    /// A range of a compressed entry of a mapped zip file, unpacked when it is asked for.
    Packed(Arc<Mmap>, Arc<str>, Range<usize>),
}

impl Bytes {
    fn range(&self) -> &Range<usize> {
        match self {
            Bytes::Mapped(_, range) | Bytes::Packed(_, _, range) => range,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.range().len()
    }

    /// A part of these bytes, or nothing when it is not inside of them.
    pub(super) fn part(&self, part: Range<usize>) -> Option<Self> {
        let whole = self.range();
        let (from, to) = (
            whole.start.checked_add(part.start)?,
            whole.start.checked_add(part.end)?,
        );
        if from > to || to > whole.end {
            return None;
        }
        Some(match self {
            Bytes::Mapped(map, _) => Bytes::Mapped(map.clone(), from..to),
            Bytes::Packed(map, entry, _) => Bytes::Packed(map.clone(), entry.clone(), from..to),
        })
    }

    fn read(&self) -> Result<Cow<'_, [u8]>, String> {
        match self {
            Bytes::Mapped(map, range) => {
                let bytes = map
                    .get(range.clone())
                    .ok_or_else(|| format!("{} bytes in the file", map.len()))?;
                Ok(Cow::Borrowed(bytes))
            }
            Bytes::Packed(map, entry, range) => torch_zip::unpack(map, entry, range.clone()).map(Cow::Owned),
        }
    }

    fn same_place(&self, other: &Self) -> bool {
        self.range() == other.range()
            && match (self, other) {
                (Bytes::Mapped(a, _), Bytes::Mapped(b, _)) => Arc::ptr_eq(a, b),
                (Bytes::Packed(a, x, _), Bytes::Packed(b, y, _)) => Arc::ptr_eq(a, b) && x == y,
                _ => false,
            }
    }
}

#[derive(Clone)]
pub(super) struct Entry {
    pub info: TensorInfo,
    /// From the tensor's first element to its last.
    pub bytes: Bytes,
    /// In elements; none for a contiguous tensor.
    pub strides: Option<Vec<i64>>,
}

/// The named tensors of one file or folder. Cloning copies names and places, no data.
#[derive(Clone, Default)]
pub struct Archive {
    pub(super) entries: IndexMap<String, Entry>,
    /// What was opened, for error messages.
    pub(super) source: PathBuf,
    clashes: Vec<Clash>,
}

impl Archive {
    pub(super) fn new(source: &Path) -> Self {
        Archive {
            source: source.to_path_buf(),
            ..Archive::default()
        }
    }

    /// Opens `.safetensors`, a zip file of `torch.save` (`.pt`, `.pth`, `.bin`, `.ckpt`), or a folder: a Hugging
    /// Face model folder, or `safe_ckpt/` with its `metadata.json`.
    ///
    /// The tensors of a `torch.save` file bear the dotted paths of its nested dictionaries; of a training
    /// checkpoint only `model_state_dict` (or `state_dict`) is taken.
    ///
    /// # Errors
    /// A file that is missing, cut short, or whose sizes do not agree; a pickle with anything but tensors and plain
    /// values; an index that names a file or tensor that is not there.
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
    ///
    /// # Errors
    /// No such name; a compressed entry that does not unpack; a bool that is neither 0 nor 1.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let entry = self.entries.get(name).ok_or_else(|| {
            let e = Error::checkpoint(&self.source, name, "a tensor of this name", "none");
            match error::nearest(name, self.names()) {
                Some(near) => e.hint(format!("did you mean {near}?")),
                None => e,
            }
        })?;
        let info = &entry.info;
        let wrong = |expected: String, found: String| Error::checkpoint(&info.file, name, expected, found);
        let range = entry.bytes.range();
        let bytes = entry
            .bytes
            .read()
            .map_err(|found| wrong(format!("bytes {}..{}", range.start, range.end), found))?;
        let width = info.kind.elt_size_in_bytes();
        let flat_shape = match &entry.strides {
            None => info.shape.clone(),
            Some(_) => vec![(bytes.len() / width) as i64],
        };
        // tch copies as many bytes as the shape says and does not look at the length itself.
        let size = elements(&flat_shape).and_then(|n| n.checked_mul(width));
        if size != Some(bytes.len()) {
            return Err(wrong(
                format!("bytes for shape {:?}", info.shape),
                format!("{} bytes", bytes.len()),
            ));
        }
        // libtorch reads a bool's byte as it is: another value than 0 or 1 is undefined behaviour there.
        if info.kind == Kind::Bool && bytes.iter().any(|b| *b > 1) {
            return Err(wrong("bools of 0 and 1".into(), "other bytes".into()));
        }
        let flat = Tensor::f_from_data_size(&bytes, &flat_shape, info.kind)?;
        match &entry.strides {
            None => Ok(flat),
            Some(strides) => Ok(flat.f_as_strided(&info.shape, strides, 0)?.f_contiguous()?),
        }
    }

    /// New names; `None` drops the tensor.
    ///
    /// Where two names fall on one, the tensor that bore the name before stays, otherwise the first; unless both are
    /// the same bytes of the file, [`Archive::clashes`] tells.
    pub fn rename(self, f: impl Fn(&str) -> Option<String>) -> Archive {
        let mut entries: IndexMap<String, (String, Entry)> = IndexMap::with_capacity(self.entries.len());
        let mut clashes = self.clashes;
        for (old, entry) in self.entries {
            let Some(new) = f(&old) else { continue };
            match entries.entry(new) {
                map::Entry::Vacant(place) => {
                    place.insert((old, entry));
                }
                map::Entry::Occupied(mut place) => {
                    let name = place.key().clone();
                    let mut other = (old, entry);
                    if other.0 == name {
                        std::mem::swap(place.get_mut(), &mut other);
                    }
                    let (kept, dropped) = (place.get(), &other);
                    let alike = (&kept.1.info.shape, kept.1.info.kind)
                        == (&dropped.1.info.shape, dropped.1.info.kind);
                    let one = alike
                        && kept.1.strides == dropped.1.strides
                        && kept.1.bytes.same_place(&dropped.1.bytes);
                    if !one {
                        clashes.push(Clash {
                            name,
                            kept: kept.0.clone(),
                            dropped: other.0,
                            alike,
                        });
                    }
                }
            }
        }
        Archive {
            entries: entries
                .into_iter()
                .map(|(name, (_, entry))| (name, entry))
                .collect(),
            source: self.source,
            clashes,
        }
    }

    /// The duplicates that [`Archive::rename`] left aside.
    pub fn clashes(&self) -> &[Clash] {
        &self.clashes
    }

    /// Both archives' tensors; where both have a name, `other`'s.
    pub fn overlay(mut self, other: Archive) -> Archive {
        if self.entries.is_empty() && self.source.as_os_str().is_empty() {
            self.source = other.source;
        }
        self.entries.extend(other.entries);
        self.clashes.extend(other.clashes);
        self
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Archive({}, {} tensors)",
            self.source.display(),
            self.entries.len()
        )
    }
}

/// Elements of a shape, or nothing when they are negative or past what memory can address.
pub(super) fn elements(shape: &[i64]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?))
}

/// A private, read-only map of a file.
pub(super) fn map(path: &Path) -> Result<Arc<Mmap>> {
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is read-only and outlives every slice of it; a file that another process cuts short while
    // we read ends this process with SIGBUS, as it would any reader of mapped files. Checkpoints are written by
    // rename, never in place.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    Ok(Arc::new(map))
}
