//! The control groups that this process is in, in both versions of them.

use super::mounts::{self, Mount};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The folders of the groups that this process is in, each before the one around it, tree after tree: a limit in any of them
/// holds. Read below a root: `/`, or that of a test.
pub(crate) fn of(root: &Path) -> Vec<PathBuf> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mounted = mounts::read(&read("proc/self/mountinfo"));
    let mut folders = Vec::new();
    for line in read("proc/self/cgroup").lines() {
        // `0::/a/b` of version 2, `4:memory,hugetlb:/a/b` of version 1.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let has = |options: &str, name: &str| options.split(',').any(|o| o == name);
        let ours = mounted.iter().filter(|mount| match controllers.is_empty() {
            true => mount.kind == "cgroup2",
            // Each hierarchy's mount has its controllers among its options.
            false => mount.kind == "cgroup" && controllers.split(',').all(|c| has(&mount.options, c)),
        });
        folders.extend(ours.flat_map(|mount| levels(root, mount, Path::new(path))));
    }
    folders
}

/// Folders from a process's group up to the top of what is mounted.
fn levels(root: &Path, mount: &Mount, group: &Path) -> Vec<PathBuf> {
    let top = root.join(mount.at.strip_prefix("/").unwrap_or(&mount.at));
    // A container may see its own group as the top, or the host's path with its own group mounted there.
    let below = match group.strip_prefix(&mount.root) {
        Ok(below) => below,
        Err(_) => group.strip_prefix("/").unwrap_or(group),
    };
    let own = top.join(below);
    let outside = below.components().any(|c| c == Component::ParentDir);
    let own = if own.is_dir() && !outside {
        own
    } else {
        top.clone()
    };
    let levels = own.ancestors().take_while(|p| p.starts_with(&top));
    levels.map(Path::to_path_buf).collect()
}

/// A group's quota of processor time: its processes get so many microseconds together, in each so many. None where it has none.
pub(crate) fn quota(folder: &Path) -> Option<(u64, u64)> {
    let (quota, period) = match fs::read_to_string(folder.join("cpu.max")) {
        Ok(text) => {
            let mut words = text.split_whitespace().map(|n| n.parse().ok());
            (words.next()??, words.next()??)
        }
        // Version 1: −1 is no quota, and no number here.
        Err(_) => (
            number(&folder.join("cpu.cfs_quota_us"))?,
            number(&folder.join("cpu.cfs_period_us"))?,
        ),
    };
    (quota > 0 && period > 0).then_some((quota, period))
}

/// The number in a file; none where there is none, or the word `max`.
pub(crate) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_quota_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let second = |text: &str| {
            fs::write(folder.path().join("cpu.max"), text).unwrap();
            quota(folder.path())
        };
        assert_eq!(second("150000 100000\n"), Some((150_000, 100_000)));
        for text in ["max 100000\n", "5 0\n", "0 5\n", "-1 5\n", "5\n", "", "word"] {
            assert_eq!(second(text), None, "{text}");
        }
        fs::remove_file(folder.path().join("cpu.max")).unwrap();
        let first = |quota_us: &str, period: &str| {
            fs::write(folder.path().join("cpu.cfs_quota_us"), quota_us).unwrap();
            fs::write(folder.path().join("cpu.cfs_period_us"), period).unwrap();
            quota(folder.path())
        };
        assert_eq!(first("300000\n", "100000\n"), Some((300_000, 100_000)));
        for (quota_us, period) in [("-1", "100000"), ("5", "0"), ("max", "1")] {
            assert_eq!(first(quota_us, period), None);
        }
    }
}
