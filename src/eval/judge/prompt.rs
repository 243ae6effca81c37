//! What a judge is asked.

use super::items::JudgeItem;
use crate::benchmark::{Field, ItemMark, Piece, Protocol};
use crate::error::{Error, Result};
use crate::generate::thinking;
use crate::llm::{Message, Role, Schema};
use serde_json::{json, Map, Value};

/// More rubrics than any item has.
const MOST_RUBRICS: usize = 64;
/// Whole numbers are listed for a server that holds a judge to a schema, where they are so few.
const MOST_LISTED: f64 = 20.0;

/// A thing that is marked, of one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Its key in the reply.
    pub name: String,
    /// What it means.
    pub about: String,
    /// The lowest mark.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// Whether there is nothing between whole numbers.
    pub whole: bool,
    /// All marks that there are, where they are few.
    pub marks: Vec<f64>,
}

impl Asked {
    /// In words.
    pub(super) fn range(&self) -> String {
        match (self.marks.as_slice(), self.whole) {
            ([], true) => format!("a whole number from {} to {}", self.low, self.high),
            ([], false) => format!("a number from {} to {}", self.low, self.high),
            (marks, _) => format!(
                "one of {}",
                marks.iter().map(f64::to_string).collect::<Vec<_>>().join(", ")
            ),
        }
    }

    fn schema(&self) -> Value {
        let kind = if self.whole { "integer" } else { "number" };
        let few = self.whole && self.high - self.low <= MOST_LISTED;
        let listed: Vec<Value> = match self.marks.as_slice() {
            [] if few => (self.low as i64..=self.high as i64).map(Value::from).collect(),
            marks if self.whole => marks.iter().map(|m| json!(*m as i64)).collect(),
            marks => marks.iter().map(|m| json!(m)).collect(),
        };
        match listed.is_empty() {
            true => json!({"type": kind}),
            false => json!({"type": kind, "enum": listed}),
        }
    }
}

/// What is marked of an item.
pub(super) fn criteria(protocol: &Protocol, item: &JudgeItem) -> Result<Vec<Asked>> {
    let of = |name: &str, about: &str| Asked {
        name: name.to_owned(),
        about: about.to_owned(),
        low: protocol.scale.low,
        high: protocol.scale.high,
        whole: protocol.scale.whole,
        marks: Vec::new(),
    };
    if protocol.pairs {
        return Ok(vec![
            of("first", "the first answer"),
            of("second", "the second answer"),
        ]);
    }
    let Some(key) = &protocol.rubric else {
        return Ok(protocol.criteria.iter().map(|c| of(&c.name, &c.about)).collect());
    };
    let wrong = |place: String, expected: &str, found: &dyn std::fmt::Display| {
        let item = crate::error::short(&item.id);
        Error::data(
            format!("item {item}"),
            place,
            expected,
            crate::error::short(found),
        )
        .hint("--items FILE takes what the predictions lack from the official file")
    };
    let list = match item.record.get(key) {
        Some(Value::Array(list)) if (1..=MOST_RUBRICS).contains(&list.len()) => list,
        Some(other) => return Err(wrong(key.clone(), "a list of rubrics", other)),
        None => return Err(wrong(key.clone(), "a list of rubrics", &"none")),
    };
    let each = list.iter().enumerate().map(|(i, rubric)| {
        let text = |key: &str| {
            rubric
                .get(key)
                .and_then(Value::as_str)
                .map(str::trim)
                .filter(|t| !t.is_empty())
        };
        let place = format!("{key}.{i}");
        let (Some(name), Some(point)) = (text("name"), text("scoring_point")) else {
            return Err(wrong(place, "name and scoring_point", rubric));
        };
        let marks = marks(rubric.get("choices").unwrap_or(&Value::Null));
        let (Some(low), Some(high)) = (marks.first().copied(), marks.last().copied()) else {
            return Err(wrong(
                place + ".choices",
                "the marks that there are",
                rubric.get("choices").unwrap_or(&Value::Null),
            ));
        };
        let note = text("note").map_or(String::new(), |note| format!(" ({note})"));
        Ok(Asked {
            name: format!("rubric_{}", i + 1),
            about: format!("{name}: {point}{note}"),
            low,
            high,
            whole: marks.iter().all(|m| m.fract() == 0.0),
            marks,
        })
    });
    each.collect()
}

/// The numbers of a rubric's choices: a list of them, of texts that begin with them, an object under them, or a text with them in it.
/// At least two, of which the highest is above 0; else none.
fn marks(choices: &Value) -> Vec<f64> {
    let of_text = |text: &str| {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        text[..end].trim_end_matches('.').parse::<f64>().ok()
    };
    let of = |value: &Value| match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => of_text(text.trim()),
        Value::Object(one) => one.get("score").and_then(Value::as_f64),
        _ => None,
    };
    let mut all: Vec<Option<f64>> = match choices {
        Value::Array(list) => list.iter().map(of).collect(),
        Value::Object(all) => all.keys().map(|key| of_text(key.trim())).collect(),
        Value::String(text) => text
            .split([',', '/', ';', '|'])
            .map(|t| of_text(t.trim()))
            .collect(),
        _ => Vec::new(),
    };
    all.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    all.dedup();
    let all: Option<Vec<f64>> = all.into_iter().collect();
    all.filter(|all| all.len() > 1 && all.iter().all(|m| *m >= 0.0 && m.is_finite()))
        .unwrap_or_default()
}

