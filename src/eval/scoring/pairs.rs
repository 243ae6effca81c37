//! Texts of a model beside the texts that people wrote: captions and their references, answers to open questions.
//!
//! What is read, from whoever has written it: records with their references in them; `predictions.jsonl` of af2; or predictions whose
//! references stand in a file of items, an imported manifest, the official file, or annotations in the form of COCO. They are brought
//! together by ids, or by the names of the clips: whole, without folders, without the ending.

use super::loaded::{load, Row, IDS};
use super::sample::Form;
use crate::benchmark::names::Task;
use crate::benchmark::Card;
use crate::error::{Error, Result};
use indexmap::IndexMap;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

/// The names of clips.
const CLIPS: [&str; 9] = [
    "path",
    "audio_path",
    "audio_name",
    "file_name",
    "filename",
    "fname",
    "name",
    "audio_id",
    "ytid",
];
const QUESTIONS: [&str; 3] = ["question", "prompt", "instruction"];
/// What a model has written. The last ones are also what people's captions are called.
const SAID: [&str; 9] = [
    "prediction",
    "caption_predicted",
    "model_output",
    "model_prediction",
    "response",
    "pred",
    "hypothesis",
    "candidate",
    "caption",
];
/// Lists of references.
const REFERENCES: [&str; 4] = ["references", "refs", "mult_references", "gts"];
/// One reference.
const REFERENCE: [&str; 5] = ["reference", "answer", "output", "ground_truth", "target"];
/// More references than any clip has.
const MOST_REFERENCES: usize = 1000;

/// A text and those that it is compared with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pair {
    /// As its file has it, or its place.
    pub id: String,
    /// What it is about.
    pub clip: Option<String>,
    /// What was asked; nothing for a caption.
    pub question: String,
    /// What the model has written; none where its file has nothing for this item.
    pub prediction: Option<String>,
    /// What people wrote: at least one.
    pub references: Vec<String>,
    /// Where it is [kept](pairs_with_records): the item's record, and what the prediction's has beside it.
    pub record: Map<String, Value>,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pairs {
    /// In the order of the file with the references.
    pub all: Vec<Pair>,
    /// Who has written the predictions, in words.
    pub form: &'static str,
    /// Records in which half of a surrogate pair was replaced.
    pub mended: usize,
    /// Answers to silence in the sound's place, which were left out.
    pub silent: usize,
}

struct Reader<'a> {
    path: &'a Path,
    card: &'a Card,
    keeps: bool,
}

/// Reads predictions with their references.
///
/// # Errors
/// The first record without what it must have, with its place; predictions of items that are not there or twice with other words; no
/// prediction at all.
pub fn pairs(path: &Path, items: Option<&Path>, card: &Card) -> Result<Pairs> {
    read(path, items, card, false)
}

/// The same with all that their records hold.
///
/// # Errors
/// As [`pairs`].
pub fn pairs_with_records(path: &Path, items: Option<&Path>, card: &Card) -> Result<Pairs> {
    read(path, items, card, true)
}

fn read(path: &Path, items: Option<&Path>, card: &Card, keeps: bool) -> Result<Pairs> {
    let mut said = load(path)?;
    let before = said.rows.len();
    // As of records whose answers are right or wrong: a file of one control is that control's.
    let plain = said.rows.iter().any(|row| control(row).is_none());
    let kept = said.rows.first().and_then(control).filter(|_| !plain);
    said.rows.retain(|row| control(row) == kept);
    let silent = before - said.rows.len();
    let reader = Reader { path, card, keeps };
    let ours = said.rows.first().is_some_and(is_ours);
    let mut mended = said.mended;
    let mut all = match items {
        None => said
            .rows
            .iter()
            .map(|row| reader.whole(row))
            .collect::<Result<_>>()?,
        Some(of) => {
            let items = load(of)?;
            mended += items.mended;
            let items = Reader {
                path: of,
                card,
                keeps,
            }
            .items(&items.rows)?;
            reader.joined(&said.rows, of, items)?
        }
    };
    if card.task == Task::Caption && items.is_none() {
        all = reader.pooled(all)?;
    }
    if all.iter().all(|pair: &Pair| pair.prediction.is_none()) {
        return Err(Error::data(path, "predictions", "at least one", "none"));
    }
    let form = match (ours, items) {
        (true, _) => Form::Ours.name(),
        (false, None) => "predictions with their references",
        (false, Some(_)) => "predictions by id",
    };
    Ok(Pairs {
        all,
        form,
        mended,
        silent,
    })
}

