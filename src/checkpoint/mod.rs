//! Checkpoint files of all kinds as one thing: named tensors, read when they are asked for.
//!
//! ```text
//! x.safetensors ────────────┐
//! x.pt (torch.save, 2 forms)┤                                                      ┌► a model
//! Hugging Face folder ──────┼─► Archive (names, shapes, places) ─► canonical ──────┤
//! safe_ckpt/ ───────────────┘                                                      └► Items ─► any of the four
//! ```
//!
//! A file from outside is believed in nothing: sizes are checked against the bytes that are there before memory
//! is asked for, and a pickle is read as data, never run.

mod archive;
mod bytes;
mod diff;
mod folder;
mod foreign;
mod from_bytes;
pub mod hugging_face;
mod item;
mod keep;
mod legacy;
mod model_of;
pub mod names;
mod open;
mod pickle;
mod released;
mod safetensors;
mod torch_file;
mod torch_open;
mod torch_write;
mod torch_zip;
pub mod training;
mod writer;
mod zip_entry;

pub use archive::{Archive, Clash, TensorInfo};
pub use diff::{diff, Difference, Unlike};
pub use from_bytes::{read_bytes, Format};
pub use item::{items, items_of, Item};
pub use keep::numbered;
pub(crate) use keep::{file_name, Keep};
pub use model_of::canonical;
pub(crate) use model_of::named;
pub use pickle::Plain;
pub(crate) use released::clap_file;
pub use released::{open_parts, open_released, write_released, Parts, ReleasedFolder};
pub use safetensors::write as write_safetensors;
pub use torch_file::TorchFile;
pub use torch_open::open as open_torch;
pub use torch_write::{write as write_torch, Key, Node};
pub(crate) use writer::Writer;

#[cfg(test)]
mod tests;
