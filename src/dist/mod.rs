//! The ranks of a run: who they are, what they tell each other, and what happens when one is gone.
//!
//! Ranks are started by torchrun, Slurm or `launch`, and find each other through the variables these set. On CPU they
//! talk through Gloo, on CUDA through NCCL, both libtorch's own.

mod agreement;
mod guardian;
mod join;
pub(crate) mod launch;
mod left;
pub(crate) mod machine;
mod meeting;
mod place;
mod share;
mod watch;
mod words;

pub(crate) use agreement::flatten;
pub use agreement::Facts;
pub use left::left;
pub(crate) use place::note_alone;
pub use place::Place;

use crate::error::{short, Error, Result};
use crate::ffi::c10d::{ProcessGroup, Reduce, Reducer, Store};
use crate::ffi::kernels::Mark;
use guardian::Guardian;
use left::LEFT;
use machine::{Machines, Seat};
use meeting::Table;
use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};
use words::{words, NCCL};

/// How long a rank that has met an error waits for the others to say that they have, too: at least, and at most. Between
/// these it is as long as ranks that are well may take to come together.
const GRACE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];
/// How long the store may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Numbers that go into one message; more are announced by one before.
const SHORT: usize = 14;

/// This process among the others.
pub struct Ranks {
    /// Watches over what this rank has asked of its device; goes before what it could give up.
    guardian: Option<Guardian>,
    group: Option<Arc<ProcessGroup>>,
    /// Where notes are left, and before each key what is this run's.
    store: Option<(Arc<Store>, String)>,
    /// When all ranks were last together, and the longest that they were apart.
    together: Cell<Option<Instant>>,
    apart: Cell<Duration>,
    /// This rank, from 0.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    machines: Machines,
    /// How often the ranks have compared what they go by.
    compared: Cell<usize>,
    timeout: Duration,
    /// What helps where a rank is gone.
    remedy: Cell<&'static str>,
}

impl Ranks {
    /// One process.
    pub fn alone() -> Self {
        Ranks {
            group: None,
            store: None,
            guardian: None,
            together: Cell::new(None),
            apart: Cell::default(),
            rank: 0,
            world: 1,
            machines: Machines::alone(),
            compared: Cell::default(),
            timeout: Duration::ZERO,
            remedy: Cell::new(RESUME),
        }
    }

    /// Meets the other ranks, all of which must bring the same. A rank whose device cannot be used brings its error: all must have
    /// one of the same kind before NCCL waits for them. Returns this rank's device, too.
    ///
    /// # Errors
    /// Not all of them came within the timeout; one that brings something else, by name; NCCL that is not there; the device's error
    /// where it is every rank's.
    pub fn join(
        place: &Place,
        device: Result<Device>,
        timeout: Duration,
        same: &Facts,
    ) -> Result<(Self, Device)> {
        let (met, device) = join::meet_within(place, device, timeout, same)?;
        let group = Arc::new(met.group);
        let guardian = match device {
            Device::Cuda(n) => {
                let group = group.clone();
                let begin = move || {
                    // It asks for marks: without a device of its own it would set the first GPU up, too.
                    let _ = crate::ffi::cuda::make_current(n);
                };
                // What waits for other hosts alone ends by itself before.
                Some(Guardian::new(timeout + ANSWER, begin, move || {
                    let _ = group.abort();
                }))
            }
            _ => None,
        };
        let ranks = Ranks {
            group: Some(group),
            store: Some((Arc::new(met.store), met.round)),
            guardian,
            together: Cell::new(None),
            apart: Cell::default(),
            rank: place.rank,
            world: place.world,
            machines: met.machines,
            compared: Cell::default(),
            timeout,
            remedy: Cell::new(RESUME),
        };
        Ok((ranks, device))
    }

    /// Cores that this rank keeps busy: its share of those that it may use.
    pub(crate) fn cores(&self) -> usize {
        self.machines.seats.get(self.rank).map_or(1, |s| s.cores)
    }

    /// Where each rank is.
    pub(crate) fn seats(&self) -> &[Seat] {
        &self.machines.seats
    }

