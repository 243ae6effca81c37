//! A stage's state as a file of the reference's trainer, and back.

use super::optim::{learning_rate, Moments, BETA1, BETA2, EPS};
use super::Steps;
use crate::checkpoint::{self, names, training, Item, Keep, TorchFile, Writer};
use crate::data::order::Cursor;
use crate::error::{Error, Result};
use crate::recipe::SaveRecipe;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// A copy of everything that a checkpoint holds, off the device: training may go on while it is written.
pub struct Snapshot {
    model: Vec<(String, Item<'static>)>,
    training: training::Training<'static>,
}

impl Snapshot {
    /// Copies what the reference's trainer saves (trainable tensors, embeddings, buffers), or with `full` everything.
    pub fn of(steps: &Steps, epoch: i64, full: bool) -> Self {
        let lm = &steps.model.model.config.lm;
        let mut copies: HashMap<usize, Tensor> = HashMap::new();
        let mut model = Vec::new();
        for (name, entry) in steps.model.params.iter() {
            let trains = entry.tensor.requires_grad();
            if full || names::saved_by_trainer(name, trains, lm.tie_word_embeddings) {
                let copy = off_device(&entry.tensor);
                copies.insert(entry.tensor.data_ptr() as usize, copy.shallow_clone());
                model.push((names::in_training_tree(name), Item::Here(copy)));
            }
        }
        // The tied head is the embedding under a second name, and shares its storage in the file.
        let embedding = steps.model.params.get(names::EMBEDDING);
        let tied = embedding.filter(|_| lm.tie_word_embeddings);
        if let Some(copy) = tied.and_then(|t| copies.get(&(t.data_ptr() as usize))) {
            model.push((
                names::in_training_tree(names::HEAD),
                Item::Here(copy.shallow_clone()),
            ));
        }
        Snapshot {
            model,
            training: training_state(steps, epoch),
        }
    }

    /// Writes the file.
    pub fn write(self, path: &Path) -> Result<()> {
        training::write(path, self.model, &self.training)
    }
}

fn off_device(tensor: &Tensor) -> Tensor {
    tensor.detach().to_device(Device::Cpu).copy()
}

fn training_state(steps: &Steps, epoch: i64) -> training::Training<'static> {
    let o = &steps.stage.optim;
    let mut numbers = 0i64..;
    let groups = steps.optimizer.groups().iter().map(|g| training::Group {
        lr: learning_rate(o, steps.done) * g.rate,
        initial_lr: o.learning_rate * g.rate,
        weight_decay: g.weight_decay,
        betas: (BETA1, BETA2),
        eps: EPS,
        params: numbers.by_ref().take(g.params.len()).collect(),
        names: Some(g.params.iter().map(|(n, _)| names::in_training_tree(n)).collect()),
    });
    let groups = groups.collect();
    let state = steps.optimizer.moments().map(|(i, m)| {
        let moments = training::Moments {
            steps: i64::from(m.steps),
            exp_avg: Item::Here(off_device(&m.exp_avg)),
            exp_avg_sq: Item::Here(off_device(&m.exp_avg_sq)),
        };
        (i as i64, moments)
    });
    training::Training {
        epoch,
        steps: steps.done as i64,
        groups,
        state: state.collect(),
        stage: Some(steps.stage.name.clone()),
        data: serde_json::to_string(&steps.cursor).ok(),
    }
}

