//! The ranks of a run: who they are, what they tell each other, and what happens when one is gone.
//!
//! Ranks are started by torchrun, Slurm or [`launch`], and find each other through the variables these set. On CPU they
//! talk through Gloo, on CUDA through NCCL, both libtorch's own.

pub mod launch;

use crate::error::{Error, Result};
use crate::ffi::c10d::{Meeting, ProcessGroup, Reduce, Reducer};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// How long a rank that has met an error waits for the others to say that they have, too.
const GRACE: Duration = Duration::from_secs(5);

/// This process among the others.
pub struct Ranks {
    group: Option<ProcessGroup>,
    pub rank: usize,
    pub world: usize,
    /// Number on this machine: its CUDA device.
    pub local: usize,
    /// Ranks on this machine, which share its cores.
    pub local_world: usize,
}

/// What the environment says of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub rank: usize,
    pub world: usize,
    pub local: usize,
    pub local_world: usize,
    pub host: String,
    pub port: u16,
    /// An agent hosts the store (torchrun, `af2 launch`): no rank does.
    pub agent: bool,
    /// How often the run was started again by its agent.
    pub attempt: String,
}

impl Place {
    /// torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK), else Slurm's (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID), with
    /// MASTER_ADDR and MASTER_PORT; none for a process alone.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let wrong = |name: &str, expected: &str, found: Option<String>| Error::Ranks {
            message: format!(
                "{name}: expected {expected}, found {}",
                found.map_or("nothing".into(), |v| format!("`{v}`"))
            ),
            hint: Some("torchrun, `af2 launch` and scripts/slurm.sh set what is needed".into()),
        };
        let number = |name: &str, most: usize| match variable(name) {
            None => Ok(None),
            Some(v) => match v.parse::<usize>().ok().filter(|n| *n <= most) {
                Some(n) => Ok(Some(n)),
                None => Err(wrong(name, &format!("a number to {most}"), Some(v))),
            },
        };
        const MOST: usize = 1 << 20;
        let slurm = variable("RANK").is_none();
        let (rank, world, local, beside) = match slurm {
            false => ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
            true => (
                "SLURM_PROCID",
                "SLURM_NTASKS",
                "SLURM_LOCALID",
                "SLURM_NTASKS_PER_NODE",
            ),
        };
        let Some(own) = number(rank, MOST)? else {
            return Ok(None);
        };
        let size = number(world, MOST)?;
        // A shell inside a Slurm job has its variables too, and is no rank.
        if slurm && (size.is_none_or(|n| n <= 1) || variable("SLURM_STEP_ID").is_none()) {
            return Ok(None);
        }
        let size = size
            .filter(|n| *n > own)
            .ok_or_else(|| wrong(world, &format!("a number above {rank}={own}"), variable(world)))?;
        let host = variable("MASTER_ADDR").ok_or_else(|| wrong("MASTER_ADDR", "rank 0's host", None))?;
        let port = number("MASTER_PORT", usize::from(u16::MAX))?
            .ok_or_else(|| wrong("MASTER_PORT", "a port", None))?;
        Ok(Some(Place {
            rank: own,
            world: size,
            local: number(local, MOST)?.unwrap_or(0),
            local_world: number(beside, MOST)?.unwrap_or(1).max(1),
            host,
            port: port as u16,
            agent: variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            attempt: variable("TORCHELASTIC_RESTART_COUNT")
                .or(variable("SLURM_RESTART_COUNT"))
                .unwrap_or("0".into()),
        }))
    }

    /// [`Place::of`] this process's environment.
    pub fn of_environment() -> Result<Option<Self>> {
        Place::of(|name| std::env::var(name).ok())
    }
}

impl Ranks {
    /// One process.
    pub fn alone() -> Self {
        Ranks {
            group: None,
            rank: 0,
            world: 1,
            local: 0,
            local_world: 1,
        }
    }

