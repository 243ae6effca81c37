//! Cores, the threads that libtorch has of them, and what other programs leave.

use super::cgroup::Groups;
use super::line::{Line, State};
use crate::cores;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The processor, as this process has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cores {
    /// Cores of the machine, as the kernel counts them: two threads of one core are two.
    pub machine: usize,
    /// Those that this process may run on.
    pub affinity: Vec<usize>,
    /// How many real ones these are, as far as the machine tells.
    pub physical: usize,
    /// The control group's quota, in cores.
    pub quota: Option<f64>,
    /// What af2 counts with.
    pub usable: usize,
    /// The processor's name.
    pub name: String,
    /// What it can do, by the kernel's words.
    pub flags: BTreeSet<String>,
    pub hertz: Option<f64>,
}

impl Cores {
    pub(super) fn here(groups: &Groups) -> Self {
        let mut cores = Cores::of(Path::new("/"), groups);
        cores.usable = cores::allowed();
        cores
    }

    /// By what lies below a root.
    fn of(root: &Path, groups: &Groups) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let info = read("proc/cpuinfo");
        let field = |name: &str| {
            let line = info
                .lines()
                .find(|l| l.split(':').next().is_some_and(|n| n.trim() == name));
            line.and_then(|l| Some(l.split_once(':')?.1.trim().to_owned()))
        };
        let machine = info.lines().filter(|l| l.starts_with("processor")).count();
        let status = read("proc/self/status");
        let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
        let affinity = list(allowed.unwrap_or_default().trim());
        let siblings = affinity.iter().map(|n| {
            let path = format!("sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list");
            match read(&path).trim() {
                "" => n.to_string(),
                text => text.to_owned(),
            }
        });
        let physical = siblings.collect::<BTreeSet<_>>().len().max(1);
        let khz = read("sys/devices/system/cpu/cpu0/cpufreq/base_frequency")
            .trim()
            .parse::<f64>()
            .ok();
        let mhz = field("cpu MHz").and_then(|t| t.parse::<f64>().ok());
        let flags = field("flags").or(field("Features")).unwrap_or_default();
        Cores {
            machine: machine.max(affinity.len()),
            physical,
            quota: groups.cores,
            usable: affinity.len().max(1),
            affinity,
            name: field("model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            flags: flags.split_whitespace().map(str::to_owned).collect(),
            hertz: khz.map(|n| n * 1e3).or(mhz.map(|n| n * 1e6)).filter(|n| *n > 0.0),
        }
    }

    /// Real cores' worth of time.
    pub(super) fn worth(&self) -> f64 {
        let physical = self.physical as f64;
        self.quota.map_or(physical, |quota| quota.min(physical))
    }
}

