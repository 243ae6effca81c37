//! What was found, as JSON and as Markdown.

use crate::error::{Error, Result};
use crate::fsutil::{write_atomic_bytes, write_json};
use crate::report::table::Table;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Of the JSON's keys and their meaning. What is added leaves it; what changes raises it.
pub(crate) const SCHEMA: u32 = 1;
/// The two files.
pub(crate) const JSON: &str = "gpu-check.json";
pub(crate) const MARKDOWN: &str = "gpu-check.md";

/// What a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Within its bounds.
    Ok,
    /// Measured; nothing bounds it.
    Noted,
    /// Past a bound.
    Broken,
    /// An error, a fault, or the end of the process came instead of a number.
    Failed,
    /// There was no time, or what it needs is not there.
    NotRun,
}

impl Verdict {
    pub(crate) const ALL: [Verdict; 5] = [
        Verdict::Ok,
        Verdict::Noted,
        Verdict::Broken,
        Verdict::Failed,
        Verdict::NotRun,
    ];

    fn words(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Noted => "noted",
            Verdict::Broken => "BROKEN",
            Verdict::Failed => "FAILED",
            Verdict::NotRun => "not run",
        }
    }

    /// Whether it ends the check with an error.
    pub(crate) fn is_bad(self) -> bool {
        matches!(self, Verdict::Broken | Verdict::Failed)
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub name: String,
    pub verdict: Verdict,
    /// Every column of its part; null where there is nothing to say.
    pub values: IndexMap<String, Value>,
    /// Which bound is broken and why, or what to know of the numbers.
    pub note: String,
}

impl Row {
    /// One without numbers.
    pub(crate) fn of(name: &str, verdict: Verdict, note: impl Into<String>) -> Self {
        Row {
            name: name.to_owned(),
            verdict,
            values: IndexMap::new(),
            note: note.into(),
        }
    }

    /// One line for who watches.
    pub(crate) fn line(&self) -> String {
        let values = self.values.iter().filter(|(_, v)| !v.is_null());
        let values: Vec<String> = values.map(|(k, v)| format!("{k} {}", shown(v))).collect();
        let mut line = format!("{}: {}", self.name, self.verdict.words());
        for more in [values.join(", "), self.note.clone()] {
            if !more.is_empty() {
                line = format!("{line}; {more}");
            }
        }
        line
    }
}

/// One part's rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartReport {
    pub name: String,
    pub title: String,
    /// How to read it: what the bounds are and why.
    pub about: String,
    pub columns: Vec<String>,
    pub seconds: f64,
    pub rows: Vec<Row>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub schema: u32,
    pub af2: String,
    pub libtorch: String,
    /// As it was asked for.
    pub device: String,
    /// Tiny sizes: shows that the check works, and nothing of a card's speed or memory.
    pub tiny: bool,
    pub minutes: f64,
    pub started_unix: u64,
    pub seconds: f64,
    /// `ok`, or `broken` where a row is broken or failed.
    pub verdict: Verdict,
    /// Rows of each verdict.
    pub counts: IndexMap<String, usize>,
    pub parts: Vec<PartReport>,
}

impl Report {
    /// Fills every row's columns, counts, judges.
    pub(crate) fn close(&mut self, seconds: f64) {
        self.seconds = seconds;
        for part in &mut self.parts {
            for row in &mut part.rows {
                let mut had = std::mem::take(&mut row.values);
                let columns = part.columns.iter();
                row.values = columns
                    .map(|c| (c.clone(), had.shift_remove(c).unwrap_or(Value::Null)))
                    .collect();
            }
        }
        let rows = || self.parts.iter().flat_map(|p| &p.rows);
        let count = |v: Verdict| rows().filter(|r| r.verdict == v).count();
        self.counts = Verdict::ALL
            .iter()
            .map(|v| (v.words().to_lowercase().replace(' ', "_"), count(*v)))
            .collect();
        self.verdict = match rows().any(|r| r.verdict.is_bad()) {
            true => Verdict::Broken,
            false => Verdict::Ok,
        };
    }

    /// Names of the rows that are broken or failed, with their notes.
    pub(crate) fn bad(&self) -> Vec<String> {
        let rows = self.parts.iter().flat_map(|p| p.rows.iter().map(move |r| (p, r)));
        let bad = rows.filter(|(_, r)| r.verdict.is_bad());
        bad.map(|(p, r)| format!("{}: {}: {}", p.name, r.name, r.note))
            .collect()
    }

