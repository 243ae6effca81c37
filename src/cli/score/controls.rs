//! The answers under controls that lie beside those of a benchmark.

use crate::error::{Error, Result};
use crate::eval::control::Control;
use crate::eval::scoring::{listening, Asked, Form};
use crate::run::predictions;
use crate::run::scored::{Listening, Scored};
use std::path::{Path, PathBuf};

/// What the answers beside a file of answers show of its score, each scored by `score`; none where there are none.
pub(super) fn beside(
    path: &Path,
    scored: &Scored,
    score: impl Fn(&Path) -> Result<Scored>,
) -> Result<Option<Listening>> {
    let ours = scored.predictions.as_ref();
    let ours = ours.is_some_and(|p| p.form == Form::Ours.name());
    let folder = predictions::controls(path.parent().unwrap_or(Path::new("")));
    if !ours || !folder.is_dir() {
        return Ok(None);
    }
    let plain = Asked::of(Control::None, scored.clone(), &predictions::read(path)?)?;
    let mut others = Vec::new();
    for (control, path) in files(&folder)? {
        others.push(Asked::of(control, score(&path)?, &predictions::read(&path)?)?);
    }
    listening(&plain, &others, scored.bootstrap)
}

/// Files that are called as controls are, in the controls' order.
fn files(folder: &Path) -> Result<Vec<(Control, PathBuf)>> {
    let failed = |e| Error::io(folder, e);
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path
            .file_stem()
            .and_then(|n| n.to_str())
            .unwrap_or_default()
            .replacen('-', ":", 1);
        let lines = path.extension().is_some_and(|e| e == "jsonl");
        if let Some(control) = Control::named(&name).filter(|_| lines) {
            all.push((control, path));
        }
    }
    all.sort();
    Ok(all)
}
