//! The whole prediction against the whole answer.
//!
//! | rule | the same |
//! |---|---|
//! | `verbatim` | character for character |
//! | `exact` | in lower case, white space as single spaces, without quotation marks around and punctuation behind |
//! | `normalised` | in words: also without all punctuation, articles, emphasis and differences of compatible characters |

use super::item::{Item, Judged, State};
use super::python;
use super::words::{normalise, Text};

/// Character for character.
pub fn judge_verbatim(item: &Item) -> Judged {
    whole(item, "verbatim", |p| Some(p == item.answer))
}

/// After `normalise`; nothing left is unparsed.
pub fn judge_exact(item: &Item) -> Judged {
    whole(item, "exact", |p| same(p, item.answer))
}

/// Word for word, without articles; no word is unparsed.
pub fn judge_normalised(item: &Item) -> Judged {
    let words = |text: &str| -> Vec<String> {
        let text = Text::new(text);
        let kept = text.folded_words().filter(|w| !["a", "an", "the"].contains(w));
        kept.map(str::to_owned).collect()
    };
    whole(item, "normalised", |p| {
        let own = words(p);
        (!own.is_empty()).then(|| own == words(item.answer))
    })
}

/// Whether two texts are the same after `normalise`; `None` where nothing is left of the prediction.
pub(super) fn same(prediction: &str, reference: &str) -> Option<bool> {
    let text = normalise(prediction);
    (!text.is_empty()).then(|| text == normalise(reference))
}

fn whole(item: &Item, by: &'static str, same: impl Fn(&str) -> Option<bool>) -> Judged {
    let Some(prediction) = item.prediction else {
        return Judged::none(State::Empty, by);
    };
    match same(prediction) {
        Some(correct) => {
            let text = prediction.trim();
            Judged::found(text, python::within(prediction, text), correct, by)
        }
        None => Judged::none(State::Unparsed, by),
    }
}
