//! Which official files are meant, and whether they are those that the card knows.

use super::rows::Source;
use crate::benchmark::names::Format;
use crate::benchmark::{Card, OfficialFile};
use crate::error::{Error, Result};
use serde_json::{json, Value};
use std::path::{Path, PathBuf};

/// What was named.
pub(super) enum Named {
    Files(Vec<PathBuf>),
    /// The sounds themselves say their labels.
    Folder(PathBuf),
}

/// The files of what was named on the command line; in a folder those that the card names.
///
/// # Errors
/// A folder that has none of them, or several where one is taken.
pub(super) fn of(card: &Card, from: &[PathBuf], scored: bool) -> Result<Named> {
    let mut files = Vec::new();
    for path in from {
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if !meta.is_dir() {
            files.push(path.clone());
            continue;
        }
        let found = match scored {
            true => within(card, path)?,
            false => Vec::new(),
        };
        match found.as_slice() {
            [] if card.official_format == Format::LabelCsv && from.len() == 1 && card.files.is_empty() => {
                return Ok(Named::Folder(path.clone()));
            }
            [] => {
                let names: Vec<&str> = card.files.iter().map(|f| f.name.as_str()).collect();
                let expected = match (names.is_empty(), scored) {
                    (true, _) => "the official file itself: the card names none".to_owned(),
                    (_, false) => format!(
                        "the official file itself: the card's are of the split {}",
                        card.scored
                    ),
                    _ => format!("{} in this folder", names.join(", ")),
                };
                return Err(Error::data(path, "--from", expected, "a folder").hint(&card.obtain));
            }
            [_, _, ..] if card.official_format == Format::Af2Manifest => {
                let names: Vec<String> = found.iter().map(|f| f.display().to_string()).collect();
                return Err(
                    Error::data(path, "--from", "one manifest", names.join(", ")).hint("name one of them")
                );
            }
            _ => files.extend(found),
        }
    }
    files.dedup();
    Ok(Named::Files(files))
}

/// The card's files in a folder, below it as the card says or directly in it.
fn within(card: &Card, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for file in &card.files {
        let below = Path::new(&file.name);
        let mut places = vec![folder.to_owned()];
        if let Some(parent) = below.parent().filter(|p| !p.as_os_str().is_empty()) {
            places.insert(0, folder.join(parent));
        }
        let name = file_name(file);
        for place in places {
            let mut found = match name.contains('*') {
                true => matching(&place, name)?,
                false => Some(place.join(name))
                    .filter(|p| p.is_file())
                    .into_iter()
                    .collect(),
            };
            if !found.is_empty() {
                all.append(&mut found);
                break;
            }
        }
    }
    Ok(all)
}

fn file_name(file: &OfficialFile) -> &str {
    file.name.rsplit('/').next().unwrap_or(&file.name)
}

fn matching(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if fits(&name, pattern) && path.is_file() {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// Whether a name is one of a pattern's with at most one star.
fn fits(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        Some((before, behind)) => {
            name.len() >= before.len() + behind.len() && name.starts_with(before) && name.ends_with(behind)
        }
        None => name == pattern,
    }
}

/// How well a file is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Whole,
    /// The digits that the card has.
    Beginning,
    /// The card has a hash for it, and this is another one.
    Other,
    Nothing,
}

fn known<'c>(card: &'c Card, source: &Source, scored: bool) -> (Known, Option<&'c OfficialFile>) {
    let own = &source.sha256;
    let begins = |f: &&OfficialFile| {
        f.sha256_begins
            .as_ref()
            .is_some_and(|b| own.starts_with(b.as_str()))
    };
    if let Some(file) = card.files.iter().find(|f| f.sha256.as_ref() == Some(own)) {
        return (Known::Whole, Some(file));
    }
    if let Some(file) = card.files.iter().find(|f| f.sha256.is_none() && begins(f)) {
        return (Known::Beginning, Some(file));
    }
    if !scored {
        return (Known::Nothing, None);
    }
    let name = source.path.file_name().unwrap_or_default().to_string_lossy();
    let called = card.files.iter().find(|f| fits(&name, file_name(f)));
    let file = called.or(match card.files.as_slice() {
        [one] => Some(one),
        _ => None,
    });
    match file {
        Some(file) if file.sha256.is_some() || file.sha256_begins.is_some() => (Known::Other, Some(file)),
        file => (Known::Nothing, file),
    }
}

/// What the manifest says of the files.
///
/// # Errors
/// Files that the card does not know, unless they are accepted.
pub(super) fn checked(card: &Card, sources: &[Source], scored: bool, accept: bool) -> Result<Vec<Value>> {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for source in sources {
        let (known, file) = known(card, source, scored);
        let said = file.and_then(|f| {
            f.sha256
                .clone()
                .or_else(|| f.sha256_begins.as_ref().map(|b| format!("{b}…")))
        });
        let mut refused = |expected: String| {
            let e = Error::data(&source.path, "sha256", expected, &source.sha256);
            let hint = "another version of a file may have other items: --accept takes it as it is, and the manifest has its sha256";
            errors.push(e.hint(hint));
        };
        match known {
            Known::Whole | Known::Beginning => {}
            _ if accept => {}
            Known::Other => refused(format!("{} as the card has it", said.clone().unwrap_or_default())),
            Known::Nothing => {
                refused("a file that the card knows, and it has no hash for this one".to_owned())
            }
        }
        let word = match known {
            Known::Whole => "whole",
            Known::Beginning => "beginning",
            Known::Other => "other",
            Known::Nothing => "not",
        };
        let name = source.path.file_name().unwrap_or_default().to_string_lossy();
        all.push(json!({"name": name, "sha256": source.sha256, "known": word, "card": said}));
    }
    crate::error::all(errors)?;
    Ok(all)
}
