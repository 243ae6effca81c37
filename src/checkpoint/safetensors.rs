//! safetensors files, mapped; written tensor by tensor.

use super::archive::{elements, map, Archive, Bytes, Entry, TensorInfo};
use crate::error::{Error, Result};
use ::safetensors::{Dtype, SafeTensors};
use std::cmp::Reverse;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Tensor data starts at a multiple of this, so that mapped tensors are aligned for every kernel.
const ALIGNMENT: usize = 64;
/// Bytes that are copied off the device at once.
const PIECE: usize = 64 << 20;

pub(super) fn open(path: &Path) -> Result<Archive> {
    let bytes = map(path)?;
    // The crate bounds the header (100 MB) and checks that offsets are in order, without holes, fit the shapes and
    // end at the file's end.
    let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| {
        Error::checkpoint(
            path,
            "header",
            "a safetensors header that fits the file",
            e.to_string(),
        )
        .hint("a file that was cut short? Download or copy it again")
    })?;
    let whole = Bytes::Mapped(bytes.clone(), 0..bytes.len());
    let start = header + size_of::<u64>();
    let mut archive = Archive::new(path);
    for name in metadata.offset_keys() {
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
            .and_then(|(from, to)| whole.part(from..to))
            .filter(|b| Some(b.len()) == size);
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

/// Writes tensors of any device, atomically and without a second copy of them all.
///
/// `metadata` is the header's own (`format: pt` is what transformers asks for). In the file, wide dtypes come before
/// narrow ones and otherwise the order is `tensors`': so each tensor is aligned to its own width, which PyTorch's
/// reader needs.
///
/// # Errors
/// A dtype that the format lacks, a name given twice, a disk that is full.
pub fn write(path: &Path, tensors: &[(String, Tensor)], metadata: &[(&str, &str)]) -> Result<()> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        let own: serde_json::Map<_, _> = metadata
            .iter()
            .map(|(k, v)| (k.to_string(), (*v).into()))
            .collect();
        header.insert("__metadata__".into(), own.into());
    }
    let mut ordered = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let found = if tensor.defined() {
            format!("{:?}", tensor.kind())
        } else {
            "no tensor".into()
        };
        let dtype = Some(tensor).filter(|t| t.defined()).and_then(|t| dtype(t.kind()));
        let dtype =
            dtype.ok_or_else(|| Error::checkpoint(path, name, "a dtype that safetensors knows", found))?;
        ordered.push((name, tensor, dtype, tensor.kind().elt_size_in_bytes()));
    }
    ordered.sort_by_key(|(.., width)| Reverse(*width));
    let mut offset = 0usize;
    for (name, tensor, dtype, width) in &ordered {
        let size = tensor.numel() * width;
        let entry = serde_json::json!({"dtype": dtype, "shape": tensor.size(), "data_offsets": [offset, offset + size]});
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
    crate::fsutil::write_atomic(path, |out| {
        let io = |e| Error::io(path, e);
        out.write_all(&(text.len() as u64).to_le_bytes()).map_err(io)?;
        out.write_all(&text).map_err(io)?;
        let mut buffer = Vec::new();
        for (_, tensor, _, width) in &ordered {
            let flat = tensor.detach().f_contiguous()?.f_view(-1)?;
            let (n, step) = (flat.numel(), PIECE / width);
            for from in (0..n).step_by(step) {
                let count = step.min(n - from);
                let piece = flat
                    .f_narrow(0, from as i64, count as i64)?
                    .f_to_device(Device::Cpu)?;
                buffer.resize(count * width, 0);
                piece.f_copy_data_u8(&mut buffer, count)?;
                out.write_all(&buffer).map_err(io)?;
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
