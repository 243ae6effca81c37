//! A file that is to be written, and how it is filled.

use crate::fsutil::Out;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};
use serde_json::Serializer;
use std::io::{self, Write};
use std::path::PathBuf;

type Fill<'a> = Box<dyn FnOnce(&mut dyn Out) -> io::Result<()> + 'a>;

/// A file to be.
pub(super) struct File<'a> {
    pub(super) path: PathBuf,
    pub(super) fill: Fill<'a>,
}

impl<'a> File<'a> {
    pub(super) fn new(path: PathBuf, fill: impl FnOnce(&mut dyn Out) -> io::Result<()> + 'a) -> Self {
        let fill = Box::new(fill);
        File { path, fill }
    }

    /// Of a text.
    pub(super) fn text(path: PathBuf, text: String) -> Self {
        File::new(path, move |w| w.write_all(text.as_bytes()))
    }

    /// Of indented JSON.
    pub(super) fn json(path: PathBuf, value: serde_json::Value) -> Self {
        File::new(path, move |w| {
            serde_json::to_writer_pretty(&mut *w, &value)?;
            w.write_all(b"\n")
        })
    }
}

/// A value and the end of its line. Python's `splitlines`, by which some read such files, also ends lines at U+0085, U+2028 and
/// U+2029: these are escaped.
pub(super) fn line(w: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(&mut *w, OneLine))?;
    w.write_all(b"\n")
}

struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, w: &mut W, fragment: &str) -> io::Result<()> {
        let ends = ['\u{85}', '\u{2028}', '\u{2029}'];
        let mut rest = fragment;
        while let Some(at) = rest.find(ends) {
            let (before, found) = rest.split_at(at);
            let mut chars = found.chars();
            let end = chars.next().map_or(0, u32::from);
            CompactFormatter.write_string_fragment(w, before)?;
            write!(w, "\\u{end:04x}")?;
            rest = chars.as_str();
        }
        CompactFormatter.write_string_fragment(w, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    #[test]
    fn a_line_is_one_line_for_everyone() {
        let value =
            json!({"a\u{2028}": ["\u{85}\u{2029}x\u{85}", "\n\r\u{b}\u{1c}", 1.5, null, true, "é🐕"]});
        let mut out = Vec::new();
        line(&mut out, &value).unwrap();
        let text = String::from_utf8(out).unwrap();
        let ends = |c: char| "\n\r\u{b}\u{c}\u{1c}\u{1d}\u{1e}\u{85}\u{2028}\u{2029}".contains(c);
        assert_eq!(text.trim_end_matches('\n').find(ends), None, "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
