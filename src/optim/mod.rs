//! Optimizers: weights in groups, what a rule keeps of each, clipping; each as PyTorch computes it.
//!
//! A rule is a file here and a variant of [`Rule`]. Groups, shares of the ranks, norms and clipping are the same for all.

mod adamw;
mod groups;

pub use groups::Group;
pub(crate) use groups::{groups, Split};

use crate::error::Result;
use crate::ffi::kernels;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tch::{Kind, Tensor};

/// Of the running means of gradients and of their squares, where nothing else is said: PyTorch's.
pub(crate) const BETAS: (f64, f64) = (0.9, 0.999);

/// How a weight is moved by its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Adam with decoupled weight decay, eps 1e-8, fused: one kernel for the weights of a group.
    #[default]
    Adamw,
}

impl Rule {
    /// What it keeps of each weight beside the number of its steps, in the names of PyTorch's `state_dict`: each a tensor as large
    /// as the weight, in float32.
    pub(crate) fn keeps(self) -> &'static [&'static str] {
        match self {
            Rule::Adamw => adamw::KEEPS,
        }
    }

    /// A group's settings in the names of PyTorch's `param_groups`, without its rates and weights.
    pub fn settings(self, group: &Group) -> Vec<(&'static str, Setting)> {
        match self {
            Rule::Adamw => adamw::settings(group),
        }
    }

    fn update(self, group: &Group, weights: &[Moved], rate: f64, found_inf: &Tensor) -> Result<()> {
        match self {
            Rule::Adamw => adamw::update(group, weights, rate, found_inf),
        }
    }
}

/// A setting of a group as PyTorch has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Setting {
    /// A number, as `lr`.
    Number(f64),
    /// Two numbers, as `betas`.
    Pair(f64, f64),
    /// A switch, as `amsgrad`.
    Flag(bool),
    /// Python's `None`.
    None,
}

/// What an optimizer keeps of one weight.
pub struct Kept {
    /// In the order of `Rule::keeps`.
    pub tensors: Vec<Tensor>,
    /// Steps in which this weight had a gradient, as one float on its device: PyTorch counts per weight.
    pub steps: Tensor,
}

impl Kept {
    /// Of a weight that had no step yet.
    pub(crate) fn none(rule: Rule, weight: &Tensor) -> Self {
        let all = rule.keeps().iter();
        Kept {
            tensors: all.map(|_| weight.detach().zeros_like()).collect(),
            steps: Tensor::zeros([0i64; 0], (Kind::Float, weight.device())),
        }
    }
}

/// A weight with its gradient and what is kept of it.
struct Moved<'a> {
    weight: Tensor,
    grad: Tensor,
    kept: &'a Kept,
}

/// Groups of weights, and what is kept of each.
pub struct Optimizer {
    /// What moves the weights.
    pub rule: Rule,
    groups: Vec<Group>,
    state: Vec<Vec<Option<Kept>>>,
    /// ZeRO stage 1: which rank keeps the state of each weight, and which we are.
    shard: Option<(Vec<Vec<usize>>, usize)>,
}

impl Optimizer {
    pub(crate) fn new(rule: Rule, groups: Vec<Group>) -> Self {
        let state = groups
            .iter()
            .map(|g| g.params.iter().map(|_| None).collect())
            .collect();
        Optimizer {
            rule,
            groups,
            state,
            shard: None,
        }
    }

    /// Gives each weight to one of `world` ranks, the largest first to the rank that has the least: each moves its own
    /// weights only, and keeps the state of these alone.
    pub fn shard(&mut self, rank: usize, world: usize) {
        let mut all: Vec<(usize, usize, usize)> = Vec::new();
        for (g, group) in self.groups.iter().enumerate() {
            all.extend((0..group.params.len()).map(|p| (group.params[p].1.numel(), g, p)));
        }
        all.sort_by_key(|(size, g, p)| (std::cmp::Reverse(*size), *g, *p));
        let mut owner: Vec<Vec<usize>> = self.groups.iter().map(|g| vec![0; g.params.len()]).collect();
        let mut load = vec![0; world.max(1)];
        for (size, g, p) in all {
            let least = (0..load.len()).min_by_key(|r| (load[*r], *r)).unwrap_or(0);
            load[least] += size;
            owner[g][p] = least;
        }
        self.shard = Some((owner, rank));
    }

