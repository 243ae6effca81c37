//! The one number in a text: digits, with a sign or decimal point, or an English word from zero to twenty. The same number twice
//! is one; different ones, or none, are no answer.

use super::item::{Item, Judged, State};
use super::options::Fault;
use super::python;
use super::refusal::refuses;
use crate::benchmark::numbers::WORDS;
use std::ops::Range;

/// The rule on an item.
pub fn judge(item: &Item) -> Judged {
    let right = match reference(item.answer) {
        Ok(right) => right,
        Err(fault) => {
            let reason = format!(
                "{}: expected {}, found {}",
                fault.key, fault.expected, fault.found
            );
            return Judged::error("number", reason);
        }
    };
    let Some(prediction) = item.prediction else {
        return Judged::none(State::Empty, "number.no_prediction");
    };
    match number(prediction) {
        Some((value, at)) => Judged::found(value.to_string(), at, value == right, "number"),
        None if refuses(prediction) => Judged::none(State::Refused, "number.refusal"),
        None => Judged::none(State::Unparsed, "number.unparsed"),
    }
}

/// A reference's number.
pub(super) fn reference(text: &str) -> Result<f64, Fault> {
    number(text).map(|(value, _)| value).ok_or_else(|| Fault {
        key: "reference",
        expected: "a text with one number".into(),
        found: format!("{text:?}"),
    })
}

/// The one number in a text, and where it stands first; `None` without any and with different ones.
pub(super) fn number(text: &str) -> Option<(f64, Range<usize>)> {
    let mut numbers = text.split_whitespace().filter_map(|whole| {
        let token = whole.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '-');
        let token = token.trim_end_matches(|c: char| !c.is_alphanumeric());
        let value = match WORDS.iter().position(|word| word.eq_ignore_ascii_case(token)) {
            Some(value) => value as f64,
            // Digits first, so that "inf", "nan" and "e5" stay words.
            None if token
                .trim_start_matches('-')
                .starts_with(|c: char| c.is_ascii_digit()) =>
            {
                token.parse().ok().filter(|v: &f64| v.is_finite())?
            }
            None => return None,
        };
        Some((value, python::within(text, token)))
    });
    let first = numbers.next()?;
    numbers.all(|other| other.0 == first.0).then_some(first)
}
