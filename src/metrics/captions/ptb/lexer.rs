//! Where the next token ends: of all rules that apply, the one that reads furthest, and of those the first.
//!
//! What a rule reads counts with what it only looks at behind the token. So a token can depend on the text behind it, across the ends of
//! lines.

use super::abbreviations::{keeps, Keeps};
use super::classes::{DIGIT, LETTER, NEWLINE, PLAIN, SPACE, SYMBOL, UPPER};
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
    /// Quotation marks as `` ` `` and `'`; straight ones opening or closing.
    Quotes { opening: bool },
    /// `&amp;` as `&`.
    Ampersands,
    /// Blanks as no-break spaces, round brackets by their names.
    Joined,
}

/// The next token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// What the rule read.
    total: usize,
    /// Behind the token's text.
    pub(super) end: usize,
    /// Where reading goes on: an abbreviation's period may be read twice.
    pub(super) next: usize,
    pub(super) how: How,
}

pub(super) struct Lexer<'a> {
    text: &'a [char],
    classes: &'a [u8],
    at: usize,
    best: Found,
    /// Per kind of scan that may be for nothing, the last one.
    mail: Reach<Option<(usize, usize)>>,
    path: Reach<Option<usize>>,
    site: Reach<Option<(usize, usize)>>,
    www: Reach<Vec<(usize, usize)>>,
    hyphened: Reach<()>,
    part: Reach<()>,
    file: Reach<Option<(usize, usize)>>,
    tags: Tags,
}

/// Stands behind the text; in it, it is what any unknown character is.
const NONE: char = '\u{10ffff}';

/// An apostrophe.
const APOSTROPHES: [char; 3] = ['\'', '\u{92}', '\u{2019}'];
/// What may stand for one.
const NEARLY: [char; 4] = ['`', '\u{91}', '\u{2018}', '\u{201b}'];

/// What begins a sentence behind an abbreviation of letters.
const BEGINNINGS: &[&str] = &[
    "A", "About", "According", "Additionally", "After", "All", "Although", "An", "And", "As", "At", "But", "Earlier", "He", "Her", "Here", "However",
    "If", "In", "It", "Last", "Many", "More", "Mr.", "Ms.", "Now", "Once", "One", "Other", "Our", "She", "Since", "So", "Some", "Such",
    "That", "The", "Their", "Then", "There", "These", "They", "This", "We", "What", "When", "While", "Yet", "You",
];

