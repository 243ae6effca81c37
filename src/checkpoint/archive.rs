//! Named tensors and where their bytes lie. Nothing is read before it is asked for.

use super::bytes::Bytes;
use crate::error::{self, Error, Result};
use indexmap::{map, IndexMap};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// What is known of a tensor without reading it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Sizes of its dimensions; none of a scalar.
    pub shape: Vec<i64>,
    /// Its dtype.
    pub kind: Kind,
    /// The file that holds it.
    pub file: PathBuf,
}

impl TensorInfo {
    /// Bytes of the tensor's elements.
    pub fn bytes(&self) -> usize {
        elements(&self.shape).map_or(0, |n| n.saturating_mul(self.kind.elt_size_in_bytes()))
    }
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
    /// What was chosen among what was there, one line each.
    pub(super) notes: Vec<String>,
}

impl Archive {
    pub(super) fn new(source: &Path) -> Self {
        Archive {
            source: source.to_path_buf(),
            ..Archive::default()
        }
    }

    /// Names in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// What is known of a tensor; none where the checkpoint has no such name.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.entries.get(name).map(|e| &e.info)
    }

    /// The tensor on the CPU in the file's dtype: its own memory, contiguous.
    ///
    /// # Errors
    /// As [`Archive::get_as`].
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let kind = self.entry(name)?.info.kind;
        self.get_as(name, kind, Device::Cpu)
    }

    /// The tensor in a dtype and on a device, converted and copied piece by piece: contiguous, its own memory, and no
    /// second copy beside it.
    ///
    /// # Errors
    /// No such name; bytes that do not have the checksum which the file gives; a compressed entry that does not
    /// unpack; a bool that is neither 0 nor 1.
    pub fn get_as(&self, name: &str, kind: Kind, device: Device) -> Result<Tensor> {
        let entry = self.entry(name)?;
        let info = &entry.info;
        let flat = entry.bytes.flat(info.kind, kind, device).map_err(|found| {
            let expected = format!("the {} bytes of its elements", entry.bytes.len());
            Error::checkpoint(&info.file, name, expected, found)
                .hint("a file that was damaged or cut short? Copy it again")
        })?;
        match &entry.strides {
            None => Ok(flat.f_view(info.shape.as_slice())?),
            Some(strides) => Ok(flat.f_as_strided(&info.shape, strides, 0)?.f_contiguous()?),
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| {
            let e = Error::checkpoint(&self.source, name, "a tensor of this name", "none");
            match error::nearest(name, self.names()) {
                Some(near) => e.hint(format!("did you mean {near}?")),
                None => e,
            }
        })
    }

    /// Where a contiguous tensor's bytes lie.
    pub(super) fn place(&self, name: &str) -> Option<(usize, usize, Kind)> {
        let entry = self.entries.get(name).filter(|e| e.strides.is_none())?;
        let (at, n) = entry.bytes.place()?;
        Some((at, n, entry.info.kind))
    }

    /// What was opened.
    pub(crate) fn source(&self) -> &Path {
        &self.source
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
            notes: self.notes,
        }
    }

    /// The duplicates that [`Archive::rename`] left aside.
    pub fn clashes(&self) -> &[Clash] {
        &self.clashes
    }

    /// What was chosen where a file or folder holds more than one thing that could be meant, one line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Both archives' tensors; where both have a name, `other`'s.
    pub fn overlay(mut self, other: Archive) -> Archive {
        if self.entries.is_empty() && self.source.as_os_str().is_empty() {
            self.source = other.source;
        }
        self.entries.extend(other.entries);
        self.clashes.extend(other.clashes);
        self.notes.extend(other.notes);
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
