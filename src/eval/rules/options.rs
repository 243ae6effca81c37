//! A closed set of answers, and which of them a text names.
//!
//! [`Options::new`] takes a set as strictly as a manifest's labels are; [`Options::in_order`] any options of a benchmark, whose
//! letters are their places where nothing says otherwise.

use super::choices::{ascii, bare, give_letters, in_sequence, without_article, Choice, Wholes, ARTICLES};
use super::words::{canonical, Text};
use std::collections::{HashMap, HashSet};
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
/// Up to so many options a look at each is faster than a table.
const FEW: usize = 16;
const MOST_FILLERS: usize = 5;
/// Behind a letter they show that it is no article.
const REASONS: [&str; 7] = ["because", "since", "as", "due", "given", "based", "is"];
/// Behind a letter they show that it is a note or a key.
const MUSIC: [&str; 12] = [
    "major", "minor", "maj", "min", "sharp", "flat", "natural", "chord", "note", "key", "string", "scale",
];
const RIGHT: [&str; 5] = ["correct", "right", "answer", "best", "true"];

/// What a text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// The place of the option.
    pub option: usize,
    /// Where it stands, in bytes of the plain text (see [`unplain`](super::words::unplain)).
    pub at: Range<usize>,
    pub how: How,
}

impl Named {
    pub(super) fn whole(option: usize) -> Self {
        Named {
            option,
            at: 0..0,
            how: How::Whole,
        }
    }
}

/// How an option is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It is the whole text.
    Whole,
    /// By its words.
    Words,
    /// By its letter.
    Letter,
    /// Behind words that say that it is the answer.
    Declared,
}

/// A closed set of answers.
pub(super) struct Options<'w> {
    choices: Vec<Choice<'w>>,
    /// Whether the letters are those that number options: A, B, C … without a gap. Others are names, of notes for example.
    numbered: bool,
}

impl<'w> Options<'w> {
    /// Refuses an empty set, an option without a word, and two that are one after normalisation. Options have letters where
    /// they are letters, where all begin with one ("(A) wind"), or where `prompt` puts one before each ("A. wind").
    pub(crate) fn new(labels: &[String], wholes: &'w Wholes, prompt: &str) -> Result<Self, Fault> {
        let fault = |expected: &str, found: String| Fault {
            key: "labels",
            expected: expected.to_owned(),
            found,
        };
        if labels.is_empty() {
            return Err(fault("a closed set of answers", "no labels".into()));
        }
        let mut seen = HashSet::new();
        let mut choices: Vec<Choice> = Vec::with_capacity(labels.len());
        for (label, whole) in labels.iter().zip(wholes.all()) {
            let choice = Choice::new(label, whole, choices.len());
            if choice.words.is_none() && choice.letter.is_none() {
                return Err(fault("labels with a letter or digit", format!("{label:?}")));
            }
            if !seen.insert(without_article(&choice.whole).to_owned()) {
                let found = format!("{label:?} again");
                return Err(fault("labels that differ after normalisation", found));
            }
            choices.push(choice);
        }
        give_letters(&mut choices, prompt);
        Ok(Options::of(choices))
    }

    /// Of any options. Those with the same text are one; one without a word ("...") is named by its letter, or as the whole text.
    /// Where neither they nor `prompt` have letters, their places are A, B, C and so on. An article that an option begins with is its
    /// own, so that "A man" and "the man" are two, and "A" before "cough" is no letter where "A cough" is an option.
    pub(crate) fn in_order(labels: &[String], wholes: &'w Wholes, prompt: &str) -> Self {
        let mut firsts: HashMap<String, usize> = HashMap::new();
        let mut choices: Vec<Choice> = Vec::with_capacity(labels.len());
        for (label, whole) in labels.iter().zip(wholes.all()) {
            let mut choice = Choice::new(label, whole, choices.len());
            choice.first = match labels.len() <= FEW {
                true => choices
                    .iter()
                    .position(|c| c.whole == choice.whole)
                    .unwrap_or(choices.len()),
                false => *firsts.entry(choice.whole.to_string()).or_insert(choices.len()),
            };
            choices.push(choice);
        }
        if !give_letters(&mut choices, prompt) && choices.len() <= 26 {
            for (choice, letter) in choices.iter_mut().zip('a'..='z') {
                choice.letter = Some(letter);
            }
        }
        for choice in &mut choices {
            let begins = |article: &&str| {
                choice
                    .text()
                    .strip_prefix(*article)
                    .is_some_and(|t| t.starts_with(' '))
            };
            choice.article = ARTICLES.into_iter().find(begins);
        }
        Options::of(choices)
    }

    fn of(choices: Vec<Choice<'w>>) -> Self {
        Options {
            numbered: in_sequence(choices.iter().filter_map(|c| c.letter), choices.len()),
            choices,
        }
    }