    /// The rank that keeps the state of each weight, in group order; none where every rank keeps all.
    pub(crate) fn owners(&self) -> Option<Vec<usize>> {
        self.shard.as_ref().map(|(owner, _)| owner.concat())
    }

    /// The groups, in their order.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// What is kept here of each weight that has had a gradient, by its number over all groups.
    pub fn kept(&self) -> impl Iterator<Item = (usize, &Kept)> {
        let all = self.state.iter().flatten().enumerate();
        all.filter_map(|(i, k)| Some((i, k.as_ref()?)))
    }

    /// Whether this rank keeps the state of the weight with this number over all groups.
    pub(crate) fn keeps(&self, weight: usize) -> bool {
        match &self.shard {
            None => true,
            Some((owner, rank)) => owner.iter().flatten().nth(weight) == Some(rank),
        }
    }

    /// Puts back what was kept; weights that are not named forget theirs.
    pub(crate) fn restore(&mut self, mut kept: HashMap<usize, Kept>) {
        for (i, place) in self.state.iter_mut().flatten().enumerate() {
            *place = kept.remove(&i);
        }
    }

    /// All weights, in group order.
    pub fn params(&self) -> impl Iterator<Item = &(String, Tensor)> {
        self.groups.iter().flat_map(|g| &g.params)
    }

    /// The gradients that there are, in group order.
    pub(crate) fn grads(&self) -> Vec<Tensor> {
        let all = self.params().map(|(_, p)| p.grad());
        all.filter(Tensor::defined).collect()
    }

    /// Updates every weight that has a gradient. Where `found_inf` (one float, on the device) is 1, nothing changes; nothing
    /// waits for the device to know.
    pub fn step(&mut self, learning_rate: f64, found_inf: &Tensor) -> Result<()> {
        let (rule, shard) = (self.rule, self.shard.as_ref());
        for (g, (group, states)) in self.groups.iter().zip(&mut self.state).enumerate() {
            let mut weights = Vec::new();
            for (i, ((_, p), state)) in group.params.iter().zip(states).enumerate() {
                let grad = p.grad();
                if !grad.defined() || shard.is_some_and(|(owner, rank)| owner[g][i] != *rank) {
                    continue;
                }
                weights.push(Moved {
                    weight: p.detach(),
                    grad,
                    kept: state.get_or_insert_with(|| Kept::none(rule, p)),
                });
            }
            rule.update(group, &weights, learning_rate * group.rate, found_inf)?;
        }
        Ok(())
    }

    /// Forgets the gradients, as PyTorch's `zero_grad` does. With `keep` they are set to zero in place instead: a reducer's
    /// buckets are their memory.
    pub fn zero_grad(&self, keep: bool) -> Result<()> {
        if keep {
            return Ok(kernels::foreach_zero(&self.grads())?);
        }
        let all: Vec<Tensor> = self.params().map(|(_, p)| p.shallow_clone()).collect();
        Ok(kernels::forget_grads(&all)?)
    }

    /// Scales all gradients so that their joint norm is at most `most`; returns the norm before, on the device.
    /// As `torch.nn.utils.clip_grad_norm_`, without looking at the value on the host.
    pub fn clip(&self, most: f64) -> Result<Tensor> {
        let grads = self.grads();
        let total = self.norm(&grads)?;
        let factor = ((&total + 1e-6).reciprocal() * most).clamp_max(1.0);
        kernels::foreach_mul(&grads, &factor)?;
        Ok(total)
    }

    /// The joint norm of gradients, on the weights' device; 0 of none.
    pub fn norm(&self, grads: &[Tensor]) -> Result<Tensor> {
        match grads {
            [] => Ok(self.zero()),
            _ => Ok(kernels::total_norm(grads)?),
        }
    }

    /// 0 as one float where the weights are: what is logged together must be on one device.
    pub(crate) fn zero(&self) -> Tensor {
        match self.params().next() {
            // The sum of nothing of it.
            Some((_, p)) => p.detach().reshape([-1]).narrow(0, 0, 0).sum(Kind::Float),
            None => Tensor::from(0f32),
        }
    }
}

