//! How an item is worded: the card's template with the item's texts, its options as the card writes them; and the same item worded
//! otherwise, with its options in another order or with another paraphrase.

use super::names::{Format, Options};
use super::Card;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::path::Path;

/// The whole question, with the card's paraphrase of this number, from 0.
pub(crate) fn prompt<'a>(
    card: &Card,
    paraphrase: usize,
    choices: &[String],
    text: impl Fn(&str) -> Option<&'a str>,
) -> String {
    let chosen = card.prompt.pool.get(paraphrase).map_or("", String::as_str);
    let options = options(card, choices);
    // An open question of a set whose others have options.
    let template = match choices.is_empty() && card.prompt.template.contains("{options}") {
        true => "{question}",
        false => &card.prompt.template,
    };
    fill(template, |name| match name {
        "prompt" => Some(chosen),
        "options" => Some(&options),
        name => text(name),
    })
}

/// A template with its places filled, each once: a text that looks like a place stays as it is.
fn fill<'a>(template: &str, text: impl Fn(&str) -> Option<&'a str>) -> String {
    let (mut out, mut rest) = (String::new(), template);
    while let Some((before, behind)) = rest.split_once('{') {
        out.push_str(before);
        match behind
            .split_once('}')
            .and_then(|(name, next)| Some((text(name)?, next)))
        {
            Some((own, next)) => {
                out.push_str(own);
                rest = next;
            }
            None => {
                out.push('{');
                rest = behind;
            }
        }
    }
    out + rest
}

/// Options as they stand in a prompt.
fn options(card: &Card, choices: &[String]) -> String {
    let each = |separator: &str, one: &dyn Fn(usize, &String) -> String| {
        let all: Vec<String> = choices.iter().enumerate().map(|(i, c)| one(i, c)).collect();
        all.join(separator)
    };
    if card.official_format == Format::AirBench {
        // As its script prints them, those that are missing too.
        let missing = (choices.len()..4).map(|i| format!("\n{}. None", letter(i)));
        return each("\n", &|i, c| format!("{}. {c}", letter(i))) + &missing.collect::<String>();
    }
    match card.options {
        Options::NoOptions => String::new(),
        Options::LetteredInline => each(" ", &|i, c| {
            let stop = if c.ends_with(['.', '!', '?']) { "" } else { "." };
            format!("({}) {c}{stop}", letter(i))
        }),
        Options::LetteredLines => each("\n", &|i, c| format!("({}) {c}", letter(i))),
        Options::DashedLines => each("\n", &|_, c| format!(" - {c}.")),
    }
}

/// An option as a label of the manifest: with its letter where the prompt gives it one.
pub(crate) fn label(card: &Card, place: usize, choice: &str) -> String {
    match (card.official_format, card.options) {
        (Format::AirBench, _) => format!("{}. {choice}", letter(place)),
        (_, Options::LetteredInline | Options::LetteredLines) => format!("({}) {choice}", letter(place)),
        // Options that stand in a prompt as it is.
        (Format::Af2Manifest, _) => format!("({}) {choice}", letter(place)),
        _ => choice.to_owned(),
    }
}

/// The letter of an option by its place, from 0.
pub(crate) fn letter(place: usize) -> char {
    char::from(b'A' + (place % 26) as u8)
}

/// An item of an imported manifest, as far as its wording goes.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Worded {
    prompt: String,
    output: String,
    #[serde(default)]
    question: Option<String>,
    #[serde(default)]
    caption: Option<String>,
    #[serde(default)]
    hypothesis: Option<String>,
    #[serde(default)]
    label: Option<String>,
    /// Its own options, in the order in which they are shown.
    #[serde(default)]
    pub choices: Vec<String>,
    #[serde(default)]
    labels: Vec<String>,
}

/// The same item, worded otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reworded {
    pub prompt: String,
    pub output: String,
    pub labels: Vec<String>,
}

impl Worded {
    fn text(&self, name: &str) -> Option<&str> {
        match name {
            "question" => self.question.as_deref(),
            "caption" => self.caption.as_deref(),
            "hypothesis" => self.hypothesis.as_deref(),
            "label" => self.label.as_deref(),
            _ => None,
        }
    }

    fn by_template(&self, card: &Card, paraphrase: usize, choices: &[String]) -> String {
        prompt(card, paraphrase, choices, |name| self.text(name))
    }

