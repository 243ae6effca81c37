//! A closed set of answers, and which of them a text names.

use super::words::{fold, normalise, plain, Text};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

/// An item that no prediction could answer: its reference or options do not fit the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `reference` or `labels`.
    pub key: &'static str,
    /// What the rule needs.
    pub expected: String,
    /// What the item has.
    pub found: String,
}

/// Behind them a letter is meant as one: "the answer is b".
const CUES: [&str; 15] = [
    "answer", "answers", "ans", "option", "choice", "letter", "choose", "chose", "pick", "picked", "select",
    "selected", "response", "solution", "correct",
];
/// What may stand between a cue and its letter.
const FILLERS: [&str; 20] = [
    "is",
    "was",
    "be",
    "would",
    "should",
    "must",
    "will",
    "to",
    "the",
    "most",
    "likely",
    "probably",
    "definitely",
    "clearly",
    "therefore",
    "thus",
    "final",
    "one",
    "s",
    "it",
];
const MOST_FILLERS: usize = 5;
/// Behind a letter they show that it is no article.
const REASONS: [&str; 7] = ["because", "since", "as", "due", "given", "based", "is"];
/// Behind a letter they show that it is a note or a key.
const MUSIC: [&str; 12] = [
    "major", "minor", "maj", "min", "sharp", "flat", "natural", "chord", "note", "key", "string", "scale",
];
const RIGHT: [&str; 5] = ["correct", "right", "answer", "best", "true"];

/// One answer.
struct Choice {
    /// The whole text, normalised.
    whole: String,
    /// Without its letter.
    text: String,
    /// The words of `text`; none where the option is its letter alone.
    words: Vec<String>,
    /// In lower case.
    letter: Option<char>,
}

/// A closed set of answers.
pub(super) struct Options {
    choices: Vec<Choice>,
    /// Whether the letters are those that number options: A, B, C … without a gap. Others are names, of notes for example.
    numbered: bool,
}

impl Options {
    /// Refuses an empty set, an option without a word, and two that are one after normalisation. Options have letters where
    /// they are letters, where all begin with one ("(A) wind"), or where `prompt` puts one before each ("A. wind").
    pub(crate) fn new(labels: &[String], prompt: &str) -> Result<Self, Fault> {
        let fault = |expected: &str, found: String| Fault {
            key: "labels",
            expected: expected.to_owned(),
            found,
        };
        if labels.is_empty() {
            return Err(fault("a closed set of answers", "no labels".into()));
        }
        let mut seen = HashSet::new();
        let mut choices = Vec::with_capacity(labels.len());
        for label in labels {
            let whole = canonical(label);
            let words = folded(&without_article(&whole));
            if words.is_empty() {
                return Err(fault("labels with a letter or digit", format!("{label:?}")));
            }
            if !seen.insert(without_article(&whole)) {
                let found = format!("{label:?} again");
                return Err(fault("labels that differ after normalisation", found));
            }
            let letter = words
                .iter()
                .all(|w| words.len() == 1 && w.len() == 1)
                .then(|| ascii(&words[0]));
            let letter = letter.flatten();
            choices.push(Choice {
                text: whole.clone(),
                whole,
                words: letter.map_or(words, |_| Vec::new()),
                letter,
            });
        }
        if choices.iter().all(|c| c.letter.is_none()) && !own_letters(&mut choices) {
            letters_of(prompt, &mut choices);
        }
        let letters: BTreeSet<char> = choices.iter().filter_map(|c| c.letter).collect();
        Ok(Options {
            numbered: letters.len() == choices.len()
                && letters.iter().copied().eq(('a'..='z').take(choices.len())),
            choices,
        })
    }

    /// The option that is the whole text, its letter or its words, after normalisation.
    pub(crate) fn position(&self, text: &str) -> Option<usize> {
        let whole = canonical(text);
        let bare = without_article(&whole);
        let with = |same: &dyn Fn(&Choice) -> bool| self.choices.iter().position(same);
        with(&|c| c.whole == whole || c.text == whole)
            .or_else(|| with(&|c| !c.words.is_empty() && without_article(&c.text) == bare))
    }

    /// The option that a reference is: its whole text, its words, or its letter alone.
    pub(crate) fn reference(&self, reference: &str) -> Option<usize> {
        let letter = || {
            let text = Text::new(reference);
            (text.words.len() == 1).then(|| self.lettered(&text, 0)).flatten()
        };
        self.position(reference).or_else(letter)
    }

