//! What Python's `json` writes and JSON has not: `NaN`, `Infinity`, and halves of characters.

use std::collections::HashMap;

/// No manifest has more of them; what is left over stays and is no JSON.
const MOST_WORDS: usize = 1 << 26;

/// What stands in a field and is no JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Odd {
    /// `NaN`, `Infinity` or `-Infinity`.
    Number(&'static str),
    /// An escape for half a character without the other half.
    Half(String),
}

/// How far lists and objects stand within each other.
pub(super) fn depth(text: &[u8]) -> usize {
    let (mut now, mut most) = (0usize, 0);
    each(text, |piece| {
        match piece {
            Piece::Open => now += 1,
            Piece::Close => now = now.saturating_sub(1),
            _ => {}
        }
        most = most.max(now);
    });
    most
}

/// The text without what is no JSON, where there is any of it, and what it was in which of these fields of the outermost
/// object.
pub(super) fn mend(text: &[u8], wanted: &[&str]) -> Option<(Vec<u8>, HashMap<String, Odd>)> {
    let (mut depth, mut last, mut key) = (0usize, 0..0, 0..0);
    let (mut out, mut from) = (Vec::new(), 0);
    let mut odd = HashMap::new();
    each(text, |piece| {
        let (at, len, instead, what) = match piece {
            Piece::Open => return depth += 1,
            Piece::Close => return depth = depth.saturating_sub(1),
            // What follows is a name; a broken one is nobody's.
            Piece::Comma if depth == 1 => return key = 0..0,
            Piece::Text(range) if depth == 1 => return last = range,
            Piece::Colon if depth == 1 => return key = last.clone(),
            Piece::Comma | Piece::Text(_) | Piece::Colon => return,
            Piece::Word(at, word) => (at, word.len(), &b"null"[..], Odd::Number(word)),
            Piece::Half(at) => {
                let escape = String::from_utf8_lossy(&text[at..at + 6]).into_owned();
                (at, 6, &b"\\ufffd"[..], Odd::Half(escape))
            }
        };
        out.extend_from_slice(&text[from..at]);
        out.extend_from_slice(instead);
        from = at + len;
        let name: Option<String> = serde_json::from_slice(&text[key.clone()]).ok();
        if let Some(name) = name.filter(|n| wanted.contains(&n.as_str())) {
            odd.entry(name).or_insert(what);
        }
    });
    if from == 0 {
        return None;
    }
    out.extend_from_slice(&text[from..]);
    Some((out, odd))
}

/// Writes zeros over `NaN`, `Infinity` and `-Infinity`, so that JSON is left and every byte stays in its place; tells where.
pub(super) fn blank(text: &mut [u8]) -> Vec<(usize, &'static str)> {
    let mut words = Vec::new();
    each(text, |piece| match piece {
        Piece::Word(at, word) if words.len() < MOST_WORDS => words.push((at, word)),
        _ => {}
    });
    for (at, word) in &words {
        let zeros = &mut text[*at..at + word.len()];
        zeros.fill(b'0');
        // 0.0, and -0.000000 as it must not begin with two zeros.
        let point = 1 + usize::from(word.starts_with('-'));
        zeros[point] = b'.';
        if word.starts_with('-') {
            zeros[0] = b'-';
        }
    }
    words
}

