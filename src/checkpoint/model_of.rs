//! The model among what a trainer saved: its tensors stand at the top, under a key, or under two.

use super::archive::Archive;
use super::names::{is_known, is_ours, is_wrapper, rename, Tree};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use std::collections::HashSet;
use std::path::Path;

/// Keys down to the model are no more than this.
const MOST_DEPTH: usize = 4;
/// Where PyTorch's own examples, Lightning and the reference put a model: not worth a line.
const USUAL: [&str; 3] = ["", "model_state_dict", "state_dict"];
/// What optimizers keep of a parameter: FSDP keeps it under the parameter's name.
const STATE: [&str; 4] = [".exp_avg", ".exp_avg_sq", ".step", ".momentum_buffer"];

/// The model's tensors alone, without the keys above them. Where a file holds averaged weights beside those that were
/// trained, the trained ones are taken, and [`Archive::notes`] says so. A file without any name that is known stays as it
/// is, but for the two keys that hold a model wherever they stand.
///
/// # Errors
/// Two models, and nothing that tells which is meant.
pub(super) fn choose(archive: Archive) -> Result<Archive> {
    let mut found: IndexMap<String, HashSet<String>> = IndexMap::new();
    for name in archive.names() {
        if let Some((prefix, own)) = split(name) {
            found
                .entry(prefix)
                .or_default()
                .insert(rename(&own).unwrap_or(own));
        }
    }
    if found.is_empty() {
        let usual = |p: &&&str| !p.is_empty() && archive.names().any(|n| below(n, p).is_some());
        return Ok(match USUAL.iter().find(usual) {
            Some(prefix) => archive.rename(|name| below(name, prefix)),
            None => archive,
        });
    }
    let chosen = chosen(&archive, &found)?;
    let file = archive.source().display().to_string();
    let listed = |all: &[&String]| all.iter().map(|p| quoted(p)).collect::<Vec<_>>().join(" and ");
    let others: Vec<&String> = found.keys().filter(|p| !chosen.contains(p)).collect();
    let mut notes = Vec::new();
    if !others.is_empty() {
        let (taken, left) = (listed(&chosen), listed(&others));
        notes.push(format!(
            "{file}: holds the model's weights {taken} and again {left}: those {taken} are taken"
        ));
    } else if chosen.iter().any(|p| !USUAL.contains(&p.as_str())) {
        notes.push(format!(
            "{file}: the model's weights are taken {}",
            listed(&chosen)
        ));
    }
    // Under DistributedDataParallel and in DeepSpeed's files everything of the model is below `module`.
    let in_module = archive
        .names()
        .filter(|n| split(n).is_some_and(|(p, _)| p.is_empty()))
        .all(|n| n.starts_with("module."));
    let mut model = archive.rename(|name| match split(name) {
        Some((prefix, _)) => chosen.contains(&&prefix).then(|| below(name, &prefix)).flatten(),
        None if others.iter().any(|p| !p.is_empty() && below(name, p).is_some()) => None,
        None => {
            let under = |p: &&&String| !p.is_empty() && below(name, p).is_some();
            match chosen.iter().find(under) {
                Some(prefix) => below(name, prefix),
                None if !chosen.iter().any(|p| p.is_empty()) => None,
                None if in_module && !name.starts_with("module.") => None,
                None => Some(name.to_owned()),
            }
        }
    });
    model.notes.extend(notes);
    Ok(model)
}

