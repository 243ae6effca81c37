//! A thread that looks after this rank's work on its GPU. A reduction there waits for all ranks without end, and so does the host
//! that waits for the GPU: where a rank is gone, somebody must give the reduction up.

use crate::error::Result;
use crate::ffi::kernels::Mark;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tch::Device;

/// How long the device may still work on what is queued before the last step counts as not made.
const FINISH: Duration = Duration::from_secs(30);

/// Gives up what hangs.
pub(crate) struct Guardian {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    /// Since when this rank has been where it may hang.
    since: Mutex<Option<Instant>>,
    /// Behind the last whole step.
    mark: Mutex<Option<Mark>>,
    /// Whether that was reached when the rest was given up.
    given_up: Mutex<Option<bool>>,
    ended: AtomicBool,
}

/// While it lives, hanging is watched for.
pub(crate) struct Guarded<'g>(&'g State);

impl Guardian {
    /// `give_up` frees the device where one guarded stretch lasts longer than `timeout`; `begin` is the thread's first work.
    pub(crate) fn new(
        timeout: Duration,
        begin: impl FnOnce() + Send + 'static,
        give_up: impl Fn() + Send + 'static,
    ) -> Self {
        let state = Arc::new(State {
            since: Mutex::default(),
            mark: Mutex::default(),
            given_up: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let own = state.clone();
        let look = (timeout / 20).min(Duration::from_secs(1));
        let thread = std::thread::spawn(move || {
            begin();
            while !own.ended.load(Ordering::SeqCst) {
                std::thread::sleep(look);
                let hangs = lock(&own.since).is_some_and(|since| since.elapsed() > timeout);
                if hangs && lock(&own.given_up).is_none() {
                    *lock(&own.given_up) = Some(own.reached_now());
                    give_up();
                }
            }
        });
        Guardian {
            state,
            thread: Some(thread),
        }
    }

    pub(crate) fn guarded(&self) -> Guarded<'_> {
        *lock(&self.state.since) = Some(Instant::now());
        Guarded(&self.state)
    }

    /// A whole step was queued.
    pub(crate) fn mark(&self, device: Device) -> Result<()> {
        *lock(&self.state.mark) = Mark::behind(device)?;
        Ok(())
    }

    /// Whether the device has made it. Waits a little for work that is on its way.
    pub(crate) fn reached(&self) -> bool {
        let until = Instant::now() + FINISH;
        loop {
            if let Some(reached) = *lock(&self.state.given_up) {
                return reached;
            }
            if self.state.reached_now() {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl State {
    fn reached_now(&self) -> bool {
        let mark = lock(&self.mark);
        mark.as_ref().is_none_or(|m| m.reached().unwrap_or(false))
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        *lock(&self.0.since) = None;
    }
}

impl Drop for Guardian {
    /// Waits for the thread: what it could give up may go only after it.
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain values: nothing is half done after a panic.
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn only_a_stretch_that_hangs_is_given_up_and_once() {
        let given_up = Arc::new(AtomicUsize::new(0));
        let count = given_up.clone();
        let begun = Arc::new(AtomicBool::new(false));
        let begins = begun.clone();
        let guardian = Guardian::new(
            Duration::from_millis(200),
            move || begins.store(true, Ordering::SeqCst),
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            },
        );
        for _ in 0..5 {
            let _guarded = guardian.guarded();
            std::thread::sleep(Duration::from_millis(60));
        }
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(given_up.load(Ordering::SeqCst), 0);
        assert!(guardian.reached() && begun.load(Ordering::SeqCst));
        let _guarded = guardian.guarded();
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(given_up.load(Ordering::SeqCst), 1);
    }
}
