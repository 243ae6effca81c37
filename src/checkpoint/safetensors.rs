//! safetensors files, mapped; written tensor by tensor with a checksum for each.

use super::archive::{elements, Archive, Entry, TensorInfo};
use super::bytes::{Bytes, Source, Storage};
use super::item::Item;
use crate::error::{Error, Result};
use ::safetensors::{Dtype, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;
use tch::Kind;

/// Tensor data starts at a multiple of this, so that mapped tensors are aligned for every kernel.
const ALIGNMENT: usize = 64;
/// Our key in the header's metadata: CRC-32 of each tensor's bytes, eight hexadecimal digits each, in the order in
/// which the tensors lie in the file. Other readers leave it aside.
const CHECKSUMS: &str = "crc32";

pub(super) fn open(path: &Path) -> Result<Archive> {
    parse(path, Source::open(path)?)
}

/// [`open`] of bytes at hand; `path` names them in errors.
pub(super) fn parse(path: &Path, bytes: Arc<Source>) -> Result<Archive> {
    let bad_header = |e: String| {
        Error::checkpoint(path, "header", "a safetensors header that fits the file", e)
            .hint("a file that was cut short? Download or copy it again")
    };
    // The crate bounds the header (100 MB) and checks that offsets are in order, without holes, fit the shapes and
    // end at the file's end.
    let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| bad_header(e.to_string()))?;
    let start = header + size_of::<u64>();
    // It keeps the last of two equal names; we refuse both.
    let text = bytes.get(size_of::<u64>()..start).unwrap_or_default();
    serde_json::Deserializer::from_slice(text)
        .deserialize_map(DistinctKeys)
        .map_err(|e| bad_header(e.to_string()))?;
    let names = metadata.offset_keys();
    let checksums = checksums(metadata.metadata().as_ref(), names.len())
        .map_err(|e| Error::checkpoint(path, CHECKSUMS, "eight hexadecimal digits for each tensor", e))?;
    let mut archive = Archive::new(path);
    for (i, name) in names.into_iter().enumerate() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        let kind = kind(info.dtype).ok_or_else(|| {
            Error::checkpoint(
                path,
                &name,
                "a dtype that libtorch computes with",
                format!("{:?}", info.dtype),
            )
        })?;
        let shape: Vec<i64> = info
            .shape
            .iter()
            .map(|d| i64::try_from(*d).unwrap_or(-1))
            .collect();
        let size = elements(&shape).and_then(|n| n.checked_mul(kind.elt_size_in_bytes()));
        let (from, to) = info.data_offsets;
        // Believed once more, here: what follows copies by these numbers.
        let place = start
            .checked_add(from)
            .zip(start.checked_add(to))
            .and_then(|(from, to)| Storage::plain(&bytes, from..to, checksums.get(i).copied()))
            .filter(|s| Some(s.len()) == size)
            .and_then(|s| Bytes::new(&s, 0..s.len()));
        let Some(place) = place else {
            return Err(Error::checkpoint(
                path,
                &name,
                format!("the bytes of shape {shape:?}"),
                format!("data_offsets [{from}, {to}]"),
            ));
        };
        let entry = Entry {
            info: TensorInfo {
                shape,
                kind,
                file: path.to_path_buf(),
            },
            bytes: place,
            strides: None,
        };
        archive.entries.insert(name, entry);
    }
    Ok(archive)
}

/// Fails at a key that a JSON object has twice.
struct DistinctKeys;

impl<'de> Visitor<'de> for DistinctKeys {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "an object with distinct keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
            if let Some(twice) = seen.replace(key) {
                return Err(serde::de::Error::custom(format!("the key {twice:?} twice")));
            }
        }
        Ok(())
    }
}

