//! A job's state as a file of the reference's trainer, and back.

use super::copies::Copies;
use super::random;
use super::schedule::learning_rate;
use super::steps::Steps;
use crate::checkpoint::{training, Item, Plain, TorchFile};
use crate::data::order::Cursor;
use crate::error::{Error, Result};
use crate::optim::{Kept, Setting};
use crate::train::job::Job;
use indexmap::IndexMap;
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// A copy of everything that a checkpoint holds, off the device: training may go on while it is written.
pub struct Snapshot {
    model: Vec<(String, Item<'static>)>,
    training: training::Training<'static>,
}

impl Snapshot {
    /// Copies what the reference's trainer saves (trainable tensors, embeddings, buffers), or with `full` everything. All
    /// ranks come together for it; the first has the copy.
    pub fn of<J: Job>(steps: &Steps<J>, epoch: i64, full: bool) -> Result<Option<Self>> {
        let _guarded = steps.ranks.guarded();
        let random = random_of_all(steps)?;
        let mut copies = Copies::new(steps.job.device());
        let state = state_of_all(steps, &mut copies)?;
        if !steps.ranks.first() {
            return Ok(None);
        }
        let model = weights(steps, full, &[], &mut copies);
        copies.wait()?;
        Ok(Some(Snapshot {
            model,
            training: training_state(steps, epoch, state, random, &steps.cursor),
        }))
    }

    /// What this rank alone can save when a step is not made: the state after the last whole one, without the other ranks' random
    /// numbers. None where they keep a part of the optimizer's state.
    pub(crate) fn alone<J: Job>(steps: &Steps<J>, epoch: i64, full: bool) -> Result<Option<Self>> {
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
        let mut copies = Copies::new(steps.job.device());
        let mut all = States::default();
        for (i, kept) in steps.optimizer.kept() {
            all.add(i, kept, steps.optimizer.rule.keeps(), &mut copies);
        }
        let model = weights(steps, full, &whole.buffers, &mut copies);
        let state = all.read()?;
        copies.wait()?;
        Ok(Some(Snapshot {
            model,
            training: training_state(steps, epoch, state, own.into_iter().collect(), &whole.cursor),
        }))
    }

    /// Writes the file.
    pub fn write(self, path: &Path) -> Result<()> {
        training::write(path, self.model, &self.training)
    }
}

/// `then`: tensors as they were, in place of what they are.
fn weights<J: Job>(
    steps: &Steps<J>,
    full: bool,
    then: &[(String, Tensor)],
    off_device: &mut Copies,
) -> Vec<(String, Item<'static>)> {
    let then: HashMap<&str, &Tensor> = then.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let (tree, params) = (steps.job.tree(), steps.job.params());
    let mut copies: HashMap<usize, Tensor> = HashMap::new();
    let mut model = Vec::new();
    for (name, entry) in params.iter() {
        if full || tree.saves(name, entry.tensor.requires_grad()) {
            let copy = off_device.copy(then.get(name).copied().unwrap_or(&entry.tensor));
            copies.insert(entry.tensor.data_ptr() as usize, copy.shallow_clone());
            model.push((tree.outside(name), Item::Here(copy)));
        }
    }
    if let Some((embedding, head)) = tree.tied() {
        let embedding = params.get(embedding).map(|t| t.data_ptr() as usize);
        if let Some(copy) = embedding.and_then(|at| copies.get(&at)) {
            model.push((tree.outside(head), Item::Here(copy.shallow_clone())));
        }
    }
    model
}

/// The optimizer's state, weight by weight in their order; how many steps each has made is still on the device.
#[derive(Default)]
struct States {
    all: IndexMap<i64, training::State<'static>>,
    steps: Vec<Tensor>,
}

impl States {
    fn add(&mut self, weight: usize, kept: &Kept, names: &[&str], off_device: &mut Copies) {
        let tensors = names.iter().zip(&kept.tensors);
        let state = training::State {
            steps: 0,
            tensors: tensors
                .map(|(name, t)| ((*name).to_owned(), Item::Here(off_device.copy(t))))
                .collect(),
        };
        self.all.insert(weight as i64, state);
        self.steps.push(kept.steps.shallow_clone());
    }

    /// Reads the steps, of all weights at once: each time waits for the device.
    fn read(mut self) -> Result<IndexMap<i64, training::State<'static>>> {
        if !self.steps.is_empty() {
            let steps = Vec::<f32>::try_from(Tensor::f_stack(&self.steps, 0)?)?;
            for (state, steps) in self.all.values_mut().zip(steps) {
                state.steps = steps as i64;
            }
        }
        Ok(self.all)
    }
}

