//! A text in parts, each read by itself.

use crate::eval::json::{self, Json};
use rayon::prelude::*;

const SPACE: [char; 4] = [' ', '\n', '\r', '\t'];
/// A part has about so many bytes.
pub(super) const PART: usize = 1 << 20;

/// A text cut where its records begin, so that parts of it are read at once.
///
/// In a list, where an object ends and the next begins is guessed by the signs between them, which may as well stand in a text. A
/// part holds only if whole elements fill it to its end; so the first part, which begins where the list does, proves that the second
/// begins with an element, and so on.
pub(super) struct Cut<'a> {
    text: &'a str,
    list: bool,
    starts: Vec<usize>,
}

impl<'a> Cut<'a> {
    /// Of a text that begins with the sign of a list, or else of an object a line.
    pub(super) fn of(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let list = bytes.first() == Some(&b'[');
        let mut starts = vec![usize::from(list)];
        let mut from = PART;
        while from < bytes.len() {
            let next = match list {
                true => between(bytes, from),
                false => memchr::memchr(b'\n', &bytes[from..]).map(|at| from + at + 1),
            };
            let Some(at) = next else { break };
            starts.push(at);
            from = at + PART;
        }
        Cut { text, list, starts }
    }

    /// The parts.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// A part's text.
    pub(super) fn text(&self, part: usize) -> &'a str {
        let to = self.starts.get(part + 1).copied().unwrap_or(self.text.len());
        self.starts.get(part).map_or("", |from| &self.text[*from..to])
    }

    /// Hands on each record of a part. None where the text has to be read as one, such as a list with an error in it.
    pub(super) fn each(&self, part: usize, mut take: impl FnMut(Json<'a>) -> Option<()>) -> Option<()> {
        let text = self.text(part);
        if self.list {
            return elements(text, part + 1 == self.len(), take);
        }
        for line in text.split('\n').filter(|line| !line.trim_start().is_empty()) {
            take(match json::record(line) {
                Some((record, end)) if line[end..].trim_matches(SPACE).is_empty() => record,
                _ => serde_json::from_str(line).ok()?,
            })?;
        }
        Some(())
    }

    /// The first record.
    pub(super) fn first(&self) -> Option<Json<'a>> {
        let rest = self.text(0);
        serde_json::Deserializer::from_str(rest).into_iter().next()?.ok()
    }
}

/// The elements of a list of objects, read in parts at once; none of what has to be read as one.
pub(super) fn parts(text: &str) -> Option<Vec<Json<'_>>> {
    let cut = Cut::of(text);
    let read = |part: usize| {
        let mut all = Vec::new();
        cut.each(part, |record| {
            all.push(record);
            Some(())
        })?;
        Some(all)
    };
    let parts: Option<Vec<Vec<Json>>> = (0..cut.len()).into_par_iter().map(read).collect();
    let parts = parts?;
    let mut all = Vec::with_capacity(parts.iter().map(Vec::len).sum());
    parts.into_iter().for_each(|part| all.extend(part));
    Some(all)
}

/// The place of the first brace behind `from` that opens an object behind another one: of the second in `}, {`.
fn between(bytes: &[u8], mut from: usize) -> Option<usize> {
    let space = |at: &usize| bytes.get(*at).is_some_and(|b| b" \n\r\t".contains(b));
    loop {
        from += memchr::memchr(b'}', bytes.get(from..)?)? + 1;
        let comma = (from..).find(|at| !space(at))?;
        if bytes.get(comma) != Some(&b',') {
            continue;
        }
        let open = (comma + 1..).find(|at| !space(at))?;
        if bytes.get(open) == Some(&b'{') {
            return Some(open);
        }
    }
}

/// Hands on the elements that fill a text, with a comma behind each; behind the `last` of a list its end. None where they do not.
fn elements<'a>(text: &'a str, last: bool, mut take: impl FnMut(Json<'a>) -> Option<()>) -> Option<()> {
    let mut rest = text.trim_start_matches(SPACE);
    loop {
        let end = match json::record(rest) {
            Some((record, end)) => {
                take(record)?;
                end
            }
            None => {
                let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Json>();
                take(stream.next()?.ok()?)?;
                stream.byte_offset()
            }
        };
        let behind = rest[end..].trim_start_matches(SPACE);
        if last {
            if let Some(end) = behind.strip_prefix(']') {
                return end.trim_matches(SPACE).is_empty().then_some(());
            }
        }
        rest = behind.strip_prefix(',')?.trim_start_matches(SPACE);
        if !last && rest.is_empty() {
            return Some(());
        }
    }
}
