//! The sizes that a checkpoint's tensors do not tell, in our form or in the reference's own YAML.

use crate::error::{Error, Result};
use crate::model::bounds;
use crate::model::cross_attention::{self, Frames};
use crate::model::flamingo::Config;
use crate::reference::sizes::{Sizes, MODEL};
use crate::yaml::Fields;
use serde_yaml::{Mapping, Value};
use std::path::Path;

/// Windows that the released inference code gives the model (2 minutes).
const RELEASED_WINDOWS: usize = 12;
/// Our sections, with the keys that each may have: a recipe's part `model` says no more of a model's sizes.
const OURS: [(&str, &[&str]); 2] = [
    (
        "audio_transformer",
        &["n_head", "n_layers", "d_inner", "attention_dropout"],
    ),
    (
        "cross_attention",
        &[
            "every",
            "heads",
            "head_dim",
            "ff_mult",
            "frames",
            "max_window_per_audio",
        ],
    ),
];

/// What a configuration file may add to a checkpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Heads of the audio transformer.
    pub n_head: Option<i64>,
    /// LM blocks per cross-attention block; checked against the tensors.
    pub every: Option<usize>,
    /// The cross-attention's, where it is not as released.
    pub cross_attention: cross_attention::Config,
    /// Most windows of 10 s; none where the file does not say.
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
    ///
    /// # Errors
    /// No YAML mapping; a size that is none or out of its bounds, by its key; in our sections a key that is unknown.
    pub fn read(path: &Path) -> Result<Self> {
        let top = crate::fsutil::read_yaml(path)?;
        let file = Fields(path.display().to_string());
        let whole = match top {
            // An empty file says nothing.
            Value::Null => Mapping::new(),
            Value::Mapping(map) => map,
            other => return Err(file.wrong("the file", "a mapping of keys to values", &other)),
        };
        let section = |name: &str| file.section(&whole, name);
        let model = match (section("model")?, section(MODEL)?) {
            (Some(own), _) => own,
            (None, Some(reference)) => reference,
            (None, None) => &whole,
        };
        let part = |name: &str| match file.section(model, name)? {
            Some(part) => Ok(Some(part)),
            None => section(name),
        };
        for (name, keys) in OURS {
            if let Some(part) = part(name)? {
                file.only(name, part, keys)?;
            }
        }
        let audio = part("audio_transformer")?;
        let reference = Sizes::of(&file, model, &whole)?;
        let mut cross = cross_attention::Config::default();
        let ours = part("cross_attention")?;
        let mut every = reference.every()?;
        if let Some(map) = ours {
            let size = |key: &str, bounds| {
                let named = format!("cross_attention.{key}");
                file.size_as(Some(map), key, &named, bounds)
            };
            every = size("every", cross_attention::EVERY)?.or(every);
            for (own, key, bounds) in [
                (&mut cross.heads, "heads", bounds::HEADS),
                (&mut cross.head_dim, "head_dim", bounds::HEAD_DIM),
                (&mut cross.ff_mult, "ff_mult", cross_attention::FF_MULT),
                (
                    &mut cross.max_window_per_audio,
                    "max_window_per_audio",
                    cross_attention::FRAMES,
                ),
            ] {
                *own = size(key, bounds)?.unwrap_or(*own);
            }
            if let Some(frames) = map.get("frames") {
                cross.frames = serde_yaml::from_value(frames.clone())
                    .map_err(|_| file.wrong("cross_attention.frames", "all or few_shot_mask", frames))?;
            }
        }
        if let Some(every) = every {
            cross.every = every as usize;
        }
        // What a section of ours has in its place is not looked at.
        let frames = match audio {
            Some(_) => None,
            None => reference.max_window_per_audio()?,
        };
        if let Some(frames) = frames {
            cross.max_window_per_audio = frames;
        }
        if reference.few_shot_mask()? {
            cross.frames = Frames::FewShotMask;
        }
        let windows = |map: Option<&Mapping>, key: &str| file.size(map, key, bounds::WINDOWS);
        let max_windows = windows(Some(model), "max_windows")?
            .or(windows(Some(&whole), "max_windows")?)
            .or(reference.max_windows()?);
        Ok(Settings {
            n_head: match audio {
                Some(own) => file.size(Some(own), "n_head", bounds::HEADS)?,
                None => reference.n_head()?,
            },
            every: every.map(|n| n as usize),
            cross_attention: cross,
            max_windows: max_windows.map(|n| n as usize),
        })
    }

    /// What our own checkpoints carry.
    pub(crate) fn of(config: &Config, max_windows: usize) -> Self {
        Settings {
            n_head: Some(config.audio_transformer.n_head),
            every: Some(config.cross_attention.every),
            cross_attention: config.cross_attention.clone(),
            max_windows: Some(max_windows),
        }
    }

    /// Most windows of 10 s: as said, or the released model's.
    pub fn max_windows(&self) -> usize {
        self.max_windows.unwrap_or(RELEASED_WINDOWS)
    }

    pub(crate) fn to_yaml(&self) -> Result<String> {
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
    fn a_size_that_cannot_be_is_named() {
        for (text, told) in [
            (
                "audio_transformer: {n_head: many}",
                "n_head: expected a number from 1 to 4096, found many",
            ),
            (
                "audio_transformer: {n_head: -8}",
                "n_head: expected a number from 1 to 4096, found -8",
            ),
            ("audio_transformer: {n_heads: 8}", "did you mean `n_head`?"),
            ("audio_transformer: 8", "audio_transformer: expected a mapping"),
            (
                "audio_transformer_kwargs: [n_head, 8]",
                "audio_transformer_kwargs: expected a mapping",
            ),
            (
                "audio_transformer_kwargs: {n_head: 1.5}",
                "n_head: expected a number from 1 to 4096, found 1.5",
            ),
            (
                "cross_attention: {heads: -8, head_dim: -64}",
                "cross_attention.heads: expected a number from 1",
            ),
            ("cross_attention: {heads: 0}", "cross_attention.heads"),
            (
                "cross_attention: {head_dim: 99999999999999999999}",
                "cross_attention.head_dim",
            ),
            (
                "cross_attention: {ff_mult: 65}",
                "cross_attention.ff_mult: expected a number from 1 to 64",
            ),
            (
                "cross_attention: {max_window_per_audio: 0}",
                "cross_attention.max_window_per_audio",
            ),
            ("cross_attention: {every: 0}", "cross_attention.every"),
            (
                "cross_attention: {frames: some}",
                "cross_attention.frames: expected all or few_shot_mask",
            ),
            ("cross_attention: {head: 8}", "did you mean `heads`?"),
            (
                "cross_attention: [1, 8, 64]",
                "cross_attention: expected a mapping",
            ),
            (
                "model_config: {cross_attn_every_n_layers: -1}",
                "cross_attn_every_n_layers",
            ),
            ("model_config: 3", "model_config: expected a mapping"),
            (
                "model_config: {few_shot_mask: 'yes'}",
                "few_shot_mask: expected true or false",
            ),
            (
                "clap_config: {max_num_window: 1000000}",
                "max_num_window: expected a number from 1 to 4096",
            ),
            ("max_windows: -3", "max_windows"),
            ("[1, 2]", "a mapping of keys to values"),
            ("heads", "a mapping of keys to values"),
        ] {
            let e = read(text).expect_err(text);
            assert_eq!(e.exit_code(), 4);
            assert!(e.to_string().contains(told), "{text}: {e}");
        }
        assert_eq!(read("").unwrap(), Settings::default());
        assert_eq!(
            read("audio_transformer:\nmax_windows: ~\n").unwrap(),
            Settings::default()
        );
    }
}