/// The optimizer's state, on the first rank: under ZeRO each weight's comes from the rank that keeps it, one after another.
fn state_of_all<J: Job>(
    steps: &Steps<J>,
    off_device: &mut Copies,
) -> Result<IndexMap<i64, training::State<'static>>> {
    let (first, rule) = (steps.ranks.first(), steps.optimizer.rule);
    let mut all = States::default();
    let Some(owners) = steps.optimizer.owners() else {
        for (i, kept) in steps.optimizer.kept().filter(|_| first) {
            all.add(i, kept, rule.keeps(), off_device);
        }
        return all.read();
    };
    let own: HashMap<usize, &Kept> = steps.optimizer.kept().collect();
    let mut there: Vec<f64> = (0..owners.len()).map(|i| own.contains_key(&i).into()).collect();
    steps.ranks.max(&mut there)?;
    for (i, (_, param)) in steps.optimizer.params().enumerate() {
        if there[i] == 0.0 {
            continue;
        }
        let made;
        let kept = match own.get(&i) {
            Some(kept) => *kept,
            None => {
                made = Kept::none(rule, param);
                &made
            }
        };
        let tensors = kept.tensors.iter().chain([&kept.steps]);
        let parts: Vec<Tensor> = tensors.map(Tensor::shallow_clone).collect();
        steps.ranks.broadcast(&parts, owners[i])?;
        if first {
            all.add(i, kept, rule.keeps(), off_device);
        }
    }
    all.read()
}

fn random_of_all<J: Job>(steps: &Steps<J>) -> Result<Vec<Vec<Tensor>>> {
    let own = random::now(steps.job.device())?;
    let mut all: Vec<Vec<Tensor>> = (0..steps.ranks.world).map(|_| Vec::new()).collect();
    for state in &own {
        for (rank, state) in steps.ranks.gather(state)?.into_iter().enumerate() {
            all[rank].push(state.copy());
        }
    }
    Ok(all)
}

fn plain(setting: Setting) -> Plain {
    match setting {
        Setting::Number(x) => Plain::Float(x),
        Setting::Pair(a, b) => Plain::List(vec![Plain::Float(a), Plain::Float(b)]),
        Setting::Flag(b) => Plain::Bool(b),
        Setting::None => Plain::None,
    }
}

fn training_state<J: Job>(
    steps: &Steps<J>,
    epoch: i64,
    state: IndexMap<i64, training::State<'static>>,
    random: Vec<Vec<Tensor>>,
    cursor: &Cursor,
) -> training::Training<'static> {
    let (o, tree, rule) = (steps.job.optim(), steps.job.tree(), steps.optimizer.rule);
    let mut numbers = 0i64..;
    let groups = steps.optimizer.groups().iter().map(|g| training::Group {
        lr: learning_rate(o, steps.done) * g.rate,
        initial_lr: o.learning_rate * g.rate,
        settings: rule
            .settings(g)
            .into_iter()
            .map(|(name, s)| (name.to_owned(), plain(s)))
            .collect(),
        params: numbers.by_ref().take(g.params.len()).collect(),
        names: Some(g.params.iter().map(|(n, _)| tree.outside(n)).collect()),
    });
    training::Training {
        epoch,
        steps: steps.done as i64,
        groups: groups.collect(),
        state,
        stage: Some(steps.job.name().to_owned()),
        data: serde_json::to_string(cursor).ok(),
        made_with: Some(steps.made_with.clone()).filter(|m| !m.is_empty()),
        random,
    }
}

