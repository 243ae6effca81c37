//! The model: one architecture a file. It says its sizes, what of them cannot be and how they are read off a checkpoint, what
//! it costs, and the pass itself; `flamingo`, `bounds` and `cost` join them.
//!
//! Parameters bear the checkpoint's names, so that a key can be searched to its line.

pub mod audio;
pub mod audio_transformer;
pub mod bounds;
pub mod clap;
pub mod cost;
pub mod cross_attention;
pub mod flamingo;
pub mod input;
pub mod layers;
pub mod lm;
pub mod mode;
pub mod params;
pub mod parts;
pub mod presets;
pub mod text;
