//! What this process's control groups leave it, in both versions of them: a limit anywhere between its own group and the top
//! counts, and the lowest holds.

use crate::proc::groups::{self, number};
use std::fs;
use std::path::Path;

/// Limits; none where there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Groups {
    /// Cores' worth of time: 1.5 is three halves of a core.
    pub cores: Option<f64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes below the limit that is met first, what could be dropped of cached files counted in.
    pub memory_left: Option<u64>,
    /// Bytes of swap.
    pub swap: Option<u64>,
}

/// Version 1 writes the largest multiple of a page for no limit.
const NONE: u64 = 1 << 60;

/// Of this process, by what lies below a root: `/`, or that of a test.
pub(super) fn of(root: &Path) -> Groups {
    let mut limits = Groups::default();
    for folder in groups::of(root) {
        if let Some((quota, period)) = groups::quota(&folder) {
            limits.cores_at_most(quota as f64 / period as f64);
        }
        limits.first_memory(&folder);
        limits.second_memory(&folder);
    }
    limits
}

impl Groups {
    fn second_memory(&mut self, level: &Path) {
        // Above `high` nothing is killed, but all wait for memory.
        for name in ["memory.max", "memory.high"] {
            if let Some(limit) = number(&level.join(name)) {
                let used = number(&level.join("memory.current"));
                self.memory_at_most(limit, used, of_table(&level.join("memory.stat"), "inactive_file"));
            }
        }
        if let Some(limit) = number(&level.join("memory.swap.max")) {
            self.swap = Some(self.swap.map_or(limit, |s| s.min(limit)));
        }
    }

    fn first_memory(&mut self, level: &Path) {
        let Some(limit) = number(&level.join("memory.limit_in_bytes")) else {
            return;
        };
        let used = number(&level.join("memory.usage_in_bytes"));
        self.memory_at_most(
            limit,
            used,
            of_table(&level.join("memory.stat"), "total_inactive_file"),
        );
        let both = number(&level.join("memory.memsw.limit_in_bytes")).filter(|n| *n < NONE);
        if let Some(swap) = both.map(|both| both.saturating_sub(limit)) {
            self.swap = Some(self.swap.map_or(swap, |s| s.min(swap)));
        }
    }

    fn cores_at_most(&mut self, cores: f64) {
        self.cores = Some(self.cores.map_or(cores, |c| c.min(cores)));
    }

    fn memory_at_most(&mut self, limit: u64, used: Option<u64>, cached: Option<u64>) {
        if limit >= NONE {
            return;
        }
        self.memory = Some(self.memory.map_or(limit, |m| m.min(limit)));
        let used = used.map(|n| n.saturating_sub(cached.unwrap_or(0)));
        if let Some(left) = used.map(|n| limit.saturating_sub(n)) {
            self.memory_left = Some(self.memory_left.map_or(left, |l| l.min(left)));
        }
    }
}

/// The number behind a name, a line each.
fn of_table(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of these files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const SECOND: &str = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
    const FIRST: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 ROOT /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 ROOT /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        36 31 0:33 ROOT /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";

    #[test]
    fn of_nested_groups_of_version_2_the_lowest_limit_holds() {
        let root = machine(&[
            ("proc/self/mountinfo", SECOND),
            ("proc/self/cgroup", "0::/job/step\n"),
            ("sys/fs/cgroup/job/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/job/memory.max", "8589934592\n"),
            ("sys/fs/cgroup/job/memory.high", "max\n"),
            ("sys/fs/cgroup/job/memory.current", "7000000000\n"),
            (
                "sys/fs/cgroup/job/memory.stat",
                "anon 1\ninactive_file 1000000000\nactive_file 5\n",
            ),
            ("sys/fs/cgroup/job/step/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/job/step/memory.max", "max\n"),
            ("sys/fs/cgroup/job/step/memory.current", "7\n"),
            ("sys/fs/cgroup/job/step/memory.swap.max", "0\n"),
        ]);
        let groups = of(root.path());
        assert_eq!(groups.cores, Some(1.5));
        assert_eq!(groups.memory, Some(8_589_934_592));
        assert_eq!(groups.memory_left, Some(2_589_934_592));
        assert_eq!(groups.swap, Some(0));
    }

    #[test]
    fn a_container_that_sees_its_own_group_as_the_top_is_read() {
        let root = machine(&[
            ("proc/self/mountinfo", SECOND),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/memory.high", "2147483648\n"),
        ]);
        let groups = of(root.path());
        assert_eq!((groups.cores, groups.memory), (Some(0.5), Some(2_147_483_648)));
        assert_eq!((groups.memory_left, groups.swap), (None, None));
    }

    #[test]
    fn groups_of_version_1_are_found_by_their_controllers() {
        let files =
            |mounted: &'static str| {
                machine(&[
                ("proc/self/mountinfo", &FIRST.replace("ROOT", mounted)),
                (
                    "proc/self/cgroup",
                    "7:cpuset:/docker/ab\n4:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n0::/system\nodd\n",
                ),
                ("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "300000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes", "4294967296\n"),
                ("sys/fs/cgroup/memory/docker/ab/memory.usage_in_bytes", "4294967295\n"),
                ("sys/fs/cgroup/memory/docker/ab/memory.stat", "inactive_file 3\ntotal_inactive_file 9\n"),
                ("sys/fs/cgroup/memory/docker/ab/memory.memsw.limit_in_bytes", "5368709120\n"),
                // What a container that has its own group mounted sees at the top.
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ])
            };
        let groups = of(files("/").path());
        assert_eq!(groups.cores, Some(3.0));
        assert_eq!(
            (groups.memory, groups.memory_left),
            (Some(4_294_967_296), Some(10))
        );
        assert_eq!(groups.swap, Some(1 << 30));
        // Mounted as its own top: nothing of the host's path lies there.
        let root = machine(&[
            ("proc/self/mountinfo", &FIRST.replace("ROOT", "/docker/ab")),
            ("proc/self/cgroup", "2:cpu,cpuacct:/docker/ab\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "25000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "50000\n"),
        ]);
        assert_eq!(of(root.path()).cores, Some(0.5));
        // A path that is another container's view: the top of what is mounted counts.
        let root = machine(&[
            ("proc/self/mountinfo", &FIRST.replace("ROOT", "/docker/ab")),
            ("proc/self/cgroup", "2:cpu,cpuacct:/elsewhere\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "75000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "50000\n"),
        ]);
        assert_eq!(of(root.path()).cores, Some(1.5));
    }

    #[test]
    fn a_machine_without_groups_has_no_limits() {
        assert_eq!(of(machine(&[]).path()), Groups::default());
        assert_eq!(of(Path::new("/nowhere")), Groups::default());
        let odd = machine(&[
            ("proc/self/mountinfo", SECOND),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "word\n"),
            ("sys/fs/cgroup/memory.max", "-5\n"),
        ]);
        assert_eq!(of(odd.path()), Groups::default());
    }
}
