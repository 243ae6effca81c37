//! What a recipe costs before anything runs: memory of one GPU, disk, steps, operations, and how fast it must go.

pub mod disk;
pub mod memory;
mod model;
pub(crate) mod paper;

pub use model::{config, trains};

use crate::curriculum;
use crate::data::blend::Blend;
use crate::error::{Error, Result};
use crate::model::cost;
use crate::model::flamingo::Config;
use crate::model::parts::PerPart;
use crate::recipe::{Recipe, StageRecipe};
use disk::{Disk, Shapes};
use memory::{Bytes, Setup};
use paper::Published;
use serde::Serialize;

/// Share of a GPU's memory that a plan fills at most: libtorch's allocator loses some to fragments.
pub(crate) const MOST: f64 = 0.94;
/// Text tokens of an average item: the paper's own figure (its complexity argument in section 3.2).
pub(crate) const MEAN_TEXT_TOKENS: usize = 80;
/// Share of a GPU's peak that a well-fed training reaches.
const WELL_FED: f64 = 0.4;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// Ranks, one GPU each.
    pub gpus: usize,
    /// Bytes of one GPU.
    pub memory: f64,
    /// Days for all stages together; without it the paper's, where the recipe is the paper's.
    pub days: Option<f64>,
    /// Items of each stage, in place of what the recipe's steps make.
    pub samples: Option<u64>,
    /// Text tokens of an average item.
    pub text_tokens: usize,
}

/// The answer.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Its name in the recipe.
    pub name: String,
    /// Ranks, one GPU each.
    pub gpus: usize,
    /// Bytes of one GPU.
    pub memory_bytes: f64,
    /// Where the model's sizes are from.
    pub sizes: String,
    /// Parameters of each part.
    pub parameters: PerPart<f64>,
    /// In the recipe's order.
    pub stages: Vec<StagePlan>,
    /// Whether it fits below `MOST` of the memory.
    pub fits: bool,
    /// Text tokens of an average item, as operations are counted.
    pub text_tokens: usize,
    /// Bytes that the run leaves in its folder.
    pub disk_left: u64,
    /// The most that it takes there while it runs.
    pub disk_most: u64,
    /// Where the model and the schedule are the paper's.
    pub a100_hours: Option<Hours>,
}

/// A100-hours of a whole training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Hours {
    /// What its operations take at 40% of the peak.
    pub by_operations: f64,
    /// What the paper says.
    pub paper: f64,
}

/// One stage of it.
#[derive(Debug, Clone, Serialize)]
pub struct StagePlan {
    /// Its name in the recipe.
    pub name: String,
    /// Parameters that train.
    pub trained: PerPart<f64>,
    /// Memory of one GPU.
    pub bytes: Bytes,
    /// Their sum.
    pub total_bytes: f64,
    /// Whether it fits below `MOST` of the memory.
    pub fits: bool,
    /// What would make it fit, and by how much.
    pub changes: Vec<String>,
    /// Items of a GPU at a time, in the batch that takes most memory, and windows of each.
    pub micro_batch: usize,
    /// See above.
    pub windows: usize,
    /// Items of an optimizer step.
    pub global_batch: usize,
    /// Micro-steps of one optimizer step; none where the batch cannot be shared out so.
    pub micro_steps: Option<usize>,
    /// Optimizer steps.
    pub steps: usize,
    /// Items seen in all of them.
    pub samples: u64,
    /// Items of one pass over the sets by their weights, and where that is from.
    pub epoch_items: Option<u64>,
    /// Where the number of items is from.
    pub items_from: String,
    /// Floating-point operations of one optimizer step over all GPUs: every item at its full length in windows, and of
    /// [`Request::text_tokens`].
    pub flops_per_step: f64,
    /// How many times as many they are where every text is of `data.max_tokens`.
    pub flops_at_longest_texts: f64,
    /// What it writes.
    pub disk: Disk,
    /// Days that the stage may take.
    pub days: Option<f64>,
    /// Who says so.
    pub days_from: String,
    /// What the time asks for, over all GPUs and of each.
    pub samples_per_second: Option<f64>,
    /// Windows of that.
    pub windows_per_second: Option<f64>,
    /// Text tokens of that.
    pub tokens_per_second: Option<f64>,
    /// Operations of each GPU.
    pub tflops_per_gpu: Option<f64>,
    /// How long it takes where data is no limit: at 40% of `train.peak_tflops`.
    pub days_at_40_percent: Option<f64>,
    /// Share of `train.peak_tflops`.
    pub utilisation: Option<f64>,
}

