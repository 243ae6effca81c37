//! Records of any file of predictions or items: a JSON list, JSON lines, a log of inspect.

use super::cut::{parts, Cut};
use crate::error::{Error, Result};
use crate::eval::json::{Json, Text};
use crate::fsutil::{open_regular, read_text_within};
use rayon::prelude::*;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A larger file is no benchmark's.
const MOST_BYTES: u64 = 4 << 30;
/// Of one sample in a log of inspect.
const MOST_SAMPLE_BYTES: u64 = 64 << 20;
/// What may stand before the first record.
const AROUND: [char; 5] = ['\u{feff}', ' ', '\n', '\r', '\t'];

/// A file that was read and not yet looked into; its records borrow from it.
pub struct Opened {
    path: PathBuf,
    held: Held,
}

enum Held {
    Text(String),
    /// The names and texts of the samples in a log of inspect.
    Samples(Vec<(String, Vec<u8>)>),
}

/// What a file holds, in its order.
pub struct Records<'a> {
    /// Each with its place.
    pub(crate) all: Vec<(Place<'a>, Json<'a>)>,
    /// What else the file says, where it is one object that holds the records by their names.
    pub(crate) whole: Option<Whole<'a>>,
    /// Half of a surrogate pair stood in so many of them, as Python writes it and no text can hold it; U+FFFD stands there now.
    pub mended: usize,
}

/// An object over a whole file, without the records that it holds.
pub(crate) struct Whole<'a> {
    /// Their names, in their order.
    pub keys: Vec<Text<'a>>,
    pub beside: Json<'a>,
}

impl Records<'_> {
    /// Takes out answers of `af2 eval` to items that were not asked as they are (silence in the sound's place, other orders of options),
    /// which are no answers to the benchmark; how many there were. Of a file that has no others those of its first one's
    /// control stay.
    pub fn without_control(&mut self) -> usize {
        let before = self.all.len();
        let plain = self.all.iter().any(|(_, record)| control(record).is_none());
        let first = self.all.first().and_then(|(_, record)| control(record));
        let kept = first.filter(|_| !plain).map(str::to_owned);
        self.all.retain(|(_, record)| control(record) == kept.as_deref());
        before - self.all.len()
    }
}

/// The control of a record of `predictions.jsonl` that was not asked as it is.
fn control<'r>(record: &'r Json) -> Option<&'r str> {
    is_control(record).then(|| record.at("condition").as_str().unwrap_or("silence"))
}

/// Whether a record is one of `predictions.jsonl` that was not asked as it is.
pub(super) fn is_control(record: &Json) -> bool {
    record.at("control") == &Json::Bool(true) && record.get("reference").is_some()
}

/// Where in its file a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Line(usize),
    Item(usize),
    Named(&'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Place::Line(n) => write!(f, "line {n}"),
            Place::Item(n) => write!(f, "item {n}"),
            Place::Named(name) => f.write_str(name),
        }
    }
}

/// Reads a file: a JSON list of objects, objects a line, or one of inspect's logs (`.eval`, `.json`).
///
/// # Errors
/// A file that cannot be read, or holds no text.
pub fn open(path: &Path) -> Result<Opened> {
    let mut head = [0u8; 4];
    let got = open_regular(path)?
        .read(&mut head)
        .map_err(|e| Error::io(path, e))?;
    let held = match head[..got].starts_with(b"PK") {
        true => Held::Samples(archive(path)?),
        false => Held::Text(read_text_within(path, MOST_BYTES)?),
    };
    Ok(Opened {
        path: path.to_owned(),
        held,
    })
}

