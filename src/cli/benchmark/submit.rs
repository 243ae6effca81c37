//! `af2 benchmark submit`: predictions as the file that a hidden test's server takes.

use super::cards::CardsArgs;
use crate::benchmark::import::submit::{submit, Submission};
use crate::error::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct SubmitArgs {
    /// The benchmark, as `af2 benchmark ls` names it.
    name: String,
    /// `predictions.jsonl` of af2, or any file of id and prediction.
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    /// The manifest that was asked, or for predictions with the official ids the official file; may be left out where the predictions
    /// carry their items.
    #[arg(long, value_name = "FILE")]
    items: Option<PathBuf>,
    /// The answer file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    cards: CardsArgs,
}

pub(super) fn run(args: &SubmitArgs) -> Result<()> {
    let registry = args.cards.registry()?;
    let (items, key) = submit(&Submission {
        entry: registry.entry(&args.name)?,
        predictions: &args.predictions,
        items: args.items.as_deref(),
        out: &args.out,
    })?;
    crate::out!(
        "{}: {items} items, each with its answer as `{key}`",
        args.out.display()
    );
    Ok(())
}
