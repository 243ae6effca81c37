//! The files of a run: those of runs from before files said their version are read as they were, and newer ones are refused.
#![allow(clippy::unwrap_used)]

mod common;

use af2::run::events::{self, latest, read_events};
use af2::run::{predictions, results};
use common::{af2, golden};
use std::fs;
use std::path::Path;

/// A copy of what a run left before files said their version.
fn old() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("J_run"), folder.path());
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn a_report_of_an_older_run_is_what_it_was() {
    let run = old();
    let made = ["table.md", "curves.svg"].map(|name| run.path().join(name));
    let before = made.each_ref().map(|path| fs::read(path).unwrap());
    for path in &made {
        fs::remove_file(path).unwrap();
    }
    let (code, _, err) = af2(&["report", &run.path().display().to_string()]);
    assert_eq!(code, 0, "{err}");
    assert!(made.each_ref().map(|path| fs::read(path).unwrap()) == before);
}

#[test]
fn an_older_runs_answers_are_scored_as_they_were() {
    let run = old();
    let file = results::path(run.path());
    let before = results::Results::read(&file).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let recipe = run.path().join("recipe.yaml");
    fs::write(
        &recipe,
        format!(
            "name: old\noutput: {}\nmodel: {{checkpoint: none}}\ndata: {{sets: {{a: a/train.json}}}}\n\
             eval: {{sets: [a], windows: 1}}\n",
            run.path().display()
        ),
    )
    .unwrap();
    let (code, _, err) = af2(&["eval", &recipe.display().to_string(), "--score-only"]);
    assert_eq!(code, 0, "{err}");
    // The version is all that is new, and over how many clips an interval goes.
    let mut after = results::Results::read(&file).unwrap();
    for task in &mut after.tasks {
        for score in [&mut task.audio, &mut task.silence].into_iter().flatten() {
            assert_eq!(score.clips.take(), Some(4));
        }
    }
    assert_eq!(after, before);
    let now = fs::read_to_string(&file).unwrap();
    let old: String = now
        .split_inclusive('\n')
        .filter(|line| *line != "  \"version\": 1,\n" && !line.contains("\"clips\": "))
        .collect();
    assert_eq!(old, text);
    assert_ne!(now, text);
}

#[test]
fn an_older_runs_events_are_all_there() {
    let run = old();
    let file = events::folder(run.path(), "one").join(events::EVENTS);
    let all = latest(read_events(&file).unwrap());
    assert_eq!(all.last().unwrap().step, 4);
    assert!(all
        .iter()
        .all(|e| e.stage == "one" && !e.values.contains_key("version")));
    let lines = fs::read_to_string(&file).unwrap();
    assert_eq!(lines.lines().count(), read_events(&file).unwrap().len());
    // A run that goes on appends lines that say their version.
    let line = lines.lines().last().unwrap().replacen('{', "{\"version\":1,", 1);
    fs::write(&file, format!("{lines}{line}\n")).unwrap();
    let both = read_events(&file).unwrap();
    assert_eq!(both[both.len() - 1], both[both.len() - 2]);
}

#[test]
fn a_newer_version_is_refused_by_its_file_and_line() {
    let newer = |path: &Path, line: usize| {
        let text = fs::read_to_string(path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[line] = lines[line].replacen('{', "{\"version\": 2,", 1);
        fs::write(path, lines.join("\n") + "\n").unwrap();
    };
    let refused = |run: &Path, pieces: &[&str]| {
        let (code, _, err) = af2(&["report", &run.display().to_string()]);
        assert_eq!(code, 6, "{err}");
        for piece in pieces {
            assert!(err.contains(piece), "`{piece}` is not in {err}");
        }
    };
    let run = old();
    newer(&results::path(run.path()), 0);
    let said = "expected version 1 of this file or an older one, found version 2";
    refused(
        run.path(),
        &["results.json: version: ", said, "a newer af2 has written it"],
    );

    let run = old();
    newer(&events::folder(run.path(), "one").join(events::EVENTS), 2);
    refused(run.path(), &["events.jsonl: line 3: ", said]);

    let run = old();
    let file = predictions::path(run.path());
    newer(&file, 1);
    let e = predictions::read(&file).unwrap_err().to_string();
    assert!(
        e.contains("predictions.jsonl: line 2: ") && e.contains(said),
        "{e}"
    );
}
