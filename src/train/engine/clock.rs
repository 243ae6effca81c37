//! Where a step's time went.

use std::time::Instant;
use tch::{Cuda, Device};

/// Where a step's time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the loader.
    Data,
    /// Onto the device.
    Transfer,
    /// The model, up to the loss.
    Forward,
    /// With the reduction that runs beside it.
    Backward,
    /// What of talking to other ranks nothing runs beside.
    Reduce,
    /// Clipping and the update.
    Optimizer,
}

const PHASES: [(Phase, &str); 6] = [
    (Phase::Data, "seconds/data"),
    (Phase::Transfer, "seconds/transfer"),
    (Phase::Forward, "seconds/forward"),
    (Phase::Backward, "seconds/backward"),
    (Phase::Reduce, "seconds/reduce"),
    (Phase::Optimizer, "seconds/optimizer"),
];

/// A stopwatch over the phases. A GPU works behind the host's back: there a step's phases are true only where the host
/// waits between them, which it does in steps that are logged.
pub struct Clock {
    device: Device,
    waits: bool,
    last: Instant,
    seconds: [f64; PHASES.len()],
    steps: usize,
}

impl Clock {
    pub(crate) fn new(device: Device) -> Self {
        Clock {
            device,
            waits: false,
            last: Instant::now(),
            seconds: [0.0; PHASES.len()],
            steps: 0,
        }
    }

    /// A step begins; `logged`: its phases will be read.
    pub fn begin(&mut self, logged: bool) {
        if matches!(self.device, Device::Cuda(_)) {
            self.waits = logged;
            (self.seconds, self.steps) = ([0.0; PHASES.len()], 0);
        }
        self.steps += 1;
        self.last = Instant::now();
    }

    /// What has passed since was this phase.
    pub fn after(&mut self, phase: Phase) {
        if let (Device::Cuda(n), true) = (self.device, self.waits) {
            Cuda::synchronize(n as i64);
        }
        let now = Instant::now();
        self.seconds[phase as usize] += (now - self.last).as_secs_f64();
        self.last = now;
    }

    /// Seconds of each phase, by step; forgets them.
    pub fn read(&mut self) -> Vec<(&'static str, f64)> {
        let steps = self.steps.max(1) as f64;
        let all = PHASES
            .iter()
            .map(|(phase, name)| (*name, self.seconds[*phase as usize] / steps));
        let all = all.collect();
        (self.seconds, self.steps) = ([0.0; PHASES.len()], 0);
        all
    }
}
