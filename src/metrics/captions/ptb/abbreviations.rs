//! Words that keep the period behind them.

use super::classes::{DIGIT, NEWLINE, SPACE, UPPER};
use super::cursor::{Cursor, How};

/// When a period is part of the word before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// Always; at the end of a sentence another period is put behind it.
    Final,
    /// Always, and never at a sentence's end.
    Title,
    /// Before a number.
    Number,
}

/// Any capitals.
const FINAL: &[&str] = &[
    "al", "ala", "apr", "ariz", "assn", "aug", "bancorp", "bhd", "bldg", "blvd", "bros", "calif", "co",
    "colo", "conn", "corp", "cos", "ct", "dak", "dec", "dept", "esq", "est", "etc", "ext", "feb", "fla",
    "fri", "ga", "inc", "ind", "intl", "jan", "jr", "jul", "jun", "kan", "kans", "ky", "ltd", "mar", "md",
    "mich", "minn", "mo", "mon", "mont", "neb", "nev", "nov", "oct", "okla", "penn", "plc", "rd", "rt",
    "sep", "sept", "seq", "sq", "sr", "sys", "tel", "tenn", "thu", "thurs", "tue", "tues", "univ", "va",
    "vt", "wed", "wis", "wisc", "wyo",
];

/// With a capital first letter.
const FINAL_CAPITAL: &[&str] = &[
    "ark", "az", "del", "ill", "la", "mass", "miss", "ore", "pa", "tex", "wash",
];

const TITLE: &[&str] = &[
    "adj", "adm", "adv", "alex", "assoc", "asst", "atty", "attys", "ave", "brig", "capt", "cf", "cie",
    "cmdr", "col", "comdr", "cpl", "det", "dr", "drs", "elec", "ens", "ft", "gen", "gov", "govs", "hon",
    "insp", "invt", "jos", "lieut", "lt", "maj", "messrs", "mlle", "mme", "mr", "mrs", "ms", "msgr", "mt",
    "natl", "pfc", "ph", "pres", "prof", "profs", "pvt", "rep", "reps", "rev", "sen", "sens", "sfc", "sgt",
    "spc", "st", "ste", "supt", "supts", "treas", "vs", "wm",
];

const NUMBER: &[&str] = &["art", "ca", "fig", "figs", "no", "nos", "op", "pp", "prop"];

/// Of a word of ASCII letters, as it is written.
fn keeps(word: &[char]) -> Option<Keeps> {
    let mut lower = [0; 8];
    let lower = lower.get_mut(..word.len())?;
    for (to, from) in lower.iter_mut().zip(word) {
        *to = from.to_ascii_lowercase() as u8;
    }
    let lower = std::str::from_utf8(lower).ok()?;
    let among = |list: &[&str]| list.binary_search(&lower).is_ok();
    let capital = word.first().is_some_and(char::is_ascii_uppercase);
    let small = |letters: &[char]| word.iter().any(|c| letters.contains(c));
    let company = ["pte", "pty", "ptes", "ptys", "ppte", "ppty", "pptes", "pptys"].contains(&lower)
        && small(&['e', 'y']);
    let other = ["mfg", "mtg"].contains(&lower) && word.get(1).is_some_and(char::is_ascii_lowercase);
    if among(FINAL) || (capital && among(FINAL_CAPITAL)) || company {
        Some(Keeps::Final)
    } else if among(TITLE) || other {
        Some(Keeps::Title)
    } else if among(NUMBER) {
        Some(Keeps::Number)
    } else {
        None
    }
}

/// What begins a sentence behind an abbreviation of letters: with this capital, the rest in any.
const BEGINNINGS: &str =
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many \
    More Mr. Ms. Now Once One Other Our She Since So Some Such That The Their Then There These They This \
    We What When While Yet You";

