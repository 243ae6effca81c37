//! Checkpoint files of all kinds as one thing: named tensors, read when they are asked for.

mod archive;
mod folder;
pub mod names;
mod pickle;
mod safetensors;
mod torch_zip;

pub use archive::{Archive, TensorInfo};
pub use folder::{open_released, write_released, ReleasedFolder};
pub use safetensors::write as write_safetensors;

#[cfg(test)]
mod tests;
