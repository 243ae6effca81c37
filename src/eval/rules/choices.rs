//! The answers of a closed set, normalised, and their letters.

use super::words::{add_canonical, canonical, plain, Text};
use std::borrow::Cow;
use std::ops::Range;

pub(super) const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// One answer.
pub(super) struct Choice<'w> {
    /// The whole text, normalised.
    pub whole: Cow<'w, str>,
    /// Where what is behind its letter begins.
    unlettered: usize,
    /// The words of `text`; `None` where it has none, or is its letter alone.
    pub words: Option<Text<'w>>,
    /// In lower case.
    pub letter: Option<char>,
    /// The first option with the same text, often itself.
    pub first: usize,
    /// The article before `words`, where it counts as a part of them.
    pub article: Option<&'static str>,
}

/// The texts of options, normalised: one behind the other, so that they cost no room each.
pub(super) struct Wholes {
    text: String,
    ends: Vec<usize>,
}

impl Wholes {
    pub(crate) fn of(labels: &[String]) -> Self {
        let mut text = String::with_capacity(labels.iter().map(String::len).sum());
        let end = |label: &String| {
            add_canonical(label, &mut text);
            text.len()
        };
        let ends = labels.iter().map(end).collect();
        Wholes { text, ends }
    }

    /// In the labels' order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let own = &self.text[start..*end];
            start = *end;
            own
        })
    }

    /// The first option whose whole text this is, and the first with the same text as option `right`: what
    /// `Options::position` and `Options::first` say where the texts carry no letters before them. None of what has to be
    /// looked into: such letters, and texts without a word, which are compared as they are.
    pub(crate) fn position(&self, text: &str, right: usize) -> Option<(usize, usize)> {
        let whole = canonical(text);
        let of = |whole: &str| self.all().position(|own| own == whole);
        let option = of(&whole)?;
        let words = without_article(&whole).contains(char::is_alphanumeric);
        let lettered = self.all().next().is_some_and(|first| part(first).is_some());
        match words && !lettered {
            true => Some((option, of(self.all().nth(right)?)?)),
            false => None,
        }
    }
}

impl<'w> Choice<'w> {
    pub(crate) fn new(label: &str, whole: &'w str, place: usize) -> Self {
        let words = Text::new(without_article(whole));
        let mut letter = None;
        if let [_] = words.words[..] {
            letter = ascii(words.folded(0));
        }
        let none = words.words.is_empty();
        Choice {
            whole: match none {
                true => Cow::Owned(bare(label)),
                false => Cow::Borrowed(whole),
            },
            unlettered: 0,
            words: (!none && letter.is_none()).then_some(words),
            letter,
            first: place,
            article: None,
        }
    }

    /// Without its letter.
    pub(crate) fn text(&self) -> &str {
        &self.whole[self.unlettered..]
    }
}

/// Gives letters to options that have none. Whether any has one then.
pub(super) fn give_letters(choices: &mut [Choice], prompt: &str) -> bool {
    if choices.iter().all(|c| c.letter.is_none()) && !own_letters(choices) {
        letters_of(prompt, choices);
    }
    choices.iter().any(|c| c.letter.is_some())
}

pub(super) fn ascii(word: &str) -> Option<char> {
    let mut chars = word.chars();
    let letter = chars.next().filter(char::is_ascii_alphabetic)?;
    chars.next().is_none().then_some(letter.to_ascii_lowercase())
}

/// Plain, without white space around.
pub(super) fn bare(text: &str) -> String {
    plain(text).trim().to_owned()
}

/// Without a leading "a", "an" or "the", unless that is all there is.
pub(super) fn without_article(canonical: &str) -> &str {
    let bare = ARTICLES
        .iter()
        .find_map(|article| canonical.strip_prefix(article)?.strip_prefix(' '));
    bare.unwrap_or(canonical)
}

/// Whether letters are a, b, c … without a gap, in any order.
pub(super) fn in_sequence(letters: impl Iterator<Item = char>, n: usize) -> bool {
    let mut all = 0_u32;
    for letter in letters {
        all |= 1 << (u32::from(letter) - u32::from('a')).min(31);
    }
    n <= 26 && all == (1_u32 << n) - 1
}

/// Takes the letters off options that all begin with one, as "(A) wind" and "b. rain" do: A, B, C … in any order.
fn own_letters(choices: &mut [Choice]) -> bool {
    if choices.len() < 2 {
        return false;
    }
    let Some(parted) = choices.iter().map(|c| part(&c.whole)).collect::<Option<Vec<_>>>() else {
        return false;
    };
    if !in_sequence(parted.iter().map(|(letter, _)| *letter), choices.len()) {
        return false;
    }
    let parted: Vec<(char, usize)> = parted;
    for (choice, (letter, behind)) in choices.iter_mut().zip(parted) {
        choice.letter = Some(letter);
        choice.unlettered = behind;
        choice.words = Some(match &choice.whole {
            Cow::Borrowed(whole) => Text::new(without_article(&whole[behind..])),
            Cow::Owned(whole) => {
                let shown = plain(without_article(&whole[behind..]));
                Text::of_plain(Cow::Owned(shown.into_owned()))
            }
        });
    }
    true
}

/// "(a) wind", "a) wind", "a. wind" and "a: wind": the letter, and where what is behind it begins.
fn part(whole: &str) -> Option<(char, usize)> {
    let inner = whole.trim_start_matches(['(', '[', '{']);
    let letter = inner.chars().next().filter(char::is_ascii_lowercase)?;
    let rest = inner.get(1..)?;
    let text = rest.trim_start_matches([')', ']', '}', '.', ':']);
    let parted = text.len() < rest.len() && (text.starts_with(' ') || !rest.starts_with('.'));
    let text = text.trim_start();
    (parted && !Text::new(text).words.is_empty()).then_some((letter, whole.len() - text.len()))
}

/// Whether an "a" with its mark stands in a text, but for emphasis: enough to see that most prompts have no letters.
fn has_marked_a(ascii: &str) -> bool {
    let mut kept = ascii.bytes().filter(|b| !matches!(b, b'*' | b'`'));
    let mut last = b' ';
    kept.any(|b| {
        let found = last.eq_ignore_ascii_case(&b'a') && matches!(b, b')' | b']' | b':' | b'.');
        last = b;
        found
    })
}

/// Gives the options the letters that the prompt puts before them, where it does so for each and without a gap.
fn letters_of(prompt: &str, choices: &mut [Choice]) {
    if choices.len() < 2 || (prompt.is_ascii() && !has_marked_a(prompt)) {
        return;
    }
    let prompt = Text::new(prompt);
    let marked = |at: Range<usize>| {
        let before = at.start.checked_sub(1)?;
        let mark = prompt.is_marked(before) && !prompt.gap(at.start).contains('\n');
        ascii(prompt.written(before)).filter(|_| mark && prompt.stands_alone(before))
    };
    let mut found = Vec::with_capacity(choices.len());
    for choice in choices.iter() {
        let words = Text::new(&choice.whole);
        let mut letters = prompt.find(&words).filter_map(marked);
        let Some(letter) = letters.next() else { return };
        if !letters.all(|other| other == letter) {
            return;
        }
        found.push(letter);
    }
    if in_sequence(found.iter().copied(), choices.len()) {
        for (choice, letter) in choices.iter_mut().zip(found) {
            choice.letter = Some(letter);
        }
    }
}
