//! Predictions as the file that a benchmark's own server or script takes: the official items, each with its prediction.

use super::row::{self, text, Row, MOST_TOLD};
use super::rows::{self, Held};
use crate::benchmark::names::Format;
use crate::benchmark::{Card, Entry};
use crate::error::{Error, Result};
use crate::fsutil::write_atomic_bytes;
use indexmap::IndexMap;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

/// How a benchmark's answer file looks.
struct Form {
    /// Where a prediction stands.
    key: &'static str,
    /// Where an item's id stands; none where items are numbered by their places.
    id: Option<&'static str>,
    /// An object a line, or one list.
    lines: bool,
}

fn form(card: &Card) -> Result<Form> {
    let form = |key, id, lines| Ok(Form { key, id, lines });
    match card.official_format {
        Format::MmauJson | Format::MmauProParquet => form("model_output", Some("id"), false),
        Format::MmarJsonl => form("answer_prediction", Some("id"), true),
        Format::AirBench => form("response", Some("uniq_id"), true),
        Format::CmmJsonl => form("pred", None, true),
        other => {
            let expected = "a benchmark with an answer file of its own: MMAU, MMAU-Pro, MMAR, AIR-Bench, CMM";
            let e = Error::data(&card.name, "official_format", expected, other.name());
            Err(e.hint("`af2 score --benchmark` scores predictions here"))
        }
    }
}

/// Where predictions stand in files of other tools, behind the benchmark's own key.
const PREDICTIONS: [&str; 6] = [
    "prediction",
    "model_output",
    "model_prediction",
    "answer_prediction",
    "response",
    "pred",
];

/// What is to be written.
pub(crate) struct Submission<'a> {
    pub entry: &'a Entry,
    pub predictions: &'a Path,
    /// The official file, or the manifest that was imported from it; none where the predictions carry their items.
    pub items: Option<&'a Path>,
    pub out: &'a Path,
}

/// Writes the answer file; returns how many items it has, and under which key the answers stand.
///
/// # Errors
/// Items without a prediction or with several, predictions of no item: all told at once, and nothing is written.
pub(crate) fn submit(what: &Submission) -> Result<(usize, &'static str)> {
    let card = what.entry.card()?;
    let form = form(&card)?;
    for input in [Some(what.predictions), what.items].into_iter().flatten() {
        let whole = |p: &Path| std::fs::canonicalize(p).ok();
        if whole(input).is_some_and(|i| whole(what.out) == Some(i)) {
            let e = Error::usage(format!("--out {} is an input, too", what.out.display()));
            return Err(e.hint("name another file"));
        }
    }
    let predictions = plain(what.predictions)?.0;
    let items = match what.items {
        Some(path) => items(path, &form)?,
        None => carried(&predictions, what.predictions, &form)?,
    };
    let records = joined(&items, &predictions, what, &form)?;
    let json = |value: &Value| serde_json::to_string(value).map_err(|e| Error::io(what.out, e.into()));
    let bytes = match form.lines {
        true => {
            let lines = records.iter().map(|r| Ok(json(r)? + "\n"));
            lines.collect::<Result<Vec<_>>>()?.concat()
        }
        false => serde_json::to_string_pretty(&records).map_err(|e| Error::io(what.out, e.into()))? + "\n",
    };
    write_atomic_bytes(what.out, bytes.as_bytes())?;
    Ok((records.len(), form.key))
}

/// An item that wants a prediction.
struct Item {
    id: String,
    /// The number in a manifest, and the sound's name there: what af2's own predictions are known by.
    ours: Option<(String, String)>,
    place: String,
    record: Map<String, Value>,
}

fn plain(path: &Path) -> Result<(Vec<Row>, Map<String, Value>)> {
    let source = rows::read(path)?;
    match source.held {
        Held::Rows(held) => Ok((held.rows, held.beside)),
        Held::Table(lines) => Ok((rows::with_header(path, lines)?, Map::new())),
    }
}

fn id_of(row: &Row, form: &Form, number: usize) -> Option<String> {
    match form.id {
        Some(key) => row.text(&[key, "id"]),
        None => row.text(&["id"]).or_else(|| Some(number.to_string())),
    }
}

/// The items of an official file or of a manifest that was imported from it.
fn items(path: &Path, form: &Form) -> Result<Vec<Item>> {
    let (rows, beside) = plain(path)?;
    let keys: Option<Vec<String>> = beside
        .get("benchmark")
        .and_then(|b| row::texts(b.get("official_keys")?));
    let mut all = Vec::with_capacity(rows.len());
    for (number, row) in rows.into_iter().enumerate() {
        let Some(id) = id_of(&row, form, number) else {
            let expected = format!("an item's `{}`", form.id.unwrap_or("id"));
            return Err(Error::data(path, row.place.at, expected, "none"));
        };
        let ours = match (&keys, &row.key, row.text(&["name"])) {
            (Some(_), Some(key), Some(name)) => Some((key.clone(), name)),
            _ => None,
        };
        let record = match &keys {
            // The row as the official file has it.
            Some(keys) => keys
                .iter()
                .filter_map(|k| {
                    let value = row
                        .fields
                        .get(&format!("official_{k}"))
                        .or_else(|| row.fields.get(k))?;
                    Some((k.clone(), value.clone()))
                })
                .collect(),
            None => row.fields,
        };
        all.push(Item {
            id,
            ours,
            place: row.place.at,
            record,
        });
    }
    Ok(all)
}

