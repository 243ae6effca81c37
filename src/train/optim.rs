//! AdamW with parameter groups, gradient clipping and the learning-rate schedule, each as PyTorch computes it.

use crate::error::Result;
use crate::ffi::kernels::{self, AdamWeights};
use crate::recipe::{OptimRecipe, Schedule};
use std::collections::HashMap;
use tch::{Kind, Tensor};

pub const BETA1: f64 = 0.9;
pub const BETA2: f64 = 0.999;
pub const EPS: f64 = 1e-8;

/// Weights that share their settings.
pub struct Group {
    pub params: Vec<(String, Tensor)>,
    pub weight_decay: f64,
    /// Multiplies the schedule's learning rate.
    pub rate: f64,
}

/// What the optimizer keeps of one weight.
pub struct Moments {
    pub exp_avg: Tensor,
    pub exp_avg_sq: Tensor,
    /// Steps in which this weight had a gradient, as one float on its device: PyTorch counts per weight.
    pub steps: Tensor,
}

/// The optimizer (decoupled weight decay; betas 0.9 and 0.999, eps 1e-8), fused: one kernel for the weights of a group.
pub struct AdamW {
    groups: Vec<Group>,
    state: Vec<Vec<Option<Moments>>>,
    /// ZeRO stage 1: which rank keeps the state of each weight, and which we are.
    shard: Option<(Vec<Vec<usize>>, usize)>,
}

impl AdamW {
    pub fn new(groups: Vec<Group>) -> Self {
        let state = groups
            .iter()
            .map(|g| g.params.iter().map(|_| None).collect())
            .collect();
        AdamW {
            groups,
            state,
            shard: None,
        }
    }

    /// Gives each weight to one of `world` ranks, the largest first to the rank that has the least: each moves its own
    /// weights only, and keeps the moments of these alone.
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

