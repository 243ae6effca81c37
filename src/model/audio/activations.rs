//! What an encoder's forward pass leaves in memory.

/// Bytes of an encoder's forward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Activations {
    /// Kept for the backward pass.
    pub kept: f64,
    /// Kept where blocks are computed again: their inputs.
    pub inputs: f64,
    /// The largest block's.
    pub largest: f64,
}
