//! HTSAT, the audio encoder of AF-CLAP: a Swin transformer over a folded log-mel spectrogram.
//!
//! Reference: `htsat.py` of the published code ("HTSAT-large", `afclap` variant); paper section 3.1.

use super::activations::Activations;
use super::fusion::FeatureFusion;
use super::swin::{Stage, ATTENTION_WINDOW, TABLE};
use crate::error::{Error, Result};
use crate::model::bounds::Sizes;
use crate::model::layers::{onto, BatchNorm, Conv2d, LayerNorm, Linear};
use crate::model::mode::{Longer, Mode};
use crate::model::params::{in_a_row, Scope, Shapes};
use crate::shapes::{FrontEnd, AF_CLAP};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Side of the square image that the mel is folded into.
const IMAGE: i64 = 256;
/// Patches are 4 × 4 without overlap.
const PATCH: i64 = 4;
/// Patches along a side of it.
const SIDE: i64 = IMAGE / PATCH;
/// Stages: nothing else takes the 64 × 64 patches down to the 8 × 8 that fold back into 64 tokens.
const STAGES: usize = 4;
/// Bands of the mel.
const MEL_BINS: i64 = AF_CLAP.mel_bins as i64;
/// Pieces of time stacked along frequency: 256 / 64.
const FOLDS: i64 = IMAGE / MEL_BINS;

/// The first width: the fusion of longer clips works in a quarter of it.
const EMBED_DIM: RangeInclusive<i64> = 4..=1 << 13;
const DEPTH: RangeInclusive<i64> = 1..=1 << 8;
const HEADS: RangeInclusive<i64> = 1..=1 << 10;
const CLASSES: RangeInclusive<i64> = 1..=1 << 16;

/// Sizes of the encoder. The default is the published "large".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the first stage; each later stage doubles it.
    pub embed_dim: i64,
    /// Blocks per stage.
    pub depths: Vec<usize>,
    /// Attention heads per stage.
    pub num_heads: Vec<i64>,
    /// Classes of the unused tagging head, kept for its names.
    #[serde(default = "default_classes")]
    pub class_num: i64,
}

fn default_classes() -> i64 {
    527
}

impl Config {
    /// The published encoder: 278,770,007 parameters.
    pub(crate) fn large() -> Self {
        Config {
            embed_dim: 256,
            depths: vec![2, 2, 12, 2],
            num_heads: vec![4, 8, 16, 32],
            class_num: 527,
        }
    }

