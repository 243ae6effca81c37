//! MuChoMusic's `extract_responses` and `compare_answers`.
//!
//! Of what stands behind the last "The correct answer is:",
//! 1. if exactly one of the capital letters A to D occurs in it **as a character anywhere** ("Because" holds a B), that is the
//!    choice;
//! 2. otherwise the first option, in their order, whose text in lower case is a part of it: an option within another one wins
//!    where it comes first;
//! 3. otherwise it is unanswered (the script's -1), and wrong.

use super::item::{Item, Judged, State};
use super::python;
use super::record;
use crate::eval::json::Json;
use std::borrow::Cow;

const PREFIX: &str = "The correct answer is:";
const LETTERS: [char; 4] = ['A', 'B', 'C', 'D'];

/// The rule on an item; [`Item::right`] is where `answer_orders` has its 0. Without that, it is the first choice that is the
/// answer's text.
pub fn judge(item: &Item) -> Judged {
    let named = || item.choices.iter().position(|c| c == item.answer);
    let Some(right) = item.right.or_else(named) else {
        return Judged::error("muchomusic", "the right answer is none of the choices");
    };
    let Some(prediction) = item.prediction else {
        return Judged::error("muchomusic", "KeyError: 'model_output'");
    };
    let Some((index, span, by)) = extract(prediction, item.choices) else {
        return Judged::none(State::Unparsed, "muchomusic.unanswered");
    };
    let answer = item
        .choices
        .get(index)
        .map_or_else(|| LETTERS[index].to_string(), String::clone);
    Judged::found(answer, span, index == right, by)
}

/// Which choice the text is, where it says so, and how that was found; `None` is the script's -1.
pub fn extract(
    prediction: &str,
    choices: &[String],
) -> Option<(usize, std::ops::Range<usize>, &'static str)> {
    let behind = prediction.rfind(PREFIX).map_or(0, |at| at + PREFIX.len());
    let output = python::strip(&prediction[behind..]);
    let offset = python::within(prediction, output).start;
    let mut first = [None; 4];
    for (at, byte) in output.bytes().enumerate() {
        if let b'A'..=b'D' = byte {
            first[usize::from(byte - b'A')].get_or_insert(at);
        }
    }
    let mut letters = (0..4).filter_map(|i| Some((i, first[i]?)));
    if let (Some((index, at)), None) = (letters.next(), letters.next()) {
        return Some((index, offset + at..offset + at + 1, "muchomusic.letter"));
    }
    let lowered = python::lower(output);
    let text = python::strip(&lowered);
    let start = python::within(&lowered, text).start;
    choices.iter().enumerate().find_map(|(index, choice)| {
        let choice = python::lower(choice);
        let choice = python::strip(&choice);
        let at = text.find(choice)? + start;
        let span = python::unlowered(output, at..at + choice.len());
        Some((
            index,
            offset + span.start..offset + span.end,
            "muchomusic.substring",
        ))
    })
}

/// The rule on a record of the official file: `answers`, `answer_orders`, `model_output`.
pub(crate) fn record(record: &Json) -> Judged {
    let found = try_record(record);
    found.unwrap_or_else(|reason| Judged::error("muchomusic.record", reason))
}

fn try_record(record: &Json) -> Result<Judged, String> {
    let prediction = record::string(record::field(record, "model_output")?, "split")?;
    let choices = record::walked(record::field(record, "answers")?, "lower")?;
    let choices: Vec<String> = choices.into_iter().map(Cow::into_owned).collect();
    let orders = record::field(record, "answer_orders")?;
    let right = orders
        .as_list()
        .and_then(|all| all.iter().position(|v| v.as_f64() == Some(0.0)));
    Ok(judge(&Item {
        prediction: Some(prediction),
        choices: &choices,
        right: Some(right.ok_or("ValueError: 0 is not in list")?),
        ..Item::default()
    }))
}
