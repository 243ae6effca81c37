//! The end of all waiting: what one thread finds out stops the others.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Whether work is to end, and who waits for something else meanwhile.
#[derive(Default)]
pub(super) struct Halt {
    stopped: Mutex<bool>,
    changed: Condvar,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Halt {
    pub(super) fn stop(&self) {
        *lock(&self.stopped) = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        *lock(&self.stopped)
    }

    /// Sleeps until then; false where work is to end before.
    pub(super) fn sleep_until(&self, then: Instant) -> bool {
        let mut stopped = lock(&self.stopped);
        while !*stopped {
            let left = then.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let woken = self.changed.wait_timeout(stopped, left);
            stopped = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}