/// The control of an answer of `af2 eval` to an item that was not asked as it is.
fn control(row: &Row) -> Option<String> {
    let is = row.record.get("control") == Some(&Value::Bool(true)) && row.record.contains_key("reference");
    let name = row.record.get("condition").and_then(Value::as_str);
    is.then(|| name.unwrap_or("silence").to_owned())
}

/// Whether it is an answer of `af2 eval`, whose ids are the numbers of a manifest.
fn is_ours(row: &Row) -> bool {
    ["task", "prediction", "reference"]
        .iter()
        .all(|k| row.record.contains_key(*k))
}

impl Reader<'_> {
    fn wrong(&self, place: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::data(self.path, place, expected, found)
    }

    /// A record with everything in it.
    fn whole(&self, row: &Row) -> Result<Pair> {
        let references = self.references(row, false)?;
        if references.is_empty() {
            let e = self.wrong(&row.place, "references: a list of texts", keys(row));
            return Err(e.hint(
                "--items FILE takes them from a manifest or the official file, by ids or the clips' names",
            ));
        }
        Ok(Pair {
            id: id(row).unwrap_or_else(|| row.place.clone()),
            clip: clip(row),
            question: question(row),
            prediction: Some(self.said(row)?),
            references,
            record: self.kept(row),
        })
    }

    fn text(&self, row: &Row, key: &str, value: &Value) -> Result<String> {
        match value {
            Value::String(text) => Ok(text.clone()),
            // As pycocoevalcap's own dictionaries have it.
            Value::Array(list) => match list.as_slice() {
                [Value::String(text)] => Ok(text.clone()),
                [Value::Object(one)] if one.get("caption").is_some_and(Value::is_string) => {
                    self.text(row, key, &one["caption"])
                }
                _ => {
                    let found = format!("a list of {}", list.len());
                    Err(self.wrong(&format!("{}: {key}", row.place), "one text", found))
                }
            },
            other => Err(self.wrong(
                &format!("{}: {key}", row.place),
                "a text",
                crate::error::short(other),
            )),
        }
    }

    fn kept(&self, row: &Row) -> Map<String, Value> {
        match self.keeps {
            true => row.record.clone(),
            false => Map::new(),
        }
    }

    /// What the model has written.
    fn said(&self, row: &Row) -> Result<String> {
        let found = SAID
            .iter()
            .chain(&["captions"])
            .find_map(|key| Some((*key, row.record.get(*key)?)));
        match found {
            Some((key, value)) => self.text(row, key, value),
            None => {
                let expected = format!("a prediction: one of {}", SAID.join(", "));
                Err(self.wrong(&row.place, expected, keys(row)))
            }
        }
    }

    /// What people wrote. A caption of a record that holds no prediction (`of_items`) is theirs.
    fn references(&self, row: &Row, of_items: bool) -> Result<Vec<String>> {
        let lists = REFERENCES.iter().chain(of_items.then_some(&"captions"));
        if let Some((key, value)) = lists.clone().find_map(|key| Some((*key, row.record.get(*key)?))) {
            let Value::Array(list) = value else {
                let found = crate::error::short(value);
                return Err(self.wrong(&format!("{}: {key}", row.place), "a list of texts", found));
            };
            if list.is_empty() || list.len() > MOST_REFERENCES {
                let (place, found) = (format!("{}: {key}", row.place), list.len().to_string());
                return Err(self.wrong(&place, format!("1 to {MOST_REFERENCES} references"), found));
            }
            let each = list.iter().enumerate().map(|(i, value)| match value {
                Value::Object(one) => {
                    self.text(row, &format!("{key}.{i}"), one.get("caption").unwrap_or(value))
                }
                value => self.text(row, &format!("{key}.{i}"), value),
            });
            return each.collect();
        }
        // Columns of Clotho and of its tools.
        let columns = row.record.iter().filter(|(key, _)| {
            let number = key
                .strip_prefix("caption_reference_")
                .or(key.strip_prefix("caption_"));
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        });
        let columns = columns.map(|(key, value)| self.text(row, key, value));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        if !columns.is_empty() {
            return Ok(columns);
        }
        if let Some(Value::Array(turns)) = row.record.get("conversation") {
            let said = turns.get(1).and_then(|turn| turn.get("value"));
            let value = said.unwrap_or(&Value::Null);
            return Ok(vec![self.text(row, "conversation.1.value", value)?]);
        }
        let ones = REFERENCE.iter().chain(of_items.then_some(&"caption"));
        match ones.clone().find_map(|key| Some((*key, row.record.get(*key)?))) {
            Some((key, value)) => Ok(vec![self.text(row, key, value)?]),
            None => Ok(Vec::new()),
        }
    }

    /// References without predictions; a clip's captions are one item, also where each has a record of its own.
    fn items(&self, rows: &[Row]) -> Result<Vec<(Pair, Vec<String>)>> {
        let mut all: IndexMap<String, (Pair, Vec<String>)> = IndexMap::with_capacity(rows.len());
        for row in rows.iter().filter(|row| in_split(self.card, row)) {
            let references = self.references(row, true)?;
            if references.is_empty() {
                let expected = "references, or an answer";
                return Err(self.wrong(&row.place, expected, keys(row)));
            }
            let (own, clip) = (id(row), clip(row));
            let pooled = self.card.task == Task::Caption;
            let name = match (&clip, pooled) {
                (Some(clip), true) => format!("c{clip}"),
                (None, true) => format!("i{}", own.as_deref().unwrap_or(&row.place)),
                (_, false) => format!("p{}", row.place),
            };
            let (pair, ids) = all.entry(name).or_insert_with(|| {
                let id = own
                    .clone()
                    .or_else(|| clip.clone())
                    .unwrap_or_else(|| row.place.clone());
                let pair = Pair {
                    id,
                    clip: clip.clone(),
                    question: if pooled { String::new() } else { question(row) },
                    record: self.kept(row),
                    ..Pair::default()
                };
                (pair, Vec::new())
            });
            ids.extend(own);
            pair.references.extend(references);
        }
        match all.is_empty() {
            true => Err(self.wrong(&self.card.scored, "at least one item of this split", "none")),
            false => Ok(all.into_values().collect()),
        }
    }

    /// Predictions on items.
    fn joined(&self, rows: &[Row], of: &Path, items: Vec<(Pair, Vec<String>)>) -> Result<Vec<Pair>> {
        let mut by_name = Names::default();
        for (i, (pair, ids)) in items.iter().enumerate() {
            ids.iter().for_each(|id| by_name.add(id.clone(), i));
            for name in pair.clip.iter().flat_map(|clip| names(clip)) {
                by_name.add(about(name, &pair.question), i);
                by_name.add(name.to_owned(), i);
            }
        }
        let mut all: Vec<Pair> = items.into_iter().map(|(pair, _)| pair).collect();
        let mut places: HashMap<usize, &str> = HashMap::new();
        for row in rows {
            let prediction = self.said(row)?;
            let (own, clip, question) = (id(row), clip(row), question(row));
            if own.is_none() && clip.is_none() {
                let expected = format!("an id or a clip: one of {}, {}", IDS.join(", "), CLIPS.join(", "));
                return Err(self.wrong(&row.place, expected, keys(row)));
            }
            let of_clip = || clip.iter().chain(&own).flat_map(|clip| names(clip));
            let asked = || of_clip().find_map(|name| by_name.get(&about(name, &question)));
            let named = || own.as_ref().and_then(|own| by_name.get(own));
            // A question that is not theirs is about another item of the clip.
            let loose = question.is_empty() || self.card.task == Task::Caption;
            let alone = || {
                loose
                    .then(|| of_clip().find_map(|name| by_name.get(name)))
                    .flatten()
            };
            // Numbers of a manifest may be the ids of other items.
            let found = match is_ours(row) {
                true => asked().or_else(alone).or_else(named),
                false => named().or_else(asked).or_else(alone),
            };
            let Some(i) = found else {
                let shown = own.or(clip).unwrap_or_default();
                let mut found = crate::error::short(&format!("{shown:?}"));
                if !question.is_empty() {
                    found += &format!(", {:?}", crate::error::short(&question));
                }
                return Err(self.wrong(&row.place, format!("an item of {}", of.display()), found));
            };
            let pair = &mut all[i];
            match (&pair.prediction, places.get(&i)) {
                (Some(said), Some(first)) if *said != prediction => {
                    let found = format!("{:?}, for which {first} has other words", pair.id);
                    let e = self.wrong(&row.place, "one prediction an item", found);
                    return Err(e.hint("of several models or samples write several files"));
                }
                _ => {
                    pair.prediction = Some(prediction);
                    for (key, value) in self.kept(row) {
                        pair.record.entry(key).or_insert(value);
                    }
                    places.insert(i, &row.place);
                }
            }
        }
        Ok(all)
    }

    /// A clip's captions as one, where each reference has a prediction of its own beside it: the same one.
    fn pooled(&self, all: Vec<Pair>) -> Result<Vec<Pair>> {
        let mut pooled: IndexMap<String, Pair> = IndexMap::with_capacity(all.len());
        for (i, pair) in all.into_iter().enumerate() {
            let name = pair.clip.clone().unwrap_or_else(|| format!("\0{i}"));
            match pooled.get_mut(&name) {
                None => {
                    pooled.insert(name, pair);
                }
                Some(own) if own.prediction == pair.prediction => own.references.extend(pair.references),
                Some(own) => {
                    let found = format!("other words beside the id {:?} and the id {:?}", own.id, pair.id);
                    let expected = "one prediction a clip";
                    return Err(self.wrong(
                        &format!("the clip {}", crate::error::short(&name)),
                        expected,
                        found,
                    ));
                }
            }
        }
        let mut ids: HashMap<&str, usize> = HashMap::new();
        for pair in pooled.values() {
            *ids.entry(&pair.id).or_default() += 1;
        }
        if let Some(pair) = pooled
            .values()
            .find(|pair| ids.get(pair.id.as_str()).is_some_and(|n| *n > 1))
        {
            return Err(self.wrong("ids", "each once", format!("{:?} again", pair.id)));
        }
        Ok(pooled.into_values().collect())
    }
}

