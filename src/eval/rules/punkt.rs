//! How many sentences NLTK's `sent_tokenize` makes of an English text: Punkt (Kiss and Strunk, 2006) as NLTK 3.10.4 has it.
//!
//! A text may end a sentence at ".", "?" or "!" before white space, a quotation mark or a bracket. Whether it does is told by the
//! words around it: known abbreviations, initials and numbers do not end one, but where the next word is known to begin
//! sentences, or has a capital that it only has there.

use super::python;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::OnceLock;

/// `\s` of the `regex` module, in which NLTK runs its patterns.
fn is_space(c: char) -> bool {
    c.is_whitespace()
}

/// Characters between which and the one before a sentence may end, and that no word holds.
fn non_word(c: char) -> bool {
    matches!(
        c,
        ')' | '"' | ';' | '}' | ']' | '*' | ':' | '@' | '\'' | '(' | '{' | '[' | '?' | '!'
    ) || quote(c)
}

/// Typographic quotation marks.
fn quote(c: char) -> bool {
    matches!(c, '‘' | '’' | '“' | '”' | '«' | '»')
}

/// Whether a word may begin with it.
fn begins_word(c: char) -> bool {
    !matches!(
        c,
        '(' | '"' | '`' | '{' | '[' | ':' | ';' | '&' | '#' | '*' | '@' | ')' | '}' | ']' | '-' | ','
    ) && !is_space(c)
}

/// How a word was seen in lower case.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    /// And never with a capital inside a sentence.
    Lower,
    /// And with one.
    Both,
}

struct English {
    abbreviations: HashSet<&'static str>,
    starters: HashSet<&'static str>,
    collocations: HashSet<(&'static str, &'static str)>,
    seen: HashMap<&'static str, Seen>,
    lower_first: HashSet<&'static str>,
}

impl English {
    fn get() -> &'static English {
        static MODEL: OnceLock<English> = OnceLock::new();
        MODEL.get_or_init(|| English::read(include_str!("punkt_english.txt")))
    }

    fn read(text: &'static str) -> Self {
        let mut model = English {
            abbreviations: HashSet::new(),
            starters: HashSet::new(),
            collocations: HashSet::new(),
            seen: HashMap::new(),
            lower_first: HashSet::new(),
        };
        let mut section = "";
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name;
                continue;
            }
            for word in line.split(' ') {
                match section {
                    "abbreviations" => _ = model.abbreviations.insert(word),
                    "starters" => _ = model.starters.insert(word),
                    "collocations" => model.collocations.extend(word.split_once('|')),
                    "lower" => _ = model.seen.insert(word, Seen::Lower),
                    "both" => _ = model.seen.insert(word, Seen::Both),
                    _ => _ = model.lower_first.insert(word),
                }
            }
        }
        model
    }

    /// Whether a token is the first of a sentence; `None`: unknown.
    fn begins_sentence(&self, token: &Token) -> Option<bool> {
        if matches!(token.text, ";" | ":" | "," | "." | "!" | "?") {
            return Some(false);
        }
        let kind = token.type_no_sentence_period();
        if token.first(char::is_uppercase) && self.seen.get(kind) == Some(&Seen::Lower) {
            return Some(true);
        }
        let never = token.first(char::is_lowercase) && !self.lower_first.contains(kind);
        never.then_some(false)
    }

    fn is_abbreviation(&self, token: &str) -> bool {
        let lowered = python::lower(token);
        let last = lowered.rsplit('-').next().unwrap_or("");
        self.abbreviations.contains(&*lowered) || self.abbreviations.contains(last)
    }

    /// First by the token alone.
    fn first_look(&self, token: &mut Token) {
        let text = token.text;
        if matches!(text, "." | "?" | "!") {
            token.ends_sentence = true;
        } else if text.len() > 1 && text.bytes().all(|b| b == b'.') {
            token.ellipsis = true;
        } else if let Some(word) = text.strip_suffix('.').filter(|w| !w.ends_with('.')) {
            match self.is_abbreviation(word) {
                true => token.abbreviation = true,
                false => token.ends_sentence = true,
            }
        }
    }

    /// Then by the token behind it.
    fn second_look(&self, token: &mut Token, next: &Token) {
        if !token.text.ends_with('.') {
            return;
        }
        let (kind, after) = (token.type_no_period(), next.type_no_sentence_period());
        if self.collocations.contains(&(kind, after)) {
            token.ends_sentence = false;
            return;
        }
        let initial = token.is_initial();
        let capital = next.first(char::is_uppercase);
        if (token.abbreviation || token.ellipsis) && !initial {
            let starts = self.begins_sentence(next) == Some(true);
            if starts || (capital && self.starters.contains(after)) {
                token.ends_sentence = true;
                return;
            }
        }
        if initial || kind == NUMBER {
            match self.begins_sentence(next) {
                Some(false) => token.ends_sentence = false,
                None if initial && capital && !self.seen.contains_key(after) => token.ends_sentence = false,
                _ => {}
            }
        }
    }

    /// Whether one of the tokens before the last ends a sentence.
    fn breaks(&self, context: &str) -> bool {
        let mut tokens: Vec<Token> = tokens(context).into_iter().map(Token::new).collect();
        for token in &mut tokens {
            self.first_look(token);
        }
        for i in 1..tokens.len() {
            let (before, behind) = tokens.split_at_mut(i);
            let token = &mut before[i - 1];
            self.second_look(token, &behind[0]);
            if token.ends_sentence {
                return true;
            }
        }
        false
    }
}

