//! The token rule of MMAU's and MMAR's `evaluation.py`.
//!
//! Tokens are the matches of `\b\w+\b` in lower case, as a set. A prediction is right where
//! 1. it has tokens,
//! 2. the answer's are among them, and
//! 3. none is that only a wrong choice has: the union over all choices, but those with exactly the answer's tokens, of what
//!    is left of them without the answer's tokens.
//!
//! What follows from that, and is kept: a letter is a token ("(a) rain" is wrong where a wrong choice has an article); so is
//! the lead-in ("The answer is rain"); "not rain" is rain; an answer without tokens ("...") is matched by every prediction
//! that has one which is no wrong choice's; choices of the same tokens in another order are all right.

use super::item::{Item, Judged, State};
use super::python;
use super::record;
use crate::eval::json::Json;
use std::collections::HashMap;
use std::ops::Range;

const BY: &str = "mmau.tokens";
/// Above so many different tokens, all choices together, a table finds them faster than a look at each.
const FEW: usize = 24;

/// The rule on an item. Without a prediction the script skips it: it is not counted.
///
/// The answer is the choice that the rule would accept, where it is one.
pub fn judge(item: &Item) -> Judged {
    match item.prediction {
        Some(prediction) => tokens(prediction, item.answer, item.choices),
        None => Judged::none(State::Empty, "mmau.no_prediction").uncounted(),
    }
}

/// A dictionary of tokens; of each token that stands in it, its number.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    table: Option<HashMap<&'a str, usize>>,
}

impl<'a> Vocabulary<'a> {
    fn number(&self, token: &str) -> Option<usize> {
        match &self.table {
            Some(table) => table.get(token).copied(),
            None => self.tokens.iter().position(|own| *own == token),
        }
    }

    /// The numbers of a text's tokens, each once, in ascending order.
    fn add(&mut self, lowered: &'a str) -> Vec<usize> {
        let mut set = Vec::new();
        for at in python::words(lowered) {
            let token = &lowered[at];
            let number = self.number(token).unwrap_or_else(|| {
                let number = self.tokens.len();
                self.tokens.push(token);
                if let Some(table) = &mut self.table {
                    table.insert(token, number);
                } else if self.tokens.len() > FEW {
                    self.table = Some(self.tokens.iter().enumerate().map(|(i, t)| (*t, i)).collect());
                }
                number
            });
            if !set.contains(&number) {
                set.push(number);
            }
        }
        set.sort_unstable();
        set
    }
}

fn tokens<C: AsRef<str>>(prediction: &str, answer: &str, choices: &[C]) -> Judged {
    match short(prediction, answer, choices) {
        Some(judged) => judged,
        None => any(prediction, answer, choices),
    }
}

/// Tokens of ASCII texts, at most as many as bits in a word, so that a set is a word and nothing is allocated.
struct Few<'a> {
    tokens: [&'a [u8]; MOST_CHOICES * 8],
    /// Of each its sign.
    signs: [u64; MOST_CHOICES * 8],
    len: usize,
}

/// So many bytes of a token are in its sign.
const SIGNED: usize = 7;

/// A token of an ASCII text.
struct Token {
    at: Range<usize>,
    /// Its length and first bytes in lower case: what it is, unless it is longer.
    sign: u64,
}

/// More choices are left to [`any`].
const MOST_CHOICES: usize = 8;

impl<'a> Few<'a> {
    fn number(&self, text: &[u8], token: &Token) -> Option<usize> {
        let same = |i: &usize| {
            self.signs[*i] == token.sign
                && (token.at.len() <= SIGNED || self.tokens[*i].eq_ignore_ascii_case(&text[token.at.clone()]))
        };
        (0..self.len).find(same)
    }

    /// The set of a text's tokens; none where there are too many.
    fn set(&mut self, text: &'a str) -> Option<u64> {
        let mut set = 0;
        for token in ascii_words(text.as_bytes()) {
            let number = match self.number(text.as_bytes(), &token) {
                Some(number) => number,
                None => {
                    *self.tokens.get_mut(self.len)? = &text.as_bytes()[token.at];
                    self.signs[self.len] = token.sign;
                    self.len += 1;
                    self.len - 1
                }
            };
            set |= 1 << number;
        }
        Some(set)
    }
}

/// What a byte is in a word, in lower case; 0 of what is in none.
const IN_WORD: [u8; 256] = {
    let mut of = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_' {
            of[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    of
};

/// The matches of `\b\w+\b` in an ASCII text.
fn ascii_words(text: &[u8]) -> impl Iterator<Item = Token> + '_ {
    let mut place = 0;
    std::iter::from_fn(move || {
        while IN_WORD[usize::from(*text.get(place)?)] == 0 {
            place += 1;
        }
        let (start, mut first) = (place, 0);
        while let Some(byte) = text.get(place) {
            let byte = IN_WORD[usize::from(*byte)];
            if byte == 0 {
                break;
            }
            if place - start < SIGNED {
                first = first << 8 | u64::from(byte);
            }
            place += 1;
        }
        let length = (place - start).min(255) as u64;
        Some(Token {
            at: start..place,
            sign: length << 56 | first,
        })
    })
}

