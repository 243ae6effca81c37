//! What an evaluation asks, and how each question is told from all others.

use super::asked::Asked;
use super::control::Control;
use super::question::{Question, Wanted, Way};
use super::rules::RuleName;
use crate::data::feed::{examples, Clip, Example};
use crate::data::item::Item;
use crate::data::manifest::Manifest;
use crate::error::{self, Error, Result};
use crate::generate::decoding::Decoding;
use crate::generate::engine::Sound;
use crate::generate::likelihood::Choice;
use crate::generate::thinking::{split, Thought};
use crate::generate::Answer;
use crate::load::Loaded;
use crate::recipe::EvalRecipe;
use crate::run::predictions::{Prediction, Weighed};
use crate::text::tokenizer::Tokenizer;
use rayon::prelude::*;
use serde_json::json;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// A clip that is asked about by itself, as no item of a manifest.
#[derive(Clone)]
pub(super) struct About {
    /// For messages.
    pub key: String,
    /// Of the file's sound.
    pub sound: String,
    pub clip: Clip,
}

/// One of the sets.
pub(super) struct Set {
    pub name: String,
    pub decoding: Decoding,
    pub rule: Option<RuleName>,
    strip_thinking: bool,
    /// Of answers that nobody has heard the sounds for; else empty.
    condition: String,
    /// Its part of [`Questions::all`].
    pub questions: Range<usize>,
    /// Of its questions.
    pub hash: String,
}

/// All of them.
pub(super) struct Questions {
    /// With their tasks.
    pub items: Vec<(String, Example)>,
    /// In the order of the manifests; of each item the plain way first.
    pub all: Vec<Question>,
    /// The items of each clip, clips in the order in which they first come.
    pub clips: Vec<Vec<usize>>,
    pub sets: Vec<Set>,
}

impl Questions {
    /// Reads the manifests and looks at every sound file, without decoding one. `tokenizer`: of a model that is at hand, which may refuse
    /// texts.
    ///
    /// # Errors
    /// All texts that are refused, all sound files that cannot be read, and all items that cannot be asked so.
    pub(super) fn read(sets: &[Wanted], windows: usize, tokenizer: Option<&Tokenizer>) -> Result<Self> {
        let (mut items, mut ends) = (Vec::new(), Vec::new());
        for set in sets {
            let manifest = Manifest::open(&set.manifest)?;
            let limit = set.limit.unwrap_or(usize::MAX);
            let own = examples(&manifest, &set.root, windows, limit)?;
            // A benchmark is called by its card's name, whatever its manifest says.
            let task = set.card.map_or(manifest.task.clone(), |card| card.name.clone());
            items.extend(own.into_iter().map(|e| (task.clone(), e)));
            ends.push(items.len());
        }
        for (tokenizer, (_, example)) in tokenizer.iter().flat_map(|t| std::iter::repeat(t).zip(&items)) {
            example.accepted(tokenizer)?;
        }
        let clips = clips_of(&items);
        let sound_of = sounds(&items, &clips)?;
        let mut questions = Questions {
            items,
            all: Vec::new(),
            clips,
            sets: Vec::new(),
        };
        let (mut from, mut errors) = (0, Vec::new());
        for (set, end) in sets.iter().zip(ends) {
            let asked = Asked {
                set,
                number: questions.sets.len(),
                items: &questions.items,
                range: from..end,
                sounds: &sound_of,
                tokenizer,
            };
            let begin = questions.all.len();
            match asked.questions() {
                Ok(own) => questions.all.extend(own),
                Err(e) => errors.push(e),
            }
            let mut hasher = blake3::Hasher::new();
            for question in &questions.all[begin..] {
                hasher.update(question.hash.as_bytes());
            }
            questions.sets.push(Set {
                name: set.name.clone(),
                decoding: set.decoding.clone(),
                rule: set.rule,
                strip_thinking: set.strip_thinking,
                condition: set
                    .in_words
                    .map_or(String::new(), |words| words.condition.clone()),
                questions: begin..questions.all.len(),
                hash: hasher.finalize().to_hex().to_string(),
            });
            from = end;
        }
        error::all(errors)?;
        Ok(questions)
    }

