//! From manifests to batches of plain arrays. No tensor in here.
//!
//! | file | what |
//! |---|---|
//! | `item`, `manifest`, `json`, `lines`, `shards`, `samples`, `tar` | what is asked about which sound: JSON, JSON lines, tar shards |
//! | `open`, `kinds` | what a file is, and which of these reads it |
//! | `fields`, `python`, `problems`, `files` | what other tools write into them, what is wrong there, how many are open |
//! | `blend`, `numpy` | the reference's shares and shuffles |
//! | `order`, `bucket` | an epoch's batches for a rank, from a cursor on |
//! | `feed`, `nearby` | an item's clip, mel and tokens; what is there under nearly its name |
//! | `loader`, `skips` | batches on threads, and what happens to bad items |
//! | `pack` | shards of sound that is ready to be heard |
//! | `doctor` | what is wrong with manifests and audio |

pub mod blend;
pub mod bucket;
pub mod doctor;
pub mod feed;
mod fields;
mod files;
pub mod item;
mod json;
mod kinds;
mod lines;
pub mod loader;
pub mod manifest;
mod nearby;
pub mod numpy;
mod open;
pub mod order;
pub(crate) mod pack;
mod problems;
mod python;
mod samples;
pub mod shards;
pub mod skips;
mod tar;
