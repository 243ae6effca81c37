//! `af2 gpu-check`: whether a GPU computes what the CPU computes, in the memory that was planned, at which speed.
//!
//! Each part runs in a process of its own, as CUDA's faults outlive what caused them: one that crashes, hangs or runs out of
//! memory is a row that says so, and the next part begins on a clean device. [`report`] is what is left.

mod attention;
mod card;
mod collectives;
mod compare;
mod environment;
mod made;
mod modules;
mod part;
mod peer;
pub(crate) mod report;
mod resume;
mod speed;
mod steps;

use crate::error::{Error, Result};
use indexmap::IndexMap;
use part::{Check, Fault, Line};
use report::{PartReport, Report, Row, Verdict, SCHEMA};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Minutes that all parts are made for.
pub(crate) const MINUTES: f64 = 20.0;
/// Behind a part's time, for the row that it is at.
const GRACE: Duration = Duration::from_secs(30);

/// One part of the check.
struct Part {
    name: &'static str,
    title: &'static str,
    /// How its table is to be read.
    about: &'static str,
    columns: &'static [&'static str],
    /// Of [`MINUTES`].
    minutes: f64,
    run: fn(&mut Check) -> Result<()>,
}

/// In the order in which they run: what is quick and says most about faults comes first.
const PARTS: &[Part] = &[
    Part {
        name: "environment",
        title: "Environment",
        about: "",
        columns: &["value"],
        minutes: 0.5,
        run: environment::run,
    },
    Part {
        name: "modules",
        title: "Module by module, the device beside the CPU",
        about: modules::ABOUT,
        columns: &[
            "precision",
            "output_distance",
            "output_bound",
            "gradient_distance",
            "gradient_bound",
        ],
        minutes: 2.5,
        run: modules::run,
    },
    Part {
        name: "attention",
        title: "Which attention kernel each call got",
        about: attention::ABOUT,
        columns: &[
            "calls", "dtype", "query", "key", "mask", "causal", "grouped", "kernel",
        ],
        minutes: 1.0,
        run: attention::run,
    },
    Part {
        name: "collectives",
        title: "NCCL with one rank",
        about: "Gloo where the device is the CPU.",
        columns: &["seconds"],
        minutes: 1.0,
        run: collectives::run,
    },
    Part {
        name: "resume",
        title: "Kill and resume",
        about: resume::ABOUT,
        columns: &["seconds", "largest_difference"],
        minutes: 3.0,
        run: resume::run,
    },
    Part {
        name: "steps",
        title: "Training steps of 3B shapes beside the plan",
        about: steps::ABOUT,
        columns: &[
            "items",
            "windows",
            "text_tokens",
            "peak_gib",
            "plan_gib",
            "peak_by_plan",
            "reserved_gib",
            "step_ms",
            "text_tokens_per_s",
            "windows_per_s",
            "tflops",
            "mfu_percent",
        ],
        minutes: 6.0,
        run: steps::run,
    },
    Part {
        name: "speed",
        title: "Speed beside torch",
        about: speed::ABOUT,
        columns: &[
            "precision",
            "unit",
            "af2",
            "torch",
            "af2_by_torch",
            "torch_version",
        ],
        minutes: 6.0,
        run: speed::run,
    },
];

/// Names of all parts.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PARTS.iter().map(|p| p.name)
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `cuda`, `cuda:N` or `cpu`.
    pub device: String,
    pub tiny: bool,
    /// Parts by name; none for all.
    pub parts: Vec<String>,
    pub minutes: f64,
    pub python: Option<PathBuf>,
    pub peak_tflops: Option<f64>,
    pub out: PathBuf,
    /// For tests: what goes wrong on purpose, `PART:bound`, `PART:panic`, `PART:abort` or `PART:hang`.
    pub fault: Option<String>,
}

impl Options {
    fn fault_of(&self, part: &str) -> Option<&str> {
        self.fault.as_deref()?.strip_prefix(part)?.strip_prefix(':')
    }

    fn wants(&self, part: &str) -> bool {
        // What the others are read by.
        part == "environment" || self.parts.is_empty() || self.parts.iter().any(|p| p == part)
    }