/// The keys whose tensors are the model: one, or several that hold different parts of it.
fn chosen<'f>(archive: &Archive, found: &'f IndexMap<String, HashSet<String>>) -> Result<Vec<&'f String>> {
    let trained: Vec<&String> = found.keys().filter(|p| !is_averaged(p)).collect();
    let candidates = match trained.is_empty() {
        true => found.keys().collect(),
        false => trained,
    };
    let mut all: HashSet<&String> = HashSet::new();
    for (i, prefix) in candidates.iter().enumerate() {
        let own = &found[*prefix];
        if let Some(twice) = own.iter().find(|n| all.contains(n)) {
            let before = candidates[..i].iter().find(|p| found[**p].contains(twice));
            let places = [before.map(|p| quoted(p)).unwrap_or_default(), quoted(prefix)];
            let found = format!("{twice} {}", places.join(" and again "));
            return Err(
                Error::checkpoint(archive.source(), "model", "one model", found).hint(
                    "save the one that is meant alone: torch.save(torch.load(FILE)[KEY], \"weights.pt\")",
                ),
            );
        }
        all.extend(own);
    }
    Ok(candidates)
}

/// The keys above a tensor of the model, and its name; none for what is not of a model.
fn split(name: &str) -> Option<(String, String)> {
    if STATE.iter().any(|s| name.ends_with(s)) || name.starts_with("optim") {
        return None;
    }
    let keys: Vec<&str> = name.split('.').filter(|k| !is_wrapper(k)).collect();
    (0..=MOST_DEPTH.min(keys.len())).find_map(|depth| {
        let own = keys[depth..].join(".");
        is_known(&own).then(|| (keys[..depth].join("."), own))
    })
}

/// A name without the keys above the model; PyTorch's wrappers between them stay.
fn below(name: &str, prefix: &str) -> Option<String> {
    let mut keys = prefix.split('.').filter(|k| !k.is_empty()).peekable();
    let mut own = Vec::new();
    for piece in name.split('.') {
        match keys.peek() {
            Some(key) if *key == piece => drop(keys.next()),
            Some(_) if !is_wrapper(piece) => return None,
            _ => own.push(piece),
        }
    }
    (keys.peek().is_none() && !own.is_empty()).then(|| own.join("."))
}

/// Whether keys say that what is below is a running average of the weights, or another model's.
fn is_averaged(prefix: &str) -> bool {
    let lower = prefix.to_ascii_lowercase();
    lower.split(['.', '_']).any(|word| {
        matches!(word, "ema" | "swa" | "shadow" | "teacher" | "polyak") || word.starts_with("averag")
    })
}

fn quoted(prefix: &str) -> String {
    match prefix {
        "" => "at the top".into(),
        p => format!("under `{p}`"),
    }
}

/// The model of an archive under our names, where we know them; duplicates give way to the tensor that bears our name
/// already.
///
/// # Errors
/// Two models, and nothing that tells which is meant.
pub(crate) fn named(archive: Archive) -> Result<Archive> {
    Ok(choose(archive)?.rename(rename))
}

/// [`named`] of what must be a part of AF2.
///
/// # Errors
/// As [`named`]; when nothing of it is a part of AF2.
pub fn canonical(archive: Archive, path: &Path) -> Result<Archive> {
    let found: Vec<String> = archive.names().take(3).map(str::to_owned).collect();
    let archive = named(archive)?;
    if !archive.names().any(is_ours) {
        return Err(Error::checkpoint(
            path,
            "names",
            "tensors of AF2, AF-CLAP or a language model",
            format!("names like {found:?}"),
        ));
    }
    Ok(archive)
}

