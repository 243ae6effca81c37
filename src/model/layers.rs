//! The small layers that every architecture here shares.

use super::params::{Init, Scope};
use crate::ffi::kernels;
use tch::{Device, Kind, Tensor};

/// A CPU tensor on the device. To a GPU it goes from page-locked memory while the host goes on: it is in its place before
/// any kernel that is started later reads it.
pub(super) fn onto(tensor: Tensor, device: Device) -> Tensor {
    let kind = tensor.kind();
    match device {
        // Where no memory may be locked the copy is made all the same.
        Device::Cuda(_) => kernels::pinned(&tensor)
            .unwrap_or(tensor)
            .to_device_(device, kind, true, false),
        _ => tensor.to_device(device),
    }
}

/// `x·Wᵀ + b`, weight (out, in), as `torch.nn.Linear`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(p: Scope, input: i64, output: i64, bias: bool) -> Self {
        Linear::with_init(p, input, output, bias, Init::FanIn(input))
    }

    pub(crate) fn with_init(p: Scope, input: i64, output: i64, bias: bool, init: Init) -> Self {
        Linear {
            weight: p.weight("weight", &[output, input], init),
            bias: bias.then(|| {
                let start = match init {
                    Init::FanIn(n) => Init::FanIn(n),
                    _ => Init::Const(0.0),
                };
                p.weight("bias", &[output], start)
            }),
        }
    }

    /// # Shapes
    /// `x` (…, in) → (…, out)
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn new(p: Scope, width: i64, eps: f64) -> Self {
        LayerNorm {
            weight: p.weight("weight", &[width], Init::Const(1.0)),
            bias: p.weight("bias", &[width], Init::Const(0.0)),
            eps,
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let width = self.weight.size();
        x.layer_norm(&width, Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}

/// Root-mean-square normalisation (the LMs, T5): no mean is taken off, no bias added.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn new(p: Scope, width: i64, eps: f64) -> Self {
        RmsNorm {
            weight: p.weight("weight", &[width], Init::Const(1.0)),
            eps,
        }
    }

    /// `x` float32, as what runs through the blocks is under autocast too. In bf16 libtorch would round once, behind the
    /// weight, where the reference rounds before it; in float32 both are the same, on the CPU to the last bit.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.rms_norm(self.weight.size(), Some(&self.weight), self.eps)
    }
}

/// Batch normalisation over dimension 1 with running statistics (momentum 0.1, eps 1e-5).
#[derive(Debug)]
pub(crate) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
}

impl BatchNorm {
    pub(crate) fn new(p: Scope, width: i64) -> Self {
        let float = (Kind::Float, p.device());
        let long = (Kind::Int64, p.device());
        BatchNorm {
            weight: p.weight("weight", &[width], Init::Const(1.0)),
            bias: p.weight("bias", &[width], Init::Const(0.0)),
            running_mean: p.buffer("running_mean", &[width], Kind::Float, || {
                Tensor::zeros([width], float)
            }),
            running_var: p.buffer("running_var", &[width], Kind::Float, || {
                Tensor::ones([width], float)
            }),
            num_batches_tracked: p.buffer("num_batches_tracked", &[], Kind::Int64, || {
                Tensor::zeros([0i64; 0], long)
            }),
        }
    }

    /// With `train`, normalises by the batch's own statistics and moves the running ones.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        if train {
            let _ = tch::no_grad(|| self.num_batches_tracked.shallow_clone().g_add_scalar_(1));
        }
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            train,
            0.1,
            1e-5,
            false,
        )
    }
}

/// 2-D convolution without padding, weight (out, in, kh, kw).
#[derive(Debug)]
pub(crate) struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: [i64; 2],
}

impl Conv2d {
    pub(crate) fn new(p: Scope, input: i64, output: i64, kernel: [i64; 2], stride: [i64; 2]) -> Self {
        let fan_in = input * kernel[0] * kernel[1];
        Conv2d {
            weight: p.weight(
                "weight",
                &[output, input, kernel[0], kernel[1]],
                Init::FanIn(fan_in),
            ),
            bias: p.weight("bias", &[output], Init::FanIn(fan_in)),
            stride,
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, Some(&self.bias), self.stride, [0, 0], [1, 1], 1)
    }
}

/// Rotates the two halves of the last dimension: (a, b) → (−b, a).
pub(crate) fn rotate_half(x: &Tensor) -> Tensor {
    let halves = x.chunk(2, -1);
    Tensor::cat(&[-&halves[1], halves[0].shallow_clone()], -1)
}

/// Cosine and sine tables of rotary positions, each (n, 2·len(inv_freq)), halves repeated.
pub(crate) fn rotary_tables(positions: &Tensor, inv_freq: &Tensor) -> (Tensor, Tensor) {
    let angle = positions.to_kind(Kind::Float).unsqueeze(-1) * inv_freq.to_kind(Kind::Float);
    let angle = Tensor::cat(&[&angle, &angle], -1);
    (angle.cos(), angle.sin())
}
