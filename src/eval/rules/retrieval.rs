//! Label retrieval in a space of text embeddings: the paper's rule for its foundational benchmarks (Pengi's protocol).
//!
//! The prediction and every label, in its template, are embedded by a text tower; the answer is the label whose embedding has the
//! largest cosine with the prediction's, the first of equals. The embeddings come from elsewhere, as plain values in a [`Space`];
//! what is here is what is done with them. Such a rule always finds an answer: "punk metal" is the label metal where rock is right.

use super::item::{Item, Judged, State};
use super::python;
pub use super::space::{argmax, cosine, mean_direction, nearest, Nearest, Space};
use super::words::normalise;

/// Where a label belongs in its template.
pub const PLACE: &str = "{label}";

/// A label's text in a template: the template with the label in place of each [`PLACE`].
///
/// # Errors
/// A template without one, which would be the same text for every label.
pub fn fill(template: &str, label: &str) -> Result<String, String> {
    match template.contains(PLACE) {
        true => Ok(template.replace(PLACE, label)),
        false => Err(format!(
            "a template with {PLACE} where the label belongs, found {template:?}"
        )),
    }
}

/// The label nearest to an item's prediction; none where the item has no space or no prediction.
pub fn nearest_label(item: &Item) -> Option<Nearest> {
    let space = item.space?;
    space.nearest(item.prediction?, space.labels(item.choices))
}

/// The rule on an item. A text that says nothing is no answer, whatever it is near to.
pub fn judge(item: &Item) -> Judged {
    let Some(space) = item.space else {
        return Judged::error("clap_label", "no embeddings of labels and predictions were given");
    };
    let labels = space.labels(item.choices);
    let Some(right) = right(labels, item.answer) else {
        let reason = match labels.len() {
            0 => "no labels: neither the card nor the item has some".to_owned(),
            n => format!("the answer {:?} is none of the {n} labels", item.answer),
        };
        return Judged::error("clap_label", reason);
    };
    let Some(prediction) = item.prediction else {
        return Judged::none(State::Empty, "clap_label.no_prediction");
    };
    if prediction.chars().all(python::is_space) {
        return Judged::none(State::Empty, "clap_label.blank");
    }
    match nearest_label(item) {
        Some(near) => Judged::found(
            &labels[near.place],
            0..prediction.len(),
            near.place == right,
            "clap_label.nearest",
        ),
        None => Judged::error(
            "clap_label",
            "this text has no embedding, or one that is no number",
        ),
    }
}

/// Which label an answer is: as it stands, or but for case, `_` and punctuation around it.
fn right(labels: &[String], answer: &str) -> Option<usize> {
    let plain = |text: &str| normalise(&text.replace('_', " "));
    let alike = || {
        let answer = plain(answer);
        labels.iter().position(|label| plain(label) == answer)
    };
    labels.iter().position(|label| label == answer).or_else(alike)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_a_place_for_its_label() {
        assert_eq!(
            fill("this is a sound of {label}", "rain").unwrap(),
            "this is a sound of rain"
        );
        assert!(fill("a sound", "rain").is_err());
    }

    fn space(shared: bool) -> Space {
        let labels = [("metal", [1.0, 0.0]), ("rock", [0.0, 1.0]), ("pop", [-1.0, 0.0])];
        let texts = [("punk metal", [0.8, 0.6]), (" ", [1.0, 0.0]), ("?", [0.0, 0.0])];
        let own = |(text, v): (&str, [f64; 2])| (text.to_owned(), v.to_vec());
        Space::new(labels.map(own).to_vec(), shared, texts.map(own).to_vec())
    }

    #[test]
    fn the_nearest_label_is_the_answer() {
        let space = space(true);
        let judge = |prediction, answer| {
            judge(&Item {
                prediction,
                answer,
                space: Some(&space),
                ..Item::default()
            })
        };
        let found = judge(Some("punk metal"), "rock");
        assert_eq!(
            (found.state, found.answer.as_deref()),
            (State::Answered, Some("metal"))
        );
        assert_eq!((found.correct, found.span), (false, Some(0..10)));
        assert!(judge(Some("punk metal"), "_Metal.").correct);
        assert_eq!(judge(Some(" "), "metal").state, State::Empty);
        assert_eq!(judge(None, "metal").state, State::Empty);
        for (prediction, answer) in [("?", "metal"), ("new", "metal"), ("punk metal", "jazz")] {
            let found = judge(Some(prediction), answer);
            assert_eq!(
                (found.state, found.correct),
                (State::Error, false),
                "{prediction}"
            );
            assert!(found.reason.is_some());
        }
    }

    #[test]
    fn an_items_own_choices_are_its_labels() {
        let space = space(false);
        let choices = ["pop", "rock"].map(String::from);
        let item = Item {
            choices: &choices,
            prediction: Some("punk metal"),
            answer: "rock",
            space: Some(&space),
            ..Item::default()
        };
        let near = nearest_label(&item).unwrap();
        assert_eq!((near.place, near.cosine), (1, 0.6));
        assert!((near.margin.unwrap() - 1.4).abs() < 1e-12);
        assert!(super::judge(&item).correct);
        let unknown = ["jazz"].map(String::from);
        let item = Item {
            choices: &unknown,
            answer: "jazz",
            ..item
        };
        assert_eq!(super::judge(&item).state, State::Error);
    }
}