    /// All ranks must have the same: `what` names it. A barrier.
    ///
    /// # Errors
    /// On all ranks: which of them differ, in which keys.
    pub(crate) fn agree(&self, what: &str, facts: &Facts) -> Result<()> {
        let Some((store, round)) = self.store.as_ref().filter(|_| self.many()) else {
            return Ok(());
        };
        let own = agreement::numbers(facts);
        let mut all: Vec<f64> = own.iter().copied().chain(own.iter().map(|n| -n)).collect();
        self.max(&mut all)?;
        let number = self.compared.replace(self.compared.get() + 1);
        let (most, least) = all.split_at(own.len());
        if most.iter().zip(least).all(|(most, least)| *most == -least) {
            return Ok(());
        }
        let (key, facts) = (format!("{round}/compared/{number}"), facts.clone());
        let (rank, world, until) = (self.rank, self.world, Instant::now() + self.timeout.min(GRACE[1]));
        let said = within(store, self.timeout.min(GRACE[1]) + ANSWER, move |store| {
            let table = Table {
                store,
                rank,
                world,
                until,
            };
            Ok(agreement::compare(table, &key, &facts).ok().flatten())
        });
        let said = said
            .flatten()
            .unwrap_or("the ranks differ, but could not say in what".into());
        Err(Error::Ranks {
            message: format!("rank {rank}: {what}: {said}"),
            hint: Some("all ranks must read the same files".into()),
        })
    }

    /// Whether this rank writes what is written once.
    pub fn first(&self) -> bool {
        self.rank == 0
    }

    /// What an error of a rank that is gone tells to do, where it is not to train on.
    pub(crate) fn remedy(&self, words: &'static str) {
        self.remedy.set(words);
    }

    /// Whether the launcher has started the run again: the same on all ranks.
    pub fn again(&self) -> bool {
        self.store
            .as_ref()
            .is_some_and(|(_, round)| meeting::is_again(round))
    }

    pub(crate) fn many(&self) -> bool {
        self.world > 1
    }

    /// Adds numbers up over the ranks, on the CPU: waits for all of them, but for no device.
    pub fn sum(&self, values: &mut [f64]) -> Result<()> {
        self.join_numbers(values, Reduce::Sum)
    }

    /// The largest of each number over the ranks.
    pub fn max(&self, values: &mut [f64]) -> Result<()> {
        self.join_numbers(values, Reduce::Max)
    }

    fn join_numbers(&self, values: &mut [f64], how: Reduce) -> Result<()> {
        let Some(group) = self.group.as_ref().filter(|_| self.many()) else {
            return Ok(());
        };
        let count = values.len();
        if count > SHORT {
            self.message(group, &mut [], count, how)?;
            let all = Tensor::from_slice(values);
            lost(group.all_reduce(&[all.shallow_clone()], how))?;
            all.copy_data(values, count);
        } else {
            self.message(group, values, count, how)?;
        }
        let now = Instant::now();
        if let Some(before) = self.together.replace(Some(now)) {
            self.apart.set(self.apart.get().max(now - before));
        }
        Ok(())
    }

    fn message(&self, group: &ProcessGroup, values: &mut [f64], count: usize, how: Reduce) -> Result<()> {
        message(group, (self.rank, self.world), values, count, how)
    }

    /// The first rank's numbers, for all.
    pub(crate) fn of_first(&self, values: &mut [f64]) -> Result<()> {
        if !self.first() {
            values.fill(0.0);
        }
        self.sum(values)
    }

    /// Overwrites tensors (of one device) with those of rank `from`.
    pub(crate) fn broadcast(&self, tensors: &[Tensor], from: usize) -> Result<()> {
        match self.group.as_ref().filter(|_| self.many()) {
            Some(group) => lost(group.broadcast(tensors, from)),
            None => Ok(()),
        }
    }

