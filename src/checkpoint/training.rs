//! The reference trainer's `checkpoint_N.pt`: model, the optimizer's state, the schedule's state, the epoch.
//!
//! ```text
//! epoch
//! model_state_dict          module.…                         what trains, "embed", buffers (or everything)
//! optimizer_state_dict      state.N.{step, exp_avg, exp_avg_sq}, param_groups: two, params numbered through
//! lr_scheduler_state_dict   LambdaLR: base_lrs, last_epoch = optimizer steps made
//! af2                       ours: the stage's name, where it was in its data, what it was made with, each rank's random numbers
//! ```

use super::item::Item;
use super::pickle::Plain;
use super::torch_file::TorchFile;
use super::torch_write::{self, Key, Node};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// One of the optimizer's parameter groups.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The rate that the next step uses.
    pub lr: f64,
    /// The schedule's factor multiplies this.
    pub initial_lr: f64,
    /// The optimizer's own, as `weight_decay`, in its names.
    pub settings: IndexMap<String, Plain>,
    /// The group's parameters, numbered through over all groups.
    pub params: Vec<i64>,
    /// Their names, where the file says them: the reference's do not.
    pub names: Option<Vec<String>>,
}

/// What the optimizer keeps of one parameter.
pub struct State<'a> {
    /// Steps in which the parameter had a gradient.
    pub steps: i64,
    /// By their names, as `exp_avg`.
    pub tensors: IndexMap<String, Item<'a>>,
}

/// A training checkpoint on its way to a file or from one.
pub struct Training<'a> {
    /// Passes over the data made.
    pub epoch: i64,
    /// Optimizer steps made.
    pub steps: i64,
    /// Groups of parameters, in the optimizer's order.
    pub groups: Vec<Group>,
    /// By the parameter's number; parameters that never had a gradient have none.
    pub state: IndexMap<i64, State<'a>>,
    /// The stage of the curriculum, where the file says it: the reference's do not.
    pub stage: Option<String>,
    /// Where the stage was in its data, in the loader's words.
    pub data: Option<String>,
    /// What the stage was trained with, in the trainer's words.
    pub made_with: Option<String>,
    /// The state of each rank's random numbers: bytes, first of the CPU's generator, then of its device's where that is
    /// another.
    pub random: Vec<Vec<Tensor>>,
}

const GROUPS: &str = "optimizer_state_dict.param_groups";
const STATE: &str = "optimizer_state_dict.state";
const SCHEDULE: &str = "lr_scheduler_state_dict";

/// Whether a file holds an optimizer's state.
pub(crate) fn has_state(file: &TorchFile) -> bool {
    file.plain.keys().any(|k| k.starts_with(GROUPS))
}

