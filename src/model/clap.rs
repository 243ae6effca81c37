//! AF-CLAP: an audio encoder and T5 with projections into one space.
//!
//! Reference: the published AF-CLAP model code; paper section 3.1 and reference.md "AF-CLAP text side".

use super::audio::{self, Encoder};
use super::bounds::{Sizes, Wrong, WIDTH};
use super::layers::Linear;
use super::mode::Mode;
use super::params::{Init, Scope, Shapes};
use super::text::t5::{self, T5Encoder};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// Text is padded to this many tokens, and the plain mean is taken over all of them, padding included.
pub(crate) const TEXT_TOKENS: usize = 77;

/// Sizes of both towers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The audio tower.
    pub audio: audio::Config,
    /// The text tower.
    pub text: t5::Config,
    /// Width of the joint space (512 in the published model).
    pub joint_dim: i64,
}

impl Config {
    /// Sizes that cannot be, of either tower.
    pub(crate) fn check(&self) -> Vec<Wrong> {
        let mut sizes = Sizes::of("clap");
        sizes.within("joint_dim", self.joint_dim, WIDTH);
        let mut text = Sizes::of("clap.text");
        self.text.check(&mut text);
        [sizes.wrong, self.audio.check("clap.audio"), text.wrong].concat()
    }
}

/// Sizes of the text side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TextConfig {
    /// The text tower.
    pub text: t5::Config,
    /// Width of the joint space.
    pub joint_dim: i64,
}

impl TextConfig {
    /// Sizes by the shapes of an AF-CLAP file's tensors.
    ///
    /// # Errors
    /// No text side; sizes that cannot be.
    pub(crate) fn read(shapes: Shapes, path: &Path) -> Result<Self> {
        let text = t5::Config::read(shapes, TEXT_BRANCH, path)?;
        let joint_dim = joint_dim(shapes, TEXT_PROJECTION, path)?;
        let mut tower = Sizes::of("clap.text");
        text.check(&mut tower);
        let wrong = tower.wrong.into_iter();
        crate::error::all(
            wrong
                .map(|w| Error::checkpoint(path, w.key, w.expected, w.found))
                .collect(),
        )?;
        Ok(TextConfig { text, joint_dim })
    }
}

/// Where the text tower stands.
pub(crate) const TEXT_BRANCH: &str = "text_branch";
const TEXT_PROJECTION: &str = "text_projection";

/// The text tower and its projection: all that a text needs.
pub(crate) struct TextSide {
    branch: T5Encoder,
    projection: [Linear; 2],
}

impl TextSide {
    /// Its weights, by the names under `p`.
    pub(crate) fn new(p: &Scope, config: &TextConfig) -> Self {
        TextSide {
            branch: T5Encoder::new(&(p / TEXT_BRANCH), &config.text),
            projection: mlp(p, TEXT_PROJECTION, config.text.d_model, config.joint_dim),
        }
    }

    /// # Shapes
    /// `ids_bt` (B, 77), `real_bt` (B, 77) → (B, joint), of length 1.
    pub(crate) fn embed(&self, ids_bt: &Tensor, real_bt: &Tensor, mode: Mode) -> Tensor {
        unit(&self.project(&self.branch.forward(ids_bt, real_bt, mode)))
    }

    fn project(&self, states_btd: &Tensor) -> Tensor {
        project(&self.projection, &states_btd.mean_dim(1i64, false, Kind::Float))
    }
}

/// Where the audio encoder stands.
pub(crate) const AUDIO_BRANCH: &str = "audio_branch";
const AUDIO_PROJECTION: &str = "audio_projection";

/// The audio encoder and its projection: all that a sound needs.
pub(crate) struct AudioSide {
    branch: Encoder,
    projection: [Linear; 2],
}

impl AudioSide {
    /// Its weights, by the names under `p`.
    pub(crate) fn new(p: &Scope, config: &audio::Config, joint_dim: i64) -> Self {
        AudioSide {
            branch: Encoder::new(&(p / AUDIO_BRANCH), config),
            projection: mlp(p, AUDIO_PROJECTION, config.width(), joint_dim),
        }
    }

    /// Width of the joint space, by the shapes of an AF-CLAP file's tensors.
    ///
    /// # Errors
    /// No projection; one of a width that cannot be.
    pub(crate) fn joint_dim(shapes: Shapes, path: &Path) -> Result<i64> {
        joint_dim(shapes, AUDIO_PROJECTION, path)
    }

    /// # Shapes
    /// `mel_bfm` (B, F, M), a window of each → (B, joint), of length 1.
    pub(crate) fn embed_windows(&self, mel_bfm: &Tensor, mode: Mode) -> Tensor {
        self.project(&self.branch.encode(mel_bfm, mode))
    }

