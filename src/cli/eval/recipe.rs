//! `af2 eval RECIPE`: a recipe's own evaluation sets.

use crate::cli::parts::{self, ArithmeticArgs, RecipeArgs};
use crate::cli::same;
use crate::cli::steps::{as_rank, load_for, missing, report_run, Seat};
use crate::dist::{Place, Ranks};
use crate::error::Result;
use crate::eval::score;
use crate::recipe::{EvalRecipe, Recipe};
use crate::{eval, load, lock, preflight, run};
use std::path::Path;
use tch::Device;

/// What is asked, and how.
pub(super) struct Task<'a> {
    pub recipe: RecipeArgs,
    pub checkpoint: Option<&'a Path>,
    pub score_only: bool,
    /// Ask everything again.
    pub afresh: bool,
    pub arithmetic: &'a ArithmeticArgs,
}

pub(super) fn run_recipe(task: &Task) -> Result<()> {
    let place = Place::of_environment()?;
    let mut recipe = load_for(&task.recipe, place.as_ref())?;
    if let Some(section) = &mut recipe.eval {
        section.precision = task.arithmetic.precision.unwrap_or(section.precision);
        section.tf32 |= task.arithmetic.tf32;
    }
    if !task.score_only {
        return ask_as(place.as_ref(), &recipe, task.checkpoint, task.afresh);
    }
    section(&recipe)?;
    // One is enough.
    if place.is_some_and(|p| p.rank > 0) {
        return Ok(());
    }
    let _held = lock::hold(&recipe.output, false)?;
    score_run(&recipe.output)
}

/// Asks the last stage's model and scores.
pub(crate) fn evaluate(recipe: &Recipe) -> Result<()> {
    ask_as(Place::of_environment()?.as_ref(), recipe, None, false)
}

fn section(recipe: &Recipe) -> Result<&EvalRecipe> {
    recipe.eval.as_ref().ok_or_else(|| missing(recipe, "eval"))
}

/// Asks and scores, as the rank in this place, or alone.
fn ask_as(place: Option<&Place>, recipe: &Recipe, checkpoint: Option<&Path>, afresh: bool) -> Result<()> {
    let seat = Seat::of(recipe, section(recipe)?.tf32);
    as_rank(
        place,
        &seat,
        || same::evaluation(recipe),
        |ranks, device| {
            ranks.remedy("what it wrote last says why; the same command asks only what is left");
            let _held = match ranks.first() {
                true => Some(lock::hold(&recipe.output, ranks.again())?),
                false => None,
            };
            // What a launcher starts again has answers of its own.
            ask(recipe, checkpoint, ranks, device, afresh && !ranks.again())?;
            match ranks.first() {
                true => score_run(&recipe.output),
                false => Ok(()),
            }
        },
    )
}

fn ask(
    recipe: &Recipe,
    checkpoint: Option<&Path>,
    ranks: &Ranks,
    device: Device,
    afresh: bool,
) -> Result<()> {
    let folder = match (checkpoint, recipe.stages.last()) {
        (Some(folder), _) => folder.to_path_buf(),
        (None, Some(stage)) => recipe.stage_folder(&stage.name),
        (None, None) => return Err(missing(recipe, "stages").hint("--checkpoint names a model")),
    };
    preflight::evaluation(recipe, &folder).result()?;
    let mut model = load::open(&folder, &load::Options::new(device))?;
    if ranks.first() {
        parts::say(&model.notes);
    }
    model.tokenizer.special_tokens = recipe.data.special_tokens_in_texts;
    eval::run(recipe, section(recipe)?, &model, ranks, afresh)
}

/// Scores the predictions that are there.
fn score_run(run: &Path) -> Result<()> {
    let results = score::score(&run::predictions::read(&run::predictions::path(run))?)?;
    results.write(&run::results::path(run))?;
    report_run(run)
}
