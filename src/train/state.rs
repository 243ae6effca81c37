//! A stage's state as a file of the reference's trainer, and back.

use super::finite;
use super::number;
use super::optim::{learning_rate, Moments, BETA1, BETA2, EPS};
use super::steps::Steps;
use crate::checkpoint::{self, names, training, Item, Keep, TorchFile, Writer};
use crate::data::order::Cursor;
use crate::dist;
use crate::error::{short, Error, Result};
use crate::ffi::kernels;
use crate::recipe::SaveRecipe;
use indexmap::IndexMap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Once;
use tch::{Device, Kind, Tensor};

/// A copy of everything that a checkpoint holds, off the device: training may go on while it is written.
pub struct Snapshot {
    model: Vec<(String, Item<'static>)>,
    training: training::Training<'static>,
}

impl Snapshot {
    /// Copies what the reference's trainer saves (trainable tensors, embeddings, buffers), or with `full` everything. All
    /// ranks come together for it; the first has the copy.
    pub fn of(steps: &Steps, epoch: i64, full: bool) -> Result<Option<Self>> {
        let _guarded = steps.ranks.guarded();
        let random = random_of_all(steps)?;
        let mut copies = Copies::new(steps.model.device);
        let moments = moments_of_all(steps, &mut copies)?;
        if !steps.ranks.first() {
            return Ok(None);
        }
        let model = weights(steps, full, &[], &mut copies);
        copies.wait()?;
        Ok(Some(Snapshot {
            model,
            training: training_state(steps, epoch, moments, random, &steps.cursor),
        }))
    }

    /// What this rank alone can save when a step is not made: the state after the last whole one, without the other ranks' random
    /// numbers. None where they keep a part of the optimizer's state.
    pub fn alone(steps: &Steps, epoch: i64, full: bool) -> Result<Option<Self>> {
        let Some(whole) = steps
            .whole
            .as_ref()
            .filter(|_| steps.optimizer.owners().is_none())
        else {
            return Ok(None);
        };
        // Numbered from the first rank: where that is gone, nobody's are kept.
        let first = steps.ranks.first();
        let own = first.then(|| whole.random.iter().map(Tensor::shallow_clone).collect());
        let mut copies = Copies::new(steps.model.device);
        let mut moments = Kept::default();
        for (i, m) in steps.optimizer.moments() {
            moments.add(i, m, &mut copies);
        }
        let model = weights(steps, full, &whole.buffers, &mut copies);
        let moments = moments.read()?;
        copies.wait()?;
        Ok(Some(Snapshot {
            model,
            training: training_state(steps, epoch, moments, own.into_iter().collect(), &whole.cursor),
        }))
    }

    /// Writes the file.
    pub fn write(self, path: &Path) -> Result<()> {
        training::write(path, self.model, &self.training)
    }
}

/// `then`: tensors as they were, in place of what they are.
fn weights(
    steps: &Steps,
    full: bool,
    then: &[(String, Tensor)],
    off_device: &mut Copies,
) -> Vec<(String, Item<'static>)> {
    let then: HashMap<&str, &Tensor> = then.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let lm = steps.model.model.config.lm.decoder();
    let mut copies: HashMap<usize, Tensor> = HashMap::new();
    let mut model = Vec::new();
    for (name, entry) in steps.model.params.iter() {
        let trains = entry.tensor.requires_grad();
        if full || names::saved_by_trainer(name, trains, lm.tie_word_embeddings) {
            let copy = off_device.copy(then.get(name).copied().unwrap_or(&entry.tensor));
            copies.insert(entry.tensor.data_ptr() as usize, copy.shallow_clone());
            model.push((names::in_training_tree(name), Item::Here(copy)));
        }
    }
    // The tied head is the embedding under a second name, and shares its storage in the file.
    let embedding = steps.model.params.get(names::EMBEDDING);
    let tied = embedding.filter(|_| lm.tie_word_embeddings);
    if let Some(copy) = tied.and_then(|t| copies.get(&(t.data_ptr() as usize))) {
        let head = Item::Here(copy.shallow_clone());
        model.push((names::in_training_tree(names::HEAD), head));
    }
    model
}

/// Copies on the CPU, one of each tensor and no other between.
///
/// From a GPU they go into page-locked memory, which the device itself writes to: all are under way before any is waited for.
/// That is as much memory as all that is saved: the weights that train with their two moments, the embeddings and the
/// buffers. libtorch rounds each tensor up to a power of two, and keeps the memory for the next time. Where the system gives no
/// more of it, what is left goes into ordinary memory, tensor by tensor.
struct Copies {
    device: Device,
    page_locked: bool,
}

impl Copies {
    fn new(device: Device) -> Self {
        Copies {
            device,
            page_locked: device != Device::Cpu,
        }
    }