    pub(crate) fn front_end(&self) -> &'static FrontEnd {
        &AF_CLAP
    }

    /// 2 frequency × 32 time.
    pub(crate) fn tokens_per_window(&self) -> i64 {
        (SIDE >> (STAGES - 1)).pow(2)
    }

    /// Width of the output tokens: 8 × embed_dim for four stages.
    pub(crate) fn width(&self) -> i64 {
        let doubled = 1i64.checked_shl(self.depths.len().saturating_sub(1) as u32);
        self.embed_dim.saturating_mul(doubled.unwrap_or(i64::MAX))
    }

    /// Each stage's patches, width, blocks and heads.
    fn stages(&self) -> impl Iterator<Item = (f64, f64, f64, f64)> + '_ {
        let all = self.depths.iter().zip(&self.num_heads).enumerate().take(STAGES);
        all.map(|(i, (depth, heads))| {
            let patches = ((SIDE >> i) * (SIDE >> i)) as f64;
            let width = self.embed_dim as f64 * (1 << i) as f64;
            (patches, width, *depth as f64, *heads as f64)
        })
    }

    pub(crate) fn block_weights(&self) -> f64 {
        self.stages().map(|(_, d, depth, _)| depth * 12.0 * d * d).sum()
    }

    pub(super) fn check(&self, s: &mut Sizes) {
        s.within("embed_dim", self.embed_dim, EMBED_DIM);
        s.within("class_num", self.class_num, CLASSES);
        for (i, depth) in self.depths.iter().enumerate().take(STAGES) {
            s.count(&format!("depths.{i}"), *depth, DEPTH);
        }
        for (i, heads) in self.num_heads.iter().enumerate().take(STAGES) {
            s.within(&format!("num_heads.{i}"), *heads, HEADS);
        }
        self.check_together(s);
    }

    pub(super) fn check_together(&self, s: &mut Sizes) {
        for (key, found) in [("depths", self.depths.len()), ("num_heads", self.num_heads.len())] {
            if found != STAGES {
                s.add(key, format!("{STAGES} stages"), found);
            }
        }
        for (i, heads) in self.num_heads.iter().enumerate().take(STAGES) {
            let width = self.embed_dim.saturating_mul(1 << i);
            if *heads > 0 && width > 0 && width % heads != 0 {
                let expected = format!("heads that divide the stage's width {width}");
                s.add(&format!("num_heads.{i}"), expected, heads);
            }
        }
    }

    /// The sizes of tensors under `prefix`.
    ///
    /// # Errors
    /// Tensors that are missing or make no encoder.
    pub fn read(shapes: Shapes, prefix: &str, path: &Path) -> Result<Self> {
        let dim = |name: &str, axis: usize| -> Result<i64> {
            let key = format!("{prefix}.{name}");
            let shape = shapes(&key).ok_or_else(|| {
                Error::checkpoint(path, &key, "a tensor of the audio encoder", "no such tensor")
                    .hint("is this a checkpoint with the audio encoder? clap_ckpt/ may hold it")
            })?;
            shape
                .get(axis)
                .copied()
                .filter(|n| (1..=1 << 20).contains(n))
                .ok_or_else(|| {
                    Error::checkpoint(
                        path,
                        &key,
                        format!("a size at axis {axis}"),
                        format!("shape {shape:?}"),
                    )
                })
        };
        let embed_dim = dim("patch_embed.proj.weight", 0)?;
        let mut depths = Vec::new();
        let mut num_heads = Vec::new();
        for stage in 0..STAGES {
            let block = |j: usize| format!("layers.{stage}.blocks.{j}.attn.relative_position_bias_table");
            num_heads.push(dim(&block(0), 1)?);
            depths.push(in_a_row(shapes, |j| format!("{prefix}.{}", block(j))));
        }
        for (stage, heads) in num_heads.iter().enumerate() {
            if (embed_dim << stage) % heads != 0 {
                return Err(Error::checkpoint(
                    path,
                    format!("{prefix}.layers.{stage}"),
                    format!("a number of heads that divides {}", embed_dim << stage),
                    heads.to_string(),
                ));
            }
        }
        Ok(Config {
            embed_dim,
            depths,
            num_heads,
            class_num: dim("head.weight", 0)?,
        })
    }

    pub(super) fn operations(&self) -> f64 {
        let stages = self.stages().enumerate();
        let all = stages.map(|(i, (l, d, depth, _))| {
            let merging = if i + 1 < STAGES { 4.0 * l * d * d } else { 0.0 };
            depth * (24.0 * l * d * d + 4.0 * l * ATTENTION_WINDOW as f64 * d) + merging
        });
        2.0 * (SIDE * SIDE * PATCH * PATCH) as f64 * self.embed_dim as f64 + all.sum::<f64>()
    }

    /// Norms in and out, qkv three times over, the MLP. Attention is the memory-efficient kernel's, which keeps one number a head
    /// and patch; its bias and the shift's mask are one image's, and kept in both kinds.
    pub(super) fn activations(&self, windows: f64, low: f64, full: f64) -> Activations {
        let block = |l: f64, d: f64, heads: f64| {
            windows * l * (2.0 * d * full + 18.0 * d * low + heads * full)
                + l * heads * ATTENTION_WINDOW as f64 * (full + low)
        };
        Activations {
            kept: self
                .stages()
                .map(|(l, d, depth, heads)| depth * block(l, d, heads))
                .sum(),
            inputs: self
                .stages()
                .map(|(l, d, depth, _)| depth * windows * l * d * full)
                .sum(),
            largest: self
                .stages()
                .map(|(l, d, _, heads)| block(l, d, heads))
                .fold(0.0, f64::max),
        }
    }
}

impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(
            f,
            "{} wide, depths {:?}, heads {:?}",
            self.embed_dim, self.depths, self.num_heads
        )
    }
}

/// The fusion of a longer clip's chunks; LAION-CLAP's unfused encoders have none.
pub(super) fn fuses(name: &str) -> bool {
    name.starts_with("patch_embed.mel_conv2d.") || name.starts_with("patch_embed.fusion_model.")
}

pub(super) fn computes(name: &str) -> bool {
    let ends = ["attn_mask", "relative_position_index", "num_batches_tracked"];
    let unused = [
        "spectrogram_extractor.",
        "logmel_extractor.",
        "tscam_conv.",
        "head.",
    ];
    ends.iter().any(|e| name.ends_with(e)) || unused.iter().any(|u| name.starts_with(u))
}

pub(super) fn table_of(name: &str) -> Option<i64> {
    name.ends_with("relative_position_index").then_some(TABLE)
}

/// Intermediate tensors, for golden tests and `af2 trace`.
pub struct Traced {
    /// (B, 4, 256, 256) after normalisation, resize and fold.
    pub image: Tensor,
    /// (B, 4096, embed_dim).
    pub patch_embed: Tensor,
    /// Output of each stage, after its merging.
    pub layers: Vec<Tensor>,
    /// (B, 64, D) after the last LayerNorm, in image order.
    pub norm: Tensor,
    /// (B, 64, D), token = frequency·32 + time.
    pub encodings: Tensor,
}

/// The encoder.
pub struct Htsat {
    bn0: BatchNorm,
    patch_embed: PatchEmbed,
    layers: Vec<Stage>,
    norm: LayerNorm,
    stages: usize,
}

impl Htsat {
    /// Its weights, by the names under `p`.
    pub fn new(p: &Scope, config: &Config) -> Self {
        let stages = config.depths.len();
        // Weights that AF2 never uses; they belong to the checkpoint and to the published parameter count.
        let stft = p / "spectrogram_extractor" / "stft";
        let _ = stft.fixed_weight("conv_real.weight", &[513, 1, 1024], || stft_matrix(false));
        let _ = stft.fixed_weight("conv_imag.weight", &[513, 1, 1024], || stft_matrix(true));
        let _ = (p / "logmel_extractor").fixed_weight("melW", &[513, MEL_BINS], || {
            // The front end of this crate computes the mel; this matrix is never read.
            Tensor::zeros([513, MEL_BINS], (Kind::Float, Device::Cpu))
        });
        let bn0 = BatchNorm::new(p / "bn0", MEL_BINS);
        let patch_embed = PatchEmbed::new(p / "patch_embed", config.embed_dim);
        let blocks: usize = config.depths.iter().sum();
        let mut index = 0;
        let layers = (0..stages)
            .map(|i| {
                let q = p / "layers" / i;
                let dim = config.embed_dim << i;
                let side = SIDE >> i;
                Stage::new(
                    &q,
                    dim,
                    side,
                    config.depths[i],
                    config.num_heads[i],
                    i + 1 < stages,
                    |_| {
                        let rate = 0.1 * index as f64 / (blocks.max(2) - 1) as f64;
                        index += 1;
                        rate
                    },
                )
            })
            .collect();
        let width = config.width();
        let norm = LayerNorm::new(p / "norm", width, 1e-5);
        let (kf, classes) = (SIDE >> (stages - 1), config.class_num);
        let kernel = [kf / FOLDS, 3];
        Conv2d::new(p / "tscam_conv", width, classes, kernel, [1, 1]);
        Linear::new(p / "head", classes, classes, true);
        Htsat {
            bn0,
            patch_embed,
            layers,
            norm,
            stages,
        }
    }

    /// # Shapes
    /// `mel_b4fm` (B, 4, 1001, 64) log-mel in dB: the shrunken whole and three chunks for longer clips,
    /// the same mel four times otherwise; `longer` indexes the clips that go through the fusion.
    /// Returns (B, 64, 8·embed_dim).
    pub fn forward(&self, mel_b4fm: &Tensor, longer: &[i64], mode: Mode) -> Tensor {
        self.run(mel_b4fm, longer, mode, None)
    }

