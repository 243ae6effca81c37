//! The fair rule for yes and no.
//!
//! "yes" is named wherever it stands as a word. "no" is also a determiner ("no dog", "no doubt"), so it is named where it ends
//! its part of the sentence ("No, …", "the answer is no."), or stands behind "answer is" and its like. Both, none, or one that is
//! denied ("not yes") are unparsed. What a sentence means beyond that is not read: "I hear a dog" is no yes.

use super::choice::said;
use super::item::{Item, Judged, State};
use super::python;
use super::refusal::refuses;
use super::words::{unplain, Text};
use std::ops::Range;

/// Which of the two a text says, and where in it, in bytes.
fn read(text: &str) -> Option<(bool, Range<usize>)> {
    let words = Text::new(text);
    let mut found: Option<(bool, usize)> = None;
    for (i, word) in words.folded_words().enumerate() {
        let yes = match word {
            "yes" => true,
            "no" if !words.goes_on(i, &[]) || announced(&words, i) => false,
            _ => continue,
        };
        if words.denied(&(i..i + 1), |n| is_answer(&words, n)) || found.is_some_and(|(f, _)| f != yes) {
            return None;
        }
        found.get_or_insert((yes, i));
    }
    let (yes, i) = found?;
    Some((yes, unplain(text, words.words[i].at.clone())))
}

fn is_answer(words: &Text, i: usize) -> bool {
    let word = words.folded(i);
    word == "yes" || (word == "no" && !words.goes_on(i, &[]))
}

/// "the answer is no because": a verb behind a noun that announces an answer.
fn announced(words: &Text, i: usize) -> bool {
    let word = |back: usize| i.checked_sub(back).map_or("", |n| words.folded(n));
    matches!((word(2), word(1)), ("answer", "is") | ("response", "is")) || word(1) == "answer"
}

/// The rule on an item whose answer is a yes or a no.
pub fn judge(item: &Item) -> Judged {
    let Some((right, _)) = read(item.answer) else {
        return Judged::error(
            "yes_no",
            format!("the answer {:?} is neither yes nor no", item.answer),
        );
    };
    let Some(prediction) = item.prediction else {
        return Judged::none(State::Empty, "yes_no.no_prediction");
    };
    let said = said(prediction);
    match read(said) {
        Some((yes, at)) => {
            let offset = python::within(prediction, said).start;
            let span = offset + at.start..offset + at.end;
            Judged::found(if yes { "yes" } else { "no" }, span, yes == right, "yes_no")
        }
        None if refuses(said) => Judged::none(State::Refused, "yes_no.refusal"),
        None => Judged::none(State::Unparsed, "yes_no.unparsed"),
    }
}
