//! The fair rule for multiple choice: what an answer says, however it is dressed, and never a guess.
//!
//! Letters are those of the options, or of the question, or else the options' places: "B", "(b) a door slam" and "a door slam"
//! are one answer. Case, compatible characters, emphasis, articles in front and punctuation behind do not count, and what lies
//! before the last `</think>` is not read. In this order:
//!
//! 1. The option that is the whole text.
//! 2. The one option that is named, by the rules of [`label`](super::judge), and none other; not of a text that begins as a
//!    [refusal](super::refusal), or that denies that an option is the answer.
//! 3. The one option that the text says is the answer: "… so the answer is B", "Answer: rain", `\boxed{B}`. It may have named others
//!    before.
//! 4. Refused, where the text begins so; otherwise unparsed: none or several options, or one that is denied.

use super::choices::Wholes;
use super::item::{Item, Judged, State};
use super::options::{How, Named, Options};
use super::python;
use super::refusal::refuses;
use super::words::unplain;
use std::ops::Range;

/// The rule on an item.
pub fn judge(item: &Item) -> Judged {
    if item.choices.is_empty() {
        return Judged::error("choice", "the item has no choices");
    }
    let wholes = Wholes::of(item.choices);
    match whole(item, &wholes) {
        Some(judged) => judged,
        None => within(item, &wholes),
    }
}

/// Many predictions are an option and nothing else, which is seen before the options are looked into.
fn whole(item: &Item, wholes: &Wholes) -> Option<Judged> {
    let prediction = item.prediction?;
    let right = given(item).filter(|right| *right < item.choices.len())?;
    let said = said(prediction);
    let (option, right) = wholes.position(said, right)?;
    let span = span(prediction, said, &Named::whole(option));
    Some(Judged::found(
        &item.choices[option],
        span,
        option == right,
        "choice.whole",
    ))
}

/// The right choice, where the item says it by its place or by its very text.
fn given(item: &Item) -> Option<usize> {
    let same = || item.choices.iter().position(|c| c == item.answer);
    item.right.or_else(same)
}

/// The rule on any item.
fn within(item: &Item, wholes: &Wholes) -> Judged {
    let options = Options::in_order(item.choices, wholes, item.question);
    let right = given(item).or_else(|| options.reference(item.answer));
    let Some(right) = right.filter(|right| *right < item.choices.len()) else {
        let reason = format!(
            "the answer {:?} is none of the choices {:?}",
            item.answer, item.choices
        );
        return Judged::error("choice", reason);
    };
    let Some(prediction) = item.prediction else {
        return Judged::none(State::Empty, "choice.no_prediction");
    };
    let said = said(prediction);
    match read(&options, said) {
        Ok(named) => {
            let by = match named.how {
                How::Whole => "choice.whole",
                How::Words => "choice.text",
                How::Letter => "choice.letter",
                How::Declared => "choice.declared",
            };
            let correct = named.option == options.first(right);
            Judged::found(
                &item.choices[named.option],
                span(prediction, said, &named),
                correct,
                by,
            )
        }
        Err(State::Refused) => Judged::none(State::Refused, "choice.refusal"),
        Err(state) => Judged::none(state, "choice.unparsed"),
    }
}

/// What of an answer counts: all behind the last `</think>`; nothing, where a thought was begun and not ended.
pub(super) fn said(prediction: &str) -> &str {
    const END: &str = "</think>";
    match memchr::memmem::rfind(prediction.as_bytes(), END.as_bytes()) {
        Some(at) => &prediction[at + END.len()..],
        None if prediction.trim_start().starts_with("<think>") => "",
        None => prediction,
    }
}

fn read(options: &Options, said: &str) -> Result<Named, State> {
    let refused = refuses(said);
    let failed = if refused { State::Refused } else { State::Unparsed };
    options.read(said, refused).ok_or(failed)
}

/// Where in the prediction something stands that [`Options`] found in a part of it.
pub(super) fn span(prediction: &str, said: &str, named: &Named) -> Range<usize> {
    let offset = python::within(prediction, said).start;
    let inside = match named.how {
        How::Whole => python::within(said, said.trim()),
        _ => unplain(said, named.at.clone()),
    };
    offset + inside.start..offset + inside.end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prediction that is an option is one whether or not the options are looked into.
    #[test]
    fn whole_texts_are_judged_as_any_text_is() {
        let texts = [
            "A dog",
            "the dog",
            "Dog.",
            "dog",
            "**dog**",
            "a",
            "A",
            "B",
            "(a) dog",
            "b) cat",
            "- -",
            "-  -",
            "a -",
            "A -",
            "?!",
            "...",
            "",
            "#",
            "C#",
            "<think>no</think> dog",
            "Straße",
            "STRASSE",
            "4/4",
        ];
        let mut found = 0;
        for prediction in texts {
            for first in texts {
                for second in texts {
                    for answer in [first, second] {
                        let choices = [first, second, "a bird"].map(String::from);
                        let item = Item {
                            choices: &choices,
                            answer,
                            prediction: Some(prediction),
                            ..Item::default()
                        };
                        let Some(judged) = whole(&item, &Wholes::of(&choices)) else {
                            continue;
                        };
                        assert_eq!(judged, within(&item, &Wholes::of(&choices)), "{item:?}");
                        found += 1;
                    }
                }
            }
        }
        assert!(found > 1_000, "{found}");
    }
}