/// Reads everything but the model's tensors. Moments are read when they are asked for.
///
/// # Errors
/// A missing or non-finite number, groups whose parameters are not numbered through, moments without a parameter or
/// without one of their parts: each with its path in the file.
pub fn read(file: &TorchFile) -> Result<Training<'_>> {
    let path = file.tensors.source();
    let wrong = |key: &str, expected: &str, found: Option<&Plain>| {
        let found = found.map_or("nothing".to_owned(), Plain::to_string);
        Error::checkpoint(path, key, expected, found)
    };
    let integer = |key: &str| {
        let v = file.plain.get(key);
        v.and_then(Plain::as_int)
            .filter(|n| *n >= 0)
            .ok_or_else(|| wrong(key, "an integer from 0", v))
    };
    let number = |key: String| {
        let v = file.plain.get(&key);
        v.and_then(Plain::as_float)
            .filter(|x| x.is_finite())
            .ok_or_else(|| wrong(&key, "a finite number", v))
    };
    let mut settings = settings(file)?;
    let mut groups = Vec::new();
    let mut next = 0;
    while file
        .plain
        .contains_key(&format!("{GROUPS}.{}.params", groups.len()))
    {
        let at = format!("{GROUPS}.{}", groups.len());
        let key = format!("{at}.params");
        let list = file.plain.get(&key);
        let params: Vec<i64> = list
            .and_then(Plain::as_list)
            .and_then(|l| l.iter().map(Plain::as_int).collect())
            .filter(|l: &Vec<i64>| l.iter().enumerate().all(|(i, p)| *p == next + i as i64))
            .ok_or_else(|| wrong(&key, &format!("numbers in a row from {next}"), list))?;
        next += params.len() as i64;
        let key = format!("{at}.param_names");
        let names = match file.plain.get(&key) {
            None => None,
            Some(list) => Some(
                list.as_list()
                    .and_then(|l| l.iter().map(text).collect::<Option<Vec<_>>>())
                    .filter(|l| l.len() == params.len())
                    .ok_or_else(|| wrong(&key, "a name for each parameter", Some(list)))?,
            ),
        };
        let lr = number(format!("{at}.lr"))?;
        groups.push(Group {
            lr,
            // A trainer without a schedule has none.
            initial_lr: match file.plain.contains_key(&format!("{at}.initial_lr")) {
                true => number(format!("{at}.initial_lr"))?,
                false => lr,
            },
            settings: settings.remove(&groups.len()).unwrap_or_default(),
            params,
            names,
        });
    }
    if groups.is_empty() {
        return Err(wrong(GROUPS, "the optimizer's parameter groups", None).hint(
            "weights alone, without an optimizer's state? They can start a stage, but not continue one",
        ));
    }
    // What is kept of each parameter; how many steps it has made is no tensor of its shape.
    let mut parts: IndexMap<i64, Vec<String>> = IndexMap::new();
    for key in file.tensors.names() {
        let below = key.strip_prefix(STATE).and_then(|rest| rest.strip_prefix('.'));
        if let Some((index, name)) = below.and_then(|rest| rest.split_once('.')) {
            if let (Ok(index), true) = (index.parse(), name != "step") {
                parts.entry(index).or_default().push(key.to_owned());
            }
        }
    }
    let mut state = IndexMap::new();
    for index in 0..next {
        let at = format!("{STATE}.{index}");
        let mut tensors = IndexMap::new();
        for key in parts.get(&index).into_iter().flatten() {
            tensors.insert(
                key[at.len() + 1..].to_owned(),
                Item::There(&file.tensors, key.clone()),
            );
        }
        if !tensors.is_empty() {
            let steps = step_count(file, &format!("{at}.step"))?;
            state.insert(index, State { steps, tensors });
        }
    }
    let stray = file
        .tensors
        .names()
        .filter_map(|n| n.strip_prefix(STATE)?.strip_prefix('.')?.split('.').next())
        .find(|index| !index.parse().is_ok_and(|i: i64| state.contains_key(&i)));
    if let Some(index) = stray {
        let expected = format!("one of the groups' {next} parameters");
        return Err(Error::checkpoint(
            path,
            format!("{STATE}.{index}"),
            expected,
            "another",
        ));
    }
    Ok(Training {
        epoch: integer("epoch")?,
        steps: integer(&format!("{SCHEDULE}.last_epoch"))?,
        groups,
        state,
        stage: file.plain.get("af2.stage").and_then(text),
        data: file.plain.get("af2.data").and_then(text),
        made_with: file.plain.get("af2.made_with").and_then(text),
        random: random(file)?,
    })
}

/// What each group says beside its rates and parameters.
///
/// # Errors
/// A number that is not finite.
fn settings(file: &TorchFile) -> Result<HashMap<usize, IndexMap<String, Plain>>> {
    let own = ["lr", "initial_lr", "params", "param_names"];
    let mut all: HashMap<usize, IndexMap<String, Plain>> = HashMap::new();
    for (key, value) in &file.plain {
        let below = key.strip_prefix(GROUPS).and_then(|rest| rest.strip_prefix('.'));
        let Some((group, name)) = below.and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        let Some(group) = group
            .parse()
            .ok()
            .filter(|_| !name.contains('.') && !own.contains(&name))
        else {
            continue;
        };
        let numbers = value.as_list().unwrap_or(std::slice::from_ref(value));
        if numbers
            .iter()
            .any(|n| n.as_float().is_some_and(|x| !x.is_finite()))
        {
            let source = file.tensors.source();
            return Err(Error::checkpoint(
                source,
                key,
                "a finite number",
                value.to_string(),
            ));
        }
        all.entry(group)
            .or_default()
            .insert(name.to_owned(), value.clone());
    }
    Ok(all)
}

/// Ranks and generators are numbered from 0.
fn random(file: &TorchFile) -> Result<Vec<Vec<Tensor>>> {
    let mut all = Vec::new();
    loop {
        let mut own = Vec::new();
        loop {
            let key = format!("af2.random.{}.{}", all.len(), own.len());
            if file.tensors.info(&key).is_none() {
                break;
            }
            own.push(file.tensors.get_as(&key, Kind::Uint8, Device::Cpu)?);
        }
        if own.is_empty() {
            return Ok(all);
        }
        all.push(own);
    }
}

fn text(value: &Plain) -> Option<String> {
    match value {
        Plain::Text(t) => Some(t.clone()),
        _ => None,
    }
}

