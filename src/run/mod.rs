//! What a run's folder holds: one file a format, with its name, its form and its version. What writes and reads them lives
//! where it is used.
//!
//! ```text
//! plan.yaml                  the recipe with every default and override in it: a recipe, and read as one
//! environment.json           where it ran
//! corpus/  llm/  clap/       what the run has made itself, where it has
//! events/PART/               events.jsonl and TensorBoard's file, of a stage, of lm or of clap
//! events/benchmarks/         benchmarks.jsonl and TensorBoard's file: what checkpoints score, of `af2 eval --watch`
//! checkpoints/STAGE/         checkpoint_N.pt, begun.json, the stage's model, done.json
//! skipped.jsonl              items that could not be used
//! nonfinite.jsonl            steps that moved nothing
//! verify-resume/             what `af2 train --verify-resume` compares
//! predictions.partial/       the answers of an evaluation that is not done
//! predictions.jsonl  results.json  table.md  curves*.svg
//! NAME/                      of a benchmark that was asked: predictions.jsonl, controls/WAY.jsonl, captions.jsonl, asked.json,
//!                            results.json
//! judgements.jsonl           a judge's marks
//! run.lock                   who has the folder, while a run has it
//! ```
//!
//! Each format of ours says its version. A file that says none is from before they did, and of version 1; a version that is
//! newer than this program knows is refused.

pub(crate) mod asked;
pub(crate) mod begun;
pub mod benchmarks;
pub(crate) mod captions;
pub(crate) mod done;
pub(crate) mod environment;
pub mod events;
pub(crate) mod journal;
pub mod judgements;
pub(crate) mod lock;
pub(crate) mod nonfinite;
pub mod predictions;
pub mod results;
pub mod scored;
pub(crate) mod skipped;
mod version;

use std::path::{Path, PathBuf};

/// The recipe with all its defaults.
pub(crate) fn plan(run: &Path) -> PathBuf {
    run.join("plan.yaml")
}

/// A corpus that the run synthesises.
pub(crate) fn corpus(run: &Path) -> PathBuf {
    run.join("corpus")
}

/// A tokenizer and an LM that the run trains.
pub(crate) fn llm(run: &Path) -> PathBuf {
    run.join("llm")
}

/// AF-CLAP that the run trains.
pub(crate) fn clap(run: &Path) -> PathBuf {
    run.join("clap").join("clap.safetensors")
}

/// The stages' folders.
pub(crate) fn checkpoints(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// Where `--verify-resume` writes.
pub(crate) fn verify_resume(run: &Path) -> PathBuf {
    run.join("verify-resume")
}

/// The table of its results, as Markdown.
pub(crate) fn table(run: &Path) -> PathBuf {
    run.join("table.md")
}

/// A drawing of learning curves: `suffix` says of what.
pub(crate) fn curves(run: &Path, suffix: &str) -> PathBuf {
    run.join(format!("curves{suffix}.svg"))
}
