//! `af2 score --benchmark`

use super::shown::show;
use super::told::differences;
use crate::benchmark::{Entry, Registry};
use crate::error::{Error, Result};
use crate::eval::scoring::{self, Kind, Overrides, Source, Way};
use crate::metrics::bootstrap::Bootstrap;
use crate::run::scored::{self, PredictionsFile, Scored};
use clap::{Args, ValueEnum};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct BenchmarkArgs {
    /// Results of a benchmark, a folder with results.json: makes them again from the files that they name, without a model.
    #[arg(value_name = "RUN", conflicts_with_all = ["benchmark", "predictions", "items", "rule", "model", "out"])]
    run: Option<PathBuf>,
    /// With RUN: writes nothing, and says what would differ.
    #[arg(long, requires = "run")]
    check: bool,
    /// With RUN: also from files or a card that have changed since.
    #[arg(long, requires = "run")]
    accept: bool,
    /// The benchmark, as `af2 benchmark ls` names it.
    #[arg(long, value_name = "NAME", requires = "predictions")]
    benchmark: Option<String>,
    /// What a model has said: `predictions.jsonl` of af2, the benchmark's own prediction file, samples of lm-evaluation-harness, a
    /// log of inspect (.eval, .json), captions with their references, or id and prediction with --items.
    #[arg(long, value_name = "FILE", requires = "benchmark")]
    predictions: Option<PathBuf>,
    /// The official file of the items or an imported manifest, for predictions that carry none.
    #[arg(long, value_name = "FILE", requires = "benchmark")]
    items: Option<PathBuf>,
    /// Which rule reads the answers; the other one's score stands beside it.
    #[arg(long, value_enum, default_value = "official")]
    rule: Kind,
    /// Whose predictions these are, for tables.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Corrections by hand: {"item", "verdict", "author", "reason"} a line. Default: overrides.jsonl in --out's folder or RUN, where it is.
    #[arg(long, value_name = "FILE.jsonl")]
    overrides: Option<PathBuf>,
    /// Leaves out what constant answers get: it costs a verdict for each option.
    #[arg(long)]
    no_frame: bool,
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

/// What is to be scored.
struct Wanted<'a> {
    entry: &'a Entry,
    predictions: &'a Path,
    items: Option<&'a Path>,
    kind: Kind,
    model: Option<String>,
    /// Where the results lie, or will.
    folder: Option<&'a Path>,
    overrides: Option<PathBuf>,
    frame: bool,
    bootstrap: Bootstrap,
}

pub(crate) fn run(args: &BenchmarkArgs) -> Result<()> {
    if let Some(run) = &args.run {
        return again(args, run);
    }
    let (Some(name), Some(path)) = (&args.benchmark, &args.predictions) else {
        return Err(Error::usage(
            "expected --benchmark NAME --predictions FILE, a folder with results, or one of the verbs",
        )
        .hint("`af2 score --help`"));
    };
    let registry = Registry::with(args.cards.as_deref())?;
    let scored = score(Wanted {
        entry: registry.entry(name)?,
        predictions: path,
        items: args.items.as_deref(),
        kind: args.rule,
        model: args.model.clone(),
        folder: args.out.as_deref(),
        overrides: overrides(args, args.out.as_deref()),
        frame: !args.no_frame,
        bootstrap: Bootstrap::default(),
    })?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        scored.write(&scored::path(folder))?;
    }
    tell(args, &scored)
}

/// The file that was named, or the one that lies where the results do.
fn overrides(args: &BenchmarkArgs, folder: Option<&Path>) -> Option<PathBuf> {
    let beside = || folder.map(scored::overrides).filter(|file| file.is_file());
    args.overrides.clone().or_else(beside)
}

fn tell(args: &BenchmarkArgs, scored: &Scored) -> Result<()> {
    if args.json {
        let text = serde_json::to_string(scored).map_err(|e| Error::io("JSON", e.into()))?;
        crate::out!("{text}");
        return Ok(());
    }
    show(scored);
    Ok(())
}

fn score(wanted: Wanted) -> Result<Scored> {
    let (path, card) = (wanted.predictions, wanted.entry.card()?);
    // Before anything is read: what cannot be scored so.
    let way = Way::of(&card, wanted.kind)?;
    let source = |form: &str, sha256: String| -> Result<Source> {
        let items = match wanted.items {
            Some(of) => Some(named_from(wanted.folder, of)?),
            None => None,
        };
        Ok(Source {
            items: match (wanted.items, &items) {
                (Some(of), Some(named)) => Some((scoring::sha256(of)?, named.display().to_string())),
                _ => None,
            },
            model: wanted.model.clone(),
            card_sha256: scoring::hex(&Sha256::digest(wanted.entry.text.as_bytes())),
            predictions: Some(PredictionsFile {
                path: named_from(wanted.folder, path)?,
                sha256,
                form: form.to_owned(),
                items,
            }),
        })
    };
    let by_hand = match &wanted.overrides {
        Some(file) => Some(scoring::read_overrides(
            file,
            named_from(wanted.folder, file)?,
            scoring::sha256(file)?,
        )?),
        None => None,
    };
    let refuse = |by_hand: Option<Overrides>| match (by_hand, &wanted.overrides) {
        (Some(_), Some(file)) => {
            let expected = "corrections of a benchmark whose answers are right or wrong";
            Err(Error::data(
                file,
                &card.name,
                expected,
                format!("the metric {}", card.metric),
            ))
        }
        _ => Ok(()),
    };
    match way {
        Way::Verdicts => {
            let (file, sha256) = rayon::join(|| scoring::open(path), || scoring::sha256(path));
            let (file, sha256) = (file?, sha256?);
            let mut records = file.records()?;
            mended(path, records.mended);
            silent(path, records.without_control());
            let items = wanted.items.map(scoring::open).transpose()?;
            let items = match (wanted.items, &items) {
                (Some(of), Some(items)) => Some((of, items.records()?)),
                _ => None,
            };
            let (form, samples) = scoring::samples(path, records, items, &card)?;
            let source = source(form.name(), sha256)?;
            let mut scored = scoring::score(&card, &samples, wanted.kind, source, wanted.bootstrap)?;
            if wanted.frame {
                scoring::add_frame(&mut scored, &card, &samples, wanted.kind)?;
            }
            if let Some(by_hand) = by_hand {
                scoring::correct(&mut scored, &card, &samples, wanted.kind, by_hand)?;
            }
            Ok(scored)
        }
        Way::Texts => {
            refuse(by_hand)?;
            let pairs = scoring::pairs(path, wanted.items, &card)?;
            mended(path, pairs.mended);
            silent(path, pairs.silent);
            let source = source(pairs.form, scoring::sha256(path)?)?;
            scoring::texts(&card, &pairs.all, source, wanted.bootstrap)
        }
        Way::Classes => {
            refuse(by_hand)?;
            let source = source("scores of labels", scoring::sha256(path)?)?;
            let (scored, halves) = scoring::classes(&card, path, wanted.items, source, wanted.bootstrap)?;
            mended(path, halves);
            Ok(scored)
        }
    }
}

