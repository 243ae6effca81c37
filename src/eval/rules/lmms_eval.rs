//! The parsers of lmms-eval for MMAU, MMAR and MuChoMusic, but for their last resort: where they draw a random letter, there is no
//! answer here.
//!
//! They look for capital letters alone: "(A)" first, then the letter with space around it, then "A.". A model that writes lower
//! case is, in lmms-eval, scored by chance.

use super::item::{Item, Judged, State};
use super::python;

const LETTERS: [&str; 4] = ["A", "B", "C", "D"];
/// What they strip off both ends, one character after the other.
const STRIPPED: [char; 7] = [',', '.', '!', '?', ';', ':', '\''];

fn cleaned(response: &str) -> String {
    let response = STRIPPED.iter().fold(response, |text, c| text.trim_matches(*c));
    format!(" {response} ")
}

/// The first of the largest; `None`, which is not found, is the smallest.
fn last_named<'a>(candidates: &[&'a str], at: impl Fn(&str) -> Option<usize>) -> Option<&'a str> {
    let mut best: Option<(&str, Option<usize>)> = None;
    for candidate in candidates {
        let found = at(candidate);
        if best.is_none_or(|(_, b)| found > b) {
            best = Some((candidate, found));
        }
    }
    best.map(|(candidate, _)| candidate)
}

fn matching<'a>(all: &[&'a str], fits: impl Fn(&str) -> bool) -> Vec<&'a str> {
    all.iter().copied().filter(|letter| fits(letter)).collect()
}

/// The letter that MMAU's and MuChoMusic's parser finds.
fn letter(response: &str) -> Option<&'static str> {
    let text = cleaned(response);
    let mut candidates = matching(&LETTERS, |c| text.contains(&format!("({c})")));
    if candidates.is_empty() {
        candidates = matching(&LETTERS, |c| text.contains(&format!(" {c} ")));
    }
    if candidates.is_empty() {
        candidates = matching(&LETTERS, |c| text.contains(&format!("{c}.")));
    }
    // Also letters in brackets are looked for between spaces, so that of several the first wins.
    last_named(&candidates, |c| text.rfind(&format!(" {c} ")))
}

/// The first place where the letter stands; of an answer that was found by its text, all.
fn span(prediction: &str, letter: &str) -> std::ops::Range<usize> {
    match prediction.find(letter) {
        Some(at) => at..at + letter.len(),
        None => python::within(prediction, python::strip(prediction)),
    }
}

/// MMAU: the choice of the letter is the answer, in lower case and stripped. It knows A to D alone.
pub fn judge_mmau(item: &Item) -> Judged {
    const BY: &str = "lmms_eval_mmau.letter";
    let prediction = item.prediction.unwrap_or("");
    let Some(letter) = letter(prediction) else {
        return Judged::none(State::Unparsed, BY);
    };
    let Some(choice) = LETTERS
        .iter()
        .position(|l| *l == letter)
        .and_then(|i| item.choices.get(i))
    else {
        return Judged::error(BY, "IndexError: list index out of range");
    };
    let plain = |text: &str| python::lower(python::strip(text)).into_owned();
    Judged::found(
        choice,
        span(prediction, letter),
        plain(choice) == plain(item.answer),
        BY,
    )
}

/// MuChoMusic: the letter is the answer's second character ("(B) a piano").
pub fn judge_muchomusic(item: &Item) -> Judged {
    const BY: &str = "lmms_eval_muchomusic.letter";
    let prediction = item.prediction.unwrap_or("");
    let Some(letter) = letter(python::strip(prediction)) else {
        return Judged::none(State::Unparsed, BY);
    };
    let mut right = item.answer.chars().skip(1);
    let Some(right) = right.next() else {
        return Judged::error(BY, "IndexError: string index out of range");
    };
    Judged::found(letter, span(prediction, letter), letter.chars().eq([right]), BY)
}

/// MMAR: the choices have letters ("A. a gunshot") and the answer is one; of more than five words the texts of the choices are
/// looked for as well.
pub fn judge_mmar(item: &Item) -> Judged {
    const BY: &str = "lmms_eval_mmar.letter";
    let prediction = item.prediction.unwrap_or("");
    // A letter that is there twice keeps its place and takes the later text.
    let mut contents: Vec<(String, String)> = Vec::new();
    let mut letters = Vec::new();
    for choice in item.choices {
        let mut chars = choice.chars();
        let first = chars.next();
        let own = first.map_or_else(|| "A".to_owned(), |c| c.to_uppercase().collect());
        let marked = matches!(chars.next(), Some('.' | ')' | ':'));
        let content = if marked {
            python::strip(chars.as_str())
        } else {
            choice
        };
        match contents.iter_mut().find(|(letter, _)| *letter == own) {
            Some(place) => place.1 = content.to_owned(),
            None => contents.push((own.clone(), content.to_owned())),
        }
        letters.push(own);
    }
    let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
    let text = cleaned(prediction);
    let lowered = python::lower(&text);
    let content = |letter: &str| {
        let found = contents.iter().find(|(own, _)| own == letter);
        found
            .map(|(_, content)| python::lower(content).into_owned())
            .unwrap_or_default()
    };
    let bracketed = matching(&letters, |c| text.contains(&format!("({c})")));
    let found = if !bracketed.is_empty() {
        last_named(&bracketed, |c| text.rfind(&format!("({c})")))
    } else {
        let mut candidates = matching(&letters, |c| text.contains(&format!("{c} ")));
        if candidates.is_empty() {
            candidates = matching(&letters, |c| text.contains(&format!("{c}.")));
        }
        if candidates.is_empty() && python::split(&text).count() > 5 {
            let own: Vec<&str> = contents.iter().map(|(letter, _)| letter.as_str()).collect();
            let named = matching(&own, |c| lowered.contains(&content(c)));
            last_named(&named, |c| lowered.rfind(&content(c)))
        } else {
            last_named(&candidates, |c| text.rfind(&format!(" {c} ")))
        }
    };
    let Some(letter) = found else {
        return Judged::none(State::Unparsed, BY);
    };
    let right = python::strip(item.answer).to_uppercase();
    Judged::found(letter, span(prediction, letter), letter == right, BY)
}
