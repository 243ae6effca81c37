//! What schedulers, terminals and patient users send. SIGTERM, SIGHUP and the first SIGINT save and end, SIGUSR1 saves and goes
//! on; a second SIGINT ends at once.

use crate::dist::{launch::INTERRUPTED, Ranks};
use crate::error::{Error, Result};
use crate::ffi;
use libc::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, iterator};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// A second SIGINT that comes sooner is the first once more: `timeout` sends it to a process and then to its group.
const TWICE: Duration = Duration::from_millis(30);

/// What signals have come.
pub(crate) struct Signals {
    stop: Arc<AtomicBool>,
    save: Arc<AtomicBool>,
    /// Nobody asks any more: signals do what they do to any program.
    over: Arc<AtomicBool>,
}

/// What they ask for.
pub(crate) struct Asked {
    pub stop: bool,
    pub save: bool,
}

impl Signals {
    /// Listens until it is dropped. `tells`: this rank says what it has heard.
    pub(crate) fn listen(tells: bool) -> Result<Self> {
        let failed = |signal: i32| move |e| Error::io(format!("signal {signal}"), e);
        let off = || Arc::new(AtomicBool::new(false));
        let (stop, save, over, armed) = (off(), off(), off(), off());
        let mut ending = vec![SIGTERM, SIGINT];
        // Under nohup a closed terminal ends nothing.
        if !ffi::ignores(SIGHUP) {
            ending.push(SIGHUP);
        }
        for signal in ending.iter().chain([&SIGUSR1]) {
            flag::register_conditional_default(*signal, over.clone()).map_err(failed(*signal))?;
        }
        flag::register_conditional_shutdown(SIGINT, INTERRUPTED, armed.clone()).map_err(failed(SIGINT))?;
        for signal in &ending {
            flag::register(*signal, stop.clone()).map_err(failed(*signal))?;
        }
        flag::register(SIGUSR1, save.clone()).map_err(failed(SIGUSR1))?;
        let mut come = iterator::Signals::new(&ending).map_err(failed(SIGTERM))?;
        let heard = move || {
            let mut told = !tells;
            for signal in come.forever() {
                let name = match signal {
                    SIGINT => "SIGINT",
                    SIGHUP => "SIGHUP",
                    _ => "SIGTERM",
                };
                if !told {
                    crate::say!("{name}: the step in work is finished and saved, then the run ends; SIGINT once more ends it at once");
                }
                told = true;
                if signal == SIGINT {
                    std::thread::sleep(TWICE);
                    armed.store(true, Ordering::SeqCst);
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".into()).spawn(heard);
        thread.map_err(|e| Error::io("a thread for signals", e))?;
        Ok(Signals { stop, save, over })
    }

    /// What any rank was asked since the last time: a scheduler may tell only some of them, and not in the same step.
    pub(crate) fn asked(&self, ranks: &Ranks) -> Result<Asked> {
        let take = |flag: &AtomicBool| f64::from(u8::from(flag.swap(false, Ordering::SeqCst)));
        let mut all = [take(&self.stop), take(&self.save)];
        ranks.max(&mut all)?;
        Ok(Asked {
            stop: all[0] > 0.0,
            save: all[1] > 0.0,
        })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}
