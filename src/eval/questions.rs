//! What an evaluation asks, and how each question is told from all others.

use super::control::Control;
use super::rules::RuleName;
use crate::benchmark::wording::{Reworded, Worded};
use crate::benchmark::Card;
use crate::data::feed::{examples, Clip, Example};
use crate::data::item::Item;
use crate::data::manifest::Manifest;
use crate::error::{self, Error, Result};
use crate::fsutil::read_text_within;
use crate::generate::decoding::Decoding;
use crate::generate::engine::Sound;
use crate::generate::likelihood::Choice;
use crate::generate::thinking::{split, Thought};
use crate::generate::Answer;
use crate::load::Loaded;
use crate::recipe::EvalRecipe;
use crate::run::predictions::{Prediction, Weighed};
use crate::shapes::Seconds;
use crate::text::tokenizer::Tokenizer;
use indexmap::IndexMap;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::json;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

/// A manifest of a benchmark is no larger.
const MOST_BYTES: u64 = 1 << 30;
/// Items told one by one that cannot be asked.
const MOST_TOLD: usize = 20;

/// A set of items, and how they are to be asked.
pub(super) struct Wanted<'a> {
    /// For messages, and what ranks agree on.
    pub name: String,
    pub manifest: PathBuf,
    /// Below it lie the sounds.
    pub root: PathBuf,
    /// Only so many items, from the front.
    pub limit: Option<usize>,
    pub decoding: Decoding,
    /// Whether the decoding is the set's own: then it tells its questions from others'.
    pub own_decoding: bool,
    pub controls: Vec<Control>,
    /// Of a benchmark, by which items are worded.
    pub card: Option<&'a Card>,
    pub paraphrase: Paraphrase,
    pub way: Way,
    /// By which the answers are to be read, as far as texts alone say.
    pub rule: Option<RuleName>,
    /// Whether what was thought is taken off the answers.
    pub strip_thinking: bool,
    /// What stands in the place of the sounds, where nobody is to hear them.
    pub in_words: Option<&'a InWords>,
}

/// Sounds in words: the items are asked of these alone.
pub(super) struct InWords {
    /// How answers that were got so are marked.
    pub condition: String,
    /// What stands before an item's question, by the [place](InWords::place) of its clip.
    pub before: HashMap<String, String>,
}

impl InWords {
    /// Tells a clip from others by its sound's hash and where it begins.
    pub(super) fn place(sound: &str, clip: &Clip) -> String {
        format!("{sound} {}", clip.span().start.0)
    }
}

/// A clip that is asked about by itself, as no item of a manifest.
#[derive(Clone)]
pub(super) struct About {
    /// For messages.
    pub key: String,
    /// Of the file's sound.
    pub sound: String,
    pub clip: Clip,
}

/// Which of a card's paraphrases is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paraphrase {
    /// The one that the card has chosen, which the manifest's questions have.
    Chosen,
    /// By its number, from 0.
    Of(usize),
    /// One after another, item by item.
    All,
}

/// How an answer is got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In the model's own words.
    Said,
    /// The likeliest of the item's options.
    Weighed,
}