    fn check(&self) -> Result<()> {
        for name in &self.parts {
            if !names().any(|n| n == name) {
                let all: Vec<&str> = names().collect();
                let e = Error::usage(format!("--parts: no part `{name}`, there are {}", all.join(", ")));
                return Err(match crate::error::nearest(name, names()) {
                    Some(near) => e.hint(format!("did you mean `{near}`?")),
                    None => e,
                });
            }
        }
        let large = |p: &&str| matches!(*p, "steps" | "speed");
        if self.device == "cpu" && !self.tiny {
            if let Some(part) = names().filter(large).find(|p| self.wants(p)) {
                let e = Error::usage(format!("part `{part}` has sizes for a GPU"));
                return Err(e.hint("--tiny makes all of it small; --parts chooses others"));
            }
        }
        Ok(())
    }
}

/// Runs the parts, writes the report. Returns the exit code where the device cannot be used, which has then been said.
///
/// # Errors
/// [`Error::Mismatch`] where a row is broken or failed; a folder that cannot be written to; a part that does not exist.
pub(crate) fn run(options: &Options) -> Result<i32> {
    options.check()?;
    let work = tempfile::tempdir().map_err(|e| Error::io(std::env::temp_dir(), e))?;
    let started = Instant::now();
    let mut report = Report {
        schema: SCHEMA,
        af2: env!("CARGO_PKG_VERSION").into(),
        libtorch: env!("AF2_LIBTORCH").into(),
        device: options.device.clone(),
        tiny: options.tiny,
        minutes: options.minutes,
        started_unix: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
        seconds: 0.0,
        verdict: Verdict::Ok,
        counts: IndexMap::new(),
        parts: Vec::new(),
    };
    let all = Duration::from_secs_f64(60.0 * options.minutes);
    let longer = (options.minutes / MINUTES).max(1.0);
    for part in PARTS.iter().filter(|p| options.wants(p.name)) {
        let left = all.saturating_sub(started.elapsed());
        let own = Duration::from_secs_f64(60.0 * part.minutes * longer);
        let begun = Instant::now();
        let file = work.path().join(part.name);
        let first = report.parts.is_empty();
        let rows = match in_a_process(part, options, &file, own.min(left), first)? {
            Outcome::Rows(rows) => rows,
            Outcome::NoDevice(code) => return Ok(code),
        };
        std::fs::create_dir_all(&options.out).map_err(|e| Error::io(&options.out, e))?;
        report.parts.push(PartReport {
            name: part.name.into(),
            title: part.title.into(),
            about: part.about.into(),
            columns: part.columns.iter().map(|c| (*c).to_owned()).collect(),
            seconds: begun.elapsed().as_secs_f64(),
            rows,
        });
        report.close(started.elapsed().as_secs_f64());
        // After each part, so that little is lost where this process is ended.
        report.write(&options.out)?;
    }
    crate::screen::out(&report.markdown());
    for file in report.write(&options.out)? {
        crate::out!("written: {}", file.display());
    }
    match report.verdict {
        Verdict::Ok => Ok(0),
        _ => Err(Error::Mismatch(format!(
            "gpu-check: {}",
            report.bad().join("\n  ")
        ))),
    }
}

enum Outcome {
    Rows(Vec<Row>),
    /// Its exit code.
    NoDevice(i32),
}