impl Opened {
    /// Its records.
    ///
    /// # Errors
    /// A file that holds none, or something else, with the line or item.
    pub fn records(&self) -> Result<Records<'_>> {
        let wrong = |expected: &str, found: String| Error::data(&self.path, "file", expected, found);
        let text = match &self.held {
            Held::Text(text) => text,
            Held::Samples(samples) => return self.samples(samples),
        };
        let trimmed = text.trim_start_matches(AROUND);
        match trimmed.as_bytes().first() {
            None => Err(wrong("predictions", "an empty file".into())),
            Some(b'[') => {
                let (all, mended) = match parts(trimmed) {
                    Some(all) => (all, false),
                    None => match value(trimmed).map_err(|e| wrong("a JSON list", e))? {
                        (Json::List(all), mended) => (all, mended),
                        _ => return Err(wrong("a JSON list", "another value".into())),
                    },
                };
                Ok(numbered(all, mended))
            }
            Some(b'{') => match one_object(trimmed) {
                Some((all, whole)) => Ok(Records {
                    whole,
                    ..numbered(all, false)
                }),
                None => self.lines(trimmed),
            },
            Some(_) => Err(wrong(
                "a JSON list, or a JSON object a line",
                format!("{:?}", trimmed.chars().take(20).collect::<String>()),
            )),
        }
    }

    /// Its text, cut into records; none of a file that holds them in another way.
    pub(super) fn cut(&self) -> Option<Cut<'_>> {
        let Held::Text(text) = &self.held else {
            return None;
        };
        let text = text.trim_start_matches(AROUND);
        let lines = || {
            // Of JSON lines the first is an object by itself, and others follow.
            let line = text.split('\n').next().unwrap_or_default();
            serde_json::from_str::<Json>(line).is_ok_and(|first| first.is_object())
                && !text[line.len()..].trim().is_empty()
        };
        let cut = match text.as_bytes().first() {
            Some(b'[') => true,
            Some(b'{') => lines(),
            _ => false,
        };
        cut.then(|| Cut::of(text))
    }

    fn lines<'a>(&self, text: &'a str) -> Result<Records<'a>> {
        let lines: Vec<(usize, &str)> = text
            .split('\n')
            .enumerate()
            .filter(|(_, l)| !l.trim_start().is_empty())
            .collect();
        let read = |(i, line): &(usize, &'a str)| {
            let place = Place::Line(i + 1);
            match value(line) {
                Ok((value, mended)) => Ok((place, value, mended)),
                Err(e) => Err(Error::data(&self.path, place.to_string(), "a JSON object", e)),
            }
        };
        let all: Result<Vec<_>> = lines.par_iter().map(read).collect();
        let all = all.map_err(|any| lines.iter().find_map(|line| read(line).err()).unwrap_or(any))?;
        let mended = all.iter().filter(|(.., mended)| *mended).count();
        Ok(Records {
            all: all.into_iter().map(|(place, value, _)| (place, value)).collect(),
            whole: None,
            mended,
        })
    }

    fn samples<'a>(&self, samples: &'a [(String, Vec<u8>)]) -> Result<Records<'a>> {
        let read = |(name, bytes): &'a (String, Vec<u8>)| match serde_json::from_slice(bytes) {
            Ok(value) => Ok((Place::Named(name), value)),
            Err(e) => Err(not_inspect(&self.path, name, e.to_string())),
        };
        Ok(Records {
            all: samples.iter().map(read).collect::<Result<_>>()?,
            whole: None,
            mended: 0,
        })
    }
}

