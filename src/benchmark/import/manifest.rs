//! The reference's own manifests, with or without a split and its path: questions stand whole in them, and options in the questions.

use super::draft::{id, need, need_words, Context, Draft, Drafts};
use super::report::Report;
use super::row::{text, Row};
use super::sounds::Wanted;
use crate::benchmark::wording::letter;
use serde_json::{Map, Value};

pub(super) fn read(
    rows: &[Row],
    beside: &Map<String, Value>,
    context: &Context,
    report: &mut Report,
) -> Drafts {
    let folder = ["split_path", "dataset_path"]
        .iter()
        .find_map(|k| text(beside.get(*k)?))
        .unwrap_or_default();
    if let Some(total) = beside
        .get("total_num")
        .and_then(Value::as_u64)
        .filter(|t| *t != rows.len() as u64)
    {
        report.notes.push(format!(
            "total_num says {total} and there are {} items",
            rows.len()
        ));
    }
    // What the card puts behind the options.
    let template = &context.card.prompt.template;
    let behind = template.split_once("{options}").map_or("", |(_, behind)| behind);
    let mut all = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let name = need_words(row, &["name", "path"], "missing_field", report);
        let prompt = need_words(row, &["prompt"], "empty_question", report);
        let output = need(row, &["output"], report);
        let (Some(name), Some(prompt), Some(output)) = (name, prompt, output) else {
            continue;
        };
        let id = match &row.key {
            Some(key) => key.clone().into(),
            None => id(row, &["id"], number),
        };
        // The owner's folder tells between files of one name.
        let wanted = match folder.is_empty() {
            true => Wanted::named(name),
            false => Wanted {
                names: vec![format!("{folder}/{name}")],
                begins: None,
            },
        };
        let mut draft = Draft::of(row, id, wanted).answered(output.trim());
        for key in ["duration", "audio_start"] {
            let seconds = row
                .fields
                .get(key)
                .and_then(Value::as_f64)
                .filter(|s| s.is_finite() && *s >= 0.0);
            if let Some(seconds) = seconds {
                draft.more.insert(key.into(), seconds.into());
            }
        }
        if let Some((question, choices)) = options(prompt.strip_suffix(behind.trim_end()).unwrap_or(&prompt))
        {
            draft.texts.push(("question", question));
            let right = output.trim();
            let lettered = |i: usize, c: &String| right.eq_ignore_ascii_case(&format!("({}) {c}", letter(i)));
            let place = choices
                .iter()
                .enumerate()
                .position(|(i, c)| lettered(i, c) || c == right);
            match place {
                Some(place) => draft.answer = Some(choices[place].clone()),
                None => report.mild(
                    &row.place,
                    "answer_absent_from_choices",
                    "output",
                    "one of the options in the prompt",
                    format!("{right:?}"),
                ),
            }
            draft.choices = choices;
        } else {
            draft.texts.push(("question", prompt.clone()));
        }
        draft.prompt = Some(prompt);
        all.push(draft);
    }
    all.into()
}

/// A question and its options, `(A) x. (B) y.` in one line or in several.
fn options(prompt: &str) -> Option<(String, Vec<String>)> {
    let (question, mut rest) = prompt.split_once("(A) ")?;
    let mut choices = Vec::new();
    for place in 1..26 {
        let (own, next) = match rest.split_once(&format!("({}) ", letter(place))) {
            Some((own, next)) => (own, Some(next)),
            None => (rest, None),
        };
        let own = own.trim();
        choices.push(own.strip_suffix('.').unwrap_or(own).trim().to_owned());
        match next {
            Some(next) => rest = next,
            None => break,
        }
    }
    (choices.len() > 1 && choices.iter().all(|c| !c.is_empty()))
        .then(|| (question.trim().to_owned(), choices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_out_of_a_prompt() {
        let (question, choices) =
            options("What is it?\n(A) a dog. (B) coin (dropping). (C) 3.5 cm.").unwrap();
        assert_eq!(
            (question.as_str(), choices),
            (
                "What is it?",
                vec!["a dog".into(), "coin (dropping)".into(), "3.5 cm".into()]
            )
        );
        let (_, choices) = options("Which?\n(A) x\n(B) y").unwrap();
        assert_eq!(choices, ["x", "y"]);
        for prompt in ["What is it?", "(A) alone", "What (A) . (B) b."] {
            assert_eq!(options(prompt), None, "{prompt}");
        }
    }
}
