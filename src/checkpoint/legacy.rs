//! The legacy form of `torch.save`'s files: pickles in a row, then each storage's length and bytes.
//!
//! magic number · protocol 1001 · system · the object · list of storage keys · for each key: i64 elements, bytes

use super::bytes::{Source, Storage};
use super::pickle::{self, Pickle};
use super::torch_file::{self, Builder, TorchFile};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// PROTO 2, LONG1 of 10 bytes: 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 14] = [
    0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
];

pub(super) fn is(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

pub(super) fn open(path: &Path, bytes: &Arc<Source>) -> Result<TorchFile> {
    let mut at = 0;
    let mut next = |what: &str| -> Result<(Pickle, usize)> {
        let rest = bytes.get(at..).unwrap_or_default();
        let pickle = pickle::read(rest).map_err(|e| torch_file::unreadable(path, what, e))?;
        at += pickle.size;
        Ok((pickle, at))
    };
    next("magic number")?;
    next("protocol")?;
    let (system, _) = next("system")?;
    let wrong = |key: &str, expected: &str, found: String| Error::checkpoint(path, key, expected, found);
    let system = system
        .contents()
        .map_err(|e| wrong("system", "plain values", e))?;
    let little = system.plain.iter().find(|(n, _)| n == "little_endian");
    if let Some((name, pickle::Plain::Bool(false))) = little {
        return Err(wrong(name, "true", "false".into()));
    }
    let (object, _) = next("object")?;
    let (keys, mut offset) = next("storage keys")?;
    let contents = object
        .contents()
        .map_err(|e| wrong("object", "tensors and plain values", e))?;
    let keys = keys
        .texts()
        .ok_or_else(|| wrong("storage keys", "a list of texts", "something else".into()))?;
    // A storage's class, and so its length in bytes, stands where the object names it.
    let widths: HashMap<&str, Option<usize>> = object
        .storages
        .iter()
        .map(|s| (s.key.as_str(), torch_file::width(&s.class)))
        .collect();
    let mut places: HashMap<&str, Range<usize>> = HashMap::new();
    for key in &keys {
        let width = widths
            .get(key.as_str())
            .copied()
            .flatten()
            .ok_or_else(|| wrong(key, "a storage of numbers that the object names", "none".into()))?;
        let range = storage(bytes, offset, width).ok_or_else(|| {
            wrong(
                key,
                "the bytes of its storage",
                format!("a file of {} bytes", bytes.len()),
            )
        })?;
        offset = range.end;
        places.insert(key, range);
    }
    let mut file = Builder::new(path);
    for (name, view) in &contents.tensors {
        file.add(name, view, || {
            places
                .get(view.storage.key.as_str())
                .and_then(|range| Storage::plain(bytes, range.clone(), None))
                .ok_or_else(|| format!("no storage {}", view.storage.key))
        })?;
    }
    Ok(file.finish(contents.plain))
}

/// The bytes after a storage's length, when they are all there.
fn storage(bytes: &[u8], offset: usize, width: usize) -> Option<Range<usize>> {
    let start = offset.checked_add(size_of::<i64>())?;
    let length = bytes
        .get(offset..start)?
        .try_into()
        .ok()
        .map(i64::from_le_bytes)?;
    let end = start.checked_add(usize::try_from(length).ok()?.checked_mul(width)?)?;
    (end <= bytes.len()).then_some(start..end)
}
