//! What a launcher's variables say of this process.

use crate::error::{Error, Result};

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
    /// Whether its agent has started the run again.
    pub again: bool,
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
            local_world: match number(beside, MOST)? {
                Some(n) => n.max(1),
                None => tasks_here(&variable).unwrap_or(1),
            },
            host,
            port: port as u16,
            agent: variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            again: ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"]
                .iter()
                .filter_map(|name| variable(name)?.parse::<u64>().ok())
                .any(|n| n > 0),
        }))
    }

    /// [`Place::of`] this process's environment.
    pub fn of_environment() -> Result<Option<Self>> {
        Place::of(|name| std::env::var(name).ok())
    }
}

/// Ranks on this node where a job was not given a number for each: Slurm's `8(x2),4` is 8 on each of two nodes, then 4.
fn tasks_here(variable: &impl Fn(&str) -> Option<String>) -> Option<usize> {
    let node: usize = variable("SLURM_NODEID")?.parse().ok()?;
    let mut first = 0usize;
    for part in variable("SLURM_TASKS_PER_NODE")?.split(',') {
        let (tasks, nodes) = match part.split_once("(x") {
            Some((tasks, nodes)) => (tasks, nodes.trim_end_matches(')').parse().ok()?),
            None => (part, 1usize),
        };
        first = first.checked_add(nodes)?;
        if node < first {
            return tasks.parse().ok().filter(|n| *n > 0);
        }
    }
    None
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
            (p.rank, p.world, p.local, p.agent, p.again),
            (3, 4, 1, true, true)
        );
        let slurm = [
            ("SLURM_PROCID", "5"),
            ("SLURM_NTASKS", "16"),
            ("SLURM_LOCALID", "5"),
            ("SLURM_STEP_ID", "0"),
        ];
        let p = with(&slurm).unwrap().unwrap();
        assert_eq!((p.rank, p.world, p.local, p.agent), (5, 16, 5, false));
        assert!(!p.again);
        let shared = [("SLURM_TASKS_PER_NODE", "8(x2),4"), ("SLURM_NODEID", "2")];
        let p = with(&[&slurm[..], &shared].concat()).unwrap().unwrap();
        assert_eq!(p.local_world, 4);
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
