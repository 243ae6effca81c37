//! Tensors whose values are places in another one.

use crate::error::{Error, Result};
use std::path::Path;
use tch::Tensor;

/// That a tensor's values are places in a table of so many rows: libtorch stops at one that is none.
pub(super) fn places(tensor: &Tensor, rows: i64, file: &Path, name: &str) -> Result<()> {
    let wrong = tensor.lt(0).logical_or(&tensor.ge(rows));
    match i64::try_from(wrong.any())? {
        0 => Ok(()),
        _ => {
            let expected = format!("places from 0 to {}", rows - 1);
            Err(Error::checkpoint(file, name, expected, "others"))
        }
    }
}
