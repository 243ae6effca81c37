//! What a launcher's variables say of this process.

use crate::error::{Error, Result};
use std::net::{IpAddr, Ipv4Addr};

/// What the environment says of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number among all ranks, from 0.
    pub rank: usize,
    /// How many ranks there are.
    pub world: usize,
    /// Its number on this machine: which GPU it takes.
    pub local: usize,
    /// Where the ranks meet.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// An agent hosts the store (torchrun, `af2 launch`): no rank does.
    pub agent: bool,
    /// Whether its agent has started the run again.
    pub again: bool,
}

/// Variables in which a launcher numbers what it starts.
struct Launcher {
    name: &'static str,
    rank: &'static str,
    /// How many there are, in the first of these that is set.
    world: &'static [&'static str],
    local: &'static [&'static str],
}

const TORCH: Launcher = Launcher {
    name: "torchrun",
    rank: "RANK",
    world: &["WORLD_SIZE"],
    local: &["LOCAL_RANK"],
};

/// `srun`. A shell inside a job has the job's numbers, but the step of its own is of one task.
const SLURM: Launcher = Launcher {
    name: "Slurm",
    rank: "SLURM_PROCID",
    world: &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"],
    local: &["SLURM_LOCALID"],
};

/// The others. MPI starts its helpers with Slurm where it can, whose numbers are then not the ranks': these are asked first.
const OTHERS: &[Launcher] = &[
    Launcher {
        name: "Open MPI",
        rank: "OMPI_COMM_WORLD_RANK",
        world: &["OMPI_COMM_WORLD_SIZE"],
        local: &["OMPI_COMM_WORLD_LOCAL_RANK"],
    },
    Launcher {
        name: "MVAPICH2",
        rank: "MV2_COMM_WORLD_RANK",
        world: &["MV2_COMM_WORLD_SIZE"],
        local: &["MV2_COMM_WORLD_LOCAL_RANK"],
    },
    Launcher {
        name: "MVAPICH",
        rank: "MVP_COMM_WORLD_RANK",
        world: &["MVP_COMM_WORLD_SIZE"],
        local: &["MVP_COMM_WORLD_LOCAL_RANK"],
    },
    Launcher {
        name: "Spectrum MPI (jsrun)",
        rank: "JSM_NAMESPACE_RANK",
        world: &["JSM_NAMESPACE_SIZE"],
        local: &["JSM_NAMESPACE_LOCAL_RANK"],
    },
    Launcher {
        name: "Horovod",
        rank: "HOROVOD_RANK",
        world: &["HOROVOD_SIZE"],
        local: &["HOROVOD_LOCAL_RANK"],
    },
    Launcher {
        name: "Flux",
        rank: "FLUX_TASK_RANK",
        world: &["FLUX_JOB_SIZE"],
        local: &["FLUX_TASK_LOCAL_ID"],
    },
    // MPICH, Intel MPI and Cray's launcher.
    Launcher {
        name: "MPI (PMI)",
        rank: "PMI_RANK",
        world: &["PMI_SIZE"],
        local: &["MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID"],
    },
];

/// MPI's newest interface names a rank, but says how many there are only to a library of its own.
const PMIX: &str = "PMIX_RANK";

const MOST: usize = 1 << 20;
const HINT: &str =
    "torchrun, `af2 launch` and scripts/slurm.sh set what is needed; one process alone needs none of it";

impl Place {
    /// torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK), else MPI's, else Slurm's, with MASTER_ADDR and MASTER_PORT; none
    /// for a process alone.
    ///
    /// # Errors
    /// Half of what a rank needs, or what contradicts itself: a run alone would be another one than was asked for.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let read = Variables(&variable);
        let torch = read.number(TORCH.rank)?.is_some();
        let found = match torch {
            true => Some(&TORCH),
            false => OTHERS.iter().find(|l| variable(l.rank).is_some()),
        };
        let launcher = match found {
            Some(launcher) => launcher,
            None if read.is_slurm_task()? => &SLURM,
            None => {
                read.nothing_left_over()?;
                return Ok(None);
            }
        };
        let own = read.number(launcher.rank)?.unwrap_or(0);
        let (size_name, size) = read.first(launcher.world)?;
        let size = size.filter(|n| *n > own).ok_or_else(|| {
            let expected = format!("a number above {}={own}", launcher.rank);
            wrong(size_name, &expected, variable(size_name))
        })?;
        if let Some(n) = read.number("WORLD_SIZE")?.filter(|n| !torch && *n != size) {
            // A script may hand it on from a launcher that has a name of its own for it, but not another number.
            let expected = format!("{size}, as {} says in {size_name}", launcher.name);
            return Err(wrong("WORLD_SIZE", &expected, Some(n.to_string())));
        }
        let agent = variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True");
        if size == 1 && !agent {
            // There is nobody to meet.
            return Ok(None);
        }
        let port = read.number_to("MASTER_PORT", usize::from(u16::MAX))?;
        let host = variable("MASTER_ADDR").map(|h| h.trim().to_owned());
        let missing = |name: &str, expected: &str| {
            let (rank, by) = (launcher.rank, launcher.name);
            wrong(name, expected, variable(name)).hint(format!(
                "by {rank}={own} and {size_name}={size} ({by}) this process is one of {size}: give all of them MASTER_ADDR and \
                 MASTER_PORT, where they meet (mpirun -x, -genv, srun --export), or start them by torchrun, `af2 launch` or \
                 scripts/slurm.sh"
            ))
        };
        let host = host
            .filter(|h| !h.is_empty())
            .ok_or_else(|| missing("MASTER_ADDR", "rank 0's host"))?;
        let port = port
            .filter(|p| *p > 0)
            .ok_or_else(|| missing("MASTER_PORT", "a port of rank 0's host"))?;
        let local = read.first(launcher.local)?.1.or(read.number("LOCAL_RANK")?);
        Ok(Some(Place {
            rank: own,
            world: size,
            local: local.unwrap_or(0),
            host,
            port: port as u16,
            agent,
            again: ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"]
                .iter()
                .filter_map(|name| variable(name)?.parse::<u64>().ok())
                .any(|n| n > 0),
        }))
    }

    /// [`Place::of`] this process's environment.
    pub(crate) fn of_environment() -> Result<Option<Self>> {
        Place::of(|name| std::env::var(name).ok())
    }

    /// The address of this machine that the ranks meet at, where nobody else could: then nobody else need be listened to.
    pub(crate) fn loopback(&self) -> Option<IpAddr> {
        match self.host.to_ascii_lowercase().as_str() {
            "localhost" | "localhost.localdomain" | "localhost4" => Some(Ipv4Addr::LOCALHOST.into()),
            host => host.parse().ok().filter(IpAddr::is_loopback),
        }
    }
}

