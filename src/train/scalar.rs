//! Scalars of a step, on the host.

use crate::error::Result;
use tch::Tensor;

/// A scalar on the host: waits for the device.
pub fn number(t: &Tensor) -> Result<f64> {
    Ok(f64::try_from(t.to_kind(tch::Kind::Double))?)
}
