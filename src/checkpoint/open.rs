//! Opening tensors of any form: which one it is, and who reads that. A folder opens the files that it names in the same way.

use super::archive::Archive;
use super::{folder, foreign, safetensors, torch_open};
use crate::error::{Error, Result};
use std::path::Path;

impl Archive {
    /// Opens `.safetensors`, a file of `torch.save` (`.pt`, `.pth`, `.bin`, `.ckpt`), or a folder: a Hugging
    /// Face model folder, or `safe_ckpt/` with its `metadata.json`.
    ///
    /// The tensors of a `torch.save` file bear the dotted paths of its nested dictionaries; of a training checkpoint only
    /// the model is taken ([`super::TorchFile::model`]): [`super::open_torch`] gives the rest.
    ///
    /// # Errors
    /// A file that is missing, cut short, or whose sizes do not agree; a pickle with anything but tensors and plain
    /// values; an index that names a file or tensor that is not there; a format of another tool.
    pub fn open(path: &Path) -> Result<Self> {
        let kind = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if kind.is_dir() {
            return folder::open(path);
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => safetensors::open(path),
            Some("pt" | "pth" | "bin" | "ckpt") => torch_open::open(path)?.model(),
            _ => Err(foreign::file(path).unwrap_or_else(|| {
                Error::checkpoint(
                    path,
                    "file name",
                    "one that ends in .safetensors, .pt, .pth, .bin or .ckpt",
                    path.display().to_string(),
                )
            })),
        }
    }
}