    /// With a paraphrase of the card's, by its number, and its options in another order: at each place the number of the option that
    /// stands there; nothing for the order as it is.
    ///
    /// # Errors
    /// An item whose question the card's template does not give, where another paraphrase is wanted; one whose options are not found
    /// in its question.
    pub(crate) fn reworded(
        &self,
        card: &Card,
        paraphrase: usize,
        order: &[usize],
        place: (&Path, &str),
    ) -> Result<Reworded> {
        let choices: Vec<String> = match order.is_empty() {
            true => self.choices.clone(),
            false => order.iter().map(|from| self.choices[*from].clone()).collect(),
        };
        let by_template = self.by_template(card, card.prompt.chosen, &self.choices);
        let prompt = if by_template == self.prompt {
            self.by_template(card, paraphrase, &choices)
        } else if paraphrase != card.prompt.chosen {
            return Err(not_the_templates(card, place, &by_template, &self.prompt));
        } else {
            // A question that came whole from the owner's file.
            let found = self.replaced(card, &choices);
            found.ok_or_else(|| {
                let options = self.choices.join(" | ");
                let expected = format!("the options in the question, one after another: {options}");
                Error::data(place.0, place.1, expected, format!("{:?}", self.prompt))
            })?
        };
        // What stands behind the options, as none of them is right, keeps its place.
        let labels: Vec<String> = match order.is_empty() {
            true => self.labels.clone(),
            false => (self.labels.iter().enumerate())
                .map(|(at, own)| choices.get(at).map_or(own.clone(), |c| label(card, at, c)))
                .collect(),
        };
        let was = self.labels.iter().position(|l| *l == self.output);
        let is = was.map(|was| order.iter().position(|from| *from == was).unwrap_or(was));
        Ok(Reworded {
            prompt,
            output: is.and_then(|at| labels.get(at)).unwrap_or(&self.output).clone(),
            labels,
        })
    }

    /// The question with each of its options replaced where it stands.
    fn replaced(&self, card: &Card, choices: &[String]) -> Option<String> {
        let (mut out, mut at) = (String::new(), 0);
        for (i, (own, other)) in self.choices.iter().zip(choices).enumerate() {
            let whole = label(card, i, own);
            let begin = at + self.prompt.get(at..)?.find(&whole)? + whole.len() - own.len();
            out.push_str(self.prompt.get(at..begin)?);
            out.push_str(other);
            at = begin + own.len();
        }
        out.push_str(self.prompt.get(at..)?);
        Some(out)
    }
}

fn not_the_templates(card: &Card, (path, key): (&Path, &str), expected: &str, found: &str) -> Error {
    let expected = format!("the card's template, filled in: {expected:?}");
    Error::data(path, key, expected, format!("{found:?}")).hint(format!(
        "the questions of {} stand whole in the owner's file and have no other wording",
        card.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_once() {
        let text = |name: &str| match name {
            "question" => Some("Is {options} {x"),
            "options" => Some("(A) {question}"),
            _ => None,
        };
        assert_eq!(
            fill("{question}\n{options} {other} {", text),
            "Is {options} {x\n(A) {question} {other} {"
        );
    }

    fn worded(prompt: &str) -> Worded {
        let item = serde_json::json!({
            "prompt": prompt, "output": "(B) a cat", "question": "What is it?",
            "choices": ["a dog", "a cat", "a cow"], "labels": ["(A) a dog", "(B) a cat", "(C) a cow"],
        });
        serde_json::from_value(item).unwrap()
    }

    #[test]
    fn options_change_their_places_by_the_template_or_where_they_stand() {
        let card = crate::benchmark::Registry::built_in().card("muchomusic").unwrap();
        let place = (Path::new("manifest.json"), "data.0");
        for prompt in [
            "What is it? (A) a dog. (B) a cat. (C) a cow.",
            "Listen. What is it?\nOptions:\n(A) a dog\n(B) a cat\n(C) a cow\nAnswer:",
        ] {
            let item = worded(prompt);
            let other = item
                .reworded(&card, card.prompt.chosen, &[1, 2, 0], place)
                .unwrap();
            let swapped = prompt
                .replace("a dog", "1")
                .replace("a cat", "2")
                .replace("a cow", "3");
            let swapped = swapped
                .replace('1', "a cat")
                .replace('2', "a cow")
                .replace('3', "a dog");
            assert_eq!(other.prompt, swapped);
            assert_eq!(other.labels, ["(A) a cat", "(B) a cow", "(C) a dog"]);
            assert_eq!(other.output, "(A) a cat");
            let same = item
                .reworded(&card, card.prompt.chosen, &[0, 1, 2], place)
                .unwrap();
            assert_eq!(
                (same.prompt.as_str(), same.output.as_str()),
                (prompt, "(B) a cat")
            );
        }
        let e = worded("What is it?")
            .reworded(&card, card.prompt.chosen, &[1, 2, 0], place)
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("manifest.json: data.0: expected the options in the question"),
            "{e}"
        );
        let e = worded("What is it?")
            .reworded(&card, card.prompt.chosen + 1, &[], place)
            .unwrap_err()
            .to_string();
        assert!(e.contains("expected the card's template, filled in"), "{e}");
    }

    #[test]
    fn another_paraphrase_takes_the_place_of_the_chosen_one() {
        let card = crate::benchmark::Registry::built_in().card("clotho-v2").unwrap();
        assert!(card.prompt.pool.len() > 1);
        let chosen = prompt(&card, card.prompt.chosen, &[], |_| None);
        let item = serde_json::json!({"prompt": chosen, "output": "dog", "labels": ["dog", "rain"]});
        let item: Worded = serde_json::from_value(item).unwrap();
        let next = (card.prompt.chosen + 1) % card.prompt.pool.len();
        let other = item
            .reworded(&card, next, &[], (Path::new("m"), "data.0"))
            .unwrap();
        assert_ne!(other.prompt, chosen);
        assert!(other.prompt.contains(&card.prompt.pool[next]), "{}", other.prompt);
        assert_eq!(other.output, "dog");
    }
}
