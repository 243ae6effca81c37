//! How many files this process may have open.

use super::line::{Line, FILES};
use std::fs;

/// The loader keeps as many files of data sets open, fewer where fewer are allowed.
const DATA: u64 = 64;
/// Each of its threads has a sound and what it lies in.
const THREAD: u64 = 2;
/// Ranks' sockets, logs, a checkpoint that is written while another is read.
const REST: u64 = 64;

pub(super) fn look() -> Line {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    of(&limits, open, crate::cores::allowed() as u64)
}

fn of(limits: &str, open: u64, threads: u64) -> Line {
    const NAME: &str = "open_files";
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files"));
    let number = |n: usize| match line?.split_whitespace().nth(n)? {
        "unlimited" => Some(u64::MAX),
        text => text.parse::<u64>().ok(),
    };
    let (Some(soft), Some(hard)) = (number(0), number(1)) else {
        return Line::ok(NAME, "/proc/self/limits does not say");
    };
    let least = open + THREAD * threads + REST;
    let enough = least + DATA;
    let words = |n: u64| match n {
        u64::MAX => "any number".into(),
        n => n.to_string(),
    };
    let found = format!("{} may be open, {enough} are needed", words(soft));
    let more = enough.next_multiple_of(1024);
    let advice = match hard >= more {
        true => format!("`ulimit -n {more}` before af2"),
        false => format!(
            "the hard limit is {}: raise it (LimitNOFILE, docker --ulimit, limits.conf), then `ulimit -n {more}`",
            words(hard)
        ),
    };
    let line = match soft {
        n if n < least => Line::broken(NAME, FILES, found, advice),
        n if n < enough => Line::slow(
            NAME,
            found,
            format!("data sets of many files are closed and opened again: {advice}"),
        ),
        _ => Line::ok(NAME, found),
    };
    let limit = |n: u64| Some(n).filter(|n| *n != u64::MAX);
    line.value("soft", limit(soft))
        .value("hard", limit(hard))
        .value("needed", enough)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_low_limit_names_the_command_and_the_hard_one() {
        let limits = |soft: &str, hard: &str| {
            format!("Limit   Soft Limit   Hard Limit   Units\nMax processes  1  2  processes\nMax open files   {soft}   {hard}   files\n")
        };
        // 10 + 2 × 8 + 64 = 90 at least, 154 in all.
        for (soft, hard, state, advice) in [
            ("1024", "524288", State::Ok, ""),
            ("154", "524288", State::Ok, ""),
            ("153", "524288", State::Slow, "`ulimit -n 1024` before"),
            ("89", "256", State::Broken, "the hard limit is 256"),
            ("unlimited", "unlimited", State::Ok, ""),
        ] {
            let line = of(&limits(soft, hard), 10, 8);
            assert_eq!(line.state, state, "{soft}");
            assert!(line.advice.unwrap_or_default().contains(advice), "{soft}");
        }
        assert_eq!(of("", 10, 8).state, State::Ok);
    }
}
