//! Ranks that work each on its own for a long time: a thread of each keeps in touch with the others, so that one that is gone ends
//! them within seconds, and none waits for another before all have finished.

use super::left::LEFT;
use super::{message, Ranks};
use crate::error::{Error, Result};
use crate::ffi::c10d::{ProcessGroup, Reduce};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the ranks tell each other how far they are.
const PACE: Duration = Duration::from_millis(500);

/// While it lives, the ranks share nothing else.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    /// None of one process.
    thread: Option<JoinHandle<Result<()>>>,
    finished: Option<Sender<()>>,
}

struct Shared {
    done: AtomicU64,
    /// Of all ranks, as they last said.
    all: AtomicU64,
    /// The others are lost.
    alone: AtomicBool,
    moved: Mutex<Instant>,
}

impl Ranks {
    /// Begins to keep in touch. All ranks must. One that does not [move](Watch::moved) for the timeout is counted as gone.
    pub(crate) fn watch(&self) -> Watch {
        let shared = Arc::new(Shared {
            done: AtomicU64::new(0),
            all: AtomicU64::new(0),
            alone: AtomicBool::new(false),
            moved: Mutex::new(Instant::now()),
        });
        let (send, receive) = mpsc::channel();
        let thread = self.group.clone().filter(|_| self.many()).map(|group| {
            let (own, place, timeout) = (shared.clone(), (self.rank, self.world), self.timeout);
            std::thread::spawn(move || {
                let result = own.keep_in_touch(&group, place, timeout, &receive);
                own.alone.store(result.is_err(), Ordering::SeqCst);
                result
            })
        });
        Watch {
            shared,
            thread,
            finished: Some(send),
        }
    }
}

impl Shared {
    fn keep_in_touch(
        &self,
        group: &ProcessGroup,
        (rank, world): (usize, usize),
        timeout: Duration,
        finished: &mpsc::Receiver<()>,
    ) -> Result<()> {
        let mut own = false;
        loop {
            let mut told = [self.done.load(Ordering::SeqCst) as f64, f64::from(u8::from(own))];
            message(group, (rank, world), &mut told, 2, Reduce::Sum)?;
            self.all.store(told[0] as u64, Ordering::SeqCst);
            if told[1] as usize == world {
                return Ok(());
            }
            if own {
                std::thread::sleep(PACE / 5);
                continue;
            }
            // The sender goes when this rank's work ends without having finished.
            match finished.recv_timeout(PACE) {
                Ok(()) => own = true,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let moved = *self.moved.lock().unwrap_or_else(PoisonError::into_inner);
            if !own && moved.elapsed() > timeout {
                // The others hear nothing from here any more.
                return Err(Error::Ranks {
                    message: format!("rank {rank}: nothing has moved for {} s", timeout.as_secs()),
                    hint: Some("train.timeout is how long one thing may take".into()),
                });
            }
        }
    }
}

impl Watch {
    /// Says how much this rank has done; returns how much all have.
    ///
    /// # Errors
    /// A rank that is gone.
    pub(crate) fn moved(&mut self, done: u64) -> Result<u64> {
        self.shared.done.store(done, Ordering::SeqCst);
        *self.shared.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if self.thread.is_none() {
            return Ok(done);
        }
        if self.shared.alone.load(Ordering::SeqCst) {
            self.end()?;
        }
        Ok(self.shared.all.load(Ordering::SeqCst))
    }

    /// This rank has done its part: waits until all have, telling `each` now and then how much they have done.
    ///
    /// # Errors
    /// A rank that is gone.
    pub(crate) fn finish(mut self, each: impl Fn(u64)) -> Result<()> {
        if let Some(finished) = self.finished.take() {
            let _ = finished.send(());
        }
        while self.thread.as_ref().is_some_and(|t| !t.is_finished()) {
            each(self.shared.all.load(Ordering::SeqCst));
            std::thread::sleep(PACE / 10);
        }
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(e))) => Err(e),
            Some(Err(_)) => Err(Error::Ranks {
                message: "the thread that keeps in touch with the other ranks ended in a fault".into(),
                hint: None,
            }),
        }
    }
}

impl Drop for Watch {
    /// Not finished: its thread may still wait for ranks that are gone.
    fn drop(&mut self) {
        if self.thread.is_some() {
            LEFT.store(true, Ordering::SeqCst);
        }
    }
}