/// Plans every stage.
///
/// # Errors
/// A model whose sizes nothing tells; model files that are there and cannot be read.
pub fn plan(recipe: &Recipe, request: &Request) -> Result<Plan> {
    if recipe.stages.is_empty() {
        return Err(Error::recipe(&recipe.name, "the recipe has no section `stages`"));
    }
    let (config, sizes) = model::config(recipe)?;
    let parameters = cost::parameters(&config)?;
    let samples: Vec<u64> = recipe.stages.iter().map(|s| seen(s, request).1).collect();
    let model = Model {
        published: paper::published(recipe, &config, &parameters, &samples)?,
        shapes: Shapes::of(&config)?,
        config,
        parameters,
    };
    let stages = recipe.stages.iter().enumerate();
    let stages: Vec<StagePlan> = stages
        .map(|(i, stage)| plan_stage(recipe, stage, i, &model, request))
        .collect();
    let (disk_left, disk_most) = disk::run(stages.iter().map(|s| s.disk));
    let flops: f64 = stages.iter().map(|s| s.flops_per_step * s.steps as f64).sum();
    let own = flops / (WELL_FED * paper::A100_TFLOPS * 1e12) / 3600.0;
    Ok(Plan {
        name: recipe.name.clone(),
        gpus: request.gpus,
        memory_bytes: request.memory,
        sizes,
        parameters,
        fits: stages.iter().all(|s| s.fits),
        stages,
        text_tokens: request.text_tokens,
        disk_left,
        disk_most,
        a100_hours: model.published.map(|p| Hours {
            by_operations: own,
            paper: p.hours * paper::GPUS as f64,
        }),
    })
}

/// What is known of the model.
struct Model {
    config: Config,
    parameters: PerPart<f64>,
    shapes: Shapes,
    published: Option<Published>,
}

fn plan_stage(
    recipe: &Recipe,
    stage: &StageRecipe,
    index: usize,
    model: &Model,
    request: &Request,
) -> StagePlan {
    let (o, gpus) = (&stage.optim, request.gpus);
    let (config, parameters) = (&model.config, &model.parameters);
    let setup = Setup::of(recipe, stage, gpus, config, parameters);
    let bytes = setup.bytes(config, parameters);
    let fits = bytes.total() <= MOST * request.memory;
    let micro_steps = o.split(gpus).ok().map(|(_, n)| n);
    let global_batch = step_items(stage, gpus);
    let (steps, samples) = seen(stage, request);
    let (epoch_items, items_from) = match (curriculum::blend(recipe, stage, None), request.samples) {
        (_, Some(_)) => (None, "--samples".to_owned()),
        (Ok(blend), None) => (Some(pass_items(&blend)), "the manifests".to_owned()),
        (Err(_), None) => (None, "manifests not found: steps as the recipe says".to_owned()),
    };
    let again = recipe.train.activation_checkpointing;
    let flops_of = |tokens| {
        let (items, windows) = (global_batch, stage.windows);
        cost::train_flops(config, items, windows, tokens, setup.trains, again)
    };
    let flops = flops_of(request.text_tokens);
    let (days, days_from) = days(recipe, index, model, request);
    let seconds = days.map(|d| d * 86_400.0).filter(|s| *s > 0.0);
    let tflops = seconds.map(|s| flops * steps as f64 / s / gpus as f64 / 1e12);
    StagePlan {
        name: stage.name.clone(),
        trained: parameters.only(setup.trains),
        total_bytes: bytes.total(),
        bytes,
        fits,
        changes: match fits {
            true => Vec::new(),
            false => setup.changes(config, parameters, &stage.name, MOST * request.memory),
        },
        windows: setup.windows,
        micro_batch: setup.items,
        global_batch,
        micro_steps,
        steps,
        samples,
        epoch_items,
        items_from,
        flops_per_step: flops,
        flops_at_longest_texts: flops_of(recipe.data.max_tokens.max(1)) / flops,
        disk: {
            let (steps, micro) = (steps as u64, micro_steps.unwrap_or(1) as u64);
            model.shapes.stage(recipe, stage, config, steps, micro)
        },
        samples_per_second: seconds.map(|s| samples as f64 / s),
        windows_per_second: seconds.map(|s| samples as f64 * stage.windows as f64 / s),
        tokens_per_second: seconds.map(|s| samples as f64 * request.text_tokens as f64 / s),
        tflops_per_gpu: tflops,
        days_at_40_percent: recipe
            .train
            .peak_tflops
            .map(|p| flops * steps as f64 / (WELL_FED * 1e12 * p * gpus as f64) / 86_400.0),
        utilisation: tflops.zip(recipe.train.peak_tflops).map(|(t, p)| t / p),
        days,
        days_from,
    }
}

