//! What a run's checkpoints score on benchmarks: a table, and curves over the run's steps.

use super::plot::{Boundary, Chart, Series};
use super::table::Table;
use crate::run::benchmarks::CheckpointScore;
use indexmap::IndexMap;

/// A row a checkpoint, curve after curve.
pub(crate) fn table(curves: &[Vec<CheckpointScore>]) -> Table {
    let mut table = Table::new([
        "benchmark",
        "metric",
        "stage",
        "step",
        "checkpoint",
        "score",
        "95% interval",
        "n",
    ]);
    for score in curves.iter().flatten() {
        table.row([
            score.name.clone(),
            score.metric.clone(),
            score.stage.clone(),
            score.step.to_string(),
            score
                .checkpoint
                .map_or("model".to_owned(), |number| number.to_string()),
            score.score.map_or("none".to_owned(), |v| format!("{v:.3}")),
            score
                .interval
                .map_or("–".to_owned(), |i| format!("{:.3} to {:.3}", i.low, i.high)),
            score.n.to_string(),
        ]);
    }
    table
}

/// One line a benchmark and metric, over the steps of all stages one after another: `stages` have their first step at these places.
pub(super) fn chart(curves: &[Vec<CheckpointScore>], stages: &[(String, f64)]) -> Chart {
    let mut series: IndexMap<String, Vec<(f64, f64)>> = IndexMap::new();
    for (stage, begun) in stages {
        for curve in curves.iter().filter(|curve| curve[0].stage == *stage) {
            let name = format!("{} {}", curve[0].name, curve[0].metric);
            let points = series.entry(name).or_default();
            // A break in the line: the stages' models are not each other's next.
            if !points.is_empty() {
                points.push((*begun, f64::NAN));
            }
            let scores = curve.iter().filter_map(|s| Some((s.step, s.score?)));
            points.extend(scores.map(|(step, score)| (begun + step as f64, score)));
        }
    }
    let boundaries = stages.iter().map(|(stage, begun)| Boundary {
        x: *begun,
        label: stage.clone(),
    });
    Chart {
        title: "Benchmarks".to_owned(),
        x_label: "optimizer step".to_owned(),
        y_label: "score".to_owned(),
        log_y: false,
        series: series
            .into_iter()
            .map(|(name, points)| Series {
                name,
                points,
                smoothing: 0.0,
            })
            .collect(),
        boundaries: match stages.len() {
            0 | 1 => Vec::new(),
            _ => boundaries.collect(),
        },
    }
}
