//! One part of the check, in a process of its own: rows leave it as they are found, so that a fault of the driver's loses only what
//! comes after it.

use super::report::{Row, Verdict};
use crate::error::{short, Error, Result};
use crate::panics;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tch::Device;

/// What goes wrong on purpose, in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No bound holds.
    Bound,
    /// The first row panics.
    Panic,
    /// The process ends by a signal at the second row.
    Abort,
    /// The first row never ends.
    Hang,
}

impl Fault {
    pub(crate) fn read(text: &str) -> Option<Self> {
        Some(match text {
            "bound" => Fault::Bound,
            "panic" => Fault::Panic,
            "abort" => Fault::Abort,
            "hang" => Fault::Hang,
            _ => return None,
        })
    }
}

/// A line of a part's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// What is looked at now: where the process ends, this is where.
    Begin(String),
    Row(Row),
}

impl Line {
    /// All whole lines of a file; a half one is what its process wrote last.
    pub(crate) fn read_all(file: &Path) -> Vec<Line> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect()
    }
}

/// What a part works with.
pub(crate) struct Check {
    pub device: Device,
    /// Sizes that a CPU computes in a moment.
    pub tiny: bool,
    /// A Python that may have torch; none: look for one.
    pub python: Option<PathBuf>,
    /// What one device can do in bf16, in TFLOP/s, where that was said.
    pub peak_tflops: Option<f64>,
    until: Instant,
    fault: Option<Fault>,
    out: std::fs::File,
    path: PathBuf,
    rows: usize,
}

impl Check {
    pub(crate) fn new(
        file: &Path,
        device: Device,
        tiny: bool,
        time: Duration,
        fault: Option<Fault>,
    ) -> Result<Self> {
        let out = std::fs::File::options().append(true).create(true).open(file);
        Ok(Check {
            device,
            tiny,
            python: None,
            peak_tflops: None,
            until: Instant::now() + time,
            fault,
            out: out.map_err(|e| Error::io(file, e))?,
            path: file.to_path_buf(),
            rows: 0,
        })
    }

    pub(crate) fn on_gpu(&self) -> bool {
        self.device.is_cuda()
    }

    /// Of a size on a GPU, and of its tiny form.
    pub(crate) fn size<T>(&self, real: T, tiny: T) -> T {
        if self.tiny {
            tiny
        } else {
            real
        }
    }

    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// One row: what `look` sets, bounds and notes. Its error or panic is the row's. Whether there is a number.
    pub(crate) fn row(&mut self, name: &str, look: impl FnOnce(&mut Measured) -> Result<()>) -> Result<bool> {
        let fault = self.fault;
        self.rows_of(name, |_| {
            let mut measured = Measured::new(fault);
            look(&mut measured)?;
            Ok(vec![(name.to_owned(), measured)])
        })
    }

    /// Rows that are only known when they are found. `look` is given how to begin one.
    pub(crate) fn rows_of(
        &mut self,
        name: &str,
        look: impl FnOnce(&dyn Fn() -> Measured) -> Result<Vec<(String, Measured)>>,
    ) -> Result<bool> {
        if self.left().is_zero() {
            self.put(Row::of(name, Verdict::NotRun, "time"))?;
            return Ok(false);
        }
        self.write(&Line::Begin(name.to_owned()))?;
        let (fault, number) = (self.fault, self.rows);
        let found = panics::caught(|| {
            match (fault, number) {
                #[expect(clippy::panic, reason = "a fault on purpose: the report must survive it")]
                (Some(Fault::Panic), 0) => panic!("on purpose"),
                (Some(Fault::Abort), 1) => std::process::abort(),
                (Some(Fault::Hang), 0) => loop {
                    std::thread::sleep(Duration::from_secs(1));
                },
                _ => {}
            }
            look(&|| Measured::new(fault))
        });
        self.rows += 1;
        match found {
            Ok(Ok(all)) => {
                for (name, measured) in all {
                    self.put(measured.row(&name))?;
                }
                Ok(true)
            }
            Ok(Err(e)) => self
                .put(Row::of(name, Verdict::Failed, short(&e)))
                .map(|()| false),
            Err(why) => self
                .put(Row::of(name, Verdict::Failed, short(&why)))
                .map(|()| false),
        }
    }

