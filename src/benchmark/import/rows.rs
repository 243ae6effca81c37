//! The rows of official files, whatever form they have: JSON, JSON lines, CSV, Parquet.

use super::row::{Place, Row, Rows, MOST_ROWS, MOST_TOLD};
use super::{json, parquet};
use crate::benchmark::table;
use crate::error::{Error, Result};
use crate::fsutil::{open_regular, read_text_within, sha256};
use serde_json::{Map, Value};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A larger file is no benchmark's; sounds lie elsewhere.
const MOST_BYTES: u64 = 1 << 30;
/// First bytes of what was packed or is of another tool, and what to do.
const PACKED: &[(&[u8], &str, &str)] = &[
    (b"\x1f\x8b", "gzip", "unpack it: gunzip FILE"),
    (b"PK\x03\x04", "a zip archive", "unpack it: unzip FILE"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unpack it: zstd -d FILE"),
    (b"BZh", "bzip2", "unpack it: bunzip2 FILE"),
    (b"\xfd7zXZ\0", "xz", "unpack it: unxz FILE"),
    (
        b"ARROW1",
        "Arrow",
        "write an object a line: datasets.Dataset.from_file(FILE).to_json(OUT)",
    ),
    (b"%PDF", "a PDF", "is it the right file?"),
];

/// A file of the owner's as it was brought.
#[derive(Debug)]
pub(super) struct Source {
    pub path: PathBuf,
    /// Of its bytes, in small hexadecimal digits.
    pub sha256: String,
    pub held: Held,
    /// Times that something was mended that Python writes and JSON has not.
    pub mended: usize,
}

/// What a file holds.
#[derive(Debug)]
pub(super) enum Held {
    Rows(Rows),
    /// A table, whose first line may be a header or not.
    Table(Vec<(u64, Vec<String>)>),
}

/// Reads a file.
///
/// # Errors
/// What is no such file, with the line or item.
pub(super) fn read(path: &Path) -> Result<Source> {
    let sha256 = sha256(path)?;
    let mut first = Vec::new();
    let opened = open_regular(path)?.take(512).read_to_end(&mut first);
    opened.map_err(|e| Error::io(path, e))?;
    let refused = |found: &str, hint: &str| {
        let e = Error::data(path, "file", "JSON, JSON lines, CSV or Parquet", found);
        Err(e.hint(hint))
    };
    if first.starts_with(parquet::MAGIC) {
        return Ok(Source {
            path: path.to_owned(),
            sha256,
            held: Held::Rows(parquet::read(path)?),
            mended: 0,
        });
    }
    if let Some((_, name, hint)) = PACKED.iter().find(|(magic, ..)| first.starts_with(magic)) {
        return refused(name, hint);
    }
    let begin = first.trim_ascii_start();
    if [&b"<!doctype"[..], b"<html"].iter().any(|sign| {
        begin
            .get(..sign.len())
            .is_some_and(|b| b.eq_ignore_ascii_case(sign))
    }) {
        return refused("a web page", "the download failed: fetch it again");
    }
    let text = read_text_within(path, MOST_BYTES)?;
    let (held, mended) = held(path, &text)?;
    Ok(Source {
        path: path.to_owned(),
        sha256,
        held,
        mended,
    })
}

fn held(path: &Path, text: &str) -> Result<(Held, usize)> {
    let trimmed = text.trim_start();
    let extension = path.extension().map(|e| e.to_ascii_lowercase());
    let is_table = extension.is_some_and(|e| e == "csv" || e == "tsv" || e == "txt");
    match trimmed.as_bytes().first() {
        None => {
            Err(Error::data(path, "file", "rows", "an empty file")
                .hint("the download failed: fetch it again"))
        }
        Some(b'[' | b'{') if !is_table => {
            let (rows, mended) = rows(path, trimmed)?;
            Ok((Held::Rows(rows), mended))
        }
        Some(_) if text.contains('\0') => {
            let e = Error::data(path, "file", "text", "a byte that is zero");
            Err(e.hint("is it the right file?"))
        }
        Some(_) => Ok((Held::Table(table::read(path, text)?.lines), 0)),
    }
}

fn rows(path: &Path, text: &str) -> Result<(Rows, usize)> {
    let file: Arc<Path> = path.into();
    let place = |at: String| Place {
        file: file.clone(),
        at,
    };
    let wrong = |at: &str, found: String| Error::data(path, at, "a JSON object", found);
    let whole = match json::value(text) {
        Ok(whole) => whole,
        Err(e) => return lines(path, text, &e),
    };
    let mut beside = Map::new();
    let (named, mended) = match whole {
        (Value::Array(all), mended) => (numbered("item", all), mended),
        (Value::Object(mut all), mended) => {
            let within = ["data", "QA", "questions", "items"]
                .into_iter()
                .find(|k| matches!(all.get(*k), Some(Value::Array(_) | Value::Object(_))));
            match within.and_then(|k| Some((k, all.shift_remove(k)?))) {
                Some((key, Value::Array(rows))) => {
                    beside = all;
                    (numbered(&format!("{key} item"), rows), mended)
                }
                Some((key, Value::Object(rows))) => {
                    beside = all;
                    (keyed(&format!("{key}."), rows), mended)
                }
                _ if !all.is_empty() && all.values().all(Value::is_object) => (keyed("", all), mended),
                // JSON lines of one line.
                _ => (numbered("line", vec![Value::Object(all)]), mended),
            }
        }
        (other, _) => return Err(wrong("file", crate::error::short(&other))),
    };
    let mut rows = Vec::with_capacity(named.len());
    for (at, key, value) in named {
        match value {
            Value::Object(fields) => rows.push(Row {
                place: place(at),
                key,
                fields,
            }),
            other => return Err(wrong(&at, crate::error::short(&other))),
        }
    }
    at_least_one(path, &rows)?;
    Ok((Rows { rows, beside }, mended))
}

fn numbered(word: &str, all: Vec<Value>) -> Vec<(String, Option<String>, Value)> {
    let all = all.into_iter().enumerate();
    all.map(|(i, v)| (format!("{word} {}", i + 1), None, v)).collect()
}

fn keyed(before: &str, all: Map<String, Value>) -> Vec<(String, Option<String>, Value)> {
    all.into_iter()
        .map(|(k, v)| (format!("{before}{k}"), Some(k), v))
        .collect()
}

fn lines(path: &Path, text: &str, why_not_whole: &str) -> Result<(Rows, usize)> {
    let file: Arc<Path> = path.into();
    let first = text.lines().next().unwrap_or_default();
    if json::value(first).is_err() || !first.starts_with('{') {
        let e = Error::data(
            path,
            "file",
            "a JSON list, or a JSON object a line",
            format!("{why_not_whole:?}"),
        );
        return Err(e);
    }
    let (mut rows, mut mended) = (Vec::new(), 0);
    for (i, line) in text.split('\n').enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let at = format!("line {}", i + 1);
        let fields = match json::value(line) {
            Ok((Value::Object(fields), times)) => {
                mended += times;
                fields
            }
            Ok((other, _)) => {
                return Err(Error::data(
                    path,
                    at,
                    "a JSON object",
                    crate::error::short(&other),
                ))
            }
            Err(e) => return Err(Error::data(path, at, "a JSON object", format!("{e:?}"))),
        };
        let place = Place {
            file: file.clone(),
            at,
        };
        rows.push(Row {
            place,
            key: None,
            fields,
        });
    }
    at_least_one(path, &rows)?;
    let beside = Map::new();
    Ok((Rows { rows, beside }, mended))
}

