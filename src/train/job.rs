//! What a job is to the loop: something with weights, a loss, data and a validation. Everything else about training (steps, ranks,
//! precision, checkpoints, events, signals) is [`super::engine`]'s and the same for all.

use super::engine::clock::Clock;
use crate::checkpoint::names::Tree;
use crate::data::order::Cursor;
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::model::params::Params;
use crate::recipe::{ClipAt, OptimRecipe, Recipe, SaveRecipe};
use tch::{Device, Tensor};

/// What one of the trainings that there are says of itself: a stage of the curriculum, AF-CLAP, the small language model.
///
/// ```text
/// batch ─► loss_sum ─► (engine: backward, reduce, clip, step, record, save) ─► validate
/// ```
pub trait Job {
    /// What a batch is to its model.
    type Input;

    /// Names its events, its checkpoints and itself in messages.
    fn name(&self) -> &str;

    /// Where its keys stand in a recipe: `stages.NAME`, `lm`, `clap`.
    fn section(&self) -> String;

    /// Rate, schedule, batch and groups.
    fn optim(&self) -> &OptimRecipe;

    /// Which checkpoints are kept.
    fn save(&self) -> SaveRecipe;

    /// When gradients are clipped.
    fn clip_at(&self) -> ClipAt {
        ClipAt::Step
    }

    /// Its weights and buffers; those that train require gradients.
    fn params(&self) -> &Params;

    /// Where its model lies.
    fn device(&self) -> Device;

    /// Whether weight decay is on this weight, where no group of the recipe's says otherwise.
    fn decays(&self, name: &str, weight: &Tensor) -> bool;

    /// The part of the model that a weight is of, as its gradient's norm is logged.
    fn part(&self, name: &str) -> &'static str;

    /// What its tensors are called in checkpoints, and which of them are saved.
    fn tree(&self) -> Tree;

    /// Whether a buffer changes while it trains: a running average.
    fn moves(&self, _buffer: &str) -> bool {
        false
    }

    /// A batch of nothing, which shows before the first step what has gradients, and which a rank without items computes on.
    ///
    /// # Errors
    /// Those of a batch.
    fn silence(&self) -> Result<Batch<Self::Input>>;

    /// The sum of the losses of all that counts in a batch, in training.
    ///
    /// # Shapes
    /// a scalar, float32
    fn loss_sum(&self, input: &Self::Input) -> Result<Tensor>;

    /// After each backward pass: gradients that are none.
    fn mask(&self) {}

    /// Floating-point operations of a batch's forward and backward pass; what is computed a second time to save memory is none of
    /// them. 0 where they are not counted.
    fn operations(&self, _batch: &Batch<Self::Input>) -> f64 {
        0.0
    }

    /// Scalars on the device that are logged beside the loss.
    fn watched(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }
}

/// Where a job's batches come from, on one rank.
pub(crate) trait Source<I> {
    /// What decides what is learned, for its checkpoints: as JSON, by the recipe's keys. Asked of the first rank only.
    ///
    /// # Errors
    /// Data that cannot be read; a batch that the ranks cannot share.
    fn made_with(&self) -> Result<String>;

    /// Opens the data, once the weights are those that the job begins or goes on with.
    ///
    /// # Errors
    /// Data that cannot be opened, or is not the same on all ranks.
    fn open(&self) -> Result<Box<dyn Data<I> + '_>>;
}

/// Hands out a rank's batches: each with the place behind it; no batch where nothing is left of its items. It stops the clock
/// between waiting for a batch and bringing it to the device.
pub type Next<'n, I> = &'n mut dyn FnMut(&mut Clock) -> Result<(Option<Batch<I>>, Cursor)>;

/// A job's data on one rank.
pub trait Data<I> {
    /// Runs `body` with a source of batches from `from` on, epoch after epoch without end.
    ///
    /// # Errors
    /// Those of `body`; a cursor of another order.
    fn run(&self, from: Cursor, body: &mut dyn FnMut(Next<I>) -> Result<()>) -> Result<()>;

    /// What held-out items say, in evaluation mode, over all ranks. Nothing where there are none.
    ///
    /// # Errors
    /// Sound or texts that cannot be read; a rank that is lost.
    fn validate(&self, ranks: &Ranks) -> Result<Vec<(String, f64)>>;

    /// Items that were left out so far, as they could not be used.
    fn left_out(&self) -> usize {
        0
    }
}

/// A batch on the device.
pub struct Batch<I> {
    /// What the model takes.
    pub input: I,
    /// What the loss is summed over: labels that count, or 1 for a loss that is a mean of its own.
    pub counted: usize,
    /// How much of it there is.
    pub size: Size,
    /// What it is made of, for messages.
    pub items: Vec<String>,
}

/// How much there is in a batch, and how much of it is padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Questions, or clips with their captions.
    pub items: usize,
    /// Real windows, and places for windows.
    pub windows: usize,
    /// Places for windows, padding included.
    pub window_places: usize,
    /// Real text tokens, and places for tokens.
    pub text: usize,
    /// Places for tokens, padding included.
    pub text_places: usize,
}

impl Size {
    pub(crate) fn add(&mut self, other: &Size) {
        self.items += other.items;
        self.windows += other.windows;
        self.window_places += other.window_places;
        self.text += other.text;
        self.text_places += other.text_places;
    }
}

/// A job by its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// The stages of AF2.
    Curriculum,
    /// AF-CLAP from captions.
    Clap,
    /// A tokenizer and a small language model, on text alone.
    Lm,
}

impl Which {
    /// What a recipe is for where nobody says it: its stages, else the one section that it has.
    ///
    /// # Errors
    /// A recipe that trains nothing.
    pub fn of(recipe: &Recipe) -> Result<Self> {
        match (recipe.stages.is_empty(), &recipe.clap, &recipe.lm) {
            (false, ..) => Ok(Which::Curriculum),
            (true, Some(_), None) => Ok(Which::Clap),
            (true, None, Some(_)) => Ok(Which::Lm),
            (true, Some(_), Some(_)) => Err(Error::recipe(
                &recipe.name,
                "no `stages`, and both `lm` and `clap`: which of them?",
            )
            .hint("--job lm first: AF-CLAP takes its tokenizer; then --job clap")),
            (true, None, None) => Err(lacks(recipe, "stages")),
        }
    }

    /// # Errors
    /// A recipe without the job's section.
    pub fn in_recipe(self, recipe: &Recipe) -> Result<()> {
        let (there, section) = match self {
            Which::Curriculum => (!recipe.stages.is_empty(), "stages"),
            Which::Clap => (recipe.clap.is_some(), "clap"),
            Which::Lm => (recipe.lm.is_some(), "lm"),
        };
        match there {
            true => Ok(()),
            false => Err(lacks(recipe, section)),
        }
    }
}

fn lacks(recipe: &Recipe, section: &str) -> Error {
    Error::recipe(&recipe.name, format!("the recipe has no section `{section}`"))
        .hint("recipes/demo.yaml has each of them")
}
