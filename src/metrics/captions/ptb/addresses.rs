//! Addresses of the web and of mail, and names of files.

use super::classes::{DIGIT, NEWLINE, SPACE};
use super::cursor::{Cursor, How};

const FILES: &[&str] = &[
    "bat", "bmp", "c", "class", "cgi", "cpp", "dll", "doc", "docx", "exe", "gif", "gz", "h", "htm", "html",
    "jar", "java", "jpeg", "jpg", "mov", "mp3", "pdf", "php", "pl", "png", "ppt", "ps", "py", "sql", "tar",
    "txt", "wav", "x", "xml", "zip",
];

impl Cursor<'_> {
    pub(super) fn addresses(&mut self) {
        if let Some(begins) = self.any_at(self.at, &["http://", "https://"]) {
            let end = self.past(begins, |c| in_path(c) && !matches!(c, '{' | '}'));
            let last = (begins..end).rev().find(|i| ends_path(self.get(*i)));
            if let Some(end) = last.and_then(|last| self.behind_two_units(begins, last)) {
                self.offer_same(end);
            }
        }
        self.www();
        self.site();
        self.mail();
        let at = self.at;
        if self.get(at) == '@' && matches!(self.get(at + 1), 'a'..='z' | 'A'..='Z' | '_') {
            self.offer_same(self.past(at + 1, |c| c.is_ascii_alphanumeric() || c == '_'));
        }
        if self.get(at) == '#' && self.letter(at + 1) > 0 {
            self.offer_same(self.letters(at + 1));
        }
    }

    /// Behind `last`, where there are two UTF-16 code units from `begins` on.
    fn behind_two_units(&self, begins: usize, last: usize) -> Option<usize> {
        let two = last > begins || (last == begins && self.get(last).len_utf16() == 2);
        two.then_some(last + 1)
    }

    /// The end, or where a slash stands there the end of what is behind it.
    fn with_path(&mut self, end: usize) -> usize {
        let begins = end + 1;
        if self.get(end) != '/' || !self.has(begins) || !in_path(self.get(begins)) {
            return end;
        }
        let mut reach = std::mem::take(&mut self.far.path);
        let (_, last) = reach.of(begins, || {
            let end = self.past(begins, in_path);
            (end, (begins..end).rev().find(|i| ends_path(self.get(*i))))
        });
        let with = last.and_then(|last| self.behind_two_units(begins, last));
        self.far.path = reach;
        with.unwrap_or(end)
    }

    /// `www.x.org/y`
    fn www(&mut self) {
        let at = self.at;
        let Some(begins) = self.word_at(at, "www.") else {
            return;
        };
        let mut reach = std::mem::take(&mut self.far.www);
        let (_, ends) = reach.of(at, || {
            let (mut here, mut ends) = (begins, Vec::new());
            loop {
                let end = self.past(here, in_www);
                if end == here || self.get(end) != '.' {
                    break (end, ends);
                }
                here = end + 1;
                let letters = (here..here + 4).take_while(|i| self.get(*i).is_ascii_alphabetic());
                let letters = letters.count();
                if letters >= 2 {
                    ends.push((here, self.with_path(here + letters)));
                }
            }
        });
        // What stands nearer to the beginning may end further away: by its path.
        let end = ends.iter().rev().take_while(|(place, _)| *place >= begins + 2);
        let end = end.map(|(_, end)| *end).max();
        self.far.www = reach;
        if let Some(end) = end {
            self.offer_same(end);
        }
    }

    /// `x.org/y`
    fn site(&mut self) {
        let at = self.at;
        if !self.has(at) || !in_site(self.get(at)) {
            return;
        }
        let mut reach = std::mem::take(&mut self.far.site);
        let (_, last) = reach.of(at, || {
            let (mut here, mut last) = (at, None);
            loop {
                let end = self.past(here, in_site);
                if end == here || self.get(end) != '.' {
                    break (end, last.map(|(place, end)| (place, self.with_path(end))));
                }
                here = end + 1;
                if let Some(end) = self.any_at(here, &["com", "net", "org", "edu"]) {
                    last = Some((here, end));
                }
            }
        });
        let end = last.filter(|(place, _)| *place >= at + 2).map(|(_, end)| end);
        self.far.site = reach;
        if let Some(end) = end {
            self.offer_same(end);
        }
    }

    /// `a@b.c`, also in `<` and `>`.
    fn mail(&mut self) {
        let at = self.any_at(self.at, &["<", "&lt;"]).unwrap_or(self.at);
        if !self.get(at).is_ascii_alphanumeric() {
            return;
        }
        let mut reach = std::mem::take(&mut self.far.mail);
        let (_, found) = reach.of(at, || {
            let end = self.past(at, in_mail);
            let domain = |i: usize| self.has(i) && in_mail(self.get(i)) && self.get(i) != '.';
            let more = |i: usize| domain(i) || (self.get(i) == '.' && domain(i + 1));
            // The name before the last `@` may hold others.
            let sign = (at + 1..end)
                .rev()
                .find(|i| self.get(*i) == '@' && domain(*i + 1));
            let domain_end = |sign: usize| (sign + 1..).find(|i| !more(*i)).unwrap_or(end);
            (end, sign.map(|sign| (sign, domain_end(sign))))
        });
        let end = found.filter(|(sign, _)| *sign > at).map(|(_, end)| end);
        self.far.mail = reach;
        if let Some(end) = end {
            self.offer_same(self.any_at(end, &[">", "&gt;"]).unwrap_or(end));
        }
    }

    /// `3.wav`, before a blank or the end of a sentence.
    pub(super) fn file_names(&mut self) {
        let at = self.at;
        if self.letter(at) == 0 && !self.is(at, DIGIT) {
            return;
        }
        let mut reach = std::mem::take(&mut self.far.file);
        let (_, last) = reach.of(at, || {
            let (mut here, mut last) = (at, None);
            loop {
                let end = self.letters_and_digits(here);
                if end == here || self.get(end) != '.' {
                    break (end, last);
                }
                here = end + 1;
                let ends =
                    |i: &usize| self.is(*i, SPACE | NEWLINE) || matches!(self.get(*i), '.' | '?' | '!' | ',');
                let end = FILES
                    .iter()
                    .filter_map(|w| self.word_at(here, w))
                    .filter(ends)
                    .max();
                last = end.map(|end| (here, end)).or(last);
            }
        });
        let end = last.filter(|(place, _)| *place >= at + 2).map(|(_, end)| end);
        self.far.file = reach;
        if let Some(end) = end {
            self.offer(end + 1, end, How::Same);
        }
    }
}

/// What may stand in an address behind its name.
fn in_path(c: char) -> bool {
    !matches!(
        c,
        ' ' | '\t' | '\n' | '\u{c}' | '\r' | '"' | '<' | '>' | '|' | '(' | ')'
    )
}

fn ends_path(c: char) -> bool {
    !matches!(c, '.' | '!' | '?' | '{' | '}' | ',' | '-')
}

fn in_www(c: char) -> bool {
    in_path(c) && !matches!(c, '.' | '!' | '?' | '{' | '}' | ',')
}

/// No digit and no capital: the program has a range from `,` to `_` where a comma, a hyphen and `_` seem to be meant.
fn in_site(c: char) -> bool {
    in_path(c) && !matches!(c, '`' | '\'' | '!' | '{' | '}' | ','..='_' | '$')
}

fn in_mail(c: char) -> bool {
    in_path(c) && !matches!(c, '{' | '}' | '\u{a0}')
}
