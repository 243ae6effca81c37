//! Tables and curves of a run, from its files alone: no tensor, no model.

pub(crate) mod asked;
pub(crate) mod checkpoints;
pub(crate) mod curve;
pub(crate) mod export;
pub mod paper;
pub(crate) mod plot;
pub mod table;

use crate::error::{Error, Result};
use crate::run::{
    self, benchmarks,
    events::{folders, latest, read_events, Event, EVENTS},
};
use indexmap::IndexMap;
use plot::{Boundary, Chart, Series};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Parts of a run that train something of their own; every other folder of events is a stage of the curriculum.
const ALONE: [(&str, &str); 2] = [("lm", "Language model on text alone"), ("clap", "AF-CLAP")];
/// TensorBoard's default. Validation is drawn as it is: it is rare, and already a mean over many items.
const SMOOTHING: f64 = 0.6;

/// The events of one folder.
struct Part {
    name: String,
    events: Vec<Event>,
}

/// Draws the learning curves of a run's folder from `events/*/events.jsonl`: `curves.svg` for the curriculum, stage
/// after stage, and `curves-lm.svg`, `curves-clap.svg` where these were trained; shares (recall, accuracy) get a file of
/// their own, `…-shares.svg`, and what `af2 eval --watch` has measured of checkpoints stands in `curves-benchmarks.svg`. Returns the
/// files written, none for a run without events.
pub(crate) fn curves(folder: &Path) -> Result<Vec<PathBuf>> {
    let (alone, stages): (Vec<Part>, Vec<Part>) = parts(&folders(folder))?
        .into_iter()
        .partition(|p| ALONE.iter().any(|(name, _)| *name == p.name));
    let mut written = Vec::new();
    for (name, title) in ALONE {
        let own: Vec<&Part> = alone.iter().filter(|p| p.name == name).collect();
        written.extend(draw(folder, &format!("-{name}"), title, &own)?);
    }
    written.extend(draw(
        folder,
        "",
        "Curriculum",
        &stages.iter().collect::<Vec<_>>(),
    )?);
    let scores = benchmarks::latest(benchmarks::read(folder)?);
    let mut begun = 0.0;
    let mut places = Vec::new();
    for part in &stages {
        places.push((part.name.clone(), begun));
        begun += part.events.last().map_or(0.0, |e| e.step as f64);
    }
    let chart = checkpoints::chart(&scores, &places);
    if !chart.is_empty() {
        let path = run::curves(folder, "-benchmarks");
        chart.write(&path)?;
        written.push(path);
    }
    Ok(written)
}

/// The folders that hold events, in the order in which they were begun.
fn parts(events: &Path) -> Result<Vec<Part>> {
    if !events.exists() {
        return Ok(Vec::new());
    }
    let mut parts = Vec::new();
    for entry in fs::read_dir(events).map_err(|e| Error::io(events, e))? {
        let path = entry.map_err(|e| Error::io(events, e))?.path();
        let file = path.join(EVENTS);
        if file.is_file() {
            parts.push(Part {
                name: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                events: latest(read_events(&file)?),
            });
        }
    }
    parts.retain(|p| !p.events.is_empty());
    let begun = |p: &Part| p.events.first().map_or(0.0, |e| e.time);
    // The name decides between folders begun at once, so that the order is always the same.
    parts.sort_by(|a, b| begun(a).total_cmp(&begun(b)).then_with(|| a.name.cmp(&b.name)));
    Ok(parts)
}

/// What a value's name says of the chart it belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Loss,
    /// From 0 to 1.
    Share,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        if name.ends_with("loss") {
            Some(Kind::Loss)
        } else if name.contains("recall") || name.contains("accuracy") {
            Some(Kind::Share)
        } else {
            None
        }
    }
}

fn draw(folder: &Path, of: &str, title: &str, parts: &[&Part]) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for (kind, suffix, y_label) in [(Kind::Loss, "", "loss"), (Kind::Share, "-shares", "share")] {
        let chart = chart(title, y_label, kind, parts);
        if chart.is_empty() {
            continue;
        }
        let path = run::curves(folder, &format!("{of}{suffix}"));
        chart.write(&path)?;
        written.push(path);
    }
    Ok(written)
}

