//! `af2`: a research training toolkit for Audio Flamingo 2 (arXiv 2503.03983), in Rust on libtorch.
//!
//! Open a checkpoint, hear a file, ask, print:
//!
//! ```
//! use af2::prelude::*;
//!
//! # fn main() -> Result<()> {
//! # // A tiny model in the layout of the released one, and a file of the tests.
//! # let (golden, here) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"), tempfile::tempdir().unwrap());
//! # let link = |from: &str, to: &str| std::os::unix::fs::symlink(format!("{golden}/{from}"), here.path().join(to)).unwrap();
//! # link("F_tiny", "audio-flamingo-2");
//! # link("wavs/speech_16k_mono_3p7s.wav", "speech.wav");
//! # std::env::set_current_dir(here.path()).unwrap();
//! let model = open("audio-flamingo-2".as_ref(), &OpenOptions::new(Device::Cpu))?;
//! let clip = Clip::new("speech.wav".into(), Seconds(0.0), model.max_windows);
//! let heard = hear(&model, &Ears::new(0), &clip)?;
//!
//! let (question, greedy) = ("What is the emotion of the speaker?", &mut Sampler::greedy());
//! let answer = ask(&model, &heard, question, &AskOptions::new(&model), greedy)?;
//! println!("{}", answer.text);
//! # assert_eq!(answer.text, "the speaker is angry.");
//! # Ok(())
//! # }
//! ```
//!
//! The folder is one in the released layout (`safe_ckpt/`, `clap_ckpt/`, `llm/`), the sound any wav, flac, mp3 or ogg; on a GPU
//! the device is `Device::Cuda(0)`. [`prelude`] has these names. More examples stand where the thing is: what is in a model
//! that was opened ([`load::Loaded`]), batches of training data ([`data::loader`]), a score with its interval ([`metrics`]).
//! The manual is `docs/` beside the source; `af2 --help` is the command line over this library.
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
mod fsutil;
mod npy;
pub mod panics;
mod proc;
mod progress;
pub mod screen;
pub mod shapes;
pub mod yaml;

pub mod benchmark;
pub mod llm;

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

mod doctor;

pub mod eval;
pub mod generate;
pub mod metrics;
pub mod report;

mod gpu_check;

pub mod serve;

pub mod cli;

pub mod prelude;

pub use error::{Error, Result};
