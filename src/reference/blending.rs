//! The data part of the reference's own YAML files (`pretrain.yaml`, `sft.yaml`), read as it is.

use crate::error::{Error, Result};
use serde_yaml::Value;
use std::path::{Path, PathBuf};

/// Passes over a set in one epoch.
const MOST_PASSES: f64 = 1e3;

/// What a reference configuration says of its training data.
#[derive(Debug, Clone, PartialEq)]
pub struct Blending {
    /// name (`Clotho-AQA-AQA/train`), weight; in the file's order.
    pub sets: Vec<(String, f64)>,
    /// `dataset_blending_global_weight`: multiplies every weight.
    pub global_weight: f64,
    /// `dataset_file_root`: the manifests, `NAME.json`.
    pub manifests: PathBuf,
}

impl Blending {
    /// None where the file has no `dataset_blending_config`: it is not the reference's.
    ///
    /// # Errors
    /// No YAML, or weights that are no numbers (the reference writes them as text, too).
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let file = path.display().to_string();
        let top = crate::fsutil::read_yaml(path)?;
        let data = top.get("data_config").unwrap_or(&top);
        let Some(sets) = data.get("dataset_blending_config") else {
            return Ok(None);
        };
        let wrong = |key: &str, expected: &str, found: Option<&Value>| {
            let found = found.map_or("nothing".into(), |v| format!("{v:?}"));
            Error::recipe(&file, format!("{key}: expected {expected}, found {found}"))
        };
        let number = |key: &str, value: Option<&Value>| {
            let text = value.and_then(Value::as_str).and_then(|t| t.trim().parse().ok());
            value
                .and_then(Value::as_f64)
                .or(text)
                .filter(|w: &f64| (0.0..=MOST_PASSES).contains(w))
                .ok_or_else(|| wrong(key, &format!("a number from 0 to {MOST_PASSES}"), value))
        };
        let root = data.get("dataset_file_root");
        let map = sets
            .as_mapping()
            .ok_or_else(|| wrong("dataset_blending_config", "a map of data sets", Some(sets)))?;
        let sets = map
            .iter()
            .map(|(name, set)| {
                let name = name
                    .as_str()
                    .ok_or_else(|| wrong("dataset_blending_config", "names", Some(name)))?;
                let key = format!("dataset_blending_config.{name}.weight");
                Ok((name.to_owned(), number(&key, set.get("weight"))?))
            })
            .collect::<Result<Vec<_>>>()?;
        let all = "dataset_blending_global_weight";
        let global_weight = number(all, data.get(all))?;
        if let Some((name, weight)) = sets.iter().find(|(_, w)| w * global_weight > MOST_PASSES) {
            return Err(Error::recipe(
                &file,
                format!(
                    "dataset_blending_config.{name}.weight: {weight} times {all} is more than {MOST_PASSES}"
                ),
            ));
        }
        Ok(Some(Blending {
            sets,
            global_weight,
            manifests: match root {
                None => PathBuf::new(),
                Some(v) => v
                    .as_str()
                    .ok_or_else(|| wrong("dataset_file_root", "a folder", root))?
                    .into(),
            },
        }))
    }
}
