//! Records of any file of predictions or items: a JSON list, JSON lines, a log of inspect.

use crate::error::{Error, Result};
use crate::fsutil::{open_regular, read_text_within};
use rayon::prelude::*;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// A larger file is no benchmark's.
const MOST_BYTES: u64 = 4 << 30;
/// Of one sample in a log of inspect.
const MOST_SAMPLE_BYTES: u64 = 64 << 20;

/// What a file holds, in its order.
pub struct Records {
    /// Each with its place in words: "line 7", "item 3".
    pub all: Vec<(String, Value)>,
    /// Half of a surrogate pair stood in so many of them, as Python writes it and no text can hold it; U+FFFD stands there now.
    pub mended: usize,
}

impl Records {
    /// Takes out answers of `af2 eval` to silence in the sound's place, which are no answers to the benchmark; how many there were.
    pub fn without_control(&mut self) -> usize {
        let before = self.all.len();
        self.all.retain(|(_, record)| !is_control(record));
        before - self.all.len()
    }
}

/// Whether a record is one of `predictions.jsonl` whose sound was replaced by silence.
fn is_control(record: &Value) -> bool {
    record.get("control") == Some(&Value::Bool(true)) && record.get("reference").is_some()
}

/// Reads a file: a JSON list of objects, objects a line, or one of inspect's logs (`.eval`, `.json`).
///
/// # Errors
/// A file that is none of those, with the line or item.
pub fn read(path: &Path) -> Result<Records> {
    let mut head = [0u8; 4];
    let got = open_regular(path)?
        .read(&mut head)
        .map_err(|e| Error::io(path, e))?;
    if head[..got].starts_with(b"PK") {
        return archive(path);
    }
    let text = read_text_within(path, MOST_BYTES)?;
    let trimmed = text.trim_start_matches(['\u{feff}', ' ', '\n', '\r', '\t']);
    let wrong = |expected: &str, found: String| Error::data(path, "file", expected, found);
    match trimmed.as_bytes().first() {
        None => Err(wrong("predictions", "an empty file".into())),
        Some(b'[') => {
            let (value, mended) = value(trimmed).map_err(|e| wrong("a JSON list", e))?;
            let Value::Array(all) = value else {
                return Err(wrong("a JSON list", "another value".into()));
            };
            let all = all.into_iter().enumerate();
            Ok(Records {
                all: all.map(|(i, v)| (format!("item {}", i + 1), v)).collect(),
                mended: usize::from(mended),
            })
        }
        Some(b'{') => match one_object(trimmed) {
            Some(samples) => Ok(samples),
            None => lines(path, trimmed),
        },
        Some(_) => Err(wrong(
            "a JSON list, or a JSON object a line",
            format!("{:?}", trimmed.chars().take(20).collect::<String>()),
        )),
    }
}

/// One object over the whole file that holds its records under a key: a log of inspect, or a manifest.
fn one_object(text: &str) -> Option<Records> {
    // Of JSON lines the first is an object by itself.
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let Some(Ok(Value::Object(mut whole))) = stream.next() else {
        return None;
    };
    if !text[stream.byte_offset()..].trim().is_empty() {
        return None;
    }
    let records = match whole.remove("samples").or_else(|| whole.remove("data")) {
        Some(Value::Array(all)) => all,
        Some(Value::Object(all)) => all.into_iter().map(|(_, v)| v).collect(),
        _ => return None,
    };
    let all = records.into_iter().enumerate();
    Some(Records {
        all: all.map(|(i, v)| (format!("item {}", i + 1), v)).collect(),
        mended: 0,
    })
}

fn lines(path: &Path, text: &str) -> Result<Records> {
    let lines: Vec<(usize, &str)> = text
        .split('\n')
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty())
        .collect();
    let all: Vec<(String, Value, bool)> = lines
        .par_iter()
        .map(|(i, line)| {
            let place = format!("line {}", i + 1);
            match value(line) {
                Ok((value, mended)) => Ok((place, value, mended)),
                Err(e) => Err(Error::data(path, place, "a JSON object", e)),
            }
        })
        .collect::<Result<_>>()?;
    let mended = all.iter().filter(|(.., mended)| *mended).count();
    Ok(Records {
        all: all.into_iter().map(|(place, value, _)| (place, value)).collect(),
        mended,
    })
}

/// A value, and whether halves of surrogate pairs were replaced in it.
pub(super) fn value(text: &str) -> std::result::Result<(Value, bool), String> {
    match serde_json::from_str(text) {
        Ok(value) => Ok((value, false)),
        Err(e) => match mend(text).map(|text| serde_json::from_str(&text)) {
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

/// inspect's `.eval`: a ZIP with a JSON file a sample.
fn archive(path: &Path) -> Result<Records> {
    let wrong = |place: &str, found: String| Error::data(path, place, "a log of inspect (.eval)", found);
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
        let value = serde_json::from_slice(&bytes).map_err(|e| wrong(&name, e.to_string()))?;
        all.push((name, value));
    }
    Ok(Records { all, mended: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Records> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
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
            assert_eq!(read_text(text).unwrap().all.len(), n, "{text}");
        }
        for bad in [
            "",
            "  \n",
            "hello",
            "[1, 2",
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
        let records = read_text(lines).unwrap();
        assert_eq!(records.mended, 2);
        let texts: Vec<_> = records
            .all
            .iter()
            .map(|(_, v)| v["a"].as_str().unwrap())
            .collect();
        assert_eq!(texts, ["x\u{fffd}y", "😀", "\u{fffd}\\ud800"]);
        // An escape that is cut off is no text.
        assert!(read_text("{\"a\": \"\\ud8").is_err());
    }
}
