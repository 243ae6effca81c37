//! `--verify-resume`: shows on the user's own recipe that a run goes on from a checkpoint as if it had not been interrupted.

use super::engine::state::{restore, restore_weights, Snapshot};
use super::engine::steps::Steps;
use super::engine::{frozen, random};
use super::job::{Job, Source};
use super::scalar::number;
use super::{one_step, Run};
use crate::checkpoint::open_torch;
use crate::error::{Error, Result};
use crate::ffi::kernels;
use crate::run::verify_resume as resume_folder;
use std::path::PathBuf;
use tch::{Device, Tensor};

/// Steps before the checkpoint, and after it.
const STEPS: usize = 3;

/// One half of the comparison: the run without a break, which writes the checkpoint, or the one that goes on from it.
pub(crate) struct Part {
    file: PathBuf,
    writes: bool,
}

/// What the steps behind the checkpoint gave.
pub(crate) struct Outcome {
    losses: Vec<f64>,
    weights: Vec<(String, Tensor)>,
}

/// A few steps of a job, a save, a few more; then a new model, the file, the same steps: `half` makes the job and runs one half.
/// Losses and weights must be equal bit for bit. On a GPU libtorch is told to take kernels that give the same bits each time.
///
/// # Errors
/// [`Error::Mismatch`] with the first loss or weight that differs.
pub(crate) fn twice(
    run: Run,
    job: &str,
    device: Device,
    half: &mut dyn FnMut(&Part) -> Result<Outcome>,
) -> Result<()> {
    if device.is_cuda() {
        kernels::deterministic()?;
    }
    let folder = resume_folder(&run.recipe.output);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    let file = folder.join(format!("{job}.pt"));
    let part = |writes: bool| Part {
        file: file.clone(),
        writes,
    };
    let whole = half(&part(true))?;
    let again = half(&part(false))?;
    compare(job, &whole, &again, device.is_cuda())?;
    if run.ranks.first() {
        let size = std::fs::metadata(&file).map_or(0, |m| m.len());
        crate::out!(
            "{job}: {STEPS} steps, a checkpoint of {:.1} MB, {STEPS} more; from the checkpoint the same {} losses and {} weights, bit for bit",
            size as f64 / 1e6,
            whole.losses.len(),
            whole.weights.len()
        );
        std::fs::remove_file(&file).map_err(|e| Error::io(&file, e))?;
        // Only an empty folder goes.
        let _ = std::fs::remove_dir(&folder);
    }
    run.ranks.barrier()
}

impl Part {
    /// Runs this half of a job that was just made.
    ///
    /// # Errors
    /// Those of training.
    pub(crate) fn run<J: Job>(&self, run: Run, job: &J, source: &dyn Source<J::Input>) -> Result<Outcome> {
        let (recipe, ranks) = (run.recipe, run.ranks);
        let mut steps = Steps::new(job, &recipe.train, ranks)?;
        frozen::hold(job.params(), recipe.train.frozen, false)?;
        random::seed(recipe.seed, job.name(), ranks);
        if !self.writes {
            let file = open_torch(&self.file)?;
            restore_weights(steps.job, &file)?;
            restore(&mut steps, &file)?;
        }
        steps.meet()?;
        let data = source.open()?;
        let mut losses = Vec::new();
        data.run(steps.cursor.clone(), &mut |next| {
            while steps.done < 2 * STEPS {
                if steps.done == STEPS && self.writes {
                    if let Some(snapshot) = Snapshot::of(&steps, 0, false)? {
                        snapshot.write(&self.file)?;
                    }
                    ranks.barrier()?;
                }
                let counts = steps.done >= STEPS;
                one_step(next, &mut steps, false, &mut |_, micro| {
                    if let Some((_, micro)) = micro.filter(|_| counts) {
                        losses.push(micro.loss.shallow_clone());
                    }
                })?;
            }
            Ok(())
        })?;
        Ok(Outcome {
            losses: losses.iter().map(number).collect::<Result<_>>()?,
            weights: (job.params().trainable().into_iter())
                .map(|(n, t)| (n, t.detach().to_device(Device::Cpu).copy()))
                .collect(),
        })
    }
}

fn compare(job: &str, whole: &Outcome, again: &Outcome, on_gpu: bool) -> Result<()> {
    let differs = |what: String| {
        let why = match on_gpu {
            true => {
                "; kernels that libtorch warned of above give other bits each time, which is then the reason"
            }
            false => "",
        };
        Err(Error::Mismatch(format!(
            "{job}: after the checkpoint {what}: going on from it is not the same run{why}"
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