/// One question: an item's, in one way.
pub(super) struct Question {
    /// Its place in [`Questions::items`], and in [`Questions::sets`].
    pub item: usize,
    pub set: usize,
    pub control: Control,
    pub way: Way,
    pub sound: Sound,
    /// What is said before the question, in the sound's place.
    pub before: Option<String>,
    /// None where it is asked in the manifest's words.
    pub reworded: Option<Reworded>,
    /// Of options that were rotated: at each place the number of the option that stands there.
    pub order: Vec<usize>,
    /// A hash of all that is asked.
    pub hash: String,
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

/// The wordings of a manifest's items, by their keys.
#[derive(Deserialize)]
struct Wordings {
    data: IndexMap<String, Worded>,
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

/// By a sound's hash another sound of the set, by its hash and clip.
type Others<'a> = HashMap<&'a str, (&'a str, &'a Clip)>;

/// The items of one set on their way to be questions.
struct Asked<'a> {
    set: &'a Wanted<'a>,
    number: usize,
    items: &'a [(String, Example)],
    range: Range<usize>,
    sounds: &'a [String],
    tokenizer: Option<&'a Tokenizer>,
}

impl Asked<'_> {
    fn questions(&self) -> Result<Vec<Question>> {
        let set = self.set;
        let rewords = |c: &Control| matches!(c, Control::Permute(_) | Control::Rephrase);
        let wordings = match set.paraphrase != Paraphrase::Chosen || set.controls.iter().any(rewords) {
            true => Some(self.wordings()?),
            false => None,
        };
        let others = match set.controls.contains(&Control::OtherClip) {
            true => self.others()?,
            false => HashMap::new(),
        };
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        for i in self.range.clone() {
            for control in &set.controls {
                match self.reworded(i, *control, wordings.as_ref()) {
                    Ok(Some((reworded, order))) => {
                        let way = match control {
                            Control::Likelihood => Way::Weighed,
                            _ => set.way,
                        };
                        // Where there is nothing to choose from, nothing is weighed.
                        if way == Way::Said || !self.items[i].1.item.labels.is_empty() {
                            all.push(self.question(i, *control, way, &reworded, &order, &others)?);
                        }
                    }
                    Ok(None) => {}
                    Err(e) => errors.push(e),
                }
            }
        }
        errors.truncate(MOST_TOLD);
        error::all(errors)?;
        for control in &set.controls {
            if self.range.is_empty() || all.iter().any(|q| q.control == *control) {
                continue;
            }
            let (expected, found) = match control {
                Control::Likelihood => ("items with options to choose from", "none"),
                _ => (
                    "items whose options can be moved",
                    "no item with options of its own",
                ),
            };
            return Err(Error::data(
                &set.manifest,
                format!("--control {control}"),
                expected,
                found,
            ));
        }
        if all.is_empty() && !self.range.is_empty() {
            let e = Error::data(
                &set.manifest,
                "labels",
                "options of which the likeliest is taken",
                "none",
            );
            return Err(e.hint("--answer generate asks for answers in the model's own words"));
        }
        Ok(all)
    }

    /// What the manifest says of its items' wording.
    fn wordings(&self) -> Result<IndexMap<String, Worded>> {
        let path = &self.set.manifest;
        let text = read_text_within(path, MOST_BYTES)?;
        let all: Result<Wordings, _> = serde_json::from_str(&text);
        all.map(|w| w.data).map_err(|e| {
            let e = Error::data(
                path,
                "data",
                "items as `af2 benchmark import` writes them",
                e.to_string(),
            );
            e.hint("other wordings need the items' own `question` and `choices`")
        })
    }

    /// The item in another wording, and the order of its options; nothing where it cannot be asked in this way.
    fn reworded(
        &self,
        i: usize,
        control: Control,
        wordings: Option<&IndexMap<String, Worded>>,
    ) -> Result<Option<(Option<Reworded>, Vec<usize>)>> {
        let (Some(card), Some(wordings)) = (self.set.card, wordings) else {
            return Ok(Some((None, Vec::new())));
        };
        let pool = card.prompt.pool.len().max(1);
        let mut paraphrase = match self.set.paraphrase {
            Paraphrase::Chosen => card.prompt.chosen,
            Paraphrase::Of(n) => n,
            Paraphrase::All => (i - self.range.start) % pool,
        };
        if control == Control::Rephrase {
            paraphrase = (paraphrase + 1) % pool;
        }
        let key = &self.items[i].1.item.key;
        let place = format!("data.{key}");
        let Some(own) = wordings.get(key) else {
            return Err(Error::data(&self.set.manifest, place, "an item", "none"));
        };
        let order = match control {
            Control::Permute(places) => {
                let n = own.choices.len();
                if places as usize >= n {
                    return Ok(None);
                }
                (0..n).map(|at| (at + places as usize) % n).collect()
            }
            _ => Vec::new(),
        };
        if paraphrase == card.prompt.chosen && order.is_empty() {
            return Ok(Some((None, order)));
        }
        let reworded = own.reworded(card, paraphrase, &order, (&self.set.manifest, &place))?;
        Ok(Some((Some(reworded), order)))
    }

