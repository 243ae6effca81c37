//! `af2 score compare` and `af2 score seeds`

use super::arrays::print;
use super::shown::{percent, plain};
use crate::error::{Error, Result};
use crate::eval::scoring::{compare, seeds, Compared, Seeds};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::report::table::Table;
use crate::run::scored::{self, Scored};
use clap::Args;
use std::path::{Path, PathBuf};

/// Ids that are told one by one.
const MOST_IDS: usize = 5;

#[derive(Args)]
pub(crate) struct CompareArgs {
    /// The first run's results of a benchmark: a folder with results.json, or the file.
    #[arg(value_name = "A")]
    first: PathBuf,
    /// The second's, over the same items.
    #[arg(value_name = "B")]
    second: PathBuf,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Args)]
pub(crate) struct SeedsArgs {
    /// Results of runs that differ by their seed: folders with results.json, or the files.
    #[arg(value_name = "RUN", required = true, num_args = 1..)]
    runs: Vec<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Args)]
struct HowArgs {
    /// Of results whose items have values, which one: cider, rouge_l, … Default: the benchmark's metric.
    #[arg(long, value_name = "NAME")]
    value: Option<String>,
    /// Also results of other items or another version of the card: by ids, for what that is worth.
    #[arg(long)]
    accept: bool,
    /// One object with every number.
    #[arg(long)]
    json: bool,
}

fn read(path: &Path) -> Result<Scored> {
    let file = if path.is_dir() {
        scored::path(path)
    } else {
        path.to_owned()
    };
    Scored::read(&file).map_err(|e| {
        e.hint(
            "`af2 score --benchmark NAME --predictions FILE --out DIR` writes results that can be compared",
        )
    })
}

fn json(value: &impl serde::Serialize) -> Result<()> {
    print(&serde_json::to_value(value).map_err(|e| Error::io("JSON", e.into()))?)
}

pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    let (first, second) = (read(&args.first)?, read(&args.second)?);
    let how = &args.how;
    let of = |file, scored| (file, scored);
    let (a, b) = (
        of(args.first.as_path(), &first),
        of(args.second.as_path(), &second),
    );
    let found = compare(a, b, how.value.as_deref(), how.accept, Bootstrap::default())?;
    if how.json {
        return json(&found);
    }
    let model = |scored: &Scored, file: &Path| match &scored.model {
        Some(model) => format!("{} ({model})", file.display()),
        None => file.display().to_string(),
    };
    crate::out!("A: {}", model(&first, &args.first));
    crate::out!("B: {}", model(&second, &args.second));
    show(&found);
    Ok(())
}

/// Shares in percent and their differences in points; other values as they are.
struct Unit {
    verdicts: bool,
}

impl Unit {
    fn of(value: &str) -> Self {
        Unit {
            verdicts: value == "correct",
        }
    }

    fn value(&self, value: f64) -> String {
        if self.verdicts {
            percent(value) + "%"
        } else {
            plain(value)
        }
    }

    fn difference(&self, value: f64) -> String {
        match self.verdicts {
            true => format!("{:+.2} points", 100.0 * value),
            false => format!("{value:+.4}"),
        }
    }

    fn values(&self, interval: Interval) -> String {
        match self.verdicts {
            true => format!("{} to {}%", percent(interval.low), percent(interval.high)),
            false => format!("{} to {}", plain(interval.low), plain(interval.high)),
        }
    }

    fn differences(&self, interval: Interval) -> String {
        let (low, high) = (interval.low, interval.high);
        match self.verdicts {
            true => format!("{:+.2} to {:+.2} points", 100.0 * low, 100.0 * high),
            false => format!("{low:+.4} to {high:+.4}"),
        }
    }

    fn size(&self, value: Option<f64>) -> String {
        match (value, self.verdicts) {
            (None, _) => "none could".to_owned(),
            (Some(v), true) => format!("{:.2} points", 100.0 * v),
            (Some(v), false) => format!("{v:.4}"),
        }
    }
}

fn over(clips: Option<usize>) -> String {
    clips.map_or("items".to_owned(), |n| format!("{n} clips"))
}

