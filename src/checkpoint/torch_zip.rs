//! The zip form of `torch.save`'s files.

use super::bytes::{Source, Storage};
use super::pickle;
use super::torch_file::{self, Builder, TorchFile};
use super::zip_entry::{entry, most_unpacked, stored_range, Zip, MOST_RATIO, NO_CRC};
use crate::error::{Error, Result};
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

/// The largest pickle that is believed: names and sizes, no data.
const MOST_PICKLE: u64 = 64 << 20;

pub(super) fn open(path: &Path, bytes: &Arc<Source>) -> Result<TorchFile> {
    let wrong = |key: &str, expected: &str, found: String| Error::checkpoint(path, key, expected, found);
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
    let text = entry(&mut zip, bytes, &pkl, MOST_PICKLE).map_err(|e| unreadable(&pkl, e))?;
    let order = format!("{folder}byteorder");
    if zip.index_for_name(&order).is_some() {
        let order_text = entry(&mut zip, bytes, &order, 16).map_err(|e| unreadable(&order, e))?;
        if order_text != b"little" {
            return Err(wrong(
                &order,
                "little",
                String::from_utf8_lossy(&order_text).into_owned(),
            ));
        }
    }
    let contents = pickle::read(&text)
        .and_then(|p| p.contents())
        .map_err(|e| torch_file::unreadable(path, &pkl, e))?;
    let mut file = Builder::new(path);
    for (name, view) in &contents.tensors {
        file.add(name, view, || {
            let at = format!("{folder}data/{}", view.storage.key);
            storage(&mut zip, bytes, &at).map_err(|e| format!("{at}: {e}"))
        })?;
    }
    Ok(file.finish(contents.plain))
}

/// The bytes of a storage: in the map where they are stored plainly, unpacked later where they are not.
fn storage(zip: &mut Zip, source: &Arc<Source>, name: &str) -> Result<Arc<Storage>, String> {
    let entry = zip.by_name(name).map_err(|e| e.to_string())?;
    let size = entry.size();
    if entry.compression() == zip::CompressionMethod::Stored {
        let crc = Some(entry.crc32()).filter(|c| *c != NO_CRC);
        return stored_range(&entry)
            .and_then(|range| Storage::plain(source, range, crc))
            .ok_or_else(|| format!("{size} bytes in a file of {}", source.len()));
    }
    if size > most_unpacked(source) {
        return Err(format!(
            "{size} bytes when unpacked, past {MOST_RATIO} times the file"
        ));
    }
    Ok(Storage::packed(source, name, size as usize))
}
