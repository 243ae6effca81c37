//! The Swin transformer inside HTSAT: stages of windowed attention over a square of patches.
//!
//! Reference: `htsat.py` (`BasicLayer`, `SwinTransformerBlock`, `PatchMerging`).

use crate::ffi::kernels::{recompute, Shared};
use crate::model::layers::{LayerNorm, Linear};
use crate::model::params::{Init, Scope};
use tch::{Kind, Tensor};

/// Side of an attention window, in patches.
const WINDOW: i64 = 8;
/// Patches of one.
pub(crate) const ATTENTION_WINDOW: i64 = WINDOW * WINDOW;
/// Rows of the table of relative positions: the distances of two patches of a window.
pub(crate) const TABLE: i64 = (2 * WINDOW - 1) * (2 * WINDOW - 1);

/// Blocks over one resolution, and the merging that halves it.
pub(crate) struct Stage {
    blocks: Vec<Shared<Block>>,
    downsample: Option<PatchMerging>,
    side: i64,
}

impl Stage {
    /// `side` in patches, `merge` for all but the last stage; `drop_rate` gives each block its stochastic depth.
    pub(crate) fn new(
        p: &Scope,
        dim: i64,
        side: i64,
        depth: usize,
        heads: i64,
        merge: bool,
        mut drop_rate: impl FnMut(usize) -> f64,
    ) -> Self {
        let blocks = (0..depth)
            .map(|j| {
                let q = p / "blocks" / j;
                Shared::new(Block::new(&q, dim, side, heads, j % 2 == 1, drop_rate(j)))
            })
            .collect();
        let downsample = merge.then(|| PatchMerging {
            reduction: Linear::new(p / "downsample" / "reduction", 4 * dim, 2 * dim, false),
            norm: LayerNorm::new(p / "downsample" / "norm", 4 * dim, 1e-5),
        });
        Stage {
            blocks,
            downsample,
            side,
        }
    }

    /// # Shapes
    /// (B, side², D) → (B, side²/4, 2·D), or (B, side², D) where nothing is merged.
    /// With `again` blocks are computed again in the backward pass.
    pub(crate) fn forward(&self, x: &Tensor, drop_path: bool, again: bool) -> Tensor {
        let mut x = x.shallow_clone();
        for block in &self.blocks {
            x = match again {
                false => block.get().forward(&x, drop_path),
                true => {
                    let block = block.clone();
                    recompute(&[x], move |t| block.get().forward(&t[0], drop_path))
                }
            };
        }
        match &self.downsample {
            Some(merge) => merge.forward(&x, self.side),
            None => x,
        }
    }
}

struct PatchMerging {
    reduction: Linear,
    norm: LayerNorm,
}

impl PatchMerging {
    /// (B, side², D) → (B, side²/4, 2·D): four neighbours side by side, then reduced.
    fn forward(&self, x: &Tensor, side: i64) -> Tensor {
        let (b, _, d) = x.size3().unwrap_or((0, 0, 0));
        // Reference order: (even row, even column), (odd, even), (even, odd), (odd, odd).
        let x = x
            .reshape([b, side / 2, 2, side / 2, 2, d])
            .permute([0, 1, 3, 4, 2, 5])
            .reshape([b, side * side / 4, 4 * d]);
        self.reduction.forward(&self.norm.forward(&x))
    }
}

struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    bias_table: Tensor,
    bias_index: Tensor,
    attn_mask: Option<Tensor>,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    side: i64,
    heads: i64,
    shift: i64,
    drop_path: f64,
}

impl Block {
    fn new(p: &Scope, dim: i64, side: i64, heads: i64, odd: bool, drop_path: f64) -> Self {
        // One window spans the whole image: nothing to shift.
        let shift = if odd && side > WINDOW { WINDOW / 2 } else { 0 };
        let attn_mask = (shift > 0).then(|| {
            let windows = (side / WINDOW).pow(2);
            let n = ATTENTION_WINDOW;
            p.buffer("attn_mask", &[windows, n, n], Kind::Float, || {
                shift_mask(side, shift)
            })
        });
        let norm1 = LayerNorm::new(p / "norm1", dim, 1e-5);
        let a = p / "attn";
        let bias_table = a.weight(
            "relative_position_bias_table",
            &[TABLE, heads],
            Init::Normal(0.02),
        );
        let n = ATTENTION_WINDOW;
        let bias_index = a.buffer(
            "relative_position_index",
            &[n, n],
            Kind::Int64,
            relative_position_index,
        );
        Block {
            norm1,
            qkv: Linear::with_init(&a / "qkv", dim, 3 * dim, true, Init::Normal(0.02)),
            proj: Linear::with_init(&a / "proj", dim, dim, true, Init::Normal(0.02)),
            bias_table,
            bias_index,
            attn_mask,
            norm2: LayerNorm::new(p / "norm2", dim, 1e-5),
            fc1: Linear::with_init(p / "mlp" / "fc1", dim, 4 * dim, true, Init::Normal(0.02)),
            fc2: Linear::with_init(p / "mlp" / "fc2", 4 * dim, dim, true, Init::Normal(0.02)),
            side,
            heads,
            shift,
            drop_path,
        }
    }

