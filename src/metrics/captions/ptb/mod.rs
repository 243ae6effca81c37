//! The Penn Treebank tokenizer of Stanford CoreNLP 3.4.1, as `pycocoevalcap` calls it:
//! `edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase` on all captions of a corpus, one a line.
//!
//! That program reads the corpus as one text, and so does this: how a caption is cut can depend on the next one.
//!
//! * Behind "etc." or "Inc." at a caption's end a second period is a token where the next caption begins with a capital; behind "U.S."
//!   and "5 p.m." where it begins with one of some fifty words, "The" among them. By the same words "A." keeps its period or loses it.
//!   "no.", "op." and "fig." keep theirs before a digit.
//! * A quoted value in a tag, `<a b="…">`, goes on into the next caption.
//! * A carriage return, vertical tab, form feed, U+2028 or U+2029 within a caption makes two lines of it. The next caption gets the
//!   second of them, and each one behind it the line of the caption before.
//!
//! The rules are written from what the program does: each is a recogniser by hand, and at each place the one that reads furthest wins.
//! What reads far for nothing remembers how far it came, so that time is linear in the text's length. Small letters are Java's, but for
//! scripts whose capitals came into Unicode after Java 17, and Σ beside an ideograph.

mod abbreviations;
mod addresses;
mod classes;
mod cursor;
mod marks;
mod numbers;
mod reach;
mod words;

use classes::SPACE;
use cursor::{Cursor, Found, How};

/// What `pycocoevalcap` drops. Four of them never occur: brackets are `-lrb-` and so on by then, and stay.
const DROPPED: [&str; 17] = [
    "''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";",
];

/// The tokens of each caption of a corpus, in the corpus' order, without punctuation: as many lists as captions. A token may hold a
/// blank that is no space, as in "1 1/2".
pub fn tokenize_corpus<T: AsRef<str>>(captions: &[T]) -> Vec<Vec<String>> {
    let kept = |line: &str| -> Vec<String> {
        let tokens = line.split(' ').filter(|t| !t.is_empty() && !DROPPED.contains(t));
        tokens.map(str::to_owned).collect()
    };
    tokenize_raw(captions).iter().map(|line| kept(line)).collect()
}

/// The line that the program prints for each caption of a corpus: tokens with a space between them.
pub fn tokenize_raw<T: AsRef<str>>(captions: &[T]) -> Vec<String> {
    let mut text: Vec<char> = Vec::new();
    for (n, caption) in captions.iter().enumerate() {
        text.extend((n > 0).then_some('\n'));
        text.extend(caption.as_ref().chars().map(|c| if c == '\n' { ' ' } else { c }));
    }
    let printed = printed(&text);
    let mut lines = printed.split('\n').map(|line| line.trim_end_matches(blank));
    captions
        .iter()
        .map(|_| lines.next().unwrap_or_default().to_owned())
        .collect()
}

/// What Python's `str.rstrip` and `str.split` take for a blank.
pub(super) fn blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// All that the program prints for a text.
fn printed(text: &[char]) -> String {
    let classes = classes::of(text);
    let mut cursor = Cursor::new(text, &classes);
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let (mut at, mut begins) = (0, true);
    while at < text.len() {
        let found = next(&mut cursor, at);
        write(&text[at..found.end], found, &mut out, &mut begins);
        at = found.next;
    }
    out
}

/// The token at `at`. Where two rules read as far, the one that is asked first counts.
fn next(s: &mut Cursor, at: usize) -> Found {
    let c = s.get(at);
    if c == ' ' {
        let end = s.past_class(at, SPACE);
        return Found::new(end, end, How::Nothing);
    }
    if c.is_ascii_alphabetic() {
        // Most words are nothing else: no rule reads over the blank behind one, but for those that split a word in two.
        let end = s.past(at, |c| c.is_ascii_alphabetic());
        let may_split = matches!(c.to_ascii_lowercase(), 'c' | 'g' | 'l' | 'w');
        if matches!(s.get(end), ' ' | '\n') && !may_split {
            return Found::new(end, end, How::Same);
        }
    }
    s.at = at;
    s.best = Found::new(at, at + 1, How::Nothing);
    s.splits();
    s.tag();
    s.entities();
    let letter = s.letter(at) > 0;
    if letter {
        s.words();
    }
    s.apostrophe_words();
    s.addresses();
    s.contractions();
    s.numbers();
    s.shapes();
    s.money();
    if c.is_ascii_alphabetic() {
        s.abbreviations();
    }
    s.file_names();
    if letter {
        let end = s.word(at);
        s.offer_with_period(end, How::Unhyphenated);
    }
    s.telephones();
    s.faces();
    s.straight_quotes();
    s.punctuation();
    s.joined();
    s.quotes();
    s.rest();
    s.best
}