/// Copies the weights and buffers of a checkpoint into the model that a job starts from: what is frozen is there already.
///
/// # Errors
/// Something that the job trains and the file lacks, or another shape: all of it is told.
pub(crate) fn restore_weights<J: Job>(job: &J, file: &TorchFile) -> Result<()> {
    let path = file.tensors.source();
    let tree = job.tree();
    let archive = tree.read(file.model()?, path)?;
    let mut wrong = Vec::new();
    for (name, entry) in job.params().iter() {
        if !tree.saves(name, entry.tensor.requires_grad()) {
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
/// A state that is not this job's: another number of groups or parameters, other shapes, other settings than the
/// recipe's. Everything that is wrong is told, and nothing is changed.
pub fn restore<J: Job>(steps: &mut Steps<J>, file: &TorchFile) -> Result<i64> {
    let training = training::read(file)?;
    let path = file.tensors.source();
    let mut wrong = groups_differ(steps, &training, path);
    let mut states = HashMap::new();
    for (i, (name, param)) in steps.optimizer.params().enumerate() {
        let Some(state) = training
            .state
            .get(&(i as i64))
            .filter(|_| steps.optimizer.keeps(i))
        else {
            continue;
        };
        match kept(steps.optimizer.rule.keeps(), i, name, param, state, path) {
            Ok(kept) => {
                states.insert(i, kept);
            }
            Err(e @ Error::Checkpoint { .. }) => wrong.push(e),
            Err(e) => return Err(e),
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
    if let Some(stage) = training.stage.as_ref().filter(|s| *s != steps.job.name()) {
        let expected = format!("{}, as the recipe says", steps.job.name());
        wrong.push(Error::checkpoint(path, "af2.stage", expected, stage.clone()));
    }
    crate::error::all(wrong)?;
    // A rank that the run did not have then draws its own; a file of another kind of device has nothing for ours.
    if let Some(own) = training.random.get(steps.ranks.rank) {
        random::set(steps.job.device(), own)?;
    }
    steps.optimizer.restore(states);
    steps.done = training.steps as usize;
    steps.cursor = cursor;
    Ok(training.epoch)
}

/// What the file's groups have otherwise than the recipe's.
fn groups_differ<J: Job>(steps: &Steps<J>, training: &training::Training, path: &Path) -> Vec<Error> {
    let (optim, tree, rule) = (steps.job.optim(), steps.job.tree(), steps.optimizer.rule);
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
        for (name, setting) in rule.settings(own) {
            let found = theirs.settings.get(name);
            match setting {
                Setting::Number(x) => check(at(name), x.to_string(), shown(found)),
                Setting::Pair(a, b) => check(at(name), format!("({a:?}, {b:?})"), shown(found)),
                // How PyTorch goes about it.
                Setting::Flag(_) | Setting::None => {}
            }
        }
        let rate = optim.learning_rate * own.rate;
        check(
            at("initial_lr"),
            format!("{rate:e}"),
            format!("{:e}", theirs.initial_lr),
        );
        for ((own, _), theirs) in own.params.iter().zip(theirs.names.iter().flatten()) {
            let theirs = tree.inside(theirs).unwrap_or_default();
            check(at("param_names"), own.clone(), theirs);
        }
    }
    wrong
}

/// A group's setting as [`groups_differ`] writes its own.
fn shown(found: Option<&Plain>) -> String {
    let Some(found) = found else {
        return "nothing".into();
    };
    if let Some(x) = found.as_float() {
        return x.to_string();
    }
    match found.as_list() {
        Some([a, b]) => match (a.as_float(), b.as_float()) {
            (Some(a), Some(b)) => format!("({a:?}, {b:?})"),
            _ => found.to_string(),
        },
        _ => found.to_string(),
    }
}

/// A weight's state, on its device.
fn kept(
    names: &[&str],
    number: usize,
    name: &str,
    param: &Tensor,
    state: &training::State,
    path: &Path,
) -> Result<Kept> {
    let at = format!("optimizer_state_dict.state.{number}");
    let found: Vec<&str> = state.tensors.keys().map(String::as_str).collect();
    if found.len() != names.len() || names.iter().any(|n| !found.contains(n)) {
        return Err(Error::checkpoint(path, at, names.join(" and "), found.join(", ")));
    }
    let mut tensors = Vec::with_capacity(names.len());
    for part in names {
        let tensor = state.tensors[*part].tensor()?;
        if tensor.size() != param.size() {
            return Err(Error::checkpoint(
                path,
                format!("{at}.{part}"),
                format!("shape {:?} of {name}", param.size()),
                format!("shape {:?}", tensor.size()),
            ));
        }
        tensors.push(tensor.to_device(param.device()).to_kind(Kind::Float));
    }
    Ok(Kept {
        tensors,
        steps: Tensor::from(state.steps as f32).to_device(param.device()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_weight_keeps_its_own_steps() {
        let kept = |n: f32| Kept {
            tensors: vec![Tensor::from_slice(&[n]), Tensor::from_slice(&[n, n])],
            steps: Tensor::from(10.0 * n),
        };
        let mut copies = Copies::new(Device::Cpu);
        let mut all = States::default();
        for (weight, n) in [(4, 1.0), (7, 3.0), (9, 2.0)] {
            all.add(weight, &kept(n), &["exp_avg", "exp_avg_sq"], &mut copies);
        }
        let read = all.read().unwrap();
        let found: Vec<(i64, i64)> = read.iter().map(|(i, s)| (*i, s.steps)).collect();
        assert_eq!(found, [(4, 10), (7, 30), (9, 20)]);
        let size = |part: &str| read[&7].tensors[part].tensor().unwrap().size();
        assert_eq!([size("exp_avg"), size("exp_avg_sq")], [vec![1], vec![2]]);
        assert!(States::default().read().unwrap().is_empty());
    }
}