/// What items are asked for by. A name that two of them have is nobody's.
#[derive(Default)]
pub(super) struct Names(HashMap<String, Option<usize>>);

impl Names {
    /// By the record's id, its clip with its question, and its clip alone.
    pub(super) fn add_row(&mut self, row: &Row, item: usize) {
        let (id, clip) = named(row);
        id.into_iter().for_each(|id| self.add(id, item));
        for name in clip.iter().flat_map(|clip| names(clip)) {
            self.add(about(name, &question(row)), item);
            self.add(name.to_owned(), item);
        }
    }

    /// What a record is about: by its id, then by its clip and question, then by its clip where it has no question.
    pub(super) fn find_row(&self, row: &Row) -> Option<usize> {
        let ((id, clip), asked) = (named(row), question(row));
        let of_clip = || clip.iter().flat_map(|clip| names(clip));
        let own = id.as_ref().and_then(|id| self.get(id));
        let asked_so = || of_clip().find_map(|name| self.get(&about(name, &asked)));
        let alone = || of_clip().find_map(|name| self.get(name));
        own.or_else(asked_so)
            .or_else(|| asked.is_empty().then(alone).flatten())
    }

    fn add(&mut self, name: String, item: usize) {
        let place = self.0.entry(name).or_insert(Some(item));
        if *place != Some(item) {
            *place = None;
        }
    }

