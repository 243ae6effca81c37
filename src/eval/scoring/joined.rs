//! Predictions on items that lie elsewhere: by ids on those of an official file, or of a manifest that was imported from one; those of
//! `af2 eval`, which know a manifest's items by their numbers, on the manifest that was asked.

use super::files::{Place, Records};
use super::pairs::names;
use super::sample::{keys, official, short, texts, Form, Sample};
use crate::benchmark::names::Format;
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::eval::json::{Json, Text};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// Files, as errors name them.
pub(super) struct Files<'p> {
    pub predictions: &'p Path,
    pub items: &'p Path,
}

/// The items, each with its prediction where there is one; how many answers of `af2 eval` were to other manifests.
///
/// # Errors
/// A manifest of another benchmark, or not the one that was asked; predictions of items that are not there, without an id, or twice;
/// none at all.
pub(super) fn joined<'a>(
    files: &Files,
    mut predictions: Records<'a>,
    form: Form,
    items: Records<'a>,
    card: &Card,
) -> Result<(Vec<Sample<'a>>, usize)> {
    let manifest = Manifest::of(files.items, &items, card)?;
    let mut elsewhere = 0;
    if let (Form::Ours, Some(task)) = (form, manifest.as_ref().and_then(|m| m.task.as_deref())) {
        elsewhere = without_others(files, &mut predictions, task)?;
    }
    let items: Vec<Item> = items
        .all
        .into_iter()
        .enumerate()
        .map(|(i, (place, record))| Item::of(files.items, (i, place), record, card, manifest.as_ref()))
        .collect::<Result<_>>()?;
    let mut by_id: HashMap<&str, usize> = HashMap::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let name = match (form, &item.asked) {
            (Form::Ours, Some(asked)) => &asked.key,
            _ => &item.id,
        };
        by_id.entry(name).or_insert(i);
    }
    if form == Form::Bare {
        for (name, i) in clips(&items) {
            by_id.entry(name).or_insert(i);
        }
    }
    let mut said: Vec<Option<Text<'a>>> = vec![None; items.len()];
    // Of af2 the answers that are there: samples of one question, options in another order.
    let mut ours: Vec<Said> = Vec::new();
    let (mut unknown, mut first) = (0, None::<Text>);
    for (place, record) in &predictions.all {
        let wrong = |expected: String, found: String| {
            Error::data(files.predictions, place.to_string(), expected, found)
        };
        let (id, prediction) = said_of(record, card).map_err(|(expected, found)| wrong(expected, found))?;
        let Some(at) = by_id.get(&*id).copied() else {
            unknown += 1;
            first = first.filter(|least| *least <= id).or(Some(id));
            continue;
        };
        if let (Form::Ours, Some(asked)) = (form, &items[at].asked) {
            asked.is(record).map_err(|(key, expected, found)| {
                let expected = format!(
                    "{key} {expected:?}, as item {id} of {} has it",
                    files.items.display()
                );
                wrong(expected, format!("{found:?}")).hint("--items takes the manifest that was asked")
            })?;
            let sample = record.get("sample").and_then(Json::as_f64).unwrap_or_default() as u64;
            let order = order(record).map_err(|(expected, found)| wrong(expected, found))?;
            ours.push(Said {
                at,
                sample,
                place: place.to_string(),
                prediction,
                order,
            });
            continue;
        }
        if said[at].replace(prediction).is_some() {
            return Err(wrong("each id once".into(), format!("{id} again")));
        }
    }
    if let Some(id) = first {
        let expected = format!("those of {}", files.items.display());
        let found = format!("{unknown} that are none, such as {id}");
        let e = Error::data(files.predictions, "ids", expected, found);
        return Err(match (form, &manifest) {
            (Form::Ours, None) => e.hint(
                "predictions of af2 have the numbers of the manifest that was asked: --items takes that",
            ),
            _ => e,
        });
    }
    if !ours.is_empty() {
        ours.sort_by_key(|said| (said.at, said.sample));
        if let Some(twice) = ours
            .windows(2)
            .find(|w| (w[0].at, w[0].sample) == (w[1].at, w[1].sample))
        {
            let id = &items[twice[0].at].asked.as_ref().map_or("", |asked| &asked.key);
            let (place, found) = (&twice[1].place, format!("{id} again"));
            return Err(Error::data(
                files.predictions,
                place,
                "each id once, or samples of it",
                found,
            ));
        }
        let all = ours.into_iter().map(|said| {
            let sample = items[said.at].clone().sample(Some(said.prediction), card);
            in_order(sample, &said.order)
                .map_err(|(expected, found)| Error::data(files.predictions, "order", expected, found))
        });
        return Ok((all.collect::<Result<_>>()?, elsewhere));
    }
    if said.iter().all(Option::is_none) {
        let expected = format!("a prediction of an item of {}", files.items.display());
        return Err(Error::data(files.predictions, "file", expected, "none"));
    }
    let all = items.into_iter().zip(said);
    Ok((
        all.map(|(item, said)| item.sample(said, card)).collect(),
        elsewhere,
    ))
}

