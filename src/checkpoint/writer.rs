//! A thread that writes, so that training goes on meanwhile.

use crate::error::{Error, Result};
use std::thread::{self, JoinHandle};

/// Writes one thing at a time in the background.
#[derive(Default)]
pub(crate) struct Writer {
    running: Option<JoinHandle<Result<()>>>,
}

impl Writer {
    /// Starts `write` on a thread. What was started before is waited for first, so that no more than one snapshot
    /// waits in memory.
    ///
    /// # Errors
    /// Those of the write before; then `write` is not started.
    pub(crate) fn start(&mut self, write: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        self.wait()?;
        let thread = thread::Builder::new()
            .name("checkpoint".into())
            .spawn(write)
            .map_err(|e| failed(e.to_string()))?;
        self.running = Some(thread);
        Ok(())
    }

    /// Waits for the last write.
    ///
    /// # Errors
    /// Those of the write.
    pub(crate) fn wait(&mut self) -> Result<()> {
        match self.running.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(failed("its thread panicked".into())),
        }
    }
}

impl Drop for Writer {
    /// A run that ends by an error elsewhere still finishes the checkpoint that it was writing.
    fn drop(&mut self) {
        if let Err(e) = self.wait() {
            crate::say!("error: the last checkpoint was not written: {e}");
        }
    }
}

fn failed(reason: String) -> Error {
    Error::Training {
        message: format!("a checkpoint could not be written: {reason}"),
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn start_returns_before_the_write_is_done_and_errors_come_with_the_next() {
        let mut writer = Writer::default();
        let (go, wait) = mpsc::channel::<()>();
        writer
            .start(move || {
                wait.recv().map_err(|_| failed("no go".into()))?;
                Err(Error::Mismatch("the disk is full".into()))
            })
            .unwrap();
        // Only now may the write go on: start() did not wait for it.
        go.send(()).unwrap();
        let e = writer.start(|| Ok(())).unwrap_err();
        assert_eq!(e.to_string(), "the disk is full");
        writer.start(|| panic!("on purpose")).unwrap();
        assert!(writer.wait().unwrap_err().to_string().contains("panicked"));
        writer.wait().unwrap();
    }
}