    fn forward(&self, x: &Tensor, drop_path: bool) -> Tensor {
        let branch = self.attention(&self.norm1.forward(x));
        let x = x + self.dropped(branch, drop_path);
        let hidden = self.fc1.forward(&self.norm2.forward(&x)).gelu("none");
        &x + self.dropped(self.fc2.forward(&hidden), drop_path)
    }

    /// Stochastic depth: a whole sample's branch is dropped, the rest scaled up.
    fn dropped(&self, branch: Tensor, active: bool) -> Tensor {
        if !active || self.drop_path == 0.0 {
            return branch;
        }
        let keep = 1.0 - self.drop_path;
        let coin =
            Tensor::empty([branch.size()[0], 1, 1], (branch.kind(), branch.device())).bernoulli_float_(keep);
        branch * coin / keep
    }

    fn attention(&self, x: &Tensor) -> Tensor {
        let (b, l, d) = x.size3().unwrap_or((0, 0, 0));
        let (s, n) = (self.side / WINDOW, ATTENTION_WINDOW);
        let mut x = x.reshape([b, self.side, self.side, d]);
        if self.shift > 0 {
            x = x.roll([-self.shift, -self.shift], [1, 2]);
        }
        // (B, s·s, 64, D): the image's windows beside each other, so that one mask serves the whole batch.
        let windows = x
            .reshape([b, s, WINDOW, s, WINDOW, d])
            .transpose(2, 3)
            .reshape([b, s * s, n, d]);
        let qkv = self
            .qkv
            .forward(&windows)
            .reshape([b, s * s, n, 3, self.heads, d / self.heads])
            .permute([3, 0, 1, 4, 2, 5]);
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        let bias = self
            .bias_table
            .index_select(0, &self.bias_index.flatten(0, 1))
            .reshape([n, n, self.heads])
            .permute([2, 0, 1])
            .unsqueeze(0);
        let mask = match &self.attn_mask {
            Some(m) => bias + m.unsqueeze(1),
            None => bias,
        };
        // libtorch's fused kernels take four dimensions: on CUDA the memory-efficient one, also where the bias trains; on the CPU
        // flash, three times as fast, where it does not. Their mask may be 1 in the first two.
        let attend = |q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor| {
            Tensor::scaled_dot_product_attention(q, k, v, Some(mask), 0.0, false, None, false)
        };
        let out = match (&self.attn_mask, mask.requires_grad()) {
            // Every window has the same mask: windows are so many clips, which copies nothing.
            (None, _) => attend(&q.flatten(0, 1), &k.flatten(0, 1), &v.flatten(0, 1), &mask),
            // Each window of an image has its own. As so many heads, q, k and v are copied, but the one mask of all images is
            // all that the backward pass keeps of it.
            (Some(_), true) => {
                let mask = mask.flatten(0, 1).unsqueeze(0);
                attend(&q.flatten(1, 2), &k.flatten(1, 2), &v.flatten(1, 2), &mask)
            }
            // Where nothing is kept, repeating the mask costs less than those three copies.
            (Some(_), false) => {
                let mask = mask.repeat([b, 1, 1, 1]);
                attend(&q.flatten(0, 1), &k.flatten(0, 1), &v.flatten(0, 1), &mask)
            }
        };
        let out = out.reshape([b, s * s, self.heads, n, d / self.heads]);
        let out = self.proj.forward(&out.transpose(2, 3).reshape([b, s * s, n, d]));
        let mut x = out
            .reshape([b, s, s, WINDOW, WINDOW, d])
            .transpose(2, 3)
            .reshape([b, self.side, self.side, d]);
        if self.shift > 0 {
            x = x.roll([self.shift, self.shift], [1, 2]);
        }
        x.reshape([b, l, d])
    }
}

/// (64, 64): which row of the bias table the offset between two patches of a window reads.
fn relative_position_index() -> Tensor {
    let side = 2 * WINDOW - 1;
    let n = ATTENTION_WINDOW;
    let index: Vec<i64> = (0..n * n)
        .map(|ij| {
            let (i, j) = (ij / n, ij % n);
            let (dy, dx) = (i / WINDOW - j / WINDOW, i % WINDOW - j % WINDOW);
            (dy + WINDOW - 1) * side + dx + WINDOW - 1
        })
        .collect();
    Tensor::from_slice(&index).reshape([n, n])
}

/// (windows, 64, 64): −100 between patches that a cyclic shift brought together from opposite edges.
fn shift_mask(side: i64, shift: i64) -> Tensor {
    let zone = |x: i64| match x {
        x if x < side - WINDOW => 0,
        x if x < side - shift => 1,
        _ => 2,
    };
    let (s, n) = (side / WINDOW, ATTENTION_WINDOW);
    let mut data = Vec::with_capacity((s * s * n * n) as usize);
    for w in 0..s * s {
        let region = |i: i64| {
            let (y, x) = ((w / s) * WINDOW + i / WINDOW, (w % s) * WINDOW + i % WINDOW);
            zone(y) * 3 + zone(x)
        };
        for i in 0..n {
            for j in 0..n {
                data.push(if region(i) == region(j) { 0f32 } else { -100.0 });
            }
        }
    }
    Tensor::from_slice(&data).reshape([s * s, n, n])
}