/// By the names of their clips, with folders and ending or without, the items of a manifest: what people call items that have no ids of their
/// own. Names that several items have are none.
fn clips<'i>(items: &'i [Item]) -> Vec<(&'i str, usize)> {
    let mut named: HashMap<&str, Option<usize>> = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        let Some(asked) = &item.asked else { continue };
        for name in names(&asked.name) {
            let own = named.entry(name).or_insert(Some(i));
            *own = own.filter(|other| *other == i);
        }
    }
    let named = named.into_iter();
    named.filter_map(|(name, i)| Some((name, i?))).collect()
}

/// An answer of `af2 eval` to an item of its manifest.
struct Said<'a> {
    at: usize,
    sample: u64,
    /// In its file.
    place: String,
    prediction: Text<'a>,
    order: Vec<usize>,
}

/// Where each option stood, where they were rotated: at each place the number of one.
fn order(record: &Json) -> std::result::Result<Vec<usize>, (String, String)> {
    let all = record.at("order").as_list().unwrap_or_default();
    let whole = |v: &Json| {
        v.as_f64()
            .filter(|n| *n >= 0.0 && n.fract() == 0.0)
            .map(|n| n as usize)
    };
    let numbers: Option<Vec<usize>> = all.iter().map(whole).collect();
    numbers.ok_or_else(|| {
        (
            "order: whole numbers from 0".to_owned(),
            short(record.at("order")),
        )
    })
}

/// The item with its options as they were shown. The official record, which has another order, is forgotten.
fn in_order<'a>(
    mut sample: Sample<'a>,
    order: &[usize],
) -> std::result::Result<Sample<'a>, (String, String)> {
    if order.is_empty() {
        return Ok(sample);
    }
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..sample.choices.len()) {
        let expected = format!(
            "each of the {} options of item {} once",
            sample.choices.len(),
            sample.id
        );
        return Err((expected, format!("{order:?}")));
    }
    sample.right = sample
        .right
        .and_then(|was| order.iter().position(|from| *from == was));
    sample.choices = order.iter().map(|from| sample.choices[*from].clone()).collect();
    sample.record = None;
    Ok(sample)
}

/// A prediction's id and text; else what was expected and found.
fn said_of<'a>(
    record: &Json<'a>,
    card: &Card,
) -> std::result::Result<(Text<'a>, Text<'a>), (String, String)> {
    let own = keys(card.official_format);
    let (ids, said) = own
        .as_ref()
        .map_or((&[][..], &[][..]), |own| (own.ids, own.predictions));
    let id = ids.iter().chain(&["id"]).find_map(|k| record.get(k)?.text());
    let id = id.ok_or(("an id".to_owned(), "none".to_owned()))?;
    let said = said.iter().chain(&["prediction", "response"]);
    match said.clone().find_map(|k| record.get(k)) {
        Some(Json::Text(prediction)) => Ok((id, prediction.clone())),
        Some(other) => Err(("a prediction that is a text".to_owned(), short(other))),
        None => {
            let names = said.copied().collect::<Vec<_>>().join(", ");
            Err((format!("one of {names}"), "none".to_owned()))
        }
    }
}

/// Leaves the answers to this manifest; how many there were to others, by their `task`.
fn without_others(files: &Files, predictions: &mut Records, task: &str) -> Result<usize> {
    let of_it = |record: &Json| record.at("task").as_str() == Some(task);
    let before = predictions.all.len();
    let other = predictions.all.iter().find(|(_, record)| !of_it(record));
    let other = other.map(|(_, record)| short(record.at("task")));
    predictions.all.retain(|(_, record)| of_it(record));
    match (predictions.all.is_empty(), other) {
        (true, Some(other)) => {
            let expected = format!("{task}, as {} is called", files.items.display());
            Err(Error::data(files.predictions, "task", expected, other))
        }
        _ => Ok(before - predictions.all.len()),
    }
}

/// What a manifest says of all its items.
struct Manifest<'a> {
    /// Under which its items stand.
    keys: Vec<Text<'a>>,
    task: Option<Text<'a>>,
    /// The official file's columns.
    columns: Option<Vec<String>>,
}

impl<'a> Manifest<'a> {
    /// None of another file.
    fn of(path: &Path, items: &Records<'a>, card: &Card) -> Result<Option<Self>> {
        let Some(whole) = &items.whole else {
            return Ok(None);
        };
        if !items.all.iter().all(|(_, item)| is_asked(item)) {
            return Ok(None);
        }
        let import = whole.beside.at("benchmark");
        if let Some(name) = import.at("card").as_str().filter(|name| *name != card.name) {
            let expected = format!("a manifest of {}", card.name);
            let e = Error::data(path, "benchmark.card", expected, name.to_owned());
            return Err(e.hint(format!("`af2 score --benchmark {name}` scores it")));
        }
        Ok(Some(Manifest {
            keys: whole.keys.clone(),
            task: whole.beside.at("flamingo_task").text(),
            columns: import.get("official_keys").map(texts),
        }))
    }

