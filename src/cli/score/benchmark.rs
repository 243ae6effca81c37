//! `af2 score --benchmark`

use crate::benchmark::Registry;
use crate::cli::parts::sha256;
use crate::error::{Error, Result};
use crate::eval::scoring::{self, Kind, Source};
use crate::metrics::bootstrap::Bootstrap;
use crate::report::table::Table;
use crate::run::scored::{self, PredictionsFile, Scored};
use clap::Args;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct BenchmarkArgs {
    /// The benchmark, as `af2 benchmark ls` names it.
    #[arg(long, value_name = "NAME", requires = "predictions")]
    benchmark: Option<String>,
    /// What a model has said: `predictions.jsonl` of af2, the benchmark's own prediction file, samples of lm-evaluation-harness, a
    /// log of inspect (.eval, .json), or id and prediction with --items.
    #[arg(long, value_name = "FILE", requires = "benchmark")]
    predictions: Option<PathBuf>,
    /// The official file of the items, for predictions that carry none.
    #[arg(long, value_name = "FILE", requires = "benchmark")]
    items: Option<PathBuf>,
    /// Which rule reads the answers; the other one's score stands beside it.
    #[arg(long, value_enum, default_value = "official")]
    rule: Kind,
    /// Whose predictions these are, for tables.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// One object: benchmark, rule, data, n, score, interval, categories, items.
    #[arg(long)]
    json: bool,
    /// Writes results.json there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A folder of cards of your own.
    #[arg(long, value_name = "DIR")]
    cards: Option<PathBuf>,
}

pub(crate) fn run(args: &BenchmarkArgs) -> Result<()> {
    let (Some(name), Some(path)) = (&args.benchmark, &args.predictions) else {
        return Err(
            Error::usage("expected --benchmark NAME --predictions FILE, or one of the verbs")
                .hint("`af2 score --help`"),
        );
    };
    let registry = Registry::with(args.cards.as_deref())?;
    let entry = registry.entry(name)?;
    let card = entry.card()?;
    // Before anything is read: what cannot be scored so.
    args.rule.rule(&card)?;
    let (file, sha256) = rayon::join(|| scoring::open(path), || scoring::sha256(path));
    let (file, sha256) = (file?, sha256?);
    let records = file.records()?;
    if records.mended > 0 {
        crate::say!(
            "note: {}: {} records hold half of a surrogate pair, which is no text; U+FFFD stands in its place",
            path.display(),
            records.mended
        );
    }
    let of = args.items.as_deref();
    let items = of.map(scoring::open).transpose()?;
    let items = match (of, &items) {
        (Some(of), Some(items)) => Some((of, items.records()?)),
        _ => None,
    };
    let (form, samples) = scoring::samples(path, records, items, &card)?;
    let source = Source {
        items: match &args.items {
            Some(of) => Some((scoring::sha256(of)?, of.display().to_string())),
            None => None,
        },
        model: args.model.clone(),
        card_sha256: scoring::hex(&Sha256::digest(entry.text.as_bytes())),
        predictions: Some(PredictionsFile {
            path: named_from(args.out.as_deref(), path)?,
            sha256,
            form: form.name().to_owned(),
            items: match &args.items {
                Some(of) => Some(named_from(args.out.as_deref(), of)?),
                None => None,
            },
        }),
    };
    let scored = scoring::score(&card, &samples, args.rule, source, Bootstrap::default())?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        scored.write(&scored::path(folder))?;
    }
    if args.json {
        let text = serde_json::to_string(&scored).map_err(|e| Error::io("JSON", e.into()))?;
        crate::out!("{text}");
        return Ok(());
    }
    show(&scored, form.name());
    Ok(())
}

/// A file as results in `folder` name it: from there where it lies within, so that the folder may be moved.
fn named_from(folder: Option<&Path>, path: &Path) -> Result<PathBuf> {
    let whole = |p: &Path| std::path::absolute(p).map_err(|e| Error::io(p, e));
    let Some(folder) = folder else {
        return Ok(path.to_owned());
    };
    let (folder, file) = (whole(folder)?, whole(path)?);
    Ok(file.strip_prefix(&folder).map_or(file.clone(), Path::to_owned))
}

fn show(scored: &Scored, form: &str) {
    let known = match scored.data.known {
        true => "the card's file",
        false => "not a file that the card knows",
    };
    crate::out!(
        "{}: {form}, items of sha256 {}… ({known})",
        scored.name,
        &scored.data.sha256[..12]
    );
    let mut table = Table::new(["", "rule", &scored.metric, "95% interval", "n", "not read"]);
    let share = |v: Option<f64>| v.map_or("–".to_owned(), percent);
    let interval = scored.interval.map_or("–".to_owned(), |i| {
        format!("{} to {}", percent(i.low), percent(i.high))
    });
    table.row([
        scored.kind.clone(),
        scored.rule.clone(),
        share(scored.score),
        interval,
        scored.n.to_string(),
        share(scored.unread),
    ]);
    if let Some(other) = &scored.other {
        let kind = if scored.kind == "official" {
            "fair"
        } else {
            "official"
        };
        table.row([
            kind.to_owned(),
            other.rule.clone(),
            share(other.score),
            other
                .difference
                .map_or(String::new(), |d| format!("{:+.2} points", 100.0 * d)),
            String::new(),
            share(other.unread),
        ]);
    }
    crate::out!("{}", table.terminal());
    for (name, value) in &scored.parts {
        crate::out!("{name} {}", percent(*value));
    }
    let states = scored.states.iter().map(|(s, n)| format!("{s} {n}"));
    crate::out!("{}", states.collect::<Vec<_>>().join(", "));
    if scored.left_out > 0 {
        crate::out!(
            "{} items are left out: by the official script, or as no part of the split",
            scored.left_out
        );
    }
    if let Some(whole) = &scored.whole {
        crate::out!("over all {} items of the file: {}", whole.n, share(whole.score));
    }
    let mut groups = Table::new(["category", "value", "n", "right", "share", "95% (Wilson)"]);
    for (key, of) in &scored.categories {
        for (value, group) in of {
            let interval = group.interval.map_or(String::new(), |i| {
                format!("{} to {}", percent(i.low), percent(i.high))
            });
            groups.row([
                key.clone(),
                value.clone(),
                group.n.to_string(),
                group.correct.to_string(),
                share(group.score),
                interval,
            ]);
        }
    }
    if scored.categories.values().any(|of| of.len() > 1) {
        crate::out!("{}", groups.terminal());
    }
}

/// A share, in percent with two digits.
fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}