/// 1 where a norm is not finite, else 0: one float on its device.
pub(crate) fn not_finite(norm: &Tensor) -> Tensor {
    norm.isfinite().logical_not().to_kind(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn all(params: Vec<(String, Tensor)>, weight_decay: f64) -> Optimizer {
        Optimizer::new(Rule::Adamw, groups(params, weight_decay, BETAS, |_, _| true, &[]))
    }

    #[test]
    fn of_a_step_without_gradients_all_is_where_the_weights_are() {
        use crate::ffi::kernels::meta::{is_meta, on_meta};
        let weight = on_meta(&Tensor::from_slice(&[1f32, 2.0])).set_requires_grad(true);
        let adam = all(vec![("w".into(), weight)], 0.0);
        let norm = adam.clip(1.0).unwrap();
        assert!(is_meta(&norm) && is_meta(&adam.zero()));
        // Of weights with numbers it is 0, whatever they are.
        let weight = Tensor::from(f32::NAN).set_requires_grad(true);
        let adam = all(vec![("w".into(), weight)], 0.0);
        assert_eq!(f64::try_from(adam.clip(1.0).unwrap()).unwrap(), 0.0);
    }

    /// The value by hand: after the first step Adam moves by the learning rate against the gradient's sign.
    #[test]
    fn the_first_step_moves_by_the_learning_rate_and_decay_is_decoupled() {
        let p = Tensor::from_slice(&[2f32, -4.0]).set_requires_grad(true);
        let mut adam = all(vec![("p".into(), p.shallow_clone())], 0.5);
        (&p * Tensor::from_slice(&[3f32, -1.0]))
            .sum(Kind::Float)
            .backward();
        adam.step(0.1, &Tensor::from(0f32)).unwrap();
        let found: Vec<f32> = Vec::try_from(p.detach().to_device(Device::Cpu)).unwrap();
        for (f, e) in found.iter().zip([2.0 * 0.95 - 0.1, -4.0 * 0.95 + 0.1]) {
            assert!((f - e).abs() < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn clipping_scales_to_the_bound_and_leaves_small_gradients() {
        let p = Tensor::from_slice(&[0f32, 0.0]).set_requires_grad(true);
        let adam = all(vec![("p".into(), p.shallow_clone())], 0.0);
        (&p * Tensor::from_slice(&[3f32, 4.0]))
            .sum(Kind::Float)
            .backward();
        assert!((f64::try_from(adam.clip(1.0).unwrap()).unwrap() - 5.0).abs() < 1e-6);
        assert!((f64::try_from(p.grad().norm()).unwrap() - 1.0).abs() < 1e-5);
        assert!((f64::try_from(adam.clip(1.0).unwrap()).unwrap() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_step_with_a_gradient_that_is_no_number_changes_nothing_and_is_not_counted() {
        let p = Tensor::from_slice(&[1f32, 2.0]).set_requires_grad(true);
        let mut adam = all(vec![("p".into(), p.shallow_clone())], 0.1);
        for (factor, moved) in [(1.0, true), (f64::NAN, false), (1.0, true)] {
            adam.zero_grad(false).unwrap();
            let before = p.detach().copy();
            (&p * factor).sum(Kind::Float).backward();
            let norm = adam.clip(1.0).unwrap();
            adam.step(0.1, &not_finite(&norm)).unwrap();
            assert_eq!(!p.detach().equal(&before), moved, "{factor}");
        }
        let (_, m) = adam.kept().next().unwrap();
        assert_eq!(f64::try_from(&m.steps).unwrap(), 2.0);
    }

    #[test]
    fn ranks_share_the_weights_evenly_and_each_moves_its_own() {
        let sizes = [7i64, 5, 4, 3, 1];
        let weights = || {
            let all = sizes.iter().enumerate();
            let w = |n: i64| Tensor::ones([n], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            all.map(|(i, n)| (i.to_string(), w(*n))).collect::<Vec<_>>()
        };
        let mut moved = Vec::new();
        for rank in 0..2 {
            let own = weights();
            let copies = own.iter().map(|(n, p)| (n.clone(), p.shallow_clone())).collect();
            let mut adam = Optimizer::new(Rule::Adamw, groups(copies, 0.0, BETAS, |n, _| n != "3", &[]));
            adam.shard(rank, 2);
            own.iter()
                .for_each(|(_, p)| p.square().sum(Kind::Float).backward());
            adam.step(0.1, &Tensor::from(0f32)).unwrap();
            let mut ours: Vec<i64> = own
                .iter()
                .filter(|(_, p)| f64::try_from(p.detach().max()).unwrap() < 1.0)
                .map(|(_, p)| p.size()[0])
                .collect();
            ours.sort_unstable();
            assert_eq!(adam.kept().count(), ours.len());
            moved.push(ours);
        }
        assert_eq!(moved, [vec![3, 7], vec![1, 4, 5]]);
    }
}