/// The tokens of an item's answer and choices.
struct Sets<'a> {
    few: Few<'a>,
    gold: u64,
    choices: [u64; MOST_CHOICES],
    len: usize,
}

impl<'a> Sets<'a> {
    /// Of what most items are: few choices, all of it ASCII. None of others.
    fn of<C: AsRef<str>>(answer: &'a str, choices: &'a [C]) -> Option<Self> {
        let ascii = answer.is_ascii() && choices.iter().all(|c| c.as_ref().is_ascii());
        if !ascii || choices.len() > MOST_CHOICES {
            return None;
        }
        let mut few = Few {
            tokens: [&[]; MOST_CHOICES * 8],
            signs: [0; MOST_CHOICES * 8],
            len: 0,
        };
        let gold = few.set(answer)?;
        let mut sets = [0; MOST_CHOICES];
        for (set, choice) in sets.iter_mut().zip(choices) {
            *set = few.set(choice.as_ref())?;
        }
        Some(Sets {
            few,
            gold,
            choices: sets,
            len: choices.len(),
        })
    }

    fn choices(&self) -> &[u64] {
        &self.choices[..self.len]
    }

    /// Whether a prediction in which these tokens were seen says what has the tokens `own`.
    fn accepts(&self, own: u64, seen: u64) -> bool {
        let foreign = |set: &u64| *set != own && set & seen & !own != 0;
        own & !seen == 0 && !self.choices().iter().any(foreign)
    }
}

/// Of each choice whether it is right as the prediction; none of items that are judged in another way.
pub(super) fn choices_that_are_right<C: AsRef<str>>(answer: &str, choices: &[C]) -> Option<Vec<bool>> {
    let sets = Sets::of(answer, choices)?;
    let right = |seen: &u64| *seen != 0 && sets.accepts(sets.gold, *seen);
    Some(sets.choices().iter().map(right).collect())
}

/// The rule on what [`Sets`] takes.
fn short<C: AsRef<str>>(prediction: &str, answer: &str, choices: &[C]) -> Option<Judged> {
    if !prediction.is_ascii() {
        return None;
    }
    let all = Sets::of(answer, choices)?;
    let (few, gold, sets) = (&all.few, all.gold, all.choices());
    // Which stand in the prediction, and where first.
    let (mut seen, mut places) = (0u64, [(0, 0); MOST_CHOICES * 8]);
    let mut any = false;
    for token in ascii_words(prediction.as_bytes()) {
        any = true;
        if let Some(number) = few.number(prediction.as_bytes(), &token) {
            if seen & (1 << number) == 0 {
                seen |= 1 << number;
                places[number] = (token.at.start, token.at.end);
            }
        }
    }
    if !any {
        return Some(Judged::none(State::Unparsed, "mmau.no_tokens"));
    }
    let accepts = |own: u64| all.accepts(own, seen);
    let span = |own: u64| {
        let spans = (0..few.len).filter(|n| own & (1 << n) != 0).map(|n| places[n]);
        let joined = spans.reduce(|a: (usize, usize), b| (a.0.min(b.0), a.1.max(b.1)));
        joined.map_or(
            python::within(prediction, python::strip(prediction)),
            |(start, end)| start..end,
        )
    };
    if accepts(gold) {
        return Some(Judged::found(answer, span(gold), true, BY));
    }
    let mut accepted = sets.iter().enumerate().filter(|(_, set)| accepts(**set));
    Some(match (accepted.next(), accepted.next()) {
        (Some((i, set)), None) => Judged::found(choices[i].as_ref(), span(*set), false, BY),
        _ => Judged::none(State::Unparsed, BY),
    })
}

/// The rule on any item.
fn any<C: AsRef<str>>(prediction: &str, answer: &str, choices: &[C]) -> Judged {
    let lowered: Vec<_> = choices.iter().map(|c| python::lower(c.as_ref())).collect();
    let gold = python::lower(answer);
    let mut vocabulary = Vocabulary {
        tokens: Vec::with_capacity(FEW),
        table: None,
    };
    let gold = vocabulary.add(&gold);
    let sets: Vec<Vec<usize>> = lowered.iter().map(|c| vocabulary.add(c)).collect();
    // Where each token stands first in the prediction.
    let mut seen: Vec<Option<(usize, usize)>> = vec![None; vocabulary.tokens.len()];
    let text = python::lower(prediction);
    let mut any = false;
    for at in python::words(&text) {
        any = true;
        if let Some(number) = vocabulary.number(&text[at.clone()]) {
            seen[number].get_or_insert((at.start, at.end));
        }
    }
    if !any {
        return Judged::none(State::Unparsed, "mmau.no_tokens");
    }
    let accepts = |own: &[usize]| {
        let all = own.iter().all(|n| seen[*n].is_some());
        let foreign = |set: &Vec<usize>| {
            set != own
                && set
                    .iter()
                    .any(|n| seen[*n].is_some() && own.binary_search(n).is_err())
        };
        all && !sets.iter().any(foreign)
    };
    let span = |own: &[usize]| -> Range<usize> {
        let spans = own.iter().filter_map(|n| seen[*n]);
        let joined = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        joined.map_or(
            python::within(prediction, python::strip(prediction)),
            |(start, end)| python::unlowered(prediction, start..end),
        )
    };
    if accepts(&gold) {
        return Judged::found(answer, span(&gold), true, BY);
    }
    let mut accepted = sets.iter().enumerate().filter(|(_, set)| accepts(set));
    match (accepted.next(), accepted.next()) {
        (Some((i, set)), None) => Judged::found(choices[i].as_ref(), span(set), false, BY),
        _ => Judged::none(State::Unparsed, BY),
    }
}

