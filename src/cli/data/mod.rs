//! `af2 data`

mod blend;
mod check;
mod pack;
mod read;

use crate::checkpoint;
use crate::error::{Error, Result};
use crate::preflight::{self, Begin};
use crate::recipe::{Recipe, StageRecipe};
use crate::text::tokenizer::Tokenizer;
use clap::Subcommand;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum DataVerb {
    /// The items of a virtual epoch in the reference's order, `task|path` a line.
    Blend(blend::BlendArgs),
    /// The data doctor: missing, unreadable and duplicate audio, wrong durations, empty or long texts, special tokens in
    /// texts, leaks between splits. Exit code 6 where something is wrong.
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

/// The tokenizer that `af2 train` would take for a stage, or the one in the folder that is named.
fn tokenizer(recipe: &Recipe, stage: Option<&StageRecipe>, named: Option<&Path>) -> Result<Tokenizer> {
    let folder = match named {
        Some(folder) => folder.to_path_buf(),
        None => lm_folder(recipe, stage)?,
    };
    let mut tokenizer = Tokenizer::open(&folder)?;
    tokenizer.special_tokens = recipe.data.special_tokens_in_texts;
    Ok(tokenizer)
}

/// Where a stage's LM is from: its own starting checkpoint, else that of the first of the stages it goes on from. Each stage
/// hands its tokenizer on as it is, so those between need not have run.
fn lm_folder(recipe: &Recipe, stage: Option<&StageRecipe>) -> Result<PathBuf> {
    let number = |stage: &StageRecipe| recipe.stages.iter().position(|s| s.name == stage.name);
    let mut at = stage.and_then(number);
    let mut checkpoint = recipe.model.checkpoint.as_deref();
    while let Some(index) = at {
        at = match preflight::begin(recipe, index) {
            Begin::Recipe => None,
            Begin::Stage(before) => number(before),
            Begin::Path(path) => {
                checkpoint = Some(path);
                None
            }
        };
    }
    match (&recipe.model.lm, checkpoint) {
        (None, Some(path)) => Ok(checkpoint::open_parts(&preflight::parts(recipe, path))?.llm),
        _ => Ok(recipe.lm_folder()),
    }
}
