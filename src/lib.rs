//! `af2`: a research training toolkit for Audio Flamingo 2 (arXiv 2503.03983), in Rust on libtorch.
//!
//! The modules, in the order of the data:
//!
//! ```text
//! recipe.yaml ─► Plan ─────────────────────────────────────────────┐
//!                                                                  ▼
//! audio file ─► decode ─► resample ─► windows ─► log-mel ─┐   what trains, for how long
//! manifest  ─► prompt ─► tokens ─► labels ────────────────┤         │
//!                                                         ▼         ▼
//!                          batch ─► HTSAT ─► audio transformer ─► gated cross-attention LM ─► loss ─► step ─► checkpoint
//!                                                                         │
//!                                                                 prefill, decode (caches)
//!                                                                         ▼
//!                                       predictions.jsonl ─► answer rule ─► metric ─► results.json ─► tables, plots
//! ```

pub mod error;
pub mod fsutil;
pub mod panics;
pub mod progress;
pub mod screen;
pub mod shapes;
pub mod yaml;

pub mod audio;
pub mod text;

pub mod data;
pub mod dist;

pub mod checkpoint;
pub mod cores;
pub mod device;
pub mod ffi;
pub mod model;
pub mod optim;

pub mod curriculum;
pub mod load;
mod lock;
pub mod plan;
pub mod preflight;
pub mod recipe;
pub mod recipe_file;
pub mod reference;
pub mod run;
pub mod settings;
pub mod synth;
pub mod trace;
pub mod train;

pub mod doctor;

pub mod eval;
pub mod generate;
pub mod metrics;
pub mod report;

pub mod gpu_check;

pub mod cli;

pub use error::{Error, Result};