/// None in files that are not ours.
fn checksums(metadata: Option<&HashMap<String, String>>, tensors: usize) -> Result<Vec<u32>, String> {
    let Some(text) = metadata.and_then(|m| m.get(CHECKSUMS)) else {
        return Ok(Vec::new());
    };
    if !text.is_ascii() || text.len() != 8 * tensors {
        return Err(format!("{} characters for {tensors} tensors", text.len()));
    }
    (0..tensors)
        .map(|i| u32::from_str_radix(&text[8 * i..8 * (i + 1)], 16).map_err(|e| e.to_string()))
        .collect()
}

/// Writes tensors of any device, atomically and without a second copy of them all, with their checksums.
///
/// `metadata` is the header's own (`format: pt` is what transformers asks for). In the file, wide dtypes come before
/// narrow ones and otherwise the order is `tensors`': so each tensor is aligned to its own width, which PyTorch's
/// reader needs.
///
/// # Errors
/// A dtype that the format lacks, a name given twice, a disk that is full.
pub fn write(path: &Path, tensors: &[(String, Item)], metadata: &[(&str, &str)]) -> Result<()> {
    let mut header = serde_json::Map::new();
    let mut own: serde_json::Map<_, _> = metadata
        .iter()
        .map(|(k, v)| (k.to_string(), (*v).into()))
        .collect();
    // A stand-in of the right length: the checksums are known when the tensors are written.
    let unknown = "0".repeat(8 * tensors.len());
    own.insert(CHECKSUMS.into(), unknown.as_str().into());
    header.insert("__metadata__".into(), own.into());
    let mut ordered = Vec::with_capacity(tensors.len());
    for (name, item) in tensors {
        let found = item
            .info()
            .map_err(|found| Error::checkpoint(path, name, "a tensor", found))?;
        let dtype = dtype(found.1).ok_or_else(|| {
            Error::checkpoint(
                path,
                name,
                "a dtype that safetensors knows",
                format!("{:?}", found.1),
            )
        })?;
        ordered.push((name, item, found.0, dtype, found.1.elt_size_in_bytes()));
    }
    ordered.sort_by_key(|(.., width)| Reverse(*width));
    let mut offset = 0usize;
    for (name, _, shape, dtype, width) in &ordered {
        let size = elements(shape).unwrap_or(0) * width;
        let entry =
            serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]});
        if header.insert(name.to_string(), entry).is_some() {
            return Err(Error::checkpoint(path, *name, "each name once", "it twice"));
        }
        offset += size;
    }
    let mut text =
        serde_json::to_vec(&header).map_err(|e| Error::checkpoint(path, "header", "JSON", e.to_string()))?;
    // Spaces may follow the header: they move the data to an aligned place.
    text.resize(
        (text.len() + size_of::<u64>()).next_multiple_of(ALIGNMENT) - size_of::<u64>(),
        b' ',
    );
    // It is the header's first text of this length, before any tensor's name.
    let place = text
        .windows(unknown.len().max(1))
        .position(|w| w == unknown.as_bytes())
        .unwrap_or(0);
    crate::fsutil::write_atomic(path, |out| {
        let io = |e| Error::io(path, e);
        out.write_all(&(text.len() as u64).to_le_bytes()).map_err(io)?;
        out.write_all(&text).map_err(io)?;
        let mut found = String::with_capacity(unknown.len());
        for (_, item, ..) in &ordered {
            let mut hash = crc32fast::Hasher::new();
            item.bytes(|piece| {
                hash.update(piece);
                out.write_all(piece).map_err(io)
            })?;
            found.push_str(&format!("{:08x}", hash.finalize()));
        }
        if !found.is_empty() {
            let at = (size_of::<u64>() + place) as u64;
            out.seek(SeekFrom::Start(at)).map_err(io)?;
            out.write_all(found.as_bytes()).map_err(io)?;
        }
        Ok(())
    })
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

fn dtype(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Double => "F64",
        Kind::Float => "F32",
        Kind::Half => "F16",
        Kind::BFloat16 => "BF16",
        Kind::Int64 => "I64",
        Kind::Int => "I32",
        Kind::Int16 => "I16",
        Kind::Int8 => "I8",
        Kind::Uint8 => "U8",
        Kind::Bool => "BOOL",
        _ => return None,
    })
}
