//! Tables, for the terminal and as Markdown.

use crate::run::results::{Results, Score};
use comfy_table::{presets, CellAlignment, ColumnConstraint, ContentArrangement};

/// Names of rows up to so many columns are never broken.
const LONG_NAME: usize = 32;

/// What a cell says when no run stands behind it.
pub(crate) const NO_RUN: &str = "no run";

/// A header and rows of as many cells. Cells are text; the first column names the row, the others are aligned right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// Each as long as the header.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Table {
            header: header.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Appends a row; cells that are missing at its end stay empty, those past the header are dropped.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.header.len(), String::new());
        self.rows.push(cells);
        self
    }

    /// With lines of Unicode, as wide as its content; wrapped to the terminal where there is one.
    pub fn terminal(&self) -> String {
        self.drawn().to_string()
    }

    fn drawn(&self) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(self.header.iter().map(|c| one_line(c)));
        for row in &self.rows {
            table.add_row(row.iter().map(|c| one_line(c)));
        }
        // A row's name is what one copies: other cells are broken first.
        let widest = self.rows.iter().filter_map(|row| row.first());
        let named = widest.map(|name| name.chars().count()).max().unwrap_or(0) <= LONG_NAME;
        for (i, column) in table.column_iter_mut().enumerate() {
            match i {
                0 if named => {
                    column.set_constraint(ColumnConstraint::ContentWidth);
                }
                0 => {}
                _ => {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        table
    }

    /// A GitHub-flavoured Markdown table, ending in a new line.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let escaped = |c: &String| one_line(c).replace('\\', "\\\\").replace('|', "\\|");
            let cells: Vec<String> = cells.iter().map(escaped).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = line(&self.header);
        for column in 0..self.header.len() {
            text.push_str(if column == 0 { "|---" } else { "|---:" });
        }
        text.push_str("|\n");
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }
}

/// Cells come from files: a control character would break the row, or command the terminal.
fn one_line(cell: &str) -> String {
    cell.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// One row a task: task, items, accuracy, the silence control, chance. All but the items in percent.
pub(crate) fn results(results: &Results) -> Table {
    // 0.57 × 100 is 56.99…: one decimal is all that anybody means.
    let level = format!(
        "[{}% interval]",
        (1000.0 * results.bootstrap.level).round() / 10.0
    );
    let mut table = Table::new([
        "task".to_owned(),
        "n".to_owned(),
        format!("accuracy, % {level}"),
        format!("silence control, % {level}"),
        "chance, %".to_owned(),
    ]);
    for row in &results.tasks {
        let chance = row.audio.as_ref().or(row.silence.as_ref()).and_then(|s| s.chance);
        table.row([
            row.task.clone(),
            row.audio.as_ref().map_or(NO_RUN.to_owned(), |s| s.n.to_string()),
            row.audio.as_ref().map_or(NO_RUN.to_owned(), percent),
            match (&row.silence, &row.audio) {
                (None, _) => NO_RUN.to_owned(),
                (Some(s), Some(audio)) if audio.n == s.n => percent(s),
                // The column n does not count these.
                (Some(s), _) => format!("{} (n = {})", percent(s), s.n),
            },
            chance.map_or("unknown".to_owned(), |c| format!("{:.1}", 100.0 * c)),
        ]);
    }
    table
}

fn percent(score: &Score) -> String {
    let Score {
        accuracy, interval, ..
    } = score;
    format!(
        "{:.1} [{:.1}, {:.1}]",
        100.0 * accuracy,
        100.0 * interval.low,
        100.0 * interval.high
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::bootstrap::{Bootstrap, Interval};
    use crate::run::results::{Rule, TaskResult};

    fn score(n: usize, correct: usize) -> Score {
        Score {
            n,
            correct,
            accuracy: correct as f64 / n as f64,
            interval: Interval {
                low: 0.401,
                high: 0.6,
            },
            clips: Some(n),
            balanced_accuracy: None,
            unparsed: 0,
            chance: Some(0.25),
        }
    }

    fn two_tasks() -> Results {
        let row = |task: &str, audio, silence| TaskResult {
            task: task.into(),
            rule: Rule::Label,
            audio,
            silence,
        };
        Results {
            bootstrap: Bootstrap::default(),
            tasks: vec![
                row("events", Some(score(40, 20)), Some(score(40, 10))),
                row("order", Some(score(40, 30)), None),
                row("long", None, Some(score(8, 2))),
            ],
        }
    }

    #[test]
    fn results_as_markdown() {
        assert_eq!(
            results(&two_tasks()).markdown(),
            "| task | n | accuracy, % [95% interval] | silence control, % [95% interval] | chance, % |\n\
             |---|---:|---:|---:|---:|\n\
             | events | 40 | 50.0 [40.1, 60.0] | 25.0 [40.1, 60.0] | 25.0 |\n\
             | order | 40 | 75.0 [40.1, 60.0] | no run | 25.0 |\n\
             | long | no run | no run | 25.0 [40.1, 60.0] (n = 8) | 25.0 |\n"
        );
    }

    #[test]
    fn the_terminal_shows_every_cell() {
        let table = results(&two_tasks());
        // The width is given, so that the test does not depend on where it runs.
        let text = table.drawn().set_width(120).to_string();
        for cell in table.rows.iter().flatten() {
            assert!(text.contains(cell.as_str()), "{cell} in\n{text}");
        }
    }

    #[test]
    fn a_name_is_not_broken_where_the_terminal_is_narrow() {
        let mut table = Table::new(["name", "what"]);
        table.row(["audio-entailment-audiocaps", "one of a few words"]);
        let text = table.drawn().set_width(40).to_string();
        assert!(
            text.contains("audio-entailment-audiocaps") && !text.contains("few words"),
            "{text}"
        );
    }

    #[test]
    fn cells_cannot_break_out() {
        let mut table = Table::new(["name", "value"]);
        table.row(["a|b\nc\u{1b}[2J"]).row(["x", "1", "dropped"]);
        assert_eq!(
            table.markdown(),
            "| name | value |\n|---|---:|\n| a\\|b c [2J |  |\n| x | 1 |\n"
        );
        assert!(!table.terminal().contains('\u{1b}'));
    }

    #[test]
    fn a_level_other_than_95_is_named() {
        let mut few = two_tasks();
        few.bootstrap.level = 0.9;
        assert!(results(&few).header[2].contains("[90% interval]"));
    }
}
