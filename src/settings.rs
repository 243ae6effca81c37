//! The sizes that a checkpoint's tensors do not tell, in our form or in the reference's own YAML.

use crate::error::{Error, Result};
use crate::model::cross_attention::{self, Frames};
use crate::model::flamingo::Config;
use serde_yaml::Value;
use std::path::Path;

/// Windows that the released inference code gives the model (2 minutes).
const RELEASED_WINDOWS: usize = 12;

/// What a configuration file may add to a checkpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Heads of the audio transformer.
    pub n_head: Option<i64>,
    /// LM blocks per cross-attention block; checked against the tensors.
    pub every: Option<usize>,
    pub cross_attention: cross_attention::Config,
    pub max_windows: Option<usize>,
}

impl Settings {
    /// Reads either form:
    ///
    /// - ours: `audio_transformer: {n_head}`, `cross_attention: {every, frames, …}`, `max_windows`;
    /// - the reference's: `model_config` (or its keys at the top) with `audio_transformer_kwargs` and
    ///   `cross_attn_every_n_layers`, and `clap_config` with `max_num_window`.
    ///
    /// Other keys of the reference's files (data, optimizer, paths) say nothing about sizes and are left aside.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let top = crate::fsutil::read_yaml(path)?;
        let section = |name: &str| top.get(name).filter(|v| v.is_mapping());
        let model = section("model").or(section("model_config")).unwrap_or(&top);
        let part = |name: &str| model.get(name).or(top.get(name));
        let integer = |at: Option<&Value>, key: &str, most: u64| -> Result<Option<u64>> {
            match at.and_then(|m| m.get(key)) {
                None => Ok(None),
                Some(v) => match v.as_u64().filter(|n| (1..=most).contains(n)) {
                    Some(n) => Ok(Some(n)),
                    None => Err(Error::recipe(
                        &file,
                        format!("{key}: expected a number from 1 to {most}, found {v:?}"),
                    )),
                },
            }
        };
        let audio = part("audio_transformer").or(part("audio_transformer_kwargs"));
        let cross: cross_attention::Config = match part("cross_attention") {
            Some(v) => serde_yaml::from_value(v.clone())
                .map_err(|e| Error::recipe(&file, format!("cross_attention: {e}")))?,
            None => Default::default(),
        };
        let every = match part("cross_attention").and_then(|c| c.get("every")) {
            Some(_) => Some(cross.every as u64),
            None => integer(Some(model), "cross_attn_every_n_layers", 1024)?,
        };
        let windows = integer(Some(model), "max_windows", 100_000)?
            .or(integer(part("clap_config"), "max_num_window", 100_000)?)
            .or(integer(Some(&top), "max_num_window", 100_000)?);
        let span = integer(audio, "max_window_per_audio", 1 << 30)?;
        let few_shot = part("few_shot_mask").and_then(Value::as_bool).unwrap_or(false);
        Ok(Settings {
            n_head: integer(audio, "n_head", 4096)?.map(|n| n as i64),
            every: every.map(|n| n as usize),
            cross_attention: cross_attention::Config {
                max_window_per_audio: span.map_or(cross.max_window_per_audio, |n| n as i64),
                frames: if few_shot {
                    Frames::FewShotMask
                } else {
                    cross.frames
                },
                ..cross
            },
            max_windows: windows.map(|n| n as usize),
        })
    }

    /// What our own checkpoints carry.
    pub fn of(config: &Config, max_windows: usize) -> Self {
        Settings {
            n_head: Some(config.audio_transformer.n_head),
            every: Some(config.cross_attention.every),
            cross_attention: config.cross_attention.clone(),
            max_windows: Some(max_windows),
        }
    }

    pub fn max_windows(&self) -> usize {
        self.max_windows.unwrap_or(RELEASED_WINDOWS)
    }

    pub fn to_yaml(&self) -> Result<String> {
        let value = serde_json::json!({
            "audio_transformer": { "n_head": self.n_head },
            "cross_attention": self.cross_attention,
            "max_windows": self.max_windows(),
        });
        serde_yaml::to_string(&value).map_err(|e| Error::recipe("af2.yaml", e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        Settings::read(&path)
    }

    #[test]
    fn the_references_own_yaml_is_understood() {
        let s = read(
            "train_config: {lr: 1.0}\nmodel_config:\n  cross_attn_every_n_layers: 2\n  audio_transformer_kwargs:\n    n_head: 8\n    max_window_per_audio: 1\nclap_config:\n  max_num_window: 3\n",
        )
        .unwrap();
        assert_eq!((s.n_head, s.every, s.max_windows), (Some(8), Some(2), Some(3)));
        assert_eq!(s.cross_attention.frames, Frames::All);
    }

    #[test]
    fn ours_goes_round() {
        let s = Settings {
            n_head: Some(4),
            every: Some(3),
            cross_attention: cross_attention::Config {
                every: 3,
                frames: Frames::FewShotMask,
                ..Default::default()
            },
            max_windows: Some(9),
        };
        assert_eq!(read(&s.to_yaml().unwrap()).unwrap(), s);
    }

    #[test]
    fn a_wrong_value_is_named() {
        let e = read("audio_transformer: {n_head: many}").unwrap_err().to_string();
        assert!(e.contains("n_head: expected a number from 1 to 4096"), "{e}");
    }
}
