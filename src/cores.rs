//! The machine's cores, shared with other programs.
//!
//! libtorch's threads wait for each other at the end of every parallel stretch, and GNU OpenMP lets them spin there for some
//! milliseconds before they sleep. That is right while each has a core of its own. Where another program takes one of the
//! cores, the threads that spin keep the one that is waited for from its core: 70 steps of 23 ms were not done in half a minute.
//!
//! Two remedies, neither of which changes a bit of any result, as the number of threads would. The spin is bounded, by an
//! environment variable that OpenMP reads when it is loaded: `bound_the_spin` starts the program again with it. And while
//! threads are seen to wait for a core, [`Yielding`] makes all of them sleep at once instead: OpenMP does so by itself as long as
//! it has more threads than there are cores, so it is given a team that does nothing.

use crate::ffi::openmp;
use crate::say;
use std::collections::HashMap;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Turns of the loop in which a thread waits before it sleeps. `make bench-busy` has what others cost.
const SPIN: &str = "10000";
/// What a user may have set to choose for himself.
const USERS: [&str; 2] = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"];
/// Set beside [`SPIN`]: the bound is ours.
const OURS: &str = "AF2_BOUNDED_SPIN";

/// How often the threads are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// So much of the time, added up over all threads, may be waiting for a core before they sleep at once.
pub(crate) const WAITING: f64 = 0.25;
/// When it is looked whether the cores are free again: first so long after, then twice as long each time.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(16)];

/// Cores that this process may use: what its affinity and its control group's quota leave it.
pub fn allowed() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Starts this program again with a bounded spin, unless the user has chosen one, or works with one thread: then it returns.
pub(crate) fn bound_the_spin(threads: Option<usize>) {
    let one = |n: OsString| n == "1";
    let alone =
        threads == Some(1) || threads.is_none() && std::env::var_os("OMP_NUM_THREADS").is_some_and(one);
    if alone || allowed() == 1 || USERS.iter().any(|v| std::env::var_os(v).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // Returns only where it cannot be done: then the work is done as it is.
    let _ = again.args(arguments).env(USERS[0], SPIN).env(OURS, "1").exec();
}

/// The user has said how many threads libtorch has.
static CHOSEN: AtomicBool = AtomicBool::new(false);

/// Gives libtorch its threads: what the command line says, else what the environment says, else the cores that may be used.
pub(crate) fn give(threads: Option<usize>) {
    let said = ["OMP_NUM_THREADS", "MKL_NUM_THREADS"].map(std::env::var_os);
    CHOSEN.store(
        threads.is_some() || said.iter().any(Option::is_some),
        Ordering::Relaxed,
    );
    match threads {
        None if CHOSEN.load(Ordering::Relaxed) => {}
        threads => set(threads.unwrap_or_else(allowed)),
    }
}

/// Libtorch needs, or may have, no more threads than this; what the user has said stays.
pub(crate) fn at_most(threads: usize) {
    if !CHOSEN.load(Ordering::Relaxed) && usize::try_from(tch::get_num_threads()).unwrap_or(0) > threads {
        set(threads.max(1));
    }
}

fn set(threads: usize) {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}

/// A smaller model is asked with one thread.
const ALONE: i64 = 8_000_000;

/// A model of so many parameters gains nothing by more threads than this when it is asked: their waiting for each other takes longer
/// than the work. Of the demo's, 2.1 million, 360 answers took 6.7 s with one thread and 14.6 s with two on two cores, one of which
/// also decodes sounds; above that it is a choice.
pub(crate) fn enough_for(parameters: i64) -> usize {
    match parameters {
        ..ALONE => 1,
        _ => usize::try_from(parameters / 1_000_000).unwrap_or(usize::MAX),
    }
}

/// While it lives, threads that wait for a core sleep instead of spinning.
pub struct Yielding {
    end: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Yielding {
    /// Nothing where the bound of the spin is not ours, or the system does not say how long threads wait.
    pub fn begin() -> Option<Self> {
        std::env::var_os(OURS)?;
        waited()?;
        let (end, ended) = mpsc::channel();
        let look = move || {
            let over = |time| !matches!(ended.recv_timeout(time), Err(RecvTimeoutError::Timeout));
            let mut pause = AGAIN[0];
            loop {
                let before = (Instant::now(), waited().unwrap_or_default());
                if over(LOOK) {
                    return;
                }
                if share(&before) < WAITING {
                    pause = AGAIN[0];
                    continue;
                }
                // The team belongs to the thread that called it, and goes with it.
                let (done, until) = mpsc::channel::<()>();
                let team = std::thread::spawn(move || {
                    openmp::team(1 + u32::try_from(allowed()).unwrap_or(u32::MAX - 1));
                    let _ = until.recv();
                });
                let ended = over(pause);
                drop(done);
                let _ = team.join();
                if ended {
                    return;
                }
                pause = (pause * 2).min(AGAIN[1]);
            }
        };
        let thread = std::thread::Builder::new().name("yielding".into()).spawn(look);
        match thread {
            Ok(thread) => Some(Yielding {
                end,
                thread: Some(thread),
            }),
            Err(e) => {
                say!("note: the cores cannot be watched: {e}");
                None
            }
        }
    }
}

impl Drop for Yielding {
    fn drop(&mut self) {
        let _ = self.end.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How much of the time that a function takes this process's threads are ready to run and have no core, added up over those that
/// there were before; none where the system does not say.
pub(crate) fn waiting<T>(f: impl FnOnce() -> T) -> (T, Option<f64>) {
    let before = waited().map(|waited| (Instant::now(), waited));
    let value = f();
    (value, before.map(|before| share(&before)))
}

/// What part of the time since then threads were ready to run and had no core, added up over the threads.
fn share((at, before): &(Instant, HashMap<OsString, u64>)) -> f64 {
    let now = waited().unwrap_or_default();
    let waiting: u64 = now
        .iter()
        .filter_map(|(thread, ns)| Some(ns.saturating_sub(*before.get(thread)?)))
        .sum();
    waiting as f64 / at.elapsed().as_nanos().max(1) as f64
}

/// Nanoseconds that each thread of this process was ready to run and had no core.
fn waited() -> Option<HashMap<OsString, u64>> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let each = threads.filter_map(|thread| {
        let thread = thread.ok()?;
        // Time on a core, time without one, number of turns.
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some((thread.file_name(), text.split_whitespace().nth(1)?.parse().ok()?))
    });
    Some(each.collect::<HashMap<_, _>>()).filter(|all| !all.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_models_take_few_threads_and_large_ones_all() {
        assert_eq!(enough_for(2_100_000), 1);
        assert_eq!(enough_for(8_000_000), 8);
        assert_eq!(enough_for(88_800_000), 88);
        assert!(enough_for(3_000_000_000) > 1024);
    }
}
