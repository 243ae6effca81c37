//! How an item is worded: the card's template with the item's texts, its options as the card writes them.

use super::draft::Draft;
use super::manifest::letter;
use crate::benchmark::names::{Format, Options};
use crate::benchmark::Card;

/// The whole question.
pub(super) fn prompt(card: &Card, draft: &Draft) -> String {
    if let Some(prompt) = &draft.prompt {
        return prompt.clone();
    }
    let chosen = card
        .prompt
        .pool
        .get(card.prompt.chosen)
        .map_or("", String::as_str);
    let options = options(card, &draft.choices);
    // An open question of a set whose others have options.
    let template = match draft.choices.is_empty() && card.prompt.template.contains("{options}") {
        true => "{question}",
        false => &card.prompt.template,
    };
    fill(template, |name| match name {
        "prompt" => Some(chosen),
        "options" => Some(&options),
        name => draft.text(name),
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
pub(super) fn label(card: &Card, place: usize, choice: &str) -> String {
    match (card.official_format, card.options) {
        (Format::AirBench, _) => format!("{}. {choice}", letter(place)),
        (_, Options::LetteredInline | Options::LetteredLines) => format!("({}) {choice}", letter(place)),
        // Options that stand in a prompt as it is.
        (Format::Af2Manifest, _) => format!("({}) {choice}", letter(place)),
        _ => choice.to_owned(),
    }
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
}