impl Cursor<'_> {
    pub(super) fn abbreviations(&mut self) {
        let at = self.at;
        let letters = self.past(at, |c| c.is_ascii_alphabetic());
        let degree = self
            .any_at(at, &["ed.d.", "ph.d."])
            .map(|end| (Keeps::Final, end));
        let word = keeps(&self.text[at..letters]).filter(|_| self.get(letters) == '.');
        match degree.or(word.map(|keeps| (keeps, letters + 1))) {
            Some((Keeps::Final, end)) => {
                if let Some(total) = self.sentence_ends(end) {
                    self.offer_twice(total, end);
                }
                if self.has(end + 1) {
                    self.offer(end + 2, end, How::Same);
                }
                self.offer_twice(end, end);
            }
            Some((Keeps::Title, end)) => self.offer_same(end),
            Some((Keeps::Number, end)) => {
                let blank = usize::from(self.is(end, SPACE | NEWLINE));
                if self.is(end + blank, DIGIT) {
                    self.offer(end + blank + 1, end, How::Same);
                }
            }
            None => {}
        }
        self.initials();
        let company = self.any_at(at, &["pty.", "pte.", "co."]);
        if let Some(end) = company.filter(|end| self.is(*end, SPACE)) {
            if let Some(total) = self.any_at(end + 1, &["ltd", "lim"]) {
                self.offer(total, end, How::Same);
            }
        }
    }

    /// Behind a blank at `i` and what may begin a sentence there.
    fn sentence_ends(&mut self, i: usize) -> Option<usize> {
        if !self.is(i, SPACE | NEWLINE) {
            return None;
        }
        let crlf = |s: &Self, i: usize| s.get(i) == '\r' && s.get(i + 1) == '\n';
        let mut longest = None;
        for begins in [i + 1, i + 1 + usize::from(crlf(self, i))] {
            if self.is(begins, SPACE | NEWLINE | UPPER) {
                longest = longest.max(Some(begins + 1 + usize::from(crlf(self, begins))));
            }
            longest = longest.max(self.far.tags.end(self.text, begins));
        }
        longest
    }

    /// `U.S.`: letters with periods.
    fn initials(&mut self) {
        let at = self.at;
        let mut last = at;
        while self.get(last + 1) == '.' && self.get(last + 2).is_ascii_alphabetic() {
            last += 2;
        }
        let countries = [
            "canada-u.s",
            "sino-u.s",
            "korean-u.s",
            "eu-u.s",
            "japan-u.s",
            "non-u.s",
            "u.s.-u.k",
            "u.s.-u.s.s.r",
        ];
        // Where the last letter is that of a longer word, the one before it may end here.
        let before = last.checked_sub(1).filter(|end| *end > at);
        let ends = [Some(last + 1), before, self.any_at(at, &countries)];
        for end in ends.into_iter().flatten() {
            if self.get(end) == '.' {
                match self.sentence_begins(end + 1) {
                    Some(total) if end == at + 1 => self.offer(total, end, How::Same),
                    Some(total) => self.offer_twice(total, end + 1),
                    None => {}
                }
                self.offer_same(end + 1);
            }
            if self.is(end, SPACE | NEWLINE) {
                self.offer(end + 1, end, How::Same);
            }
        }
    }

    /// Behind blanks at `i`, one of [`BEGINNINGS`] or a tag, and a blank.
    fn sentence_begins(&mut self, i: usize) -> Option<usize> {
        let begins = self.past_class(i, SPACE | NEWLINE);
        if begins == i {
            return None;
        }
        let tag = self.far.tags.end(self.text, begins);
        let words = BEGINNINGS.split(' ').filter(|w| w.starts_with(self.get(begins)));
        let words = words.filter_map(|w| self.word_at(begins, w));
        let ends = words.chain(tag).filter(|end| self.is(*end, SPACE | NEWLINE));
        ends.max().map(|end| end + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_in_order() {
        for list in [FINAL, FINAL_CAPITAL, TITLE, NUMBER] {
            assert!(list.is_sorted());
        }
    }
}
