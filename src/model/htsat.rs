//! HTSAT, the audio encoder of AF-CLAP: a Swin transformer over a folded log-mel spectrogram.
//!
//! Reference: `htsat.py` of the published code ("HTSAT-large", `afclap` variant); paper section 3.1.

use super::fusion::FeatureFusion;
use super::layers::{onto, BatchNorm, Conv2d, LayerNorm, Linear};
use super::params::Scope;
use super::swin::Stage;
use crate::shapes::{MEL_BINS, WINDOW_FRAMES};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Side of the square image that the mel is folded into.
const IMAGE: i64 = 256;
/// Patches are 4 × 4 without overlap.
const PATCH: i64 = 4;
/// Pieces of time stacked along frequency: 256 / 64.
const FOLDS: i64 = IMAGE / MEL_BINS as i64;

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
    pub fn large() -> Self {
        Config {
            embed_dim: 256,
            depths: vec![2, 2, 12, 2],
            num_heads: vec![4, 8, 16, 32],
            class_num: 527,
        }
    }

    /// Width of the 64 output tokens: 8 × embed_dim for four stages.
    pub fn output_dim(&self) -> i64 {
        let doubled = 1i64.checked_shl(self.depths.len().saturating_sub(1) as u32);
        self.embed_dim.saturating_mul(doubled.unwrap_or(i64::MAX))
    }
}

/// What `forward` does beyond evaluation; none of it by default. In a recipe what is left out is as the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default = "TrainMode::reference")]
pub struct TrainMode {
    /// Batch statistics in the batch norms, and their running averages move.
    pub batch_norm: bool,
    /// One clip at a time, its padded windows included, as the reference runs: statistics are the clip's.
    pub clip_by_clip: bool,
    /// With `clip_by_clip`: a window of each clip that goes through the fusion of longer sounds, though none is longer.
    pub longer: Longer,
    /// SpecAugment on the mel: up to 2 stripes of 64 frames and 2 of 8 bins set to zero.
    pub spec_augment: bool,
    /// Stochastic depth, 0 to 0.1 over the blocks.
    pub drop_path: bool,
    /// Blocks are computed again in the backward pass (activation checkpointing). Not with `clip_by_clip`, which goes
    /// through each block several times: its weights would be reduced over the ranks after the first.
    #[serde(skip)]
    pub again: bool,
}

impl TrainMode {
    /// Everything that the reference's `model.train()` turns on.
    pub fn reference() -> Self {
        TrainMode {
            batch_norm: true,
            clip_by_clip: true,
            longer: Longer::Random,
            spec_augment: true,
            drop_path: true,
            again: false,
        }
    }
}

/// Which of a clip's windows is taken for a longer sound. Reference: where no clip of a training batch is longer than
/// 10 s, one is declared so at random, so that the fusion's weights get a gradient; AF2 calls the encoder clip by clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Longer {
    #[default]
    None,
    First,
    Random,
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
    pub fn new(p: &Scope, config: &Config) -> Self {
        let stages = config.depths.len();
        // Weights that AF2 never uses; they belong to the checkpoint and to the published parameter count.
        let stft = p / "spectrogram_extractor" / "stft";
        let _ = stft.fixed_weight("conv_real.weight", &[513, 1, 1024], || stft_matrix(false));
        let _ = stft.fixed_weight("conv_imag.weight", &[513, 1, 1024], || stft_matrix(true));
        let _ = (p / "logmel_extractor").fixed_weight("melW", &[513, MEL_BINS as i64], || {
            // The front end of this crate computes the mel; this matrix is never read.
            Tensor::zeros([513, MEL_BINS as i64], (Kind::Float, Device::Cpu))
        });
        let bn0 = BatchNorm::new(p / "bn0", MEL_BINS as i64);
        let patch_embed = PatchEmbed::new(p / "patch_embed", config.embed_dim);
        let blocks: usize = config.depths.iter().sum();
        let mut index = 0;
        let layers = (0..stages)
            .map(|i| {
                let q = p / "layers" / i;
                let dim = config.embed_dim << i;
                let side = (IMAGE / PATCH) >> i;
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
        let width = config.output_dim();
        let norm = LayerNorm::new(p / "norm", width, 1e-5);
        let (kf, classes) = ((IMAGE / PATCH) >> (stages - 1), config.class_num);
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
    pub fn forward(&self, mel_b4fm: &Tensor, longer: &[i64], mode: TrainMode) -> Tensor {
        self.run(mel_b4fm, longer, mode, None)
    }

    /// [`Htsat::forward`] for windows of exactly 10 s: `mel_bfm` (B, 1001, 64) without the four-fold copy.
    /// Equal to the reference's four identical channels except in train mode, where BatchNorm's
    /// unbiased running variance counts elements: there the copy is made.
    pub fn forward_windows(&self, mel_bfm: &Tensor, mode: TrainMode) -> Tensor {
        let channels = if mode.batch_norm { 4 } else { 1 };
        let mel = mel_bfm.unsqueeze(1).expand([-1, channels, -1, -1], false);
        self.forward(&mel, &[], mode)
    }

    /// [`Htsat::forward`] for the windows of several clips as the reference trains: clip by clip.
    ///
    /// # Shapes
    /// `mel_bwfm` (B, W, 1001, 64), padded windows included → (B·W, 64, 8·embed_dim).
    pub fn forward_clips(&self, mel_bwfm: &Tensor, mode: TrainMode) -> Tensor {
        let clips = mel_bwfm.unbind(0);
        let encode = |mel: &Tensor| {
            let windows = mel.size()[0];
            let longer = match mode.longer {
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
        let encodings = self.run(mel_b4fm, longer, TrainMode::default(), Some(&mut kept));
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

    fn run(
        &self,
        mel: &Tensor,
        longer: &[i64],
        mode: TrainMode,
        mut keep: Option<&mut Vec<Tensor>>,
    ) -> Tensor {
        let mut note = |t: &Tensor| {
            if let Some(k) = keep.as_deref_mut() {
                k.push(t.shallow_clone());
            }
        };
        let x = self
            .bn0
            .forward(&mel.transpose(1, 3), mode.batch_norm)
            .transpose(1, 3);
        let x = if mode.spec_augment { spec_augment(&x) } else { x };
        let image = fold(&x);
        note(&image);
        let mut x = self.patch_embed.forward(&image, longer, mode.batch_norm);
        note(&x);
        for stage in &self.layers {
            x = stage.forward(&x, mode.drop_path, mode.again && !mode.clip_by_clip);
            note(&x);
        }
        let x = self.norm.forward(&x);
        note(&x);
        // (B, side·side, D) in image order → time pieces undone: (B, 2 frequency, 32 time).
        let side = (IMAGE / PATCH) >> (self.stages - 1);
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
const _: () = assert!(IMAGE * FOLDS >= WINDOW_FRAMES as i64);