    /// The one option that the text names, see [`judge`](super::rules::judge).
    pub(crate) fn answer(&self, text: &str) -> Option<usize> {
        if let Some(whole) = self.position(text) {
            return Some(whole);
        }
        let text = Text::new(text);
        let mut named = self.texts(&text);
        let inside = |i: usize| named.iter().any(|(_, at)| at.contains(&i));
        let letters: Vec<(usize, usize)> = (0..text.words.len())
            .filter(|i| !inside(*i))
            .filter_map(|i| Some((self.lettered(&text, i)?, i)))
            .collect();
        let (meant, seen): (Vec<_>, Vec<_>) = letters.into_iter().partition(|(_, i)| self.means(&text, *i));
        named.extend(meant.into_iter().map(|(option, i)| (option, i..i + 1)));
        let mut options: BTreeSet<usize> = named.iter().map(|(option, _)| *option).collect();
        let part = |i: usize| named.iter().any(|(_, at)| at.contains(&i));
        if options.len() != 1 || named.iter().any(|(_, at)| text.denied(at, part)) {
            return None;
        }
        // A letter that may be meant names nothing, but another one beside it leaves the answer open.
        let doubtful = seen.into_iter().filter(|(_, i)| self.may_mean(&text, *i));
        options.extend(doubtful.map(|(option, _)| option));
        match options.len() {
            1 => options.pop_first(),
            _ => None,
        }
    }

    /// Options whose words stand in the text, and where. One that occurs only inside a longer one is not named.
    fn texts(&self, text: &Text) -> Vec<(usize, Range<usize>)> {
        let mut spans = Vec::new();
        for (option, choice) in self
            .choices
            .iter()
            .enumerate()
            .filter(|(_, c)| !c.words.is_empty())
        {
            spans.extend(text.find(&choice.words).into_iter().map(|at| (option, at)));
        }
        let covered = |at: &Range<usize>| {
            let covers = |s: &Range<usize>| s.start <= at.start && at.end <= s.end && s.len() > at.len();
            spans.iter().any(|(_, s)| covers(s))
        };
        spans.iter().filter(|(_, at)| !covered(at)).cloned().collect()
    }

    /// The option whose letter word `i` is.
    fn lettered(&self, text: &Text, i: usize) -> Option<usize> {
        let letter = ascii(text.written(i))?;
        let option = self.choices.iter().position(|c| c.letter == Some(letter))?;
        text.stands_alone(i).then_some(option)
    }

    /// Whether the letter that is word `i` is meant as an answer.
    fn means(&self, text: &Text, i: usize) -> bool {
        let written = text.written(i);
        let capital = written.starts_with(|c: char| c.is_ascii_uppercase());
        let article = is_article(written);
        let before = if article {
            &['"', '“', '«', '(', '\''][..]
        } else {
            &[]
        };
        let goes_on = text.goes_on(i, before);
        let next = text.words.get(i + 1).map_or("", |w| w.folded.as_str());
        let (begins, ends) = (text.begins_line(i), text.ends_line(i));
        if text.in_brackets(i) || (begins && ends) || (begins && text.is_marked(i)) {
            return true;
        }
        if !goes_on {
            // An article has a word behind it.
            return capital || (begins && !article) || !self.numbered || cued(text, i);
        }
        if self.numbered && MUSIC.contains(&next) {
            return false;
        }
        if next == "is"
            && (i + 2..i + 5).any(|n| {
                text.words
                    .get(n)
                    .is_some_and(|w| RIGHT.contains(&w.folded.as_str()))
            })
        {
            return true;
        }
        let reason = REASONS.contains(&next);
        match article {
            true => reason && (cued(text, i) || (begins && next != "as")),
            false => cued(text, i) || (begins && capital && reason) || !self.numbered,
        }
    }

    /// Whether the letter that is word `i` could be meant, which is enough to leave an answer open.
    fn may_mean(&self, text: &Text, i: usize) -> bool {
        let next = text.words.get(i + 1).map_or("", |w| w.folded.as_str());
        let written = text.written(i);
        let goes_on = text.goes_on(i, &['"', '“', '«', '(', '\'']);
        match (goes_on, is_article(written)) {
            (true, false) => !MUSIC.contains(&next),
            // "A or B", and "B or A because": a capital letter in the middle of a sentence.
            (true, true) => {
                let inside = text.gap(i).trim().is_empty() && !text.begins_line(i);
                ["and", "or", "nor"].contains(&next) || (written == "A" && inside)
            }
            (false, _) => true,
        }
    }
}