impl Tree {
    /// A file's model under our names.
    ///
    /// # Errors
    /// As [`canonical`].
    pub fn read(self, archive: Archive, path: &Path) -> Result<Archive> {
        match self {
            Tree::Flamingo { .. } => canonical(archive, path),
            Tree::Plain { .. } => Ok(archive),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{items, write_safetensors};
    use tch::{Kind, Tensor};

    fn archive(names: &[&str]) -> (tempfile::TempDir, Archive) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let one = |n: &&str| (n.to_string(), Tensor::zeros([1], (Kind::Float, tch::Device::Cpu)));
        write_safetensors(&path, &items(names.iter().map(one).collect()), &[]).unwrap();
        let opened = Archive::open(&path).unwrap();
        (folder, opened)
    }

    #[test]
    fn the_model_is_found_under_every_trainers_key_and_what_was_chosen_is_said() {
        const BN: &str = "clap.nvclap.bn0.weight";
        // What the file holds, what of it is the model, what is said.
        let cases: [(&[&str], &[&str], Option<&str>); 13] = [
            (&[BN], &[BN], None),
            (
                &["module.clap.nvclap.bn0.weight"],
                &["module.clap.nvclap.bn0.weight"],
                None,
            ),
            (
                &["state_dict.model.clap.nvclap.bn0.weight"],
                &[BN],
                Some("under `state_dict.model`"),
            ),
            (
                &["model.clap.nvclap.bn0.weight", "model.odd"],
                &[BN, "odd"],
                Some("under `model`"),
            ),
            (
                &[
                    "model_state_dict.module.clap.nvclap.bn0.weight",
                    "optimizer_state_dict.state.0.exp_avg",
                ],
                &["module.clap.nvclap.bn0.weight"],
                None,
            ),
            (
                &[
                    "model_state_dict.clap.nvclap.bn0.weight",
                    "optimizer_state_dict.state.clap.nvclap.bn0.weight.exp_avg",
                ],
                &[BN],
                None,
            ),
            (
                &["module.clap.nvclap.bn0.weight", "torch_rng_state"],
                &["module.clap.nvclap.bn0.weight"],
                None,
            ),
            (
                &[
                    "model.clap.nvclap.bn0.weight",
                    "ema.module.clap.nvclap.bn0.weight",
                ],
                &[BN],
                Some("again under `ema`"),
            ),
            (
                &["ema_state_dict.clap.nvclap.bn0.weight", BN],
                &[BN],
                Some("again under `ema_state_dict`"),
            ),
            (
                &["averaged_model.clap.nvclap.bn0.weight"],
                &[BN],
                Some("under `averaged_model`"),
            ),
            (
                &["encoder.audio_branch.bn0.weight", "lm.model.norm.weight"],
                &["audio_branch.bn0.weight", "model.norm.weight"],
                Some("under `encoder` and under `lm`"),
            ),
            // A plain language model: `model` is a part of its names.
            (
                &[
                    "model.norm.weight",
                    "model.layers.0.mlp.up_proj.weight",
                    "lm_head.weight",
                ],
                &[
                    "model.norm.weight",
                    "model.layers.0.mlp.up_proj.weight",
                    "lm_head.weight",
                ],
                None,
            ),
            (&["state_dict.w", "other.w"], &["w"], None),
        ];
        for (names, model, said) in cases {
            let (_folder, archive) = archive(names);
            let chosen = choose(archive).unwrap();
            let mut found: Vec<&str> = chosen.names().collect();
            let mut expected = model.to_vec();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{names:?}");
            match said {
                None => assert!(chosen.notes().is_empty(), "{:?}", chosen.notes()),
                Some(said) => assert!(chosen.notes()[0].contains(said), "{:?}", chosen.notes()),
            }
            // What is chosen is chosen: a second look finds the same.
            let again = choose(chosen.clone()).unwrap();
            assert_eq!(
                again.names().collect::<Vec<_>>(),
                chosen.names().collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn between_two_models_nothing_is_guessed() {
        for names in [
            [
                "generator.clap.nvclap.bn0.weight",
                "critic.clap.nvclap.bn0.weight",
            ],
            [
                "model_state_dict.clap.nvclap.bn0.weight",
                "best.clap.nvclap.bn0.weight",
            ],
            ["ema.clap.nvclap.bn0.weight", "teacher.clap.nvclap.bn0.weight"],
        ] {
            let (_folder, archive) = archive(&names);
            let e = choose(archive).unwrap_err();
            assert_eq!(e.exit_code(), 7);
            assert!(e.to_string().contains("and again under"), "{e}");
        }
    }
}