    /// Not to be read before [`Copies::wait`].
    fn copy(&mut self, tensor: &Tensor) -> Tensor {
        let tensor = tensor.detach();
        if tensor.device() == Device::Cpu {
            let mut copy = tensor.empty_like();
            copy.copy_(&tensor);
            return copy;
        }
        if self.page_locked {
            match kernels::page_locked_copy(&tensor) {
                Ok(copy) => return copy,
                Err(e) => {
                    static TOLD: Once = Once::new();
                    TOLD.call_once(|| {
                        crate::say!(
                            "note: checkpoints take longer: no page-locked memory for them: {}",
                            short(&e)
                        );
                    });
                    self.page_locked = false;
                }
            }
        }
        tensor.to_device(Device::Cpu)
    }

    /// Waits until all copies are whole.
    fn wait(self) -> Result<()> {
        match self.device {
            Device::Cpu => Ok(()),
            // What is read is behind them.
            device => number(&dist::zero(device)).map(|_| ()),
        }
    }
}

/// The optimizer's state, weight by weight in their order; how many steps each has made is still on the device.
#[derive(Default)]
struct Kept {
    moments: IndexMap<i64, training::Moments<'static>>,
    steps: Vec<Tensor>,
}

impl Kept {
    fn add(&mut self, weight: usize, m: &Moments, off_device: &mut Copies) {
        let kept = training::Moments {
            steps: 0,
            exp_avg: Item::Here(off_device.copy(&m.exp_avg)),
            exp_avg_sq: Item::Here(off_device.copy(&m.exp_avg_sq)),
        };
        self.moments.insert(weight as i64, kept);
        self.steps.push(m.steps.shallow_clone());
    }

    /// Reads the steps, of all weights at once: each time waits for the device.
    fn read(mut self) -> Result<IndexMap<i64, training::Moments<'static>>> {
        if !self.steps.is_empty() {
            let steps = Vec::<f32>::try_from(Tensor::f_stack(&self.steps, 0)?)?;
            for (m, steps) in self.moments.values_mut().zip(steps) {
                m.steps = steps as i64;
            }
        }
        Ok(self.moments)
    }
}

/// The optimizer's state, on the first rank: under ZeRO each weight's comes from the rank that keeps it, one after another.
fn moments_of_all(
    steps: &Steps,
    off_device: &mut Copies,
) -> Result<IndexMap<i64, training::Moments<'static>>> {
    let first = steps.ranks.first();
    let mut all = Kept::default();
    let Some(owners) = steps.optimizer.owners() else {
        for (i, m) in steps.optimizer.moments().filter(|_| first) {
            all.add(i, m, off_device);
        }
        return all.read();
    };
    let own: HashMap<usize, &Moments> = steps.optimizer.moments().collect();
    let mut there: Vec<f64> = (0..owners.len()).map(|i| own.contains_key(&i).into()).collect();
    steps.ranks.max(&mut there)?;
    for (i, (_, param)) in steps.optimizer.params().enumerate() {
        if there[i] == 0.0 {
            continue;
        }
        let m = match own.get(&i) {
            Some(m) => Moments {
                exp_avg: m.exp_avg.shallow_clone(),
                exp_avg_sq: m.exp_avg_sq.shallow_clone(),
                steps: m.steps.shallow_clone(),
            },
            None => Moments {
                exp_avg: param.detach().empty_like(),
                exp_avg_sq: param.detach().empty_like(),
                steps: Tensor::zeros([0i64; 0], (Kind::Float, param.device())),
            },
        };
        let parts = [&m.exp_avg, &m.exp_avg_sq, &m.steps].map(Tensor::shallow_clone);
        steps.ranks.broadcast(&parts, owners[i])?;
        if first {
            all.add(i, &m, off_device);
        }
    }
    all.read()
}

