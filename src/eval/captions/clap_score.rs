//! CLAP score of captions: how near a caption is to its clip in AF-CLAP's space.

use super::read::Captioned;
use crate::data::feed::{Clip, Ears};
use crate::error::{Error, Result};
use crate::eval::rules::retrieval::cosine;
use crate::load::{SoundSpace, TextSpace};
use crate::progress::Progress;
use crate::shapes::Seconds;
use indexmap::IndexSet;
use std::path::Path;

/// Windows of 10 s of a clip that are heard.
pub const MOST_WINDOWS: usize = 30;
/// Clips that are decoded at once.
const AT_ONCE: usize = 16;

/// Both sides of an AF-CLAP.
pub struct ClapScore {
    /// The captions' side.
    pub texts: TextSpace,
    /// The clips'.
    pub sounds: SoundSpace,
}

impl ClapScore {
    /// The cosine of each caption with its clip, a path from `root`; none of a blank caption. Each clip is heard once.
    ///
    /// # Errors
    /// A caption without a clip; a sound that cannot be heard; the towers'.
    pub fn of(&self, file: &Path, captions: &[Captioned], root: &Path) -> Result<Vec<Option<f64>>> {
        let mut clips: IndexSet<&Path> = IndexSet::new();
        for caption in captions {
            let Some(audio) = &caption.audio else {
                let e = Error::data(
                    file,
                    format!("{:?}: audio", caption.id),
                    "the clip's path",
                    "none",
                );
                return Err(e.hint(
                    "a line is {\"id\": \"clip-1\", \"audio\": \"clip-1.wav\", \"prediction\": \"a dog barks\", …}; paths are \
                     from the file's folder, or from --audio-root",
                ));
            };
            clips.insert(audio);
        }
        let texts: IndexSet<&str> = captions
            .iter()
            .map(|c| c.prediction.as_str())
            .filter(|text| !text.trim().is_empty())
            .collect();
        let all: Vec<&str> = texts.iter().copied().collect();
        let said = self.texts.embed(&all, &|_| {})?;
        let ears = Ears::new(0);
        let bar = Progress::new("clips heard", clips.len() as u64);
        let mut heard = Vec::with_capacity(clips.len());
        let whole: Vec<Clip> = clips
            .iter()
            .map(|path| Clip::new(root.join(path), Seconds(0.0), MOST_WINDOWS))
            .collect();
        for some in whole.chunks(AT_ONCE) {
            for mel in ears.mels(&some.iter().collect::<Vec<_>>())? {
                heard.push(self.sounds.embed(&mel)?);
            }
            bar.inc(some.len() as u64);
        }
        bar.finish("");
        let double = |v: &[f32]| -> Vec<f64> { v.iter().map(|x| f64::from(*x)).collect() };
        let near = |caption: &Captioned| -> Option<f64> {
            let said = &said[texts.get_index_of(caption.prediction.as_str())?];
            let heard = &heard[clips.get_index_of(caption.audio.as_deref()?)?];
            Some(cosine(&double(said), &double(heard))).filter(|c| c.is_finite())
        };
        Ok(captions.iter().map(near).collect())
    }
}
