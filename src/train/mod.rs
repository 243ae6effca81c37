//! The training loop, top to bottom: next → forward → backward → clip → step → record → validate → save.

pub mod batch;
pub mod contrastive;
pub mod lm;
pub mod optim;
pub mod record;
pub mod stage;
pub mod state;

use crate::data::feed::{examples, Ears, Example};
use crate::data::loader::{Loader, Prepared};
use crate::data::manifest::Manifest;
use crate::data::order::Cursor;
use crate::data::skips::Ledger;
use crate::error::{Error, Result};
use crate::load::{self, Loaded};
use crate::progress::Progress;
use crate::recipe::{ClipAt, Recipe, StageRecipe};
use batch::{Batch, Encoded};
use optim::{learning_rate, AdamW};
use record::Recorder;
use stage::EmbeddingMask;
use state::Saver;
use std::time::Instant;
use tch::{no_grad, Device, Kind, Tensor};

/// Runs every stage of the recipe, each from the checkpoint that the one before wrote.
pub fn curriculum(recipe: &Recipe, device: Device) -> Result<()> {
    let ears = Ears::new(recipe.data.cache_mib);
    let mut before: Option<&str> = None;
    for stage in &recipe.stages {
        let model = match before {
            None => load::start(recipe, device)?,
            Some(name) => load::open(&recipe.stage_folder(name), &load::Options::new(device))?,
        };
        run_stage(recipe, stage, &model, &ears)?;
        load::save(&recipe.stage_folder(&stage.name), &model)?;
        before = Some(&stage.name);
    }
    Ok(())
}

/// One optimizer step's worth of gradients, one micro-step at a time. Public, so that golden tests drive the same code.
pub struct Steps<'a> {
    pub model: &'a Loaded,
    pub stage: &'a StageRecipe,
    pub optimizer: AdamW,
    embedding_mask: Option<EmbeddingMask>,
    /// Optimizer steps made.
    pub done: usize,
    /// Where the data is behind the last batch.
    pub cursor: Cursor,
}

/// What a micro-step leaves, still on the device.
pub struct MicroStep {
    /// Mean loss over the batch's counted labels.
    pub loss: Tensor,
    /// Norm of the gradients accumulated so far, before clipping.
    pub grad_norm: Tensor,
}

impl<'a> Steps<'a> {
    pub fn new(model: &'a Loaded, stage: &'a StageRecipe) -> Self {
        let optimizer = stage::optimizer(&model.params, stage);
        let rows = [model.tokenizer.audio, model.tokenizer.end_of_chunk];
        Steps {
            model,
            stage,
            optimizer,
            embedding_mask: EmbeddingMask::new(&model.params, stage, &rows, model.device),
            done: 0,
            cursor: Cursor::default(),
        }
    }

    /// Forward and backward of one batch, its loss divided by the micro-steps of a step.
    pub fn micro_step(&self, batch: &Batch) -> Result<MicroStep> {
        let loss = batch.loss(&self.model.model, self.stage, true);
        (&loss / self.stage.optim.accumulate as f64).f_backward()?;
        if let Some(mask) = &self.embedding_mask {
            mask.apply();
        }
        let grad_norm = match self.stage.clip_at {
            ClipAt::MicroStep => self.optimizer.clip(self.stage.optim.clip),
            ClipAt::Step => Tensor::from(0f32),
        };
        Ok(MicroStep {
            loss: loss.detach(),
            grad_norm,
        })
    }

    /// Moves the weights and forgets the gradients. Returns the learning rate used.
    pub fn step(&mut self) -> f64 {
        if self.stage.clip_at == ClipAt::Step {
            let _ = self.optimizer.clip(self.stage.optim.clip);
        }
        let rate = learning_rate(&self.stage.optim, self.done);
        self.optimizer.step(rate);
        self.optimizer.zero_grad();
        self.done += 1;
        rate
    }
}

