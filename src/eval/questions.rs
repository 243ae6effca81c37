//! What an evaluation asks, and how each question is told from all others.

use crate::data::feed::{examples, Example};
use crate::data::manifest::Manifest;
use crate::error::{self, Error, Result};
use crate::generate::decoding::Decoding;
use crate::generate::Answer;
use crate::load::Loaded;
use crate::recipe::{EvalRecipe, Recipe};
use crate::run::predictions::Prediction;
use rayon::prelude::*;
use serde_json::json;
use std::collections::HashMap;

/// One question: an item's, with its clip or with silence in its place.
pub(super) struct Question {
    /// Its place in [`Questions::items`].
    pub item: usize,
    pub control: bool,
    /// A hash of all that is asked.
    pub hash: String,
}

/// All of them.
pub(super) struct Questions {
    /// With their tasks.
    pub items: Vec<(String, Example)>,
    /// In the order of the manifests, an item's control behind it.
    pub all: Vec<Question>,
    /// The items of each clip, clips in the order in which they first come.
    pub clips: Vec<Vec<usize>>,
    /// By set: its name, and a hash of its questions.
    pub sets: Vec<(String, String)>,
}

impl Questions {
    /// Reads the manifests and looks at every sound file, without decoding one.
    ///
    /// # Errors
    /// All texts that are refused, and all sound files that cannot be read.
    pub(super) fn read(recipe: &Recipe, eval: &EvalRecipe, model: &Loaded) -> Result<Self> {
        let (mut items, mut ends) = (Vec::new(), Vec::new());
        for set in &eval.sets {
            let manifest = Manifest::open(&recipe.manifest(set))?;
            let limit = eval.limit.unwrap_or(usize::MAX);
            let own = examples(&manifest, &recipe.data_root(), eval.windows, limit)?;
            items.extend(own.into_iter().map(|e| (manifest.task.clone(), e)));
            ends.push((set.clone(), items.len()));
        }
        for (_, example) in &items {
            example.accepted(&model.tokenizer)?;
        }
        let mut clips: Vec<Vec<usize>> = Vec::new();
        let mut known = HashMap::new();
        for (i, (_, example)) in items.iter().enumerate() {
            let clip = *known.entry(&example.clip).or_insert_with(|| {
                clips.push(Vec::new());
                clips.len() - 1
            });
            clips[clip].push(i);
        }
        let sounds: Vec<_> = clips
            .par_iter()
            .map(|of| items[of[0]].1.clip.fingerprint())
            .collect();
        let (mut sound_of, mut bad) = (vec![String::new(); items.len()], Vec::new());
        for (of, sound) in clips.iter().zip(sounds) {
            match sound {
                Ok(hash) => of.iter().for_each(|i| sound_of[*i] = hash.to_hex().to_string()),
                Err(e) => bad.push(e),
            }
        }
        // A score over fewer questions than the benchmark has is another score.
        error::all(bad)?;
        let controls: &[bool] = if eval.silence_control {
            &[false, true]
        } else {
            &[false]
        };
        let (mut all, mut sets) = (Vec::new(), Vec::new());
        let mut from = 0;
        for (set, end) in ends {
            let mut hasher = blake3::Hasher::new();
            for i in from..end {
                for control in controls {
                    let hash = hash(&items[i], &sound_of[i], *control, model)?;
                    hasher.update(hash.as_bytes());
                    all.push(Question {
                        item: i,
                        control: *control,
                        hash,
                    });
                }
            }
            sets.push((set, hasher.finalize().to_hex().to_string()));
            from = end;
        }
        Ok(Questions {
            items,
            all,
            clips,
            sets,
        })
    }

    /// Windows that a clip is expected to have: as many as its manifest says, where it does.
    pub(super) fn windows(&self, clip: usize) -> u64 {
        let example = &self.items[self.clips[clip][0]].1;
        let most = example.clip.windows as u64;
        let seconds = example.item.duration.map(|d| d.0 - example.clip.span().start.0);
        let windows = seconds.map(|s| (s / crate::shapes::WINDOW_SECONDS).ceil() as u64);
        windows.unwrap_or(most).clamp(1, most.max(1))
    }

    /// An answer to one of them, as it is written.
    pub(super) fn prediction(&self, question: &Question, answer: Answer, seconds: f64) -> Prediction {
        let (task, Example { item, .. }) = &self.items[question.item];
        Prediction {
            id: item.key.clone(),
            task: task.clone(),
            path: item.name.clone(),
            prompt: item.prompt.clone(),
            reference: item.output.clone(),
            prediction: answer.text.trim().to_owned(),
            near_tie: answer.near_tie(),
            tokens: answer.tokens,
            labels: item.labels.clone(),
            chance: item.chance,
            control: question.control,
            sample: 0,
            seconds,
        }
    }
}

/// Of what the manifest says of an item, its sound, the tokens of its prompt, and whether it is the control. Where the files lie does
/// not count.
fn hash(
    (task, Example { clip, item }): &(String, Example),
    sound: &str,
    control: bool,
    model: &Loaded,
) -> Result<String> {
    let packed = item.sound.as_ref().and_then(|s| s.packed);
    let all = json!([
        task,
        item.key,
        item.name,
        item.prompt,
        item.output,
        item.labels,
        item.chance,
        clip.span().start.0,
        clip.windows,
        packed,
        sound,
        model.tokenizer.question(&item.prompt)?,
        control,
    ]);
    Ok(blake3::hash(all.to_string().as_bytes()).to_hex().to_string())
}

/// A hash of whom is asked and how. What no answer depends on is not in it: the device, the slots, the number of processes.
pub(super) fn evaluation(model: &Loaded, eval: &EvalRecipe, decoding: &Decoding) -> Result<String> {
    let decoding = serde_json::to_value(decoding)
        .map_err(|e| Error::recipe("eval", format!("cannot be written as keys and values: {e}")))?;
    let all = json!([
        model.identity()?.to_hex().as_str(),
        decoding,
        eval.precision,
        eval.tf32,
        // Another version may hear and answer otherwise.
        env!("CARGO_PKG_VERSION"),
    ]);
    Ok(blake3::hash(all.to_string().as_bytes()).to_hex().to_string())
}