const NUMBER: &str = "##number##";

struct Token<'a> {
    text: &'a str,
    kind: String,
    ends_sentence: bool,
    abbreviation: bool,
    ellipsis: bool,
}

impl<'a> Token<'a> {
    fn new(text: &'a str) -> Self {
        Token {
            text,
            kind: if is_number(text) {
                NUMBER.to_owned()
            } else {
                python::lower(text).into_owned()
            },
            ends_sentence: false,
            abbreviation: false,
            ellipsis: false,
        }
    }

    fn type_no_period(&self) -> &str {
        self.kind
            .strip_suffix('.')
            .filter(|k| !k.is_empty())
            .unwrap_or(&self.kind)
    }

    fn type_no_sentence_period(&self) -> &str {
        match self.ends_sentence {
            true => self.type_no_period(),
            false => &self.kind,
        }
    }

    fn first(&self, is: impl Fn(char) -> bool) -> bool {
        self.text.chars().next().is_some_and(is)
    }

    /// A letter and a period.
    fn is_initial(&self) -> bool {
        let mut chars = self.text.chars();
        chars
            .next()
            .is_some_and(|c| python::is_regex_word(c) && python::digit(c).is_none())
            && chars.as_str() == "."
    }
}

/// `^-?[\.,]?\d[\d,\.-]*\.?$`
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let text = text.strip_prefix(['.', ',']).unwrap_or(text);
    text.starts_with(|c| python::digit(c).is_some())
        && text
            .chars()
            .all(|c| matches!(c, ',' | '.' | '-') || python::digit(c).is_some())
}

/// The length of "--", "..", or ". . ." at the start of a text.
fn several(text: &str) -> Option<usize> {
    for mark in ['-', '.'] {
        let run = text.len() - text.trim_start_matches(mark).len();
        if run > 1 {
            return Some(run);
        }
    }
    let (mut at, mut spaced) = (0, 0);
    while let Some(rest) = text[at..].strip_prefix('.') {
        let Some(space) = rest.chars().next().filter(|c| is_space(*c)) else {
            return (spaced > 1).then_some(at + 1);
        };
        at += 1 + space.len_utf8();
        spaced += 1;
    }
    // The last period of the run has no space behind it that another one follows.
    (spaced > 2).then(|| text[..at].trim_end().len())
}

/// Whether such a mark stands there: enough of [`several`] to see it.
fn is_several(text: &str) -> bool {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some('-'), Some('-')) | (Some('.'), Some('.')) => true,
        (Some('.'), Some(space)) if is_space(space) => {
            let next = (chars.next(), chars.next(), chars.next());
            matches!(next, (Some('.'), Some(space), Some('.')) if is_space(space))
        }
        _ => false,
    }
}

/// Words with their periods, and punctuation.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    for line in text.split('\n').filter(|line| !python::strip(line).is_empty()) {
        let mut at = 0;
        while let Some(c) = line[at..].chars().next() {
            let rest = &line[at..];
            let length = if is_several(rest) {
                several(rest).unwrap_or(1)
            } else if is_space(c) {
                at += c.len_utf8();
                continue;
            } else if begins_word(c) {
                word_length(rest)
            } else {
                c.len_utf8()
            };
            tokens.push(&rest[..length]);
            at += length;
        }
    }
    tokens
}

