//! The answers under controls that lie beside those of a benchmark.

use super::benchmark::{score, Wanted};
use crate::error::{Error, Result};
use crate::eval::control::Control;
use crate::eval::scoring::{listening, Asked, Form};
use crate::run::predictions;
use crate::run::scored::{Listening, Scored};
use std::path::{Path, PathBuf};

/// What they show beside the score; none where there are none.
pub(super) fn beside(wanted: &Wanted, scored: &Scored) -> Result<Option<Listening>> {
    let ours = scored
        .predictions
        .as_ref()
        .is_some_and(|p| p.form == Form::Ours.name());
    let folder = predictions::controls(wanted.predictions.parent().unwrap_or(Path::new("")));
    if !ours || !folder.is_dir() {
        return Ok(None);
    }
    let plain = Asked::of(
        Control::None,
        scored.clone(),
        &predictions::read(wanted.predictions)?,
    )?;
    let mut others = Vec::new();
    for (control, path) in files(&folder)? {
        let scored = score(Wanted {
            predictions: &path,
            overrides: None,
            frame: false,
            model: wanted.model.clone(),
            ..*wanted
        })?;
        others.push(Asked::of(control, scored, &predictions::read(&path)?)?);
    }
    listening(&plain, &others, wanted.bootstrap)
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
