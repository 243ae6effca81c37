//! The readers on bytes at hand, for fuzzing and for the seeds that fuzzing left in the repository.

use super::bytes::Source;
use super::{archive::Archive, folder, safetensors, torch_open, training};
use crate::error::Result;
use std::path::Path;
use std::sync::Arc;

/// Larger tensors are not read by [`read_bytes`].
const MOST: usize = 1 << 20;

/// A reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `torch.save`, both forms, and the optimizer's state in it.
    Torch,
    /// A `.safetensors` file.
    Safetensors,
    /// `metadata.json` and `model.safetensors.index.json`.
    Index,
}

/// Reads bytes as a file of a format: headers, and every tensor of up to 1 MiB.
///
/// # Errors
/// As the readers of files. Whatever the bytes are, nothing panics.
pub fn read_bytes(format: Format, path: &Path, bytes: &[u8]) -> Result<()> {
    let source = || Arc::new(Source::Owned(bytes.to_vec()));
    match format {
        Format::Index => folder::parse_index(path, bytes),
        Format::Safetensors => read_all(&safetensors::parse(path, source())?),
        Format::Torch => {
            let file = torch_open::parse(path, source())?;
            read_all(&file.tensors)?;
            if training::has_state(&file) {
                training::read(&file)?;
            }
            Ok(())
        }
    }
}

fn read_all(archive: &Archive) -> Result<()> {
    for name in archive.names() {
        if archive.info(name).is_some_and(|i| i.bytes() <= MOST) {
            let _ = archive.get(name)?;
        }
    }
    Ok(())
}
