//! Numbers: dates, fractions, money, telephones.

use super::classes::DIGIT;
use super::cursor::{Cursor, How};

impl Cursor<'_> {
    /// Behind digits at `i`, at most `most`; `None` where there are fewer than `least`.
    fn digits(&self, i: usize, least: usize, most: usize) -> Option<usize> {
        let n = (i..i + most).take_while(|i| self.is(*i, DIGIT)).count();
        (n >= least).then_some(i + n)
    }

    pub(super) fn numbers(&mut self) {
        let at = self.at;
        let c = self.get(at);
        let signed = matches!(c, '-' | '+');
        let point = |c: char| matches!(c, '.' | ',' | ':' | '\u{ad}' | '\u{66b}' | '\u{66c}');
        if signed || point(c) || self.is(at, DIGIT) {
            if let Some(end) = self.date() {
                self.offer_same(end);
            }
            let begins = at + usize::from(signed);
            let mut end = self.past_class(begins, DIGIT);
            while point(self.get(end)) && self.is(end + 1, DIGIT) {
                end = self.past_class(end + 1, DIGIT);
            }
            if end > begins {
                self.offer(end, end, How::Unhyphenated);
            }
            if let Some(end) = self.fraction() {
                self.offer(end, end, How::Joined);
            }
            return;
        }
        // Superscripts, subscripts and fractions of one character.
        let begins = at + usize::from(matches!(c, '\u{207a}' | '\u{207b}' | '\u{208a}' | '\u{208b}'));
        let up = |c: char| {
            matches!(
                c,
                '\u{2070}' | '\u{b9}' | '\u{b2}' | '\u{b3}' | '\u{2074}'..='\u{2079}'
            )
        };
        let down = |c: char| matches!(c, '\u{2080}'..='\u{2089}');
        let end = self.past(begins, up).max(self.past(begins, down));
        if end > begins {
            self.offer_same(end);
        }
        let fraction = match c {
            '\u{bc}' => "1/4",
            '\u{bd}' => "1/2",
            '\u{be}' => "3/4",
            '\u{2153}' => "1/3",
            '\u{2154}' => "2/3",
            _ => return,
        };
        self.offer(at + 1, at + 1, How::Fixed(fraction));
    }

    /// `31/12/1999`
    fn date(&self) -> Option<usize> {
        let part = |i: usize| {
            let end = self.digits(i, 1, 2)?;
            matches!(self.get(end), '-' | '/').then_some(end + 1)
        };
        self.digits(part(part(self.at)?)?, 2, 4)
    }

    /// `1/2`, `1 1/2`
    fn fraction(&self) -> Option<usize> {
        let simple = |i: usize| {
            let over = self.digits(i, 1, 4)?;
            let under = match (self.get(over), self.get(over + 1)) {
                ('/' | '\u{2044}', _) => over + 1,
                ('\\', '/') => over + 2,
                _ => return None,
            };
            self.digits(under, 1, 4)
        };
        let whole = self.digits(self.at, 1, 4);
        let whole = whole.filter(|i| matches!(self.get(*i), '-' | ' ' | '\u{a0}'));
        whole.and_then(|i| simple(i + 1)).or(simple(self.at))
    }

    pub(super) fn money(&mut self) {
        let at = self.at;
        let sign = self.past(at, |c| c.is_ascii_uppercase());
        if self.get(sign) == '$' {
            self.offer_same(sign + 1);
        }
        let how = match self.get(at) {
            '#' => How::Same,
            '\u{a2}' => How::Fixed("cents"),
            '\u{a3}' => How::Fixed("#"),
            '\u{80}' | '\u{a4}' | '\u{20a0}' | '\u{20ac}' => How::Fixed("$"),
            _ => return,
        };
        self.offer(at + 1, at + 1, how);
    }

    /// `(555) 123-4567`, `+44 20 7946 0958`, `555.123.4567`
    pub(super) fn telephones(&mut self) {
        let at = self.at;
        let digit = |i: usize| self.get(i).is_ascii_digit();
        match self.get(at) {
            '(' if digit(at + 1) => {}
            '+' if digit(at + 1) || digit(at + 2) => {}
            _ if digit(at) && digit(at + 1) => {}
            _ => return,
        }
        // The places where a part may end, as bits from `at`: no number has as many as 64 characters.
        let bits = |set: u64| (0..63_usize).filter(move |b| set >> b & 1 == 1);
        let digits = |set: u64, least: usize, most: usize| {
            bits(set).fold(0, |out: u64, from| {
                let n = (0..most).take_while(|n| digit(at + from + n)).count();
                (least..=n)
                    .filter(|n| from + n < 64)
                    .fold(out, |out, n| out | 1 << (from + n))
            })
        };
        let one = |set: u64, chars: &[char]| {
            let fits = bits(set).filter(|b| chars.contains(&self.get(at + b)));
            fits.fold(0, |out: u64, b| out | 1 << (b + 1))
        };
        let gap = ['-', ' ', '\u{a0}'];
        let plus = one(1, &['+']);
        let plus = 1 | plus | one(plus, &['+']);
        let bracket = one(digits(one(1, &['(']), 2, 3), &[')']);
        let bracket = bracket | one(bracket, &gap[1..]);
        let area = plus | one(digits(plus, 2, 4), &gap);
        let area = one(digits(area, 2, 4), &gap) | bracket;
        let middle = digits(area, 3, 4);
        let spaced = digits(middle | one(middle, &gap), 3, 5);
        let dots = |set: u64, least: usize, most: usize| one(digits(set, least, most), &['.']);
        let dotted = digits(dots(dots(1 | dots(plus, 2, 4), 2, 4), 3, 4), 3, 5);
        if let Some(last) = (spaced | dotted).checked_ilog2() {
            let end = at + last as usize;
            self.offer(end, end, How::Joined);
        }
    }
}