/// Whether words lead to word `i` that say that it is the answer.
fn cued(text: &Text, i: usize) -> bool {
    for back in 1..=MOST_FILLERS.min(i) {
        let at = i - back;
        if text.gap(at + 1).contains(['.', '!', '?', ';', '\n']) {
            return false;
        }
        let word = text.words[at].folded.as_str();
        if CUES.contains(&word) {
            return true;
        }
        if !FILLERS.contains(&word) {
            return false;
        }
    }
    false
}

/// Letters that are words of their own in English.
fn is_article(written: &str) -> bool {
    matches!(written, "a" | "A" | "i" | "I")
}

fn ascii(word: &str) -> Option<char> {
    let mut chars = word.chars();
    let letter = chars.next().filter(char::is_ascii_alphabetic)?;
    chars.next().is_none().then_some(letter.to_ascii_lowercase())
}

/// Plain, folded, without quotation marks around and punctuation behind.
fn canonical(text: &str) -> String {
    normalise(&fold(&plain(text)))
}

/// Without a leading "a", "an" or "the", unless that is all there is.
fn without_article(canonical: &str) -> String {
    let bare = ["a ", "an ", "the "]
        .iter()
        .find_map(|article| canonical.strip_prefix(article));
    bare.unwrap_or(canonical).to_owned()
}

fn folded(text: &str) -> Vec<String> {
    Text::new(text).words.into_iter().map(|w| w.folded).collect()
}

/// Takes the letters off options that all begin with one, as "(A) wind" and "b. rain" do: A, B, C … in any order.
fn own_letters(choices: &mut [Choice]) -> bool {
    let parted: Option<Vec<(char, String)>> = choices.iter().map(|c| part(&c.whole)).collect();
    let Some(parted) = parted.filter(|p| p.len() > 1) else {
        return false;
    };
    let letters: BTreeSet<char> = parted.iter().map(|(letter, _)| *letter).collect();
    if letters.len() != choices.len() || !letters.into_iter().eq(('a'..='z').take(choices.len())) {
        return false;
    }
    for (choice, (letter, text)) in choices.iter_mut().zip(parted) {
        choice.letter = Some(letter);
        choice.words = folded(&without_article(&text));
        choice.text = text;
    }
    true
}

/// "(a) wind", "a) wind", "a. wind" and "a: wind" in two.
fn part(whole: &str) -> Option<(char, String)> {
    let inner = whole.trim_start_matches(['(', '[', '{']);
    let letter = inner.chars().next().filter(char::is_ascii_lowercase)?;
    let rest = inner.get(1..)?;
    let text = rest.trim_start_matches([')', ']', '}', '.', ':']);
    let parted = text.len() < rest.len() && (text.starts_with(' ') || !rest.starts_with('.'));
    let text = text.trim();
    (parted && !folded(text).is_empty()).then(|| (letter, text.to_owned()))
}

/// Gives the options the letters that the prompt puts before them, where it does so for each and without a gap.
fn letters_of(prompt: &str, choices: &mut [Choice]) {
    let prompt = Text::new(prompt);
    let letters = |choice: &Choice| -> BTreeSet<char> {
        let marked = |at: &Range<usize>| {
            let before = at.start.checked_sub(1)?;
            let mark = prompt.is_marked(before) && !prompt.gap(at.start).contains('\n');
            ascii(prompt.written(before)).filter(|_| mark && prompt.stands_alone(before))
        };
        prompt
            .find(&folded(&choice.whole))
            .iter()
            .filter_map(marked)
            .collect()
    };
    let found: Vec<BTreeSet<char>> = choices.iter().map(letters).collect();
    let all: BTreeSet<char> = found.iter().flatten().copied().collect();
    let one_each = found.iter().all(|l| l.len() == 1) && all.len() == choices.len();
    if one_each && choices.len() > 1 && all.into_iter().eq(('a'..='z').take(choices.len())) {
        for (choice, letters) in choices.iter_mut().zip(found) {
            choice.letter = letters.into_iter().next();
        }
    }
}
