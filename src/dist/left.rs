//! How a process ends that has left ranks behind.

use std::sync::atomic::{AtomicBool, Ordering};

/// Set where a thread or a device may still wait for ranks that are lost.
pub(super) static LEFT: AtomicBool = AtomicBool::new(false);

/// Whether the process must end at once: destructors could wait for ever.
pub fn left() -> bool {
    LEFT.load(Ordering::SeqCst)
}