    /// The first option with the same text as this one.
    pub(crate) fn first(&self, option: usize) -> usize {
        self.choices.get(option).map_or(option, |c| c.first)
    }

    /// The option that is the whole text, its letter or its words, after normalisation.
    pub(crate) fn position(&self, text: &str) -> Option<usize> {
        let whole = canonical(text);
        if whole.is_empty() {
            let bare = bare(text);
            let same = |c: &Choice| !bare.is_empty() && c.words.is_none() && c.whole == bare;
            return self.choices.iter().position(same);
        }
        let without = without_article(&whole);
        let with = |same: &dyn Fn(&Choice) -> bool| self.choices.iter().position(same);
        if let Some(option) = with(&|c| c.whole == whole || c.text() == whole) {
            return Some(self.first(option));
        }
        let same = |c: &&Choice| c.words.is_some() && without_article(c.text()) == without;
        let mut all = self.choices.iter().filter(same).map(|c| c.first);
        let option = all.next()?;
        all.all(|other| other == option).then_some(option)
    }

    /// The option that a reference is: its whole text, its words, or its letter alone.
    pub(crate) fn reference(&self, reference: &str) -> Option<usize> {
        let letter = || {
            let text = Text::new(reference);
            (text.words.len() == 1).then(|| self.lettered(&text, 0)).flatten()
        };
        self.position(reference).or_else(letter)
    }

    /// The one option that the text names, see [`judge`](super::judge).
    pub(crate) fn answer(&self, text: &str) -> Option<usize> {
        self.find(text).map(|named| named.option)
    }

    /// The same, and where.
    pub(crate) fn find(&self, text: &str) -> Option<Named> {
        if let Some(option) = self.position(text) {
            return Some(Named::whole(option));
        }
        let text = Text::new(text);
        let names = self.names(&text);
        match self.one(&text, &names, 0..text.words.len()) {
            Reading::One(named) => Some(named),
            _ => None,
        }
    }

    /// The option that is the whole text; or else, where the text is not `refused` and does not deny that an option is the answer
    /// ("I don't think the answer is B"), the one that it names; or else the one that it says is the answer ("…, so the answer is
    /// B", "Answer: rain"), also where it names others elsewhere. Where it says so of two, none.
    pub(crate) fn read(&self, text: &str, refused: bool) -> Option<Named> {
        if let Some(option) = self.position(text) {
            return Some(Named::whole(option));
        }
        let text = Text::new(text);
        let names = self.names(&text);
        let cues: Vec<(usize, usize)> = (0..text.words.len())
            .filter_map(|i| Some((i, declares(&text, i)?)))
            .collect();
        let (mut declared, mut open, mut denied): (Option<Named>, _, _) = (None, false, false);
        for (n, (cue, start)) in cues.iter().enumerate() {
            let limit = cues.get(n + 1).map_or(text.words.len(), |(cue, _)| *cue);
            let ends = |i: &usize| text.gap(*i).contains(['.', '!', '?', ';', '\n']);
            let end = (start + 1..limit).find(ends).unwrap_or(limit);
            let reading = self.one(&text, &names, *start..end);
            if text.denied(&(*cue..cue + 1), |i| names.part[i]) {
                denied |= !matches!(reading, Reading::Nothing);
                continue;
            }
            match reading {
                Reading::Nothing => {}
                Reading::One(named) if declared.as_ref().is_none_or(|d| d.option == named.option) => {
                    declared.get_or_insert(Named {
                        how: How::Declared,
                        ..named
                    });
                }
                Reading::One(_) | Reading::Open => open = true,
            }
        }
        match self.one(&text, &names, 0..text.words.len()) {
            Reading::One(named) if !refused && !denied => Some(named),
            _ => declared.filter(|_| !open),
        }
    }

    /// What of the text may name an option.
    fn names(&self, text: &Text) -> Names {
        let texts = self.texts(text);
        let mut part = vec![false; text.words.len()];
        for (_, at) in &texts {
            part[at.clone()].fill(true);
        }
        let named = |(option, at)| (option, at, How::Words);
        let mut named: Vec<(usize, Range<usize>, How)> = texts.into_iter().map(named).collect();
        let mut seen = Vec::new();
        for (i, taken) in part.iter().enumerate() {
            let letter = if *taken { None } else { self.lettered(text, i) };
            match letter {
                Some(option) if self.means(text, i) => named.push((option, i..i + 1, How::Letter)),
                Some(option) => seen.push((option, i)),
                None => {}
            }
        }
        for (_, at, _) in &named {
            part[at.start] = true;
        }
        named.sort_by_key(|(_, at, _)| at.start);
        Names { named, seen, part }
    }

