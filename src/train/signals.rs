//! SIGTERM saves and ends, SIGUSR1 saves and goes on: what Slurm and a patient user send.

use crate::dist::Ranks;
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// What signals have come.
pub struct Signals {
    stop: Arc<AtomicBool>,
    save: Arc<AtomicBool>,
}

/// What they ask for.
pub struct Asked {
    pub stop: bool,
    pub save: bool,
}

impl Signals {
    pub fn listen() -> Result<Self> {
        let flag = |signal: i32| {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal, flag.clone())
                .map_err(|e| Error::io(format!("signal {signal}"), e))?;
            Ok::<_, Error>(flag)
        };
        Ok(Signals {
            stop: flag(signal_hook::consts::SIGTERM)?,
            save: flag(signal_hook::consts::SIGUSR1)?,
        })
    }

    /// What any rank was asked since the last time: a scheduler may tell only some of them, and not in the same step.
    pub fn asked(&self, ranks: &Ranks) -> Result<Asked> {
        let take = |flag: &AtomicBool| f64::from(u8::from(flag.swap(false, Ordering::SeqCst)));
        let mut all = [take(&self.stop), take(&self.save)];
        ranks.max(&mut all)?;
        Ok(Asked {
            stop: all[0] > 0.0,
            save: all[1] > 0.0,
        })
    }
}
