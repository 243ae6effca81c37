//! CMM's `calculate_score.py`.
//!
//! Both sides stripped and in lower case, a prediction is right where the answer stands in its **first five characters**: "eyes"
//! is yes, "know" and "snow" are no. Perception accuracy (PA) is the share over answers with "yes" in their first five
//! characters whose prediction has it there too; hallucination resistance (HR) the same with "no", over the rest.

use super::item::{Item, Judged, State};
use super::python;
use super::record;
use crate::eval::json::Json;
use serde::Serialize;

const BY: &str = "cmm.first_five";
const SEEN: usize = 5;

/// In which of the two shares an item counts, and whether it is a hit there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Shares {
    /// The answer is yes.
    pub counts_in_pa: bool,
    /// The answer is no.
    pub counts_in_hr: bool,
    /// A right yes.
    pub pa_hit: bool,
    /// A right no.
    pub hr_hit: bool,
}

fn begins(text: &str) -> &str {
    &text[..python::nth(text, SEEN)]
}

/// PA and HR.
pub fn shares(answer: &str, prediction: &str) -> Shares {
    let (answer, prediction) = (
        python::lower(python::strip(answer)),
        python::lower(python::strip(prediction)),
    );
    let (answer, prediction) = (begins(&answer), begins(&prediction));
    let yes = answer.contains("yes");
    let no = !yes && answer.contains("no");
    Shares {
        counts_in_pa: yes,
        counts_in_hr: no,
        pa_hit: yes && prediction.contains("yes"),
        hr_hit: no && prediction.contains("no"),
    }
}

/// The rule on an item.
pub fn judge(item: &Item) -> Judged {
    let Some(prediction) = item.prediction else {
        return Judged::error(BY, "KeyError: 'pred'");
    };
    let stripped = python::strip(prediction);
    let offset = python::within(prediction, stripped).start;
    let lowered = python::lower(stripped);
    let text = begins(&lowered);
    let found = |word: &str| {
        let at = text.find(word)?;
        let span = python::unlowered(stripped, at..at + word.len());
        Some(offset + span.start..offset + span.end)
    };
    let answer = python::lower(python::strip(item.answer));
    if let Some(span) = found(&answer) {
        return Judged::found(answer, span, true, BY);
    }
    match (found("yes"), found("no")) {
        (Some(span), None) => Judged::found("yes", span, false, BY),
        (None, Some(span)) => Judged::found("no", span, false, BY),
        _ => Judged::none(State::Unparsed, BY),
    }
}

/// The rule on a line of the official file: `answer`, `pred`.
pub(crate) fn record(record: &Json) -> Judged {
    let read = |key| record::string(record::field(record, key)?, "strip");
    match read("answer").and_then(|answer| Ok((answer, read("pred")?))) {
        Ok((answer, prediction)) => judge(&Item {
            answer,
            prediction: Some(prediction),
            ..Item::default()
        }),
        Err(reason) => Judged::error("cmm.record", reason),
    }
}