const EXTENSIONS: &[&str] = &[
    "bat", "bmp", "c", "class", "cgi", "cpp", "dll", "doc", "docx", "exe", "gif", "gz", "h", "htm", "html", "jar", "java", "jpeg", "jpg",
    "mov", "mp3", "pdf", "php", "pl", "png", "ppt", "ps", "py", "sql", "tar", "txt", "wav", "x", "xml", "zip",
];

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [char], classes: &'a [u8]) -> Self {
        Lexer {
            text,
            classes,
            at: 0,
            best: Found { total: 0, end: 0, next: 0, how: How::Nothing },
            mail: Reach::default(),
            path: Reach::default(),
            site: Reach::default(),
            www: Reach::default(),
            hyphened: Reach::default(),
            part: Reach::default(),
            file: Reach::default(),
            tags: Tags::default(),
        }
    }

    fn get(&self, i: usize) -> char {
        self.text.get(i).copied().unwrap_or(NONE)
    }

    fn is(&self, i: usize, classes: u8) -> bool {
        self.classes.get(i).is_some_and(|c| c & classes != 0)
    }

    /// The first from `i` on that is not so.
    fn past(&self, i: usize, so: impl Fn(char) -> bool) -> usize {
        i + self.text.iter().skip(i).take_while(|c| so(**c)).count()
    }

    fn past_class(&self, i: usize, classes: u8) -> usize {
        i + self.classes.iter().skip(i).take_while(|c| **c & classes != 0).count()
    }

    /// Behind `word`, in any capitals, at `i`.
    fn word_at(&self, i: usize, word: &str) -> Option<usize> {
        let mut end = i;
        for c in word.chars() {
            if !self.get(end).eq_ignore_ascii_case(&c) {
                return None;
            }
            end += 1;
        }
        Some(end)
    }

    /// Behind the first of `words` that is at `i`: the longest.
    fn any_at(&self, i: usize, words: &[&str]) -> Option<usize> {
        words.iter().filter_map(|w| self.word_at(i, w)).max()
    }

    fn apostrophe(&self, i: usize) -> Option<usize> {
        if APOSTROPHES.contains(&self.get(i)) {
            return Some(i + 1);
        }
        self.word_at(i, "&apos;")
    }

    fn nearly_apostrophe(&self, i: usize) -> Option<usize> {
        if NEARLY.contains(&self.get(i)) {
            return Some(i + 1);
        }
        self.apostrophe(i)
    }

    /// Takes a rule that read up to `total`, where none before it read as far.
    fn offer(&mut self, total: usize, end: usize, how: How) {
        if total > self.best.total {
            self.best = Found { total, end, next: end, how };
        }
    }

    /// The token at `at`.
    pub(super) fn next(&mut self, at: usize) -> Found {
        self.at = at;
        self.best = Found { total: at, end: at + 1, next: at + 1, how: How::Nothing };
        let c = self.get(at);
        if c.is_ascii_alphabetic() {
            // Most words are nothing but a word, and most of those that are not have something else than a blank behind.
            let end = self.past(at, |c| c.is_ascii_alphabetic());
            if matches!(self.get(end), ' ' | '\n') && end < self.text.len() && !matches!(c, 'c' | 'C' | 'g' | 'G' | 'l' | 'L' | 'w' | 'W') {
                return Found { total: end, end, next: end, how: How::Same };
            }
        }
        if c == ' ' {
            return self.best;
        }
        self.splits();
        self.tag();
        self.entities();
        let letter = self.letter(at) > 0;
        if letter {
            self.words();
        }
        self.apostrophe_words();
        self.addresses();
        self.contractions();
        self.numbers();
        self.things();
        self.money();
        if c.is_ascii_alphabetic() {
            self.abbreviations();
        }
        self.file_names();
        if letter {
            let end = self.word(at);
            if self.get(end) == '.' && matches!(self.get(end + 1), ',' | ';' | ':' | '\u{3001}') {
                self.offer(end + 2, end + 1, How::Unhyphenated);
            }
        }
        self.phones();
        self.faces();
        self.marks();
        self.joined();
        self.quotes();
        self.alone();
        self.best
    }

    // Letters and words.

    /// How long the letter at `i` is: an entity is one letter.
    fn letter(&self, i: usize) -> usize {
        if self.is(i, LETTER) {
            return 1;
        }
        if self.get(i) != '&' || !matches!(self.get(i + 1), 'a' | 'e' | 'i' | 'o' | 'u' | 'A' | 'E' | 'I' | 'O' | 'U') {
            return 0;
        }
        let end = self.any_at(i + 2, &["acute;", "grave;", "uml;"]);
        end.map_or(0, |end| end - i)
    }

    fn letters(&self, mut i: usize) -> usize {
        loop {
            match self.letter(i) {
                0 => return i,
                n => i += n,
            }
        }
    }

    fn letters_and_digits(&self, mut i: usize) -> usize {
        loop {
            match self.letter(i) {
                0 if self.is(i, DIGIT) => i += 1,
                0 => return i,
                n => i += n,
            }
        }
    }

    /// Behind the word at `i`: letters and digits, begun by a letter, and more of them behind single periods, `!` and `?`.
    fn word(&self, i: usize) -> usize {
        let mut end = i;
        let mut next = i;
        while self.letter(next) > 0 {
            end = self.letters_and_digits(next);
            if !matches!(self.get(end), '.' | '!' | '?') {
                break;
            }
            next = end + 1;
        }
        end
    }

    /// Words that are two.
    fn splits(&mut self) {
        let at = self.at;
        if let Some(end) = self.word_at(at, "cannot") {
            self.offer(end, end - 3, How::Same);
        }
        if let Some(end) = self.any_at(at, &["gonna", "gotta", "lemme", "gimme", "wanna"]) {
            self.offer(end, end - 2, How::Same);
        }
        if let Some(behind) = self.apostrophe(at) {
            if self.any_at(behind, &["tis", "twas"]).is_some() {
                let end = self.any_at(behind, &["tis", "twas"]).unwrap_or(behind);
                self.offer(end, behind + 1, How::Quotes { opening: false });
            }
        }
    }

    fn tag(&mut self) {
        if self.get(self.at) == '<' {
            if let Some(end) = self.tags.end(self.text, self.at) {
                self.offer(end, end, How::Joined);
            }
        }
    }

    fn entities(&mut self) {
        let at = self.at;
        let c = self.get(at);
        if matches!(c, '\u{96}' | '\u{97}' | '\u{2013}'..='\u{2015}') {
            self.offer(at + 1, at + 1, How::Fixed("--"));
        }
        if c != '&' {
            return;
        }
        if let Some(end) = self.any_at(at, &["&MD;", "&mdash;", "&ndash;"]) {
            self.offer(end, end, How::Fixed("--"));
        }
        if let Some(end) = self.word_at(at, "&amp;") {
            self.offer(end, end, How::Fixed("&"));
        }
        let named = ["&HT;", "&TL;", "&UR;", "&LR;", "&QC;", "&QL;", "&QR;", "&odq;", "&cdq;"];
        if let Some(end) = self.any_at(at, &named) {
            self.offer(end, end, How::Same);
        }
        if self.get(at + 1) == '#' {
            let end = self.past(at + 2, |c| c.is_ascii_digit());
            if end > at + 2 && self.get(end) == ';' {
                self.offer(end + 1, end + 1, How::Same);
            }
        }
        if let Some(end) = self.word_at(at, "&nbsp;") {
            self.offer(end, end, How::Nothing);
        }
    }

    /// Behind `'s`, `'re` and the like.
    fn auxiliary(&self, i: usize) -> Option<usize> {
        let behind = self.apostrophe(i)?;
        if let Some(end) = self.any_at(behind, &["re", "ve", "ll"]) {
            return Some(end);
        }
        matches!(self.get(behind), 'm' | 's' | 'd' | 'M' | 'S' | 'D').then_some(behind + 1)
    }

    /// Behind `n't`.
    fn negation(&self, i: usize) -> Option<usize> {
        let behind = self.nearly_apostrophe(self.word_at(i, "n")?)?;
        self.word_at(behind, "t")
    }

    fn words(&mut self) {
        let at = self.at;
        let end = self.word(at);
        if let Some(total) = self.auxiliary(end) {
            self.offer(total, end, How::Unhyphenated);
        }
        let letters = self.past(at, |c| c.is_ascii_alphabetic() || c == '\u{ad}');
        let before = (at..letters.saturating_sub(1)).rev().map(|i| self.get(i)).find(|c| *c != '\u{ad}');
        if before.is_some_and(|c| !matches!(c, 'n' | 'N')) {
            if let Some(total) = self.negation(letters - 1) {
                self.offer(total, letters - 1, How::Unhyphenated);
            }
        }
        self.offer(end, end, How::Unhyphenated);
    }

    fn apostrophe_words(&mut self) {
        let at = self.at;
        let c = self.get(at);
        if let Some(behind) = self.apostrophe(at) {
            if let Some(end) = self.word_at(behind, "n") {
                let end = self.apostrophe(end).unwrap_or(end);
                self.offer(end, end, How::Same);
            }
            if let Some(end) = self.any_at(behind, &["em", "til", "till", "cause"]) {
                self.offer(end, end, How::Same);
            }
            if matches!(self.get(behind), '2'..='9') {
                if let Some(end) = self.word_at(behind + 1, "0s") {
                    self.offer(end, end, How::Same);
                }
            }
        }
        if !self.is(at, PLAIN) {
            return;
        }
        if matches!(c, 'l' | 'L' | 'd' | 'D' | 'j' | 'J') {
            if let Some(end) = self.apostrophe(at + 1) {
                self.offer(end, end, How::Same);
            }
        }
        for word in ["dunkin", "somethin", "ol"] {
            if let Some(end) = self.word_at(at, word).and_then(|end| self.apostrophe(end)) {
                self.offer(end, end, How::Same);
            }
        }
        if matches!(c, 'A'..='H' | 'J'..='X' | 'Z' | 'n') {
            if let Some(behind) = self.nearly_apostrophe(at + 1) {
                let end = self.past_class(behind, PLAIN);
                if end >= behind + 2 {
                    self.offer(end, end, How::Same);
                }
            }
        }
        let letters = self.past_class(at, PLAIN);
        if letters > at + 1 && matches!(self.get(letters - 1).to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u' | 'y') {
            if let Some(behind) = self.nearly_apostrophe(letters) {
                if matches!(self.get(behind), 'a' | 'e' | 'i' | 'o' | 'u' | 'A'..='Z') {
                    let end = self.past_class(behind, PLAIN);
                    self.offer(end, end, How::Same);
                }
            }
        }
        let whole = ["cont'd", "cont'd.", "'twas", "nor'easter", "c'mon", "e'er", "s'mores", "ev'ry", "li'l", "nat'l"];
        if let Some(end) = self.any_at(at, &whole) {
            self.offer(end, end, How::Same);
        }
        if matches!(c, 'y' | 'Y') {
            if let Some(end) = self.apostrophe(at + 1) {
                if self.is(end, PLAIN) {
                    self.offer(end + 1, end, How::Same);
                }
            }
        }
    }

    // Addresses.

    /// Behind what may stand in an address from `i` on, up to what may end one; from two characters on.
    fn path(&mut self, i: usize) -> Option<usize> {
        let text = self.text;
        if i >= text.len() || !in_path(text[i]) {
            return None;
        }
        let (_, last) = self.path.of(i, || {
            let end = i + text.iter().skip(i).take_while(|c| in_path(**c)).count();
            let last = (i..end).rev().find(|at| !matches!(text[*at], '.' | '!' | '?' | '{' | '}' | ',' | '-'));
            (end, last)
        });
        // Two of the program's characters, which are code units of UTF-16.
        last.filter(|last| *last > i || text[i].len_utf16() > 1).map(|last| last + 1)
    }

    fn addresses(&mut self) {
        let (at, text) = (self.at, self.text);
        let c = self.get(at);
        if let Some(begins) = self.any_at(at, &["http://", "https://"]) {
            if let Some(end) = self.path(begins) {
                self.offer(end, end, How::Same);
            }
        }
        self.sites();
        let mail = self.any_at(at, &["<", "&lt;"]).unwrap_or(at);
        if self.get(mail).is_ascii_alphanumeric() {
            let at = mail;
            let (_, found) = self.mail.of(at, || {
                let end = at + text.iter().skip(at).take_while(|c| in_mail(**c)).count();
                // The last `@` with a domain behind it: names before it may hold others.
                let domain = |i: usize| text.get(i).is_some_and(|c| in_domain(*c));
                let sign = (at + 1..end).rev().find(|i| text[*i] == '@' && domain(*i + 1));
                let found = sign.map(|sign| {
                    let more = |i: usize| domain(i) || (text.get(i) == Some(&'.') && domain(i + 1));
                    (sign, (sign + 1..).find(|i| !more(*i)).unwrap_or(end))
                });
                (end, found)
            });
            if let Some((sign, end)) = *found {
                if sign > at {
                    let end = self.any_at(end, &[">", "&gt;"]).unwrap_or(end);
                    self.offer(end, end, How::Same);
                }
            }
        }
        if c == '@' && (self.get(at + 1).is_ascii_alphabetic() || self.get(at + 1) == '_') {
            let end = self.past(at + 1, |c| c.is_ascii_alphanumeric() || c == '_');
            self.offer(end, end, How::Same);
        }
        if c == '#' {
            let end = self.letters(at + 1);
            if end > at + 1 {
                self.offer(end, end, How::Same);
            }
        }
    }

    /// `www.x.org/y` and `x.org/y`.
    fn sites(&mut self) {
        let (at, text) = (self.at, self.text);
        if let Some(begins) = self.word_at(at, "www.") {
            let mut ends = Vec::new();
            if !self.www.holds(at) {
                // Behind each period: what ends here, with what is behind a slash.
                let mut here = begins;
                loop {
                    let end = self.past(here, in_www);
                    if end == here || self.get(end) != '.' || end >= text.len() {
                        here = end;
                        break;
                    }
                    here = end + 1;
                    let letters = self.past(here, |c| c.is_ascii_alphabetic()).min(here + 4);
                    if letters >= here + 2 {
                        ends.push((here, self.with_path(letters)));
                    }
                }
                // Of each place the furthest end from there on.
                let mut furthest = 0;
                for (_, end) in ends.iter_mut().rev() {
                    furthest = furthest.max(*end);
                    *end = furthest;
                }
                self.www.set(at, here, ends);
            }
            let (_, ends) = self.www.of(at, || (at, Vec::new()));
            let first = ends.partition_point(|(place, _)| *place < begins + 2);
            if let Some((_, end)) = ends.get(first).copied() {
                self.offer(end, end, How::Same);
            }
        }
        if at >= text.len() || !in_site(text[at]) {
            return;
        }
        if !self.site.holds(at) {
            let (mut here, mut last) = (at, None);
            loop {
                let end = self.past(here, in_site);
                if end == here || self.get(end) != '.' || end >= text.len() {
                    here = end.max(here);
                    break;
                }
                here = end + 1;
                if let Some(end) = self.any_at(here, &["com", "net", "org", "edu"]) {
                    last = Some((here, end));
                }
            }
            let last = last.map(|(place, end)| (place, self.with_path(end)));
            self.site.set(at, here, last);
        }
        if let (_, Some((place, end))) = self.site.of(at, || (at, None)) {
            if *place >= at + 2 {
                let end = *end;
                self.offer(end, end, How::Same);
            }
        }
    }

    fn with_path(&mut self, end: usize) -> usize {
        match self.get(end) {
            '/' => self.path(end + 1).unwrap_or(end),
            _ => end,
        }
    }

    fn contractions(&mut self) {
        let at = self.at;
        if let Some(end) = self.auxiliary(at) {
            if end < self.text.len() && !self.get(end).is_ascii_alphabetic() {
                self.offer(end + 1, end, How::Quotes { opening: false });
            }
        }
        if let Some(end) = self.negation(at) {
            self.offer(end, end, How::Quotes { opening: false });
        }
    }

    // Numbers.

    fn digits(&self, i: usize) -> usize {
        self.past_class(i, DIGIT)
    }

    /// Behind digits, at most `most`; `None` where there are fewer than `least`.
    fn some_digits(&self, i: usize, least: usize, most: usize) -> Option<usize> {
        let mut end = i;
        while end < i + most && self.is(end, DIGIT) {
            end += 1;
        }
        (end >= i + least).then_some(end)
    }

    fn numbers(&mut self) {
        let at = self.at;
        let c = self.get(at);
        let signed = matches!(c, '-' | '+');
        if !signed && !self.is(at, DIGIT) && !matches!(c, '.' | ',' | ':' | '\u{ad}' | '\u{66b}' | '\u{66c}') {
            self.small_numbers();
            return;
        }
        // A date: 1 or 2 digits, 1 or 2, 2 to 4.
        let part = |s: &Self, i: usize| {
            let end = s.some_digits(i, 1, 2)?;
            matches!(s.get(end), '-' | '/').then_some(end + 1)
        };
        let date = part(self, at).and_then(|i| part(self, i)).and_then(|i| self.some_digits(i, 2, 4));
        if let Some(end) = date {
            self.offer(end, end, How::Same);
        }
        let begins = at + usize::from(signed);
        let mut end = self.digits(begins);
        while matches!(self.get(end), '.' | ',' | ':' | '\u{ad}' | '\u{66b}' | '\u{66c}') && self.is(end + 1, DIGIT) {
            end = self.digits(end + 1);
        }
        if end > begins {
            self.offer(end, end, How::Unhyphenated);
        }
        self.fractions();
    }

    fn small_numbers(&mut self) {
        let at = self.at;
        let begins = at + usize::from(matches!(self.get(at), '\u{207a}' | '\u{207b}' | '\u{208a}' | '\u{208b}'));
        let up = self.past(begins, |c| matches!(c, '\u{2070}' | '\u{b9}' | '\u{b2}' | '\u{b3}' | '\u{2074}'..='\u{2079}'));
        let down = self.past(begins, |c| matches!(c, '\u{2080}'..='\u{2089}'));
        let end = up.max(down);
        if end > begins {
            self.offer(end, end, How::Same);
        }
        let fixed = match self.get(at) {
            '\u{bc}' => Some("1/4"),
            '\u{bd}' => Some("1/2"),
            '\u{be}' => Some("3/4"),
            '\u{2153}' => Some("1/3"),
            '\u{2154}' => Some("2/3"),
            _ => None,
        };
        if let Some(fixed) = fixed {
            self.offer(at + 1, at + 1, How::Fixed(fixed));
        }
    }

    /// `1/2`, `1 1/2`.
    fn fractions(&mut self) {
        let at = self.at;
        let simple = |i: usize| {
            let over = self.some_digits(i, 1, 4)?;
            let slash = match (self.get(over), self.get(over + 1)) {
                ('/' | '\u{2044}', _) => over + 1,
                ('\\', '/') => over + 2,
                _ => return None,
            };
            self.some_digits(slash, 1, 4)
        };
        let whole = self.some_digits(at, 1, 4).filter(|i| matches!(self.get(*i), '-' | ' ' | '\u{a0}'));
        let end = whole.and_then(|i| simple(i + 1)).max(simple(at));
        if let Some(end) = end {
            self.offer(end, end, How::Joined);
        }
    }

    // What joins letters, digits and marks.

    fn plain(&self, i: usize) -> bool {
        self.is(i, PLAIN | DIGIT)
    }

    fn things(&mut self) {
        let at = self.at;
        let c = self.get(at);
        for word in ["-LRB-", "-RRB-", "-LCB-", "-RCB-", "-LSB-", "-RSB-", "c.d.s", "pro-", "anti-", "s&p-500", "s&amp;p-500", "s&ls", "s&amp;ls"] {
            if let Some(end) = self.word_at(at, word) {
                self.offer(end, end, How::Ampersands);
            }
        }
        for (before, behind) in [("cap", "n"), ("c", "est")] {
            let end = self.word_at(at, before).and_then(|i| self.apostrophe(i)).and_then(|i| self.word_at(i, behind));
            if let Some(end) = end {
                self.offer(end, end, How::Same);
            }
        }
        if c.is_ascii_alphanumeric() {
            self.slashed();
        }
        for word in ["c++", "c#", "f#"] {
            if let Some(end) = self.word_at(at, word) {
                self.offer(end, end, How::Same);
            }
        }
    }

    /// `and/or`, `hip-hop/rap`.
    fn slashed(&mut self) {
        let part = |s: &Self, i: usize| {
            let mut end = s.past(i, |c| c.is_ascii_alphanumeric());
            if end == i {
                return None;
            }
            for _ in 0..2 {
                let letters = s.past(end + 1, |c| c.is_ascii_alphabetic());
                if s.get(end) != '-' || letters == end + 1 {
                    break;
                }
                end = letters;
            }
            Some(end)
        };
        let Some(mut end) = part(self, self.at) else {
            return;
        };
        for n in 0..2 {
            let slash = match (self.get(end), self.get(end + 1)) {
                ('/', _) => end + 1,
                ('\\', '/') => end + 2,
                _ => break,
            };
            match part(self, slash) {
                Some(next) => end = next,
                None => break,
            }
            let _ = n;
            self.offer(end, end, How::Same);
        }
    }

    fn money(&mut self) {
        let at = self.at;
        let c = self.get(at);
        let letters = self.past(at, |c| c.is_ascii_uppercase());
        if self.get(letters) == '$' {
            self.offer(letters + 1, letters + 1, How::Same);
        }
        if c == '#' {
            self.offer(at + 1, at + 1, How::Same);
        }
        let how = match c {
            '\u{a2}' => How::Fixed("cents"),
            '\u{a3}' => How::Fixed("#"),
            '\u{80}' | '\u{a4}' | '\u{20a0}' | '\u{20ac}' => How::Fixed("$"),
            _ => return,
        };
        self.offer(at + 1, at + 1, how);
    }

    // Abbreviations.

    /// Whether a blank or a line's end is at `i`, and behind it what begins a sentence.
    fn sentence_ends(&mut self, i: usize) -> Option<usize> {
        if !self.is(i, SPACE | NEWLINE) {
            return None;
        }
        // CR LF is one line's end.
        let mut longest = None;
        let ends = if self.get(i) == '\r' && self.get(i + 1) == '\n' { vec![i + 1, i + 2] } else { vec![i + 1] };
        for behind in ends {
            if self.is(behind, SPACE | NEWLINE | UPPER) {
                let crlf = self.get(behind) == '\r' && self.get(behind + 1) == '\n';
                longest = longest.max(Some(behind + 1 + usize::from(crlf)));
            }
            if self.get(behind) == '<' {
                longest = longest.max(self.tags.end(self.text, behind));
            }
        }
        longest
    }

    fn abbreviations(&mut self) {
        let (at, len) = (self.at, self.text.len());
        let letters = self.past(at, |c| c.is_ascii_alphabetic());
        let mut keeping = None;
        if self.get(letters) == '.' {
            keeping = keeps(&self.text[at..letters]).map(|k| (k, letters + 1));
        }
        if let Some(end) = self.any_at(at, &["ed.d.", "ph.d."]) {
            keeping = Some((Keeps::Final, end));
        }
        if let Some((Keeps::Final, end)) = keeping {
            if let Some(total) = self.sentence_ends(end) {
                self.twice(total, end);
            }
            if end + 2 <= len {
                self.offer(end + 2, end, How::Same);
            }
            self.twice(end, end);
        }
        if let Some((Keeps::Title, end)) = keeping {
            self.offer(end, end, How::Same);
        }
        if let Some((Keeps::Number, end)) = keeping {
            for behind in [end, end + usize::from(self.is(end, SPACE | NEWLINE))] {
                if self.is(behind, DIGIT) {
                    self.offer(behind + 1, end, How::Same);
                }
            }
        }
        self.initials();
    }

    /// An abbreviation, and its period once more.
    fn twice(&mut self, total: usize, end: usize) {
        if total > self.best.total {
            self.best = Found { total, end, next: end - 1, how: How::Same };
        }
    }

    /// `U.S.`: single letters.
    fn initials(&mut self) {
        let at = self.at;
        let mut ends = Vec::new();
        let mut here = at;
        while self.get(here).is_ascii_alphabetic() {
            ends.push(here + 1);
            if self.get(here + 1) != '.' {
                break;
            }
            here += 2;
        }
        let countries = ["canada-u.s", "sino-u.s", "korean-u.s", "eu-u.s", "japan-u.s", "non-u.s", "u.s.-u.k", "u.s.-u.s.s.r"];
        ends.extend(countries.iter().filter_map(|c| self.word_at(at, c)));
        for &end in ends.iter().rev().take(9) {
            if self.get(end) == '.' {
                let behind = self.past_class(end + 1, SPACE | NEWLINE);
                let begins = BEGINNINGS.iter().filter_map(|w| {
                    let word_end = behind + w.len();
                    let same = behind > end + 1 && w.chars().enumerate().all(|(i, c)| self.get(behind + i) == c);
                    (same && self.is(word_end, SPACE | NEWLINE)).then_some(word_end + 1)
                });
                let begins = begins.max();
                let tag = if behind > end + 1 { self.tags.end(self.text, behind) } else { None };
                if let Some(total) = begins.max(tag) {
                    if end == at + 1 {
                        self.offer(total, end, How::Same);
                    } else {
                        self.twice(total, end + 1);
                    }
                }
                self.offer(end + 1, end + 1, How::Same);
            }
            if self.is(end, SPACE | NEWLINE) {
                self.offer(end + 1, end, How::Same);
            }
        }
        let ltd = self.any_at(at, &["pty.", "pte.", "co."]).filter(|end| self.is(*end, SPACE));
        if let Some(end) = ltd {
            if let Some(total) = self.any_at(end + 1, &["ltd", "lim"]) {
                self.offer(total, end, How::Same);
            }
        }
    }

    fn file_names(&mut self) {
        let at = self.at;
        if self.letter(at) == 0 && !self.is(at, DIGIT) {
            return;
        }
        if !self.file.holds(at) {
            let (mut here, mut last) = (at, None);
            loop {
                let end = self.letters_and_digits(here);
                if end == here || self.get(end) != '.' {
                    here = end;
                    break;
                }
                here = end + 1;
                {
                    let fits = |w: &&str| {
                        let end = self.word_at(here, w)?;
                        (self.is(end, SPACE | NEWLINE) || matches!(self.get(end), '.' | '?' | '!' | ',')).then_some(end)
                    };
                    if let Some(end) = EXTENSIONS.iter().filter_map(|w| fits(&w)).max() {
                        last = Some((here, end));
                    }
                }
            }
            self.file.set(at, here, last);
        }
        if let (_, Some((place, end))) = self.file.of(at, || (at, None)) {
            if *place >= at + 2 {
                let end = *end;
                self.offer(end + 1, end, How::Same);
            }
        }
    }

    fn phones(&mut self) {
        let at = self.at;
        if !matches!(self.get(at), '(' | '+' | '0'..='9') {
            return;
        }
        // Sets of places that a part may end at, as bits from `at`.
        let digits = |set: u64, least: u32, most: u32| -> u64 {
            let mut out = 0;
            for from in (0..64).filter(|b| set >> b & 1 == 1) {
                let mut n = 0;
                while n < most && self.get(at + from + n as usize).is_ascii_digit() {
                    n += 1;
                    if n >= least && from + (n as usize) < 64 {
                        out |= 1 << (from + n as usize);
                    }
                }
            }
            out
        };
        let one = |set: u64, so: &dyn Fn(char) -> bool| -> u64 {
            (0..63).filter(|b| set >> b & 1 == 1 && so(self.get(at + b))).fold(0, |out, b| out | 1 << (b + 1))
        };
        let gap = |c: char| matches!(c, '-' | ' ' | '\u{a0}');
        let plus = one(1, &|c| c == '+');
        let plus = 1 | plus | one(plus, &|c| c == '+');
        // With brackets, or groups before it.
        let bracket = one(digits(one(1, &|c| c == '('), 2, 3), &|c| c == ')');
        let bracket = bracket | one(bracket, &|c| matches!(c, ' ' | '\u{a0}'));
        let first = plus | one(digits(plus, 2, 4), &gap);
        let area = one(digits(first, 2, 4), &gap) | bracket;
        let middle = digits(area, 3, 4);
        let spaced = digits(middle | one(middle, &gap), 3, 5);
        let dot = |set: u64| one(set, &|c| c == '.');
        let first = 1 | dot(digits(plus, 2, 4));
        let dotted = digits(dot(digits(dot(digits(first, 2, 4)), 3, 4)), 3, 5);
        let ends = spaced | dotted;
        if ends != 0 {
            let end = at + 63 - ends.leading_zeros() as usize;
            self.offer(end, end, How::Joined);
        }
    }

    fn faces(&mut self) {
        let at = self.at;
        let eyes = at + usize::from(matches!(self.get(at), '<' | '>'));
        if matches!(self.get(eyes), ':' | ';' | '=') {
            for mouth in [eyes + 1, eyes + 2] {
                if mouth == eyes + 2 && !matches!(self.get(eyes + 1), '-' | 'o' | '*' | '\'') {
                    continue;
                }
                let fits = matches!(self.get(mouth), '(' | ')' | 'D' | 'P' | 'd' | 'p' | 'O' | '\\' | '{' | '@' | '|' | '[' | ']');
                if fits && mouth + 1 < self.text.len() && !self.get(mouth + 1).is_ascii_alphanumeric() {
                    self.offer(mouth + 2, mouth + 1, How::Joined);
                }
            }
        }
        let eye = |c: char| matches!(c, '^' | 'x' | '=' | '~' | '<' | '>' | '\'');
        let (a, b, c) = (self.get(at), self.get(at + 1), self.get(at + 2));
        if (eye(a) || a == '-') && b == '_' && (eye(c) || c == '-') {
            self.offer(at + 3, at + 3, How::Same);
        }
        if a == '(' {
            if (eye(b) || b == '-') && (eye(c) || c == '-') && self.get(at + 3) == ')' {
                self.offer(at + 4, at + 4, How::Joined);
            }
            let d = self.get(at + 3);
            if (eye(b) || b == '-') && matches!(c, '_' | '.') && (eye(d) || d == '-') && self.get(at + 4) == ')' {
                self.offer(at + 5, at + 5, How::Joined);
            }
            if eye(b) && c == '-' && (eye(d) || d == '`') && self.get(at + 4) == ')' {
                self.offer(at + 5, at + 5, How::Joined);
            }
        }
    }

    fn marks(&mut self) {
        let at = self.at;
        let c = self.get(at);
        let quote = match c {
            '"' => Some(at + 1),
            _ => self.word_at(at, "&quot;"),
        };
        if let Some(end) = quote {
            if self.get(end).is_ascii_alphanumeric() || self.get(end) == '$' {
                self.offer(end + 1, end, How::Fixed("``"));
            }
            self.offer(end, end, How::Fixed("''"));
        }
        let fixed = match c {
            '{' => "-lcb-",
            '}' => "-rcb-",
            '[' => "-lsb-",
            ']' => "-rsb-",
            '(' => "-lrb-",
            ')' => "-rrb-",
            _ => "",
        };
        if !fixed.is_empty() {
            self.offer(at + 1, at + 1, How::Fixed(fixed));
        }
        if let Some(end) = self.any_at(at, &["<<", ">>"]) {
            self.offer(end, end, How::Same);
        }
        if let Some(end) = self.word_at(at, "&lt;") {
            self.offer(end, end, How::Fixed("<"));
        }
        if let Some(end) = self.word_at(at, "&gt;") {
            self.offer(end, end, How::Fixed(">"));
        }
        match c {
            '-' => {
                let end = self.past(at, |c| c == '-');
                let how = if matches!(end - at, 3 | 4) { How::Fixed("--") } else { How::Same };
                self.offer(end, end, how);
            }
            '.' => self.ellipsis(),
            '\u{85}' | '\u{2026}' => self.offer(at + 1, at + 1, How::Fixed("...")),
            '@' | '#' | '_' | '*' => {
                let end = self.past(at, |other| other == c);
                self.offer(end, end, How::Same);
            }
            '\\' => {
                let mut end = at;
                while end < at + 6 && self.get(end) == '\\' && self.get(end + 1) == '*' {
                    end += 2;
                    self.offer(end, end, How::Same);
                }
            }
            '?' | '!' => {
                let end = self.past(at, |c| matches!(c, '?' | '!'));
                self.offer(end, end, How::Same);
            }
            _ => {}
        }
    }

    fn ellipsis(&mut self) {
        let at = self.at;
        let close = self.past(at, |c| c == '.').min(at + 5);
        if close >= at + 3 {
            self.offer(close, close, How::Fixed("..."));
        }
        let mut end = at;
        for n in 1..=4 {
            if self.get(end) != '.' || !matches!(self.get(end + 1), ' ' | '\u{a0}') {
                break;
            }
            end += 2;
            if n >= 2 && self.get(end) == '.' {
                self.offer(end + 1, end + 1, How::Fixed("..."));
            }
        }
    }

    /// Behind letters and digits from `i` on, joined by single hyphens, each part perhaps after `o'`, `d'`, `l'`.
    fn hyphened(&self, i: usize) -> usize {
        let part = |i: usize| {
            let mut begins = i;
            if matches!(self.get(i), 'd' | 'D' | 'o' | 'O' | 'l' | 'L') {
                if let Some(behind) = self.nearly_apostrophe(i + 1).filter(|b| self.plain(*b) && self.plain(*b + 1)) {
                    begins = behind;
                }
            }
            self.past_class(begins, PLAIN | DIGIT)
        };
        let mut end = part(i);
        while end > i && matches!(self.get(end), '-' | '_' | '\u{58a}' | '\u{2010}' | '\u{2011}') && self.plain(end + 1) {
            end = part(end + 1);
        }
        end
    }

    fn joined(&mut self) {
        let (at, text) = (self.at, self.text);
        let c = self.get(at);
        if c.is_ascii_alphanumeric() {
            let body = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ',' | '\u{ad}');
            let piece = |c: char| c.is_ascii_alphanumeric() || c == '\u{ad}';
            let run = |i: usize, so: &dyn Fn(char) -> bool| i + text.iter().skip(i).take_while(|c| so(**c)).count();
            let (mut end, ()) = self.hyphened.of(at, || (run(at, &body), ()));
            let mut first = true;
            while self.get(end) == '-' {
                let begins = end + 1;
                let behind = if first && begins < text.len() && piece(text[begins]) {
                    self.part.of(begins, || (run(begins, &piece), ())).0
                } else {
                    run(begins, &piece)
                };
                first = false;
                // Single letters with periods, too.
                let mut letters = begins;
                let mut n = 0;
                while self.get(letters).is_ascii_alphabetic() && self.get(letters + 1) == '.' {
                    letters += 2;
                    n += 1;
                }
                let country = self.any_at(begins, &["canada-u.s.", "sino-u.s.", "korean-u.s.", "eu-u.s.", "japan-u.s.", "non-u.s."]);
                let behind = if n > 1 { letters } else { behind };
                let behind = country.map_or(behind, |c| c.max(behind));
                if behind == begins {
                    break;
                }
                end = behind;
                self.offer(end, end, How::Unhyphenated);
                if self.get(end) == '.' && matches!(self.get(end + 1), ',' | ';' | ':' | '\u{3001}') {
                    self.offer(end + 2, end + 1, How::Unhyphenated);
                }
            }
        }
        if self.plain(at) {
            let end = self.hyphened(at);
            if self.get(end) == '.' && matches!(self.get(end + 1), ',' | ';' | ':' | '\u{3001}') {
                self.offer(end + 2, end + 1, How::Same);
            }
            self.offer(end, end, How::Same);
        }
        if c.is_ascii_uppercase() {
            let mut end = self.past(at, |c| c.is_ascii_uppercase());
            let mut joined = false;
            loop {
                let behind = match self.get(end) {
                    '+' | '&' => self.word_at(end, "&amp;").unwrap_or(end + 1),
                    _ => break,
                };
                let next = self.past(behind, |c| c.is_ascii_uppercase());
                if next == behind {
                    break;
                }
                (end, joined) = (next, true);
            }
            if joined {
                if self.get(end) == '.' && matches!(self.get(end + 1), ',' | ';' | ':' | '\u{3001}') {
                    self.offer(end + 2, end + 1, How::Ampersands);
                }
                self.offer(end, end, How::Ampersands);
            }
        }
    }

    fn quotes(&mut self) {
        let at = self.at;
        let c = self.get(at);
        if c == '\'' && self.get(at + 1).is_ascii_alphabetic() && at + 2 < self.text.len() && !matches!(self.get(at + 2), ' ' | '\t' | '\n' | '\r' | '\u{a0}') {
            self.offer(at + 3, at + 1, How::Quotes { opening: true });
        }
        if let Some(end) = self.auxiliary(at) {
            self.offer(end, end, How::Quotes { opening: false });
        }
        // A year without its century.
        if let Some(behind) = self.apostrophe(at) {
            let two = self.get(behind).is_ascii_digit() && self.get(behind + 1).is_ascii_digit();
            if two && self.is(behind + 2, SPACE | NEWLINE) {
                self.offer(behind + 3, behind + 2, How::Same);
            }
            self.offer(behind, behind, How::Quotes { opening: false });
        }
        if c == '\'' && self.get(at + 1) == '\'' {
            self.offer(at + 2, at + 2, How::Same);
        }
        let mark = |c: char| {
            matches!(c, '`' | '\u{2018}'..='\u{201f}' | '\u{91}'..='\u{94}' | '\u{2039}' | '\u{203a}' | '\u{ab}' | '\u{bb}')
        };
        if mark(c) {
            let end = at + 1 + usize::from(mark(self.get(at + 1)));
            self.offer(end, end, How::Quotes { opening: false });
        }
    }

    fn alone(&mut self) {
        let at = self.at;
        let c = self.get(at);
        if self.is(at, SYMBOL) || matches!(c, '+' | '<' | '>' | ',' | ';' | ':' | '/' | '.' | '=' | '\u{3001}' | '\u{207a}' | '\u{207b}' | '\u{208a}' | '\u{208b}') {
            self.offer(at + 1, at + 1, How::Same);
        }
        if self.is(at, SPACE) {
            let end = self.past_class(at, SPACE);
            self.offer(end, end, How::Nothing);
        }
        if self.is(at, NEWLINE) {
            let end = at + 1 + usize::from(c == '\r' && self.get(at + 1) == '\n');
            self.offer(end, end, How::Line);
        }
    }
}

/// What may stand in an address behind its name.
fn in_path(c: char) -> bool {
    !matches!(c, ' ' | '\t' | '\n' | '\u{c}' | '\r' | '"' | '<' | '>' | '|' | '(' | ')' | '{' | '}')
}

fn in_www(c: char) -> bool {
    in_path(c) && !matches!(c, '.' | '!' | '?' | ',')
}

fn in_site(c: char) -> bool {
    in_path(c) && !matches!(c, '`' | '\'' | '!' | ','..='_' | '$')
}

fn in_mail(c: char) -> bool {
    in_path(c) && c != '\u{a0}'
}

fn in_domain(c: char) -> bool {
    in_mail(c) && c != '.'
}
