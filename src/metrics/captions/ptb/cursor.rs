//! A place in the text, and the best of the rules that apply there: of all, the one that reads furthest, and of those the first.
//!
//! What a rule reads counts with what it only looks at behind the token.

use super::classes::{DIGIT, LETTER, PLAIN};
use super::reach::{Reach, Tags};

/// What is written for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Nothing.
    Nothing,
    /// A line's end.
    Line,
    /// What stands there.
    Same,
    /// What stands there, without soft hyphens; a hyphen where nothing is left.
    Unhyphenated,
    /// Another text.
    Fixed(&'static str),
    /// Typographic quotation marks as those of TeX; straight ones opening or closing.
    Quotes { opening: bool },
    /// `&amp;` as `&`.
    Ampersands,
    /// Blanks as no-break spaces.
    Tag,
    /// Blanks as no-break spaces, round brackets by their names.
    Joined,
}

/// The next token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Behind what the rule read.
    pub(super) total: usize,
    /// Behind the token's text.
    pub(super) end: usize,
    /// Where reading goes on: an abbreviation's period may be read twice.
    pub(super) next: usize,
    pub(super) how: How,
}

impl Found {
    pub(super) fn new(total: usize, end: usize, how: How) -> Self {
        let next = end;
        Found {
            total,
            end,
            next,
            how,
        }
    }
}

pub(super) struct Cursor<'a> {
    pub(super) text: &'a [char],
    pub(super) classes: &'a [u8],
    pub(super) at: usize,
    pub(super) best: Found,
    pub(super) far: Far,
}

/// Per kind of scan that may be for nothing, what the last one found.
#[derive(Default)]
pub(super) struct Far {
    /// The last `@` before a domain, and the domain's end.
    pub(super) mail: Reach<Option<(usize, usize)>>,
    /// The last character that may end an address.
    pub(super) path: Reach<Option<usize>>,
    /// The last `com` or the like: where it begins, where the address with it ends.
    pub(super) site: Reach<Option<(usize, usize)>>,
    /// The places behind periods, and the furthest end of an address from there on.
    pub(super) www: Reach<Vec<(usize, usize)>>,
    pub(super) hyphened: Reach<()>,
    pub(super) hyphened_part: Reach<()>,
    /// The last ending of a file's name: where it begins and ends.
    pub(super) file: Reach<Option<(usize, usize)>>,
    pub(super) tags: Tags,
}

/// Stands behind the text; in it, it is what any unknown character is.
const NONE: char = '\u{10ffff}';

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [char], classes: &'a [u8]) -> Self {
        Cursor {
            text,
            classes,
            at: 0,
            best: Found::new(0, 0, How::Nothing),
            far: Far::default(),
        }
    }

    pub(super) fn get(&self, i: usize) -> char {
        self.text.get(i).copied().unwrap_or(NONE)
    }

    /// Whether there is a character at `i`.
    pub(super) fn has(&self, i: usize) -> bool {
        i < self.text.len()
    }

    pub(super) fn is(&self, i: usize, classes: u8) -> bool {
        self.classes.get(i).is_some_and(|c| c & classes != 0)
    }

    /// The first from `i` on that is not so.
    pub(super) fn past(&self, i: usize, so: impl Fn(char) -> bool) -> usize {
        i + self.text.iter().skip(i).take_while(|c| so(**c)).count()
    }

    pub(super) fn past_class(&self, i: usize, classes: u8) -> usize {
        let class = self.classes.iter().skip(i);
        i + class.take_while(|c| **c & classes != 0).count()
    }

    /// Behind `word`, in any capitals, at `i`.
    pub(super) fn word_at(&self, i: usize, word: &str) -> Option<usize> {
        let same = |(n, c): (usize, u8)| self.get(i + n).eq_ignore_ascii_case(&char::from(c));
        word.bytes().enumerate().all(same).then_some(i + word.len())
    }

    /// Behind the longest of `words` that is at `i`.
    pub(super) fn any_at(&self, i: usize, words: &[&str]) -> Option<usize> {
        words.iter().filter_map(|w| self.word_at(i, w)).max()
    }

    /// Behind the apostrophe at `i`.
    pub(super) fn apostrophe(&self, i: usize) -> Option<usize> {
        match self.get(i) {
            '\'' | '\u{92}' | '\u{2019}' => Some(i + 1),
            '&' => self.word_at(i, "&apos;"),
            _ => None,
        }
    }

    /// Behind what may stand for an apostrophe.
    pub(super) fn nearly_apostrophe(&self, i: usize) -> Option<usize> {
        match self.get(i) {
            '`' | '\u{91}' | '\u{2018}' | '\u{201b}' => Some(i + 1),
            _ => self.apostrophe(i),
        }
    }

    /// How long the letter at `i` is: an entity is one letter.
    pub(super) fn letter(&self, i: usize) -> usize {
        if self.is(i, LETTER) {
            return 1;
        }
        let vowel = matches!(self.get(i + 1).to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u');
        if self.get(i) != '&' || !vowel {
            return 0;
        }
        let end = self.any_at(i + 2, &["acute;", "grave;", "uml;"]);
        end.map_or(0, |end| end - i)
    }

    pub(super) fn letters(&self, mut i: usize) -> usize {
        loop {
            match self.letter(i) {
                0 => return i,
                n => i += n,
            }
        }
    }

    pub(super) fn letters_and_digits(&self, mut i: usize) -> usize {
        loop {
            match self.letter(i) {
                0 if self.is(i, DIGIT) => i += 1,
                0 => return i,
                n => i += n,
            }
        }
    }

    /// Whether a letter or a digit is at `i`, not a mark.
    pub(super) fn plain(&self, i: usize) -> bool {
        self.is(i, PLAIN | DIGIT)
    }

    /// Takes a rule that read up to `total`, where none before it read as far.
    pub(super) fn offer(&mut self, total: usize, end: usize, how: How) {
        if total > self.best.total {
            self.best = Found::new(total, end, how);
        }
    }

    /// A token as it stands, of a rule that looks at nothing behind it.
    pub(super) fn offer_same(&mut self, end: usize) {
        self.offer(end, end, How::Same);
    }

    /// An abbreviation whose period ends the sentence, too.
    pub(super) fn offer_twice(&mut self, total: usize, end: usize) {
        if total > self.best.total {
            self.best = Found::new(total, end, How::Same);
            self.best.next = end - 1;
        }
    }

    /// The word up to `end` and a period, where a comma or the like stands behind that.
    pub(super) fn offer_with_period(&mut self, end: usize, how: How) {
        if self.get(end) == '.' && matches!(self.get(end + 1), ',' | ';' | ':' | '\u{3001}') {
            self.offer(end + 2, end + 1, how);
        }
    }
}
