//! AF-CLAP: HTSAT and T5 with projections into one space.
//!
//! Reference: the published AF-CLAP model code; paper section 3.1 and reference.md "AF-CLAP text side".

use super::htsat::{self, Htsat, TrainMode};
use super::layers::Linear;
use super::params::{Init, Scope};
use super::t5::{self, T5Encoder};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Text is padded to this many tokens, and the plain mean is taken over all of them, padding included.
pub const TEXT_TOKENS: usize = 77;

/// Sizes of both towers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub audio: htsat::Config,
    pub text: t5::Config,
    /// Width of the joint space (512 in the published model).
    pub joint_dim: i64,
}

/// Both towers and their projections.
pub struct Clap {
    pub audio_branch: Htsat,
    text_branch: T5Encoder,
    audio_projection: [Linear; 2],
    text_projection: [Linear; 2],
    pub logit_scale_a: Tensor,
    pub logit_scale_t: Tensor,
}

impl Clap {
    pub fn new(p: &Scope, config: &Config) -> Self {
        let joint = config.joint_dim;
        let mlp = |name: &str, input: i64| {
            [
                Linear::new(p / name / 0, input, joint, true),
                Linear::new(p / name / 2, joint, joint, true),
            ]
        };
        // The published loss has further heads (`*_transform`) for its MLP variants; AF2 never uses them.
        let scale = |name: &str| p.weight(name, &[], Init::Const((1.0f64 / 0.07).ln()));
        Clap {
            audio_branch: Htsat::new(&(p / "audio_branch"), &config.audio),
            text_branch: T5Encoder::new(&(p / "text_branch"), &config.text),
            audio_projection: mlp("audio_projection", config.audio.output_dim()),
            text_projection: mlp("text_projection", config.text.d_model),
            logit_scale_a: scale("logit_scale_a"),
            logit_scale_t: scale("logit_scale_t"),
        }
    }

    /// # Shapes
    /// `mel_b4fm` and `longer` as in [`Htsat::forward`] → (B, joint), of length 1.
    pub fn embed_audio(&self, mel_b4fm: &Tensor, longer: &[i64], mode: TrainMode) -> Tensor {
        self.project_audio(&self.audio_branch.forward(mel_b4fm, longer, mode))
    }

    /// # Shapes
    /// `mel_bfm` (B, 1001, 64) windows of exactly 10 s → (B, joint), of length 1.
    pub fn embed_windows(&self, mel_bfm: &Tensor, mode: TrainMode) -> Tensor {
        self.project_audio(&self.audio_branch.forward_windows(mel_bfm, mode))
    }

    fn project_audio(&self, encodings: &Tensor) -> Tensor {
        let embedding = encodings.mean_dim(1i64, false, Kind::Float);
        unit(&project(&self.audio_projection, &embedding))
    }

    /// # Shapes
    /// `ids_bt` (B, 77), `real_bt` (B, 77) → (B, joint), of length 1.
    pub fn embed_text(&self, ids_bt: &Tensor, real_bt: &Tensor) -> Tensor {
        unit(&self.project_text(&self.text_branch.forward(ids_bt, real_bt)))
    }

    /// The text tower's last hidden state (B, 77, D).
    pub fn text_states(&self, ids_bt: &Tensor, real_bt: &Tensor) -> Tensor {
        self.text_branch.forward(ids_bt, real_bt)
    }

    /// (B, T, D) → (B, joint), before it is brought to length 1.
    pub fn project_text(&self, states_btd: &Tensor) -> Tensor {
        project(
            &self.text_projection,
            &states_btd.mean_dim(1i64, false, Kind::Float),
        )
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