/// What a reply must look like, in words.
pub(super) fn form(criteria: &[Asked]) -> String {
    let keys = criteria.iter().map(|c| format!("\"{}\": {}", c.name, c.range()));
    format!(
        "Reply with one JSON object and nothing else: {{{}}}.",
        keys.collect::<Vec<_>>().join(", ")
    )
}

pub(super) fn schema(protocol: &Protocol, criteria: &[Asked]) -> Schema {
    let properties: Map<String, Value> = criteria.iter().map(|c| (c.name.clone(), c.schema())).collect();
    let names: Vec<&str> = criteria.iter().map(|c| c.name.as_str()).collect();
    Schema {
        name: protocol.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
        schema: json!({"type": "object", "properties": properties, "required": names, "additionalProperties": false}),
    }
}

/// The first messages about an item. `swapped`: of a pair the model's answer stands second.
pub(super) fn messages(
    protocol: &Protocol,
    item: &JudgeItem,
    criteria: &[Asked],
    swapped: bool,
) -> Result<Vec<Message>> {
    let lacking = |field: Field, found: &str| {
        let id = crate::error::short(&item.id);
        let e = Error::data(
            format!("item {id}"),
            field.name(),
            "what the judge is shown",
            found,
        );
        e.hint("--items FILE takes what the predictions lack from the official file or an imported manifest")
    };
    let need = |field, text: Option<String>| {
        text.filter(|t| !t.trim().is_empty())
            .ok_or_else(|| lacking(field, "nothing"))
    };
    let mut text = String::new();
    let pieces = protocol
        .pieces()
        .map_err(|e| Error::data(&protocol.name, "prompt", "fields in braces", e))?;
    for piece in pieces {
        let field = match piece {
            Piece::Text(own) => {
                text.push_str(own);
                continue;
            }
            Piece::Field(field) => field,
        };
        let (first, second) = match swapped {
            false => (&item.prediction, &item.reference),
            true => (&item.reference, &item.prediction),
        };
        let own = match field {
            Field::Question => need(field, Some(item.question.clone()))?,
            Field::Reference => need(field, Some(item.reference.clone()))?,
            // A model that says nothing is judged for it.
            Field::Prediction => item.prediction.clone(),
            Field::First => first.clone(),
            Field::Second => second.clone(),
            Field::Options => {
                let lettered = item
                    .options
                    .iter()
                    .zip('A'..='Z')
                    .map(|(o, letter)| format!("({letter}) {o}"));
                need(field, Some(lettered.collect::<Vec<_>>().join("\n")))?
            }
            Field::Caption => need(field, item.text(&["caption"]))?,
            Field::Events => need(field, item.text(&["timestamp_events", "events"]))?,
            Field::Thinking => {
                let own = item.text(&["thinking_prediction"]);
                need(field, own.or_else(|| thinking::split(&item.prediction).thinking))?
            }
            Field::Criteria => {
                let each = criteria
                    .iter()
                    .map(|c| format!("- {}: {} ({})", c.name, c.about, c.range()));
                each.collect::<Vec<_>>().join("\n")
            }
            Field::Form => form(criteria),
        };
        text.push_str(own.trim());
    }
    Ok(vec![
        Message::of(Role::System, protocol.system.trim()),
        Message::user(text.trim()),
    ])
}

/// What an item gets of its marks.
pub(super) fn mark(protocol: &Protocol, criteria: &[Asked], marks: &[f64], swapped: bool) -> Option<f64> {
    if protocol.pairs {
        return marks.get(usize::from(swapped)).copied();
    }
    match protocol.item {
        ItemMark::Mean => crate::metrics::mean(marks),
        ItemMark::Overall => {
            let at = criteria.iter().position(|c| c.name == "overall")?;
            marks.get(at).copied()
        }
        ItemMark::Share => Some(marks.iter().sum::<f64>() / criteria.iter().map(|c| c.high).sum::<f64>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rubrics_marks_are_read_in_several_forms_and_never_guessed() {
        for (choices, expected) in [
            (json!([0, 0.5, 1]), vec![0.0, 0.5, 1.0]),
            (json!(["2: all", "0: none", "1: half"]), vec![0.0, 1.0, 2.0]),
            (json!({"0": "no", "1": "yes"}), vec![0.0, 1.0]),
            (json!("0/1/2"), vec![0.0, 1.0, 2.0]),
            (json!([{"score": 0, "text": "no"}, {"score": 3}]), vec![0.0, 3.0]),
            (json!(["yes", "no"]), vec![]),
            (json!([1]), vec![]),
            (json!(null), vec![]),
            (json!([-1, 1]), vec![]),
        ] {
            assert_eq!(marks(&choices), expected, "{choices}");
        }
    }
}
