//! Checkpoint files of all kinds as one thing: named tensors, read when they are asked for.
//!
//! ```text
//! x.safetensors ──────────┐
//! x.pt (zip of torch.save)┤
//! Hugging Face folder ────┼─► Archive (names, shapes, places) ─► names::canonical ─► get(name): a tensor
//! safe_ckpt/ ─────────────┘
//! ```
//!
//! A file from outside is believed in nothing: sizes are checked against the bytes that are there before memory
//! is asked for, and a pickle is read as data, never run.

mod archive;
mod folder;
pub mod names;
mod pickle;
mod released;
mod safetensors;
mod torch_zip;

pub use archive::{Archive, Clash, TensorInfo};
pub use released::{open_released, write_released, ReleasedFolder};
pub use safetensors::write as write_safetensors;

#[cfg(test)]
mod tests;