/// The random numbers' state of this rank, now.
pub fn random(device: Device) -> Result<Vec<Tensor>> {
    let mut all = vec![kernels::rng_state(Device::Cpu)?];
    if device != Device::Cpu {
        all.push(kernels::rng_state(device)?);
    }
    Ok(all)
}

/// Gives back what [`random`] kept; what there is none of stays.
pub fn set_random(device: Device, states: &[Tensor]) -> Result<()> {
    for (device, state) in [Device::Cpu, device].into_iter().zip(states) {
        kernels::set_rng_state(device, state)?;
    }
    Ok(())
}

fn random_of_all(steps: &Steps) -> Result<Vec<Vec<Tensor>>> {
    let own = random(steps.model.device)?;
    let mut all: Vec<Vec<Tensor>> = (0..steps.ranks.world).map(|_| Vec::new()).collect();
    for state in &own {
        for (rank, state) in steps.ranks.gather(state)?.into_iter().enumerate() {
            all[rank].push(state.copy());
        }
    }
    Ok(all)
}

fn training_state(
    steps: &Steps,
    epoch: i64,
    state: IndexMap<i64, training::Moments<'static>>,
    random: Vec<Vec<Tensor>>,
    cursor: &Cursor,
) -> training::Training<'static> {
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
    training::Training {
        epoch,
        steps: steps.done as i64,
        groups: groups.collect(),
        state,
        stage: Some(steps.stage.name.clone()),
        data: serde_json::to_string(cursor).ok(),
        made_with: Some(steps.made_with.clone()).filter(|m| !m.is_empty()),
        random,
    }
}

