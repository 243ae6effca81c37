//! What a recipe needs of files and of the disk, looked at before anything runs: all that is missing is told at once, with the
//! commands that put it there. Cheap: of large files the first bytes and the headers, no sound, no tensor.

mod data;
mod file;
mod listing;
mod model;
mod published;
mod room;

pub(crate) use data::Passes;
pub use listing::Kind;
pub(crate) use listing::Report;
pub(crate) use model::{begin, Begin};
pub use model::{parts, start};
pub(crate) use published::checkpoint as published;
pub(crate) use room::{free, needed};

use crate::recipe::Recipe;
use data::Asked;
use std::path::Path;

/// What training these stages (by their numbers, in order) needs on so many ranks. What one of them writes for another is not
/// missing; validation and evaluation sets that are not there are notes: training goes without.
pub(crate) fn training(recipe: &Recipe, stages: &[usize], ranks: usize) -> Report {
    let mut report = Report::default();
    data::sets(recipe, &of_stages(recipe, stages), Kind::Manifest, &mut report);
    model::begins(recipe, stages, &mut report);
    room::look(recipe, stages, ranks, &mut report);
    let mut later = Report::default();
    data::sets(recipe, &of_evaluation(recipe), Kind::Evaluation, &mut later);
    match report.lacks.is_empty() {
        // Listed with the rest, so that all is put there at once.
        false => report.lacks.append(&mut later.lacks),
        true => report.notes.extend(
            later
                .lacks
                .iter()
                .map(|lack| format!("`af2 eval` will miss {}: {}", lack.path.display(), lack.found)),
        ),
    }
    report
}

/// What `af2 lm` needs: the texts of all training sets.
pub(crate) fn language_model(recipe: &Recipe) -> Report {
    let mut report = Report::default();
    data::texts(recipe, &recipe.text_sets(), &mut report);
    report
}

/// What `af2 clap` needs: the LM's tokenizer and the caption sets.
pub(crate) fn clap(recipe: &Recipe) -> Report {
    let mut report = Report::default();
    let asks = vec!["clap".to_owned()];
    let sets = recipe.clap.iter().flat_map(|c| &c.sets);
    let sets = sets.map(|set| (set.as_str(), asks.clone())).collect();
    data::sets(recipe, &sets, Kind::Manifest, &mut report);
    model::tokenizer(recipe, &asks, &mut report);
    report
}

/// What `af2 eval` needs: its sets, and the model that it asks.
pub(crate) fn evaluation(recipe: &Recipe, checkpoint: &Path) -> Report {
    let mut report = Report::default();
    data::sets(recipe, &of_evaluation(recipe), Kind::Evaluation, &mut report);
    let by = ["eval".to_owned()];
    model::whole(
        recipe,
        &checkpoint.into(),
        "the model that is asked",
        &by,
        &mut report,
    );
    report
}

/// Every file of a recipe, with the manifests opened; and how often each item is seen, of the stages whose manifests are there.
pub(crate) fn whole(recipe: &Recipe) -> (Report, Vec<Passes>) {
    let stages = all(recipe);
    let mut report = Report::default();
    let mut sets = of_stages(recipe, &stages);
    for set in recipe.clap.iter().flat_map(|c| &c.sets) {
        sets.entry(set.as_str()).or_default().push("clap".into());
    }
    let mut items = data::open(recipe, &sets, Kind::Manifest, &mut report);
    model::begins(recipe, &stages, &mut report);
    room::look(recipe, &stages, 1, &mut report);
    let asked = of_evaluation(recipe);
    items.extend(data::open(recipe, &asked, Kind::Evaluation, &mut report));
    let passes = recipe.stages.iter().filter_map(|s| Passes::of(recipe, s, &items));
    (report, passes.collect())
}

/// The numbers of all stages.
pub(crate) fn all(recipe: &Recipe) -> Vec<usize> {
    (0..recipe.stages.len()).collect()
}

fn of_stages<'r>(recipe: &'r Recipe, stages: &[usize]) -> Asked<'r> {
    let mut sets = Asked::new();
    for stage in stages.iter().filter_map(|i| recipe.stages.get(*i)) {
        for set in stage.sets.keys() {
            sets.entry(set.as_str()).or_default().push(stage.name.clone());
        }
    }
    sets
}

fn of_evaluation(recipe: &Recipe) -> Asked<'_> {
    let sets = recipe.eval.iter().flat_map(|e| &e.sets);
    sets.map(|set| (set.as_str(), vec!["eval".to_owned()])).collect()
}
