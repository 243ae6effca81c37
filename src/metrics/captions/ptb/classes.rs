//! What the tokenizer takes a character for.

use std::sync::LazyLock;

/// Of a word.
pub(super) const LETTER: u8 = 1;
/// Of a word, and of what joins letters and digits by hyphens.
pub(super) const PLAIN: u8 = 2;
/// A decimal digit of any script.
pub(super) const DIGIT: u8 = 4;
/// May begin a sentence behind an abbreviation.
pub(super) const UPPER: u8 = 8;
/// Stands alone.
pub(super) const SYMBOL: u8 = 16;
/// A blank, no line's end.
pub(super) const SPACE: u8 = 32;
/// A line's end.
pub(super) const NEWLINE: u8 = 64;

static CLASSES: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut classes = vec![0; 1 << 16];
    let rows = include_str!("classes.txt").lines().chain([
        "space 9 20 a0 2000-200a 3000",
        "newline a-d 2028-2029", // U+0085 is an ellipsis here.
    ]);
    for row in rows {
        let mut words = row.split(' ');
        let class = match words.next() {
            Some("letter") => LETTER | PLAIN,
            Some("mark") => LETTER,
            Some("digit") => DIGIT,
            Some("uppercase") => UPPER,
            Some("symbol") => SYMBOL,
            Some("space") => SPACE,
            Some("newline") => NEWLINE,
            _ => continue,
        };
        for range in words {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |hex| usize::from_str_radix(hex, 16).unwrap_or(usize::MAX);
            if let Some(range) = classes.get_mut(number(first)..=number(last)) {
                range.iter_mut().for_each(|c| *c |= class);
            }
        }
    }
    classes.into()
});

/// The classes of a character, as bits. Those outside the Basic Multilingual Plane are of none: the program sees two surrogates.
pub(super) fn of(text: &[char]) -> Vec<u8> {
    let classes = &**CLASSES;
    text.iter()
        .map(|&c| classes.get(c as usize).copied().unwrap_or(0))
        .collect()
}
