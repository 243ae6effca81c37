//! Progress on standard error: a bar where a person watches, plain lines in a log.

use crate::screen::visible;
use indicatif::{ProgressBar, ProgressFinish, ProgressState, ProgressStyle};
use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// No line follows another sooner than this…
const SOONEST: Duration = Duration::from_secs(5);
/// …and none waits longer than this while something is done, even within the same tenth.
const LATEST: Duration = Duration::from_secs(30);

static QUIET: AtomicBool = AtomicBool::new(false);

/// Turns all progress output of the process off or on; what is running already stays as it is.
pub(crate) fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// How far a task has come. Shared by reference between threads.
///
/// Dropped without [`Progress::finish`], as on an error, it leaves what it has shown.
pub(crate) struct Progress {
    out: Out,
}

enum Out {
    Quiet,
    Bar(ProgressBar),
    Lines(Box<Lines>),
}

struct Lines {
    label: String,
    total: u64,
    started: Instant,
    done: AtomicU64,
    /// Done before this process began: no part of its pace.
    before: AtomicU64,
    message: Mutex<String>,
    pace: Mutex<Pace>,
}

impl Progress {
    /// `total` of 0 means that it is not known.
    pub(crate) fn new(label: &str, total: u64) -> Self {
        let out = if QUIET.load(Ordering::Relaxed) {
            Out::Quiet
        } else if std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb") {
            Out::Bar(bar(label, total))
        } else {
            Out::Lines(Box::new(Lines::new(label, total)))
        };
        Progress { out }
    }

    /// So much was done by an earlier run, which this one goes on with.
    pub(crate) fn resume(&self, done: u64) {
        match &self.out {
            Out::Quiet => {}
            Out::Bar(bar) => {
                bar.set_position(done);
                bar.reset_eta();
            }
            Out::Lines(lines) => {
                lines.done.store(done, Ordering::Relaxed);
                lines.before.store(done, Ordering::Relaxed);
            }
        }
    }

    /// So much more is done.
    pub(crate) fn inc(&self, n: u64) {
        match &self.out {
            Out::Quiet => {}
            Out::Bar(bar) => bar.inc(n),
            Out::Lines(lines) => lines.moved(lines.done.fetch_add(n, Ordering::Relaxed) + n),
        }
    }

    /// So much is done in all.
    pub(crate) fn set(&self, done: u64) {
        match &self.out {
            Out::Quiet => {}
            Out::Bar(bar) => bar.set_position(done),
            Out::Lines(lines) => {
                lines.done.store(done, Ordering::Relaxed);
                lines.moved(done);
            }
        }
    }

    /// Shown behind the numbers until the next one.
    pub(crate) fn message(&self, text: &str) {
        match &self.out {
            Out::Quiet => {}
            Out::Bar(bar) => bar.set_message(visible(text).into_owned()),
            Out::Lines(lines) => text.clone_into(&mut lock(&lines.message)),
        }
    }

    /// Shows the last state, with `text` in place of the message unless it is empty.
    pub(crate) fn finish(&self, text: &str) {
        if !text.is_empty() {
            self.message(text);
        }
        match &self.out {
            Out::Quiet => {}
            Out::Bar(bar) => bar.abandon(),
            Out::Lines(lines) => lines.show(lines.done.load(Ordering::Relaxed), lines.started.elapsed()),
        }
    }
}

fn bar(label: &str, total: u64) -> ProgressBar {
    let bar = match total {
        0 => ProgressBar::new_spinner(),
        _ => ProgressBar::new(total),
    };
    let template = match total {
        0 => "{prefix}  {pos}  {elapsed}  {rate}  {msg}",
        _ => "{prefix}  {bar:30}  {pos}/{len}  {elapsed}, {eta} left  {rate}  {msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    // indicatif's own rate prints four decimals, and has no form for steps of several seconds.
    let shown_rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = out.write_str(&rate(state.pos(), state.elapsed()));
    };
    bar.set_style(style.with_key("rate", shown_rate).progress_chars("━╸─"));
    bar.set_prefix(visible(label).into_owned());
    bar.with_finish(ProgressFinish::Abandon)
}

impl Lines {
    fn new(label: &str, total: u64) -> Self {
        Lines {
            label: label.to_owned(),
            total,
            started: Instant::now(),
            done: AtomicU64::new(0),
            before: AtomicU64::new(0),
            message: Mutex::default(),
            pace: Mutex::default(),
        }
    }

    fn moved(&self, done: u64) {
        let elapsed = self.started.elapsed();
        // A thread that finds another one at it has nothing to add.
        let due = self
            .pace
            .try_lock()
            .is_ok_and(|mut pace| pace.due(done, self.total, elapsed));
        if due {
            self.show(done, elapsed);
        }
    }

