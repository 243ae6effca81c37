//! Manifests, the order of items, and batches of plain arrays. No tensor in here.

pub mod blend;
pub mod bucket;
pub mod doctor;
pub mod feed;
pub mod manifest;
pub mod numpy;
pub mod skips;