    /// The one option that is named by what begins within the words of `scope`.
    fn one(&self, text: &Text, names: &Names, scope: Range<usize>) -> Reading {
        let from = names.named.partition_point(|(_, at, _)| at.start < scope.start);
        let to = names.named.partition_point(|(_, at, _)| at.start < scope.end);
        let named = &names.named[from..to.max(from)];
        let Some((option, _, _)) = named.first() else {
            return Reading::Nothing;
        };
        let part = |i: usize| names.part[i];
        if named
            .iter()
            .any(|(o, at, _)| o != option || text.denied(at, part))
        {
            return Reading::Open;
        }
        // A letter that may be meant names nothing, but another one beside it leaves the answer open.
        let from = names.seen.partition_point(|(_, i)| *i < scope.start);
        let mut doubtful = names.seen[from..].iter().take_while(|(_, i)| *i < scope.end);
        if doubtful.any(|(o, i)| o != option && self.may_mean(text, *i)) {
            return Reading::Open;
        }
        let words = named.iter().find(|(_, _, how)| *how == How::Words);
        let (option, at, how) = words.unwrap_or(&named[0]).clone();
        let (first, last) = (&text.words[at.start].at, &text.words[at.end - 1].at);
        let at = first.start..last.end;
        Reading::One(Named { option, at, how })
    }

    /// Options whose words stand in the text, and where. One that occurs only inside a longer one is not named.
    fn texts(&self, text: &Text) -> Vec<(usize, Range<usize>)> {
        let mut spans = Vec::new();
        for choice in &self.choices {
            let Some(words) = &choice.words else { continue };
            let own = |at: &Range<usize>| {
                let before = at.start.checked_sub(1)?;
                let same = choice.article == Some(text.folded(before));
                (same && text.goes_on(before, &[])).then_some(before)
            };
            spans.extend(text.find(words).map(|at| {
                let start = own(&at).unwrap_or(at.start);
                (choice.first, start..at.end)
            }));
        }
        if spans.len() < 2 {
            return spans;
        }
        // How far the longest reaches that begins at a word, or before it.
        let mut reach = vec![0; text.words.len() + 1];
        for (_, at) in &spans {
            reach[at.start] = reach[at.start].max(at.end);
        }
        let mut before = vec![0; text.words.len() + 1];
        for i in 1..before.len() {
            before[i] = before[i - 1].max(reach[i - 1]);
        }
        spans.retain(|(_, at)| before[at.start] < at.end && reach[at.start] == at.end);
        spans
    }

    /// The option whose letter word `i` is.
    fn lettered(&self, text: &Text, i: usize) -> Option<usize> {
        let letter = ascii(text.written(i))?;
        let option = self.choices.iter().position(|c| c.letter == Some(letter))?;
        text.stands_alone(i).then_some(self.first(option))
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
        let next = text.folded(i + 1);
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
        if next == "is" && (i + 2..i + 5).any(|n| RIGHT.contains(&text.folded(n))) {
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
        let next = text.folded(i + 1);
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

/// Which words may name an option.
struct Names {
    /// By their start: option, words, and how.
    named: Vec<(usize, Range<usize>, How)>,
    /// Letters that are not meant as answers, but could be.
    seen: Vec<(usize, usize)>,
    /// Whether a word is part of a name.
    part: Vec<bool>,
}

/// What a part of a text says.
enum Reading {
    Nothing,
    One(Named),
    /// Several options, or one that is denied or in doubt.
    Open,
}

/// Where the answer begins that word `i` announces: "answer is", "answer:", "<answer>", "\\boxed{".
fn declares(text: &Text, i: usize) -> Option<usize> {
    const NOUNS: [&str; 5] = ["answer", "choice", "option", "response", "solution"];
    const VERBS: [&str; 4] = ["is", "was", "be", "s"];
    const MOST_BETWEEN: usize = 2;
    let word = text.folded(i);
    let gap = |n: usize| if n <= text.words.len() { text.gap(n) } else { "" };
    if word == "boxed" && gap(i + 1).contains('{') {
        return Some(i + 1);
    }
    if !NOUNS.contains(&word) || gap(i).ends_with('/') {
        return None;
    }
    if gap(i + 1).trim_start().starts_with([':', '>']) {
        return Some(i + 1);
    }
    // "answer is", "answer must be", "option that fits is"
    let verb = (i + 1..text.words.len().min(i + 2 + MOST_BETWEEN))
        .take_while(|n| !gap(*n).contains(['.', '!', '?', ';', ',', ':', '\n']))
        .find(|n| VERBS.contains(&text.folded(*n)))?;
    (verb + 1 < text.words.len()).then_some(verb + 1)
}

/// Whether words lead to word `i` that say that it is the answer.
fn cued(text: &Text, i: usize) -> bool {
    for back in 1..=MOST_FILLERS.min(i) {
        let at = i - back;
        if text.gap(at + 1).contains(['.', '!', '?', ';', '\n']) {
            return false;
        }
        let word = text.folded(at);
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
