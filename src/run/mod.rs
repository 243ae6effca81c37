//! What a run's folder holds: one file a format.

pub mod events;
