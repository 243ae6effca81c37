//! What a run says about itself: loss, rates, norms, gates, speed, memory, and where the time went.
//!
//! Everything stays on the device until a step that is logged; only then does the host wait for it.

use super::batch::{Batch, Size};
use super::record::{At, Recorder};
use super::skipped::{Micro, Skipped};
use super::steps::{MicroStep, Stepped, Steps};
use crate::error::Result;
use crate::ffi::kernels;
use crate::model::cost;
use crate::plan;
use crate::progress::Progress;
use crate::recipe::{LossMean, Recipe};
use std::time::Instant;
use tch::{Cuda, Device, Kind, Tensor};

/// Where a step's time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the loader.
    Data,
    /// Onto the device.
    Transfer,
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
    pub fn new(device: Device) -> Self {
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

/// A micro-step that is not read yet.
struct Unread {
    step: usize,
    loss: Tensor,
    weight: f64,
    items: Vec<String>,
}

/// Watches a stage.
pub struct Watch {
    /// Only the first rank writes.
    record: Option<Recorder>,
    progress: Progress,
    every: usize,
    steps: usize,
    /// Micro-steps of the last step.
    micro_steps: usize,
    unread: Vec<Unread>,
    skipped: Skipped,
    size: Size,
    flops: f64,
    since: Instant,
}

impl Watch {
    /// Of a recipe's stage; its events go to `record`.
    pub fn new(record: Option<Recorder>, recipe: &Recipe, steps: &Steps) -> Self {
        let most = steps.stage.optim.steps;
        let progress = Progress::new(&format!("{}: train", steps.stage.name), most as u64);
        progress.resume(steps.done as u64);
        Watch {
            record,
            progress,
            every: match recipe.train.log_every {
                0 => super::log_every(most),
                n => n,
            },
            steps: most,
            micro_steps: steps.micro_steps,
            unread: Vec::new(),
            skipped: Skipped::new(recipe, steps),
            size: Size::default(),
            flops: 0.0,
            since: Instant::now(),
        }
    }

    /// Whether the step with this number, from 1, is logged.
    pub fn logs(&self, step: usize) -> bool {
        step.is_multiple_of(self.every) || step == self.steps
    }

    /// Steps between two log entries.
    pub fn every(&self) -> usize {
        self.every
    }

    /// Notes a micro-step; none where this rank had no item.
    pub fn micro_step(&mut self, steps: &Steps, done: Option<(&Batch, &MicroStep)>) {
        let Some((batch, micro)) = done else {
            let loss = Tensor::zeros([0i64; 0], (Kind::Float, steps.model.device));
            self.unread.push(Unread {
                step: steps.done + 1,
                loss,
                weight: 0.0,
                items: Vec::new(),
            });
            return;
        };
        self.unread.push(Unread {
            step: steps.done + 1,
            loss: micro.loss.shallow_clone(),
            weight: match steps.train.loss {
                LossMean::Tokens => micro.tokens as f64,
                LossMean::MeanOfMeans => f64::from(u8::from(micro.tokens > 0)),
            },
            items: batch.items.clone(),
        });
        self.size.add(&batch.size);
        self.flops += flops(steps, batch);
    }

    /// Notes a step, and logs where it is time to. All ranks come together for that.
    ///
    /// # Errors
    /// Too many steps in a row that were skipped; a disk that is full, a run's folder that is gone.
    pub fn step(&mut self, steps: &mut Steps, done: &Stepped, skipped_items: usize) -> Result<()> {
        self.progress.inc(1);
        self.micro_steps = done.micro_steps;
        self.skipped.note(steps.done, done);
        if !self.logs(steps.done) {
            return Ok(());
        }
        let ranks = steps.ranks.clone();
        let _guarded = ranks.guarded();
        let losses = numbers(self.unread.iter().map(|u| &u.loss))?;
        let read = numbers(self.skipped.unread())?;
        let micro = (self.unread.iter().zip(&losses)).map(|(u, loss)| Micro {
            step: u.step,
            loss: *loss,
            items: &u.items,
        });
        let bad = self.skipped.take(&read, &micro.collect::<Vec<_>>())?;

        // Each micro-step's loss of the last step, and of all that are not skipped together: (sum, weight) each.
        let each = if self.every == 1 { self.unread.len() } else { 0 };
        let mut sums = vec![0.0; 2 * each + 2];
        for (i, (u, loss)) in self.unread.iter().zip(&losses).enumerate() {
            let part = [loss * u.weight, u.weight];
            let part = if u.weight == 0.0 { [0.0; 2] } else { part };
            if i < each {
                (sums[2 * i], sums[2 * i + 1]) = (part[0], part[1]);
            }
            if !bad.contains(&u.step) {
                sums[2 * each] += part[0];
                sums[2 * each + 1] += part[1];
            }
        }
        let s = &self.size;
        let counts = [
            s.items,
            s.windows,
            s.window_places,
            s.text,
            s.text_places,
            skipped_items,
        ];
        sums.extend(counts.map(|n| n as f64));
        sums.push(self.flops);
        steps.ranks.sum(&mut sums)?;
        let (losses, counts) = sums.split_at(2 * each + 2);
        // A micro-step in which no rank had an item has no loss.
        let mean = |pair: &[f64]| (pair[1] > 0.0).then(|| pair[0] / pair[1]);
        let whole = mean(&losses[2 * each..]);

        let mut values = Vec::new();
        match each.checked_sub(1) {
            None => values.extend(whole.map(|loss| ("loss".to_owned(), loss))),
            Some(last) => {
                let own = mean(&losses[2 * last..2 * last + 2]);
                values.extend(own.map(|loss| ("loss".to_owned(), loss)));
                values.extend(whole.map(|loss| ("step_loss".to_owned(), loss)));
            }
        }
        self.describe(&mut values, steps, done, (read.len(), counts))?;
        if let Some(record) = &mut self.record {
            let epoch = Some(steps.cursor.epoch);
            let at = |micro: usize| At {
                step: steps.done as u64,
                micro_step: Some(micro as u64),
                epoch,
            };
            for i in 0..each.saturating_sub(1) {
                let loss = mean(&losses[2 * i..2 * i + 2]);
                let loss: Vec<_> = loss.into_iter().map(|l| ("loss", l)).collect();
                record.record_at(at(i + 1), &loss, false)?;
            }
            let values: Vec<(&str, f64)> = values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
            record.record_at(at(done.micro_steps), &values, true)?;
        }
        let skips = match (counts[5] as usize, self.skipped.all()) {
            (0, 0) => String::new(),
            (items, 0) => format!(", {items} items skipped"),
            (0, n) => format!(", {n} steps skipped"),
            (items, n) => format!(", {items} items and {n} steps skipped"),
        };
        let loss = whole.map_or("no loss".to_owned(), |loss| format!("loss {loss:.3}"));
        self.progress.message(&format!("{loss}{skips}"));
        self.unread.clear();
        (self.size, self.flops, self.since) = (Size::default(), 0.0, Instant::now());
        Ok(())
    }

    /// Everything but the loss.
    fn describe(
        &self,
        values: &mut Vec<(String, f64)>,
        steps: &mut Steps,
        done: &Stepped,
        (made, counts): (usize, &[f64]),
    ) -> Result<()> {
        values.push(("learning_rate".into(), done.learning_rate));
        for (part, rate) in part_rates(steps, done.learning_rate) {
            values.push((format!("learning_rate/{part}"), rate));
        }
        let norms = std::iter::once(&done.grad_norm).chain(done.by_part.iter().map(|(_, n)| n));
        let norms = numbers(norms)?;
        let names = std::iter::once("grad_norm".to_owned()).chain(
            done.by_part
                .iter()
                .map(|(part, _)| format!("grad_norm/{}", part.name())),
        );
        values.extend(names.zip(norms));
        values.extend(gates(steps)?);
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        let [items, windows, window_places, text, text_places, skipped, flops] = counts else {
            return Ok(());
        };
        let share = |real: f64, places: f64| if places > 0.0 { 1.0 - real / places } else { 0.0 };
        let rate = flops / seconds / 1e12;
        for (name, value) in [
            ("steps_per_second", made as f64 / seconds),
            ("items_per_second", items / seconds),
            ("tokens_per_second", text / seconds),
            ("windows_per_second", windows / seconds),
            ("tflops_per_second", rate),
            ("padding/windows", share(*windows, *window_places)),
            ("padding/tokens", share(*text, *text_places)),
            ("skipped_items", *skipped),
            ("skipped_steps", self.skipped.all() as f64),
        ] {
            values.push((name.into(), value));
        }
        if let Some(peak) = steps.train.peak_tflops {
            values.push(("mfu".into(), rate / (peak * steps.ranks.world as f64)));
        }
        let (now, peak) = memory(steps.model.device);
        values.push(("memory_mib".into(), now));
        values.push(("memory_peak_mib".into(), peak));
        let phases = steps.clock.read();
        values.extend(phases.into_iter().map(|(n, v)| (n.to_owned(), v)));
        Ok(())
    }

    /// Whether the last step that was looked at moved the weights by numbers.
    pub fn sound(&self) -> bool {
        self.skipped.sound()
    }

    /// Notes a validation.
    pub fn validated(&mut self, steps: &Steps, values: &[(String, f64)]) -> Result<()> {
        let at = At {
            step: steps.done as u64,
            micro_step: Some(self.micro_steps as u64),
            epoch: Some(steps.cursor.epoch),
        };
        let values: Vec<(&str, f64)> = values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        // The time it took is nobody's step's.
        self.since = Instant::now();
        match &mut self.record {
            Some(record) if !values.is_empty() => record.record_at(at, &values, true),
            _ => Ok(()),
        }
    }

    /// Before something is written that lasts.
    ///
    /// # Errors
    /// A run's folder that is gone.
    pub fn still_there(&self) -> Result<()> {
        self.record.as_ref().map_or(Ok(()), Recorder::still_there)
    }

    /// # Errors
    /// No step moved the weights; a run's folder that is gone.
    pub fn finish(mut self) -> Result<()> {
        self.progress.finish("");
        if let Some(record) = &mut self.record {
            record.flush()?;
        }
        self.skipped.finish()
    }
}

/// Scalars of one device, read at once.
fn numbers<'t>(of: impl Iterator<Item = &'t Tensor>) -> Result<Vec<f64>> {
    let all: Vec<Tensor> = of.map(|t| t.to_kind(Kind::Double).reshape([1])).collect();
    match all.as_slice() {
        [] => Ok(Vec::new()),
        _ => Ok(Vec::try_from(Tensor::cat(&all, 0))?),
    }
}