/// PyTorch keeps the count as a float tensor; older versions as an integer.
fn step_count(file: &TorchFile, key: &str) -> Result<i64> {
    let wrong = |found: String| Error::checkpoint(file.tensors.source(), key, "a count of steps", found);
    let count = match file.tensors.info(key) {
        Some(info) if info.shape.iter().product::<i64>() == 1 => {
            let t = file.tensors.get_as(key, Kind::Double, Device::Cpu)?;
            f64::try_from(t.reshape([1]).get(0))?
        }
        Some(info) => return Err(wrong(format!("a tensor of shape {:?}", info.shape))),
        None => file
            .plain
            .get(key)
            .and_then(Plain::as_float)
            .ok_or_else(|| wrong("nothing".into()))?,
    };
    if count < 0.0 || count.fract() != 0.0 || count > f64::from(i32::MAX) {
        return Err(wrong(count.to_string()));
    }
    Ok(count as i64)
}

/// Writes `checkpoint_N.pt` as the reference's trainer does; `model` under the names of its tree.
///
/// Its `AdamW.load_state_dict` takes the optimizer's state, `load_state_dict(strict=False)` the model's, and
/// `torch.load(weights_only=True)` the whole.
///
/// # Errors
/// As [`super::write_torch`].
pub(crate) fn write(path: &Path, model: Vec<(String, Item)>, training: &Training) -> Result<()> {
    let state = training
        .state
        .iter()
        .map(|(index, state)| {
            let step = (
                "step".to_owned(),
                Node::Tensor(Tensor::from(state.steps as f32).into()),
            );
            let tensors = state.tensors.iter();
            let tensors = tensors.map(|(name, item)| (name.clone(), Node::Tensor(item.again())));
            (Key::Int(*index), Node::dict(std::iter::once(step).chain(tensors)))
        })
        .collect();
    let rates = |f: fn(&Group) -> f64| {
        Node::Plain(Plain::List(
            training.groups.iter().map(|g| Plain::Float(f(g))).collect(),
        ))
    };
    let flag = |b| Node::Plain(Plain::Bool(b));
    let int = |i| Node::Plain(Plain::Int(i));
    let schedule = Node::dict([
        ("base_lrs", rates(|g| g.initial_lr)),
        ("last_epoch", int(training.steps)),
        ("_step_count", int(training.steps + 1)),
        ("_is_initial", flag(false)),
        ("_get_lr_called_within_step", flag(false)),
        ("_last_lr", rates(|g| g.lr)),
        // What LambdaLR keeps of a function: nothing.
        (
            "lr_lambdas",
            Node::List(training.groups.iter().map(|_| Node::Dict(Vec::new())).collect()),
        ),
    ]);
    let mut root = vec![
        ("epoch", int(training.epoch)),
        ("model_state_dict", Node::tensors(model)),
        (
            "optimizer_state_dict",
            Node::dict([
                ("state", Node::Dict(state)),
                (
                    "param_groups",
                    Node::List(training.groups.iter().map(group).collect()),
                ),
            ]),
        ),
        ("lr_scheduler_state_dict", schedule),
    ];
    let ours = [
        ("stage", &training.stage),
        ("data", &training.data),
        ("made_with", &training.made_with),
    ];
    let mut ours: Vec<_> = (ours.into_iter())
        .filter_map(|(key, text)| Some((key, Node::Plain(Plain::Text(text.clone()?)))))
        .collect();
    if !training.random.is_empty() {
        let states = |own: &Vec<Tensor>| {
            let states = own.iter().map(|t| Node::Tensor(t.shallow_clone().into()));
            Node::List(states.collect())
        };
        ours.push(("random", Node::List(training.random.iter().map(states).collect())));
    }
    if !ours.is_empty() {
        root.push(("af2", Node::dict(ours)));
    }
    torch_write::write(path, &Node::dict(root))
}

fn group(g: &Group) -> Node<'static> {
    let own = g
        .settings
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    let mut entries: Vec<(String, Plain)> = own.collect();
    entries.push(("lr".into(), Plain::Float(g.lr)));
    entries.push(("initial_lr".into(), Plain::Float(g.initial_lr)));
    let params = g.params.iter().map(|i| Plain::Int(*i)).collect();
    entries.push(("params".into(), Plain::List(params)));
    if let Some(names) = &g.names {
        let names = names.iter().map(|n| Plain::Text(n.clone())).collect();
        entries.push(("param_names".into(), Plain::List(names)));
    }
    Node::dict(
        entries
            .into_iter()
            .map(|(name, value)| (name, Node::Plain(value))),
    )
}

/// Writes weights alone, as `{"model_state_dict": …}`.
pub fn write_model(path: &Path, model: Vec<(String, Item)>) -> Result<()> {
    torch_write::write(path, &Node::dict([("model_state_dict", Node::tensors(model))]))
}
