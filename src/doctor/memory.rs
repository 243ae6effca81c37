//! Memory and swap, of the machine and of the control group.

use super::cgroup::Groups;
use super::line::{gib, Line, LIBTORCH};
use std::fs;
use std::path::Path;

/// `make demo` takes 2.4 GB.
const ENOUGH: u64 = 3 << 30;
/// libtorch and one process take as much before there is a model.
const LEAST: u64 = 512 << 20;

/// Of what lies below a root: `/`, or that of a test.
pub(super) fn look(root: &Path, groups: &Groups) -> Vec<Line> {
    let table = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let of = |name: &str| bytes(&table, name);
    let Some(total) = of("MemTotal") else {
        let unknown = |name| Line::ok(name, "/proc/meminfo does not say");
        return vec![unknown("memory"), unknown("swap")];
    };
    let free = of("MemAvailable").or(of("MemFree")).unwrap_or(0);
    let left = groups.memory_left.map_or(free, |left| left.min(free));
    vec![
        memory(total, free, left, groups),
        swap(
            of("SwapTotal").unwrap_or(0),
            of("SwapFree").unwrap_or(0),
            left,
            groups,
        ),
    ]
}

fn memory(total: u64, free: u64, left: u64, groups: &Groups) -> Line {
    const NAME: &str = "memory";
    let group = match groups.memory {
        Some(limit) => format!(
            "; the control group allows {}, {} of it are left",
            gib(limit),
            gib(left)
        ),
        None => String::new(),
    };
    let found = format!("{} of {} available{group}", gib(free), gib(total));
    let advice = match groups.memory {
        Some(_) => "give the job or container more (srun --mem, docker --memory)",
        None => "end what holds it: `ps aux --sort=-rss | head`",
    };
    let line = match left {
        n if n < LEAST => Line::broken(NAME, LIBTORCH, found, advice),
        n if n < ENOUGH => Line::slow(
            NAME,
            found,
            format!("`make demo` takes 2.4 GB, larger models more (`af2 plan`): {advice}"),
        ),
        _ => Line::ok(NAME, found),
    };
    line.value("total", total)
        .value("available", free)
        .value("group_limit", groups.memory)
        .value("left", left)
}

fn swap(total: u64, free: u64, left: u64, groups: &Groups) -> Line {
    const NAME: &str = "swap";
    let used = total.saturating_sub(free);
    let group = match groups.swap {
        Some(limit) if limit < total => format!("; the control group allows {}", gib(limit)),
        _ => String::new(),
    };
    let found = match total {
        0 => "none".into(),
        _ => format!("{} of {} in use{group}", gib(used), gib(total)),
    };
    // Old pages that lie there hurt nobody; beside memory that has run out they come and go.
    let line = match used > total / 4 && left < ENOUGH {
        true => Line::slow(
            NAME,
            found,
            "memory goes to the disk and back: end what holds it, or take a smaller micro_batch",
        ),
        false => Line::ok(NAME, found),
    };
    line.value("total", total).value("used", used)
}

/// `MemTotal:       24634832 kB`.
fn bytes(table: &str, name: &str) -> Option<u64> {
    let line = table
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    let number = line.split_whitespace().next()?.parse::<u64>().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn lines(table: &str, groups: &Groups) -> Vec<Line> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        fs::write(root.path().join("proc/meminfo"), table).unwrap();
        look(root.path(), groups)
    }

    #[test]
    fn the_groups_limit_counts_where_it_is_lower() {
        let table = "MemTotal:  65536000 kB\nMemFree: 100 kB\nMemAvailable:   60000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
        let free = lines(table, &Groups::default());
        assert_eq!([free[0].state, free[1].state], [State::Ok; 2]);
        assert_eq!(free[0].found, "57.2 GiB of 62.5 GiB available");
        assert_eq!(free[1].found, "none");
        for (left, state) in [
            (4 << 30, State::Ok),
            (1 << 30, State::Slow),
            (1 << 20, State::Broken),
        ] {
            let groups = Groups {
                memory: Some(8 << 30),
                memory_left: Some(left),
                ..Groups::default()
            };
            let line = &lines(table, &groups)[0];
            assert_eq!(line.state, state, "{line:?}");
            assert!(
                line.found.contains("control group allows 8.0 GiB"),
                "{}",
                line.found
            );
        }
    }

    #[test]
    fn swap_is_slow_only_beside_memory_that_has_run_out() {
        let table = |available: u64| {
            format!("MemTotal: 8000000 kB\nMemAvailable: {available} kB\nSwapTotal: 4000000 kB\nSwapFree: 1000000 kB\n")
        };
        let state = |available| lines(&table(available), &Groups::default())[1].state;
        assert_eq!(state(6_000_000), State::Ok);
        assert_eq!(state(1_000_000), State::Slow);
        assert_eq!(lines("", &Groups::default()).len(), 2);
    }
}
