//! The Penn Treebank tokenizer of Stanford CoreNLP 3.4.1.

mod abbreviations;
mod classes;
mod lexer;
mod reach;

use lexer::{Found, How, Lexer};

/// The lines that the program prints for a text.
pub fn raw(text: &str) -> String {
    let text: Vec<char> = text.chars().collect();
    let classes = classes::of(&text);
    let mut lexer = Lexer::new(&text, &classes);
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let (mut at, mut begins) = (0, true);
    while at < text.len() {
        let found = lexer.next(at);
        write(&text[at..found.end], found, &mut out, &mut begins);
        at = found.next;
    }
    out
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
        How::Joined => {
            for c in token {
                match c {
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
        let lower = out[from..].to_lowercase();
        out.truncate(from);
        out.push_str(&lower);
    } else {
        let mut tail = out.split_off(from);
        tail.make_ascii_lowercase();
        out.push_str(&tail);
    }
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
