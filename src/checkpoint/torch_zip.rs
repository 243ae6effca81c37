//! Files of `torch.save` in their zip form.

use super::archive::{elements, map, Archive, Bytes, Entry, TensorInfo};
use super::pickle::{self, TensorView};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use memmap2::Mmap;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use tch::Kind;

/// The largest pickle that is believed: names and sizes, no data.
const MOST_PICKLE: u64 = 256 << 20;
/// A compressed storage may unpack to at most this many times the file.
const MOST_RATIO: u64 = 64;

/// The tensors of a `.pt` file under dotted paths; a top-level `model_state_dict` or `state_dict` is unwrapped.
pub(super) fn open(path: &Path) -> Result<Archive> {
    let bytes = map(path)?;
    let wrong = |key: &str, expected: &str, found: String| Error::checkpoint(path, key, expected, found);
    if !bytes.starts_with(b"PK") {
        return Err(wrong("file", "a zip file of torch.save", "another format".into()).hint(
            "older torch.save files are converted by torch.save(torch.load(path), path) in PyTorch 1.6 or newer",
        ));
    }
    let mut zip = zip::ZipArchive::new(Cursor::new(&bytes[..]))
        .map_err(|e| wrong("zip", "a whole zip file", e.to_string()).hint("a file that was cut short?"))?;
    let pkl = zip
        .file_names()
        .find(|n| *n == "data.pkl" || n.ends_with("/data.pkl"))
        .map(str::to_owned)
        .ok_or_else(|| wrong("data.pkl", "torch.save's pickle", "no such entry".into()))?;
    let folder = pkl.trim_end_matches("data.pkl").to_owned();
    let mut text = Vec::new();
    {
        let entry = zip.by_name(&pkl).map_err(|e| wrong(&pkl, "a readable entry", e.to_string()))?;
        if entry.size() > MOST_PICKLE {
            return Err(wrong(&pkl, "at most 256 MiB", format!("{} bytes", entry.size())));
        }
        entry
            .take(MOST_PICKLE)
            .read_to_end(&mut text)
            .map_err(|e| wrong(&pkl, "a readable entry", e.to_string()))?;
    }
    let pickle = pickle::read(&text).map_err(|e| wrong(&pkl, "a pickle of tensors", e))?;
    let top = ["model_state_dict", "state_dict"]
        .iter()
        .find_map(|k| pickle.entry(k))
        .unwrap_or(&pickle.root);
    let mut views: Vec<(String, TensorView)> = Vec::new();
    let mut note = |name: String, view: &TensorView| {
        let copy = TensorView {
            storage: view.storage.clone(),
            offset: view.offset,
            shape: view.shape.clone(),
            strides: view.strides.clone(),
        };
        views.push((name, copy));
    };
    pickle
        .tensors(top, &mut note)
        .map_err(|e| wrong(&pkl, "a pickle of tensors", e))?;
    let mut storages: IndexMap<String, Bytes> = IndexMap::new();
    let mut unpacked = 0u64;
    let mut archive = Archive::default();
    for (name, view) in views {
        let key = &view.storage.key;
        if !storages.contains_key(key) {
            let entry = format!("{folder}data/{key}");
            let found = storage(&mut zip, &bytes, &entry, &mut unpacked)
                .map_err(|e| wrong(&name, "the bytes of its storage", format!("{entry}: {e}")))?;
            storages.insert(key.clone(), found);
        }
        let entry = check(path, &name, &view, &storages[key])?;
        if archive.entries.insert(name.clone(), entry).is_some() {
            return Err(wrong(&name, "each name once", "it twice".into()));
        }
    }
    Ok(archive)
}

type Zip<'a> = zip::ZipArchive<Cursor<&'a [u8]>>;

/// The bytes of a storage: in the map where they are stored plainly, unpacked where they are not.
fn storage(zip: &mut Zip, map: &Arc<Mmap>, name: &str, unpacked: &mut u64) -> Result<Bytes, String> {
    let entry = zip.by_name(name).map_err(|e| e.to_string())?;
    let (start, size) = (entry.data_start() as usize, entry.size());
    if entry.compression() == zip::CompressionMethod::Stored {
        let end = start.checked_add(size as usize).filter(|e| *e <= map.len());
        let end = end.ok_or_else(|| format!("{size} bytes from {start} in a file of {}", map.len()))?;
        return Ok(Bytes::Mapped(map.clone(), start..end));
    }
    *unpacked = unpacked.saturating_add(size);
    let most = (map.len() as u64).saturating_mul(MOST_RATIO);
    if *unpacked > most {
        return Err(format!("{size} bytes when unpacked, past {MOST_RATIO} times the file"));
    }
    let mut all = Vec::new();
    entry.take(size).read_to_end(&mut all).map_err(|e| e.to_string())?;
    Ok(Bytes::Held(Arc::new(all)))
}

/// A view that lies inside of its storage, whole.
fn check(path: &Path, name: &str, view: &TensorView, bytes: &Bytes) -> Result<Entry> {
    let wrong = |expected: String, found: String| Error::checkpoint(path, name, expected, found);
    let kind = kind(&view.storage.class)
        .ok_or_else(|| wrong("a storage of numbers".into(), view.storage.class.clone()))?;
    let have = bytes.as_slice().len() / kind.elt_size_in_bytes();
    if view.storage.size != have as i64 || view.shape.len() != view.strides.len() {
        return Err(wrong(
            format!("a storage of {} elements", view.storage.size),
            format!("{have} elements"),
        ));
    }
    let n = elements(&view.shape).ok_or_else(|| wrong("a shape".into(), format!("{:?}", view.shape)))?;
    // Strides may repeat elements; what is read out is bounded by the storage all the same.
    if n > have.max(1) {
        return Err(wrong(format!("at most {have} elements"), format!("shape {:?}", view.shape)));
    }
    let last = view
        .shape
        .iter()
        .zip(&view.strides)
        .try_fold(view.offset, |at, (d, s)| {
            if *s < 0 {
                return None;
            }
            at.checked_add((d - 1).max(0).checked_mul(*s)?)
        });
    let inside = view.offset >= 0 && (n == 0 || last.is_some_and(|l| (l as u64) < have as u64));
    if !inside {
        return Err(wrong(
            format!("a view inside of {have} elements"),
            format!("offset {}, shape {:?}, strides {:?}", view.offset, view.shape, view.strides),
        ));
    }
    let info = TensorInfo {
        shape: view.shape.clone(),
        kind,
        file: path.to_path_buf(),
    };
    Ok(Entry {
        info,
        bytes: bytes.clone(),
        view: Some((view.offset, view.strides.clone())),
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