    /// [`Htsat::forward`] for windows of exactly 10 s: `mel_bfm` (B, 1001, 64) without the four-fold copy.
    /// Equal to the reference's four identical channels except in train mode, where BatchNorm's
    /// unbiased running variance counts elements: there the copy is made.
    pub fn forward_windows(&self, mel_bfm: &Tensor, mode: Mode) -> Tensor {
        let channels = if mode.encoder.batch_norm { 4 } else { 1 };
        let mel = mel_bfm.unsqueeze(1).expand([-1, channels, -1, -1], false);
        self.forward(&mel, &[], mode)
    }

    /// [`Htsat::forward`] for the windows of several clips as the reference trains: clip by clip.
    ///
    /// # Shapes
    /// `mel_bwfm` (B, W, 1001, 64), padded windows included → (B·W, 64, 8·embed_dim).
    pub(crate) fn forward_clips(&self, mel_bwfm: &Tensor, mode: Mode) -> Tensor {
        let clips = mel_bwfm.unbind(0);
        let encode = |mel: &Tensor| {
            let windows = mel.size()[0];
            let longer = match mode.encoder.longer {
                Longer::None => Vec::new(),
                Longer::First => vec![0],
                // Drawn on the host: it is an index, and nothing waits for the device.
                Longer::Random => Vec::try_from(Tensor::randint(windows, [1], (Kind::Int64, Device::Cpu)))
                    .unwrap_or_default(),
            };
            let mel = mel.unsqueeze(1).expand([-1, 4, -1, -1], false);
            self.forward(&mel, &longer, mode)
        };
        Tensor::cat(&clips.iter().map(encode).collect::<Vec<_>>(), 0)
    }

    /// [`Htsat::forward`] in evaluation, keeping what is between.
    pub fn trace(&self, mel_b4fm: &Tensor, longer: &[i64]) -> Traced {
        let mut kept = Vec::new();
        let encodings = self.run(mel_b4fm, longer, Mode::EVAL, Some(&mut kept));
        let norm = kept.pop().unwrap_or_default();
        let layers = kept.split_off(2);
        let patch_embed = kept.pop().unwrap_or_default();
        let image = kept.pop().unwrap_or_default();
        Traced {
            image,
            patch_embed,
            layers,
            norm,
            encodings,
        }
    }

    fn run(&self, mel: &Tensor, longer: &[i64], mode: Mode, mut keep: Option<&mut Vec<Tensor>>) -> Tensor {
        let mut note = |t: &Tensor| {
            if let Some(k) = keep.as_deref_mut() {
                k.push(t.shallow_clone());
            }
        };
        let own = mode.encoder;
        let x = self
            .bn0
            .forward(&mel.transpose(1, 3), own.batch_norm)
            .transpose(1, 3);
        let x = if own.spec_augment { spec_augment(&x) } else { x };
        let image = fold(&x);
        note(&image);
        let mut x = self.patch_embed.forward(&image, longer, own.batch_norm);
        note(&x);
        for stage in &self.layers {
            x = stage.forward(&x, own.drop_path, mode.recompute && !own.clip_by_clip);
            note(&x);
        }
        let x = self.norm.forward(&x);
        note(&x);
        // (B, side·side, D) in image order → time pieces undone: (B, 2 frequency, 32 time).
        let side = SIDE >> (self.stages - 1);
        let (b, bins) = (x.size()[0], side / FOLDS);
        x.transpose(1, 2)
            .reshape([b, -1, FOLDS, bins, side])
            .permute([0, 1, 3, 2, 4])
            .flatten(2, 4)
            .transpose(1, 2)
    }
}

/// Resize 1001 → 1024 frames (bicubic) and fold (B, C, 1024, 64) into (B, C, 256, 256).
fn fold(x: &Tensor) -> Tensor {
    let (b, c, _, m) = x.size4().unwrap_or((0, 0, 0, 0));
    let frames = IMAGE * FOLDS;
    let x = x.upsample_bicubic2d([frames, m], true, None, None);
    x.transpose(2, 3)
        .reshape([b, c, m, FOLDS, frames / FOLDS])
        .transpose(2, 3)
        .reshape([b, c, m * FOLDS, frames / FOLDS])
}

