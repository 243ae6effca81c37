//! `af2 doctor`: what this machine offers a run, one line a thing, each `ok`, `slow` or `broken`, with what to do about the last
//! two. Every look has a limit in time: a driver or a disk that hangs is a finding, not an end.

mod cgroup;
mod cores;
mod cuda;
mod disk;
mod kernels;
mod line;
mod memory;
mod open_files;
pub(crate) mod peak;
mod versions;

pub(crate) use line::{Line, State};

use line::{DEVICE, FILES, LIBTORCH};
use serde_json::{json, Map, Value};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The version of the JSON object.
pub(crate) const FORMAT: u32 = 1;
/// The exit code where something is slow, nothing broken, and `--strict` was asked for.
pub(crate) const SLOW: i32 = 14;

/// Opening CUDA takes seconds on a machine of many GPUs, and for ever where the driver hangs.
const OPENING: Duration = Duration::from_secs(60);
/// Anything else that a driver, a disk or a kernel is asked for.
const LIMIT: Duration = Duration::from_secs(20);

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// The run's folder, or where it would be made.
    pub run: PathBuf,
    /// Bytes that the run keeps; none where no recipe says.
    pub needs: Option<u64>,
    /// Nothing is timed.
    pub quick: bool,
    /// What `--threads` says.
    pub threads: Option<usize>,
}

/// All lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub lines: Vec<Line>,
    pub seconds: f64,
    /// A look did not come back: the thread that it hangs in must not be waited for.
    pub hangs: bool,
}

impl Report {
    pub(crate) fn worst(&self) -> State {
        self.lines.iter().map(|l| l.state).max().unwrap_or(State::Ok)
    }

    /// That of the first line that is broken; where none is, 0, or with `strict` [`SLOW`] where one is slow.
    pub(crate) fn exit_code(&self, strict: bool) -> i32 {
        let broken = self.lines.iter().find(|l| l.state == State::Broken);
        match broken {
            Some(line) => line.code,
            None if strict && self.worst() == State::Slow => SLOW,
            None => 0,
        }
    }

    /// `{"format", "state", "exit_code", "seconds", "checks": {NAME: {"state", "found", "advice", "values"}}, "devices":
    /// {DEVICE: {NAME: …}}}`.
    pub(crate) fn json(&self, strict: bool) -> Value {
        let mut checks = Map::new();
        let mut devices = Map::new();
        for line in &self.lines {
            let place = match &line.device {
                None => &mut checks,
                Some(device) => match devices.entry(device.as_str()).or_insert_with(|| json!({})) {
                    Value::Object(of) => of,
                    _ => continue,
                },
            };
            place.insert(line.name.into(), json!(line));
        }
        json!({
            "format": FORMAT,
            "state": self.worst(),
            "exit_code": self.exit_code(strict),
            "seconds": self.seconds,
            "checks": checks,
            "devices": devices,
        })
    }
}

/// Looks at everything; hands over each line as soon as it is known.
pub(crate) fn look(ask: &Ask, shown: &mut dyn FnMut(&Line)) -> Report {
    let begun = Instant::now();
    let mut all = All {
        report: Report::default(),
        shown,
    };
    all.add(versions::look());
    // Nobody asks libtorch about CUDA again where the first answer does not come.
    let devices = all
        .within(OPENING, None, &cuda::NAMES, DEVICE, cuda::look)
        .unwrap_or(0);

    let groups = cgroup::of(Path::new("/"));
    let cores = cores::Cores::here(&groups);
    all.add(cores::look(&cores, ask.threads));
    all.add(memory::look(Path::new("/"), &groups));
    all.add(vec![open_files::look()]);

    let (run, needs, quick) = (ask.run.clone(), ask.needs, ask.quick);
    all.within(LIMIT, None, &disk::NAMES, FILES, move || {
        ((), disk::look(&run, needs, quick))
    });

    let of_cpu = cores.clone();
    let waited = all.within(OPENING, Some("cpu"), &kernels::NAMES, LIBTORCH, move || {
        kernels::cpu(&of_cpu, quick)
    });
    all.add(vec![cores::neighbours(&cores, waited.flatten())]);
    for index in 0..devices {
        let device = format!("cuda:{index}");
        all.within(OPENING, Some(&device), &kernels::NAMES, DEVICE, move || {
            ((), kernels::gpu(index, quick))
        });
    }
    all.report.seconds = begun.elapsed().as_secs_f64();
    all.report
}

struct All<'s> {
    report: Report,
    shown: &'s mut dyn FnMut(&Line),
}

impl All<'_> {
    fn add(&mut self, lines: Vec<Line>) {
        for line in lines {
            (self.shown)(&line);
            self.report.lines.push(line);
        }
    }

    /// Looks on a thread of its own, and adds what it finds; where it does not come back, lines of these names that say so.
    fn within<T: Send + 'static>(
        &mut self,
        limit: Duration,
        device: Option<&str>,
        names: &[&'static str],
        code: i32,
        look: impl FnOnce() -> (T, Vec<Line>) + Send + 'static,
    ) -> Option<T> {
        let (value, mut lines) = match answer(limit, look) {
            Ok((value, lines)) => (Some(value), lines),
            Err(why) => {
                self.report.hangs |= why == NoAnswer::Late;
                let words = match why {
                    NoAnswer::Late => format!("no answer in {} s", limit.as_secs_f64()),
                    NoAnswer::Fell => {
                        "the look itself ended in an error, which stands on standard error".into()
                    }
                };
                let advice =
                    "a driver, disk or network file system that hangs or fails: `dmesg` may say which";
                let lines = names.iter().map(|name| Line::broken(name, code, &words, advice));
                (None, lines.collect())
            }
        };
        for line in &mut lines {
            line.device = device.map(str::to_owned);
        }
        self.add(lines);
        value
    }
}

/// Why a look says nothing.
#[derive(Debug, PartialEq, Eq)]
enum NoAnswer {
    Late,
    Fell,
}

/// What a function says within a time. One that does not come back keeps its thread.
fn answer<T: Send + 'static>(limit: Duration, f: impl FnOnce() -> T + Send + 'static) -> Result<T, NoAnswer> {
    let (send, receive) = mpsc::channel();
    let thread = std::thread::Builder::new().name("doctor".into());
    let started = thread.spawn(move || {
        let _ = send.send(f());
    });
    if started.is_err() {
        return Err(NoAnswer::Fell);
    }
    receive.recv_timeout(limit).map_err(|e| match e {
        mpsc::RecvTimeoutError::Timeout => NoAnswer::Late,
        mpsc::RecvTimeoutError::Disconnected => NoAnswer::Fell,
    })
}

#[cfg(test)]
mod tests;
