//! The training loop, top to bottom: batch → forward → backward → reduce → clip → step → log → validate → save.

pub mod batch;
mod board;
pub mod contrastive;
pub mod encoded;
mod finite;
mod guard;
pub mod lm;
mod made_with;
pub mod optim;
pub mod record;
mod resume;
mod same;
mod signals;
mod skipped;
mod source;
pub mod stage;
pub mod state;
pub mod steps;
mod texts;
mod verify;
mod watch;

pub use steps::{MicroStep, Stepped, Steps};
pub use verify::verify_resume;

use crate::data::feed::Ears;
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::load::{self, Loaded};
use crate::recipe::{Recipe, StageRecipe};
use crate::run::events;
use record::Recorder;
use signals::Signals;
use source::Source;
use state::Saver;
use std::path::PathBuf;
use std::rc::Rc;
use tch::Tensor;
use texts::Texts;
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
    let ears = source::ears(recipe, ranks)?;
    let signals = Signals::listen(ranks.first())?;
    let first = resume::first_stage(recipe, resume)?;
    let mut left = Vec::new();
    for (i, stage) in recipe.stages.iter().enumerate().skip(first) {
        if *resume != Resume::Auto || !resume::is_done(recipe, stage, ranks)? {
            left.push(i);
        }
    }
    source::look(recipe, &left, ranks)?;
    let run = Run {
        recipe,
        ears: &ears,
        ranks,
        signals: &signals,
    };
    for (n, i) in left.iter().copied().enumerate() {
        let stage = &recipe.stages[i];
        // A file is gone on from in its own stage only.
        let resume = match resume {
            Resume::From(_) if i > first => &Resume::No,
            resume => resume,
        };
        let model = source::start(recipe, i, ranks, device)?;
        let texts = match n {
            0 => look_at_texts(recipe, &left, &model, ranks)?,
            _ => None,
        };
        run_stage(&run, stage, &model, texts, resume)?;
        let folder = recipe.stage_folder(&stage.name);
        finite::check(&folder.display().to_string(), &model.params)?;
        if ranks.first() {
            load::save(&folder, &model)?;
            resume::done(recipe, stage)?;
        }
        // The next stage begins with what this one wrote.
        ranks.barrier()?;
    }
    Ok(())
}

/// Says before the first step of all which items of the stages that are left teach nothing. Returns what the first rank found in
/// the first of them.
fn look_at_texts(recipe: &Recipe, left: &[usize], model: &Loaded, ranks: &Ranks) -> Result<Option<Texts>> {
    let look = || {
        let mut own = None;
        for (n, i) in left.iter().enumerate().filter(|_| ranks.first()) {
            let texts = Texts::of(recipe, &recipe.stages[*i], &model.tokenizer)?;
            texts.tell()?;
            if n == 0 {
                own = Some(texts);
            }
        }
        Ok(own)
    };
    let own = look();
    let mut failed = [f64::from(u8::from(own.is_err()))];
    ranks.from_first(&mut failed)?;
    match failed[0] > 0.0 && !ranks.first() {
        true => Err(Error::Training {
            message: "rank 0 tells what is wrong with a stage's texts".into(),
            hint: None,
        }),
        false => own,
    }
}

/// What all stages of a run share.
struct Run<'a> {
    recipe: &'a Recipe,
    ears: &'a Ears,
    ranks: &'a Rc<Ranks>,
    signals: &'a Signals,
}

/// `texts`: those of the stage, where they were looked at.
fn run_stage(
    run: &Run,
    stage: &StageRecipe,
    model: &Loaded,
    texts: Option<Texts>,
    resume: &Resume,
) -> Result<()> {
    let Run {
        recipe,
        ears,
        ranks,
        signals,
    } = *run;
    let mut steps = Steps::new(model, stage, &recipe.train, ranks)?;
    stage::hold_frozen(&model.params, recipe.train.frozen, ranks.first())?;
    let folder = recipe.stage_folder(&stage.name);
    let mut saver = Saver::new(folder.clone(), stage.save)?;
    source::seed(recipe, stage, ranks);
    if ranks.first() {
        let texts = texts.map_or_else(|| Texts::of(recipe, stage, &model.tokenizer), Ok)?;
        steps.made_with = made_with::of(recipe, stage, model, &texts, ranks)?;
    }
    match resume {
        Resume::No => resume::begin(&folder, ranks)?,
        Resume::Auto => resume::newest(&folder, &mut steps)?,
        Resume::From(file) => resume::from(file, &mut steps)?,
    }
    if steps.done > 0 {
        let what = format!("the checkpoint in {} is one", folder.display());
        resume::not_beyond(recipe, stage, steps.done, &what)?;
        saver.resumed(&steps);
    }
    resume::not_done(recipe, stage, ranks)?;
    steps.meet(ears)?;
    steps.remember()?;
    let source = Source::open(recipe, stage, model, ears, ranks)?;
    let events = events::folder(&recipe.output, &stage.name);
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
    let result = source.loader.run(steps.cursor.clone(), |next| {
        while steps.done < stage.optim.steps {
            let logged = watch.logs(steps.done + 1);
            let done = guard::catch(recipe, &stage.name, || {
                one_step(&source, next, &mut steps, logged, &mut |steps, micro| {
                    watch.micro_step(steps, micro)
                })
            })?;
            watch.step(&mut steps, &done, source.loader.ledger.count())?;
            if steps.done.is_multiple_of(validate_every) || steps.done == stage.optim.steps {
                let losses = guard::catch(recipe, &stage.name, || source.validate(&steps))?;
                watch.validated(&steps, &losses)?;
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
        return Err(resume::rescue(recipe, error, &steps, &mut saver, watch.sound()));
    }
    saver.finish()?;
    watch.finish()
}

fn stopped(steps: &Steps, saved: &str) -> Error {
    let (stage, step) = (&steps.stage.name, steps.done);
    Error::Stopped(match step {
        0 => format!("{stage}: stopped by a signal before the first step: nothing is lost"),
        _ => format!(
            "{stage}: stopped by a signal after step {step}, which {saved}; `--resume auto` goes on from there"
        ),
    })
}

/// A micro-step and what it was made of.
type Made<'m> = (&'m batch::Batch, &'m MicroStep);

/// One optimizer step: batch after batch forward and backward, then the update. `each` hears of every micro-step, of those
/// without items too. A step ends with its epoch: in the reference's order it may then have had fewer micro-steps.
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
        steps.ends = made.after.batches == 0;
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
        if steps.ends {
            break;
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
