//! AF-CLAP's space of sounds: the audio side of a checkpoint, from log-mel windows to plain numbers.

use super::identity::identity;
use super::{places, text_space};
use crate::checkpoint::{names, Archive};
use crate::cores;
use crate::error::{self, Error, Result};
use crate::model::audio;
use crate::model::clap::{AudioSide, AUDIO_BRANCH};
use crate::model::mode::Mode;
use crate::model::params::{Lookup, Origin, Params, Store};
use ndarray::Array3;
use std::path::{Path, PathBuf};
use tch::{no_grad, Device, Kind, Tensor};

/// The audio side of an AF-CLAP checkpoint.
pub struct SoundSpace {
    model: AudioSide,
    params: Params,
    config: audio::Config,
    device: Device,
    /// The file of the weights.
    pub checkpoint: PathBuf,
}

impl SoundSpace {
    /// Opens the audio side of an AF-CLAP, of the same files as [`TextSpace::open`](super::TextSpace::open).
    ///
    /// # Errors
    /// No such file; no audio side in it, or one that is not whole.
    pub fn open(given: &Path, device: Device) -> Result<Self> {
        let checkpoint = text_space::file(given)?;
        let archive = Archive::open(&checkpoint)?.rename(|n| Some(names::unwrapped(n)));
        let shapes = |n: &str| archive.info(n).map(|i| i.shape.clone());
        let config = audio::Config::read(&shapes, AUDIO_BRANCH, &checkpoint)?;
        let wrong = config.check("clap.audio").into_iter();
        error::all(
            wrong
                .map(|w| Error::checkpoint(&checkpoint, w.key, w.expected, w.found))
                .collect(),
        )?;
        let joint = AudioSide::joint_dim(&shapes, &checkpoint)?;
        let own = |name: &str| {
            name.strip_prefix(AUDIO_BRANCH)?
                .strip_prefix('.')
                .map(str::to_owned)
        };
        let lookup: Lookup = Box::new(|name, kind, device| {
            if archive.info(name).is_none() {
                return Ok(None);
            }
            let tensor = archive.get_as(name, kind, device)?;
            if let Some(rows) = own(name).and_then(|n| config.table_of(&n)) {
                places::places(&tensor, rows, &checkpoint, name)?;
            }
            Ok(Some(tensor))
        });
        let origin = Origin::File {
            path: checkpoint.clone(),
            lookup,
            fresh: Box::new(|name| own(name).is_some_and(|n| config.computes(&n))),
        };
        let store = Store::new(origin, device);
        let model = AudioSide::new(&store.root(), &config, joint);
        let params = store.finish()?;
        params.train_only(|_| false);
        cores::at_most(cores::enough_for(params.count()));
        Ok(SoundSpace {
            model,
            params,
            config: config.clone(),
            device,
            checkpoint: checkpoint.clone(),
        })
    }

    /// A sound's embedding, of length 1: the mean direction of its windows.
    ///
    /// # Shapes
    /// `mel_wfm` (W, 1001, 64), log-mel in dB.
    ///
    /// # Errors
    /// A device that does not do its part.
    pub fn embed(&self, mel_wfm: &Array3<f32>) -> Result<Vec<f32>> {
        let (w, f, m) = mel_wfm.dim();
        let flat: Vec<f32> = mel_wfm.iter().copied().collect();
        let mel = Tensor::from_slice(&flat)
            .f_reshape([w as i64, f as i64, m as i64])?
            .f_to_device(self.device)?;
        let mean = no_grad(|| {
            let each = self.model.embed_windows(&mel, Mode::EVAL).to_kind(Kind::Float);
            each.mean_dim(0i64, false, Kind::Float)
        });
        let mean = Vec::<f32>::try_from(mean.f_to_device(Device::Cpu)?)?;
        let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
        Ok(mean.into_iter().map(|x| x / length).collect())
    }

    /// Of all that an embedding comes from: names, dtypes, sizes and values of the audio side's tensors, and its configuration.
    ///
    /// # Errors
    /// A device that does not give a tensor back.
    pub fn identity(&self) -> Result<String> {
        let hash = identity(&self.params, &self.config, String::new(), &self.checkpoint)?;
        Ok(hash.to_hex().to_string())
    }
}