    /// Writes both files into `folder`.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub(crate) fn write(&self, folder: &Path) -> Result<[PathBuf; 2]> {
        let files = [folder.join(MARKDOWN), folder.join(JSON)];
        write_atomic_bytes(&files[0], self.markdown().as_bytes())?;
        let json = serde_json::to_value(self).map_err(|e| Error::usage(format!("{JSON}: {e}")))?;
        write_json(&files[1], &json)?;
        Ok(files)
    }

    pub(crate) fn markdown(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(k, n)| format!("{n} {k}")).collect();
        let mut text = format!(
            "# af2 gpu-check\n\naf2 {}, libtorch {}, device `{}`{}; {:.1} minutes of {:.0}; **{}**: {}\n",
            self.af2,
            self.libtorch,
            self.device,
            match self.tiny {
                true =>
                    ", tiny sizes: this shows that the check works, and nothing of a card's speed or memory",
                false => "",
            },
            self.seconds / 60.0,
            self.minutes,
            self.verdict.words(),
            counts.join(", ").replace('_', " "),
        );
        for part in &self.parts {
            text += &format!("\n## {}\n\n", part.title);
            if !part.about.is_empty() {
                text += &format!("{}\n\n", part.about);
            }
            let columns = part.columns.iter().map(|c| c.replace('_', " "));
            let header = std::iter::once("".to_owned()).chain(columns);
            let mut table = Table::new(header.chain(["verdict".into(), "note".into()]));
            for row in &part.rows {
                let cells = part
                    .columns
                    .iter()
                    .map(|c| row.values.get(c).map_or(String::new(), shown));
                let cells = std::iter::once(row.name.clone()).chain(cells);
                table.row(cells.chain([row.verdict.words().into(), row.note.clone()]));
            }
            text += &table.markdown();
            text += &format!("\n{:.0} s\n", part.seconds);
        }
        text += &format!("\n---\n\n{}\n", self.send_back());
        text
    }

    /// What is worth sending, and where.
    pub(crate) fn send_back(&self) -> String {
        format!(
            "Please send back `{MARKDOWN}` and `{JSON}`, whole: attach them to an issue of the project that this af2 is from. They hold \
             the names of the card, its driver and its libraries; of this machine's paths at most what an error in a note names."
        )
    }
}

/// A value as a cell.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        Value::Number(n) if n.is_f64() => number(n.as_f64().unwrap_or(f64::NAN)),
        other => other.to_string(),
    }
}

/// Three digits that count.
fn number(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        a if !(1e-3..1e6).contains(&a) => format!("{x:.1e}"),
        a if a < 0.1 => format!("{x:.4}"),
        a if a < 10.0 => format!("{x:.2}"),
        a if a < 100.0 => format!("{x:.1}"),
        _ => format!("{x:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: Vec<Row>) -> Report {
        let mut report = Report {
            schema: SCHEMA,
            af2: "0".into(),
            libtorch: "0".into(),
            device: "cpu".into(),
            tiny: true,
            minutes: 20.0,
            started_unix: 0,
            seconds: 0.0,
            verdict: Verdict::Ok,
            counts: IndexMap::new(),
            parts: vec![PartReport {
                name: "p".into(),
                title: "Part".into(),
                about: "How to read it.".into(),
                columns: vec!["error".into(), "bound".into()],
                seconds: 1.0,
                rows,
            }],
        };
        report.close(60.0);
        report
    }

    #[test]
    fn every_row_has_every_column_and_one_that_is_bad_decides() {
        let mut good = Row::of("a", Verdict::Ok, "");
        good.values.insert("bound".into(), 1e-4.into());
        good.values.insert("no column".into(), 1.into());
        let fine = report(vec![good.clone(), Row::of("b", Verdict::NotRun, "time")]);
        assert_eq!(fine.verdict, Verdict::Ok);
        for row in &fine.parts[0].rows {
            assert_eq!(row.values.keys().collect::<Vec<_>>(), ["error", "bound"]);
        }
        for bad in [Verdict::Broken, Verdict::Failed] {
            let report = report(vec![good.clone(), Row::of("b", bad, "why")]);
            assert_eq!(report.verdict, Verdict::Broken);
            assert_eq!(report.bad(), ["p: b: why"]);
            assert_eq!(report.counts["ok"], 1);
        }
    }

    #[test]
    fn markdown_has_a_table_a_part_and_says_what_to_send() {
        let mut row = Row::of("a | b", Verdict::Broken, "error is past 1e-4");
        row.values.insert("error".into(), 0.25.into());
        row.values.insert("bound".into(), 1e-4.into());
        let text = report(vec![row]).markdown();
        assert!(
            text.contains("**BROKEN**: 0 ok, 0 noted, 1 broken, 0 failed, 0 not run"),
            "{text}"
        );
        assert!(
            text.contains("|  | error | bound | verdict | note |\n|---|---:|---:|---:|---:|\n"),
            "{text}"
        );
        assert!(
            text.contains("| a \\| b | 0.25 | 1.0e-4 | BROKEN | error is past 1e-4 |"),
            "{text}"
        );
        assert!(
            text.trim_end().ends_with("what an error in a note names."),
            "{text}"
        );
    }

    #[test]
    fn a_report_is_read_back_as_it_was() {
        let report = report(vec![Row::of("a", Verdict::Failed, "why")]);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
