//! Manifests: there and whole, by their first and last bytes; opened where that is asked for.

use super::file::{self, no_folder, said};
use super::listing::{Kind, Lack, Report};
use crate::data::manifest::Manifest;
use crate::plan;
use crate::recipe::{Recipe, StageRecipe};
use indexmap::IndexMap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Sets, and who asks for each.
pub(super) type Asked<'r> = IndexMap<&'r str, Vec<String>>;

/// Sounds of a manifest that are looked for where it is opened.
const SOUNDS: usize = 8;

/// Looks at the manifests of these sets, the `val.json` beside them, and the folders of their sounds.
pub(super) fn sets(recipe: &Recipe, sets: &Asked, kind: Kind, report: &mut Report) {
    for (set, by) in sets {
        let path = recipe.manifest(set);
        if !listed(recipe, set, by, kind, report) {
            continue;
        }
        if let Some(folder) = no_sounds(&recipe.data_root(), &path) {
            let lack = Lack::new(Kind::Sounds, "sounds", &folder, "not there", by);
            report.lacks.push(lack);
        }
    }
}

/// Looks at the manifests of these sets alone: their texts are all that is wanted.
pub(super) fn texts(recipe: &Recipe, sets: &Asked, report: &mut Report) {
    for (set, by) in sets {
        listed(recipe, set, by, Kind::Manifest, report);
    }
}

/// Opens the manifests of these sets; how many items each has.
pub(super) fn open(recipe: &Recipe, sets: &Asked, kind: Kind, report: &mut Report) -> HashMap<String, usize> {
    let mut items = HashMap::new();
    for (set, by) in sets {
        let path = recipe.manifest(set);
        if !listed(recipe, set, by, kind, report) {
            continue;
        }
        match Manifest::open(&path) {
            Ok(manifest) => {
                items.insert((*set).to_owned(), manifest.len());
                if let Some((missing, of)) = missing_sounds(recipe, &manifest) {
                    let found = format!(
                        "not there, as all {of} sounds of {} that were looked for",
                        path.display()
                    );
                    let found = if of == 1 { "not there".into() } else { found };
                    report
                        .lacks
                        .push(Lack::new(Kind::Sounds, "sounds", &missing, found, by));
                }
            }
            Err(e) => report.lacks.push(Lack::refused(kind, set, &path, &e, by)),
        }
    }
    items
}

/// Whether a set's manifest is there; what is wrong with it, and with what stands beside it, is noted.
fn listed(recipe: &Recipe, set: &str, by: &[String], kind: Kind, report: &mut Report) -> bool {
    let path = recipe.manifest(set);
    let lack = |path: &Path, found: (String, bool)| {
        let made = recipe.corpus.is_some() && path.starts_with(recipe.data_root());
        let get = made.then(|| "`af2 synth RECIPE` writes the recipe's own corpus".to_owned());
        Lack {
            damaged: found.1,
            ..Lack::new(kind, set, path, found.0, by).get(get.into_iter().collect())
        }
    };
    let found = manifest(&path);
    let there = found.is_none();
    report.lacks.extend(found.map(|found| lack(&path, found)));
    let validation = path.with_file_name("val.json");
    // There need be none; one that is there must be one.
    if kind == Kind::Manifest && validation != path && validation.symlink_metadata().is_ok() {
        let known = report.lacks.iter().any(|l| l.path == validation);
        let found = manifest(&validation).filter(|_| !known);
        report.lacks.extend(found.map(|found| lack(&validation, found)));
    }
    there
}

/// What is wrong with what should be a manifest, and whether it is there all the same.
fn manifest(path: &Path) -> Option<(String, bool)> {
    match std::fs::metadata(path) {
        Err(e) => return Some((said(path, &e), false)),
        Ok(what) if what.is_dir() => {
            let tar = |f: &std::fs::DirEntry| f.path().extension().is_some_and(|e| e == "tar");
            let any = std::fs::read_dir(path).map(|all| all.flatten().any(|f| tar(&f)));
            return match any {
                Ok(true) => None,
                Ok(false) => Some(("a folder without shards (.tar)".into(), true)),
                Err(e) => Some((said(path, &e), false)),
            };
        }
        Ok(_) => {}
    }
    if let Some(found) = file::wrong(path) {
        return Some((found, true));
    }
    let json = path.extension().is_some_and(|e| e == "json" || e == "jsonl");
    let end = file::last(path).filter(|_| json);
    let cut = end.filter(|b| !matches!(b, b'}' | b']'))?;
    let cut = (cut as char).escape_default();
    Some((
        format!("cut short, or no JSON: its last character is `{cut}`"),
        true,
    ))
}

/// The folder in which a manifest's first sound should lie, where there is none; by the manifest's first bytes.
fn no_sounds(root: &Path, manifest: &Path) -> Option<PathBuf> {
    if manifest.is_dir() || manifest.extension().is_some_and(|e| e == "tar") {
        return None;
    }
    let head = file::head(manifest).ok()?;
    let text = String::from_utf8_lossy(&head);
    let split = text_of(&text, "split_path").unwrap_or_default();
    let items = text.split_once("\"data\"").map_or(&*text, |(_, items)| items);
    let folder = root.join(&split);
    let sound = folder.join(text_of(items, "name")?);
    let own = sound.parent()?;
    // Of a set in many folders the first may be empty: its items are skipped one by one.
    let some = no_folder(own).is_none() || (!split.is_empty() && no_folder(&folder).is_none());
    (!some).then(|| own.to_path_buf())
}