/// At least one character, up to the first end of a word.
fn word_length(text: &str) -> usize {
    let ends = |rest: &str| {
        let c = rest.chars().next();
        c.is_none_or(|c| is_space(c) || non_word(c)) || is_several(rest)
    };
    let mut inside = text.char_indices().skip(1);
    let end = inside.find(|(at, c)| ends(&text[*at..]) || (*c == ',' && ends(&text[at + 1..])));
    end.map_or(text.len(), |(at, _)| at)
}

/// A place where a sentence may end: its mark, and the token behind the white space.
struct End {
    at: usize,
    /// Where what decides ends: the next character, or the next token.
    context: usize,
    next: Option<usize>,
}

fn ends(text: &str) -> impl Iterator<Item = End> + '_ {
    text.char_indices()
        .filter(|(_, c)| matches!(c, '.' | '?' | '!'))
        .filter_map(|(at, _)| {
            let behind = &text[at + 1..];
            let c = behind.chars().next()?;
            if non_word(c) {
                return Some(End {
                    at,
                    context: at + 1 + c.len_utf8(),
                    next: None,
                });
            }
            if !is_space(c) {
                return None;
            }
            let token = behind.trim_start_matches(is_space);
            let start = text.len() - token.len();
            let length = token.find(is_space).unwrap_or(token.len());
            (length > 0).then_some(End {
                at,
                context: start + length,
                next: Some(start),
            })
        })
}

/// The sentences, before closing quotation marks and brackets are moved to the sentence that they close.
fn slices(text: &str) -> Vec<Range<usize>> {
    let model = English::get();
    let (mut slices, mut last) = (Vec::new(), 0);
    let mut decide = |start: usize, end: &End| {
        if model.breaks(&text[start..end.context]) {
            slices.push(last..end.at + 1);
            last = end.next.unwrap_or(end.at + 1);
        }
    };
    let mut word = 0..0;
    let mut before: Option<End> = None;
    for end in ends(text) {
        // Of marks in one word the last decides.
        let between = &text[word.end..end.at];
        let space = between
            .rfind([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
            .filter(|at| *at > 0);
        let start = space.map_or(word.start, |at| word.end + at + 1);
        if let Some(before) = before.take().filter(|_| word.end <= start) {
            decide(word.start, &before);
        }
        word = start..end.at;
        before = Some(end);
    }
    if let Some(before) = before {
        decide(word.start, &before);
    }
    slices.push(last..text.trim_end_matches(python::is_space).len());
    slices
}

/// Closing marks at the start of a sentence that belong to the one before: their length, with the white space behind them.
fn closing(text: &str) -> Option<usize> {
    let closes = |c: char| matches!(c, '"' | '\'' | ')' | ']' | '}') || quote(c);
    for (at, c) in text.char_indices() {
        if at > 0 {
            let rest = &text[at..];
            if is_space(c) {
                return Some(text.len() - rest.trim_start_matches(is_space).len());
            }
            if rest.starts_with("--") {
                return Some(at);
            }
        }
        if !closes(c) {
            return None;
        }
    }
    (!text.is_empty()).then_some(text.len())
}

/// `len(nltk.sent_tokenize(text))`.
pub fn sentences(text: &str) -> usize {
    let slices = slices(text);
    let (mut count, mut moved) = (0, 0);
    for (i, slice) in slices.iter().enumerate() {
        let empty = slice.start + moved >= slice.end;
        let next = slices.get(i + 1).filter(|next| next.end > next.start);
        match next.and_then(|next| closing(&text[next.clone()])) {
            Some(length) => {
                moved = length;
                count += 1;
            }
            None => {
                moved = 0;
                count += usize::from(!empty);
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_their_periods() {
        let of = |text: &str| tokens(text).join("|");
        assert_eq!(
            of("Mr. X, \"yes.\" (ok) a--b wait... x"),
            "Mr.|X|,|\"|yes.|\"|(|ok|)|a|--|b|wait|...|x"
        );
        assert_eq!(of("a . . . b"), "a|. . .|b");
        assert_eq!(of("1,000.5"), "1,000.5");
    }

    #[test]
    fn the_word_behind_an_abbreviation_decides() {
        for (text, n) in [
            ("At 5 p.m. It rains.", 2),
            ("At 5 p.m. on Monday.", 1),
            ("J. Bach wrote it.", 1),
            ("He said \"No.\" She left.", 2),
            ("Hm.", 1),
            ("", 0),
            (" \n ", 0),
            ("One.Two.", 1),
        ] {
            assert_eq!(sentences(text), n, "{text}");
        }
    }
}
