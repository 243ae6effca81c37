//! Tables of text: CSV with commas, semicolons or tabs.

use crate::error::{Error, Result};
use std::path::Path;

/// A longer field is a quotation mark that nobody closed.
const MOST_FIELD_BYTES: usize = 1 << 20;
/// A wider table is no benchmark's.
const MOST_COLUMNS: usize = 4096;

/// What a table holds, without a meaning for its first line.
pub(crate) struct Table {
    /// Each with its line in the file, from 1.
    pub lines: Vec<(u64, Vec<String>)>,
}

/// Splits a text into fields. Lines that are empty, or begin with `#` and a blank before the first line of fields, are passed over.
///
/// # Errors
/// Fields that are too long, lines that are too wide, a quotation mark that nothing closes.
pub(crate) fn read(path: &Path, text: &str) -> Result<Table> {
    // Comments of AudioSet's files; `# YTID, …`, their header, is one too.
    let (mut begin, mut skipped) = (0, 0);
    for line in text.split_inclusive('\n') {
        if !(line.starts_with("# ") || line.trim().is_empty()) {
            break;
        }
        begin += line.len();
        skipped += 1;
    }
    let text = &text[begin..];
    let delimiter = delimiter(text);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    let mut lines: Vec<(u64, Vec<String>)> = Vec::new();
    let mut record = csv::StringRecord::new();
    // Lines are counted here: the reader takes a line's end of two characters for the next line's beginning.
    let (mut line, mut counted) = (skipped + 1, 0);
    loop {
        let more = reader
            .read_record(&mut record)
            .map_err(|e| Error::data(path, "table", "CSV", e.to_string()))?;
        if !more {
            break;
        }
        let mut starts = record
            .position()
            .map_or(counted, |p| p.byte() as usize)
            .max(counted);
        while text
            .as_bytes()
            .get(starts)
            .is_some_and(|b| matches!(b, b'\r' | b'\n'))
        {
            starts += 1;
        }
        line += memchr::memchr_iter(b'\n', &text.as_bytes()[counted..starts]).count() as u64;
        counted = starts;
        let refuse = |expected: String, found: usize| {
            Error::data(path, format!("line {line}"), expected, found.to_string())
        };
        if record.len() > MOST_COLUMNS {
            return Err(refuse(format!("at most {MOST_COLUMNS} columns"), record.len()));
        }
        if let Some(long) = record.iter().find(|f| f.len() > MOST_FIELD_BYTES) {
            let e = refuse(format!("fields of at most {MOST_FIELD_BYTES} bytes"), long.len());
            return Err(e.hint("is a quotation mark not closed?"));
        }
        if record.iter().all(|f| f.trim().is_empty()) {
            continue;
        }
        lines.push((line, record.iter().map(str::to_owned).collect()));
    }
    // Quoted is what holds an end of a line or a comma, and then the text ends with its mark.
    let open = |field: &String| field.contains(['\n', char::from(delimiter)]);
    match lines.last() {
        Some((line, own))
            if own.last().is_some_and(open) && !text.trim_end_matches(['\r', '\n']).ends_with('"') =>
        {
            let (place, expected) = (format!("line {line}"), "a quotation mark that ends the field");
            Err(Error::data(path, place, expected, "the file's end"))
        }
        _ => Ok(Table { lines }),
    }
}

/// What stands most often in the first line, outside of quotation marks.
fn delimiter(text: &str) -> u8 {
    let first = text.lines().next().unwrap_or_default();
    let mut counts = [(b',', 0), (b'\t', 0), (b';', 0)];
    let mut quoted = false;
    for byte in first.bytes() {
        quoted ^= byte == b'"';
        for (sign, n) in &mut counts {
            *n += usize::from(!quoted && byte == *sign);
        }
    }
    // Of as many the tab, which no name of a column holds; then the comma.
    let [(_, commas), (_, tabs), (_, semicolons)] = counts;
    match tabs > 0 && tabs >= commas.max(semicolons) {
        true => b'\t',
        false if semicolons > commas => b';',
        false => b',',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<(u64, Vec<String>)> {
        read(Path::new("t.csv"), text).unwrap().lines
    }

    fn line(n: u64, fields: &[&str]) -> (u64, Vec<String>) {
        (n, fields.iter().map(|f| (*f).to_owned()).collect())
    }

    #[test]
    fn fields_are_those_of_other_tools() {
        assert_eq!(
            fields("a,b\r\n1,\"x,\r\ny \"\"z\"\"\"\r\n\r\n2,\r\n"),
            [
                line(1, &["a", "b"]),
                line(2, &["1", "x,\r\ny \"z\""]),
                line(5, &["2", ""]),
            ]
        );
        assert_eq!(
            fields("a\tb, c\n1\t2\n"),
            [line(1, &["a", "b, c"]), line(2, &["1", "2"])]
        );
        assert_eq!(
            fields("a;b\n1,5;2\n"),
            [line(1, &["a", "b"]), line(2, &["1,5", "2"])]
        );
        assert_eq!(
            fields("# Segments\n# YTID, labels\n--4gq,0\n"),
            [line(3, &["--4gq", "0"])]
        );
        assert_eq!(fields("").len(), 0);
    }

    #[test]
    fn what_does_not_end_is_told_with_its_line() {
        let text = format!("a,b\n1,\"{}", "x\n".repeat(1 << 20));
        let e = read(Path::new("t.csv"), &text).err().unwrap().to_string();
        assert!(e.contains("line 2") && e.contains("quotation mark"), "{e}");
        for text in ["a,b\n1,\"2\n", "a,b\n1,\"2,3"] {
            let e = read(Path::new("t.csv"), text).err().unwrap().to_string();
            assert!(e.contains("line 2") && e.contains("quotation mark"), "{e}");
        }
        assert_eq!(fields("a,b\n1,\"2\n\"\r\n").len(), 2);
        let wide = ",".repeat(5000);
        assert!(read(Path::new("t.csv"), &wide).is_err());
    }
}
