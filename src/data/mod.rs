//! Manifests, the order of items, and batches of plain arrays. No tensor in here.

pub mod feed;
pub mod manifest;