/// The first text under a key, wherever it stands.
fn text_of(json: &str, key: &str) -> Option<String> {
    let (_, behind) = json.split_once(&format!("\"{key}\""))?;
    let value = behind.trim_start().strip_prefix(':')?;
    let mut texts = serde_json::Deserializer::from_str(value).into_iter::<String>();
    texts.next()?.ok().filter(|text| !text.is_empty())
}

/// One of the sounds that are looked for, and how many, where none of them is there.
fn missing_sounds(recipe: &Recipe, manifest: &Manifest) -> Option<(PathBuf, usize)> {
    let n = manifest.len();
    if n == 0 || manifest.in_shards() {
        return None;
    }
    let of = n.min(SOUNDS);
    let mut first = None;
    for at in 0..of {
        let item = manifest.item(at * (n - 1) / of.saturating_sub(1).max(1)).ok()?;
        let path = manifest.audio_path(&recipe.data_root(), &item);
        if path.exists() {
            return None;
        }
        first.get_or_insert(path);
    }
    Some((first?, of))
}

/// How often a stage's items are seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Passes {
    pub stage: String,
    pub steps: usize,
    /// Of an optimizer step over all ranks.
    pub batch: usize,
    /// Of one pass over the sets by their weights.
    pub pass: u64,
    /// Name, items, and how often each of them is seen on average.
    pub sets: Vec<(String, usize, f64)>,
}

impl Passes {
    /// None where a set's manifest is not there, or the recipe does not say how many steps.
    pub(super) fn of(recipe: &Recipe, stage: &StageRecipe, items: &HashMap<String, usize>) -> Option<Self> {
        let share = recipe.data.subset;
        let mut sets = Vec::new();
        let mut pass = 0;
        for (set, weight) in &stage.sets {
            // As a blend keeps them.
            let kept = (*items.get(set)? as f64 * share).round();
            pass += (kept * weight) as u64;
            sets.push((set.clone(), kept as usize, *weight));
        }
        let batch = plan::step_items(stage, 1);
        let passes = stage.optim.steps as f64 * batch as f64 / pass as f64;
        for set in &mut sets {
            set.2 *= passes;
        }
        (stage.optim.steps > 0 && pass > 0).then(|| Passes {
            stage: stage.name.clone(),
            steps: stage.optim.steps,
            batch,
            pass,
            sets,
        })
    }

    /// Passes over the sets that the steps make.
    pub(crate) fn number(&self) -> f64 {
        self.steps as f64 * self.batch as f64 / self.pass as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_known_by_its_first_and_last_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.json");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n";
        let utf16: Vec<u8> = "\u{feff}{}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, found) in [
            (&b""[..], Some("empty")),
            (pointer.as_bytes(), Some("git-lfs pointer to a file of 7 bytes")),
            (b"<!DOCTYPE html><html></html>", Some("a web page")),
            (
                b"{\"data\": {\"0\": {\"name\": \"x.w",
                Some("its last character is `w`"),
            ),
            (b"{\"data\": {}}\n\n", None),
            (b"[]", None),
            (&utf16, None),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let said = manifest(&path).map(|(found, damaged)| {
                assert!(damaged);
                found
            });
            match found {
                None => assert_eq!(said, None),
                Some(piece) => assert!(said.as_ref().is_some_and(|s| s.contains(piece)), "{said:?}"),
            }
        }
        let gone = folder.path().join("gone.json");
        assert_eq!(manifest(&gone), Some(("not there".into(), false)));
        assert_eq!(manifest(&path.join("below")), Some(("not there".into(), false)));
        assert!(manifest(folder.path()).unwrap().0.contains("without shards"));
        std::os::unix::fs::symlink("nowhere", &gone).unwrap();
        assert_eq!(
            manifest(&gone),
            Some(("a link to what is not there".into(), false))
        );
    }

    #[test]
    fn sounds_are_looked_for_in_the_folder_of_the_first() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("m.json");
        std::fs::create_dir_all(root.path().join("here/sub")).unwrap();
        for (split, name, missing) in [
            ("here", "a.wav", None),
            ("here", "sub/a.wav", None),
            // The folder is there, the first sound's own part of it is not.
            ("here", "other/a.wav", None),
            ("gone", "a.wav", Some("gone")),
            ("", "gone/deep/a.wav", Some("gone/deep")),
            ("gone", "/proc/a.wav", None),
        ] {
            let item = serde_json::json!({"name": name, "prompt": "q", "output": "a"});
            let m = serde_json::json!({"split_path": split, "data": {"0": item}});
            std::fs::write(&path, m.to_string()).unwrap();
            let expected = missing.map(|m| root.path().join(m));
            assert_eq!(no_sounds(root.path(), &path), expected, "{split} {name}");
        }
    }
}
