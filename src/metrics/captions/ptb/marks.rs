//! Punctuation, quotation marks, entities, tags and faces.

use super::classes::{NEWLINE, SPACE, SYMBOL};
use super::cursor::{Cursor, How};

impl Cursor<'_> {
    pub(super) fn tag(&mut self) {
        if let Some(end) = self.far.tags.end(self.text, self.at) {
            self.offer(end, end, How::Tag);
        }
    }

    pub(super) fn entities(&mut self) {
        let at = self.at;
        match self.get(at) {
            '\u{96}' | '\u{97}' | '\u{2013}'..='\u{2015}' => self.offer(at + 1, at + 1, How::Fixed("--")),
            '&' => {}
            _ => return,
        }
        let named: [(&[&str], How); 6] = [
            (&["&md;", "&mdash;", "&ndash;"], How::Fixed("--")),
            (&["&amp;"], How::Fixed("&")),
            (
                &[
                    "&ht;", "&tl;", "&ur;", "&lr;", "&qc;", "&ql;", "&qr;", "&odq;", "&cdq;",
                ],
                How::Same,
            ),
            (&["&nbsp;"], How::Nothing),
            (&["&lt;"], How::Fixed("<")),
            (&["&gt;"], How::Fixed(">")),
        ];
        for (names, how) in named {
            if let Some(end) = self.any_at(at, names) {
                self.offer(end, end, how);
            }
        }
        if self.get(at + 1) == '#' {
            let end = self.past(at + 2, |c| c.is_ascii_digit());
            if end > at + 2 && self.get(end) == ';' {
                self.offer_same(end + 1);
            }
        }
    }

    /// `:-)`, `^_^`, `(^_^)`
    pub(super) fn faces(&mut self) {
        let at = self.at;
        let eyes = at + usize::from(matches!(self.get(at), '<' | '>'));
        if matches!(self.get(eyes), ':' | ';' | '=') {
            let nose = matches!(self.get(eyes + 1), '-' | 'o' | '*' | '\'');
            let mouth = |c: char| {
                matches!(
                    c,
                    '(' | ')' | 'D' | 'P' | 'd' | 'p' | 'O' | '\\' | '{' | '@' | '|' | '[' | ']'
                )
            };
            for end in [eyes + 2, eyes + 2 + usize::from(nose)] {
                let ends = self.has(end) && !self.get(end).is_ascii_alphanumeric();
                if ends && mouth(self.get(end - 1)) {
                    self.offer(end + 1, end, How::Joined);
                }
            }
        }
        let eye = |c: char| matches!(c, '^' | 'x' | '=' | '~' | '<' | '>' | '\'');
        let any_eye = |c: char| eye(c) || c == '-';
        let face: [char; 5] = std::array::from_fn(|n| self.get(at + n));
        if let [left, '_', right, ..] = face {
            if any_eye(left) && any_eye(right) {
                self.offer_same(at + 3);
            }
        }
        let end = match face {
            ['(', left, right, ')', _] if any_eye(left) && any_eye(right) => at + 4,
            ['(', left, '_' | '.', right, ')'] if any_eye(left) && any_eye(right) => at + 5,
            ['(', left, '-', right, ')'] if eye(left) && (eye(right) || right == '`') => at + 5,
            _ => return,
        };
        self.offer(end, end, How::Joined);
    }

    /// `"` and `&quot;`: opening before a letter, a digit or `$`.
    pub(super) fn straight_quotes(&mut self) {
        let at = self.at;
        let end = match self.get(at) {
            '"' => at + 1,
            '&' => match self.word_at(at, "&quot;") {
                Some(end) => end,
                None => return,
            },
            _ => return,
        };
        // In capitals it is left as it is.
        if self.text[at..end].iter().any(char::is_ascii_uppercase) {
            return self.offer_same(end);
        }
        let opens = self.get(end).is_ascii_alphanumeric() || self.get(end) == '$';
        let (total, mark) = if opens { (end + 1, "``") } else { (end, "''") };
        self.offer(total, end, How::Fixed(mark));
    }

    pub(super) fn punctuation(&mut self) {
        let at = self.at;
        let c = self.get(at);
        let run = |least: usize, how: How| (self.past(at, |other| other == c), least, how);
        let (end, least, how) = match c {
            '{' => (at + 1, 1, How::Fixed("-lcb-")),
            '}' => (at + 1, 1, How::Fixed("-rcb-")),
            '[' => (at + 1, 1, How::Fixed("-lsb-")),
            ']' => (at + 1, 1, How::Fixed("-rsb-")),
            '(' => (at + 1, 1, How::Fixed("-lrb-")),
            ')' => (at + 1, 1, How::Fixed("-rrb-")),
            '\u{85}' | '\u{2026}' => (at + 1, 1, How::Fixed("...")),
            '<' | '>' => (at + 1 + usize::from(self.get(at + 1) == c), 2, How::Same),
            '-' => match run(1, How::Same) {
                (end, ..) if matches!(end - at, 3 | 4) => (end, 1, How::Fixed("--")),
                other => other,
            },
            '@' | '#' | '_' | '*' => run(1, How::Same),
            '?' | '!' => (self.past(at, |c| matches!(c, '?' | '!')), 1, How::Same),
            '.' => (self.ellipsis().unwrap_or(at), 1, How::Fixed("...")),
            '\\' => {
                let stars =
                    (0..3).take_while(|n| self.get(at + 2 * n) == '\\' && self.get(at + 2 * n + 1) == '*');
                (at + 2 * stars.count(), 1, How::Same)
            }
            _ => return,
        };
        if end >= at + least {
            self.offer(end, end, how);
        }
    }

    /// Three to five periods, together or each a blank apart.
    fn ellipsis(&self) -> Option<usize> {
        let at = self.at;
        let close = (at..at + 5).take_while(|i| self.get(*i) == '.').count();
        let apart = (0..4).take_while(|n| {
            self.get(at + 2 * n) == '.' && matches!(self.get(at + 2 * n + 1), ' ' | '\u{a0}')
        });
        // Of the last one no blank is part.
        let apart = (0..=apart.count()).rev().find(|n| self.get(at + 2 * n) == '.');
        let apart = apart.filter(|n| *n >= 2).map(|n| at + 2 * n + 1);
        (close >= 3).then_some(at + close).max(apart)
    }

    /// Single quotation marks, apostrophes, and typographic ones.
    pub(super) fn quotes(&mut self) {
        let at = self.at;
        let closing = How::Quotes { opening: false };
        let c = self.get(at);
        if c == '\'' && self.get(at + 1).is_ascii_alphabetic() {
            let end = at + 2;
            if self.has(end) && !matches!(self.get(end), ' ' | '\t' | '\n' | '\r' | '\u{a0}') {
                self.offer(end + 1, at + 1, How::Quotes { opening: true });
            }
        }
        if let Some(end) = self.auxiliary(at) {
            self.offer(end, end, closing);
        }
        if let Some(behind) = self.apostrophe(at) {
            // A year without its century.
            let two = self.get(behind).is_ascii_digit() && self.get(behind + 1).is_ascii_digit();
            if two && self.is(behind + 2, SPACE | NEWLINE) {
                self.offer(behind + 3, behind + 2, How::Same);
            }
            self.offer(behind, behind, closing);
        }
        if c == '\'' && self.get(at + 1) == '\'' {
            self.offer_same(at + 2);
        }
        let mark = |c: char| matches!(c, '`' | '\u{91}'..='\u{94}' | '\u{2018}'..='\u{201f}' | '\u{2039}' | '\u{203a}' | '\u{ab}' | '\u{bb}');
        if mark(c) {
            let end = at + 1 + usize::from(mark(self.get(at + 1)));
            self.offer(end, end, closing);
        }
    }

    /// What stands alone, blanks and ends of lines.
    pub(super) fn rest(&mut self) {
        let at = self.at;
        let c = self.get(at);
        let alone = matches!(c, '+' | '<' | '>' | ',' | ';' | ':' | '/' | '.' | '=')
            || matches!(
                c,
                '\u{3001}' | '\u{2044}' | '\u{207a}' | '\u{207b}' | '\u{208a}' | '\u{208b}'
            );
        if alone || self.is(at, SYMBOL) {
            self.offer_same(at + 1);
        }
        if self.is(at, SPACE) {
            let end = self.past_class(at, SPACE);
            self.offer(end, end, How::Nothing);
        }
        if self.is(at, NEWLINE) {
            let crlf = c == '\r' && self.get(at + 1) == '\n';
            let end = at + 1 + usize::from(crlf);
            self.offer(end, end, How::Line);
        }
    }
}