fn run_stage(recipe: &Recipe, stage: &StageRecipe, model: &Loaded, ears: &Ears) -> Result<()> {
    let o = &stage.optim;
    let order = recipe.order(stage)?;
    let validation = validation_batches(recipe, stage)?;
    let encoded = if stage.cache_features {
        let mut all: Vec<Example> = validation.concat();
        for set in &order.blend.sets {
            all.extend(examples(
                &set.manifest,
                &recipe.data_root(),
                stage.windows,
                usize::MAX,
            )?);
        }
        // What cannot be heard is found again, and noted, when its batch comes.
        let clips = all.iter().map(|e| &e.clip);
        Encoded::of(model, ears, clips, &format!("{}: encode", stage.name))?.0
    } else {
        Encoded::default()
    };
    let path = recipe.output.join("skipped.jsonl");
    let ledger = Ledger::new(&path, &stage.name, order.blend.len(), recipe.data.skip_budget);
    let loader = Loader {
        order,
        root: recipe.data_root(),
        windows: stage.windows,
        ears,
        tokenizer: &model.tokenizer,
        max_tokens: recipe.data.max_tokens,
        ledger: &ledger,
        bad_items: recipe.data.bad_items,
        known: encoded.clips(),
        threads: recipe.data.threads,
        ahead: recipe.data.ahead,
    };
    let mut record = Recorder::create(&recipe.output.join("events").join(&stage.name))?;
    let mut steps = Steps::new(model, stage);
    let mut saver = Saver::new(recipe.stage_folder(&stage.name), stage.save)?;
    let progress = Progress::new(&format!("{}: train", stage.name), o.steps as u64);
    let started = Instant::now();
    let every = log_every(o.steps);
    // Sums since the last log, on the device: nothing waits for the host between logs.
    let mut loss_sum = Tensor::zeros([0i64; 0], (Kind::Float, model.device));
    let (mut micro_steps, mut tokens) = (0, 0);

    loader.run(steps.cursor.clone(), |next| {
        while steps.done < o.steps {
            let mut grad_norm = Tensor::from(0f32);
            for _ in 0..o.accumulate {
                let (batch, after) = next_batch(next, &encoded, model)?;
                steps.cursor = after;
                let micro = steps.micro_step(&batch)?;
                loss_sum += micro.loss;
                grad_norm = micro.grad_norm;
                micro_steps += 1;
                tokens += batch.tokens;
            }
            let rate = steps.step();
            saver.after_step(&steps)?;
            progress.inc(1);
            if steps.done.is_multiple_of(every) || steps.done == o.steps {
                let loss = number(&loss_sum)? / micro_steps as f64;
                if !loss.is_finite() {
                    return Err(Error::Training {
                        message: format!("{}: the loss is not a number at step {}", stage.name, steps.done),
                        hint: Some(format!(
                            "lower stages.{}.optim.learning_rate, or raise its warmup",
                            stage.name
                        )),
                    });
                }
                let seconds = started.elapsed().as_secs_f64();
                record.record(
                    steps.done as u64,
                    &[
                        ("loss", loss),
                        ("learning_rate", rate),
                        ("grad_norm", number(&grad_norm)?),
                        ("tokens_per_second", tokens as f64 / seconds),
                        ("steps_per_second", steps.done as f64 / seconds),
                    ],
                )?;
                let skipped = match ledger.count() {
                    0 => String::new(),
                    n => format!(", {n} items skipped"),
                };
                progress.message(&format!("loss {loss:.3}{skipped}"));
                loss_sum = loss_sum.zeros_like();
                micro_steps = 0;
            }
            if steps.done.is_multiple_of(8 * every) || steps.done == o.steps {
                let loss = validate(recipe, stage, model, ears, &encoded, &validation)?;
                if let Some(loss) = loss {
                    record.record(steps.done as u64, &[("validation_loss", loss)])?;
                }
            }
        }
        Ok(())
    })?;
    progress.finish("");
    saver.finish()?;
    record.flush()
}

/// The loader's next batch of which anything is left, on the device, and where the data is behind it.
fn next_batch(
    next: &mut dyn FnMut() -> Result<Prepared>,
    encoded: &Encoded,
    model: &Loaded,
) -> Result<(Batch, Cursor)> {
    loop {
        let made = next()?;
        if let Some(text) = &made.text {
            let batch = Batch::new(&made.examples, &made.mels, text, encoded, model.device);
            return Ok((batch, made.after));
        }
    }
}

/// A hundred points make a curve.
pub fn log_every(steps: usize) -> usize {
    (steps / 100).max(1)
}

/// A scalar on the host: waits for the device.
pub fn number(t: &Tensor) -> Result<f64> {
    Ok(f64::try_from(t.to_kind(Kind::Double))?)
}

/// The `…/val.json` beside each training manifest, where there is one: at most 64 items of each, as the reference.
fn validation_batches(recipe: &Recipe, stage: &StageRecipe) -> Result<Vec<Vec<Example>>> {
    let mut batches = Vec::new();
    for set in stage.sets.keys() {
        let path = recipe.manifest(set).with_file_name("val.json");
        if !path.exists() {
            continue;
        }
        let manifest = Manifest::open(&path)?;
        let items = examples(&manifest, &recipe.data_root(), stage.windows, 64)?;
        batches.extend(items.chunks(stage.optim.batch_size).map(<[_]>::to_vec));
    }
    Ok(batches)
}

/// Loss per counted token over the validation items, in evaluation mode.
fn validate(
    recipe: &Recipe,
    stage: &StageRecipe,
    model: &Loaded,
    ears: &Ears,
    encoded: &Encoded,
    batches: &[Vec<Example>],
) -> Result<Option<f64>> {
    let mut sum = Tensor::zeros([0i64; 0], (Kind::Float, model.device));
    let mut tokens = 0;
    for examples in batches {
        let batch = Batch::of(examples, ears, encoded, model, recipe.data.max_tokens)?;
        no_grad(|| sum += batch.loss(&model.model, stage, false) * batch.tokens as f64);
        tokens += batch.tokens;
    }
    Ok(match tokens {
        0 => None,
        n => Some(number(&sum)? / n as f64),
    })
}
