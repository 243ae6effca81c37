//! The paper's tables of results: its numbers, the previous best, and what was measured here, from cards and `results.json` alone.

use super::table::Table;
use crate::benchmark::names::{Aggregation, Rule, Unit};
use crate::benchmark::{Card, Number};
use crate::error::{Error, Result};
use crate::run::scored::Scored;
use std::path::{Path, PathBuf};

/// Folders below each other in which results are looked for.
const DEEPEST: usize = 6;
/// What a cell says when no result stands behind it.
const MISSING: &str = "missing";

/// One of the paper's tables.
pub struct PaperTable {
    /// As the paper has it.
    pub number: u32,
    /// What it shows.
    pub title: &'static str,
    /// Its rows.
    pub table: Table,
    /// What a reader must know of single cells.
    pub notes: Vec<String>,
    /// Commands that fill what is missing.
    pub commands: Vec<String>,
}

/// Results of benchmarks, with their files.
#[derive(Default)]
pub struct Measured {
    all: Vec<(PathBuf, Scored)>,
    /// Files that could not be read, each with the reason.
    pub unreadable: Vec<String>,
}

impl Measured {
    /// Every `results.json` of `af2 score --benchmark` below a folder. A folder that is not there has none.
    pub fn below(folder: &Path) -> Self {
        let mut found = Measured::default();
        found.look(folder, DEEPEST);
        found.all.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    fn look(&mut self, folder: &Path, deep: usize) {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
            .collect();
        entries.sort();
        for path in entries {
            let link = path.symlink_metadata().is_ok_and(|m| m.file_type().is_symlink());
            if path.is_dir() && deep > 0 && !link {
                self.look(&path, deep - 1);
            } else if path.file_name().is_some_and(|n| n == "results.json") {
                match of_benchmark(&path) {
                    Ok(Some(scored)) => self.all.push((path, scored)),
                    Ok(None) => {}
                    Err(e) => self.unreadable.push(e.to_string()),
                }
            }
        }
    }

    /// All of them, by their files' names.
    pub(crate) fn into_all(self) -> Vec<(PathBuf, Scored)> {
        self.all
    }

    /// The result of a benchmark under its official rule, of most items; of equals the last by its file's name. What was not heard is no
    /// result of the paper's kind.
    fn of(&self, benchmark: &str) -> Option<&(PathBuf, Scored)> {
        let heard = |s: &Scored| s.condition.is_none();
        let own = (self.all.iter()).filter(|(_, s)| s.benchmark == benchmark && heard(s));
        own.max_by_key(|(_, s)| (s.kind == "official", s.n))
    }
}

/// A benchmark's results; none where the file is a recipe's own.
fn of_benchmark(path: &Path) -> Result<Option<Scored>> {
    let text = crate::fsutil::read_text(path)?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| Error::data(path, "file", "JSON", e.to_string()))?;
    match value.get("benchmark") {
        None => Ok(None),
        Some(_) => Scored::read(path).map(Some),
    }
}

/// Tables 1 and 2, and 13 for the categories of LongAudioBench.
pub fn results(cards: &[Card], measured: &Measured) -> Vec<PaperTable> {
    let rows = |number: u32| {
        let of = cards
            .iter()
            .filter(move |c| c.paper.iter().any(|p| p.table == number));
        of.collect::<Vec<_>>()
    };
    vec![
        benchmarks(1, "Foundational benchmarks", &rows(1), measured),
        benchmarks(2, "Expert reasoning", &rows(2), measured),
        categories(13, "LongAudioBench by category", &rows(13), measured),
    ]
}

