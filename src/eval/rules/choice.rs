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
    let options = Options::in_order(item.choices, item.question);
    let given = || item.choices.iter().position(|c| c == item.answer);
    let right = item
        .right
        .or_else(given)
        .or_else(|| options.reference(item.answer));
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
    match prediction.rfind(END) {
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