    /// Meets the other ranks.
    ///
    /// # Errors
    /// Not all of them came within the timeout; NCCL that is not there.
    pub fn join(place: &Place, device: Device, timeout: Duration) -> Result<Self> {
        let meeting = Meeting {
            host: place.host.clone(),
            port: place.port,
            rank: place.rank,
            world: place.world,
            serves: !place.agent && place.rank == 0,
            prefix: format!("/worker/attempt_{}/default_pg", place.attempt),
            timeout,
            cuda: match device {
                Device::Cuda(n) => Some(n),
                _ => None,
            },
        };
        let group = ProcessGroup::join(&meeting).map_err(|e| Error::Ranks {
            message: format!(
                "rank {} of {}: no meeting at {}:{} within {} s: {}",
                place.rank,
                place.world,
                place.host,
                place.port,
                timeout.as_secs(),
                short(&e.to_string()),
            ),
            hint: Some(
                "do all ranks run, and reach this address? train.timeout is how long they wait".into(),
            ),
        })?;
        Ok(Ranks {
            group: Some(group),
            rank: place.rank,
            world: place.world,
            local: place.local,
            local_world: place.local_world,
        })
    }

    /// Whether this rank writes what is written once.
    pub fn first(&self) -> bool {
        self.rank == 0
    }

    pub fn many(&self) -> bool {
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
        let all = Tensor::from_slice(values);
        lost(group.all_reduce(&[all.shallow_clone()], how))?;
        all.copy_data(values, values.len());
        Ok(())
    }

    /// Averages tensors over the ranks, in place.
    pub fn average(&self, tensors: &[Tensor]) -> Result<()> {
        let Some(group) = self.group.as_ref().filter(|_| self.many()) else {
            return Ok(());
        };
        lost(group.all_reduce(tensors, Reduce::Sum))?;
        for t in tensors {
            let _ = tch::no_grad(|| t.shallow_clone().g_mul_scalar_(1.0 / self.world as f64));
        }
        Ok(())
    }

    /// Overwrites tensors (of one device) with those of rank `from`.
    pub fn broadcast(&self, tensors: &[Tensor], from: usize) -> Result<()> {
        match self.group.as_ref().filter(|_| self.many()) {
            Some(group) => lost(group.broadcast(tensors, from)),
            None => Ok(()),
        }
    }

    /// A tensor of each rank, all of one shape.
    pub fn gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        match self.group.as_ref().filter(|_| self.many()) {
            Some(group) => Ok(lost(group.all_gather(tensor))?.unbind(0)),
            None => Ok(vec![tensor.shallow_clone()]),
        }
    }

    /// The engine that averages gradients during the backward pass; none for one process.
    pub fn reducer(&self, named: &[(String, Tensor)], bucket_mib: usize) -> Result<Option<Reducer>> {
        let Some(group) = self.group.as_ref().filter(|_| self.many()) else {
            return Ok(None);
        };
        let bytes = i64::try_from(bucket_mib << 20).unwrap_or(i64::MAX);
        lost(Reducer::new(group, named, bytes)).map(Some)
    }

    /// What an error means where there are other ranks: who is gone, or whose fault it was. Tells them ours, too. Also
    /// whether this rank is the first of those that are left after others were lost.
    pub fn explain(&self, error: Error, step: usize) -> (Error, bool) {
        let Some(group) = self.group.as_ref().filter(|_| self.many()) else {
            return (error, false);
        };
        // What was explained already stays as it is.
        let known = matches!(&error, Error::Ranks { message, .. } if !message.starts_with(LOST));
        if known || matches!(error, Error::Stopped(_)) {
            return (error, false);
        }
        let relayed = is_loss(&error);
        let kind = if relayed { "heard" } else { "own" };
        let _ = group.note(&format!("failed/{}", self.rank), &format!("{kind}: {error}"));
        if !relayed {
            return (error, false);
        }
        let _ = group.abort();
        let until = Instant::now() + GRACE;
        let mut silent: Vec<usize> = (0..self.world).filter(|r| *r != self.rank).collect();
        let mut own: Vec<String> = Vec::new();
        let mut store = true;
        while !silent.is_empty() && store && Instant::now() < until {
            silent.retain(|rank| match group.noted(&format!("failed/{rank}")) {
                Ok(Some(note)) => {
                    if let Some(why) = note.strip_prefix("own: ") {
                        own.push(format!("rank {rank}: {why}"));
                    }
                    false
                }
                Ok(None) => true,
                Err(_) => {
                    store = false;
                    true
                }
            });
            if !silent.is_empty() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let names = |ranks: &[usize]| {
            let all: Vec<String> = ranks.iter().map(|r| r.to_string()).collect();
            format!("rank{} {}", if all.len() == 1 { "" } else { "s" }, all.join(", "))
        };
        let message = match (own.is_empty(), store) {
            (false, _) => format!("rank {}, step {step}: {}", self.rank, own.join("\n")),
            (true, false) => format!(
                "rank {}, step {step}: rank 0 is gone, and with it the store that the ranks meet in",
                self.rank
            ),
            (true, true) if silent.is_empty() => {
                format!("rank {}, step {step}: the ranks lost each other", self.rank)
            }
            (true, true) => format!(
                "rank {}, step {step}: {} no longer answer{}: dead or hung",
                self.rank,
                names(&silent),
                if silent.len() == 1 { "s" } else { "" },
            ),
        };
        let error = Error::Ranks {
            message: format!("{message} ({})", short(&error.to_string())),
            hint: Some(
                "what it wrote last says why; `af2 train … --resume auto` goes on from the last checkpoint"
                    .into(),
            ),
        };
        let first = match store {
            true => (0..self.rank).all(|r| silent.contains(&r)),
            false => self.rank == 1,
        };
        (error, first)
    }

    /// Leaves without waiting for anyone: after an error a backend's farewell can hang.
    pub fn abandon(mut self) {
        std::mem::forget(self.group.take());
    }

    /// Everyone is here.
    pub fn barrier(&self) -> Result<()> {
        self.sum(&mut [0.0])
    }
}

