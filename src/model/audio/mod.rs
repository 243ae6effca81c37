//! The audio encoders, a file for each, behind one [`Encoder`].
//!
//! ```text
//! mels of windows (N, F, M) ──► htsat.rs (swin.rs, fusion.rs) ──► features (N, tokens, width)
//! ```
//!
//! An encoder's file says its sizes, what of them cannot be, how they are read off a checkpoint's tensors, what sound it takes,
//! what it costs, and the pass itself. A further one is that file and its lines here.

mod activations;
mod fusion;
pub mod htsat;
mod swin;

pub(crate) use activations::Activations;

use super::bounds::{Sizes, Wrong};
use super::mode::Mode;
use super::params::{Scope, Shapes};
use crate::error::Result;
use crate::shapes::FrontEnd;
use htsat::Htsat;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::Path;
use tch::Tensor;

/// An audio encoder's sizes, by its architecture.
///
/// Files hold HTSAT's sizes without its name.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    /// HTSAT with feature fusion.
    Htsat(htsat::Config),
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Config::Htsat(c) => c.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        htsat::Config::deserialize(d).map(Config::Htsat)
    }
}

impl std::fmt::Display for Config {
    /// The sizes in words.
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Config::Htsat(c) => c.fmt(f),
        }
    }
}

impl Config {
    /// AF-CLAP's encoder, as published.
    pub(crate) fn published() -> Self {
        Config::Htsat(htsat::Config::large())
    }

    /// The sizes of the encoder whose tensors stand under `prefix` (such as `clap.nvclap`).
    ///
    /// # Errors
    /// Tensors that are missing or make no encoder; `path` is named.
    pub fn read(shapes: Shapes, prefix: &str, path: &Path) -> Result<Self> {
        htsat::Config::read(shapes, prefix, path).map(Config::Htsat)
    }

    /// The sound that it takes.
    pub(crate) fn front_end(&self) -> &'static FrontEnd {
        match self {
            Config::Htsat(c) => c.front_end(),
        }
    }

    /// Tokens that it gives for each window.
    pub(crate) fn tokens_per_window(&self) -> i64 {
        match self {
            Config::Htsat(c) => c.tokens_per_window(),
        }
    }

    /// Width of a token.
    pub(crate) fn width(&self) -> i64 {
        match self {
            Config::Htsat(c) => c.width(),
        }
    }

    /// Weights of its blocks, nearly all that it has.
    pub(crate) fn block_weights(&self) -> f64 {
        match self {
            Config::Htsat(c) => c.block_weights(),
        }
    }

    /// Sizes that cannot be, under a place such as `clap.audio`.
    pub(crate) fn check(&self, place: &'static str) -> Vec<Wrong> {
        let mut sizes = Sizes::of(place);
        match self {
            Config::Htsat(c) => c.check(&mut sizes),
        }
        sizes.wrong
    }

    /// Sizes that can be, but not together.
    pub(crate) fn check_together(&self, place: &'static str) -> Vec<Wrong> {
        let mut sizes = Sizes::of(place);
        match self {
            Config::Htsat(c) => c.check_together(&mut sizes),
        }
        sizes.wrong
    }

    /// Whether a tensor of its own, by its name under the encoder's prefix, is of the fusion of longer sounds.
    pub(crate) fn fuses(&self, name: &str) -> bool {
        match self {
            Config::Htsat(_) => htsat::fuses(name),
        }
    }

    /// Whether a tensor is computed where a file lacks it, or never read.
    pub(crate) fn computes(&self, name: &str) -> bool {
        match self {
            Config::Htsat(_) => htsat::computes(name),
        }
    }

    /// Rows of the table in which a tensor's values are places, where they are.
    pub(crate) fn table_of(&self, name: &str) -> Option<i64> {
        match self {
            Config::Htsat(_) => htsat::table_of(name),
        }
    }

    /// Floating-point operations of one window's forward pass.
    pub(crate) fn operations(&self) -> f64 {
        match self {
            Config::Htsat(c) => c.operations(),
        }
    }

    /// What a forward pass over so many windows makes: `low` bytes an element of a matrix product, `full` of a norm or a sum.
    pub(crate) fn activations(&self, windows: f64, low: f64, full: f64) -> Activations {
        match self {
            Config::Htsat(c) => c.activations(windows, low, full),
        }
    }
}

/// An audio encoder.
pub enum Encoder {
    /// HTSAT with feature fusion.
    Htsat(Htsat),
}

impl Encoder {
    pub(crate) fn new(p: &Scope, config: &Config) -> Self {
        match config {
            Config::Htsat(c) => Encoder::Htsat(Htsat::new(p, c)),
        }
    }

    /// # Shapes
    /// `mel_nfm` (N, F, M), log-mel in dB of windows → (N, tokens, width)
    pub fn encode(&self, mel_nfm: &Tensor, mode: Mode) -> Tensor {
        match self {
            Encoder::Htsat(e) => e.forward_windows(mel_nfm, mode),
        }
    }

    /// [`Encoder::encode`] clip by clip, as the reference trains.
    ///
    /// # Shapes
    /// `mel_bwfm` (B, W, F, M), padded windows included → (B·W, tokens, width)
    pub(crate) fn encode_clips(&self, mel_bwfm: &Tensor, mode: Mode) -> Tensor {
        match self {
            Encoder::Htsat(e) => e.forward_clips(mel_bwfm, mode),
        }
    }

    /// Whole sounds of any length, as AF-CLAP alone takes them; see [`Htsat::forward`].
    ///
    /// # Shapes
    /// `mel_b4fm` (B, 4, F, M) → (B, tokens, width)
    pub(crate) fn encode_whole(&self, mel_b4fm: &Tensor, longer: &[i64], mode: Mode) -> Tensor {
        match self {
            Encoder::Htsat(e) => e.forward(mel_b4fm, longer, mode),
        }
    }
}