fn mended(path: &Path, records: usize) {
    if records > 0 {
        crate::say!(
            "note: {}: {records} records hold half of a surrogate pair, which is no text; U+FFFD stands in its place",
            path.display(),
        );
    }
}

fn silent(path: &Path, answers: usize) {
    if answers > 0 {
        crate::say!(
            "note: {}: {answers} answers to silence in the sound's place are left out: they are the control, not the model's score",
            path.display(),
        );
    }
}

/// Makes results again from the files that they name.
fn again(args: &BenchmarkArgs, run: &Path) -> Result<()> {
    let (folder, file) = match run.is_dir() {
        true => (run.to_owned(), scored::path(run)),
        false => (run.parent().unwrap_or(Path::new("")).to_owned(), run.to_owned()),
    };
    let before = Scored::read(&file).map_err(|e| {
        e.hint("`af2 score --benchmark NAME --predictions FILE --out DIR` writes them; those of `af2 eval` are made again by `af2 eval RECIPE --score-only`")
    })?;
    let Some(of) = &before.predictions else {
        let e = Error::data(
            &file,
            "predictions",
            "the files that were scored",
            "none, as an older af2 wrote",
        );
        return Err(e.hint("score the predictions once more with --out"));
    };
    let registry = Registry::with(args.cards.as_deref())?;
    let entry = registry.entry(&before.benchmark)?;
    let (predictions, items) = (
        folder.join(&of.path),
        of.items.as_ref().map(|items| folder.join(items)),
    );
    // What is not what it was.
    let mut changed = Vec::new();
    let mut look = |path: &Path, key: &str, was: &str, is: String| {
        if was != is {
            changed.push(Error::data(
                path,
                key,
                format!("{was}, as {} names it", file.display()),
                is,
            ));
        }
    };
    look(&predictions, "sha256", &of.sha256, scoring::sha256(&predictions)?);
    if let Some(items) = &items {
        look(items, "sha256", &before.data.sha256, scoring::sha256(items)?);
    }
    let card_sha256 = scoring::hex(&Sha256::digest(entry.text.as_bytes()));
    look(
        Path::new(&entry.file),
        "sha256 of the card",
        &before.card.sha256,
        card_sha256,
    );
    if !args.accept && !changed.is_empty() {
        let last = changed.pop().map(|e| {
            e.hint("--accept makes the results from these; --cards DIR, if the card was one of yours")
        });
        changed.extend(last);
        return crate::error::all(changed);
    }
    for e in &changed {
        crate::say!("note: {e}");
    }
    let by_hand = match (&before.corrected, overrides(args, Some(&folder))) {
        (_, Some(file)) => Some(file),
        (Some(corrected), None) => Some(folder.join(&corrected.path)),
        (None, None) => None,
    };
    let after = score(Wanted {
        entry,
        predictions: &predictions,
        items: items.as_deref(),
        kind: Kind::from_str(&before.kind, false)
            .map_err(|e| Error::data(&file, "kind", "official or fair", e))?,
        model: before.model.clone(),
        folder: Some(&folder),
        overrides: by_hand,
        frame: !args.no_frame && (before.frame.is_some() || before.af2.is_none()),
        bootstrap: before.bootstrap,
    })?;
    let told = differences(&file, &before, &after)?;
    if args.check {
        return match told.differ {
            false => {
                crate::out!("{}", told.text);
                Ok(())
            }
            true => Err(Error::Mismatch(told.text)),
        };
    }
    after.write(&file)?;
    tell(args, &after)?;
    crate::say!("{}", told.text);
    Ok(())
}

/// A file as results in `folder` name it: from there where it lies within, so that the folder may be moved.
pub(in crate::cli) fn named_from(folder: Option<&Path>, path: &Path) -> Result<PathBuf> {
    let whole = |p: &Path| std::path::absolute(p).map_err(|e| Error::io(p, e));
    let Some(folder) = folder else {
        return Ok(path.to_owned());
    };
    let (folder, file) = (whole(folder)?, whole(path)?);
    Ok(file.strip_prefix(&folder).map_or(file.clone(), Path::to_owned))
}