/// Takes [`blank`]'s zeros back in the bytes `from..` of a text.
pub(super) fn unblank(bytes: &mut [u8], from: usize, words: &[(usize, &'static str)]) {
    let behind = |end: usize| words.partition_point(|(at, _)| *at < end);
    for (at, word) in &words[behind(from)..behind(from + bytes.len())] {
        bytes[at - from..at - from + word.len()].copy_from_slice(word.as_bytes());
    }
}

/// What a look over JSON's bytes finds.
enum Piece {
    Open,
    Close,
    Comma,
    Colon,
    /// A text with its quotation marks.
    Text(std::ops::Range<usize>),
    Word(usize, &'static str),
    /// Where an escape stands for half a character.
    Half(usize),
}

fn each(text: &[u8], mut take: impl FnMut(Piece)) {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => {
                let begin = at;
                at = behind_text(text, at + 1, &mut take);
                take(Piece::Text(begin..at));
                continue;
            }
            b'{' | b'[' => take(Piece::Open),
            b'}' | b']' => take(Piece::Close),
            b',' => take(Piece::Comma),
            b':' => take(Piece::Colon),
            b'N' | b'I' | b'-' => {
                let words = ["NaN", "Infinity", "-Infinity"];
                if let Some(word) = words.into_iter().find(|w| text[at..].starts_with(w.as_bytes())) {
                    take(Piece::Word(at, word));
                    at += word.len();
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// Behind the quotation mark that ends a text.
fn behind_text(text: &[u8], mut at: usize, take: &mut impl FnMut(Piece)) -> usize {
    loop {
        match memchr::memchr2(b'"', b'\\', &text[at..]) {
            None => return text.len(),
            Some(i) if text[at + i] == b'"' => return at + i + 1,
            Some(i) => {
                at += i;
                let unit = |at: usize| {
                    let hex = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
                    u16::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
                };
                at += match (unit(at), unit(at + 6)) {
                    (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                    (Some(0xd800..=0xdfff), _) => {
                        take(Piece::Half(at));
                        6
                    }
                    _ => 2,
                };
                at = at.min(text.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn mended(text: &str) -> Option<(String, Vec<(String, Odd)>)> {
        let (bytes, odd) = mend(text.as_bytes(), &["a", "b", "d", "o", "p"])?;
        let mut odd: Vec<_> = odd.into_iter().collect();
        odd.sort_by(|a, b| a.0.cmp(&b.0));
        Some((String::from_utf8(bytes).unwrap(), odd))
    }

    #[test]
    fn what_python_writes_and_json_has_not() {
        let number = |key: &str, word| (key.to_owned(), Odd::Number(word));
        for (text, expected, odd) in [
            (r#"{"d":NaN}"#, r#"{"d":null}"#, vec![number("d", "NaN")]),
            (
                r#"{"a": [1, -Infinity], "b": {"c": Infinity}}"#,
                r#"{"a": [1, null], "b": {"c": null}}"#,
                vec![number("a", "-Infinity"), number("b", "Infinity")],
            ),
            (
                r#"{"o": "x", "\ud83d": NaN, "x": NaN, "p": [{"o": NaN}, NaN]}"#,
                r#"{"o": "x", "\ufffd": null, "x": null, "p": [{"o": null}, null]}"#,
                vec![number("p", "NaN")],
            ),
            (
                r#"{"o": "x \ud83d y", "p": "\ude00"}"#,
                r#"{"o": "x \ufffd y", "p": "\ufffd"}"#,
                vec![
                    ("o".into(), Odd::Half("\\ud83d".into())),
                    ("p".into(), Odd::Half("\\ude00".into())),
                ],
            ),
        ] {
            assert_eq!(mended(text), Some((expected.to_owned(), odd)), "{text}");
        }
        for whole in [
            r#"{"o": "NaN, -Infinity \\ud83d \ud83d\ude00 \"NaN"}"#,
            r#"{"NaN": 1}"#,
            r#"{"a": "\"#,
            r#"{"a": "\ud8"#,
        ] {
            assert_eq!(mended(whole), None, "{whole}");
        }
    }

    #[test]
    fn blanking_keeps_every_byte_in_its_place() {
        let text = r#"{"a": NaN, "b": [-Infinity, Infinity], "NaN": "NaN"}"#;
        let mut bytes = text.as_bytes().to_vec();
        let words = blank(&mut bytes);
        assert_eq!(bytes, br#"{"a": 0.0, "b": [-0.000000, 0.000000], "NaN": "NaN"}"#);
        assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
        let part = 16..38;
        let mut back = bytes[part.clone()].to_vec();
        unblank(&mut back, part.start, &words);
        assert_eq!(back, text.as_bytes()[part].to_vec());
    }
}
