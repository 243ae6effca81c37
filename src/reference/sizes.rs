//! What a configuration of the reference says of a model's sizes beside its tensors.

use crate::error::Result;
use crate::model::{bounds, cross_attention};
use crate::yaml::Fields;
use serde_yaml::Mapping;

/// The section on the model; where a file has none, its keys may stand at the top.
pub(crate) const MODEL: &str = "model_config";

/// The keys of a file of the reference, read as they are asked for. Its other keys (data, optimizer, paths) say nothing about
/// sizes and are left aside.
pub(crate) struct Sizes<'m> {
    file: &'m Fields,
    whole: &'m Mapping,
    model: &'m Mapping,
    audio: Option<&'m Mapping>,
}

impl<'m> Sizes<'m> {
    /// # Errors
    /// Here and below: a size that is none or out of its bounds, by its key.
    pub(crate) fn of(file: &'m Fields, model: &'m Mapping, whole: &'m Mapping) -> Result<Self> {
        let name = "audio_transformer_kwargs";
        let audio = match file.section(model, name)? {
            Some(part) => Some(part),
            None => file.section(whole, name)?,
        };
        Ok(Sizes {
            file,
            whole,
            model,
            audio,
        })
    }

    /// Heads of the audio transformer.
    pub(crate) fn n_head(&self) -> Result<Option<i64>> {
        self.file.size(self.audio, "n_head", bounds::HEADS)
    }

    /// LM blocks per cross-attention block.
    pub(crate) fn every(&self) -> Result<Option<i64>> {
        let key = "cross_attn_every_n_layers";
        self.file.size(Some(self.model), key, cross_attention::EVERY)
    }

    pub(crate) fn max_window_per_audio(&self) -> Result<Option<i64>> {
        self.file
            .size(self.audio, "max_window_per_audio", cross_attention::FRAMES)
    }

    pub(crate) fn few_shot_mask(&self) -> Result<bool> {
        let key = "few_shot_mask";
        let said = self.model.get(key).or(self.whole.get(key));
        match said.map(|v| (v, v.as_bool())) {
            Some((_, Some(yes))) => Ok(yes),
            Some((other, None)) if !other.is_null() => Err(self.file.wrong(key, "true or false", other)),
            _ => Ok(false),
        }
    }

    /// Windows that the model is given.
    pub(crate) fn max_windows(&self) -> Result<Option<i64>> {
        let clap = match self.file.section(self.model, "clap_config")? {
            Some(part) => Some(part),
            None => self.file.section(self.whole, "clap_config")?,
        };
        let size = |map| self.file.size(map, "max_num_window", bounds::WINDOWS);
        Ok(size(clap)?.or(size(Some(self.whole))?))
    }
}