/// Optimizer steps of a stage, and items seen in them.
fn seen(stage: &StageRecipe, request: &Request) -> (usize, u64) {
    let items = step_items(stage, request.gpus);
    match request.samples {
        Some(samples) => ((samples as usize).div_ceil(items), samples),
        None => (stage.optim.steps, stage.optim.steps.saturating_mul(items) as u64),
    }
}

/// Items of one pass over the sets by their weights.
pub(crate) fn pass_items(blend: &Blend) -> u64 {
    let of = |items: usize, weight: f64| (items as f64 * weight) as u64;
    blend.sets.iter().map(|s| of(s.manifest.len(), s.weight)).sum()
}

/// Items of an optimizer step over all ranks; where a budget bounds the batches, of items at their full length.
pub(crate) fn step_items(stage: &StageRecipe, gpus: usize) -> usize {
    let o = &stage.optim;
    let items = match &stage.batch_budget {
        Some(b) => (b.windows / stage.windows.max(1)).clamp(1, b.items.max(1)),
        None => o.batch_size,
    };
    let all = items.saturating_mul(o.accumulate).saturating_mul(gpus);
    o.global_batch.unwrap_or(all).max(1)
}

/// Days of a stage: its share, by operations, of what was asked for; or the paper's, of its own run.
fn days(recipe: &Recipe, index: usize, model: &Model, request: &Request) -> (Option<f64>, String) {
    if let Some(days) = request.days {
        let cost = |s: &StageRecipe| {
            let all = s.optim.steps as f64 * step_items(s, request.gpus) as f64;
            let samples = request.samples.map_or(all, |n| n as f64);
            let again = recipe.train.activation_checkpointing;
            let tokens = request.text_tokens;
            samples * cost::train_flops(&model.config, 1, s.windows, tokens, trains(s), again)
        };
        let all: f64 = recipe.stages.iter().map(cost).sum();
        let own = recipe.stages.get(index).map_or(0.0, cost);
        let share = if all > 0.0 { own / all } else { 0.0 };
        return (Some(days * share), "--days, shared out by operations".into());
    }
    let gpus = paper::GPUS;
    let Some(paper) = &model.published else {
        let why = "none is published for this model and schedule: --days says one";
        return (None, why.into());
    };
    let hours = format!("the paper's {} h are of {gpus} A100 for all stages", paper.hours);
    match (paper.days, request.gpus == gpus) {
        (Some(days), true) => (Some(days[index]), format!("the paper's, on {gpus} A100")),
        (None, true) => (None, format!("{hours}, and how these share it is not printed")),
        (_, false) => (None, format!("{hours}; --days says one for {}", request.gpus)),
    }
}
