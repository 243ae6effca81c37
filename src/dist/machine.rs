//! Which ranks are on one machine, and how they share its cores.

use super::meeting::{ask, Table};
use super::share::{share, Allowed};
use serde::{Deserialize, Serialize};

/// How the ranks lie on machines.
pub(super) struct Machines {
    /// Where each rank is.
    pub seats: Vec<Seat>,
    /// Whether this rank saves where rank 0 and its store are gone: the next on its machine, and the first of another, do, as
    /// either may be gone with it.
    pub heir: bool,
}

/// Where a rank is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    pub host: String,
    /// The cores that it may run on, as the kernel lists them.
    pub cpus: String,
    /// How many it keeps busy: its share of those, and of its control groups' quotas.
    pub cores: usize,
}

/// What a rank says of where it is.
#[derive(Default, Serialize, Deserialize)]
struct Word {
    host: String,
    process: u32,
    allowed: Allowed,
}

impl Word {
    fn own() -> Self {
        Word {
            host: host(),
            process: std::process::id(),
            allowed: Allowed::here(boot()),
        }
    }
}

impl Machines {
    /// One process.
    pub(crate) fn alone() -> Self {
        of(vec![Word::own()], 0)
    }
}

/// Asks all ranks where they run. The kernel's own name for this start of it is the machine's.
///
/// # Errors
/// Another process that says it is this rank.
pub(super) fn count(table: Table, key: &str) -> Result<Machines, String> {
    let own = serde_json::to_string(&Word::own()).map_err(|e| e.to_string())?;
    let all = ask(table, key, &own, |words| Ok(words.join("\n")))?;
    let same = all.lines().nth(table.rank) == Some(&own);
    // A rank of another program may say something else: it is refused by its version, later.
    let read = |word| serde_json::from_str::<Word>(word).unwrap_or_default();
    let all: Vec<Word> = all.lines().map(read).collect();
    match same {
        true => Ok(of(all, table.rank)),
        false => Err(format!(
            "two processes say that they are rank {}: this one and {}",
            table.rank,
            all.get(table.rank).map_or("another".into(), |w| format!(
                "process {} on {}",
                w.process, w.host
            ))
        )),
    }
}

fn of(words: Vec<Word>, rank: usize) -> Machines {
    let (hosts, all): (Vec<String>, Vec<Allowed>) = words.into_iter().map(|w| (w.host, w.allowed)).unzip();
    let beside = (1..all.len()).find(|r| all[*r].boot == all[0].boot);
    let elsewhere = (1..all.len()).find(|r| all[*r].boot != all[0].boot);
    let seats = hosts.into_iter().enumerate().map(|(r, host)| Seat {
        host,
        cpus: all[r].cpus.clone(),
        cores: share(&all, r),
    });
    Machines {
        seats: seats.collect(),
        heir: [beside, elsewhere].contains(&Some(rank)),
    }
}

/// Names this machine since it was started.
pub(crate) fn boot() -> String {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    match read("/proc/sys/kernel/random/boot_id") {
        id if id.is_empty() => host(),
        id => id,
    }
}

/// This machine's name, for people.
pub(crate) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "this machine".into(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heirs_are_the_next_on_rank_0s_machine_and_the_first_of_another() {
        let on = |boot: &str| Word {
            allowed: Allowed {
                boot: boot.into(),
                ..Allowed::default()
            },
            ..Word::default()
        };
        let heirs = |boots: &[&str]| -> Vec<usize> {
            let all = || boots.iter().map(|b| on(b)).collect();
            (0..boots.len()).filter(|r| of(all(), *r).heir).collect()
        };
        assert_eq!(heirs(&["a", "a", "b", "b", "b"]), [1, 2]);
        assert_eq!(heirs(&["a", "b", "a"]), [1, 2]);
        assert_eq!(heirs(&["a", "a", "a"]), [1]);
    }
}