    /// A question about each of these clips, in the same words for all.
    ///
    /// # Errors
    /// Words that the tokenizer refuses.
    pub(super) fn about(
        name: &str,
        clips: &[About],
        prompt: &str,
        decoding: &Decoding,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Self> {
        let ids = tokenizer.map(|t| t.question(prompt)).transpose()?;
        let (mut items, mut all) = (Vec::new(), Vec::new());
        let mut hasher = blake3::Hasher::new();
        for (i, About { key, sound, clip }) in clips.iter().enumerate() {
            let span = clip.span();
            let told = json!([
                name,
                sound,
                span.start.0,
                span.duration.0,
                clip.windows,
                prompt,
                ids,
                decoding
            ]);
            let hash = blake3::hash(told.to_string().as_bytes()).to_hex().to_string();
            hasher.update(hash.as_bytes());
            let item = Item {
                key: key.clone(),
                name: clip.path().display().to_string(),
                prompt: prompt.to_owned(),
                output: String::new(),
                duration: None,
                audio_start: span.start,
                labels: Vec::new(),
                chance: None,
                sound: None,
            };
            items.push((
                name.to_owned(),
                Example {
                    clip: clip.clone(),
                    item,
                },
            ));
            all.push(Question {
                item: i,
                set: 0,
                control: Control::None,
                way: Way::Said,
                sound: Sound::Clip(clip.clone()),
                before: None,
                reworded: None,
                order: Vec::new(),
                hash,
            });
        }
        let set = Set {
            name: name.to_owned(),
            decoding: decoding.clone(),
            rule: None,
            strip_thinking: true,
            condition: String::new(),
            questions: 0..all.len(),
            hash: hasher.finalize().to_hex().to_string(),
        };
        Ok(Questions {
            clips: clips_of(&items),
            items,
            all,
            sets: vec![set],
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

    /// All that is said: the question, behind what stands in the sound's place.
    pub(super) fn words<'a>(&'a self, question: &'a Question) -> Cow<'a, str> {
        let own = self.prompt(question);
        match &question.before {
            Some(before) => Cow::Owned(format!("{before}{own}")),
            None => Cow::Borrowed(own),
        }
    }

    /// The question in the words in which it is asked.
    pub(super) fn prompt<'a>(&'a self, question: &'a Question) -> &'a str {
        let own = &self.items[question.item].1.item.prompt;
        question.reworded.as_ref().map_or(own, |r| &r.prompt)
    }

    /// The options in the order in which they are shown.
    pub(super) fn labels<'a>(&'a self, question: &'a Question) -> &'a [String] {
        let own = &self.items[question.item].1.item.labels;
        question.reworded.as_ref().map_or(own, |r| &r.labels)
    }

    /// An answer to one of them, as it is written.
    pub(super) fn prediction(&self, question: &Question, answer: Answer, seconds: f64) -> Prediction {
        let thought = match self.sets[question.set].strip_thinking {
            true => split(&answer.text),
            false => Thought {
                thinking: None,
                text: answer.text.clone(),
            },
        };
        Prediction {
            prediction: thought.text.trim().to_owned(),
            thinking: thought.thinking,
            near_tie: answer.near_tie(),
            tokens: answer.tokens,
            ..self.unanswered(question, seconds)
        }
    }

    /// Choices that were weighed, as they are written.
    pub(super) fn weighed(&self, question: &Question, choices: Vec<Choice>, seconds: f64) -> Prediction {
        let best = crate::generate::likelihood::likeliest(&choices).map(|c| c.choice.clone());
        Prediction {
            prediction: best.unwrap_or_default(),
            choices: choices
                .into_iter()
                .map(|c| Weighed {
                    choice: c.choice,
                    logprob: c.logprob,
                    logprob_answer: c.logprob_answer,
                    per_token: c.per_token,
                    per_character: c.per_character,
                })
                .collect(),
            ..self.unanswered(question, seconds)
        }
    }

    fn unanswered(&self, question: &Question, seconds: f64) -> Prediction {
        let (task, Example { item, .. }) = &self.items[question.item];
        let control = question.control;
        Prediction {
            id: item.key.clone(),
            task: task.clone(),
            path: item.name.clone(),
            prompt: self.prompt(question).to_owned(),
            reference: (question.reworded.as_ref())
                .map_or(&item.output, |r| &r.output)
                .clone(),
            prediction: String::new(),
            tokens: Vec::new(),
            labels: self.labels(question).to_vec(),
            chance: item.chance,
            control: control != Control::None,
            condition: match control {
                // Silence was the only one for a while.
                Control::None => self.sets[question.set].condition.clone(),
                Control::Silence => String::new(),
                other => other.to_string(),
            },
            reworded: question.reworded.is_some(),
            order: question.order.clone(),
            thinking: None,
            choices: Vec::new(),
            sample: 0,
            near_tie: false,
            seconds,
        }
    }
}

/// The items of each clip.
fn clips_of(items: &[(String, Example)]) -> Vec<Vec<usize>> {
    let mut clips: Vec<Vec<usize>> = Vec::new();
    let mut known = HashMap::new();
    for (i, (_, example)) in items.iter().enumerate() {
        let clip = *known.entry(&example.clip).or_insert_with(|| {
            clips.push(Vec::new());
            clips.len() - 1
        });
        clips[clip].push(i);
    }
    clips
}

/// A hash of each item's sound, by its clip.
///
/// # Errors
/// All that cannot be read: a score over fewer questions than the benchmark has is another score.
fn sounds(items: &[(String, Example)], clips: &[Vec<usize>]) -> Result<Vec<String>> {
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
    error::all(bad)?;
    Ok(sound_of)
}

/// A hash of whom is asked and how. What no answer depends on is not in it: the device, the slots, the number of processes.
/// `decoding`: of all questions; none where each set has its own.
pub(super) fn evaluation(model: &Loaded, eval: &EvalRecipe, decoding: Option<&Decoding>) -> Result<String> {
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