/// The rates of groups that have one of their own.
fn part_rates(steps: &Steps, rate: f64) -> Vec<(&'static str, f64)> {
    let o = &steps.stage.optim;
    let own = [("clap", o.clap_rate), ("gates", o.gate_rate)];
    own.into_iter()
        .filter(|(_, r)| *r != 1.0)
        .map(|(n, r)| (n, rate * r))
        .collect()
}

/// tanh of every gate: how far the LM listens.
fn gates(steps: &Steps) -> Result<Vec<(String, f64)>> {
    let all: Vec<(String, Tensor)> = steps
        .model
        .params
        .iter()
        .filter_map(|(name, entry)| {
            let (_, rest) = name.split_once("layers.")?;
            let (layer, rest) = rest.split_once('.')?;
            let gate = rest.rsplit('.').next()?.strip_suffix("_gate")?;
            Some((format!("gate/{gate}/{layer}"), entry.tensor.detach().tanh()))
        })
        .collect();
    let values = numbers(all.iter().map(|(_, t)| t))?;
    Ok(all.into_iter().map(|(n, _)| n).zip(values).collect())
}

/// MiB in use, and the most so far: of the device's tensors, or of the process on a CPU.
fn memory(device: Device) -> (f64, f64) {
    const MIB: f64 = (1 << 20) as f64;
    if let Device::Cuda(_) = device {
        let (now, peak) = kernels::device_memory(device).unwrap_or_default();
        return (now as f64 / MIB, peak as f64 / MIB);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key));
        let number = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
        number.unwrap_or(f64::NAN) / 1024.0
    };
    (kib("VmRSS:"), kib("VmHWM:"))
}

/// Floating-point operations that the batch's forward and backward pass need; what is computed a second time to save memory
/// is none of them.
fn flops(steps: &Steps, batch: &Batch) -> f64 {
    let (s, config) = (&batch.size, &steps.model.model.config);
    let items = s.items.max(1);
    let (windows, text) = (s.window_places / items, s.text_places / items);
    let trains = plan::trains(steps.stage);
    // Of the head's states only those before counted labels.
    let all = cost::head_flops(config, batch.tokens as f64, trains)
        - cost::head_flops(config, (items * text) as f64, trains);
    let all = all + cost::train_flops(config, items, windows, text, trains, false);
    match batch.features {
        Some(_) => all - cost::forward_flops(config, items, windows, text).clap,
        None => all,
    }
}
