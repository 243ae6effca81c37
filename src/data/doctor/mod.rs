//! The data doctor: what is wrong with manifests and their audio, before a run finds out.
//!
//! Headers are read in parallel; a sound file is decoded nowhere, but its bytes are hashed where duplicates and leaks
//! are asked for. Items are read some at a time, and what is kept of each is a hash or a number: some hundred bytes for an
//! item and its file, however long its texts are.

mod found;
mod items;
mod sounds;

pub use found::{Checks, Diagnosis, Fault, Finding, Summary};

use super::manifest::Manifest;
use crate::error::{Error, Result};
use crate::text::in_texts::Names;
use sounds::Sounds;
use std::path::PathBuf;

/// Looks at manifests and all the audio that they name.
///
/// # Errors
/// A tokenizer that fails. What is wrong with the data is in the diagnosis.
pub fn examine(manifests: &[PathBuf], checks: &Checks) -> Result<Diagnosis> {
    let mut all = Diagnosis::default();
    let names = Names::of(checks.tokenizer.map(|(t, _)| t));
    let (mut opened, mut sounds) = (Vec::new(), Sounds::default());
    for path in manifests {
        match Manifest::open(path) {
            Ok(manifest) => {
                let number = opened.len() as u32;
                let summary = items::look(&manifest, number, checks, &names, &mut sounds, &mut all)?;
                all.manifests.push(summary);
                opened.push(manifest);
            }
            Err(e) => {
                let errors = match e {
                    Error::Many(errors) => errors,
                    e => vec![e],
                };
                for e in errors {
                    all.add(Fault::Manifest, path, String::new, || e.to_string());
                }
            }
        }
    }
    sounds.twice(&opened, checks, &mut all);
    // Shorter numbers are smaller ones.
    let place = |f: &Finding| (f.fault, f.manifest.clone(), f.item.len(), f.item.clone());
    all.findings.sort_by_cached_key(place);
    Ok(all)
}
