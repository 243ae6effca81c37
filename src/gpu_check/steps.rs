//! One training step of the 3B shapes in each stage, beside what `af2 plan` says of its memory.

use super::part::{Check, Measured};
use super::{card, made};
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::ffi::{check, kernels};
use crate::load::Loaded;
use crate::model::cost;
use crate::panics;
use crate::plan;
use crate::plan::memory::{Setup, GIB};
use crate::recipe::{Recipe, StageRecipe};
use crate::recipe_file;
use crate::train::engine::frozen;
use crate::train::jobs::curriculum::Stage;
use crate::train::{number, Steps};
use std::rc::Rc;
use std::time::Instant;
use tch::{Device, Tensor};

pub(crate) const ABOUT: &str = "Stages, precision and batches of `recipes/af2-3b.yaml` on one GPU, random weights, the longest texts that it lets \
    through, one micro-step and its update. The peak is what libtorch's tensors took; the plan's number is its total without what it sets \
    aside for CUDA and the libraries, and for one GPU. Past 1.1 times the plan a run that `af2 plan` lets begin may not fit; below 0.6 it would \
    turn away what does. MFU leaves out what is computed a second time. What does not fit is halved until it does.";

/// The peak by the plan.
const MOST: f64 = 1.1;
const LEAST: f64 = 0.6;

const WARM_UP: usize = 2;
const TIMED: usize = 5;

/// The demo's line, smaller.
const TINY: [&str; 8] = [
    "train.precision=amp_bf16",
    "train.frozen=bf16",
    "data.max_tokens=24",
    "lm.layers=2",
    "clap.audio.embed_dim=8",
    "stages.0.optim.batch_size=2",
    "stages.1.optim.batch_size=2",
    "stages.2.optim.batch_size=2",
];
const TINY_WINDOWS: [&str; 3] = ["stages.0.windows=1", "stages.1.windows=2", "stages.2.windows=3"];

/// The recipe whose stages are measured.
pub(crate) fn recipe(tiny: bool) -> Result<Recipe> {
    // Nothing of a run that lies here by chance is to be read.
    let elsewhere = "output=/nonexistent/gpu-check".to_owned();
    match tiny {
        true => {
            let all = TINY.iter().chain(&TINY_WINDOWS).map(|s| (*s).to_owned());
            recipe_file::demo(&all.chain([elsewhere]).collect::<Vec<_>>())
        }
        false => recipe_file::parse(
            include_str!("../../recipes/af2-3b.yaml"),
            "recipes/af2-3b.yaml (built in)",
            &[elsewhere],
        ),
    }
}

pub(crate) fn run(check: &mut Check) -> Result<()> {
    let device = check.device;
    let mut recipe = recipe(check.tiny)?;
    let (config, _) = plan::config(&recipe)?;
    let Some(mut loaded) = made::model(check, &config)? else {
        return Ok(());
    };
    let peak = check.peak_tflops.or_else(|| card::peak_tflops(&card::names()));
    let stages = recipe.stages.clone();
    for again in [false, true] {
        recipe.train.activation_checkpointing = again;
        for stage in &stages {
            let how = if again {
                "activation checkpointing"
            } else {
                "all is kept"
            };
            let name = format!("{}, {how}", stage.name);
            check.row(&name, |m| measure(m, &recipe, stage, &mut loaded, device, peak))?;
        }
    }
    Ok(())
}

