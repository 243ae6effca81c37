//! Records of files whose form is not a benchmark's own: lists and lines as [`files`](super::files) reads them, objects by names, and
//! tables with a header.

use super::files;
use crate::benchmark::table;
use crate::error::{Error, Result};
use crate::fsutil::read_text_within;
use serde_json::{Map, Value};
use std::path::Path;

const MOST_BYTES: u64 = 4 << 30;
/// Keys under which a file has all of its records.
const CONTAINERS: [&str; 6] = ["data", "samples", "annotations", "QA", "predictions", "items"];

/// What tells a record from the others.
pub(super) const IDS: [&str; 5] = ["id", "image_id", "uniq_id", "question_id", "item"];
/// A record with its place in words, and the key that it has in an object over the whole file.
pub(super) struct Row {
    pub place: String,
    pub key: Option<String>,
    pub record: Map<String, Value>,
}

pub(super) struct Loaded {
    pub rows: Vec<Row>,
    /// As of [`files::Records`].
    pub mended: usize,
    /// What an object over the whole file has beside them.
    pub beside: Map<String, Value>,
}

/// Reads a file's records, at least one. An object over the whole file may hold them under one of [`CONTAINERS`], or by their names: a
/// text or list of texts becomes a record with `caption` or `captions`, an object of texts one with `question` and `prediction` each.
///
/// # Errors
/// A file that is none of these, with its place.
pub(super) fn load(path: &Path) -> Result<Loaded> {
    let text = read_text_within(path, MOST_BYTES)?;
    let trimmed = text.trim_start_matches(['\u{feff}', ' ', '\n', '\r', '\t']);
    let loaded = match trimmed.as_bytes().first() {
        None => return Err(Error::data(path, "file", "records", "an empty file")),
        Some(b'{') => match files::value(trimmed).map(|(whole, mended)| (whole.to_value(), mended)) {
            Ok((Value::Object(whole), mended)) if !is_record(&whole) => named(path, whole, mended)?,
            _ => records(path)?,
        },
        Some(b'[') => records(path)?,
        Some(_) => rows_of_table(path, &text)?,
    };
    match loaded.rows.is_empty() {
        true => Err(Error::data(path, "file", "at least one record", "none")),
        false => Ok(loaded),
    }
}

/// A record's place in words, its id, and all of it.
pub(crate) type Named = (String, Option<String>, Map<String, Value>);

/// A file's records.
///
/// # Errors
/// As [`load`].
pub(crate) fn named_records(path: &Path) -> Result<Vec<Named>> {
    let text = |v: &Value| match v {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };
    let each = load(path)?.rows.into_iter().map(|row| {
        let own = IDS.iter().find_map(|key| text(row.record.get(*key)?));
        (row.place, own.or(row.key), row.record)
    });
    Ok(each.collect())
}

/// A single line of JSON lines.
fn is_record(object: &Map<String, Value>) -> bool {
    let plain = |key: &str| object.get(key).is_some_and(|v| v.is_string() || v.is_number());
    let held = CONTAINERS
        .iter()
        .any(|key| object.get(*key).is_some_and(|v| v.is_array() || v.is_object()));
    !held
        && (IDS.iter().any(|key| plain(key))
            || ["prompt", "question", "prediction", "doc_id"]
                .iter()
                .any(|key| plain(key)))
}

fn records(path: &Path) -> Result<Loaded> {
    let opened = files::open(path)?;
    let records = opened.records()?;
    let rows = records
        .all
        .into_iter()
        .map(|(place, value)| match value.to_value() {
            Value::Object(record) => Ok(Row {
                place: place.to_string(),
                key: None,
                record,
            }),
            other => Err(not_an_object(path, &place.to_string(), &other)),
        });
    Ok(Loaded {
        rows: rows.collect::<Result<_>>()?,
        mended: records.mended,
        beside: Map::new(),
    })
}

fn not_an_object(path: &Path, place: &str, found: &Value) -> Error {
    Error::data(path, place, "a JSON object", crate::error::short(found))
}

fn named(path: &Path, mut whole: Map<String, Value>, mended: bool) -> Result<Loaded> {
    let mut rows = Vec::new();
    let held = CONTAINERS
        .iter()
        .find(|key| whole.get(**key).is_some_and(|v| v.is_array() || v.is_object()));
    match held.and_then(|key| Some((*key, whole.shift_remove(*key)?))) {
        Some((name, Value::Array(all))) => {
            for (i, value) in all.into_iter().enumerate() {
                let place = format!("{name}.{i}");
                match value {
                    Value::Object(record) => rows.push(Row {
                        place,
                        key: None,
                        record,
                    }),
                    other => return Err(not_an_object(path, &place, &other)),
                }
            }
        }
        Some((name, Value::Object(all))) => {
            for (key, value) in all {
                let place = format!("{name}.{key}");
                match value {
                    Value::Object(record) => rows.push(Row {
                        place,
                        key: Some(key),
                        record,
                    }),
                    other => return Err(not_an_object(path, &place, &other)),
                }
            }
        }
        _ => {
            for (key, value) in std::mem::take(&mut whole) {
                by_name(path, key, value, &mut rows)?;
            }
        }
    }
    Ok(Loaded {
        rows,
        mended: usize::from(mended),
        beside: whole,
    })
}