fn at_least_one(path: &Path, rows: &[Row]) -> Result<()> {
    match rows.len() {
        0 => Err(Error::data(path, "file", "at least one row", "none")),
        n if n > MOST_ROWS => Err(Error::data(
            path,
            "file",
            format!("at most {MOST_ROWS} rows"),
            n.to_string(),
        )),
        _ => Ok(()),
    }
}

/// Lines of a table as rows, by the names in its first line.
///
/// # Errors
/// Names that stand twice; lines of another width: all told at once.
pub(super) fn with_header(path: &Path, lines: Vec<(u64, Vec<String>)>) -> Result<Vec<Row>> {
    let mut lines = lines.into_iter();
    let Some((first, header)) = lines.next() else {
        return Err(Error::data(path, "file", "a header and rows", "nothing"));
    };
    let mut names: Vec<String> = header.iter().map(|n| n.trim().to_owned()).collect();
    for (i, name) in names.iter_mut().enumerate() {
        // pandas' index, or a separator at the end of each line.
        if name.is_empty() {
            *name = format!("column {}", i + 1);
        }
    }
    if let Some(twice) = (1..names.len()).find(|i| names[..*i].contains(&names[*i])) {
        return Err(Error::data(
            path,
            format!("line {first}"),
            "each column once",
            format!("`{}` again", names[twice]),
        ));
    }
    let rows = with_names(path, lines, &names)?;
    at_least_one(path, &rows)?;
    Ok(rows)
}

/// The same with names of our own.
///
/// # Errors
/// Lines of another width.
pub(super) fn with_names(
    path: &Path,
    lines: impl Iterator<Item = (u64, Vec<String>)>,
    names: &[String],
) -> Result<Vec<Row>> {
    let file: Arc<Path> = path.into();
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for (line, fields) in lines {
        if fields.len() != names.len() {
            let expected = format!("{} fields, as in the header", names.len());
            errors.push(Error::data(
                path,
                format!("line {line}"),
                expected,
                fields.len().to_string(),
            ));
            if errors.len() == MOST_TOLD {
                break;
            }
            continue;
        }
        let fields = names.iter().cloned().zip(fields.into_iter().map(Value::String));
        rows.push(Row {
            place: Place {
                file: file.clone(),
                at: format!("line {line}"),
            },
            key: None,
            fields: fields.collect(),
        });
    }
    crate::error::all(errors)?;
    Ok(rows)
}
