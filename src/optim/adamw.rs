//! AdamW (decoupled weight decay), as `torch.optim.AdamW`.

use super::{groups::Group, Moved, Setting};
use crate::error::Result;
use crate::ffi::kernels::{self, AdamWeights};
use tch::Tensor;

const EPS: f64 = 1e-8;

pub(crate) const KEEPS: &[&str] = &["exp_avg", "exp_avg_sq"];

/// Every key that PyTorch 2.11's AdamW has.
pub(crate) fn settings(group: &Group) -> Vec<(&'static str, Setting)> {
    vec![
        ("weight_decay", Setting::Number(group.weight_decay)),
        ("betas", Setting::Pair(group.betas.0, group.betas.1)),
        ("eps", Setting::Number(EPS)),
        ("amsgrad", Setting::Flag(false)),
        ("maximize", Setting::Flag(false)),
        ("foreach", Setting::None),
        ("capturable", Setting::Flag(false)),
        ("differentiable", Setting::Flag(false)),
        ("fused", Setting::None),
        ("decoupled_weight_decay", Setting::Flag(true)),
    ]
}

pub(crate) fn update(group: &Group, weights: &[Moved], rate: f64, found_inf: &Tensor) -> Result<()> {
    let of = |part: &dyn Fn(&Moved) -> Tensor| weights.iter().map(part).collect::<Vec<_>>();
    let all = AdamWeights {
        params: of(&|w| w.weight.shallow_clone()),
        grads: of(&|w| w.grad.shallow_clone()),
        exp_avg: of(&|w| w.kept.tensors[0].shallow_clone()),
        exp_avg_sq: of(&|w| w.kept.tensors[1].shallow_clone()),
        steps: of(&|w| w.kept.steps.shallow_clone()),
    };
    kernels::fused_adamw(&all, rate, group.betas, group.weight_decay, EPS, found_inf)?;
    Ok(())
}