    fn question(
        &self,
        i: usize,
        control: Control,
        way: Way,
        reworded: &Option<Reworded>,
        order: &[usize],
        others: &Others,
    ) -> Result<Question> {
        let own = &self.items[i].1.clip;
        let sound = match control {
            Control::None | Control::Permute(_) | Control::Rephrase | Control::Likelihood => {
                Sound::Clip(own.clone())
            }
            Control::Silence => Sound::Silence(own.clone()),
            Control::Noise => Sound::Noise(own.clone()),
            Control::OtherClip => {
                let other = others.get(self.sounds[i].as_str());
                Sound::Clip(other.map_or(own, |(_, clip)| *clip).clone())
            }
            Control::Fragment(seconds) => Sound::Clip(own.clone().within(Seconds(f64::from(seconds)))),
            Control::TextOnly => Sound::Nothing,
        };
        let mut question = Question {
            item: i,
            set: self.number,
            control,
            way,
            sound,
            before: None,
            order: order.to_vec(),
            hash: self.hash(i, control, way, reworded.as_ref(), others)?,
            reworded: reworded.clone(),
        };
        if let Some(words) = self.set.in_words {
            let place = InWords::place(&self.sounds[i], own);
            let Some(before) = words.before.get(&place) else {
                let key = format!("data.{}", self.items[i].1.item.key);
                return Err(Error::data(&self.set.manifest, key, "its sound in words", "none"));
            };
            let told = json!([question.hash, before]).to_string();
            question.hash = blake3::hash(told.as_bytes()).to_hex().to_string();
            (question.sound, question.before) = (Sound::Nothing, Some(before.clone()));
        }
        Ok(question)
    }

    /// For each sound another one of the set: the next by their hashes, so that it does not depend on names or order.
    fn others(&self) -> Result<Others<'_>> {
        let mut by_hash: Vec<(&str, &Clip)> = (self.range.clone())
            .map(|i| (self.sounds[i].as_str(), &self.items[i].1.clip))
            .collect();
        by_hash.sort_by_key(|(hash, _)| *hash);
        by_hash.dedup_by_key(|(hash, _)| *hash);
        if by_hash.len() < 2 {
            let found = format!("{}", by_hash.len());
            return Err(Error::data(
                &self.set.manifest,
                "--control other_clip",
                "at least two sounds",
                found,
            ));
        }
        let next = by_hash.iter().cycle().skip(1);
        Ok(by_hash
            .iter()
            .zip(next)
            .map(|((hash, _), other)| (*hash, *other))
            .collect())
    }

    /// Of what the manifest says of an item, its sound, the tokens of its prompt, and how it is asked. Where the files lie does not
    /// count.
    fn hash(
        &self,
        i: usize,
        control: Control,
        way: Way,
        reworded: Option<&Reworded>,
        others: &Others,
    ) -> Result<String> {
        let (task, Example { clip, item }) = &self.items[i];
        let packed = item.sound.as_ref().and_then(|s| s.packed);
        let (prompt, output, labels) = match reworded {
            Some(r) => (&r.prompt, &r.output, &r.labels),
            None => (&item.prompt, &item.output, &item.labels),
        };
        let other = match control {
            Control::OtherClip => others.get(self.sounds[i].as_str()),
            _ => None,
        };
        let all = json!([
            task,
            item.key,
            item.name,
            prompt,
            output,
            labels,
            item.chance,
            clip.span().start.0,
            clip.windows,
            packed,
            self.sounds[i],
            self.tokenizer.map(|t| t.question(prompt)).transpose()?,
            match control {
                Control::None => json!(false),
                Control::Silence => json!(true),
                other => json!(other.to_string()),
            },
        ]);
        let mut text = all.to_string();
        if way == Way::Weighed {
            text += "weighed";
        }
        if let Some((hash, _)) = other {
            text += hash;
        }
        if self.set.own_decoding && way == Way::Said {
            text += &json!([self.set.decoding, self.set.strip_thinking]).to_string();
        }
        Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
    }
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