/// Puts the parts behind one another on one axis of steps.
fn chart(title: &str, y_label: &str, kind: Kind, parts: &[&Part]) -> Chart {
    let mut series: IndexMap<&str, Vec<(f64, f64)>> = IndexMap::new();
    let mut boundaries = Vec::new();
    let mut begun = 0.0;
    for part in parts {
        if parts.len() > 1 {
            boundaries.push(Boundary {
                x: begun,
                label: part.name.clone(),
            });
        }
        let mut begun_here = HashSet::new();
        for event in &part.events {
            for (name, value) in event.values.iter().filter(|(n, _)| Kind::of(n) == Some(kind)) {
                let points = series.entry(name).or_default();
                // A break in the line: one stage's loss does not lead to the next one's.
                if begun_here.insert(name) && !points.is_empty() {
                    points.push((begun, f64::NAN));
                }
                points.push((begun + event.step as f64, value.0));
            }
        }
        begun += part.events.last().map_or(0.0, |e| e.step as f64);
    }
    let series = series.into_iter().map(|(name, points)| Series {
        name: name.replace('_', " "),
        smoothing: if name.starts_with("validation") {
            0.0
        } else {
            SMOOTHING
        },
        points,
    });
    Chart {
        title: title.to_owned(),
        x_label: "optimizer step".to_owned(),
        y_label: y_label.to_owned(),
        log_y: false,
        series: series.collect(),
        boundaries,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::events::{self, Value};

    /// One part's file, begun after those before it.
    fn record(run: &Path, name: &str, losses: &[f64]) {
        let folder = events::folder(run, name);
        fs::create_dir_all(&folder).unwrap();
        let time = fs::read_dir(folders(run)).unwrap().count() as f64;
        let mut lines = Vec::new();
        let mut line = |step: usize, values: &[(&str, f64)]| {
            let values = values.iter().map(|(n, v)| ((*n).to_owned(), Value(*v)));
            let event = Event {
                step: step as u64,
                micro_step: None,
                epoch: None,
                stage: name.to_owned(),
                time,
                values: values.collect(),
            };
            lines.extend(event.line().unwrap());
        };
        for (i, loss) in losses.iter().enumerate() {
            line(i + 1, &[("loss", *loss), ("learning_rate", 1e-3)]);
        }
        line(losses.len(), &[("validation_loss", 1.5)]);
        if name == "clap" {
            line(losses.len(), &[("validation_recall_at_1", 0.25)]);
        }
        fs::write(folder.join(EVENTS), lines).unwrap();
    }

    #[test]
    fn a_run_becomes_curves() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(curves(run.path()).unwrap(), Vec::<PathBuf>::new());
        for name in ["lm", "clap", "warm", "align"] {
            record(run.path(), name, &[3.0, 2.0, 1.0]);
        }
        let written = curves(run.path()).unwrap();
        let names: Vec<_> = written
            .iter()
            .map(|p| p.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "curves-lm.svg",
                "curves-clap.svg",
                "curves-clap-shares.svg",
                "curves.svg"
            ]
        );
        let curriculum = fs::read_to_string(&written[3]).unwrap();
        // The order of time, not of the alphabet.
        assert!(curriculum.find("warm").unwrap() < curriculum.find("align").unwrap());
        assert!(curriculum.contains("validation loss") && !curriculum.contains("learning"));
    }

    #[test]
    fn stages_follow_one_another_with_a_break_between() {
        let run = tempfile::tempdir().unwrap();
        record(run.path(), "one", &[3.0, 2.0]);
        record(run.path(), "two", &[1.0]);
        let parts = parts(&folders(run.path())).unwrap();
        let chart = chart("", "", Kind::Loss, &parts.iter().collect::<Vec<_>>());
        let xs: Vec<f64> = chart.series[0].points.iter().map(|p| p.0).collect();
        assert_eq!(xs, [1.0, 2.0, 2.0, 3.0]);
        assert!(chart.series[0].points[2].1.is_nan());
        let validation: Vec<f64> = chart.series[1].points.iter().map(|p| p.0).collect();
        assert_eq!(validation, [2.0, 2.0, 3.0]);
        assert_eq!(chart.boundaries[1].x, 2.0);
    }

    #[test]
    fn a_broken_events_file_is_named() {
        let run = tempfile::tempdir().unwrap();
        let stage = events::folder(run.path(), "one");
        fs::create_dir_all(&stage).unwrap();
        fs::write(stage.join(EVENTS), "nonsense\n").unwrap();
        assert!(curves(run.path())
            .unwrap_err()
            .to_string()
            .contains("events.jsonl: line 1"));
    }
}