    /// A row that needs no looking.
    pub(crate) fn put(&mut self, row: Row) -> Result<()> {
        crate::say!("  {}", row.line());
        self.write(&Line::Row(row))
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|e| Error::usage(format!("a row: {e}")))?;
        let written = self.out.write_all(format!("{text}\n").as_bytes());
        written.map_err(|e| Error::io(&self.path, e))
    }
}

/// What one row is made of.
pub(crate) struct Measured {
    values: IndexMap<String, Value>,
    bounded: bool,
    broken: Vec<String>,
    notes: Vec<String>,
    fault: Option<Fault>,
}

impl Measured {
    fn new(fault: Option<Fault>) -> Self {
        Measured {
            values: IndexMap::new(),
            bounded: false,
            broken: Vec::new(),
            notes: Vec::new(),
            fault,
        }
    }

    pub(crate) fn set(&mut self, column: &str, value: impl Into<Value>) {
        self.values.insert(column.to_owned(), value.into());
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// `value` must be at most `most`; what is no number is not.
    pub(crate) fn at_most(&mut self, what: &str, value: f64, most: f64) {
        self.must(value <= most, || {
            format!("{what} is {value:.2e}, at most {most:.2e} was expected")
        });
    }

    /// Something that must hold.
    pub(crate) fn must(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        self.bounded = true;
        match (holds, self.fault) {
            (true, Some(Fault::Bound)) => self.broken.push("broken on purpose".into()),
            (true, _) => {}
            (false, _) => self.broken.push(otherwise()),
        }
    }

    fn row(self, name: &str) -> Row {
        let verdict = match (self.broken.is_empty(), self.bounded) {
            (false, _) => Verdict::Broken,
            (true, true) => Verdict::Ok,
            (true, false) => Verdict::Noted,
        };
        let all: Vec<String> = self.broken.into_iter().chain(self.notes).collect();
        Row {
            name: name.to_owned(),
            verdict,
            values: self.values,
            note: all.join("; "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &Path, time: Duration, fault: Option<Fault>) -> Check {
        Check::new(file, Device::Cpu, true, time, fault).unwrap()
    }

    fn rows(file: &Path) -> Vec<Row> {
        let rows = Line::read_all(file).into_iter().filter_map(|l| match l {
            Line::Row(row) => Some(row),
            Line::Begin(_) => None,
        });
        rows.collect()
    }

    #[test]
    fn a_row_that_fails_or_panics_does_not_end_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows");
        let mut c = check(&file, Duration::from_secs(60), None);
        c.row("error", |_| Err(Error::device("gone"))).unwrap();
        c.row("panic", |_| panic!("no room")).unwrap();
        c.row("bound", |m| {
            m.set("error", 2.0);
            m.at_most("the error", 2.0, 1.0);
            Ok(())
        })
        .unwrap();
        c.row("nan", |m| {
            m.at_most("the error", f64::NAN, 1.0);
            Ok(())
        })
        .unwrap();
        c.row("number", |m| {
            m.set("error", 0.5);
            Ok(())
        })
        .unwrap();
        let found: Vec<(String, Verdict)> = rows(&file).iter().map(|r| (r.name.clone(), r.verdict)).collect();
        let expected = [
            ("error", Verdict::Failed),
            ("panic", Verdict::Failed),
            ("bound", Verdict::Broken),
            ("nan", Verdict::Broken),
            ("number", Verdict::Noted),
        ];
        assert_eq!(found, expected.map(|(n, v)| (n.to_owned(), v)));
        assert!(rows(&file)[1].note.contains("no room"));
        assert!(
            rows(&file)[2].note.contains("at most 1.00e0"),
            "{:?}",
            rows(&file)[2]
        );
    }

    #[test]
    fn without_time_a_row_says_so_and_a_fault_breaks_bounds_that_hold() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows");
        check(&file, Duration::ZERO, None)
            .row("late", |_| Ok(()))
            .unwrap();
        let mut c = check(&file, Duration::from_secs(60), Some(Fault::Bound));
        c.row("fine", |m| {
            m.at_most("the error", 0.0, 1.0);
            Ok(())
        })
        .unwrap();
        let found: Vec<Verdict> = rows(&file).iter().map(|r| r.verdict).collect();
        assert_eq!(found, [Verdict::NotRun, Verdict::Broken]);
    }
}
