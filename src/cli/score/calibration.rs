//! `af2 score calibration`

use super::arrays::{ends, print};
use super::shown::{between, percent, plain};
use crate::error::Result;
use crate::eval::scoring::{likelihoods, By, Likelihood};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::calibration::{calibration, Calibration, Choice};
use crate::metrics::statistics::clusters::Clusters;
use crate::report::table::Table;
use clap::Args;
use serde_json::{json, Value};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct CalibrationArgs {
    /// Lines of `af2 generate --json --choices`; `{"id", "choices", "logprobs" or "probabilities", "answer"}` a line; samples of
    /// lm-evaluation-harness's multiple choice.
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    /// The right answers, where the lines have none: a manifest, or lines with path, prompt and answer.
    #[arg(long, value_name = "FILE")]
    items: Option<PathBuf>,
    /// Which of a choice's log-probabilities are made into shares.
    #[arg(long, value_enum, default_value = "logprob")]
    by: By,
    /// Of equal width, for the calibration error: it depends on their number.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    bins: u32,
    /// One object with every number, and each item's.
    #[arg(long)]
    json: bool,
}

/// A mean over items, with its interval over clips.
struct Mean {
    value: f64,
    interval: Interval,
}

fn mean(all: &[Likelihood], bootstrap: &Bootstrap, of: impl Fn(&Likelihood) -> f64) -> Result<Mean> {
    let values: Vec<f64> = all.iter().map(of).collect();
    let clips = all.iter().enumerate().map(|(i, one)| match &one.clip {
        Some(clip) => (clip.as_str(), usize::MAX),
        None => ("", i),
    });
    let clusters = Clusters::of(clips.zip(values.iter().copied()))?;
    Ok(Mean {
        value: values.iter().sum::<f64>() / values.len() as f64,
        interval: bootstrap.clustered_mean(&clusters)?,
    })
}

pub(crate) fn run(args: &CalibrationArgs) -> Result<()> {
    let (all, mended) = likelihoods(&args.predictions, args.items.as_deref(), args.by)?;
    if mended > 0 {
        crate::say!(
            "note: {mended} records hold half of a surrogate pair, which is no text; U+FFFD stands in its place"
        );
    }
    let choices = all.iter().map(|one| Choice {
        probabilities: &one.probabilities,
        truth: one.truth,
    });
    let found = calibration(choices, args.bins as usize)
        .map_err(|e| super::arrays::in_file(e, &[("calibration", &args.predictions)]))?;
    // Files without records are refused where they are read.
    let Some(found) = found else {
        return Ok(());
    };
    let bootstrap = Bootstrap::default();
    let brier = mean(&all, &bootstrap, Likelihood::brier)?;
    let right = |one: &Likelihood| f64::from(u8::from(one.likeliest() == one.truth));
    let accuracy = mean(&all, &bootstrap, right)?;
    let confidence = mean(&all, &bootstrap, |one| one.probabilities[one.likeliest()])?;
    // What shares that are all alike get.
    let even = mean(&all, &bootstrap, |one| 1.0 - 1.0 / one.probabilities.len() as f64)?;
    if !args.json {
        show(args, &all, &found, [&brier, &accuracy, &confidence], even.value);
        return Ok(());
    }
    let bins: Vec<Value> = edges(&found)
        .map(|(from, to, bin)| {
            json!({"from": from, "to": to, "n": bin.n, "accuracy": bin.accuracy, "confidence": bin.confidence})
        })
        .collect();
    let items: Vec<Value> = all
        .iter()
        .map(|one| {
            let best = one.likeliest();
            json!({"id": one.id, "choice": one.choices[best], "probability": one.probabilities[best],
                   "probability_of_the_right_one": one.probabilities[one.truth], "correct": best == one.truth, "brier": one.brier()})
        })
        .collect();
    print(&json!({
        "n": all.len(),
        "by": args.by.name(),
        "brier": brier.value,
        "brier_of_even_shares": even.value,
        "accuracy": accuracy.value,
        "confidence": confidence.value,
        "expected_calibration_error": found.expected_error,
        "largest_calibration_error": found.largest_error,
        "intervals": {"brier": ends(brier.interval), "accuracy": ends(accuracy.interval), "confidence": ends(confidence.interval)},
        "bootstrap": bootstrap,
        "bins": bins,
        "items": items,
    }))
}

fn edges(found: &Calibration) -> impl Iterator<Item = (f64, f64, &crate::metrics::calibration::Bin)> {
    let n = found.bins.len() as f64;
    let edge = move |i: usize| i as f64 / n;
    found
        .bins
        .iter()
        .enumerate()
        .map(move |(i, bin)| (edge(i), edge(i + 1), bin))
}

fn show(args: &CalibrationArgs, all: &[Likelihood], found: &Calibration, means: [&Mean; 3], even: f64) {
    crate::out!(
        "{}: {} questions, shares of the choices by {}",
        args.predictions.display(),
        all.len(),
        args.by.name()
    );
    let [brier, accuracy, confidence] = means;
    let mut table = Table::new(["measure", "value", "95% interval over clips"]);
    let mut row = |name: String, value: String, interval: Option<&Mean>, number: &dyn Fn(f64) -> String| {
        let interval = interval.map_or(String::new(), |m| between(Some(m.interval), number));
        table.row([name, value, interval]);
    };
    row(
        "likeliest choice right, %".into(),
        percent(accuracy.value),
        Some(accuracy),
        &percent,
    );
    row(
        "its mean share, %".into(),
        percent(confidence.value),
        Some(confidence),
        &percent,
    );
    row(
        "Brier score, 0 to 2".into(),
        plain(brier.value),
        Some(brier),
        &plain,
    );
    row("  of shares that are all alike".into(), plain(even), None, &plain);
    row(
        format!("expected calibration error, {} bins", args.bins),
        plain(found.expected_error),
        None,
        &plain,
    );
    row(
        "largest calibration error".into(),
        plain(found.largest_error),
        None,
        &plain,
    );
    crate::out!("{}", table.terminal());
    let mut bins = Table::new([
        "likeliest share, %",
        "n",
        "right, %",
        "mean share, %",
        "right − share, points",
    ]);
    let share = |v: Option<f64>| v.map_or(String::new(), percent);
    for (from, to, bin) in edges(found).filter(|(.., bin)| bin.n > 0) {
        let off = bin
            .accuracy
            .zip(bin.confidence)
            .map(|(a, c)| format!("{:+.2}", 100.0 * (a - c)));
        bins.row([
            format!("{:.1} to {:.1}", 100.0 * from, 100.0 * to),
            bin.n.to_string(),
            share(bin.accuracy),
            share(bin.confidence),
            off.unwrap_or_default(),
        ]);
    }
    crate::out!("{}", bins.terminal());
}
