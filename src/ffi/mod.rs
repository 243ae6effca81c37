//! What tch does not reach. The only `unsafe` of the crate outside memory maps.

pub mod cuda;