/// What a user may want to know where a job has many tasks and this process is none of them.
pub(crate) fn note_alone(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let tasks = variable("SLURM_NTASKS").or(variable("SLURM_NPROCS"))?;
    let many = tasks.parse::<usize>().is_ok_and(|n| n > 1);
    many.then(|| {
        format!(
            "this Slurm job has {tasks} tasks, but this process was not started as one of them: it trains alone; `srun` \
             starts one process a task (scripts/slurm.sh does)"
        )
    })
}

struct Variables<'v, F>(&'v F);

impl<F: Fn(&str) -> Option<String>> Variables<'_, F> {
    fn number_to(&self, name: &str, most: usize) -> Result<Option<usize>> {
        match (self.0)(name) {
            None => Ok(None),
            Some(v) => match v.trim().parse::<usize>().ok().filter(|n| *n <= most) {
                Some(n) => Ok(Some(n)),
                None => Err(wrong(name, &format!("a number to {most}"), Some(v))),
            },
        }
    }

    fn number(&self, name: &str) -> Result<Option<usize>> {
        self.number_to(name, MOST)
    }

    /// The first that is set, and its number; the name of the first of all where none is.
    fn first(&self, names: &'static [&'static str]) -> Result<(&'static str, Option<usize>)> {
        for name in names {
            if let Some(n) = self.number(name)? {
                return Ok((name, Some(n)));
            }
        }
        Ok((names.first().copied().unwrap_or_default(), None))
    }

    /// Whether `srun` has started this process as one of several. Interactive shells, batch scripts and what watches over a job
    /// are steps too, with numbers from the top of 32 bits.
    fn is_slurm_task(&self) -> Result<bool> {
        const SPECIAL: u64 = 0xffff_fff0;
        let step = (self.0)("SLURM_STEP_ID").or((self.0)("SLURM_STEPID"));
        let step = step.filter(|s| s.trim().parse::<u64>().map_or(true, |n| n < SPECIAL));
        if step.is_none() || (self.0)(SLURM.rank).is_none() {
            return Ok(false);
        }
        Ok(self.first(SLURM.world)?.1.is_some_and(|n| n > 1))
    }

    /// No variable of a rank, where this process is taken for none.
    fn nothing_left_over(&self) -> Result<()> {
        let world = self.number("WORLD_SIZE")?;
        let mut left = world.filter(|n| *n != 1).map(|n| ("WORLD_SIZE", n));
        for name in ["LOCAL_RANK", "LOCAL_WORLD_SIZE"] {
            // The first of one says nothing but that it is alone.
            let own = self.number(name)?.filter(|n| world != Some(1) || *n > 1);
            left = left.or(own.map(|n| (name, n)));
        }
        // Slurm starts single tasks so, too.
        let single = self.number("SLURM_STEP_NUM_TASKS")? == Some(1);
        left = left.or(self.number(PMIX)?.filter(|_| !single).map(|n| (PMIX, n)));
        let Some((name, n)) = left else { return Ok(()) };
        Err(Error::Ranks {
            message: format!("{name}={n} is set, but not RANK: is this process one of several ranks, or alone?"),
            hint: Some(format!(
                "a rank has RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT (torchrun, `af2 launch` and \
                 scripts/slurm.sh set them); `env -u {name} af2 …` runs alone"
            )),
        })
    }
}

fn wrong(name: &str, expected: &str, found: Option<String>) -> Error {
    let found = found.map_or("nothing".into(), |v| format!("`{v}`"));
    Error::Ranks {
        message: format!("{name}: expected {expected}, found {found}"),
        hint: Some(HINT.into()),
    }
}

#[cfg(test)]
mod tests;
