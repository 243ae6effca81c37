//! The training loop, top to bottom: batch → forward → backward → reduce → clip → step → log → validate → save.

pub mod batch;
pub mod contrastive;
mod guard;
pub mod lm;
pub mod optim;
pub mod record;
mod resume;
mod same;
mod signals;
mod source;
pub mod stage;
pub mod state;
pub mod steps;
mod verify;
mod watch;

pub use steps::{MicroStep, Stepped, Steps};
pub use verify::verify_resume;

use crate::data::feed::Ears;
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::load::{self, Loaded};
use crate::recipe::{Recipe, StageRecipe};
use record::Recorder;
use signals::Signals;
use source::Source;
use state::Saver;
use std::path::PathBuf;
use std::rc::Rc;
use tch::Tensor;
use watch::{Phase, Watch};

/// How a run begins where its folder holds something already.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Resume {
    /// From the beginning, whatever is there.
    #[default]
    No,
    /// Behind the last stage that is done, from the newest checkpoint of the next that can be read.
    Auto,
    /// From this checkpoint, ours or the reference trainer's; of the stage that it names, else of the first.
    From(PathBuf),
}

/// Runs every stage of the recipe, each from what it names, else from what the one before wrote.
pub fn curriculum(recipe: &Recipe, ranks: &Rc<Ranks>, device: tch::Device, resume: &Resume) -> Result<()> {
    recipe.ready(ranks.world)?;
    let ears = Ears::new(recipe.data.cache_mib);
    let signals = Signals::listen()?;
    let first = resume::first_stage(recipe, resume)?;
    let mut left = Vec::new();
    for (i, stage) in recipe.stages.iter().enumerate().skip(first) {
        if *resume != Resume::Auto || !resume::is_done(recipe, stage, ranks)? {
            left.push(i);
        }
    }
    source::look(recipe, &left, ranks)?;
    for (i, stage) in recipe.stages.iter().enumerate().skip(first) {
        if *resume == Resume::Auto && resume::is_done(recipe, stage, ranks)? {
            continue;
        }
        // A file is gone on from in its own stage only.
        let resume = match resume {
            Resume::From(_) if i > first => &Resume::No,
            resume => resume,
        };
        resume::not_done(recipe, stage, ranks)?;
        let model = source::start(recipe, i, ranks, device)?;
        run_stage(recipe, stage, &model, &ears, ranks, &signals, resume)?;
        if ranks.first() {
            load::save(&recipe.stage_folder(&stage.name), &model)?;
            resume::done(recipe, stage)?;
        }
        // The next stage begins with what this one wrote.
        ranks.barrier()?;
    }
    Ok(())
}

fn run_stage(
    recipe: &Recipe,
    stage: &StageRecipe,
    model: &Loaded,
    ears: &Ears,
    ranks: &Rc<Ranks>,
    signals: &Signals,
    resume: &Resume,
) -> Result<()> {
    let mut steps = Steps::new(model, stage, &recipe.train, ranks)?;
    stage::hold_frozen(&model.params, recipe.train.frozen, ranks.first())?;
    let folder = recipe.stage_folder(&stage.name);
    let mut saver = Saver::new(folder.clone(), stage.save)?;
    source::seed(recipe, stage, ranks);
    match resume {
        Resume::No => resume::begin(&folder, ranks)?,
        Resume::Auto => resume::newest(&folder, &mut steps)?,
        Resume::From(file) => resume::from(file, &mut steps)?,
    }
    if steps.done > 0 {
        saver.resumed(&steps);
    }
    steps.meet(ears)?;
    steps.remember()?;
    let source = Source::open(recipe, stage, model, ears, ranks)?;
    let record = match ranks.first() {
        true => Some(Recorder::create(&recipe.output.join("events").join(&stage.name))?),
        false => None,
    };
    let ledger = recipe.output.join("nonfinite.jsonl");
    let mut watch = Watch::new(record, &stage.name, ledger, recipe.train.log_every, &steps);
    let validate_every = match recipe.train.validate_every {
        0 => 8 * watch.every(),
        n => n,
    };

    let result = source.loader.run(steps.cursor.clone(), |next| {
        while steps.done < stage.optim.steps {
            let logged = watch.logs(steps.done + 1);
            let done = guard::catch(recipe, &stage.name, || {
                one_step(&source, next, &mut steps, logged, &mut |steps, micro| watch.micro_step(steps, micro))
            })?;
            watch.step(&mut steps, &done, source.loader.ledger.count())?;
            if steps.done.is_multiple_of(validate_every) || steps.done == stage.optim.steps {
                let losses = guard::catch(recipe, &stage.name, || source.validate(&steps))?;
                watch.validated(&steps, &losses)?;
            }
            saver.after_step(&steps)?;
            let asked = signals.asked(ranks)?;
            if asked.save || asked.stop {
                saver.save(&steps)?;
            }
            if asked.stop {
                saver.finish()?;
                // Who ends first may take the others down with it: nobody does before the file is there.
                ranks.barrier()?;
                return Err(Error::Stopped(format!(
                    "{}: stopped by a signal after step {}, which is saved; `--resume auto` goes on from there",
                    stage.name, steps.done
                )));
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        return Err(resume::rescue(recipe, error, &steps, &mut saver, watch.sound()));
    }
    saver.finish()?;
    watch.finish()
}

/// A micro-step and what it was made of.
type Made<'m> = (&'m batch::Batch, &'m MicroStep);

/// One optimizer step: batch after batch forward and backward, then the update. `each` hears of every micro-step, of those
/// without items too.
fn one_step(
    source: &Source,
    next: source::Next,
    steps: &mut Steps,
    logged: bool,
    each: &mut dyn FnMut(&Steps, Option<Made>),
) -> Result<Stepped> {
    steps.clock.begin(logged);
    for _ in 0..steps.micro_steps {
        let made = next()?;
        steps.clock.after(Phase::Data);
        let batch = source.batch(&made);
        steps.cursor = made.after;
        steps.clock.after(Phase::Transfer);
        match batch {
            Some(batch) => {
                let micro = steps.micro_step(&batch)?;
                each(steps, Some((&batch, &micro)));
            }
            None => {
                steps.empty_micro_step()?;
                each(steps, None);
            }
        }
    }
    steps.step(logged)
}

/// A hundred points make a curve.
pub fn log_every(steps: usize) -> usize {
    (steps / 100).max(1)
}

/// A scalar on the host: waits for the device.
pub fn number(t: &Tensor) -> Result<f64> {
    Ok(f64::try_from(t.to_kind(tch::Kind::Double))?)
}