/// The items that predictions carry, which stand in the official form.
fn carried(predictions: &[Row], path: &Path, form: &Form) -> Result<Vec<Item>> {
    let mut all = Vec::with_capacity(predictions.len());
    for (number, row) in predictions.iter().enumerate() {
        let id = id_of(row, form, number);
        let (Some(id), true) = (id, row.fields.contains_key("question")) else {
            let keys: Vec<&str> = row.fields.keys().take(8).map(String::as_str).collect();
            let e = Error::data(
                path,
                &row.place.at,
                "an official item with its prediction",
                format!("the keys {}", keys.join(", ")),
            );
            return Err(e.hint("--items FILE takes the items from the official file, or from the manifest that was imported from it"));
        };
        all.push(Item {
            id,
            ours: None,
            place: row.place.at.clone(),
            record: row.fields.clone(),
        });
    }
    Ok(all)
}

/// The items with their predictions, in their order.
fn joined(items: &[Item], predictions: &[Row], what: &Submission, form: &Form) -> Result<Vec<Value>> {
    let of = what.items.unwrap_or(what.predictions);
    let mut wrong = Wrong::default();
    let mut by_id: HashMap<&str, usize> = HashMap::new();
    let mut by_key: HashMap<&str, usize> = HashMap::new();
    for (at, item) in items.iter().enumerate() {
        if by_id.insert(&item.id, at).is_some() {
            wrong.add(of, &item.place, "each id once", format!("{} again", item.id));
        }
        if let Some((key, _)) = &item.ours {
            by_key.insert(key, at);
        }
    }
    let mut said: IndexMap<usize, String> = IndexMap::with_capacity(predictions.len());
    for (number, row) in predictions.iter().enumerate() {
        let place = &row.place.at;
        // The same questions without the sound.
        if row.fields.get("control") == Some(&Value::Bool(true)) {
            continue;
        }
        let own = row.fields.contains_key("reference") && row.fields.contains_key("prediction");
        let Some(id) = id_of(row, form, number) else {
            wrong.add(what.predictions, place, "an id", "none".into());
            continue;
        };
        let found = match own {
            true => by_key.get(id.as_str()),
            false => by_id.get(id.as_str()),
        };
        let Some(at) = found.copied() else {
            let expected = match (own, by_key.is_empty()) {
                (true, true) => format!("--items with the manifest that was asked, whose numbers af2's predictions have; {} has none", of.display()),
                _ => format!("an id of {}", of.display()),
            };
            wrong.add(what.predictions, place, &expected, id);
            continue;
        };
        if let (true, Some((_, name)), Some(path)) = (own, &items[at].ours, row.text(&["path"])) {
            if *name != path {
                wrong.add(
                    what.predictions,
                    place,
                    &format!("the sound {name}, as item {id} of {} has it", of.display()),
                    path,
                );
                continue;
            }
        }
        let others = PREDICTIONS.into_iter().filter(|k| *k != form.key);
        let keys = std::iter::once(form.key).chain(others);
        let value = keys.clone().find_map(|k| row.fields.get(k));
        match value {
            Some(Value::String(prediction)) => {
                if said.insert(at, prediction.clone()).is_some() {
                    wrong.add(
                        what.predictions,
                        place,
                        "one prediction an item",
                        format!("{} again", items[at].id),
                    );
                }
            }
            Some(other) => wrong.add(
                what.predictions,
                place,
                "a prediction that is a text",
                text(other).unwrap_or_else(|| crate::error::short(other)),
            ),
            None => wrong.add(
                what.predictions,
                place,
                &format!("one of {}", keys.collect::<Vec<_>>().join(", ")),
                "none".into(),
            ),
        }
    }
    for item in items
        .iter()
        .enumerate()
        .filter(|(at, _)| !said.contains_key(at))
        .map(|(_, i)| i)
    {
        wrong.add(
            of,
            &item.place,
            "a prediction for each item",
            format!("none for {}", item.id),
        );
    }
    wrong.finish(what.predictions)?;
    let mut all = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let mut record = item.record.clone();
        record.insert(
            form.key.to_owned(),
            said.swap_remove(&at).unwrap_or_default().into(),
        );
        all.push(Value::Object(record));
    }
    Ok(all)
}

/// What is wrong, the first of it told.
#[derive(Default)]
struct Wrong {
    told: Vec<Error>,
    more: usize,
}

impl Wrong {
    fn add(&mut self, path: &Path, place: &str, expected: &str, found: String) {
        match self.told.len() < MOST_TOLD {
            true => self.told.push(Error::data(path, place, expected, found)),
            false => self.more += 1,
        }
    }

    fn finish(mut self, path: &Path) -> Result<()> {
        if self.more > 0 {
            self.told.push(Error::data(
                path,
                "predictions",
                "one for each item",
                format!("{} more faults", self.more),
            ));
        }
        crate::error::all(self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_without_an_answer_file_are_refused() {
        let registry = crate::benchmark::Registry::built_in();
        let card = |name: &str| registry.card(name).unwrap();
        assert_eq!(form(&card("mmau-v05.15.25")).unwrap().key, "model_output");
        let e = form(&card("clotho-v2")).err().unwrap().to_string();
        assert!(e.contains("clotho_csv"), "{e}");
    }
}
