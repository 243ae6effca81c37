//! `af2 eval`: a recipe's own sets, or benchmarks by their cards, of one model or of each checkpoint of a run.

mod benchmarks;
mod judged;
mod recipe;
mod watch;

pub(crate) use recipe::evaluate;

use super::parts::{ArithmeticArgs, OpenArgs, RecipeArgs};
use crate::error::{Error, Result};
use benchmarks::BenchmarksArgs;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use watch::WatchArgs;

#[derive(Args)]
pub(crate) struct EvalArgs {
    /// The recipe, a YAML file, whose evaluation sets are asked; without one `--benchmarks`.
    #[arg(required_unless_present = "benchmarks", conflicts_with = "benchmarks")]
    recipe: Option<PathBuf>,
    /// Changes, such as eval.limit=100 or output=experiments/second.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// A folder in the released layout, or one file of weights; default: the recipe's last stage.
    #[arg(long, value_name = "PATH")]
    checkpoint: Option<PathBuf>,
    /// Score the predictions that are there, without a model.
    #[arg(long)]
    score_only: bool,
    /// Go on with an evaluation of this model that did not end, or ask everything again.
    #[arg(long, value_enum, default_value = "auto", conflicts_with = "score_only")]
    resume: Unfinished,
    #[command(flatten)]
    arithmetic: ArithmeticArgs,
    #[command(flatten)]
    benchmarks: BenchmarksArgs,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    open: OpenArgs,
}

/// What becomes of the answers that an evaluation which did not end has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Unfinished {
    /// Those of the same model to the same questions are taken as they are.
    Auto,
    /// They are thrown away.
    Never,
}

impl EvalArgs {
    pub(crate) fn run(&self) -> Result<()> {
        let Some(recipe) = &self.recipe else {
            let common = benchmarks::Common {
                checkpoint: self.checkpoint.as_deref(),
                open: &self.open,
                arithmetic: &self.arithmetic,
                score_only: self.score_only,
                afresh: self.resume == Unfinished::Never,
            };
            return match &self.watch.watch {
                Some(run) => self.watch.run(run, &self.benchmarks, &common),
                None => self.benchmarks.run(&common),
            };
        };
        if let Some(option) = self.open.said().or(self.benchmarks.said()) {
            let e = Error::usage(format!(
                "{option} goes with --benchmarks; a recipe says it in its keys"
            ));
            return Err(e.hint("device=cpu, model.lm=DIR, eval.slots=16 and so on behind the recipe"));
        }
        recipe::run_recipe(&recipe::Task {
            recipe: RecipeArgs {
                recipe: recipe.clone(),
                overrides: self.overrides.clone(),
            },
            checkpoint: self.checkpoint.as_deref(),
            score_only: self.score_only,
            afresh: self.resume == Unfinished::Never,
            arithmetic: &self.arithmetic,
        })
    }
}
