//! What `torch.save` wrote, in either of its forms: tensors and plain values under dotted paths.
//!
//! ```text
//! zip (PyTorch 1.6 and later) ─► torch_zip ─┐
//! legacy (before; still an option) ─► legacy ┴► pickle ─► views of storages, each checked ─► TorchFile
//! ```

use super::archive::{elements, Archive, Entry, TensorInfo};
use super::bytes::{Bytes, Storage};
use super::model_of;
use super::pickle::{Plain, TensorView};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::Kind;

/// Bytes that a view which repeats elements (`expand`) may grow to.
const MOST_EXPANDED: usize = 64 << 20;

/// A file of `torch.save`. Its pickle was read as data; nothing of it was run.
#[derive(Debug)]
pub struct TorchFile {
    /// All tensors by dotted path: `model_state_dict.module.…`, `optimizer_state_dict.state.0.exp_avg`.
    pub tensors: Archive,
    /// All plain values by dotted path: `epoch`, `optimizer_state_dict.param_groups.0.lr`.
    pub plain: IndexMap<String, Plain>,
}

impl TorchFile {
    /// The model's tensors, where trainers put them: under `model_state_dict`, `state_dict`, `module`, `model` or at the top.
    ///
    /// # Errors
    /// More than one model, and nothing that tells which is meant.
    pub fn model(&self) -> Result<Archive> {
        model_of::choose(self.tensors.clone())
    }
}

/// Collects a file's tensors while its reader finds their storages.
pub(super) struct Builder {
    path: PathBuf,
    archive: Archive,
    storages: HashMap<String, Arc<Storage>>,
}

impl Builder {
    pub(crate) fn new(path: &Path) -> Self {
        Builder {
            path: path.to_path_buf(),
            archive: Archive::new(path),
            storages: HashMap::new(),
        }
    }

    /// A tensor; `find` is asked for its storage when no tensor before had the same.
    pub(crate) fn add(
        &mut self,
        name: &str,
        view: &TensorView,
        find: impl FnOnce() -> Result<Arc<Storage>, String>,
    ) -> Result<()> {
        let key = &view.storage.key;
        let storage = match self.storages.get(key) {
            Some(found) => found.clone(),
            None => {
                let found =
                    find().map_err(|e| Error::checkpoint(&self.path, name, "the bytes of its storage", e))?;
                self.storages.insert(key.clone(), found.clone());
                found
            }
        };
        let entry = place(&self.path, name, view, &storage)?;
        match self.archive.entries.insert(name.to_owned(), entry) {
            None => Ok(()),
            Some(_) => Err(Error::checkpoint(&self.path, name, "each name once", "it twice")),
        }
    }

    pub(crate) fn finish(self, plain: Vec<(String, Plain)>) -> TorchFile {
        TorchFile {
            tensors: self.archive,
            plain: plain.into_iter().collect(),
        }
    }
}

/// The error for a pickle that says more than tensors and plain values.
pub(super) fn unreadable(path: &Path, key: &str, found: String) -> Error {
    let foreign = found.starts_with("the global");
    let e = Error::checkpoint(path, key, "a pickle of tensors and plain values", found);
    match foreign {
        true => e.hint(
            "where you trust the file, PyTorch can save its weights alone: \
             torch.save(torch.load(FILE, weights_only=False)[\"state_dict\"], \"weights.pt\")",
        ),
        false => e,
    }
}

/// Bytes per element of a storage class.
pub(super) fn width(class: &str) -> Option<usize> {
    kind(class).map(|k| k.elt_size_in_bytes())
}

/// Where a view lies, when it lies whole inside of its storage.
fn place(path: &Path, name: &str, view: &TensorView, storage: &Arc<Storage>) -> Result<Entry> {
    let wrong = |expected: String, found: String| Error::checkpoint(path, name, expected, found);
    let kind = kind(&view.storage.class)
        .ok_or_else(|| wrong("a storage of numbers".into(), view.storage.class.clone()))?;
    let width = kind.elt_size_in_bytes();
    if usize::try_from(view.storage.size)
        .ok()
        .and_then(|n| n.checked_mul(width))
        != Some(storage.len())
    {
        return Err(wrong(
            format!("a storage of {} elements of {width} bytes", view.storage.size),
            format!("{} bytes", storage.len()),
        ));
    }
    let (shape, strides) = (&view.shape, &view.strides);
    let n = elements(shape)
        .filter(|_| shape.len() == strides.len())
        .ok_or_else(|| {
            wrong(
                "a shape and its strides".into(),
                format!("{shape:?} and {strides:?}"),
            )
        })?;
    let bytes = bytes_of(view, n, width)
        .and_then(|part| Bytes::new(storage, part))
        .ok_or_else(|| {
            wrong(
                format!("a view inside of {} elements", view.storage.size),
                format!("offset {}, shape {shape:?}, strides {strides:?}", view.offset),
            )
        })?;
    // Strides of 0 make a large tensor of few bytes: fine for a mask, not for filling the memory.
    if n.saturating_mul(width) > bytes.len().max(MOST_EXPANDED) {
        return Err(wrong(
            format!("at most {MOST_EXPANDED} bytes of repeated elements"),
            format!("shape {shape:?}, strides {strides:?}"),
        ));
    }
    let contiguous = n == 0 || is_contiguous(shape, strides);
    Ok(Entry {
        info: TensorInfo {
            shape: shape.clone(),
            kind,
            file: path.to_path_buf(),
        },
        bytes,
        strides: (!contiguous).then(|| strides.clone()),
    })
}

/// The bytes from a view's first element to its last, in its storage; none when strides are negative or overflow.
fn bytes_of(view: &TensorView, n: usize, width: usize) -> Option<Range<usize>> {
    let first = usize::try_from(view.offset).ok()?;
    let mut end = first;
    if n > 0 {
        for (d, stride) in view.shape.iter().zip(&view.strides) {
            let steps = usize::try_from(*d).ok()?.checked_sub(1)?;
            end = end.checked_add(steps.checked_mul(usize::try_from(*stride).ok()?)?)?;
        }
        end = end.checked_add(1)?;
    }
    Some(first.checked_mul(width)?..end.checked_mul(width)?)
}

fn is_contiguous(shape: &[i64], strides: &[i64]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(d, stride)| {
        let fits = *d == 1 || *stride == expected;
        expected *= d;
        fits
    })
}

/// Storage classes and their dtypes.
const CLASSES: [(&str, Kind); 10] = [
    ("DoubleStorage", Kind::Double),
    ("FloatStorage", Kind::Float),
    ("HalfStorage", Kind::Half),
    ("BFloat16Storage", Kind::BFloat16),
    ("LongStorage", Kind::Int64),
    ("IntStorage", Kind::Int),
    ("ShortStorage", Kind::Int16),
    ("CharStorage", Kind::Int8),
    ("ByteStorage", Kind::Uint8),
    ("BoolStorage", Kind::Bool),
];

fn kind(class: &str) -> Option<Kind> {
    CLASSES.iter().find(|(c, _)| *c == class).map(|(_, k)| *k)
}

/// The storage class of a dtype.
pub(super) fn class(kind: Kind) -> Option<&'static str> {
    CLASSES.iter().find(|(_, k)| *k == kind).map(|(c, _)| *c)
}
