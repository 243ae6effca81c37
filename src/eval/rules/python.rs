//! What Python's strings do, where Rust's do something else. The official rules are Python scripts: what they call a word,
//! white space or a digit decides verdicts.
//!
//! As CPython 3.11 does it (Unicode 14). Characters that are newer than that may be letters here and none there.

use std::borrow::Cow;
use std::ops::Range;
use unicode_normalization::char::is_combining_mark;

/// `str.isspace` of one character, and `\s` of `re`: the white space of Unicode, and the four separators U+001C to U+001F.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `\w` of `re`: letters, numbers and the underscore, but neither combining marks nor letters in circles and squares, both of
/// which Rust calls alphanumeric.
pub(super) fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    let framed = matches!(c, '\u{24b6}'..='\u{24e9}' | '\u{1f130}'..='\u{1f149}' | '\u{1f150}'..='\u{1f169}'
        | '\u{1f170}'..='\u{1f189}');
    c.is_alphanumeric() && !framed && !is_combining_mark(c)
}

/// `\w` of the `regex` module, in which NLTK runs its patterns: Unicode's own definition, with marks and without fractions. Its
/// `\s` is Rust's white space.
pub(super) fn is_regex_word(c: char) -> bool {
    let joins = matches!(
        c,
        '_' | '\u{203f}' | '\u{2040}' | '\u{2054}' | '\u{fe33}' | '\u{fe34}' | '\u{fe4d}'
            ..='\u{fe4f}' | '\u{ff3f}' | '\u{200c}' | '\u{200d}'
    );
    c.is_alphabetic() || joins || digit(c).is_some() || is_combining_mark(c)
}

/// The value of a decimal digit of any script, `\d` of `re`.
pub(super) fn digit(c: char) -> Option<u32> {
    /// The zeros of Unicode 14; each has its nine others behind it.
    const ZEROS: [u32; 66] = [
        0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
        0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0,
        0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30,
        0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0,
        0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec,
        0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
    ];
    if c.is_ascii() {
        return c.to_digit(10);
    }
    let code = u32::from(c);
    let after = ZEROS.partition_point(|zero| *zero <= code);
    let value = code - ZEROS.get(after.checked_sub(1)?)?;
    (value < 10).then_some(value)
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.split()`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `str.lower()`.
pub(super) fn lower(text: &str) -> Cow<'_, str> {
    let small = |b: &u8| b.is_ascii() && !b.is_ascii_uppercase();
    match text.as_bytes().iter().all(small) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.to_lowercase()),
    }
}

/// Where in a text a range of [`lower`] of it stands, whole characters of it.
pub(super) fn unlowered(text: &str, lowered: Range<usize>) -> Range<usize> {
    if text.is_ascii() {
        return lowered;
    }
    let (mut at, mut start, mut end) = (0, None, text.len());
    for (i, c) in text.char_indices() {
        if at >= lowered.end && start.is_some() {
            end = i;
            break;
        }
        // A final sigma has the length of any other.
        at += c.to_lowercase().map(char::len_utf8).sum::<usize>();
        if start.is_none() && at > lowered.start {
            start = Some(i);
        }
    }
    let start = start.unwrap_or(text.len());
    start..end.max(start)
}

/// The matches of `\b\w+\b`.
pub(super) fn words(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut rest = text.char_indices();
    std::iter::from_fn(move || {
        let (start, _) = rest.find(|(_, c)| is_word(*c))?;
        let end = rest
            .find(|(_, c)| !is_word(*c))
            .map_or(text.len(), |(end, _)| end);
        Some(start..end)
    })
}

/// Whether `\b` matches at a byte of a text.
pub(super) fn is_boundary(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back().is_some_and(is_word);
    let behind = text[at..].chars().next().is_some_and(is_word);
    before != behind
}

/// `str.isupper()`: a capital, and no small letter or one in title case ("ǅ").
pub(super) fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(|c| c.is_lowercase() || is_title(c))
}

/// `str.islower()`.
pub(super) fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(|c| c.is_uppercase() || is_title(c))
}

fn is_title(c: char) -> bool {
    matches!(c, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}'
        | '\u{1fa8}'..='\u{1faf}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}')
}

/// The byte of the `n`th character, or the end.
pub(super) fn nth(text: &str, n: usize) -> usize {
    text.char_indices().nth(n).map_or(text.len(), |(at, _)| at)
}

/// Where a part lies that was cut out of a text.
pub(super) fn within(text: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize)
        .saturating_sub(text.as_ptr() as usize)
        .min(text.len());
    start..(start + part.len()).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_re_module() {
        let of = |text: &str| {
            words(text)
                .map(|at| text[at].to_owned())
                .collect::<Vec<_>>()
                .join("|")
        };
        assert_eq!(of("don't_stop 4/4, ½ x²"), "don|t_stop|4|4|½|x²");
        // Vowel signs, accents of their own and circled letters are no word characters.
        assert_eq!(of("हिन्दी e\u{301}t Ⓐb 日本"), "ह|न|द|e|t|b|日本");
        assert_eq!(of(&lower("İx")), "i|x");
        assert_eq!(of(""), "");
    }

    #[test]
    fn space_digits_and_case() {
        assert_eq!(strip("\u{a0}\x1c a\u{85}\n"), "a");
        assert_eq!(strip("\u{200b}a"), "\u{200b}a");
        assert_eq!(split("a\x1fb\u{2003}c").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(
            (digit('٣'), digit('7'), digit('²'), digit('x')),
            (Some(3), Some(7), None, None)
        );
        assert!(is_upper("ÉTÉ 1") && !is_upper("ÉTÉ ß") && !is_upper("1") && !is_upper("ǅ A"));
        assert!(is_lower("été") && !is_lower("") && is_lower("ª"));
    }

    #[test]
    fn what_was_lowered_is_found_again() {
        let text = "İ Straße ΟΔΟΣ x";
        let lowered = lower(text);
        for (word, raw) in [("straße", "Straße"), ("οδος", "ΟΔΟΣ"), ("x", "x"), ("i", "İ")] {
            let start = lowered.find(word).unwrap();
            assert_eq!(&text[unlowered(text, start..start + word.len())], raw);
        }
        assert_eq!(
            unlowered(text, lowered.len()..lowered.len()),
            text.len()..text.len()
        );
    }
}