    /// The official row that an item was made of, where that is known.
    fn row(&self, item: &Json<'a>) -> Option<Json<'a>> {
        let value = |key: &String| {
            let value = item.get(&format!("official_{key}")).or_else(|| item.get(key))?;
            Some((Cow::Owned(key.clone()), value.clone()))
        };
        let row: Vec<_> = self.columns.as_ref()?.iter().filter_map(value).collect();
        (!row.is_empty()).then_some(Json::Object(row))
    }
}

fn is_asked(item: &Json) -> bool {
    item.get("name").is_some() && item.get("prompt").is_some() && item.get("output").is_some()
}

/// An item of a manifest, as it was asked.
#[derive(Clone)]
struct Asked<'a> {
    key: Text<'a>,
    name: Text<'a>,
    prompt: Text<'a>,
    output: Text<'a>,
}

impl Asked<'_> {
    /// Whether an answer of `af2 eval` is to this item; else which of its keys tells, what the item and what the answer has.
    fn is(&self, record: &Json) -> std::result::Result<(), (&'static str, String, String)> {
        let own = [
            ("path", &self.name),
            ("prompt", &self.prompt),
            ("reference", &self.output),
        ];
        let otherwise = record.at("reworded") == &Json::Bool(true);
        for (key, own) in own.into_iter().take(if otherwise { 1 } else { 3 }) {
            let found = record.at(key).as_str().unwrap_or_default();
            if found.trim() != own.trim() {
                let cut = |text: &str| text.chars().take(80).collect();
                return Err((key, cut(own), cut(found)));
            }
        }
        Ok(())
    }
}

/// An item without a prediction.
#[derive(Clone)]
struct Item<'a> {
    id: Text<'a>,
    /// Where it is one of a manifest.
    asked: Option<Asked<'a>>,
    kind: Kind<'a>,
}

#[derive(Clone)]
enum Kind<'a> {
    /// The row of the official file.
    Official(Json<'a>, usize),
    /// The item of a manifest whose format's predictions carry no items.
    Asked(Json<'a>, Option<Text<'a>>),
}

impl<'a> Item<'a> {
    fn of(
        path: &Path,
        (i, place): (usize, Place),
        record: Json<'a>,
        card: &Card,
        manifest: Option<&Manifest<'a>>,
    ) -> Result<Self> {
        if !record.is_object() {
            return Err(Error::data(
                path,
                place.to_string(),
                "a JSON object",
                short(&record),
            ));
        }
        let text = |key: &str| record.at(key).text().unwrap_or_default();
        let asked = manifest.map(|manifest| Asked {
            key: manifest.keys.get(i).cloned().unwrap_or_default(),
            name: text("name"),
            prompt: text("prompt"),
            output: text("output"),
        });
        let own = keys(card.official_format);
        let row = manifest.and_then(|manifest| manifest.row(&record));
        let row = row.filter(|row| own.as_ref().is_some_and(|own| row.get(own.answer).is_some()));
        let ids = own.as_ref().map_or(&[][..], |own| own.ids);
        let id = ids.iter().chain(&["id"]).find_map(|k| record.get(k)?.text());
        let id = id.unwrap_or_else(|| Cow::Owned(i.to_string()));
        let kind = match (manifest, row, own) {
            (_, Some(row), _) => Kind::Official(row, i),
            (Some(manifest), None, _) => Kind::Asked(record, manifest.task.clone()),
            (None, None, Some(_)) => Kind::Official(record, i),
            (None, None, None) => {
                let found = card.official_format.name();
                let expected =
                    "a manifest that was imported, or a format whose items can be read without an import";
                let e = Error::data(path, "file", expected, found);
                return Err(e.hint("`af2 benchmark import` writes the manifest"));
            }
        };
        Ok(Item { id, asked, kind })
    }

    fn sample(self, said: Option<Text<'a>>, card: &Card) -> Sample<'a> {
        let format: Format = card.official_format;
        match self.kind {
            Kind::Official(mut row, place) => {
                let key = keys(format).and_then(|own| own.predictions.first().copied());
                if let (Some(prediction), Some(key)) = (said, key) {
                    row.set(key, Json::Text(prediction));
                }
                official(format, Some(place), row, Vec::new()).unwrap_or_default()
            }
            Kind::Asked(item, task) => {
                let (labels, choices) = (texts(item.at("labels")), texts(item.at("choices")));
                let output = item.at("output").text().unwrap_or_default();
                let right = labels.iter().position(|label| *label == output);
                // Letters are the prompt's; where the answer is none of the choices, it stands behind them in the labels alone.
                let choices = if choices.len() == labels.len() {
                    choices
                } else {
                    labels
                };
                let answer = right.and_then(|at| choices.get(at)).cloned();
                let question = item.get("question").or_else(|| item.get("prompt"));
                Sample {
                    id: self.id,
                    clip: item.at("name").text(),
                    question: question.and_then(Json::text).unwrap_or_default(),
                    answer: answer.map_or(output, Cow::Owned),
                    right: right.filter(|_| !choices.is_empty()),
                    choices,
                    prediction: said,
                    groups: task.map(|task| ("task", task)).into_iter().collect(),
                    ..Sample::default()
                }
            }
        }
    }
}