/// What stands under a clip's name: its caption, its captions, or its answers by question.
fn by_name(path: &Path, key: String, value: Value, rows: &mut Vec<Row>) -> Result<()> {
    let row = |name: &str, value: Value| Row {
        place: key.clone(),
        key: Some(key.clone()),
        record: Map::from_iter([
            ("id".to_owned(), Value::String(key.clone())),
            (name.to_owned(), value),
        ]),
    };
    match value {
        Value::String(_) => rows.push(row("caption", value)),
        Value::Array(_) => rows.push(row("captions", value)),
        Value::Object(answers) => {
            for (question, answer) in answers {
                let place = format!("{key}: {}", crate::error::short(&question));
                rows.push(Row {
                    place,
                    key: None,
                    record: Map::from_iter([
                        ("audio_name".to_owned(), Value::String(key.clone())),
                        ("question".to_owned(), Value::String(question)),
                        ("prediction".to_owned(), answer),
                    ]),
                });
            }
        }
        other => {
            let found = crate::error::short(&other);
            let expected = "a caption, a list of captions, or answers by question";
            return Err(Error::data(path, key, expected, found));
        }
    }
    Ok(())
}

/// A table with a header: CSV with commas, semicolons or tabs.
fn rows_of_table(path: &Path, text: &str) -> Result<Loaded> {
    let mut lines = table::read(path, text.trim_start_matches('\u{feff}'))?
        .lines
        .into_iter();
    let header = lines.next().map(|(_, names)| names).unwrap_or_default();
    if header.len() < 2 {
        let expected = "JSON, or a table with a header: names of columns and commas or tabs between them";
        let found = header.concat().chars().take(40).collect::<String>();
        return Err(Error::data(path, "line 1", expected, format!("{found:?}")));
    }
    let mut rows = Vec::new();
    for (line, own) in lines {
        let place = format!("line {line}");
        if own.len() != header.len() {
            let expected = format!("{} fields, as the header has", header.len());
            let e = Error::data(path, place, expected, own.len().to_string());
            return Err(e.hint("a field with a comma in it wants quotation marks around"));
        }
        let names = header.iter().map(|name| name.trim().to_owned());
        rows.push(Row {
            place,
            key: None,
            record: names.zip(own.into_iter().map(Value::String)).collect(),
        });
    }
    Ok(Loaded {
        rows,
        mended: 0,
        beside: Map::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Loaded> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(file.path())
    }

    #[test]
    fn tables_lists_lines_and_objects_are_told_apart() {
        for (text, n) in [
            (
                "file_name,caption_predicted\r\na.wav,\"a dog, and \"\"rain\"\"\"\r\nb.wav,\"two\nlines\"\r\n",
                2,
            ),
            ("\u{feff}id\tcaption\na\tb\n\n", 1),
            ("[{\"image_id\": 1, \"caption\": \"x\"}]", 1),
            ("{\"id\": \"a\", \"prediction\": \"x\"}", 1),
            ("{\"id\": \"a\"}\n{\"id\": \"b\"}\n", 2),
            (
                "{\"data\": {\"0\": {\"name\": \"a\"}, \"1\": {}}, \"split\": \"test\"}",
                2,
            ),
            (
                "{\"annotations\": [{\"image_id\": 1, \"caption\": \"x\"}], \"images\": []}",
                1,
            ),
            (
                "{\"a.wav\": {\"q1\": \"x\", \"q2\": \"y\"},\n \"b.wav\": {\"q\": \"z\"}}",
                3,
            ),
            ("{\"a.wav\": \"x\", \"b.wav\": [\"y\"]}", 2),
        ] {
            assert_eq!(of(text).unwrap().rows.len(), n, "{text}");
        }
        let rows = of("a,b\r\n\"x, \"\"y\"\"\",\"\"\r\n").unwrap().rows;
        assert_eq!(
            (&rows[0].record["a"], &rows[0].record["b"]),
            (&"x, \"y\"".into(), &"".into())
        );
        for (bad, word) in [
            ("", "empty"),
            ("a,b\n1\n", "line 2"),
            ("a,b\n1,\"2\n", "quotation mark"),
            ("hello", "header"),
            ("[1]", "item 1"),
            ("{\"a\": 5}", "a caption"),
            ("{}", "at least one"),
            ("a,b\n", "at least one"),
        ] {
            let e = of(bad).err().unwrap().to_string();
            assert!(e.contains(word), "{bad}: {e}");
        }
    }
}