/// Copies the weights and buffers of a checkpoint into the model that a stage starts from: what is frozen is there already.
///
/// # Errors
/// Something that the stage trains and the file lacks, or another shape: all of it is told.
pub fn restore_weights(steps: &Steps, file: &TorchFile) -> Result<()> {
    let path = file.tensors.source();
    let archive = names::canonical(file.model()?, path)?;
    let tied = steps.model.model.config.lm.decoder().tie_word_embeddings;
    let mut wrong = Vec::new();
    for (name, entry) in steps.model.params.iter() {
        if !names::saved_by_trainer(name, entry.tensor.requires_grad(), tied) {
            continue;
        }
        let size = entry.tensor.size();
        let found = match archive.info(name) {
            Some(info) if info.shape == size => {
                let tensor = archive.get_as(name, entry.tensor.kind(), Device::Cpu)?;
                tch::no_grad(|| entry.tensor.shallow_clone().copy_(&tensor));
                continue;
            }
            Some(info) => format!("shape {:?}", info.shape),
            None => "no such tensor".into(),
        };
        let expected = format!("a tensor of shape {size:?}");
        wrong.push(Error::checkpoint(path, name, expected, found));
    }
    crate::error::all(wrong)
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
        let Some(m) = training
            .state
            .get(&(i as i64))
            .filter(|_| steps.optimizer.keeps(i))
        else {
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
            let steps = Tensor::from(m.steps as f32).to_device(param.device());
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
        // The reference's files do not say it: they are written when an epoch is through.
        None => Cursor {
            epoch: training.epoch as u64 + 1,
            ..Cursor::default()
        },
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
    if let Some(stage) = training.stage.as_ref().filter(|s| **s != steps.stage.name) {
        let expected = format!("{}, as the recipe says", steps.stage.name);
        wrong.push(Error::checkpoint(path, "af2.stage", expected, stage.clone()));
    }
    crate::error::all(wrong)?;
    // A rank that the run did not have then draws its own; a file of another kind of device has nothing for ours.
    if let Some(own) = training.random.get(steps.ranks.rank) {
        set_random(steps.model.device, own)?;
    }
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
    /// The step that was saved last: it need not be saved again. The same on all ranks.
    saved: Option<usize>,
    /// The step that this rank itself has written or read last.
    own: Option<usize>,
}

impl Saver {
    /// Checkpoints are numbered from behind the last that is there: those of an earlier run are kept or go as the
    /// recipe says, and are never taken for newer ones.
    ///
    /// # Errors
    /// A folder that cannot be made, written to or listed: before a day of training, not after.
    pub fn new(folder: PathBuf, settings: SaveRecipe) -> Result<Self> {
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        tempfile::tempfile_in(&folder).map_err(|e| {
            Error::io(&folder, e).hint("checkpoints are written here: is it writable, and is there room?")
        })?;
        let last = checkpoint::numbered(&folder)?.into_keys().next_back();
        Ok(Saver {
            folder,
            settings,
            writer: Writer::default(),
            next: last.map_or(0, |n| n + 1),
            saved: None,
            own: None,
        })
    }

    /// Whether the recipe asks for a checkpoint after this step.
    pub fn due(&self, steps: &Steps) -> bool {
        self.settings.every > 0 && steps.done.is_multiple_of(self.settings.every)
    }

    /// Copies the state off the device and writes it while training goes on. All ranks come together for it; the first writes.
    ///
    /// # Errors
    /// Those of the checkpoint before; weights that are not finite.
    pub fn save(&mut self, steps: &Steps) -> Result<()> {
        if self.saved == Some(steps.done) {
            return Ok(());
        }
        self.saved = Some(steps.done);
        finite::check(&self.name(self.next), &steps.model.params)?;
        let snapshot = Snapshot::of(steps, self.next as i64, self.settings.full)?;
        match snapshot {
            Some(snapshot) => {
                self.own = Some(steps.done);
                self.write(snapshot)
            }
            None => Ok(()),
        }
    }

    /// The stage goes on from a file that is there.
    pub fn resumed(&mut self, steps: &Steps) {
        self.own = Some(steps.done);
    }

    /// Saves what this rank alone knows, behind what others may have saved, and waits for it. Returns the file; none where the
    /// last step is saved already.
    ///
    /// # Errors
    /// A disk that is full; [`Error::Training`] where other ranks keep a part of the state, and for weights that are not finite.
    pub fn rescue(&mut self, steps: &Steps) -> Result<Option<PathBuf>> {
        self.writer.wait()?;
        if self.own == Some(steps.done) || steps.done == 0 {
            return Ok(None);
        }
        let last = checkpoint::numbered(&self.folder)?.into_keys().next_back();
        let number = last.map_or(self.next, |n| (n + 1).max(self.next));
        finite::check(&self.name(number), &steps.model.params)?;
        let snapshot = Snapshot::alone(steps, number as i64, self.settings.full)?;
        let snapshot = snapshot.ok_or_else(|| Error::Training {
            message: "other ranks keep a part of its state".into(),
            hint: None,
        })?;
        // Nothing is removed for it: which of them is the better one is not known here.
        let file = self.folder.join(checkpoint::file_name(number));
        snapshot.write(&file)?;
        Ok(Some(file))
    }

    fn name(&self, number: u64) -> String {
        self.folder
            .join(checkpoint::file_name(number))
            .display()
            .to_string()
    }

    fn write(&mut self, snapshot: Snapshot) -> Result<()> {
        let number = self.next;
        self.next += 1;
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
    pub fn finish(&mut self) -> Result<()> {
        self.writer.wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_is_no_longer_what_trains() {
        let mut weight = Tensor::randn([3, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mut copies = Copies::new(Device::Cpu);
        let all = [&weight, &weight.tr()].map(|t| (copies.copy(t), t.detach().copy()));
        copies.wait().unwrap();
        let _ = tch::no_grad(|| weight.zero_());
        for (copy, then) in &all {
            assert!(copy.equal(then) && !copy.requires_grad());
            assert_eq!(copy.size(), then.size());
            assert_ne!(copy.data_ptr(), weight.data_ptr());
        }
    }

    #[test]
    fn each_weight_keeps_its_own_steps() {
        let moments = |n: f32| Moments {
            exp_avg: Tensor::from_slice(&[n]),
            exp_avg_sq: Tensor::from_slice(&[n, n]),
            steps: Tensor::from(10.0 * n),
        };
        let mut copies = Copies::new(Device::Cpu);
        let mut kept = Kept::default();
        for (weight, n) in [(4, 1.0), (7, 3.0), (9, 2.0)] {
            kept.add(weight, &moments(n), &mut copies);
        }
        let read = kept.read().unwrap();
        let found: Vec<(i64, i64)> = read.iter().map(|(i, m)| (*i, m.steps)).collect();
        assert_eq!(found, [(4, 10), (7, 30), (9, 20)]);
        let sizes = |m: &training::Moments| [&m.exp_avg, &m.exp_avg_sq].map(|i| i.tensor().unwrap().size());
        assert_eq!(sizes(&read[&7]), [[1], [2]]);
        assert!(Kept::default().read().unwrap().is_empty());
    }
}