fn benchmarks(number: u32, title: &'static str, cards: &[&Card], measured: &Measured) -> PaperTable {
    let mut out = PaperTable {
        number,
        title,
        table: Table::new([
            "benchmark",
            "metric",
            "AF2, paper",
            "previous best",
            "ours",
            "95% interval",
            "n",
            "ours − paper",
        ]),
        notes: Vec::new(),
        commands: Vec::new(),
    };
    for card in cards {
        let row = card.paper.iter().find(|p| p.table == number);
        let name = row.map_or(card.name.as_str(), |p| p.row.as_str());
        let paper = card.numbers.paper.value;
        let previous = card.numbers.previous.as_ref().and_then(|n| {
            let value = plain(n.value?, card);
            Some(format!("{value} {}", n.model))
        });
        let mut cells = vec![
            name.to_owned(),
            card.metric.name().to_owned(),
            paper.map_or(String::new(), |v| plain(v, card)),
            previous.unwrap_or_default(),
        ];
        match measured.of(&card.name) {
            Some((file, scored)) => {
                let ours = scored.score.map(|s| in_unit(s, card));
                cells.extend([
                    ours.map_or("none".to_owned(), |v| plain(v, card)),
                    scored.interval.map_or("–".to_owned(), |i| {
                        format!(
                            "{} to {}",
                            plain(in_unit(i.low, card), card),
                            plain(in_unit(i.high, card), card)
                        )
                    }),
                    scored.n.to_string(),
                    ours.zip(paper)
                        .map_or(String::new(), |(a, b)| signed(a - b, card)),
                ]);
                let run = file.parent().unwrap_or(file).display();
                let model = scored
                    .model
                    .as_deref()
                    .map_or(String::new(), |m| format!(", {m}"));
                let mut note = format!("{name}: {run}{model}, rule {} ({})", scored.rule, scored.kind);
                if scored.data.expected.is_some_and(|all| all != scored.n as u64) {
                    note += &format!("; limited: {}", scored.name);
                }
                if !scored.data.known {
                    note += "; other data: the items are no file that the card knows by its sha256";
                }
                if scored.unread.is_some_and(|u| u > 0.02) {
                    note += &format!(
                        "; not read: {:.1}% of the answers",
                        100.0 * scored.unread.unwrap_or(0.0)
                    );
                }
                out.notes.push(note);
            }
            None => {
                cells.push(MISSING.to_owned());
                out.commands.push(command(card));
            }
        }
        out.table.row(cells);
    }
    out
}

/// The parts of one benchmark's score.
fn categories(number: u32, title: &'static str, cards: &[&Card], measured: &Measured) -> PaperTable {
    let mut out = PaperTable {
        number,
        title,
        table: Table::new(["category", "AF2, paper", "paper, without LongAudio", "ours"]),
        notes: Vec::new(),
        commands: Vec::new(),
    };
    for card in cards {
        let other = |part: &str| {
            let of = card.numbers.later.iter().find(|n| !n.parts.is_empty())?;
            of.parts.get(part).copied()
        };
        let shown = |v: Option<f64>| v.map_or(String::new(), |v| format!("{v:.2}"));
        let found = measured.of(&card.name);
        let ours = |part: &str| {
            found
                .and_then(|(_, s)| s.parts.get(part))
                .map(|s| in_unit(*s, card))
        };
        let cell = |v: Option<f64>| v.map_or(MISSING.to_owned(), |v| format!("{v:.2}"));
        for (part, value) in &card.numbers.paper.parts {
            out.table.row([
                part.clone(),
                format!("{value:.2}"),
                shown(other(part)),
                cell(ours(part)),
            ]);
        }
        let mean = mean_of(&card.numbers.paper);
        let total = found.and_then(|(_, s)| s.score).map(|s| in_unit(s, card));
        let how = match card.aggregation {
            Aggregation::Macro => "mean of the categories",
            Aggregation::Micro => "all",
        };
        let of_other = card.numbers.later.iter().find(|n| !n.parts.is_empty());
        out.table.row([
            how.to_owned(),
            shown(mean),
            shown(of_other.and_then(mean_of)),
            cell(total),
        ]);
        if let Some(note) = of_other.and_then(|n| n.note.as_ref().zip(n.value)) {
            out.notes.push(format!(
                "the paper prints {} for its second column: {}",
                note.1, note.0
            ));
        }
        if found.is_none() {
            out.commands.push(command(card));
        }
    }
    out
}

/// What fills a card's cell.
fn command(card: &Card) -> String {
    let name = &card.name;
    if card.decoding.is_none() {
        return format!("af2 score --benchmark {name} --predictions FILE --out experiments/RUN/{name}");
    }
    let more = match card.rules.as_ref().map(|rules| rules.official) {
        Some(Rule::ClapLabel) => " --label-clap CHECKPOINT",
        Some(Rule::Judge) => " --judge-endpoint URL",
        _ => "",
    };
    format!("af2 eval --checkpoint CHECKPOINT --benchmarks {name}{more} --out experiments/RUN")
}

fn mean_of(number: &Number) -> Option<f64> {
    let parts = &number.parts;
    (!parts.is_empty()).then(|| parts.values().sum::<f64>() / parts.len() as f64)
}

/// A share in the unit of the card's numbers.
pub(super) fn in_unit(share: f64, card: &Card) -> f64 {
    match card.unit {
        Unit::Percent => 100.0 * share,
        Unit::Plain => share,
    }
}

/// With the paper's digits.
pub(super) fn plain(value: f64, card: &Card) -> String {
    match card.unit {
        Unit::Percent => format!("{value:.1}"),
        Unit::Plain => format!("{value:.2}"),
    }
}

fn signed(value: f64, card: &Card) -> String {
    match card.unit {
        Unit::Percent => format!("{value:+.1}"),
        Unit::Plain => format!("{value:+.2}"),
    }
}
