//! How many cores each rank may keep busy: its fair share of those that it may use.
//!
//! What limits a rank is its affinity mask, in which Slurm binds each task to cores of its own and a plain launcher leaves all
//! ranks all cores, and the quotas of the control groups that it is in, which a container's ranks have together. So each rank
//! tells all of these, and what several have is divided by as many as have it: once, whoever has divided before.

use crate::proc::groups;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// No kernel numbers more cores.
const MOST: usize = 1 << 16;

/// What one rank may use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Allowed {
    /// The start of the kernel whose cores these are, the same in all its containers.
    pub boot: String,
    /// Cores by number, as the kernel lists them: `0-3,8`. Empty where the system does not say.
    pub cpus: String,
    /// Each control group with a quota that it is in: which it is, and how many thousandths of a core its processes get together.
    pub quotas: Vec<(String, u64)>,
    /// How many cores these are for a rank that is there alone.
    pub alone: usize,
}

impl Allowed {
    /// What this process may use, since the start `boot` of its kernel.
    pub(crate) fn here(boot: String) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let listed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
        let mut cpus = listed.and_then(numbers).unwrap_or_default();
        // The mask also names places in which there is no core.
        if let Some(online) = numbers(&read("/sys/devices/system/cpu/online")) {
            cpus.retain(|n| online.contains(n));
        }
        Allowed {
            boot,
            cpus: list(&cpus),
            quotas: quotas(Path::new("/")),
            alone: crate::cores::allowed(),
        }
    }
}

/// The share of one of the ranks, of which these are all: at least 1. A core of its mask counts for as much as is left of it
/// when all ranks that may run there get the same; of a quota each rank in the group gets the same.
pub(super) fn share(all: &[Allowed], rank: usize) -> usize {
    let Some(own) = all.get(rank) else {
        return 1;
    };
    let beside: Vec<&Allowed> = all.iter().filter(|a| a.boot == own.boot).collect();
    let masks: Vec<BTreeSet<usize>> = beside.iter().filter_map(|a| numbers(&a.cpus)).collect();
    let of_mask = match numbers(&own.cpus) {
        Some(mask) => {
            let ranks_on = |core: &usize| masks.iter().filter(|m| m.contains(core)).count().max(1);
            let sum: f64 = mask.iter().map(|core| 1.0 / ranks_on(core) as f64).sum();
            // Sevenths add up to a whole core.
            (sum + 1e-6) as usize
        }
        None => own.alone / beside.len(),
    };
    let of_quotas = own.quotas.iter().map(|(group, thousandths)| {
        let inside = |a: &&&Allowed| a.quotas.iter().any(|(g, _)| g == group);
        let ranks = beside.iter().filter(inside).count().max(1);
        usize::try_from(thousandths / 1000).unwrap_or(usize::MAX) / ranks
    });
    of_quotas.fold(of_mask.min(own.alone), usize::min).max(1)
}

/// A kernel's list of cores; none where it is no such list.
fn numbers(list: &str) -> Option<BTreeSet<usize>> {
    let mut all = BTreeSet::new();
    for piece in list.trim().split(',') {
        let (from, to) = piece.split_once('-').unwrap_or((piece, piece));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        if from > to || to >= MOST {
            return None;
        }
        all.extend(from..=to);
    }
    Some(all)
}

/// The kernel's list of these cores.
fn list(cpus: &BTreeSet<usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for n in cpus.iter().copied() {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => runs.push((n, n)),
        }
    }
    let words = runs.into_iter().map(|(from, to)| match from == to {
        true => from.to_string(),
        false => format!("{from}-{to}"),
    });
    words.collect::<Vec<_>>().join(",")
}

