//! One label of a closed set; [`judge`](super::judge) says the rule whole. The labels are a manifest's: they differ, and each has a
//! word. [`choice`](super::choice) takes any options.

use super::choice::{said, span};
use super::choices::Wholes;
use super::item::{Item, Judged, State};
use super::options::{Fault, How, Options};
use super::refusal::refuses;

/// The rule on an item.
pub fn judge(item: &Item) -> Judged {
    let found = try_judge(item);
    found.unwrap_or_else(|fault| {
        let reason = format!(
            "{}: expected {}, found {}",
            fault.key, fault.expected, fault.found
        );
        Judged::error("label", reason)
    })
}

fn try_judge(item: &Item) -> Result<Judged, Fault> {
    let wholes = Wholes::of(item.choices);
    let options = Options::new(item.choices, &wholes, item.question)?;
    let right = right(&options, item.answer, item.choices)?;
    let Some(prediction) = item.prediction else {
        return Ok(Judged::none(State::Empty, "label.no_prediction"));
    };
    Ok(match options.find(prediction) {
        Some(named) => {
            let by = match named.how {
                How::Whole => "label.whole",
                How::Letter => "label.letter",
                _ => "label.text",
            };
            let span = span(prediction, prediction, &named);
            Judged::found(&item.choices[named.option], span, named.option == right, by)
        }
        None if refuses(prediction) => Judged::none(State::Refused, "label.refusal"),
        None => Judged::none(State::Unparsed, "label.unparsed"),
    })
}

/// Which option the reference is.
pub(super) fn right(options: &Options, reference: &str, labels: &[String]) -> Result<usize, Fault> {
    options.reference(reference).ok_or_else(|| Fault {
        key: "reference",
        expected: format!("one of the labels {labels:?}"),
        found: format!("{reference:?}"),
    })
}

/// Option letter by pattern: which of the letters A, B, C … the prediction gives, of as many as there are choices, by the marks
/// of [`judge`](super::judge) and in any case. The options' texts are not read.
pub fn judge_letter(item: &Item) -> Judged {
    let letters: Vec<String> = ('A'..='Z').map(String::from).take(item.choices.len()).collect();
    if letters.len() < item.choices.len() || letters.is_empty() {
        return Judged::error(
            "option_letter",
            format!("{} choices, expected 1 to 26", item.choices.len()),
        );
    }
    let text = || item.choices.iter().position(|c| c == item.answer);
    let letter = || {
        letters
            .iter()
            .position(|l| l.eq_ignore_ascii_case(item.answer.trim()))
    };
    let Some(right) = item
        .right
        .or_else(text)
        .or_else(letter)
        .filter(|r| *r < letters.len())
    else {
        let reason = format!(
            "the answer {:?} is none of the choices and no letter",
            item.answer
        );
        return Judged::error("option_letter", reason);
    };
    let Some(prediction) = item.prediction else {
        return Judged::none(State::Empty, "option_letter.no_prediction");
    };
    let wholes = Wholes::of(&letters);
    let options = Options::in_order(&letters, &wholes, "");
    let said = said(prediction);
    match options.read(said, refuses(said)) {
        Some(named) => {
            let span = span(prediction, said, &named);
            let correct = named.option == right;
            Judged::found(&item.choices[named.option], span, correct, "option_letter.letter")
        }
        None if refuses(said) => Judged::none(State::Refused, "option_letter.refusal"),
        None => Judged::none(State::Unparsed, "option_letter.unparsed"),
    }
}
