//! `af2 data`

mod blend;
mod check;
mod pack;
mod read;

use crate::error::{Error, Result};
use crate::recipe::{Recipe, StageRecipe};
use clap::Subcommand;
use std::path::Path;

#[derive(Subcommand)]
pub enum DataVerb {
    /// The items of a virtual epoch in the reference's order, `task|path` a line.
    Blend(blend::BlendArgs),
    /// The data doctor: missing, unreadable and duplicate audio, wrong durations, empty or long texts, leaks between
    /// splits. Exit code 6 where something is wrong.
    Check(check::CheckArgs),
    /// Write a manifest's items as tar shards of sound that is decoded, resampled and cut already.
    Pack(pack::PackArgs),
    /// Run a stage's loader without a model: how fast it is, what padding there is, what is skipped. Stops and goes on
    /// with --cursor.
    Read(read::ReadArgs),
}

pub fn run(verb: &DataVerb) -> Result<()> {
    match verb {
        DataVerb::Blend(args) => blend::run(args),
        DataVerb::Check(args) => check::run(args),
        DataVerb::Pack(args) => pack::run(args),
        DataVerb::Read(args) => read::run(args),
    }
}

/// A recipe's stage by its name; the first without one.
fn stage_of<'r>(recipe: &'r Recipe, file: &Path, name: Option<&str>) -> Result<&'r StageRecipe> {
    let stage = match name {
        None => recipe.stages.first(),
        Some(name) => recipe.stages.iter().find(|s| s.name == name),
    };
    stage.ok_or_else(|| {
        let names: Vec<&str> = recipe.stages.iter().map(|s| s.name.as_str()).collect();
        let file = file.display();
        match name {
            None => Error::recipe(file.to_string(), "the recipe has no stages"),
            Some(name) => Error::usage(format!("--stage: no stage {name} among {names:?} of {file}")),
        }
    })
}