/// The quotas of this process's control groups and of those around them.
fn quotas(root: &Path) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for folder in groups::of(root) {
        let thousandths = |(quota, period): (u64, u64)| quota.checked_mul(1000)?.checked_div(period);
        let quota = groups::quota(&folder).and_then(thousandths);
        // The folder's number is the group's, from wherever it is seen.
        if let (Some(quota), Ok(meta)) = (quota, folder.metadata()) {
            all.push((format!("{}:{}", meta.dev(), meta.ino()), quota));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A rank on a machine, with a mask and perhaps a group's quota in cores.
    fn rank(boot: &str, cpus: &str, quota: Option<(&str, u64)>) -> Allowed {
        let mask = numbers(cpus).map_or(8, |m| m.len());
        let most = quota.map_or(usize::MAX, |(_, cores)| cores.max(1) as usize);
        Allowed {
            boot: boot.into(),
            cpus: cpus.into(),
            quotas: quota
                .map(|(group, cores)| (group.to_owned(), 1000 * cores))
                .into_iter()
                .collect(),
            alone: mask.min(most),
        }
    }

    fn shares(all: &[Allowed]) -> Vec<usize> {
        (0..all.len()).map(|r| share(all, r)).collect()
    }

    fn masks(cpus: &[&str]) -> Vec<usize> {
        let all: Vec<Allowed> = cpus.iter().map(|c| rank("a", c, None)).collect();
        shares(&all)
    }

    #[test]
    fn what_nobody_has_bound_is_divided_by_the_ranks_of_each_machine() {
        assert_eq!(masks(&["0-7"]), [8]);
        assert_eq!(masks(&["0-7"; 3]), [2; 3]);
        assert_eq!(masks(&["0-1"; 5]), [1; 5]);
        // Sevenths of seven cores: added up they are a hair less than one.
        assert_eq!(masks(&["0-6"; 7]), [1; 7]);
        let two = ["a", "a", "b", "b", "b"].map(|boot| rank(boot, "0-11", None));
        assert_eq!(shares(&two), [6, 6, 4, 4, 4]);
    }

    #[test]
    fn what_is_bound_already_is_not_divided_again() {
        assert_eq!(masks(&["0-3", "4-7", "8-11"]), [4; 3]);
        // Hyperthreads of one core have two numbers.
        assert_eq!(masks(&["0-1,64-65", "2-3,66-67"]), [4; 2]);
        let two = [
            rank("a", "0-3", None),
            rank("a", "4-7", None),
            rank("b", "0-3", None),
        ];
        assert_eq!(shares(&two), [4; 3]);
    }

    #[test]
    fn of_masks_that_overlap_each_core_is_divided_by_those_that_may_use_it() {
        // Four ranks on each socket.
        let sockets = [["0-15,32-47"; 4], ["16-31,48-63"; 4]].concat();
        assert_eq!(masks(&sockets), [8; 8]);
        // A mask inside another, and two that share a half.
        assert_eq!(masks(&["0-1", "0-7"]), [1, 7]);
        assert_eq!(masks(&["0-3", "2-5"]), [3, 3]);
        assert_eq!(masks(&["0", "0-3", "0-3"]), [1, 1, 1]);
    }

    #[test]
    fn a_quota_is_divided_by_the_ranks_of_its_group() {
        let in_group = |group, cores| rank("a", "0-15", Some((group, cores)));
        assert_eq!(shares(&[in_group("x", 8), in_group("x", 8)]), [4; 2]);
        // Containers of one host have a quota each; the cores are all the host's.
        assert_eq!(shares(&[in_group("x", 4), in_group("y", 4)]), [4; 2]);
        assert_eq!(shares(&[in_group("x", 12), in_group("y", 12)]), [8; 2]);
        assert_eq!(
            shares(&[in_group("x", 6), in_group("x", 6), in_group("y", 6)]),
            [3, 3, 5]
        );
        // Groups on different machines may have one number.
        let hosts = [
            rank("a", "0-15", Some(("x", 4))),
            rank("b", "0-15", Some(("x", 4))),
        ];
        assert_eq!(shares(&hosts), [4; 2]);
        // Less than a core each.
        assert_eq!(shares(&[in_group("x", 1), in_group("x", 1)]), [1; 2]);
        // A task's own within the job's.
        let mut nested = [in_group("x", 6), in_group("y", 6)];
        nested
            .iter_mut()
            .for_each(|a| a.quotas.push(("job".into(), 8000)));
        assert_eq!(shares(&nested), [4; 2]);
        // Bound, and with a quota that is less.
        assert_eq!(
            shares(&[rank("a", "0-7", Some(("x", 2))), rank("a", "8-15", None)]),
            [2, 8]
        );
    }

    #[test]
    fn where_a_mask_is_not_known_the_count_is_divided() {
        assert_eq!(masks(&["", ""]), [4; 2]);
        assert_eq!(share(&[], 0), 1);
        // A rank of another program, which says nothing of this.
        assert_eq!(shares(&[rank("a", "0-3", None), Allowed::default()]), [4, 1]);
    }

    #[test]
    fn lists_of_cores_are_read_and_written_and_what_is_none_is_not_taken_for_one() {
        let read = numbers("\t0-3,8,10-11\n").unwrap();
        assert_eq!(Vec::from_iter(read.clone()), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(list(&read), "0-3,8,10-11");
        assert_eq!(list(&BTreeSet::new()), "");
        for wrong in [
            "",
            "a",
            "3-1",
            "0-",
            "-3",
            "1,,2",
            "0-99999999999",
            "0-18446744073709551615",
            "1-2-3",
        ] {
            assert_eq!(numbers(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn quotas_are_found_in_both_interfaces_and_in_the_groups_around() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        let write = |path: &str, text: &str| {
            let path = top.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let mount = |name: &str, root: &str, kind: &str, options: &str| {
            format!("31 23 0:28 {root} /{name} rw,relatime shared:9 - {kind} {kind} {options}\n")
        };
        let quotas = |groups: &str, mounts: &str| {
            write("proc/self/cgroup", groups);
            write("proc/self/mountinfo", mounts);
            super::quotas(top)
        };
        let found = |groups: &str, mounts: &str| -> Vec<u64> {
            quotas(groups, mounts).into_iter().map(|(_, q)| q).collect()
        };
        write("two/job/step/cpu.max", "250000 100000\n");
        write("two/job/cpu.max", "800000 100000\n");
        write("two/other/cpu.max", "max 100000\n");
        let mounts = mount("two", "/", "cgroup2", "rw");
        assert_eq!(found("0::/job/step\n", &mounts), [2500, 8000]);
        assert_eq!(found("0::/other\n", &mounts), [0u64; 0]);
        // A step beside this one is another group in the same job.
        write("two/job/next/cpu.max", "300000 100000\n");
        let (one, next) = (quotas("0::/job/step", &mounts), quotas("0::/job/next", &mounts));
        assert!(one[0].0 != next[0].0 && one[1] == next[1], "{one:?} {next:?}");
        // A container sees its own group as the root, or by the host's name for it.
        write("box/cpu.max", "150000 100000\n");
        for (groups, root) in [
            ("0::/\n", "/"),
            ("0::/docker/a\n", "/docker/a"),
            ("0::/../b\n", "/"),
        ] {
            assert_eq!(
                found(groups, &mount("box", root, "cgroup2", "rw")),
                [1500],
                "{groups}"
            );
        }
        // The first version, which has a tree for each controller.
        write("one/a/cpu.cfs_quota_us", "400000\n");
        write("one/a/cpu.cfs_period_us", "100000\n");
        write("one/cpu.cfs_quota_us", "-1\n");
        write("one/cpu.cfs_period_us", "100000\n");
        let mounts =
            mount("sets", "/", "cgroup", "rw,cpuset") + &mount("one", "/", "cgroup", "rw,cpu,cpuacct");
        assert_eq!(found("5:cpuset:/a\n4:cpu,cpuacct:/a\n0::/\n", &mounts), [4000]);
        write("one/a/cpu.cfs_quota_us", "18446744073709551615\n");
        assert_eq!(found("4:cpu,cpuacct:/a\n", &mounts), [0u64; 0]);
    }

    #[test]
    fn a_rank_alone_has_all_that_this_process_may_use() {
        let own = Allowed::here("boot".into());
        assert_eq!(share(std::slice::from_ref(&own), 0), crate::cores::allowed());
        #[cfg(target_os = "linux")]
        assert!(
            numbers(&own.cpus).is_some_and(|m| m.len() >= crate::cores::allowed()),
            "{own:?}"
        );
    }
}