    fn show(&self, done: u64, elapsed: Duration) {
        let own = done.saturating_sub(self.before.load(Ordering::Relaxed));
        let line = line(
            &self.label,
            (done, own),
            self.total,
            elapsed,
            &lock(&self.message),
        );
        crate::say!("{line}");
    }
}

/// When the last line was shown.
#[derive(Default)]
struct Pace {
    at: Duration,
    tenth: u64,
}

impl Pace {
    /// Whether a line is due; if so, it counts as shown. The end is left to [`Progress::finish`].
    fn due(&mut self, done: u64, total: u64, elapsed: Duration) -> bool {
        let since = elapsed.saturating_sub(self.at);
        let tenth = match total {
            0 => 0,
            _ => (u128::from(done) * 10 / u128::from(total)) as u64,
        };
        let end = total > 0 && done >= total;
        let due = !end && since >= SOONEST && (tenth > self.tenth || since >= LATEST);
        if due {
            self.at = elapsed;
            self.tenth = tenth;
        }
        due
    }
}

/// `label: 120/400 (30%), 1:05, 2:31 left, 1.8/s, message`; `own` of those done were done in the time.
fn line(label: &str, (done, own): (u64, u64), total: u64, elapsed: Duration, message: &str) -> String {
    let mut text = match total {
        0 => format!("{label}: {done}"),
        _ => format!(
            "{label}: {done}/{total} ({}%)",
            u128::from(done) * 100 / u128::from(total)
        ),
    };
    text.push_str(&format!(", {}", clock(elapsed)));
    if own > 0 && !elapsed.is_zero() {
        if total > done {
            let left = elapsed.mul_f64((total - done) as f64 / own as f64);
            text.push_str(&format!(", {} left", clock(left)));
        }
        text.push_str(", ");
        text.push_str(&rate(own, elapsed));
    }
    if !message.is_empty() {
        text.push_str(", ");
        text.push_str(message);
    }
    text
}

/// Mean over the whole time: a second's worth, or the time that one takes where that is longer.
fn rate(done: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if done == 0 || seconds == 0.0 {
        return String::new();
    }
    let each = seconds / done as f64;
    match each > 1.0 {
        true => format!("{each:.1} s each"),
        false => format!("{:.1}/s", 1.0 / each),
    }
}

/// Minutes and seconds, with hours where there are any.
pub(crate) fn clock(elapsed: Duration) -> String {
    let s = elapsed.as_secs();
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// A thread that panicked over its text leaves a text that can still be shown.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn a_line_says_label_numbers_time_rate_and_message() {
        assert_eq!(
            line("stage1: train", (120, 120), 400, seconds(65), "loss 2.1"),
            "stage1: train: 120/400 (30%), 1:05, 2:31 left, 1.8/s, loss 2.1"
        );
        // Resumed at 100: twenty took the time.
        assert_eq!(
            line("stage1: train", (120, 20), 400, seconds(10), ""),
            "stage1: train: 120/400 (30%), 0:10, 2:20 left, 2.0/s"
        );
        assert_eq!(
            line("encode", (3, 3), 0, seconds(3725), ""),
            "encode: 3, 1:02:05, 1241.7 s each"
        );
        assert_eq!(
            line("encode", (0, 0), 5, seconds(0), ""),
            "encode: 0/5 (0%), 0:00"
        );
    }

    #[test]
    fn a_fast_task_shows_few_lines() {
        let mut pace = Pace::default();
        // 100 steps a second, 20 seconds.
        let shown: Vec<u64> = (1..=2000)
            .filter(|i| pace.due(*i, 2000, Duration::from_millis(i * 10)))
            .collect();
        assert_eq!(shown, [500, 1000, 1500]);
    }

    #[test]
    fn a_slow_task_shows_life_within_a_tenth() {
        let mut pace = Pace::default();
        let shown: Vec<u64> = (1..=100).filter(|i| pace.due(*i, 10_000, seconds(*i))).collect();
        assert_eq!(shown, [30, 60, 90]);
        let mut unknown = Pace::default();
        assert!(!unknown.due(1, 0, seconds(29)));
        assert!(unknown.due(2, 0, seconds(30)));
    }

    #[test]
    fn threads_share_it() {
        let progress = Progress {
            out: Out::Lines(Box::new(Lines::new("test", 400))),
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| progress.inc(1)));
            }
        });
        progress.message("all");
        let Out::Lines(lines) = &progress.out else {
            unreachable!()
        };
        assert_eq!(lines.done.load(Ordering::Relaxed), 400);
        assert_eq!(*lock(&lines.message), "all");
    }

    #[test]
    fn bars_have_a_valid_template() {
        for total in [0, 10] {
            let hidden = bar("test", total);
            hidden.set_draw_target(indicatif::ProgressDrawTarget::hidden());
            hidden.inc(3);
            assert_eq!(hidden.position(), 3);
        }
    }
}
