//! Results of benchmarks in the forms that other tools read: files of plain values, no tensor.
//!
//! ```text
//! exported.rs: results.json and its predictions ─► eee.rs, hf.rs, inspect.rs, lm_eval.rs: files to be ─► written, or none of them
//! ```
//!
//! A number goes out as it stands in `results.json`, with the same bits. What a format has no field for goes into the field that
//! it keeps for such things, and what it cannot hold at all is told in a note.

mod eee;
mod exported;
mod file;
mod hf;
mod inspect;
mod lm_eval;
mod time;
mod yaml;

pub(crate) use eee::Relationship;
pub(crate) use exported::{Exported, NoTexts, Text};
pub(crate) use hf::Hub;
pub(crate) use time::Moment;

use crate::error::{Error, Result};
use crate::fsutil::write_atomic;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Whose form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Every Eval Ever 0.3: aggregate JSON and samples as JSON lines, below data/ as in its datastore.
    Eee,
    /// Hugging Face: a model card with a model-index, and .eval_results/*.yaml.
    Hf,
    /// inspect: one log a result, as .eval or .json.
    Inspect,
    /// lm-evaluation-harness: results_*.json and samples_*.jsonl.
    LmEval,
}

/// What single formats need to know beside the results.
#[derive(Default)]
pub(crate) struct Options {
    /// Every Eval Ever: the organization that provides the data.
    pub organization: Option<String>,
    /// Every Eval Ever: who has evaluated, beside who has made the model.
    pub relationship: Relationship,
    /// Hugging Face: the benchmark on the Hub.
    pub hub: Option<Hub>,
    /// Replace files that are there.
    pub force: bool,
}

/// What was written.
pub(crate) struct Written {
    /// In this order.
    pub files: Vec<PathBuf>,
    /// What a reader of them must know.
    pub notes: Vec<String>,
}

/// Writes results in one form to `out`, each file whole or not at all, and none where one of them is there already.
///
/// # Errors
/// What the form cannot hold, a file that is there, what the disk says.
pub(crate) fn write(format: Format, all: &[Exported], out: &Path, options: &Options) -> Result<Written> {
    let mut notes = Vec::new();
    let files = match format {
        Format::Eee => eee::files(all, out, options.organization.as_deref(), options.relationship)?,
        Format::Hf => hf::files(all, out, options.hub.as_ref(), &mut notes)?,
        Format::Inspect => inspect::files(all, out)?,
        Format::LmEval => lm_eval::files(all, out)?,
    };
    let mut seen = HashSet::new();
    for file in &files {
        if !seen.insert(&file.path) {
            let e = Error::usage(format!("two results make the same file, {}", file.path.display()));
            return Err(e.hint("export them to two places"));
        }
        if !options.force && file.path.symlink_metadata().is_ok() {
            let there = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it is there already");
            return Err(Error::io(&file.path, there).hint("--force replaces it, or give another --out"));
        }
    }
    let paths = files.iter().map(|f| f.path.clone()).collect();
    for file in files {
        let path = file.path;
        write_atomic(&path, |w| (file.fill)(w).map_err(|e| Error::io(&path, e)))?;
    }
    Ok(Written { files: paths, notes })
}
