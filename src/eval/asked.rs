//! The items of a set on their way to be questions: by each control, in the words and with the sound that it asks them with.

use super::control::Control;
use super::question::{InWords, Paraphrase, Question, Wanted, Way};
use crate::benchmark::wording::{Reworded, Worded};
use crate::data::feed::{Clip, Example};
use crate::error::{self, Error, Result};
use crate::fsutil::read_text_within;
use crate::generate::engine::Sound;
use crate::shapes::Seconds;
use crate::text::tokenizer::Tokenizer;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::ops::Range;

/// A manifest of a benchmark is no larger.
const MOST_BYTES: u64 = 1 << 30;
/// Items told one by one that cannot be asked.
const MOST_TOLD: usize = 20;

/// The wordings of a manifest's items, by their keys.
#[derive(Deserialize)]
struct Wordings {
    data: IndexMap<String, Worded>,
}

/// By a sound's hash another sound of the set, by its hash and clip.
type Others<'a> = HashMap<&'a str, (&'a str, &'a Clip)>;

/// The items of one set on their way to be questions.
pub(super) struct Asked<'a> {
    pub set: &'a Wanted<'a>,
    /// The set's.
    pub number: usize,
    /// Of all sets, with their tasks.
    pub items: &'a [(String, Example)],
    /// The set's own of them.
    pub range: Range<usize>,
    /// A hash of each item's sound.
    pub sounds: &'a [String],
    /// Of a model that is at hand.
    pub tokenizer: Option<&'a Tokenizer>,
}

impl Asked<'_> {
    /// Of each item the ways in the order of the set's controls.
    ///
    /// # Errors
    /// Items that cannot be asked so, 20 of them, and a control that changes none.
    pub(super) fn questions(&self) -> Result<Vec<Question>> {
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
