//! What the verbs over arrays share: their files' names in errors, numbers with their intervals.

use crate::cli::parts;
use crate::error::{Error, Result};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use serde_json::{json, Value};
use std::path::Path;

/// A metric names the array that it refuses; a user knows the file.
pub(super) fn in_file(error: Error, files: &[(&str, &Path)]) -> Error {
    match error {
        Error::Data {
            path,
            key,
            expected,
            found,
            hint,
        } => Error::Data {
            path: files
                .iter()
                .find(|(name, _)| path == Path::new(name))
                .map_or(path, |(_, file)| file.to_path_buf()),
            key,
            expected,
            found,
            hint,
        },
        other => other,
    }
}

/// `98.7 [95.1, 99.9]`, in percent.
pub(super) fn percent(value: f64, interval: Option<Interval>) -> String {
    number(100.0 * value, interval.map(|i| times(i, 100.0)))
}

/// With one digit behind the point.
pub(super) fn number(value: f64, interval: Option<Interval>) -> String {
    match interval {
        Some(i) => format!("{value:.1} [{:.1}, {:.1}]", i.low, i.high),
        None => format!("{value:.1}"),
    }
}

fn times(interval: Interval, factor: f64) -> Interval {
    Interval {
        low: factor * interval.low,
        high: factor * interval.high,
    }
}

/// The head of a table's first column.
pub(super) fn measure(bootstrap: &Bootstrap) -> String {
    let level = (1000.0 * bootstrap.level).round() / 10.0;
    format!("measure [{level}% interval over clips]")
}

pub(super) fn ends(interval: Interval) -> Value {
    json!([interval.low, interval.high])
}

/// One object on one line.
pub(super) fn print(object: &Value) -> Result<()> {
    parts::out(&format!("{object}\n"))
}
