//! A rank's random numbers: its own from the first step on, and kept with its checkpoints.

use crate::dist::Ranks;
use crate::error::Result;
use crate::ffi::kernels;
use tch::{Device, Tensor};

/// Each job and each rank draws its own random numbers.
pub(crate) fn seed(recipe: u64, job: &str, ranks: &Ranks) {
    let text = format!("{recipe} {job} {}", ranks.rank);
    let hash = blake3::hash(text.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[..8]);
    tch::manual_seed(i64::from_le_bytes(bytes) & i64::MAX);
}

/// The random numbers' state of this rank, now.
pub(crate) fn now(device: Device) -> Result<Vec<Tensor>> {
    let mut all = vec![kernels::rng_state(Device::Cpu)?];
    if device != Device::Cpu {
        all.push(kernels::rng_state(device)?);
    }
    Ok(all)
}

/// Gives back what [`now`] kept; what there is none of stays.
pub(crate) fn set(device: Device, states: &[Tensor]) -> Result<()> {
    for (device, state) in [Device::Cpu, device].into_iter().zip(states) {
        kernels::set_rng_state(device, state)?;
    }
    Ok(())
}
