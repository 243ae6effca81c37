//! safetensors files, mapped; written tensor by tensor.

use super::archive::{elements, map, Archive, Bytes, Entry, TensorInfo};
use crate::error::{Error, Result};
use ::safetensors::{Dtype, SafeTensors};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Tensor data starts at a multiple of this, so that mapped tensors are aligned for every kernel.
const ALIGNMENT: usize = 64;
/// Bytes that are copied off the device at once.
const PIECE: usize = 64 << 20;

pub(super) fn open(path: &Path) -> Result<Archive> {
    let bytes = map(path)?;
    let wrong = |found: String| {
        Error::checkpoint(path, "header", "a safetensors header that fits the file", found)
            .hint("a file that was cut short? Download or copy it again")
    };
    let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(e.to_string()))?;
    // The crate checks that offsets are in order, without holes, and end at the buffer's end.
    SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
    let start = header + 8;
    let mut archive = Archive::default();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        let kind = kind(info.dtype).ok_or_else(|| {
            Error::checkpoint(path, &name, "a dtype that libtorch computes with", format!("{:?}", info.dtype))
        })?;
        let shape: Vec<i64> = info.shape.iter().map(|d| *d as i64).collect();
        let (from, to) = (start + info.data_offsets.0, start + info.data_offsets.1);
        let size = elements(&shape).and_then(|n| n.checked_mul(kind.elt_size_in_bytes()));
        if size != to.checked_sub(from) || to > bytes.len() {
            return Err(Error::checkpoint(
                path,
                &name,
                format!("{size:?} bytes for shape {shape:?}"),
                format!("bytes {from}..{to} of {}", bytes.len()),
            ));
        }
        let entry = Entry {
            info: TensorInfo {
                shape,
                kind,
                file: path.to_path_buf(),
            },
            bytes: Bytes::Mapped(bytes.clone(), from..to),
            view: None,
        };
        archive.entries.insert(name, entry);
    }
    Ok(archive)
}

/// Writes tensors of any device, atomically and without a second copy of them all.
/// `metadata` is the header's own (`format: pt` is what transformers asks for).
pub fn write(path: &Path, tensors: &[(String, Tensor)], metadata: &[(&str, &str)]) -> Result<()> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        let own: serde_json::Map<_, _> = metadata.iter().map(|(k, v)| (k.to_string(), (*v).into())).collect();
        header.insert("__metadata__".into(), own.into());
    }
    let mut offset = 0usize;
    for (name, tensor) in tensors {
        let dtype = dtype(tensor.kind()).ok_or_else(|| {
            Error::checkpoint(path, name, "a dtype that safetensors knows", format!("{:?}", tensor.kind()))
        })?;
        let size = tensor.numel() * tensor.kind().elt_size_in_bytes();
        let entry = serde_json::json!({"dtype": dtype, "shape": tensor.size(), "data_offsets": [offset, offset + size]});
        if header.insert(name.clone(), entry).is_some() {
            return Err(Error::checkpoint(path, name, "each name once", "it twice"));
        }
        offset += size;
    }
    let mut text = serde_json::to_vec(&header).map_err(|e| Error::checkpoint(path, "header", "JSON", e.to_string()))?;
    // Spaces may follow the header: they move the data to an aligned place.
    text.resize(text.len() + (ALIGNMENT - (text.len() + 8) % ALIGNMENT) % ALIGNMENT, b' ');
    crate::fsutil::write_atomic(path, |out| {
        let io = |e| Error::io(path, e);
        out.write_all(&(text.len() as u64).to_le_bytes()).map_err(io)?;
        out.write_all(&text).map_err(io)?;
        let mut buffer = Vec::new();
        for (_, tensor) in tensors {
            let flat = tensor.detach().contiguous().view(-1);
            let width = tensor.kind().elt_size_in_bytes();
            let step = (PIECE / width.max(1)) as i64;
            let mut from = 0;
            while from < flat.numel() as i64 {
                let piece = flat.narrow(0, from, step.min(flat.numel() as i64 - from)).to_device(Device::Cpu);
                buffer.resize(piece.numel() * width, 0);
                piece.f_copy_data_u8(&mut buffer, piece.numel())?;
                out.write_all(&buffer).map_err(io)?;
                from += step;
            }
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