fn numbered(all: Vec<Json<'_>>, mended: bool) -> Records<'_> {
    let all = all.into_iter().enumerate();
    Records {
        all: all.map(|(i, v)| (Place::Item(i + 1), v)).collect(),
        whole: None,
        mended: usize::from(mended),
    }
}

/// One object over the whole file that holds its records under a key: a log of inspect, or a manifest.
fn one_object(text: &str) -> Option<(Vec<Json<'_>>, Option<Whole<'_>>)> {
    // Of JSON lines the first is an object by itself.
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Json>();
    let Some(Ok(Json::Object(whole))) = stream.next() else {
        return None;
    };
    if !text[stream.byte_offset()..].trim().is_empty() {
        return None;
    }
    let key = ["samples", "data"]
        .into_iter()
        .find(|key| whole.iter().any(|(own, _)| own == key))?;
    let (mut held, beside): (Vec<_>, Vec<_>) = whole.into_iter().partition(|(own, _)| own == key);
    match held.pop()?.1 {
        Json::List(all) => Some((all, None)),
        Json::Object(all) => {
            let (keys, all) = all.into_iter().unzip();
            let beside = Json::Object(beside);
            Some((all, Some(Whole { keys, beside })))
        }
        _ => None,
    }
}

/// A value, and whether halves of surrogate pairs were replaced in it.
pub(super) fn value(text: &str) -> std::result::Result<(Json<'_>, bool), String> {
    match serde_json::from_str(text) {
        Ok(value) => Ok((value, false)),
        Err(e) => match mend(text).map(|text| serde_json::from_str(&text).map(Json::into_owned)) {
            Some(Ok(value)) => Ok((value, true)),
            _ => Err(e.to_string()),
        },
    }
}

/// The text with `\ufffd` in the place of escaped halves of surrogate pairs; none where there are none.
fn mend(text: &str) -> Option<String> {
    let unit = |at: usize| -> Option<u16> {
        let digits = text
            .get(at + 2..at + 6)
            .filter(|_| text[at..].starts_with("\\u"))?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    let bytes = text.as_bytes();
    while let Some(found) = memchr::memchr(b'\\', &bytes[at..]) {
        at += found;
        match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
            Some(0xD800..=0xDFFF) => {
                out.push_str(&text[copied..at]);
                out.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            _ => at += 2,
        }
        at = at.min(text.len());
    }
    (copied > 0).then(|| out + &text[copied..])
}

fn not_inspect(path: &Path, place: &str, found: String) -> Error {
    Error::data(path, place, "a log of inspect (.eval)", found)
}

/// inspect's `.eval`: a ZIP with a JSON file a sample.
fn archive(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let wrong = |place: &str, found: String| not_inspect(path, place, found);
    let file = open_regular(path)?;
    let mut zip = zip::ZipArchive::new(file).map_err(|e| wrong("file", e.to_string()))?;
    let mut names: Vec<String> = zip
        .file_names()
        .filter(|n| n.starts_with("samples/") && n.ends_with(".json"))
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        return Err(wrong("file", "a ZIP without samples/*.json".into()));
    }
    names.sort();
    let (mut all, mut total) = (Vec::with_capacity(names.len()), 0);
    for name in names {
        let entry = zip.by_name(&name).map_err(|e| wrong(&name, e.to_string()))?;
        let mut bytes = Vec::new();
        // What an archive says of its sizes is not believed.
        let read = entry.take(MOST_SAMPLE_BYTES + 1).read_to_end(&mut bytes);
        total += read.map_err(|e| wrong(&name, e.to_string()))? as u64;
        if bytes.len() as u64 > MOST_SAMPLE_BYTES || total > MOST_BYTES {
            return Err(wrong(&name, "more bytes than a log may have".into()));
        }
        all.push((name, bytes));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::cut::PART;
    use super::*;

    /// The records in compact JSON, and how many were mended.
    fn read_text(text: &str) -> Result<(Vec<String>, usize)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let opened = open(file.path())?;
        let records = opened.records()?;
        let all = records.all.iter().map(|(_, v)| v.to_value().to_string());
        Ok((all.collect(), records.mended))
    }

    #[test]
    fn lists_lines_and_logs_are_told_apart() {
        for (text, n) in [
            ("[{\"a\": 1}, {\"a\": 2}]", 2),
            ("{\"a\": 1}\n\n{\"a\": 2}\n{\"a\": 3}", 3),
            ("\u{feff}{\"a\": 1}\n", 1),
            ("{\"eval\": {}, \"samples\": [{\"id\": 1}]}", 1),
            ("{\"split\": \"test\", \"data\": {\"0\": {}, \"1\": {}}}", 2),
        ] {
            assert_eq!(read_text(text).unwrap().0.len(), n, "{text}");
        }
        for bad in [
            "",
            "  \n",
            "hello",
            "[1, 2",
            "[1, 2,]",
            "[1] 2",
            "{\"a\": 1}\n{\"a\": ",
            "PK\u{3}\u{4}",
        ] {
            assert!(read_text(bad).is_err(), "{bad:?}");
        }
        let e = read_text("{\"a\": 1}\n{\"a\": nan}").err().unwrap().to_string();
        assert!(e.contains("line 2"), "{e}");
    }

    #[test]
    fn halves_of_surrogate_pairs_are_replaced_and_counted() {
        let lines = r#"{"a": "x\ud83dy"}
{"a": "\ud83d\ude00"}
{"a": "\udc00\\ud800"}"#;
        let (all, mended) = read_text(lines).unwrap();
        assert_eq!(mended, 2);
        let texts = [r#"{"a":"x�y"}"#, r#"{"a":"😀"}"#, r#"{"a":"�\\ud800"}"#];
        assert_eq!(all, texts);
        // An escape that is cut off is no text.
        assert!(read_text("{\"a\": \"\\ud8").is_err());
    }

    /// Texts hold what parts are cut at, in every second one.
    #[test]
    fn a_list_in_parts_is_the_list() {
        let record = |i: usize| match i % 2 {
            0 => format!("{{\"id\": {i}, \"text\": \"}}, {{ \\\" }},\\n {{\"}}"),
            _ => format!("{{\"id\": {i}, \"of\": [{{}}, {{\"a\": [{{}}, {{}}]}}]}}"),
        };
        let pad = "x".repeat(1000);
        let records: Vec<String> = (0..5 * PART / 1000)
            .map(|i| format!("{{\"pad\": \"{pad}\", \"of\": {}}}", record(i)))
            .collect();
        let text = format!("[\n{}\n]\n", records.join(" ,\r\n "));
        let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
        let (all, mended) = read_text(&text).unwrap();
        assert!(all.iter().eq(whole
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.to_string())
            .collect::<Vec<_>>()
            .iter()));
        assert_eq!(mended, 0);
        // A part that begins within a text is none, whatever it looks like.
        let within = format!("[{{\"a\": \"{}\"}}]", "}, {".repeat(PART));
        assert!(parts(&within).is_none());
        assert_eq!(read_text(&within).unwrap().0.len(), 1);
        // The error is the one of the whole.
        let broken = text.replacen("\"id\": 4001", "\"id\": nan", 1);
        let expected = serde_json::from_str::<serde_json::Value>(&broken).unwrap_err();
        let found = read_text(&broken).unwrap_err().to_string();
        assert!(found.contains(&expected.to_string()), "{found}");
    }
}