/// Marks an error of talking to the others.
const LOST: &str = "lost contact: ";

fn lost<T>(result: std::result::Result<T, tch::TchError>) -> Result<T> {
    result.map_err(|e| Error::Ranks {
        message: format!("{LOST}{}", short(&e.to_string())),
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

/// libtorch's errors end in pages of where they come from.
fn short(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect()
}

/// A scalar tensor for counting on a device.
pub fn zero(device: Device) -> Tensor {
    Tensor::zeros([0i64; 0], (Kind::Float, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        Place::of(|name| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.to_string())
        })
    }

    #[test]
    fn torchrun_and_slurm_and_a_process_alone() {
        assert_eq!(place(&[]).unwrap(), None);
        let master = [("MASTER_ADDR", "n1"), ("MASTER_PORT", "29500")];
        let with = |own: &[(&'static str, &'static str)]| place(&[own, &master].concat());
        let torchrun = [
            ("RANK", "3"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_RANK", "1"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
            ("SLURM_PROCID", "0"),
        ];
        let p = with(&torchrun).unwrap().unwrap();
        assert_eq!(
            (p.rank, p.world, p.local, p.agent, p.attempt.as_str()),
            (3, 4, 1, true, "2")
        );
        let slurm = [
            ("SLURM_PROCID", "5"),
            ("SLURM_NTASKS", "16"),
            ("SLURM_LOCALID", "5"),
            ("SLURM_STEP_ID", "0"),
        ];
        let p = with(&slurm).unwrap().unwrap();
        assert_eq!((p.rank, p.world, p.local, p.agent), (5, 16, 5, false));
        // A shell in a job that asked for many tasks is not one of them.
        assert_eq!(with(&slurm[..3]).unwrap(), None);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (variables, expected) in [
            (
                &[("RANK", "0"), ("WORLD_SIZE", "2")][..],
                "MASTER_ADDR: expected rank 0's host",
            ),
            (
                &[("RANK", "2"), ("WORLD_SIZE", "2")],
                "WORLD_SIZE: expected a number above RANK=2, found `2`",
            ),
            (&[("RANK", "x")], "RANK: expected a number"),
            (
                &[
                    ("RANK", "0"),
                    ("WORLD_SIZE", "2"),
                    ("MASTER_ADDR", "h"),
                    ("MASTER_PORT", "99999"),
                ],
                "MASTER_PORT: expected a number to 65535",
            ),
        ] {
            let e = place(variables).unwrap_err();
            assert!(e.to_string().contains(expected), "{e}");
            assert_eq!(e.exit_code(), 11);
        }
    }
}
