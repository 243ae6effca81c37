//! Which ranks are on one machine, and which of them share its cores.

use super::meeting::{ask, Table};

/// How the ranks lie on machines.
pub(super) struct Machines {
    /// Ranks that may run on the same cores as this one, itself too.
    pub sharing: usize,
    /// Whether this rank saves where rank 0 and its store are gone: the next on its machine, and the first of another, do, as
    /// either may be gone with it.
    pub heir: bool,
}

/// Asks all ranks where they run. The kernel's own name for this start of it is the machine's; the cores are those that this
/// process may run on: `srun` gives each task its own.
///
/// # Errors
/// Another process that says it is this rank.
pub(super) fn count(table: Table, key: &str) -> Result<Machines, String> {
    let own = format!(
        "{}\t{}\tprocess {} on {}",
        boot(),
        allowed(),
        std::process::id(),
        host()
    );
    let all = ask(table, key, &own, |words| Ok(words.join("\n")))?;
    let all: Vec<&str> = all.lines().collect();
    match all.get(table.rank) {
        Some(word) if *word == own => Ok(of(&all, table.rank)),
        word => Err(format!(
            "two processes say that they are rank {}: this one and {}",
            table.rank,
            word.and_then(|w| w.split('\t').nth(2)).unwrap_or("another")
        )),
    }
}

fn of(all: &[&str], rank: usize) -> Machines {
    let parts = |rank: usize, n: usize| all.get(rank).map(|w| w.split('\t').take(n).collect::<Vec<_>>());
    let beside = (1..all.len()).find(|r| parts(*r, 1) == parts(0, 1));
    let elsewhere = (1..all.len()).find(|r| parts(*r, 1) != parts(0, 1));
    let same = (0..all.len()).filter(|r| parts(*r, 2) == parts(rank, 2));
    Machines {
        sharing: same.count().max(1),
        heir: [beside, elsewhere].contains(&Some(rank)),
    }
}

/// Names this machine since it was started.
pub fn boot() -> String {
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
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "this machine".into(),
        name => name.to_owned(),
    }
}

/// Cores that this process may run on, as a list of the kernel's.
fn allowed() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_by_ranks_of_one_machine_that_may_run_on_the_same() {
        let two_nodes = ["a\t0-7\t1", "a\t0-7\t2", "b\t0-7\t1", "b\t0-7\t2", "b\t0-7\t3"];
        let sharing: Vec<usize> = (0..5).map(|r| of(&two_nodes, r).sharing).collect();
        assert_eq!(sharing, [2, 2, 3, 3, 3]);
        let heirs: Vec<usize> = (0..5).filter(|r| of(&two_nodes, *r).heir).collect();
        assert_eq!(heirs, [1, 2]);
        // Each task has its own, as Slurm binds them.
        let bound = ["a\t0-3", "a\t4-7", "b\t0-3"];
        assert!((0..3).all(|r| of(&bound, r).sharing == 1));
        assert_eq!(of(&["a\t0-3"], 0).sharing, 1);
    }
}
