//! Files of `torch.save` in their zip form.

use super::archive::{elements, map, Archive, Bytes, Entry, TensorInfo};
use super::pickle::{self, TensorView};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use memmap2::Mmap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tch::Kind;

/// The largest pickle that is believed: names and sizes, no data.
const MOST_PICKLE: u64 = 64 << 20;
/// A compressed storage may unpack to at most this many times the file. `torch.save` compresses nothing.
const MOST_RATIO: u64 = 64;
/// Bytes that a view which repeats elements (`expand`) may grow to.
const MOST_EXPANDED: usize = 64 << 20;

type Zip<'a> = zip::ZipArchive<Cursor<&'a [u8]>>;

/// The tensors of a `.pt` file under dotted paths; a top-level `model_state_dict` or `state_dict` is unwrapped.
pub(super) fn open(path: &Path) -> Result<Archive> {
    let bytes = map(path)?;
    let wrong = |key: &str, expected: &str, found: String| Error::checkpoint(path, key, expected, found);
    if !bytes.starts_with(b"PK") {
        return Err(
            wrong("file", "a zip file of torch.save", "another format".into()).hint(
                "cut short, or from before PyTorch 1.6? Convert such a file in Python: \
             torch.save(torch.load(path, weights_only=True), path)",
            ),
        );
    }
    let mut zip: Zip = zip::ZipArchive::new(Cursor::new(&bytes[..]))
        .map_err(|e| wrong("zip", "a whole zip file", e.to_string()).hint("a file that was cut short?"))?;
    // One folder holds everything: `archive/data.pkl`, `archive/data/0`, …
    let pkl = zip
        .file_names()
        .find(|n| n.split_once('/').map_or(*n, |(_, rest)| rest) == "data.pkl")
        .map(str::to_owned)
        .ok_or_else(|| wrong("data.pkl", "torch.save's pickle", "no such entry".into()))?;
    let folder = pkl.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    let unreadable = |key: &str, e: String| wrong(key, "a readable entry", e);
    let text = entry(&mut zip, &pkl, MOST_PICKLE).map_err(|e| unreadable(&pkl, e))?;
    let order = format!("{folder}byteorder");
    if zip.index_for_name(&order).is_some() {
        let order_text = entry(&mut zip, &order, 16).map_err(|e| unreadable(&order, e))?;
        if order_text != b"little" {
            return Err(wrong(
                &order,
                "little",
                String::from_utf8_lossy(&order_text).into_owned(),
            ));
        }
    }
    let a_pickle = "a pickle of tensors and plain values";
    let pickle = pickle::read(&text).map_err(|e| wrong(&pkl, a_pickle, e))?;
    let top = ["model_state_dict", "state_dict"]
        .iter()
        .find_map(|k| pickle.entry(k))
        .unwrap_or(&pickle.root);
    let views = pickle.tensors(top).map_err(|e| wrong(&pkl, a_pickle, e))?;
    let mut storages: IndexMap<&str, Bytes> = IndexMap::new();
    let mut archive = Archive::new(path);
    for (name, view) in &views {
        let key = view.storage.key.as_str();
        let bytes = match storages.get(key) {
            Some(found) => found,
            None => {
                let at = format!("{folder}data/{key}");
                let found = storage(&mut zip, &bytes, &at)
                    .map_err(|e| wrong(name, "the bytes of its storage", format!("{at}: {e}")))?;
                storages.entry(key).or_insert(found)
            }
        };
        let entry = place(path, name, view, bytes)?;
        if archive.entries.insert(name.clone(), entry).is_some() {
            return Err(wrong(name, "each name once", "it twice".into()));
        }
    }
    Ok(archive)
}

/// An entry's whole content, of at most `most` bytes.
fn entry(zip: &mut Zip, name: &str, most: u64) -> Result<Vec<u8>, String> {
    let entry = zip.by_name(name).map_err(|e| e.to_string())?;
    let size = entry.size();
    if size > most {
        return Err(format!("{size} bytes, at most {most} are read"));
    }
    let mut all = Vec::new();
    entry
        .take(most)
        .read_to_end(&mut all)
        .map_err(|e| e.to_string())?;
    if all.len() as u64 != size {
        return Err(format!("{} bytes of {size}", all.len()));
    }
    Ok(all)
}

/// The bytes of a storage: in the map where they are stored plainly, unpacked later where they are not.
fn storage(zip: &mut Zip, map: &Arc<Mmap>, name: &str) -> Result<Bytes, String> {
    let entry = zip.by_name(name).map_err(|e| e.to_string())?;
    let (start, size) = (entry.data_start(), entry.size());
    if entry.compression() == zip::CompressionMethod::Stored {
        let past = || format!("{size} bytes from {start} in a file of {}", map.len());
        let end = start
            .checked_add(size)
            .filter(|e| *e <= map.len() as u64)
            .ok_or_else(past)?;
        return Ok(Bytes::Mapped(map.clone(), start as usize..end as usize));
    }
    if size > most_unpacked(map) {
        return Err(format!(
            "{size} bytes when unpacked, past {MOST_RATIO} times the file"
        ));
    }
    Ok(Bytes::Packed(map.clone(), name.into(), 0..size as usize))
}

fn most_unpacked(map: &Mmap) -> u64 {
    (map.len() as u64).saturating_mul(MOST_RATIO)
}

/// A part of a compressed entry, unpacked.
pub(super) fn unpack(map: &Mmap, name: &str, part: Range<usize>) -> Result<Vec<u8>, String> {
    let mut zip: Zip = zip::ZipArchive::new(Cursor::new(&map[..])).map_err(|e| e.to_string())?;
    let mut all = entry(&mut zip, name, most_unpacked(map))?;
    if part.end > all.len() {
        return Err(format!("{} bytes when unpacked", all.len()));
    }
    all.truncate(part.end);
    all.drain(..part.start);
    Ok(all)
}

/// Where a view lies, when it lies whole inside of its storage.
fn place(path: &Path, name: &str, view: &TensorView, storage: &Bytes) -> Result<Entry> {
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
        .and_then(|part| storage.part(part))
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

fn kind(class: &str) -> Option<Kind> {
    Some(match class {
        "DoubleStorage" => Kind::Double,
        "FloatStorage" => Kind::Float,
        "HalfStorage" => Kind::Half,
        "BFloat16Storage" => Kind::BFloat16,
        "LongStorage" => Kind::Int64,
        "IntStorage" => Kind::Int,
        "ShortStorage" => Kind::Int16,
        "CharStorage" => Kind::Int8,
        "ByteStorage" => Kind::Uint8,
        "BoolStorage" => Kind::Bool,
        _ => return None,
    })
}
