//! From manifests to batches of plain arrays. No tensor in here.
//!
//! | file | what |
//! |---|---|
//! | `item`, `manifest`, `shards` | what is asked about which sound: JSON, JSON lines, tar shards |
//! | `blend`, `numpy` | the reference's shares and shuffles |
//! | `order`, `bucket` | an epoch's batches for a rank, from a cursor on |
//! | `feed` | an item's clip, mel and tokens |
//! | `loader`, `skips` | batches on threads, and what happens to bad items |
//! | `pack` | shards of sound that is ready to be heard |
//! | `doctor` | what is wrong with manifests and audio |

pub mod blend;
pub mod bucket;
pub mod doctor;
pub mod feed;
pub mod item;
pub mod loader;
pub mod manifest;
pub mod numpy;
pub mod order;
pub mod pack;
pub mod shards;
pub mod skips;