    /// The rank that keeps the moments of each weight, in group order; none where every rank keeps all.
    pub fn owners(&self) -> Option<Vec<usize>> {
        self.shard.as_ref().map(|(owner, _)| owner.concat())
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// What is kept here of each weight that has had a gradient, by its number over all groups.
    pub fn moments(&self) -> impl Iterator<Item = (usize, &Moments)> {
        let all = self.state.iter().flatten().enumerate();
        all.filter_map(|(i, m)| Some((i, m.as_ref()?)))
    }

    /// Whether this rank keeps the moments of the weight with this number over all groups.
    pub fn keeps(&self, weight: usize) -> bool {
        match &self.shard {
            None => true,
            Some((owner, rank)) => owner.iter().flatten().nth(weight) == Some(rank),
        }
    }

    /// Puts moments back; weights that are not named forget theirs.
    pub fn restore(&mut self, mut moments: HashMap<usize, Moments>) {
        for (i, place) in self.state.iter_mut().flatten().enumerate() {
            *place = moments.remove(&i);
        }
    }

    /// All weights, in group order.
    pub fn params(&self) -> impl Iterator<Item = &(String, Tensor)> {
        self.groups.iter().flat_map(|g| &g.params)
    }

    /// The gradients that there are, in group order.
    pub fn grads(&self) -> Vec<Tensor> {
        let all = self.params().map(|(_, p)| p.grad());
        all.filter(Tensor::defined).collect()
    }

    /// Updates every weight that has a gradient. Where `found_inf` (one float, on the device) is 1, nothing changes; nothing
    /// waits for the device to know.
    pub fn step(&mut self, learning_rate: f64, found_inf: &Tensor) -> Result<()> {
        let shard = self.shard.as_ref();
        for (g, (group, states)) in self.groups.iter().zip(&mut self.state).enumerate() {
            let mut w = AdamWeights::default();
            for (i, ((_, p), state)) in group.params.iter().zip(states).enumerate() {
                let grad = p.grad();
                if !grad.defined() || shard.is_some_and(|(owner, rank)| owner[g][i] != *rank) {
                    continue;
                }
                let m = state.get_or_insert_with(|| Moments {
                    exp_avg: p.detach().zeros_like(),
                    exp_avg_sq: p.detach().zeros_like(),
                    steps: Tensor::zeros([0i64; 0], (Kind::Float, p.device())),
                });
                w.params.push(p.detach());
                w.grads.push(grad);
                w.exp_avg.push(m.exp_avg.shallow_clone());
                w.exp_avg_sq.push(m.exp_avg_sq.shallow_clone());
                w.steps.push(m.steps.shallow_clone());
            }
            let rate = learning_rate * group.rate;
            kernels::fused_adamw(&w, rate, (BETA1, BETA2), group.weight_decay, EPS, found_inf)?;
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
    pub fn zero(&self) -> Tensor {
        match self.params().next() {
            // The sum of nothing of it.
            Some((_, p)) => p.detach().reshape([-1]).narrow(0, 0, 0).sum(Kind::Float),
            None => Tensor::from(0f32),
        }
    }
}

/// 1 where a norm is not finite, else 0: one float on its device.
pub fn not_finite(norm: &Tensor) -> Tensor {
    norm.isfinite().logical_not().to_kind(Kind::Float)
}

/// The learning rate of optimizer step `step` (from 0), as transformers' schedules with warm-up.
pub fn learning_rate(o: &OptimRecipe, step: usize) -> f64 {
    if step < o.warmup {
        return o.learning_rate * step as f64 / o.warmup as f64;
    }
    let end = o.schedule_steps.unwrap_or(o.steps);
    let span = end.saturating_sub(o.warmup).max(1) as f64;
    let done = (step - o.warmup) as f64 / span;
    o.learning_rate
        * match o.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => (1.0 - done).max(0.0),
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        }
}

/// Two groups: weights that the filter takes decay, the others do not.
pub fn groups(
    params: Vec<(String, Tensor)>,
    weight_decay: f64,
    decays: impl Fn(&str, &Tensor) -> bool,
) -> Vec<Group> {
    let (with, without): (Vec<_>, Vec<_>) = params.into_iter().partition(|(n, p)| decays(n, p));
    vec![
        Group {
            params: with,
            weight_decay,
            rate: 1.0,
        },
        Group {
            params: without,
            weight_decay: 0.0,
            rate: 1.0,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn of_a_step_without_gradients_all_is_where_the_weights_are() {
        use crate::ffi::kernels::meta::{is_meta, on_meta};
        let weight = on_meta(&Tensor::from_slice(&[1f32, 2.0])).set_requires_grad(true);
        let adam = AdamW::new(vec![Group {
            params: vec![("w".into(), weight)],
            weight_decay: 0.0,
            rate: 1.0,
        }]);
        let norm = adam.clip(1.0).unwrap();
        assert!(is_meta(&norm) && is_meta(&adam.zero()));
        // Of weights with numbers it is 0, whatever they are.
        let adam = AdamW::new(vec![Group {
            params: vec![("w".into(), Tensor::from(f32::NAN).set_requires_grad(true))],
            weight_decay: 0.0,
            rate: 1.0,
        }]);
        assert_eq!(f64::try_from(adam.clip(1.0).unwrap()).unwrap(), 0.0);
    }

    fn recipe(schedule: Schedule) -> OptimRecipe {
        OptimRecipe {
            steps: 13,
            batch_size: 1,
            accumulate: 1,
            global_batch: None,
            learning_rate: 1e-3,
            clap_rate: 1.0,
            gate_rate: 1.0,
            schedule,
            schedule_steps: None,
            warmup: 3,
            weight_decay: 0.1,
            clip: 1.0,
        }
    }

    #[test]
    fn the_first_step_has_rate_zero_and_schedules_end_where_they_should() {
        let o = recipe(Schedule::Cosine);
        assert_eq!(learning_rate(&o, 0), 0.0);
        assert!((learning_rate(&o, 1) - 1e-3 / 3.0).abs() < 1e-12);
        assert_eq!(learning_rate(&o, 3), 1e-3);
        assert!((learning_rate(&o, 8) - 0.5e-3).abs() < 1e-9);
        assert!(learning_rate(&o, 13) < 1e-12);
        assert!((learning_rate(&recipe(Schedule::Linear), 8) - 0.5e-3).abs() < 1e-12);
        assert_eq!(learning_rate(&recipe(Schedule::Constant), 99), 1e-3);
    }

    /// By hand, from transformers' `get_linear_schedule_with_warmup(optimizer, 3, 7)` and the cosine's.
    #[test]
    fn a_schedule_that_ends_elsewhere_is_transformers() {
        let rates = |schedule, end| {
            let o = OptimRecipe {
                schedule_steps: Some(end),
                ..recipe(schedule)
            };
            [4, 5, 7, 9].map(|step| (learning_rate(&o, step) / o.learning_rate * 1e4).round() / 1e4)
        };
        assert_eq!(rates(Schedule::Linear, 7), [0.75, 0.5, 0.0, 0.0]);
        assert_eq!(rates(Schedule::Linear, 23), [0.95, 0.9, 0.8, 0.7]);
        assert_eq!(rates(Schedule::Cosine, 7), [0.8536, 0.5, 0.0, 0.5]);
        assert_eq!(rates(Schedule::Cosine, 23), [0.9938, 0.9755, 0.9045, 0.7939]);
    }

    /// The value by hand: after the first step Adam moves by the learning rate against the gradient's sign.
    #[test]
    fn the_first_step_moves_by_the_learning_rate_and_decay_is_decoupled() {
        let p = Tensor::from_slice(&[2f32, -4.0]).set_requires_grad(true);
        let mut adam = AdamW::new(vec![Group {
            params: vec![("p".into(), p.shallow_clone())],
            weight_decay: 0.5,
            rate: 1.0,
        }]);
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
        let adam = AdamW::new(groups(vec![("p".into(), p.shallow_clone())], 0.0, |_, _| false));
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
        let mut adam = AdamW::new(groups(vec![("p".into(), p.shallow_clone())], 0.1, |_, _| true));
        for (factor, moved) in [(1.0, true), (f64::NAN, false), (1.0, true)] {
            adam.zero_grad(false).unwrap();
            let before = p.detach().copy();
            (&p * factor).sum(Kind::Float).backward();
            let norm = adam.clip(1.0).unwrap();
            adam.step(0.1, &not_finite(&norm)).unwrap();
            assert_eq!(!p.detach().equal(&before), moved, "{factor}");
        }
        let (_, m) = adam.moments().next().unwrap();
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
            let mut adam = AdamW::new(groups(copies, 0.0, |n, _| n != "3"));
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
            assert_eq!(adam.moments().count(), ours.len());
            moved.push(ours);
        }
        assert_eq!(moved, [vec![3, 7], vec![1, 4, 5]]);
    }
}
