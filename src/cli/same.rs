//! What all ranks of a run must have been told alike: the recipe as it stands when everything is filled in.

use crate::dist::{flatten, Facts};
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::train::{Resume, Which};
use std::path::Path;

/// Left out: where a machine has its files (what is in them is compared when they are open), and what changes only how fast it
/// is. `device` is compared as the kind of device.
const OWN: &[&str] = &[
    "output",
    "device",
    "data.root",
    "data.threads",
    "data.ahead",
    "data.cache_mib",
    "train.peak_tflops",
    "eval.slots",
    "eval.memory",
];

/// Of these it counts whether they are given.
const PATHS: &[&str] = &["model.checkpoint", "model.lm", "model.clap", "model.base"];

/// The training as keys and values.
pub(crate) fn facts(recipe: &Recipe, which: Which, resume: &Resume, verify: bool) -> Result<Facts> {
    let mut all = told(recipe)?;
    all.push(("--job".into(), format!("{which:?}").to_lowercase()));
    if let Resume::From(file) = resume {
        let bytes = std::fs::metadata(file).map_or(0, |m| m.len());
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        all.push(("--resume".into(), format!("{name} of {bytes} bytes")));
    }
    if verify {
        all.push(("--verify-resume".into(), "true".into()));
    }
    Ok(all)
}

/// The evaluation as keys and values. Which model is asked shows in its weights.
pub(crate) fn evaluation(recipe: &Recipe) -> Result<Facts> {
    let mut all = told(recipe)?;
    all.push(("verb".into(), "eval".into()));
    Ok(all)
}

fn told(recipe: &Recipe) -> Result<Facts> {
    let whole = serde_json::to_value(recipe)
        .map_err(|e| Error::recipe(&recipe.name, format!("cannot be written as keys and values: {e}")))?;
    let mut all = Facts::new();
    flatten("", &whole, &mut all);
    all.retain(|(key, _)| !OWN.contains(&key.as_str()));
    for (key, value) in &mut all {
        if PATHS.contains(&key.as_str()) && value != "null" {
            *value = "a path".into();
        }
        if key.starts_with("data.sets.") {
            *value = ending(value);
        }
        let stage = |name: &str| recipe.stages.iter().any(|s| s.name == name);
        if key.starts_with("stages.") && key.ends_with(".from") && value != "null" && !stage(value) {
            *value = "a path".into();
        }
    }
    Ok(all)
}

/// Of an absolute path what names a set: its folder and its name.
fn ending(path: &str) -> String {
    let file = Path::new(path);
    if file.is_relative() {
        return path.to_owned();
    }
    let parts = [file.parent().and_then(Path::file_name), file.file_name()];
    let parts = parts.map(|p| p.unwrap_or_default().to_string_lossy().into_owned());
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe_file;

    fn of(overrides: &[&str]) -> Facts {
        let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
        facts(
            &recipe_file::demo(&overrides).unwrap(),
            Which::Curriculum,
            &Resume::No,
            false,
        )
        .unwrap()
    }

    #[test]
    fn every_key_counts_but_those_of_a_machine() {
        let whole = of(&[]);
        for (change, key) in [
            ("seed=3", "seed"),
            (
                "stages.stage2.optim.learning_rate=0.5",
                "stages.stage2.optim.learning_rate",
            ),
            ("stages.stage1.windows=1", "stages.stage1.windows"),
            ("train.precision=amp_bf16", "train.precision"),
            ("train.encode_precision=amp_bf16", "train.encode_precision"),
            ("train.tf32=true", "train.tf32"),
            ("train.zero=true", "train.zero"),
            ("data.max_tokens=99", "data.max_tokens"),
            ("data.subset=0.5", "data.subset"),
        ] {
            let other = of(&[change]);
            let keys: Vec<&str> = (whole.iter().zip(&other))
                .filter(|(a, b)| a != b)
                .map(|((key, _), _)| key.as_str())
                .collect();
            assert_eq!(keys, [key], "{change}");
        }
        let own = [
            "output=elsewhere",
            "device=cpu",
            "data.root=/scratch/corpus",
            "data.threads=3",
            "data.ahead=5",
            "data.cache_mib=7",
        ];
        assert_eq!(of(&own), whole);
    }

    #[test]
    fn a_file_to_go_on_from_is_its_name_and_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let recipe = recipe_file::demo(&[]).unwrap();
        let all = facts(&recipe, Which::Lm, &Resume::From(file.path().into()), true).unwrap();
        let last: Vec<&str> = all.iter().rev().take(2).map(|(k, _)| k.as_str()).collect();
        assert_eq!(last, ["--verify-resume", "--resume"]);
        assert!(all[all.len() - 2].1.ends_with(" of 0 bytes"));
        assert_eq!(
            ending("/scratch/me/Clotho-AQA/train.json"),
            "Clotho-AQA/train.json"
        );
        assert_eq!(ending("Clotho-AQA/train.json"), "Clotho-AQA/train.json");
    }
}
