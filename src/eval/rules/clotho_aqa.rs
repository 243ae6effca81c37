//! ClothoAQA as lmms-eval scores it: `exact_match` with `ignore_case` and `ignore_punctuation`.
//!
//! Equal in lower case and without the 32 ASCII punctuation characters. White space counts: "yes " is wrong. numpy, in whose
//! arrays the texts lie, drops NULs at their end.

use super::item::{Item, Judged, State};
use super::python;

const BY: &str = "clotho_aqa.exact_match";

/// Whether two texts are the same under the rule.
pub fn exact_match(prediction: &str, reference: &str) -> bool {
    let plain = |text: &str| {
        let mut text = python::lower(text).into_owned();
        text.retain(|c| !c.is_ascii_punctuation());
        text.truncate(text.trim_end_matches('\0').len());
        text
    };
    plain(prediction) == plain(reference)
}

/// The rule on an item.
pub fn judge(item: &Item) -> Judged {
    let Some(prediction) = item.prediction else {
        return Judged::none(State::Empty, "clotho_aqa.no_prediction");
    };
    let correct = exact_match(prediction, item.answer);
    Judged::found(prediction, 0..prediction.len(), correct, BY)
}
