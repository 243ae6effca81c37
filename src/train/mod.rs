//! The training loop, top to bottom: batch → forward → backward → reduce → clip → step → log → validate → save.
//!
//! A [`job::Job`] says what is trained; the loop and its [`engine`] are the same for all of [`jobs`].
//!
//! ```no_run
//! use af2::dist::Ranks;
//! use af2::recipe_file;
//! use af2::train::{self, Resume, Which};
//!
//! # fn main() -> af2::Result<()> {
//! let recipe = recipe_file::load("recipes/demo.yaml".as_ref(), &["lm.optim.steps=100".to_owned()])?;
//! let (ranks, device) = (Ranks::alone().into(), tch::Device::cuda_if_available());
//! train::run(&recipe, Which::Lm, &ranks, device, &Resume::Auto)?;
//! # Ok(())
//! # }
//! ```

pub mod engine;
pub mod job;
pub mod jobs;
mod scalar;
mod verify;
pub(crate) mod written;

pub use engine::steps::{MicroStep, Stepped, Steps};
pub use job::Which;
pub use jobs::run;
pub(crate) use jobs::verify_resume;
pub use scalar::number;

use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::run::events;
use engine::clock::Phase;
use engine::record::Recorder;
use engine::resume::Task;
use engine::saver::Saver;
use engine::signals::Signals;
use engine::watch::Watch;
use engine::{frozen, guard, random, resume};
use job::{Batch, Job, Next, Source};
use std::path::PathBuf;
use std::rc::Rc;

/// How a run begins where its folder holds something already.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Resume {
    /// From the beginning, whatever is there.
    #[default]
    No,
    /// Behind what is done, from the newest checkpoint of the next that can be read.
    Auto,
    /// From this checkpoint, ours or the reference trainer's; of the stage that it names, else of the first.
    From(PathBuf),
}

/// What all jobs of a run share.
#[derive(Clone, Copy)]
struct Run<'a> {
    recipe: &'a Recipe,
    ranks: &'a Rc<Ranks>,
}

/// Trains a job from its beginning, or from where it was, to its last step.
fn train<J: Job>(
    run: Run,
    signals: &Signals,
    job: &J,
    task: &Task,
    source: &dyn Source<J::Input>,
    resume: &Resume,
) -> Result<()> {
    let Run { recipe, ranks } = run;
    let mut steps = Steps::new(job, &recipe.train, ranks)?;
    frozen::hold(job.params(), recipe.train.frozen, ranks.first())?;
    let mut saver = Saver::new(task.folder.to_path_buf(), job.save())?;
    random::seed(recipe.seed, job.name(), ranks);
    if ranks.first() {
        steps.made_with = source.made_with()?;
    }
    match resume {
        Resume::No => resume::begin(task.folder, ranks)?,
        Resume::Auto => resume::newest(task.folder, &mut steps)?,
        Resume::From(file) => resume::from(file, &mut steps)?,
    }
    if steps.done > 0 {
        let what = format!("the checkpoint in {} is one", task.folder.display());
        task.not_beyond(steps.done, &what)?;
        saver.resumed(&steps);
    }
    task.not_done(ranks)?;
    steps.meet()?;
    steps.remember()?;
    let data = source.open()?;
    let events = events::folder(&recipe.output, job.name());
    let record = match (ranks.first(), resume) {
        (false, _) => None,
        (true, Resume::No) => Some(Recorder::create(&events)?),
        (true, _) => Some(Recorder::resume(&events, steps.done as u64)?),
    };
    let mut watch = Watch::new(record, recipe, &steps);
    let validate_every = match recipe.train.validate_every {
        0 => 8 * watch.every(),
        n => n,
    };

    if signals.asked(ranks)?.stop {
        return Err(stopped(&steps, "was saved before"));
    }
    let section = job.section();
    let result = data.run(steps.cursor.clone(), &mut |next| {
        while steps.done < job.optim().steps {
            let logged = watch.logs(steps.done + 1);
            let done = guard::catch(&recipe.train, &section, || {
                one_step(next, &mut steps, logged, &mut |steps, micro| {
                    watch.micro_step(steps, micro)
                })
            })?;
            watch.step(&mut steps, &done, data.left_out())?;
            if steps.done.is_multiple_of(validate_every) || steps.done == job.optim().steps {
                let values = guard::catch(&recipe.train, &section, || {
                    // Each rank's running averages are of what it sees itself; what is saved is the first's.
                    let buffers: Vec<_> = steps.moving_buffers().map(|(_, t)| t).collect();
                    ranks.broadcast(&buffers, 0)?;
                    data.validate(ranks)
                })?;
                watch.validated(&steps, &values)?;
            }
            let asked = signals.asked(ranks)?;
            if saver.due(&steps) || asked.save || asked.stop {
                watch.still_there()?;
                saver.save(&steps)?;
            }
            if asked.stop {
                saver.finish()?;
                // Who ends first may take the others down with it: nobody does before the file is there.
                ranks.barrier()?;
                return Err(stopped(&steps, "is saved"));
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        return Err(resume::rescue(error, &steps, &mut saver, watch.sound()));
    }
    saver.finish()?;
    watch.finish()
}

fn stopped<J: Job>(steps: &Steps<J>, saved: &str) -> Error {
    let (job, step) = (steps.job.name(), steps.done);
    Error::Stopped(match step {
        0 => format!("{job}: stopped by a signal before the first step: nothing is lost"),
        _ => format!(
            "{job}: stopped by a signal after step {step}, which {saved}; `--resume auto` goes on from there"
        ),
    })
}

/// Hears of a micro-step and what it was made of; of nothing where this rank had no item.
type Each<'e, J> = &'e mut dyn FnMut(&Steps<J>, Option<(&Batch<<J as Job>::Input>, &MicroStep)>);

/// One optimizer step: batch after batch forward and backward, then the update. `each` hears of every micro-step, of those
/// without items too. A step ends with its epoch where that is the data's rule: it may then have had fewer micro-steps.
fn one_step<J: Job>(
    next: Next<J::Input>,
    steps: &mut Steps<J>,
    logged: bool,
    each: Each<J>,
) -> Result<Stepped> {
    steps.clock.begin(logged);
    for _ in 0..steps.micro_steps {
        let (batch, after) = next(&mut steps.clock)?;
        steps.ends = after.batches == 0;
        steps.cursor = after;
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
        if steps.ends {
            break;
        }
    }
    steps.step(logged)
}
