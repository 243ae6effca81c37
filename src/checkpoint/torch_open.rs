//! Opening a file of `torch.save`, in whichever of its forms it is.

use super::bytes::Source;
use super::torch_file::TorchFile;
use super::{foreign, legacy, torch_zip};
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// Opens a file of `torch.save`, in its zip form or the legacy one. No tensor is read.
///
/// # Errors
/// A file that is missing, cut short, or whose sizes do not agree; a pickle with anything but tensors and plain
/// values: any other global is refused by its name.
pub fn open(path: &Path) -> Result<TorchFile> {
    if let Some(e) = foreign::file(path) {
        return Err(e);
    }
    parse(path, Source::open(path)?)
}

/// [`open`] of bytes at hand; `path` names them in errors.
pub(super) fn parse(path: &Path, bytes: Arc<Source>) -> Result<TorchFile> {
    if bytes.starts_with(b"PK") {
        return torch_zip::open(path, &bytes);
    }
    if legacy::is(&bytes) {
        return legacy::open(path, &bytes);
    }
    Err(Error::checkpoint(
        path,
        "file",
        "a zip or legacy file of torch.save",
        "another format",
    )
    .hint("cut short, or written by something else than torch.save?"))
}
