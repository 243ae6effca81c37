//! What the verbs take from a recipe: a stage, and its tokenizer.

use crate::checkpoint;
use crate::error::{Error, Result};
use crate::preflight::{self, Begin};
use crate::recipe::{Recipe, StageRecipe};
use crate::text::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// A recipe's stage by its name; the first without one.
pub(super) fn stage_of<'r>(recipe: &'r Recipe, file: &Path, name: Option<&str>) -> Result<&'r StageRecipe> {
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
pub(super) fn tokenizer(
    recipe: &Recipe,
    stage: Option<&StageRecipe>,
    named: Option<&Path>,
) -> Result<Tokenizer> {
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
