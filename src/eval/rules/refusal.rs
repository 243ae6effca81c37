//! Predictions that decline to answer. Official scripts know none of them; fair rules report them apart from what is unparsed.

use super::words::{fold, plain};

/// How a refusal begins, in lower case, behind quotation marks and white space.
pub const OPENINGS: [&str; 24] = [
    "i cannot",
    "i can not",
    "i can't",
    "i could not",
    "i couldn't",
    "i am unable",
    "i'm unable",
    "i am not able",
    "i'm not able",
    "i do not have",
    "i don't have",
    "i'm sorry, but",
    "i am sorry, but",
    "i'm sorry, i can",
    "i am sorry, i can",
    "i'm sorry. i can",
    "i apologize",
    "i apologise",
    "sorry, but",
    "sorry, i can",
    "unfortunately, i",
    "as an ai",
    "as a language model",
    "as a text-based",
];
/// So much of a text is looked at, in bytes: more than the longest opening with what may stand before it.
const LOOK: usize = 120;

/// Whether a text begins as a refusal does.
pub fn refuses(text: &str) -> bool {
    let text = text.trim_start();
    // Their first letters; most texts begin with none of them.
    let first = text.chars().find(|c| c.is_alphanumeric());
    if !first.is_some_and(|c| !c.is_ascii() || matches!(c.to_ascii_lowercase(), 'i' | 's' | 'u' | 'a')) {
        return false;
    }
    if text.is_ascii() && !begins_as_one(text) {
        return false;
    }
    let mut end = text.len().min(LOOK);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let start = fold(&plain(&text[..end]));
    let start = start.trim_start_matches(|c: char| c.is_whitespace() || ['"', '\'', '“'].contains(&c));
    let start = start.split_whitespace().collect::<Vec<_>>().join(" ");
    OPENINGS.iter().any(|opening| {
        let rest = start.strip_prefix(opening);
        rest.is_some_and(|rest| opening.ends_with("can") || !rest.starts_with(char::is_alphanumeric))
    })
}

/// Whether the first word of an ASCII text is one that an opening begins with: enough to see that most texts refuse nothing.
fn begins_as_one(text: &str) -> bool {
    let shown = text.bytes().filter(|b| !matches!(b, b'*' | b'`'));
    let word = || {
        shown
            .clone()
            .skip_while(|b| !b.is_ascii_alphanumeric())
            .take_while(u8::is_ascii_alphanumeric)
            .map(|b| b.to_ascii_lowercase())
    };
    ["i", "sorry", "unfortunately", "as"]
        .iter()
        .any(|first| word().eq(first.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opening_begins_as_one() {
        for opening in OPENINGS {
            assert!(begins_as_one(opening), "{opening}");
            for dressed in [
                format!("  \"{opening} x"),
                format!("**{}** x", opening.to_uppercase()),
            ] {
                assert!(refuses(&dressed), "{dressed}");
            }
        }
        assert!(refuses("So*rry*, but no") && !begins_as_one("assume") && !begins_as_one("_a_s"));
    }

    #[test]
    fn a_refusal_is_told_by_how_it_begins() {
        for text in [
            "I'm sorry, but I can't hear it",
            "\"I cannot tell.",
            "I’m  sorry, I cannot hear the audio.",
            "As an AI, I",
        ] {
            assert!(refuses(text), "{text}");
        }
        for text in [
            "",
            "rain, I cannot say more",
            "I hear rain",
            "as an airplane",
            "Sorry seems the word",
        ] {
            assert!(!refuses(text), "{text}");
        }
    }
}