/// One of the two scripts: where its predictions stand, and the groups that it knows.
pub struct Script {
    /// The key of the prediction.
    pub prediction: &'static str,
    /// Keys by which it counts, with the values that it has counters for; another value ends it.
    pub groups: [(&'static str, &'static [&'static str]); 2],
}

/// MMAU's script. Its README calls the key `model_prediction`, which it does not read.
pub const MMAU: Script = Script {
    prediction: "model_output",
    groups: [
        ("task", &["sound", "music", "speech"]),
        ("difficulty", &["easy", "hard", "medium"]),
    ],
};

/// MMAR's script.
pub const MMAR: Script = Script {
    prediction: "answer_prediction",
    groups: [
        (
            "modality",
            &[
                "sound",
                "music",
                "speech",
                "mix-sound-music",
                "mix-sound-speech",
                "mix-music-speech",
                "mix-sound-music-speech",
            ],
        ),
        (
            "category",
            &[
                "Signal Layer",
                "Perception Layer",
                "Semantic Layer",
                "Cultural Layer",
            ],
        ),
    ],
};

impl Script {
    /// The rule on a record of the official prediction file. One on which the script would end is [`State::Error`].
    pub(crate) fn record(&self, record: &Json) -> Judged {
        let found = self.try_record(record);
        found.unwrap_or_else(|reason| Judged::error("mmau.record", reason))
    }

    fn try_record(&self, record: &Json) -> Result<Judged, String> {
        let Some(prediction) = record.get(self.prediction) else {
            return Ok(judge(&Item::default()));
        };
        let answer = record::field(record, "answer")?;
        let [first, second] = [self.groups[0], self.groups[1]]
            .map(|(key, known)| record::field(record, key).map(|value| (value, known)));
        let (first, second) = (first?, second?);
        let choices = record::field(record, "choices")?;
        record.get("sub-category").map_or(Ok(()), record::hashable)?;
        let (prediction, answer) = (
            record::string(prediction, "lower")?,
            record::string(answer, "lower")?,
        );
        // The script looks at the choices of a prediction with tokens alone.
        let has_tokens = match prediction.is_ascii() {
            true => ascii_words(prediction.as_bytes()).next().is_some(),
            false => python::words(&python::lower(prediction)).next().is_some(),
        };
        let choices = match has_tokens {
            true => record::walked(choices, "lower")?,
            false => Vec::new(),
        };
        for (value, known) in [first, second] {
            record::hashable(value)?;
            if !value.as_str().is_some_and(|v| known.contains(&v)) {
                return Err(format!("KeyError: {}", record::shown(value)));
            }
        }
        Ok(tokens(prediction, answer, &choices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is judged word by word and what is judged by sets of bits is one rule.
    #[test]
    fn short_items_are_judged_as_any_item_is() {
        let texts = [
            "",
            "...",
            "A dog",
            "a_dog",
            "Dog",
            "dog, dog",
            "A cat",
            "the Cat!",
            "(a) a dog",
            "B",
            "4/4",
            "4 4",
            "dog cat",
            "barking1 Barking2",
            "barking2",
            "it's",
            "\x1c",
            " \n ",
        ];
        let mut found = 0;
        for prediction in texts {
            for answer in texts {
                for first in texts {
                    for second in ["A cat", "dog", "", answer] {
                        let choices = [first, second, "a bird"];
                        let short = short(prediction, answer, &choices);
                        assert_eq!(
                            short,
                            Some(any(prediction, answer, &choices)),
                            "{prediction:?}, {answer:?} of {choices:?}"
                        );
                        found += usize::from(short.is_some_and(|j| j.answer.is_some()));
                        let right = choices.map(|choice| any(choice, answer, &choices).correct);
                        assert_eq!(
                            choices_that_are_right(answer, &choices),
                            Some(right.to_vec()),
                            "{answer:?} of {choices:?}"
                        );
                    }
                }
            }
        }
        assert!(found > 1_000, "{found}");
        assert_eq!(short("é", "a", &["b"]), None);
        assert_eq!(short("a", "a", &["b"; 9]), None);
        let many: String = (0..65).map(|i| format!("w{i} ")).collect();
        assert_eq!(short("a", "a", &[many]), None);
    }
}
