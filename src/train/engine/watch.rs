//! What a run says about itself: loss, rates, norms, gates, speed, memory, and where the time went.
//!
//! Everything stays on the device until a step that is logged; only then does the host wait for it.

use super::record::{At, Recorder};
use super::skipped::{Micro, Skipped};
use super::steps::{MicroStep, Stepped, Steps};
use crate::error::Result;
use crate::ffi::kernels;
use crate::progress::Progress;
use crate::recipe::{LossMean, Recipe};
use crate::train::job::{Batch, Job, Size};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// A micro-step that is not read yet.
struct Unread {
    step: usize,
    loss: Tensor,
    weight: f64,
    items: Vec<String>,
}

/// Watches a job.
pub(crate) struct Watch {
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
    /// Its events go to `record`.
    pub(crate) fn new<J: Job>(record: Option<Recorder>, recipe: &Recipe, steps: &Steps<J>) -> Self {
        let most = steps.job.optim().steps;
        let progress = Progress::new(&format!("{}: train", steps.job.name()), most as u64);
        progress.resume(steps.done as u64);
        Watch {
            record,
            progress,
            every: match recipe.train.log_every {
                0 => log_every(most),
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
    pub(crate) fn logs(&self, step: usize) -> bool {
        step.is_multiple_of(self.every) || step == self.steps
    }

    /// Steps between two log entries.
    pub(crate) fn every(&self) -> usize {
        self.every
    }

    /// Notes a micro-step; none where this rank had no item.
    pub(crate) fn micro_step<J: Job>(
        &mut self,
        steps: &Steps<J>,
        done: Option<(&Batch<J::Input>, &MicroStep)>,
    ) {
        let Some((batch, micro)) = done else {
            let loss = Tensor::zeros([0i64; 0], (Kind::Float, steps.job.device()));
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
                LossMean::Tokens => micro.counted as f64,
                LossMean::MeanOfMeans => f64::from(u8::from(micro.counted > 0)),
            },
            items: batch.items.clone(),
        });
        self.size.add(&batch.size);
        self.flops += steps.job.operations(batch);
    }

    /// Notes a step, and logs where it is time to. All ranks come together for that.
    ///
    /// # Errors
    /// Too many steps in a row that were skipped; a disk that is full, a run's folder that is gone.
    pub(crate) fn step<J: Job>(
        &mut self,
        steps: &mut Steps<J>,
        done: &Stepped,
        skipped_items: usize,
    ) -> Result<()> {
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
                record.record(at(i + 1), &loss, false)?;
            }
            let values: Vec<(&str, f64)> = values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
            record.record(at(done.micro_steps), &values, true)?;
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
    fn describe<J: Job>(
        &self,
        values: &mut Vec<(String, f64)>,
        steps: &mut Steps<J>,
        done: &Stepped,
        (made, counts): (usize, &[f64]),
    ) -> Result<()> {
        values.push(("learning_rate".into(), done.learning_rate));
        values.extend(own_rates(steps, done.learning_rate));
        let norms = std::iter::once(&done.grad_norm).chain(done.by_part.iter().map(|(_, n)| n));
        let norms = numbers(norms)?;
        let names = std::iter::once("grad_norm".to_owned())
            .chain(done.by_part.iter().map(|(part, _)| format!("grad_norm/{part}")));
        values.extend(names.zip(norms));
        let watched = steps.job.watched();
        let read = numbers(watched.iter().map(|(_, t)| t))?;
        values.extend(watched.into_iter().map(|(name, _)| name).zip(read));
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        let [items, windows, window_places, text, text_places, skipped, flops] = counts else {
            return Ok(());
        };
        let share = |real: &f64, places: &f64| 1.0 - real / places;
        let rate = flops / seconds / 1e12;
        let (heard, told) = (*window_places > 0.0, *text_places > 0.0);
        for (name, there, value) in [
            ("steps_per_second", true, made as f64 / seconds),
            ("items_per_second", true, items / seconds),
            ("tokens_per_second", told, text / seconds),
            ("windows_per_second", heard, windows / seconds),
            ("tflops_per_second", *flops > 0.0, rate),
            ("padding/windows", heard, share(windows, window_places)),
            ("padding/tokens", told, share(text, text_places)),
            ("skipped_items", true, *skipped),
            ("skipped_steps", true, self.skipped.all() as f64),
        ] {
            if there {
                values.push((name.into(), value));
            }
        }
        if let Some(peak) = steps.train.peak_tflops.filter(|_| *flops > 0.0) {
            values.push(("mfu".into(), rate / (peak * steps.ranks.world as f64)));
        }
        let (now, peak) = memory(steps.job.device());
        values.push(("memory_mib".into(), now));
        values.push(("memory_peak_mib".into(), peak));
        let phases = steps.clock.read();
        values.extend(phases.into_iter().map(|(n, v)| (n.to_owned(), v)));
        Ok(())
    }

    /// Whether the last step that was looked at moved the weights by numbers.
    pub(crate) fn sound(&self) -> bool {
        self.skipped.sound()
    }

    /// Notes a validation.
    pub(crate) fn validated<J: Job>(&mut self, steps: &Steps<J>, values: &[(String, f64)]) -> Result<()> {
        let at = At {
            step: steps.done as u64,
            micro_step: Some(self.micro_steps as u64),
            epoch: Some(steps.cursor.epoch),
        };
        let values: Vec<(&str, f64)> = values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        // The time it took is nobody's step's.
        self.since = Instant::now();
        match &mut self.record {
            Some(record) if !values.is_empty() => record.record(at, &values, true),
            _ => Ok(()),
        }
    }

    /// Before something is written that lasts.
    ///
    /// # Errors
    /// A run's folder that is gone.
    pub(crate) fn still_there(&self) -> Result<()> {
        self.record.as_ref().map_or(Ok(()), Recorder::still_there)
    }

    /// # Errors
    /// No step moved the weights; a run's folder that is gone.
    pub(crate) fn finish(mut self) -> Result<()> {
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
fn own_rates<J: Job>(steps: &Steps<J>, rate: f64) -> Vec<(String, f64)> {
    let mut all: Vec<(String, f64)> = Vec::new();
    for group in steps.optimizer.groups().iter().filter(|g| g.rate != 1.0) {
        let name = format!("learning_rate/{}", group.name.as_deref().unwrap_or_default());
        // One that is two, as some of its weights decay, has one rate.
        if all.iter().all(|(known, _)| *known != name) {
            all.push((name, rate * group.rate));
        }
    }
    all
}

/// A hundred points make a curve.
pub(crate) fn log_every(steps: usize) -> usize {
    (steps / 100).max(1)
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