    /// A tensor of each rank, all of one shape.
    pub(crate) fn gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        match self.group.as_ref().filter(|_| self.many()) {
            Some(group) => Ok(lost(group.all_gather(tensor))?.unbind(0)),
            None => Ok(vec![tensor.shallow_clone()]),
        }
    }

    /// The engine that averages gradients during the backward pass; none for one process.
    pub(crate) fn reducer(&self, named: &[(String, Tensor)], bucket_mib: usize) -> Result<Option<Reducer>> {
        let Some(group) = self.group.as_ref().filter(|_| self.many()) else {
            return Ok(None);
        };
        let bytes = i64::try_from(bucket_mib << 20).unwrap_or(i64::MAX);
        lost(Reducer::new(group, named, bytes)).map(Some)
    }

    /// While what is returned lives, and no longer than one at a time, this rank asks something of its device that other ranks have a part in. Where it is stuck
    /// there for the timeout, because one of them is gone, it is freed: what it then computes is worth nothing.
    pub(crate) fn guarded(&self) -> Option<guardian::Guarded<'_>> {
        self.guardian.as_ref().map(Guardian::guarded)
    }

    /// Waits until the device has done what it was asked, so that nothing after has to wait for other ranks in it: before the
    /// first step, where that costs nothing. To be guarded, as it may hang.
    ///
    /// # Errors
    /// What the device says of what it was asked.
    pub(crate) fn settled(&self, device: Device) -> Result<()> {
        if let Some(mark) = Mark::behind(device)?.filter(|_| self.many()) {
            while !mark.reached()? {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// A whole step was asked of the device.
    pub(crate) fn step_queued(&self, device: Device) -> Result<()> {
        match &self.guardian {
            Some(guardian) => guardian.mark(device),
            None => Ok(()),
        }
    }

    /// Whether the device has made the last whole step, so that the weights are that step's. To be asked before
    /// [`Ranks::explain`], which gives up what it waits for.
    pub(crate) fn step_made(&self) -> bool {
        self.guardian.as_ref().is_none_or(Guardian::reached)
    }

    /// Leaves word of an error for the other ranks, and gives up what the device waits for. Whether the store took it.
    pub(crate) fn tell(&self, error: &Error) -> bool {
        let Some((store, round)) = self.store.as_ref().filter(|_| self.many()) else {
            return true;
        };
        let kind = if is_loss(error) { "heard" } else { "own" };
        let (key, note) = (
            format!("{round}/failed/{}", self.rank),
            format!("{kind}: {error}"),
        );
        let told = within(store, ANSWER, move |store| store.set(&key, &note));
        if let Some(group) = &self.group {
            let _ = group.abort();
        }
        told.is_some()
    }

    /// What an error means where there are other ranks: who is gone, or whose fault it was. Tells them ours, too. Also
    /// whether this rank is the one that should save.
    pub(crate) fn explain(&self, error: Error, step: usize) -> (Error, bool) {
        let Some((store, round)) = self.store.as_ref().filter(|_| self.many()) else {
            return (error, true);
        };
        // What was explained already stays as it is.
        let known = matches!(&error, Error::Ranks { message, .. } if !message.starts_with(LOST));
        if known || matches!(error, Error::Stopped(_)) {
            return (error, false);
        }
        let relayed = is_loss(&error);
        let told = self.tell(&error);
        if !relayed {
            return (error, self.first());
        }
        let grace = self.apart.get().saturating_mul(2).clamp(GRACE[0], GRACE[1]);
        let until = Instant::now() + grace;
        let mut silent: Vec<usize> = (0..self.world).filter(|r| *r != self.rank).collect();
        let mut own: Vec<String> = Vec::new();
        let mut answers = told;
        while !silent.is_empty() && answers && Instant::now() < until {
            let keys: Vec<String> = silent.iter().map(|r| format!("{round}/failed/{r}")).collect();
            let notes = within(store, ANSWER, move |store| {
                keys.iter()
                    .map(|k| store.get(k))
                    .collect::<std::result::Result<Vec<_>, _>>()
            });
            let Some(notes) = notes else {
                answers = false;
                break;
            };
            let mut notes = notes.into_iter();
            silent.retain(|rank| match notes.next().flatten() {
                Some(note) => {
                    if let Some(why) = note.strip_prefix("own: ") {
                        own.push(format!("rank {rank}: {why}"));
                    }
                    false
                }
                None => true,
            });
            if !silent.is_empty() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let names = |ranks: &[usize]| {
            let all: Vec<String> = ranks.iter().map(|r| r.to_string()).collect();
            format!("rank{} {}", if all.len() == 1 { "" } else { "s" }, all.join(", "))
        };
        let what = match (own.is_empty(), answers) {
            (false, _) => own.join("\n"),
            (true, false) => {
                "the store that the ranks meet in does not answer: rank 0 or its host is gone".into()
            }
            (true, true) if silent.is_empty() => "the ranks lost each other".into(),
            (true, true) => format!(
                "{} no longer answer{}: dead or hung",
                names(&silent),
                if silent.len() == 1 { "s" } else { "" },
            ),
        };
        let error = Error::Ranks {
            message: format!("rank {}, step {step}: {what} ({})", self.rank, short(&error)),
            hint: Some(
                match own.join(" ").contains("NCCL") || error.to_string().contains("NCCL") {
                    true => format!("{}; {NCCL}", self.remedy.get()),
                    false => self.remedy.get().into(),
                },
            ),
        };
        // The first that is left; where nobody can tell, the heirs: both know the same.
        let saves = match answers {
            true => (0..self.rank).all(|r| silent.contains(&r)),
            false => self.machines.heir,
        };
        (error, saves)
    }

    /// Leaves without waiting for anyone: after an error a backend's farewell can hang.
    pub(crate) fn abandon(mut self) {
        if self.guardian.is_some() {
            LEFT.store(true, Ordering::SeqCst);
        }
        std::mem::forget((self.group.take(), self.guardian.take(), self.store.take()));
    }

    /// Everyone is here.
    pub(crate) fn barrier(&self) -> Result<()> {
        self.sum(&mut [0.0])
    }
}

/// One message of a fixed length, as Gloo ends the process where they differ. Two of its numbers show whether all ranks mean
/// `count`.
fn message(
    group: &ProcessGroup,
    (rank, world): (usize, usize),
    values: &mut [f64],
    count: usize,
    how: Reduce,
) -> Result<()> {
    let n = count as f64;
    let mut all = [0.0; SHORT + 2];
    all[..values.len()].copy_from_slice(values);
    (all[SHORT], all[SHORT + 1]) = match how {
        Reduce::Sum => (n, n * n),
        Reduce::Max => (n, -n),
    };
    let message = Tensor::from_slice(&all);
    lost(group.all_reduce(&[message.shallow_clone()], how))?;
    message.copy_data(&mut all, SHORT + 2);
    let (first, second) = (all[SHORT], all[SHORT + 1]);
    let same = match how {
        // Of numbers with this sum the squares' sum is least where all are equal.
        Reduce::Sum => first * first == world as f64 * second,
        Reduce::Max => first == -second,
    };
    if !same {
        return Err(Error::Ranks {
            message: format!(
                "rank {rank}: the ranks are not at the same place: this one has {count} numbers to share, another has not"
            ),
            hint: Some("do all read the same files, and run the same program?".into()),
        });
    }
    values.copy_from_slice(&all[..values.len()]);
    Ok(())
}

/// Asks the store; none where it fails, or does not answer: its host may be frozen, and a request has no timeout of its own.
fn within<T: Send + 'static>(
    store: &Arc<Store>,
    limit: Duration,
    ask: impl FnOnce(&Store) -> std::result::Result<T, tch::TchError> + Send + 'static,
) -> Option<T> {
    let (send, receive) = mpsc::channel();
    let store = store.clone();
    std::thread::spawn(move || {
        let _ = send.send(ask(&store));
    });
    receive.recv_timeout(limit).ok()?.ok()
}

/// What helps where a rank is gone.
const RESUME: &str =
    "what it wrote last says why; `af2 train … --resume auto` goes on from the last checkpoint";

/// Marks an error of talking to the others.
const LOST: &str = "lost contact: ";

fn lost<T>(result: std::result::Result<T, tch::TchError>) -> Result<T> {
    result.map_err(|e| Error::Ranks {
        message: format!("{LOST}{}", words(&e)),
        hint: None,
    })
}

/// Whether an error comes from another rank's end: one of talking to it, or libtorch's inside a backward pass.
fn is_loss(error: &Error) -> bool {
    let text = error.to_string();
    let signs = [
        "Connection",
        "Timed out",
        "NCCL",
        "Gloo",
        "gloo",
        "Socket",
        "Broken pipe",
    ];
    match error {
        Error::Ranks { .. } => true,
        Error::Torch(_) => signs.iter().any(|s| text.contains(s)),
        _ => false,
    }
}

/// A scalar tensor for counting on a device.
pub(crate) fn zero(device: Device) -> Tensor {
    Tensor::zeros([0i64; 0], (Kind::Float, device))
}

#[cfg(test)]
mod tests;