/// Runs one part; whatever becomes of its process, there are rows that say so.
/// The `first` begins with a device that nobody has tried yet.
fn in_a_process(part: &Part, options: &Options, file: &Path, time: Duration, first: bool) -> Result<Outcome> {
    if time.is_zero() {
        return Ok(Outcome::Rows(vec![Row::of(part.name, Verdict::NotRun, "time")]));
    }
    let own = std::env::current_exe().map_err(|e| Error::io("/proc/self/exe", e))?;
    let mut command = Command::new(&own);
    command
        .args(["gpu-check", "--device", &options.device, "--only", part.name])
        .args(["--seconds", &time.as_secs_f64().to_string(), "--rows"])
        .arg(file);
    if options.tiny {
        command.arg("--tiny");
    }
    if let Some(python) = &options.python {
        command.arg("--python").arg(python);
    }
    if let Some(peak) = options.peak_tflops {
        command.args(["--peak-tflops", &peak.to_string()]);
    }
    if let Some(fault) = options.fault_of(part.name) {
        command.args(["--fault", fault]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    crate::ffi::ends_with_us(&mut command);
    let mut child = command.spawn().map_err(|e| Error::io(&own, e))?;
    let until = Instant::now() + time + GRACE.min(time);
    let status = loop {
        match child.try_wait().map_err(|e| Error::io(&own, e))? {
            Some(status) => break Some(status),
            None if Instant::now() >= until => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let ended = match status {
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Some(format!(
                "no end after {:.0} s: its process was ended",
                time.as_secs_f64()
            ))
        }
        Some(status) => match (status.code(), status.signal()) {
            (Some(0), _) => None,
            (Some(code), _) => Some(format!("its process ended with code {code}")),
            (None, signal) => Some(format!("its process was ended by signal {}", signal.unwrap_or(0))),
        },
    };
    let lines = Line::read_all(file);
    if let (true, Some(code)) = (
        first && lines.is_empty(),
        status.and_then(|s| s.code()).filter(|c| *c != 0),
    ) {
        // It has said what is wrong with it.
        return Ok(Outcome::NoDevice(code));
    }
    Ok(Outcome::Rows(rows_of(part.name, lines, ended)))
}

/// The rows that a part has left, and one for what it was at where its process ended otherwise than by itself.
fn rows_of(part: &str, lines: Vec<Line>, ended: Option<String>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut at = None;
    for line in lines {
        match line {
            Line::Begin(name) => at = Some(name),
            Line::Row(row) => {
                at = None;
                rows.push(row);
            }
        }
    }
    match ended {
        Some(why) => {
            let name = at.unwrap_or(format!("{part}, behind its last row"));
            let row = Row::of(&name, Verdict::Failed, why);
            crate::say!("  {}", row.line());
            rows.push(row);
        }
        None if rows.is_empty() => rows.push(Row::of(part, Verdict::Failed, "it found nothing")),
        None => {}
    }
    rows
}

/// One part, in the process that [`run`] has started for it.
#[derive(Debug, Clone)]
pub(crate) struct One {
    pub part: String,
    pub rows: PathBuf,
    pub seconds: f64,
    pub fault: Option<String>,
}

/// Runs it. Returns the exit code.
///
/// # Errors
/// A part that does not exist; a file of rows that cannot be written to.
pub(crate) fn run_one(one: &One, options: &Options) -> Result<i32> {
    let part = PARTS.iter().find(|p| p.name == one.part);
    let part = part.ok_or_else(|| Error::usage(format!("no part `{}`", one.part)))?;
    let device = match crate::device::of(&options.device) {
        Ok(device) => device,
        Err(e) => {
            let text = e.to_string();
            let first = text.lines().next().unwrap_or_default();
            crate::say!("gpu-check: nothing was run: {first}");
            return Ok(e.exit_code());
        }
    };
    crate::say!("{}", part.title);
    let fault = one.fault.as_deref().and_then(Fault::read);
    let time = Duration::from_secs_f64(one.seconds);
    let mut check = Check::new(&one.rows, device, options.tiny, time, fault)?;
    check.python = options.python.clone();
    check.peak_tflops = options.peak_tflops;
    (part.run)(&mut check)?;
    // All rows are in the file: what destructors may still wait for is of no interest.
    crate::ffi::exit_at_once(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_crashes_leaves_the_rows_before_and_one_that_says_where() {
        let row = |name: &str| Line::Row(Row::of(name, Verdict::Ok, ""));
        let begun = |name: &str| Line::Begin(name.to_owned());
        let lines = vec![begun("a"), row("a"), begun("b")];
        let rows = rows_of("p", lines, Some("its process was ended by signal 11".into()));
        let found: Vec<(&str, Verdict)> = rows.iter().map(|r| (r.name.as_str(), r.verdict)).collect();
        assert_eq!(found, [("a", Verdict::Ok), ("b", Verdict::Failed)]);
        assert_eq!(rows_of("p", vec![row("a")], None).len(), 1);
        assert_eq!(rows_of("p", vec![], None)[0].verdict, Verdict::Failed);
        let behind = rows_of("p", vec![row("a")], Some("its process ended with code 1".into()));
        assert_eq!(behind[1].name, "p, behind its last row");
    }

    #[test]
    fn all_parts_together_keep_to_the_time() {
        assert_eq!(PARTS.iter().map(|p| p.minutes).sum::<f64>(), MINUTES);
    }
}
