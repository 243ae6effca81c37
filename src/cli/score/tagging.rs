//! `af2 score tagging`

use super::arrays::{ends, in_file, measure, percent, print};
use crate::cli::parts;
use crate::error::{Error, Result};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::ranking::Tags;
use crate::npy;
use crate::report::table::Table;
use clap::Args;
use serde_json::{json, Value};
use std::path::PathBuf;

/// Each goes over all clips and classes.
const RESAMPLES: usize = 1_000;

#[derive(Args)]
pub(crate) struct TaggingArgs {
    /// Scores of N clips for C classes, (N, C): probabilities, logits, similarities.
    #[arg(long, value_name = "FILE.npy")]
    scores: PathBuf,
    /// What is there, (N, C): 0 or 1.
    #[arg(long, value_name = "FILE.npy")]
    truth: PathBuf,
    /// For F1: a class counts as found from this score on.
    #[arg(long, default_value_t = 0.5, allow_negative_numbers = true)]
    threshold: f64,
    /// One object with every number, by class and clip too.
    #[arg(long)]
    json: bool,
}

/// A number over all clips, with its name in the table and in JSON.
struct Line {
    name: String,
    key: &'static str,
    value: Option<f64>,
    interval: Option<Interval>,
}

pub(crate) fn run(args: &TaggingArgs) -> Result<()> {
    if args.threshold.is_nan() {
        return Err(Error::usage("--threshold: expected a number, found NaN"));
    }
    let (scores, truth) = (npy::matrix(&args.scores)?, npy::matrix(&args.truth)?);
    let files = [("scores", args.scores.as_path()), ("truth", args.truth.as_path())];
    let tags = Tags::new(scores, &truth).map_err(|e| in_file(e, &files))?;
    let bootstrap = Bootstrap {
        resamples: RESAMPLES,
        ..Bootstrap::default()
    };
    let (map, auc, f1) = (tags.average_precision(), tags.roc_auc(), tags.f1(args.threshold));
    let [of_map, of_auc] = tags.intervals(&bootstrap)?;
    let ranking = tags.label_ranking();
    let line = |name: &str, key, value, interval| Line {
        name: name.to_owned(),
        key,
        value,
        interval,
    };
    let at = |name: &str| format!("{name}, at {}", args.threshold);
    let lines = [
        line(
            "mAP (a class that is nowhere counts 0)",
            "mAP",
            Some(map.mean),
            of_map,
        ),
        line("mAP of the other classes", "mAP_present", map.mean_present, None),
        line("mAP by positives", "mAP_weighted", map.weighted, None),
        line(
            "average precision of all as one list",
            "mAP_micro",
            map.micro,
            None,
        ),
        line(
            "average precision of a clip's classes",
            "mAP_samples",
            Some(map.samples),
            None,
        ),
        line("ROC AUC", "roc_auc", auc.mean, of_auc),
        line(
            "label ranking",
            "label_ranking_average_precision",
            Some(ranking.iter().sum::<f64>() / ranking.len() as f64),
            Some(bootstrap.interval(&ranking)?),
        ),
        line(&at("macro F1"), "f1_macro", Some(f1.mean), None),
        line(
            &at("micro F1"),
            "f1_micro",
            Some(f1.micro),
            Some(tags.f1_micro_interval(args.threshold, &bootstrap)?),
        ),
        line(&at("F1 by positives"), "f1_weighted", Some(f1.weighted), None),
        line(
            &at("F1 of a clip's classes"),
            "f1_samples",
            Some(f1.samples),
            None,
        ),
    ];
    if !args.json {
        let mut table = Table::new([measure(&bootstrap), "%".to_owned()]);
        table.row(["clips".to_owned(), tags.clips().to_string()]);
        table.row(["classes".to_owned(), tags.classes().to_string()]);
        table.row(["classes that are nowhere".to_owned(), map.absent.to_string()]);
        for line in &lines {
            let cell = line.value.map_or("–".to_owned(), |v| percent(v, line.interval));
            table.row([line.name.clone(), cell]);
        }
        return parts::out(&(table.terminal() + "\n"));
    }
    let positives = tags.positives();
    let classes: Vec<Value> = (0..tags.classes())
        .map(|c| {
            json!({
                "positives": positives[c],
                "average_precision": map.classes[c],
                "roc_auc": auc.classes[c],
                "f1": f1.classes[c],
            })
        })
        .collect();
    let items: Vec<Value> = ranking
        .iter()
        .map(|r| json!({ "label_ranking_average_precision": r }))
        .collect();
    let corpus: serde_json::Map<String, Value> =
        lines.iter().map(|l| (l.key.to_owned(), json!(l.value))).collect();
    let intervals: serde_json::Map<String, Value> = lines
        .iter()
        .filter_map(|l| Some((l.key.to_owned(), ends(l.interval?))))
        .collect();
    print(&json!({
        "n": tags.clips(),
        "absent_classes": map.absent,
        "threshold": args.threshold,
        "corpus": corpus,
        "intervals": intervals,
        "bootstrap": bootstrap,
        "classes": classes,
        "items": items,
    }))
}