    fn get(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied().flatten()
    }
}

fn about(clip: &str, question: &str) -> String {
    format!("{clip}\0{}", question.trim())
}

/// A clip's name as it is, without its folders, without its ending.
pub(super) fn names(clip: &str) -> [&str; 3] {
    let file = clip.rsplit(['/', '\\']).next().unwrap_or(clip);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    [clip, file, stem]
}

/// What the file does not say of an item speaks for it.
fn in_split(card: &Card, row: &Row) -> bool {
    let Some(split) = card.scored_split() else {
        return true;
    };
    split
        .filter
        .iter()
        .all(|(key, wanted)| match row.record.get(key).and_then(plain) {
            Some(own) => wanted.iter().any(|value| value.eq_ignore_ascii_case(&own)),
            None => true,
        })
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

fn one(row: &Row, keys: &[&str]) -> Option<String> {
    let values = keys.iter().filter_map(|key| row.record.get(*key));
    values.filter(|v| !v.is_boolean()).find_map(plain)
}

fn id(row: &Row) -> Option<String> {
    one(row, &IDS).or_else(|| row.key.clone())
}

fn clip(row: &Row) -> Option<String> {
    one(row, &CLIPS)
}

/// A record's id and its clip.
pub(super) fn named(row: &Row) -> (Option<String>, Option<String>) {
    (id(row), clip(row))
}

pub(super) fn question(row: &Row) -> String {
    let turns = row.record.get("conversation").and_then(Value::as_array);
    let asked = turns.and_then(|turns| turns.first()?.get("value")?.as_str());
    let asked = asked.map(str::to_owned);
    asked.or_else(|| one(row, &QUESTIONS)).unwrap_or_default()
}

fn keys(row: &Row) -> String {
    let keys: Vec<&str> = row.record.keys().take(8).map(String::as_str).collect();
    match keys.is_empty() {
        true => "an empty object".to_owned(),
        false => format!("the keys {}", crate::error::short(&keys.join(", "))),
    }
}