/// Puts an optimizer's and a schedule's state back; the weights are loaded with the model. Returns the epoch.
///
/// Reference: its files do not name the parameters; they are numbered in the model's order, decayed ones first.
///
/// # Errors
/// A state that is not this stage's: another number of groups or parameters, other shapes, other settings than the
/// recipe's. Everything that is wrong is told, and nothing is changed.
pub fn restore(steps: &mut Steps, file: &TorchFile) -> Result<i64> {
    let training = training::read(file)?;
    let path = file.tensors.source();
    let ours = steps.optimizer.groups();
    let mut wrong = Vec::new();
    let mut check = |key: String, expected: String, found: String| {
        if expected != found {
            wrong.push(
                Error::checkpoint(path, key, format!("{expected}, as the recipe says"), found)
                    .hint("an optimizer's state continues only the stage that wrote it"),
            );
        }
    };
    check(
        "optimizer_state_dict.param_groups".into(),
        format!("{} groups", ours.len()),
        format!("{} groups", training.groups.len()),
    );
    for (i, (own, theirs)) in ours.iter().zip(&training.groups).enumerate() {
        let at = |key: &str| format!("optimizer_state_dict.param_groups.{i}.{key}");
        let count = |n: usize| format!("{n} parameters");
        check(at("params"), count(own.params.len()), count(theirs.params.len()));
        check(
            at("weight_decay"),
            own.weight_decay.to_string(),
            theirs.weight_decay.to_string(),
        );
        check(
            at("betas"),
            format!("{:?}", (BETA1, BETA2)),
            format!("{:?}", theirs.betas),
        );
        check(at("eps"), EPS.to_string(), theirs.eps.to_string());
        let rate = steps.stage.optim.learning_rate * own.rate;
        check(
            at("initial_lr"),
            format!("{rate:e}"),
            format!("{:e}", theirs.initial_lr),
        );
        for ((own, _), theirs) in own.params.iter().zip(theirs.names.iter().flatten()) {
            let theirs = names::rename(theirs).unwrap_or_default();
            check(at("param_names"), own.clone(), theirs);
        }
    }
    let mut moments = HashMap::new();
    for (i, (name, param)) in steps.optimizer.params().enumerate() {
        let Some(m) = training.state.get(&(i as i64)) else {
            continue;
        };
        let part = |part: &str, item: &Item| -> Result<Option<Tensor>> {
            let tensor = item.tensor()?;
            let key = format!("optimizer_state_dict.state.{i}.{part}");
            if tensor.size() != param.size() {
                let expected = format!("shape {:?} of {name}", param.size());
                wrong.push(Error::checkpoint(
                    path,
                    key,
                    expected,
                    format!("shape {:?}", tensor.size()),
                ));
                return Ok(None);
            }
            Ok(Some(tensor.to_device(param.device()).to_kind(Kind::Float)))
        };
        let mut part = part;
        let both = (part("exp_avg", &m.exp_avg)?, part("exp_avg_sq", &m.exp_avg_sq)?);
        if let (Some(exp_avg), Some(exp_avg_sq)) = both {
            let steps = m.steps as i32;
            moments.insert(
                i,
                Moments {
                    exp_avg,
                    exp_avg_sq,
                    steps,
                },
            );
        }
    }
    let cursor = match training.data.as_deref().map(serde_json::from_str::<Cursor>) {
        // The reference's files do not say it: their epochs are whole.
        None => Cursor::default(),
        Some(Ok(cursor)) => cursor,
        Some(Err(e)) => {
            wrong.push(Error::checkpoint(
                path,
                "af2.data",
                "a data cursor",
                e.to_string(),
            ));
            Cursor::default()
        }
    };
    crate::error::all(wrong)?;
    steps.optimizer.restore(moments);
    steps.done = training.steps as usize;
    steps.cursor = cursor;
    Ok(training.epoch)
}

/// Writes a stage's `checkpoint_N.pt` in the background and keeps as many as the recipe says.
pub struct Saver {
    folder: PathBuf,
    settings: SaveRecipe,
    writer: Writer,
    /// The next checkpoint's number.
    next: u64,
}

impl Saver {
    /// Checkpoints are numbered from behind the last that is there: those of an earlier run are kept or go as the
    /// recipe says, and are never taken for newer ones.
    ///
    /// # Errors
    /// A folder that cannot be made or listed.
    pub fn new(folder: PathBuf, settings: SaveRecipe) -> Result<Self> {
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let last = checkpoint::numbered(&folder)?.into_keys().next_back();
        Ok(Saver {
            folder,
            settings,
            writer: Writer::default(),
            next: last.map_or(0, |n| n + 1),
        })
    }

    /// Copies the state off the device where the recipe asks for a checkpoint after this step, and writes it while
    /// training goes on.
    ///
    /// # Errors
    /// Those of the checkpoint before.
    pub fn after_step(&mut self, steps: &Steps) -> Result<()> {
        if self.settings.every == 0 || !steps.done.is_multiple_of(self.settings.every) {
            return Ok(());
        }
        let number = self.next;
        self.next += 1;
        let snapshot = Snapshot::of(steps, number as i64, self.settings.full);
        let folder = self.folder.clone();
        let keep = Keep {
            last: self.settings.keep_last,
            every: self.settings.keep_every,
        };
        self.writer.start(move || {
            snapshot.write(&folder.join(checkpoint::file_name(number)))?;
            keep.apply(&folder)
        })
    }

    /// Waits for the last checkpoint.
    pub fn finish(mut self) -> Result<()> {
        self.writer.wait()
    }
}
