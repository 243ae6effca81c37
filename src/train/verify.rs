//! `--verify-resume`: shows on the user's own recipe that a run goes on from a checkpoint as if it had not been interrupted.

use super::source::{self, Source};
use super::state::{restore, restore_weights, Snapshot};
use super::{number, one_step, stage, Steps};
use crate::checkpoint::open_torch;
use crate::data::feed::Ears;
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::ffi::kernels;
use crate::load::Loaded;
use crate::recipe::{Recipe, StageRecipe};
use crate::run::verify_resume as resume_folder;
use std::path::Path;
use std::rc::Rc;
use tch::{Device, Tensor};

/// Steps before the checkpoint, and after it.
const STEPS: usize = 3;

/// What the steps behind the checkpoint gave.
struct Outcome {
    losses: Vec<f64>,
    weights: Vec<(String, Tensor)>,
}

/// For each stage, from the model of the first: a few steps, a save, a few more; then a new model, the file, the same steps.
/// Losses and weights must be equal bit for bit. On a GPU libtorch is told to take kernels that give the same bits each time.
///
/// # Errors
/// [`Error::Mismatch`] with the first loss or weight that differs.
pub fn verify_resume(recipe: &Recipe, ranks: &Rc<Ranks>, device: Device) -> Result<()> {
    if let Device::Cuda(_) = device {
        kernels::deterministic()?;
    }
    recipe.ready(ranks.world)?;
    let all: Vec<usize> = (0..recipe.stages.len()).collect();
    source::look(recipe, &all, ranks)?;
    let ears = source::ears(recipe, ranks)?;
    let folder = resume_folder(&recipe.output);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    for stage in &recipe.stages {
        // A few steps do not want the features of all clips.
        let stage = &StageRecipe {
            cache_features: false,
            ..stage.clone()
        };
        let file = folder.join(format!("{}.pt", stage.name));
        let model = source::start(recipe, 0, ranks, device)?;
        let whole = run(recipe, stage, &model, &ears, ranks, &file, true)?;
        drop(model);
        let model = source::start(recipe, 0, ranks, device)?;
        let again = run(recipe, stage, &model, &ears, ranks, &file, false)?;
        compare(stage, &whole, &again, device.is_cuda())?;
        if ranks.first() {
            let size = std::fs::metadata(&file).map_or(0, |m| m.len());
            crate::out!(
                "{}: {STEPS} steps, a checkpoint of {:.1} MB, {STEPS} more; from the checkpoint the same {} losses and {} weights, bit for bit",
                stage.name,
                size as f64 / 1e6,
                whole.losses.len(),
                whole.weights.len()
            );
            std::fs::remove_file(&file).map_err(|e| Error::io(&file, e))?;
        }
    }
    // Only an empty folder goes.
    let _ = std::fs::remove_dir(&folder);
    ranks.barrier()
}

fn run(
    recipe: &Recipe,
    stage: &StageRecipe,
    model: &Loaded,
    ears: &Ears,
    ranks: &Rc<Ranks>,
    file: &Path,
    writes: bool,
) -> Result<Outcome> {
    let mut steps = Steps::new(model, stage, &recipe.train, ranks)?;
    stage::hold_frozen(&model.params, recipe.train.frozen, false)?;
    source::seed(recipe, stage, ranks);
    if !writes {
        let file = open_torch(file)?;
        restore_weights(&steps, &file)?;
        restore(&mut steps, &file)?;
    }
    steps.meet(ears)?;
    let source = Source::open(recipe, stage, model, ears, ranks)?;
    let mut losses = Vec::new();
    source.loader.run(steps.cursor.clone(), |next| {
        while steps.done < 2 * STEPS {
            if steps.done == STEPS && writes {
                if let Some(snapshot) = Snapshot::of(&steps, 0, false)? {
                    snapshot.write(file)?;
                }
                ranks.barrier()?;
            }
            let counts = steps.done >= STEPS;
            one_step(&source, next, &mut steps, false, &mut |_, micro| {
                if let Some((_, micro)) = micro.filter(|_| counts) {
                    losses.push(micro.loss.shallow_clone());
                }
            })?;
        }
        Ok(())
    })?;
    Ok(Outcome {
        losses: losses.iter().map(number).collect::<Result<_>>()?,
        weights: (model.params.trainable().into_iter())
            .map(|(n, t)| (n, t.detach().to_device(Device::Cpu).copy()))
            .collect(),
    })
}

fn compare(stage: &StageRecipe, whole: &Outcome, again: &Outcome, on_gpu: bool) -> Result<()> {
    let differs = |what: String| {
        let why = match on_gpu {
            true => {
                "; kernels that libtorch warned of above give other bits each time, which is then the reason"
            }
            false => "",
        };
        Err(Error::Mismatch(format!(
            "{}: after the checkpoint {what}: going on from it is not the same run{why}",
            stage.name
        )))
    };
    for (i, (a, b)) in whole.losses.iter().zip(&again.losses).enumerate() {
        if a.to_bits() != b.to_bits() {
            return differs(format!("loss {i} is {b}, without a break it is {a}"));
        }
    }
    for ((name, a), (_, b)) in whole.weights.iter().zip(&again.weights) {
        if !a.equal(b) {
            return differs(format!("{name} differs"));
        }
    }
    match whole.losses.len() == again.losses.len() && !whole.losses.is_empty() {
        true => Ok(()),
        false => differs(format!(
            "there are {} losses, not {}",
            again.losses.len(),
            whole.losses.len()
        )),
    }
}
