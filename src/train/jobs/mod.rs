//! What is trained: the stages of the curriculum, AF-CLAP, the small language model.

mod begin;
pub mod clap;
pub mod curriculum;
mod deck;
pub mod lm;
mod made_with;
mod same;

use super::engine::signals::Signals;
use super::job::Which;
use super::{Resume, Run};
use crate::dist::Ranks;
use crate::error::Result;
use crate::recipe::Recipe;
use std::rc::Rc;
use tch::Device;

/// Trains a job of the recipe.
///
/// # Errors
/// A recipe without it; everything that stops a run.
pub fn run(recipe: &Recipe, which: Which, ranks: &Rc<Ranks>, device: Device, resume: &Resume) -> Result<()> {
    which.in_recipe(recipe)?;
    let signals = Signals::listen(ranks.first())?;
    let run = Run { recipe, ranks };
    match which {
        Which::Curriculum => curriculum::run(run, &signals, device, resume),
        Which::Clap => clap::run(run, &signals, device, resume),
        Which::Lm => lm::run(run, &signals, device, resume),
    }
}

/// Shows of each part of a job that it goes on from a checkpoint exactly.
///
/// # Errors
/// [`Error::Mismatch`] where it does not.
pub(crate) fn verify_resume(recipe: &Recipe, which: Which, ranks: &Rc<Ranks>, device: Device) -> Result<()> {
    which.in_recipe(recipe)?;
    let run = Run { recipe, ranks };
    match which {
        Which::Curriculum => curriculum::verify(run, device),
        Which::Clap => clap::verify(run, device),
        Which::Lm => lm::verify(run, device),
    }
}