    fn project(&self, encodings: &Tensor) -> Tensor {
        let embedding = encodings.mean_dim(1i64, false, Kind::Float);
        unit(&project(&self.projection, &embedding))
    }
}

/// Rows of a projection's last matrix.
fn joint_dim(shapes: Shapes, projection: &str, path: &Path) -> Result<i64> {
    let last = format!("{projection}.2.weight");
    match shapes(&last).as_deref() {
        Some([joint, _]) if WIDTH.contains(joint) => Ok(*joint),
        found => {
            let found = found.map_or("no such tensor".to_owned(), |s| format!("shape {s:?}"));
            Err(Error::checkpoint(path, last, "a matrix", found))
        }
    }
}

fn mlp(p: &Scope, name: &str, input: i64, joint: i64) -> [Linear; 2] {
    [
        Linear::new(p / name / 0, input, joint, true),
        Linear::new(p / name / 2, joint, joint, true),
    ]
}

/// Both towers and their projections.
pub struct Clap {
    audio: AudioSide,
    text: TextSide,
    /// Logarithm of the factor by which similarities are scaled: a scalar.
    pub logit_scale_a: Tensor,
}

impl Clap {
    /// Its weights, by the names under `p`.
    pub fn new(p: &Scope, config: &Config) -> Self {
        let joint = config.joint_dim;
        // The published loss has further heads (`*_transform`) for its MLP variants; AF2 never uses them.
        let scale = |name: &str| p.weight(name, &[], Init::Const((1.0f64 / 0.07).ln()));
        // In this order the optimizer numbers them.
        let encoder = Encoder::new(&(p / AUDIO_BRANCH), &config.audio);
        let branch = T5Encoder::new(&(p / TEXT_BRANCH), &config.text);
        let of_audio = mlp(p, AUDIO_PROJECTION, config.audio.width(), joint);
        let projection = mlp(p, TEXT_PROJECTION, config.text.d_model, joint);
        let clap = Clap {
            audio: AudioSide {
                branch: encoder,
                projection: of_audio,
            },
            text: TextSide { branch, projection },
            logit_scale_a: scale("logit_scale_a"),
        };
        // In every checkpoint; a loss without those heads has one scale.
        let _ = scale("logit_scale_t");
        clap
    }

    /// # Shapes
    /// `mel_b4fm` and `longer` as in `Encoder::encode_whole` → (B, joint), of length 1.
    pub fn embed_audio(&self, mel_b4fm: &Tensor, longer: &[i64], mode: Mode) -> Tensor {
        self.audio
            .project(&self.audio.branch.encode_whole(mel_b4fm, longer, mode))
    }

    /// # Shapes
    /// `mel_bfm` (B, F, M), a window of each → (B, joint), of length 1.
    pub(crate) fn embed_windows(&self, mel_bfm: &Tensor, mode: Mode) -> Tensor {
        self.audio.embed_windows(mel_bfm, mode)
    }

    /// # Shapes
    /// `ids_bt` (B, 77), `real_bt` (B, 77) → (B, joint), of length 1.
    pub fn embed_text(&self, ids_bt: &Tensor, real_bt: &Tensor, mode: Mode) -> Tensor {
        self.text.embed(ids_bt, real_bt, mode)
    }

    /// The text tower's last hidden state (B, 77, D).
    pub fn text_states(&self, ids_bt: &Tensor, real_bt: &Tensor) -> Tensor {
        self.text.branch.forward(ids_bt, real_bt, Mode::EVAL)
    }

    /// (B, T, D) → (B, joint), before it is brought to length 1.
    pub fn project_text(&self, states_btd: &Tensor) -> Tensor {
        self.text.project(states_btd)
    }
}

fn project(layers: &[Linear; 2], x: &Tensor) -> Tensor {
    layers[1].forward(&layers[0].forward(x).relu())
}

/// x / max(‖x‖₂, 1e-12), as `torch.nn.functional.normalize`.
fn unit(x: &Tensor) -> Tensor {
    let norm = x.norm_scalaropt_dim(2, [-1i64].as_slice(), true);
    x / norm.clamp_min(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sizes_are_within_the_bounds_and_both_towers_are_looked_at() {
        let mut config = Config {
            audio: audio::Config::published(),
            // Those of Flan-T5 large.
            text: t5::Config {
                vocab_size: 32128,
                d_model: 1024,
                d_kv: 64,
                d_ff: 2816,
                num_layers: 24,
                num_heads: 16,
                relative_attention_num_buckets: 32,
                relative_attention_max_distance: 128,
            },
            joint_dim: 512,
        };
        assert_eq!(config.check(), []);
        config.joint_dim = 0;
        config.text.d_kv = -1;
        let keys: Vec<String> = config.check().into_iter().map(|w| w.key).collect();
        assert_eq!(keys, ["clap.joint_dim", "clap.text.d_kv"]);
    }
}
