//! The 2-D attentional feature fusion (`aff_2d`) that AF-CLAP uses on clips longer than 10 s.
//!
//! Reference: `feature_fusion.py`, class `AFF`.

use crate::model::layers::{BatchNorm, Conv2d};
use crate::model::params::Scope;
use tch::{Kind, Tensor};

/// Reduction of the bottleneck.
const REDUCTION: i64 = 4;

/// Weighs a global and a local feature map against each other, element by element.
pub(crate) struct FeatureFusion {
    local_att: Bottleneck,
    global_att: Bottleneck,
}

/// Conv 1×1 → BatchNorm → ReLU → Conv 1×1 → BatchNorm.
struct Bottleneck {
    conv_in: Conv2d,
    norm_in: BatchNorm,
    conv_out: Conv2d,
    norm_out: BatchNorm,
}

impl Bottleneck {
    /// `first` is the index of the first convolution in the reference's `Sequential`.
    fn new(p: Scope, channels: i64, first: usize) -> Self {
        let inner = channels / REDUCTION;
        Bottleneck {
            conv_in: Conv2d::new(&p / first, channels, inner, [1, 1], [1, 1]),
            norm_in: BatchNorm::new(&p / (first + 1), inner),
            conv_out: Conv2d::new(&p / (first + 3), inner, channels, [1, 1], [1, 1]),
            norm_out: BatchNorm::new(&p / (first + 4), channels),
        }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let x = self.norm_in.forward(&self.conv_in.forward(x), train).relu();
        self.norm_out.forward(&self.conv_out.forward(&x), train)
    }
}

impl FeatureFusion {
    pub(crate) fn new(p: Scope, channels: i64) -> Self {
        FeatureFusion {
            local_att: Bottleneck::new(&p / "local_att", channels, 0),
            // Index 0 of the reference's global branch is the pooling, which has no weights.
            global_att: Bottleneck::new(&p / "global_att", channels, 1),
        }
    }

    /// # Shapes
    /// `x` and `residual` (B, C, H, W) → (B, C, H, W)
    pub(crate) fn forward(&self, x: &Tensor, residual: &Tensor, train: bool) -> Tensor {
        let sum = x + residual;
        // Reference: a single clip is doubled, so that the pooled branch's batch statistics exist.
        let single = sum.size()[0] == 1;
        let sum = if single {
            Tensor::cat(&[&sum, &sum], 0)
        } else {
            sum
        };
        let pooled = sum.mean_dim([2i64, 3].as_slice(), true, Kind::Float);
        let weight =
            (self.local_att.forward(&sum, train) + self.global_att.forward(&pooled, train)).sigmoid();
        let out: Tensor = x * &weight * 2.0 + residual * (1.0 - &weight) * 2.0;
        if single {
            out.narrow(0, 0, 1)
        } else {
            out
        }
    }
}