fn p(value: f64) -> String {
    match value < 0.0001 {
        true => format!("{value:.1e}"),
        false => format!("{value:.4}"),
    }
}

fn show(found: &Compared) {
    let unit = Unit::of(&found.value);
    let what = match unit.verdicts {
        true => format!("right answers by the rule {}", found.rule),
        false => found.value.clone(),
    };
    crate::out!(
        "{}: {what}, over {} items that both have",
        found.benchmark,
        found.n
    );
    if !found.same_data {
        crate::out!("NOT the same items by their hash: matched by ids, as --accept says");
    }
    if let Some(agreement) = &found.agreement {
        let mut table = Table::new(["items", "B right", "B wrong"]);
        let row = |name: &str, a: usize, b: usize| [name.to_owned(), a.to_string(), b.to_string()];
        table.row(row("A right", agreement.both_right, agreement.only_first_right));
        table.row(row("A wrong", agreement.only_second_right, agreement.both_wrong));
        crate::out!("{}", table.terminal());
    }
    let mut table = Table::new(["measure", "value"]);
    let mut row = |name: String, value: String| {
        table.row([name, value]);
    };
    row("A".into(), unit.value(found.first));
    row("B".into(), unit.value(found.second));
    row("A − B".into(), unit.difference(found.difference));
    row(
        format!("  95% interval over {}", over(found.clips)),
        unit.differences(found.interval),
    );
    if let Some(value) = found.mcnemar_exact_p {
        row("p, McNemar's exact test over items".into(), p(value));
    }
    let counted = if found.randomisation_exact {
        "every sign counted"
    } else {
        "signs drawn"
    };
    row(
        format!("p, paired randomisation over {} ({counted})", over(found.clips)),
        p(found.randomisation_p),
    );
    let smallest = match found.smallest_difference {
        None if found.interval.low == found.interval.high => "unknown: they do not differ".to_owned(),
        smallest => unit.size(smallest),
    };
    row(
        "smallest difference shown at 80% power, 5% level".into(),
        smallest,
    );
    if unit.verdicts {
        row(
            "  of two models over items of their own".into(),
            unit.size(found.smallest_unpaired),
        );
    }
    crate::out!("{}", table.terminal());
    for (name, ids) in [("A", &found.only_first), ("B", &found.only_second)] {
        if !ids.is_empty() {
            let shown = ids.iter().take(MOST_IDS).cloned().collect::<Vec<_>>().join(", ");
            let more = if ids.len() > MOST_IDS { ", …" } else { "" };
            crate::out!(
                "{name} alone has {} items in its score, not compared: {shown}{more}",
                ids.len()
            );
        }
    }
}

pub(crate) fn run_seeds(args: &SeedsArgs) -> Result<()> {
    let all = args
        .runs
        .iter()
        .map(|path| read(path))
        .collect::<Result<Vec<_>>>()?;
    let runs: Vec<(&Path, &Scored)> = args.runs.iter().map(PathBuf::as_path).zip(&all).collect();
    let how = &args.how;
    let found = seeds(&runs, how.value.as_deref(), how.accept, Bootstrap::default())?;
    if how.json {
        return json(&found);
    }
    show_seeds(&args.runs, &found);
    Ok(())
}

fn show_seeds(files: &[PathBuf], found: &Seeds) {
    let unit = Unit::of(&found.value);
    let what = match unit.verdicts {
        true => format!("right answers by the rule {}", found.rule),
        false => found.value.clone(),
    };
    crate::out!("{}: {what}, over {} items", found.benchmark, found.n);
    let mut table = Table::new(["measure", "value"]);
    for (file, value) in files.iter().zip(&found.runs) {
        table.row([file.display().to_string(), unit.value(*value)]);
    }
    let deviation = found
        .between_seeds_deviation
        .map_or("of one run unknown".to_owned(), |d| unit.size(Some(d)));
    for (name, value) in [
        ("mean of the runs".to_owned(), unit.value(found.mean)),
        ("between-seed deviation: training again".to_owned(), deviation),
        (
            format!("95% sampling interval over {}", over(found.clips)),
            unit.values(found.sampling_interval),
        ),
    ] {
        table.row([name, value]);
    }
    crate::out!("{}", table.terminal());
}
