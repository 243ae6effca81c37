//! AdamW with parameter groups, gradient clipping and the learning-rate schedule, each as PyTorch computes it.

use crate::recipe::{OptimRecipe, Schedule};
use std::collections::HashMap;
use tch::{no_grad, Tensor};

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
    /// Steps in which this weight had a gradient: PyTorch counts per weight.
    pub steps: i32,
}

/// The optimizer (decoupled weight decay; betas 0.9 and 0.999, eps 1e-8).
pub struct AdamW {
    groups: Vec<Group>,
    state: Vec<Vec<Option<Moments>>>,
}

impl AdamW {
    pub fn new(groups: Vec<Group>) -> Self {
        let state = groups
            .iter()
            .map(|g| g.params.iter().map(|_| None).collect())
            .collect();
        AdamW { groups, state }
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// What is kept of each weight that has had a gradient, by its number over all groups.
    pub fn moments(&self) -> impl Iterator<Item = (usize, &Moments)> {
        let all = self.state.iter().flatten().enumerate();
        all.filter_map(|(i, m)| Some((i, m.as_ref()?)))
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

    /// Updates every weight that has a gradient.
    pub fn step(&mut self, learning_rate: f64) {
        no_grad(|| {
            for (group, states) in self.groups.iter().zip(&mut self.state) {
                let lr = learning_rate * group.rate;
                for ((_, p), state) in group.params.iter().zip(states) {
                    let grad = p.grad();
                    if !grad.defined() {
                        continue;
                    }
                    let m = state.get_or_insert_with(|| Moments {
                        exp_avg: p.zeros_like(),
                        exp_avg_sq: p.zeros_like(),
                        steps: 0,
                    });
                    m.steps += 1;
                    let mut p = p.detach();
                    if group.weight_decay > 0.0 {
                        let _ = p.g_mul_scalar_(1.0 - lr * group.weight_decay);
                    }
                    let _ = m.exp_avg.lerp_(&grad, 1.0 - BETA1);
                    let _ = m.exp_avg_sq.g_mul_scalar_(BETA2);
                    m.exp_avg_sq += grad.square() * (1.0 - BETA2);
                    let correction1 = 1.0 - BETA1.powi(m.steps);
                    let correction2 = (1.0 - BETA2.powi(m.steps)).sqrt();
                    let denominator = m.exp_avg_sq.sqrt() / correction2 + EPS;
                    p -= &m.exp_avg / denominator * (lr / correction1);
                }
            }
        });
    }

    /// Sets the gradients to zero in place: the memory is kept for the next step.
    pub fn zero_grad(&self) {
        for (_, p) in self.params() {
            let mut grad = p.grad();
            if grad.defined() {
                let _ = grad.zero_();
            }
        }
    }

    /// Scales all gradients so that their joint norm is at most `most`; returns the norm before, on the device.
    /// As `torch.nn.utils.clip_grad_norm_`, without looking at the value on the host.
    pub fn clip(&self, most: f64) -> Tensor {
        no_grad(|| {
            let grads: Vec<Tensor> = self
                .params()
                .map(|(_, p)| p.grad())
                .filter(Tensor::defined)
                .collect();
            if grads.is_empty() {
                return Tensor::from(0f32);
            }
            let norms: Vec<Tensor> = grads.iter().map(Tensor::norm).collect();
            let total = Tensor::stack(&norms, 0).norm();
            let factor = ((&total + 1e-6).reciprocal() * most).clamp_max(1.0);
            for mut g in grads {
                let _ = g.g_mul_(&factor);
            }
            total
        })
    }
}

/// The learning rate of optimizer step `step` (from 0), as transformers' schedules with warm-up.
pub fn learning_rate(o: &OptimRecipe, step: usize) -> f64 {
    if step < o.warmup {
        return o.learning_rate * step as f64 / o.warmup as f64;
    }
    let span = o.steps.saturating_sub(o.warmup).max(1) as f64;
    let done = ((step - o.warmup) as f64 / span).min(1.0);
    o.learning_rate
        * match o.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - done,
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
    use tch::{Device, Kind};

    fn recipe(schedule: Schedule) -> OptimRecipe {
        OptimRecipe {
            steps: 13,
            batch_size: 1,
            accumulate: 1,
            learning_rate: 1e-3,
            clap_rate: 1.0,
            gate_rate: 1.0,
            schedule,
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
        adam.step(0.1);
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
        assert!((f64::try_from(adam.clip(1.0)).unwrap() - 5.0).abs() < 1e-6);
        assert!((f64::try_from(p.grad().norm()).unwrap() - 1.0).abs() < 1e-5);
        assert!((f64::try_from(adam.clip(1.0)).unwrap() - 1.0).abs() < 1e-5);
    }
}