fn measure(
    m: &mut Measured,
    recipe: &Recipe,
    stage: &StageRecipe,
    loaded: &mut Loaded,
    device: Device,
    peak_tflops: Option<f64>,
) -> Result<()> {
    let config = loaded.model.config.clone();
    let parameters = cost::parameters(&config)?;
    let mut setup = Setup::of(recipe, stage, 1, &config, &parameters);
    let planned = setup.items;
    let all = check::memory(device)?.map_or(f64::INFINITY, |m| m.total as f64);
    let should_fit = setup.bytes(&config, &parameters).total() <= plan::MOST * all;
    let found = loop {
        let tried = panics::caught(|| steps(recipe, stage, loaded, &setup, device));
        let why = match tried {
            Ok(Ok(found)) => break found,
            Ok(Err(e)) => e.to_string(),
            Err(why) => why,
        };
        if !why.contains("out of memory") || setup.items == 1 {
            return Err(Error::Training {
                message: why,
                hint: None,
            });
        }
        setup.items = (setup.items / 2).max(1);
        let params: Vec<Tensor> = loaded.params.trainable().into_iter().map(|(_, p)| p).collect();
        kernels::forget_grads(&params)?;
        check::empty_cache(device)?;
    };
    let less = setup.items < planned;
    m.must(!(less && should_fit), || {
        "by the plan the recipe's batch fits, and does not".into()
    });
    if less {
        m.note(format!("{planned} items, as the recipe has them, do not fit"));
    }
    m.must(found.losses.iter().all(|l| l.is_finite()), || {
        format!("losses that are no numbers: {:?}", found.losses)
    });
    let (items, windows, text) = (setup.items, setup.windows, setup.text_tokens);
    m.set("items", items);
    m.set("windows", windows);
    m.set("text_tokens", text);
    let bytes = setup.bytes(&config, &parameters);
    let expected = bytes.total() - bytes.libraries;
    m.set("plan_gib", expected / GIB);
    match found.memory {
        Some((taken, reserved)) => {
            let ratio = taken / expected;
            m.set("peak_gib", taken / GIB);
            m.set("reserved_gib", reserved / GIB);
            m.set("peak_by_plan", ratio);
            m.must((LEAST..=MOST).contains(&ratio), || {
                format!("the peak is {ratio:.2} times the plan's, {LEAST} to {MOST} was expected")
            });
        }
        None => m.note("memory: not measured on the CPU"),
    }
    let trains = plan::trains(stage);
    let flops = cost::train_flops(&config, items, windows, text, trains, false)
        + cost::head_flops(&config, found.counted as f64, trains)
        - cost::head_flops(&config, (items * text) as f64, trains);
    let rate = flops / found.seconds / 1e12;
    m.set("step_ms", 1e3 * found.seconds);
    m.set("text_tokens_per_s", (items * text) as f64 / found.seconds);
    m.set("windows_per_s", (items * windows) as f64 / found.seconds);
    m.set("tflops", rate);
    match (peak_tflops, device) {
        (Some(peak), Device::Cuda(_)) => m.set("mfu_percent", 100.0 * rate / peak),
        (None, Device::Cuda(_)) => m.note("MFU: the card's peak is not known; --peak-tflops says it"),
        _ => {}
    }
    Ok(())
}

struct Found {
    seconds: f64,
    losses: Vec<f64>,
    /// Labels of a batch that count.
    counted: usize,
    /// Bytes: what tensors took at most, and what was held for them.
    memory: Option<(f64, f64)>,
}

fn steps(
    recipe: &Recipe,
    stage: &StageRecipe,
    loaded: &mut Loaded,
    setup: &Setup,
    device: Device,
) -> Result<Found> {
    let mut stage = stage.clone();
    // One micro-step a step, which moves weights from the first on.
    stage.optim.global_batch = None;
    stage.optim.accumulate = 1;
    stage.optim.batch_size = setup.items;
    stage.optim.warmup = 0;
    let job = Stage::new(loaded, &stage, &recipe.train);
    let mut steps = Steps::new(&job, &recipe.train, &Rc::new(Ranks::alone()))?;
    frozen::hold(&loaded.params, recipe.train.frozen, false)?;
    let shape = made::Shape {
        items: setup.items,
        windows: setup.windows,
        text: setup.text_tokens,
        ragged: false,
    };
    let batch = made::batch(shape, &loaded.tokenizer, device);
    let mut losses = Vec::new();
    let mut step = || -> Result<f64> {
        check::synchronize(device)?;
        let begun = Instant::now();
        let micro = steps.micro_step(&batch)?;
        steps.step(false)?;
        // Reading it waits for the forward pass, what follows for the rest.
        losses.push(number(&micro.loss)?);
        check::synchronize(device)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    for _ in 0..WARM_UP {
        step()?;
    }
    check::reset_peak(device)?;
    let mut seconds = (0..TIMED).map(|_| step()).collect::<Result<Vec<f64>>>()?;
    seconds.sort_by(f64::total_cmp);
    let memory = match check::memory(device)? {
        Some(info) => {
            let (_, peak) = kernels::device_memory(device)?;
            Some((peak as f64, info.reserved as f64))
        }
        None => None,
    };
    Ok(Found {
        seconds: seconds[TIMED / 2],
        losses,
        counted: batch.counted,
        memory,
    })
}
