//! Words, with and without apostrophes, hyphens and slashes.

use super::classes::{DIGIT, PLAIN};
use super::cursor::{Cursor, How};

impl Cursor<'_> {
    /// Words that are two.
    pub(super) fn splits(&mut self) {
        let at = self.at;
        if let Some(end) = self.word_at(at, "cannot") {
            self.offer(end, end - 3, How::Same);
        }
        if let Some(end) = self.any_at(at, &["gonna", "gotta", "lemme", "gimme", "wanna"]) {
            self.offer(end, end - 2, How::Same);
        }
        if let Some(end) = self.any_at(at, &["'tis", "'twas"]) {
            self.offer(end, at + 2, How::Same);
        }
    }

    /// Behind the word at `i`: letters and digits, begun by a letter, and more of them behind single periods, `!` and `?`.
    pub(super) fn word(&self, i: usize) -> usize {
        let (mut end, mut next) = (i, i);
        while self.letter(next) > 0 {
            end = self.letters_and_digits(next);
            if !matches!(self.get(end), '.' | '!' | '?') {
                break;
            }
            next = end + 1;
        }
        end
    }

    /// Words, and those before `'s` and `n't`.
    pub(super) fn words(&mut self) {
        let at = self.at;
        let end = self.word(at);
        if let Some(total) = self.auxiliary(end) {
            self.offer(total, end, How::Unhyphenated);
        }
        let letters = self.past(at, |c| c.is_ascii_alphabetic() || c == '\u{ad}');
        let last = (at..letters.saturating_sub(1)).rev();
        let last = last.map(|i| self.get(i)).find(|c| *c != '\u{ad}');
        if last.is_some_and(|c| !matches!(c, 'n' | 'N')) {
            if let Some(total) = self.negation(letters - 1) {
                self.offer(total, letters - 1, How::Unhyphenated);
            }
        }
        self.offer(end, end, How::Unhyphenated);
    }

    /// Behind `'s`, `'re` and the like.
    pub(super) fn auxiliary(&self, i: usize) -> Option<usize> {
        let behind = self.apostrophe(i)?;
        self.any_at(behind, &["re", "ve", "ll", "m", "s", "d"])
    }

    /// Behind `n't`.
    fn negation(&self, i: usize) -> Option<usize> {
        let behind = self.nearly_apostrophe(self.word_at(i, "n")?)?;
        self.word_at(behind, "t")
    }

    /// `'s` and the like, and `n't`, behind the word they belong to.
    pub(super) fn contractions(&mut self) {
        let closing = How::Quotes { opening: false };
        if let Some(end) = self.auxiliary(self.at) {
            if self.has(end) && !self.get(end).is_ascii_alphabetic() {
                self.offer(end + 1, end, closing);
            }
        }
        if let Some(end) = self.negation(self.at) {
            self.offer(end, end, closing);
        }
    }

    /// Words that keep their apostrophe.
    pub(super) fn apostrophe_words(&mut self) {
        let at = self.at;
        if let Some(behind) = self.apostrophe(at) {
            if let Some(end) = self.word_at(behind, "n") {
                self.offer_same(self.apostrophe(end).unwrap_or(end));
            }
            if let Some(end) = self.any_at(behind, &["em", "til", "till", "cause"]) {
                self.offer_same(end);
            }
            if matches!(self.get(behind), '2'..='9') {
                if let Some(end) = self.word_at(behind + 1, "0s") {
                    self.offer_same(end);
                }
            }
        }
        if !self.is(at, PLAIN) {
            return;
        }
        let c = self.get(at);
        let end_of = |parts: [&str; 2]| {
            let behind = self.apostrophe(self.word_at(at, parts[0])?)?;
            self.word_at(behind, parts[1])
        };
        let ends = [
            ["l", ""],
            ["d", ""],
            ["j", ""],
            ["dunkin", ""],
            ["somethin", ""],
            ["ol", ""],
        ];
        let mut end = ends.into_iter().filter_map(end_of).max();
        // An initial, `O'Brien`; a vowel before and a vowel or a capital behind, `ma'am`.
        let letters = self.past_class(at, PLAIN);
        let vowel = |c: char| matches!(c, 'a' | 'e' | 'i' | 'o' | 'u');
        if let Some(behind) = self.nearly_apostrophe(letters) {
            let last = self.get(letters - 1).to_ascii_lowercase();
            let next = self.get(behind);
            let initial = letters == at + 1 && matches!(c, 'A'..='H' | 'J'..='X' | 'Z' | 'n');
            let inner = letters > at + 1
                && (vowel(last) || last == 'y')
                && (vowel(next) || next.is_ascii_uppercase());
            let rest = self.past_class(behind, PLAIN);
            if inner || (initial && rest >= behind + 2) {
                end = end.max(Some(rest));
            }
            if letters == at + 1 && last == 'o' {
                end = end.max(self.word_at(behind, "o"));
            }
        }
        let whole = [
            "cont'd",
            "cont'd.",
            "nor'easter",
            "c'mon",
            "e'er",
            "s'mores",
            "ev'ry",
            "li'l",
            "nat'l",
        ];
        end = end.max(self.any_at(at, &whole));
        if let Some(end) = end {
            self.offer_same(end);
        }
        if matches!(c, 'y' | 'Y') {
            if let Some(end) = self.apostrophe(at + 1).filter(|end| self.is(*end, PLAIN)) {
                self.offer(end + 1, end, How::Same);
            }
        }
    }

    /// Single words of other shapes, and words with slashes.
    pub(super) fn shapes(&mut self) {
        let at = self.at;
        let brackets = ["-lrb-", "-rrb-", "-lcb-", "-rcb-", "-lsb-", "-rsb-"];
        let others = [
            "c.d.s",
            "pro-",
            "anti-",
            "s&p-500",
            "s&amp;p-500",
            "s&ls",
            "s&amp;ls",
        ];
        if let Some(end) = self.any_at(at, &brackets).max(self.any_at(at, &others)) {
            self.offer(end, end, How::Ampersands);
        }
        for (before, behind) in [("cap", "n"), ("c", "est")] {
            let end = self.word_at(at, before).and_then(|i| self.apostrophe(i));
            if let Some(end) = end.and_then(|i| self.word_at(i, behind)) {
                self.offer_same(end);
            }
        }
        if self.get(at).is_ascii_alphanumeric() {
            self.slashed();
        }
        if let Some(end) = self.any_at(at, &["c++", "c#", "f#"]) {
            self.offer_same(end);
        }
    }

    /// `and/or`, `hip-hop/rap`: up to two slashes.
    fn slashed(&mut self) {
        let part = |i: usize| {
            let mut end = self.past(i, |c| c.is_ascii_alphanumeric());
            if end == i {
                return None;
            }
            for _ in 0..2 {
                let letters = self.past(end + 1, |c| c.is_ascii_alphabetic());
                if self.get(end) != '-' || letters == end + 1 {
                    break;
                }
                end = letters;
            }
            Some(end)
        };
        let behind_slash = |i: usize| match (self.get(i), self.get(i + 1)) {
            ('/', _) => Some(i + 1),
            ('\\', '/') => Some(i + 2),
            _ => None,
        };
        let next = |end: usize| behind_slash(end).and_then(part);
        let one = part(self.at).and_then(next);
        if let Some(end) = one.and_then(next).or(one) {
            self.offer_same(end);
        }
    }

    /// Words with hyphens, in three shapes.
    pub(super) fn joined(&mut self) {
        let at = self.at;
        if self.get(at).is_ascii_alphanumeric() {
            self.hyphened();
        }
        if self.plain(at) {
            let end = self.hyphened_words(at);
            self.offer_with_period(end, How::Same);
            self.offer_same(end);
        }
        if self.get(at).is_ascii_uppercase() {
            self.capitals();
        }
    }

    /// Letters, digits, periods and commas, and behind hyphens letters and digits, or single letters with periods.
    fn hyphened(&mut self) {
        let body = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ',' | '\u{ad}');
        let part = |c: char| c.is_ascii_alphanumeric() || c == '\u{ad}';
        let at = self.at;
        let mut reach = std::mem::take(&mut self.far.hyphened);
        let (mut end, ()) = reach.of(at, || (self.past(at, body), ()));
        self.far.hyphened = reach;
        let mut first = true;
        while self.get(end) == '-' {
            let begins = end + 1;
            let (mut letters, mut n) = (begins, 0);
            while self.get(letters).is_ascii_alphabetic() && self.get(letters + 1) == '.' {
                letters += 2;
                n += 1;
            }
            end = if n > 1 {
                letters
            } else if !self.has(begins) || !part(self.get(begins)) {
                break;
            } else if first {
                let mut reach = std::mem::take(&mut self.far.hyphened_part);
                let (end, ()) = reach.of(begins, || (self.past(begins, part), ()));
                self.far.hyphened_part = reach;
                end
            } else {
                self.past(begins, part)
            };
            first = false;
            self.offer(end, end, How::Unhyphenated);
            self.offer_with_period(end, How::Unhyphenated);
        }
    }

    /// Behind letters and digits from `i` on, joined by single hyphens, each part perhaps after `o'`, `d'`, `l'`.
    fn hyphened_words(&self, i: usize) -> usize {
        let part = |i: usize| {
            let behind = match self.get(i) {
                'd' | 'D' | 'o' | 'O' | 'l' | 'L' => self.nearly_apostrophe(i + 1),
                _ => None,
            };
            let begins = behind.filter(|b| self.plain(*b) && self.plain(*b + 1));
            self.past_class(begins.unwrap_or(i), PLAIN | DIGIT)
        };
        let hyphen = |c: char| matches!(c, '-' | '_' | '\u{58a}' | '\u{2010}' | '\u{2011}');
        let mut end = part(i);
        while hyphen(self.get(end)) && self.plain(end + 1) {
            end = part(end + 1);
        }
        end
    }

    /// `AT&T`, `R&B`.
    fn capitals(&mut self) {
        let capitals = |i: usize| self.past(i, |c| c.is_ascii_uppercase());
        let next = |end: usize| {
            let behind = match self.get(end) {
                '+' | '&' => self.word_at(end, "&amp;").unwrap_or(end + 1),
                _ => return None,
            };
            Some(capitals(behind)).filter(|end| *end > behind)
        };
        let first = capitals(self.at);
        let mut end = first;
        while let Some(more) = next(end) {
            end = more;
        }
        if end > first {
            self.offer_with_period(end, How::Ampersands);
            self.offer(end, end, How::Ampersands);
        }
    }
}