fn write(token: &[char], found: Found, out: &mut String, begins: &mut bool) {
    match found.how {
        How::Nothing => return,
        How::Line => {
            out.push('\n');
            *begins = true;
            return;
        }
        _ => {}
    }
    if !*begins {
        out.push(' ');
    }
    *begins = false;
    let from = out.len();
    match found.how {
        How::Fixed(text) => out.push_str(text),
        How::Unhyphenated => {
            out.extend(token.iter().filter(|c| **c != '\u{ad}'));
            if out.len() == from {
                out.push('-');
            }
        }
        How::Quotes { opening } => quotes(&token.iter().collect::<String>(), opening, out),
        How::Ampersands => {
            let token: String = token.iter().collect();
            out.push_str(&token.to_lowercase().replace("&amp;", "&"));
        }
        How::Joined | How::Tag => {
            for c in token {
                match c {
                    '(' | ')' if found.how == How::Tag => out.push(*c),
                    ' ' => out.push('\u{a0}'),
                    '(' => out.push_str("-LRB-"),
                    ')' => out.push_str("-RRB-"),
                    c => out.push(*c),
                }
            }
        }
        _ => out.extend(token),
    }
    if out.as_bytes()[from..].iter().any(|b| !b.is_ascii()) {
        let lower = lower(&out[from..]);
        out.truncate(from);
        out.push_str(&lower);
    } else {
        let mut tail = out.split_off(from);
        tail.make_ascii_lowercase();
        out.push_str(&tail);
    }
}

/// In small letters, as Java has them: it looks for the final sigma in words that hyphens, digits and other marks are part of.
fn lower(token: &str) -> String {
    if !token.contains('Σ') {
        return token.to_lowercase();
    }
    let chars: Vec<char> = token.chars().collect();
    let mut out = String::with_capacity(token.len());
    for (i, c) in chars.iter().enumerate() {
        if *c != 'Σ' {
            out.extend(c.to_lowercase());
            continue;
        }
        let before = cased_in_word(chars[..=i].iter().rev());
        let behind = cased_in_word(chars[i..].iter());
        out.push(if before && !behind { 'ς' } else { 'σ' });
    }
    out
}

/// Whether a letter with two cases follows the first one in its word. A mark is within a word between two letters.
fn cased_in_word<'a>(chars: impl Iterator<Item = &'a char>) -> bool {
    let mut last = 'Σ';
    let mut chars = chars.skip(1).peekable();
    while let Some(&c) = chars.next() {
        let titlecase = matches!(c, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ');
        if c.is_lowercase() || c.is_uppercase() || titlecase {
            return true;
        }
        let mark = matches!(c, '-' | '_' | '.' | '\'' | '\u{2019}' | '\u{ad}');
        let joins = mark && last.is_alphabetic() && chars.peek().is_some_and(|c| c.is_alphabetic());
        if !c.is_alphanumeric() && !joins {
            return false;
        }
        last = c;
    }
    false
}

/// Typographic quotation marks as those of TeX.
fn quotes(token: &str, opening: bool, out: &mut String) {
    let token = token.to_lowercase().replace("&apos;", "'");
    for c in token.chars() {
        match c {
            '\'' if opening => out.push('`'),
            '\u{91}' | '\u{2018}' | '\u{201b}' | '\u{2039}' => out.push('`'),
            '\u{92}' | '\u{2019}' | '\u{203a}' => out.push('\''),
            '\u{93}' | '\u{201c}' | '\u{ab}' => out.push_str("``"),
            '\u{94}' | '\u{201d}' | '\u{bb}' => out.push_str("''"),
            c => out.push(c),
        }
    }
}