/// `0-3,8`, as the kernel writes it.
fn list(text: &str) -> Vec<usize> {
    let ranges = text.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

pub(super) fn look(cores: &Cores, said: Option<usize>) -> Vec<Line> {
    // An empty one says nothing to OpenMP either.
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    vec![of_machine(cores), of_libtorch(cores, threads, said, &variable)]
}

fn of_machine(cores: &Cores) -> Line {
    const NAME: &str = "cores";
    let s = |n: usize| if n == 1 { "" } else { "s" };
    let mut found = format!("{} of the machine's {} usable", cores.usable, cores.machine);
    if cores.affinity.len() < cores.machine {
        found += &format!("; affinity: {}", cores.affinity.len());
    }
    if let Some(quota) = cores.quota {
        found += &format!("; the control group's quota: {quota:.2}");
    }
    if cores.physical < cores.affinity.len() {
        found += &format!("; {} real core{}", cores.physical, s(cores.physical));
    }
    let advice = "give the job or container more: srun --cpus-per-task, docker --cpus, taskset";
    let line = match (cores.quota, cores.usable) {
        (Some(quota), _) if quota < 1.0 => Line::slow(
            NAME,
            found,
            format!("libtorch's threads wait for the quota: {advice}"),
        ),
        (_, 1) if cores.machine > 1 => Line::slow(
            NAME,
            found,
            format!("sound is decoded on the same core that computes: {advice}"),
        ),
        _ => Line::ok(NAME, found),
    };
    line.value("machine", cores.machine)
        .value("affinity", cores.affinity.len())
        .value("physical", cores.physical)
        .value("quota", cores.quota)
        .value("usable", cores.usable)
}

fn of_libtorch(
    cores: &Cores,
    threads: usize,
    said: Option<usize>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Line {
    const NAME: &str = "threads";
    let seen = ["OMP_NUM_THREADS", "MKL_NUM_THREADS"];
    let seen: Vec<String> = seen
        .iter()
        .filter_map(|name| Some(format!("{name}={}", variable(name)?)))
        .collect();
    let by = match (said, seen.is_empty()) {
        (Some(_), _) => "--threads".into(),
        (None, false) => seen.join(", "),
        (None, true) => "one a usable core".into(),
    };
    let found = format!("libtorch has {threads} ({by})");
    let line = match threads.cmp(&cores.usable) {
        std::cmp::Ordering::Less => Line::slow(
            NAME,
            found,
            format!(
                "{} cores are usable: leave {by} out, unless ranks share the machine",
                cores.usable
            ),
        ),
        std::cmp::Ordering::Greater => Line::slow(
            NAME,
            found,
            format!(
                "they wait for each other: {} cores are usable; leave {by} out",
                cores.usable
            ),
        ),
        std::cmp::Ordering::Equal => Line::ok(NAME, found),
    };
    line.value("threads", threads).value("by", by)
}

/// Whether others hold the cores. `waited`: how much of the time of a matrix product its threads were ready and had none, added up.
pub(super) fn neighbours(cores: &Cores, waited: Option<f64>) -> Line {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().and_then(|n| n.parse::<f64>().ok());
    others(cores, waited, load)
}

fn others(cores: &Cores, waited: Option<f64>, load: Option<f64>) -> Line {
    const NAME: &str = "other_programs";
    let loaded = load.map_or(String::new(), |l| {
        format!("load average {l:.1} on {} cores", cores.machine)
    });
    let advice = "another program, or the control group's quota, takes the cores: `top` says which; ranks and jobs that share a \
                  machine need cores of their own";
    let (state, found) = match waited {
        Some(share) => {
            let state = match share >= cores::WAITING {
                true => State::Slow,
                false => State::Ok,
            };
            let share = format!(
                "threads waited for a core for {:.0}% of a product's time",
                100.0 * share
            );
            (state, format!("{share}; {loaded}"))
        }
        // The average holds what this user ran a minute ago, too: only much of it counts.
        None => match load {
            Some(load) if load > 1.5 * cores.machine as f64 => (State::Slow, loaded),
            Some(_) => (State::Ok, loaded),
            None => (State::Ok, "this system does not say".into()),
        },
    };
    let line = match state {
        State::Ok => Line::ok(NAME, found),
        _ => Line::slow(NAME, found, advice),
    };
    line.value("waited", waited).value("load", load)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "processor\t: 0\nmodel name\t: A Processor\ncpu MHz\t\t: 2600.5\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\n\nprocessor\t: 2\n\nprocessor\t: 3\n";

    fn machine(affinity: &str, siblings: &[&str], quota: Option<f64>) -> Cores {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/cpuinfo", INFO);
        write(
            "proc/self/status",
            &format!("Name:\taf2\nCpus_allowed_list:\t{affinity}\n"),
        );
        for (i, text) in siblings.iter().enumerate() {
            write(
                &format!("sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list"),
                text,
            );
        }
        let groups = Groups {
            cores: quota,
            ..Groups::default()
        };
        Cores::of(root.path(), &groups)
    }

    #[test]
    fn lists_of_the_kernels_are_read() {
        assert_eq!(list("0-3,8"), [0, 1, 2, 3, 8]);
        assert_eq!(list("5"), [5]);
        assert!(list("").is_empty());
    }

    #[test]
    fn affinity_quota_and_threads_of_one_core_all_count() {
        let all = machine("0-3", &["0,2", "1,3", "0,2", "1,3"], None);
        assert_eq!((all.machine, all.usable, all.physical), (4, 4, 2));
        assert_eq!(all.worth(), 2.0);
        assert_eq!((all.name.as_str(), all.hertz), ("A Processor", Some(2.6005e9)));
        assert!(all.flags.contains("avx2"));
        assert_eq!(
            of_machine(&all).found,
            "4 of the machine's 4 usable; 2 real cores"
        );
        let one = machine("2", &[], None);
        assert_eq!((one.usable, one.physical), (1, 1));
        assert_eq!(of_machine(&one).state, State::Slow);
        let half = machine("0-3", &[], Some(0.5));
        assert_eq!(half.worth(), 0.5);
        let line = of_machine(&half);
        assert_eq!(line.state, State::Slow);
        assert!(line.found.contains("quota: 0.50"), "{}", line.found);
        assert_eq!(of_machine(&machine("0-3", &[], Some(2.5))).state, State::Ok);
    }

    #[test]
    fn too_few_and_too_many_threads_name_what_says_so() {
        let cores = machine("0-3", &[], None);
        let none = |_: &str| None;
        assert_eq!(of_libtorch(&cores, 4, None, &none).state, State::Ok);
        let one = |name: &str| (name == "OMP_NUM_THREADS").then(|| "1".to_owned());
        let line = of_libtorch(&cores, 1, None, &one);
        assert_eq!(line.state, State::Slow);
        assert!(line.found.contains("1 (OMP_NUM_THREADS=1)"), "{}", line.found);
        let line = of_libtorch(&cores, 64, Some(64), &none);
        assert!(line.state == State::Slow && line.found.contains("--threads"));
    }

    #[test]
    fn waiting_counts_before_the_load_average() {
        let cores = machine("0-3", &[], None);
        assert_eq!(others(&cores, Some(0.02), Some(40.0)).state, State::Ok);
        assert_eq!(others(&cores, Some(0.9), Some(0.0)).state, State::Slow);
        assert_eq!(others(&cores, None, Some(5.0)).state, State::Ok);
        assert_eq!(others(&cores, None, Some(7.0)).state, State::Slow);
        assert_eq!(others(&cores, None, None).state, State::Ok);
    }
}
