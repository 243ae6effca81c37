//! The entries of a zip file, each within bounds.

use std::io::{Cursor, Read};
use std::ops::Range;

/// A compressed storage may unpack to at most this many times the file. `torch.save` compresses nothing.
pub(super) const MOST_RATIO: u64 = 64;
/// What PyTorch writes where it was told to compute no checksums.
pub(super) const NO_CRC: u32 = 0;

pub(super) type Zip<'a> = zip::ZipArchive<Cursor<&'a [u8]>>;

/// An entry's whole content, of at most `most` bytes.
pub(super) fn entry(zip: &mut Zip, file: &[u8], name: &str, most: u64) -> Result<Vec<u8>, String> {
    let entry = zip.by_name(name).map_err(|e| e.to_string())?;
    let size = entry.size();
    if size > most {
        return Err(format!("{size} bytes, at most {most} are read"));
    }
    // The zip reader would take PyTorch's missing checksum for a wrong one.
    if entry.compression() == zip::CompressionMethod::Stored && entry.crc32() == NO_CRC {
        let range = stored_range(&entry).filter(|r| r.end <= file.len());
        return range
            .map(|r| file[r].to_vec())
            .ok_or_else(|| format!("{size} bytes in a file of {}", file.len()));
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

/// Where an entry that is not compressed lies.
pub(super) fn stored_range(entry: &zip::read::ZipFile<'_, Cursor<&[u8]>>) -> Option<Range<usize>> {
    let start = usize::try_from(entry.data_start()).ok()?;
    Some(start..start.checked_add(usize::try_from(entry.size()).ok()?)?)
}

pub(super) fn most_unpacked(file: &[u8]) -> u64 {
    (file.len() as u64).saturating_mul(MOST_RATIO)
}

/// A part of a compressed entry, unpacked.
pub(super) fn unpack(file: &[u8], name: &str, part: Range<usize>) -> Result<Vec<u8>, String> {
    let mut zip: Zip = zip::ZipArchive::new(Cursor::new(file)).map_err(|e| e.to_string())?;
    let mut all = entry(&mut zip, file, name, most_unpacked(file))?;
    if part.end > all.len() {
        return Err(format!("{} bytes when unpacked", all.len()));
    }
    all.truncate(part.end);
    all.drain(..part.start);
    Ok(all)
}