/// torchlibrosa's SpecAugmentation(time 64 × 2, frequency 8 × 2): stripes set to 0, drawn per clip.
fn spec_augment(x: &Tensor) -> Tensor {
    let x = x.copy();
    let (b, _, t, f) = x.size4().unwrap_or((0, 0, 0, 0));
    for i in 0..b {
        for (dim, total, width) in [(1i64, t, 64i64), (2, f, 8)] {
            for _ in 0..2 {
                let distance =
                    i64::try_from(Tensor::randint(width, [1], (Kind::Int64, Device::Cpu))).unwrap_or(0);
                let room = (total - distance).max(1);
                let begin =
                    i64::try_from(Tensor::randint(room, [1], (Kind::Int64, Device::Cpu))).unwrap_or(0);
                let _ = x.get(i).narrow(dim, begin, distance).zero_();
            }
        }
    }
    x
}

/// The convolution kernels of torchlibrosa's STFT: a Hann-windowed DFT matrix (513, 1, 1024).
fn stft_matrix(imaginary: bool) -> Tensor {
    let n = 1024usize;
    let mut data = Vec::with_capacity(513 * n);
    for k in 0..513usize {
        for i in 0..n {
            let window = 0.5 - 0.5 * (2.0 * std::f64::consts::PI * i as f64 / n as f64).cos();
            // k·i mod n keeps the angle small, so that float64 stays exact.
            let angle = 2.0 * std::f64::consts::PI * ((k * i) % n) as f64 / n as f64;
            let wave = if imaginary { -angle.sin() } else { angle.cos() };
            data.push((window * wave) as f32);
        }
    }
    Tensor::from_slice(&data).reshape([513, 1, 1024])
}

struct PatchEmbed {
    proj: Conv2d,
    norm: LayerNorm,
    mel_conv2d: Conv2d,
    fusion_model: FeatureFusion,
}

impl PatchEmbed {
    fn new(p: Scope, dim: i64) -> Self {
        PatchEmbed {
            proj: Conv2d::new(&p / "proj", 1, dim, [PATCH, PATCH], [PATCH, PATCH]),
            norm: LayerNorm::new(&p / "norm", dim, 1e-5),
            mel_conv2d: Conv2d::new(&p / "mel_conv2d", 1, dim, [PATCH, 3 * PATCH], [PATCH, 3 * PATCH]),
            fusion_model: FeatureFusion::new(&p / "fusion_model", dim),
        }
    }

    /// (B, C, 256, 256) → (B, 4096, dim).
    fn forward(&self, image: &Tensor, longer: &[i64], train: bool) -> Tensor {
        let mut x = self.proj.forward(&image.narrow(1, 0, 1));
        if !longer.is_empty() {
            let index = onto(Tensor::from_slice(longer), image.device());
            let width = x.size()[3];
            let local = image.index_select(0, &index).narrow(1, 1, 3);
            let (b, c, h, w) = local.size4().unwrap_or((0, 0, 0, 0));
            let local = self.mel_conv2d.forward(&local.reshape([b * c, 1, h, w]));
            let (_, d, h, w) = local.size4().unwrap_or((0, 0, 0, 0));
            // The three chunks stand side by side in time; 3 × 21 columns, padded to 64.
            let local = local
                .reshape([b, c, d, h, w])
                .permute([0, 2, 3, 1, 4])
                .flatten(3, 4);
            let have = local.size()[3];
            let local = if have < width {
                local.constant_pad_nd([0, width - have])
            } else {
                local.narrow(3, 0, width)
            };
            let fused = self
                .fusion_model
                .forward(&x.index_select(0, &index), &local, train);
            // Autocast may leave the two in different kinds.
            x = x.index_copy(0, &index, &fused.to_kind(x.kind()));
        }
        self.norm.forward(&x.flatten(2, 3).transpose(1, 2))
    }
}

// The folding constants are only right together.
const _: () = assert!(IMAGE * FOLDS >= AF_CLAP.frames() as i64);
