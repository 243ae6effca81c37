//! A stage of a recipe as the items that it trains on, in their order: where recipes and data meet.

use crate::data::blend::{Blend, Set};
use crate::data::manifest::Manifest;
use crate::data::order::{Batching, Order};
use crate::error::{Error, Result};
use crate::recipe::{Recipe, StageRecipe};
use std::path::Path;

/// Items of an epoch, on average and at most: 4 GB of indices.
const FEWEST_ITEMS: f64 = 1e-3;
const MOST_ITEMS: f64 = 268_435_456.0;

/// A stage's items in their order, for rank `rank` of `world`.
///
/// # Errors
/// Those of [`blend`]; a `global_batch` that the ranks cannot share evenly.
pub fn order(recipe: &Recipe, stage: &StageRecipe, rank: usize, world: usize) -> Result<Order> {
    let (items, micro_steps) = stage.optim.split(world)?;
    Ok(Order {
        blend: blend(recipe, stage, None)?,
        mixing: recipe.data.order,
        batching: match &stage.batch_budget {
            Some(limits) => Batching::Budget(limits.clone()),
            None => Batching::Fixed(items),
        },
        seed: recipe.seed,
        rank,
        world,
        micro_steps,
    })
}

/// A stage's sets by their weights; manifests below `folder` where they are not in the recipe's place.
///
/// # Errors
/// A manifest that cannot be opened; weights that make an epoch of these manifests that fills the memory, or none for
/// thousands of epochs.
pub fn blend(recipe: &Recipe, stage: &StageRecipe, folder: Option<&Path>) -> Result<Blend> {
    let sets = stage.sets.iter().map(|(set, weight)| {
        let path = match folder {
            None => recipe.manifest(set),
            Some(folder) => folder.join(recipe.data.sets.get(set).cloned().unwrap_or_default()),
        };
        Ok(Set {
            name: named_by(&path),
            manifest: Manifest::open(&path)?,
            weight: *weight,
        })
    });
    let mut blend = Blend {
        sets: sets.collect::<Result<_>>()?,
        global_weight: recipe.data.global_weight,
    };
    if recipe.data.subset < 1.0 {
        blend.keep(recipe.data.subset, recipe.seed);
    }
    epoch(recipe, stage, &blend)?;
    Ok(blend)
}

/// `Name-Task/split`, as the reference's configuration would write it: its characters seed the shuffle.
fn named_by(manifest: &Path) -> String {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let folder = text(manifest.parent().and_then(Path::file_name));
    format!("{folder}/{}", text(manifest.file_stem()))
}

/// What only the manifests tell: an epoch must neither fill the memory nor be one of thousands without an item.
fn epoch(recipe: &Recipe, stage: &StageRecipe, blend: &Blend) -> Result<()> {
    let sets = blend.sets.iter();
    let items: f64 = sets.map(|s| s.manifest.len() as f64 * s.weight).sum::<f64>() * blend.global_weight;
    if items == 0.0 || (FEWEST_ITEMS..=MOST_ITEMS).contains(&items) {
        return Ok(());
    }
    let message = format!(
        "stages.{}.sets: their weights, times data.global_weight, make epochs of {items:?} items, not of {FEWEST_ITEMS:?} to \
         {MOST_ITEMS}",
        stage.name
    );
    Err(Error::recipe(&recipe.name, message).hint("a weight of 1 is a pass over the set in each epoch"))
}
