//! A judge's reply: marks, or what is wrong with it.

use super::prompt::Asked;
use serde_json::{Map, Value};

/// So many braces of a reply are looked behind.
const MOST_OBJECTS: usize = 200;

/// The marks of a reply, in the order of the criteria.
///
/// The reply is a JSON object with every criterion, whatever else it has; where it is more than that, the one such object that stands
/// somewhere in it, in a fence of code or in a sentence. A mark is a number, or a text that is nothing but a number ("4"). Keys may
/// have capitals.
///
/// # Errors
/// In words for the judge: no object, several that differ, a criterion that is missing, a mark that is no number or not on its scale.
pub fn read(reply: &str, criteria: &[Asked]) -> Result<Vec<f64>, String> {
    if reply.trim().is_empty() {
        return Err("it is empty".into());
    }
    let ours = |object: &Map<String, Value>| criteria.iter().any(|c| get(object, &c.name).is_some());
    let mut found: Vec<Result<Vec<f64>, String>> = Vec::new();
    let (mut rest, mut looked) = (reply, 0);
    while let Some(at) = rest.find('{') {
        looked += 1;
        if looked > MOST_OBJECTS {
            break;
        }
        let mut stream = serde_json::Deserializer::from_str(&rest[at..]).into_iter::<Map<String, Value>>();
        match stream.next() {
            Some(Ok(object)) if ours(&object) => {
                let marks = marks(&object, criteria);
                if !found.contains(&marks) {
                    found.push(marks);
                }
                rest = &rest[at + stream.byte_offset()..];
            }
            // What is inside of another object may be it.
            _ => rest = &rest[at + 1..],
        }
    }
    match found.len() {
        0 => Err("it holds no JSON object with the marks".into()),
        1 => found.remove(0),
        n => Err(format!("it holds {n} JSON objects with different marks")),
    }
}

fn get<'o>(object: &'o Map<String, Value>, name: &str) -> Option<&'o Value> {
    let near = || {
        object
            .iter()
            .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
    };
    object.get(name).or_else(|| near().map(|(_, value)| value))
}

fn marks(object: &Map<String, Value>, criteria: &[Asked]) -> Result<Vec<f64>, String> {
    let mark = |c: &Asked| {
        let value = get(object, &c.name).ok_or_else(|| format!("it lacks \"{}\"", c.name))?;
        let number = match value {
            Value::Number(n) => n.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let shown = || crate::error::short(value);
        let Some(mark) = number.filter(|n: &f64| n.is_finite()) else {
            return Err(format!("\"{}\" is {}, expected {}", c.name, shown(), c.range()));
        };
        let listed = c.marks.is_empty() || c.marks.iter().any(|m| (m - mark).abs() < 1e-9);
        let fits = (c.low..=c.high).contains(&mark) && (!c.whole || mark.fract() == 0.0) && listed;
        match fits {
            true => Ok(mark),
            false => Err(format!("\"{}\" is {}, expected {}", c.name, shown(), c.range())),
        }
    };
    criteria.iter().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, whole: bool, marks: &[f64]) -> Asked {
        Asked {
            name: name.into(),
            about: String::new(),
            low: 1.0,
            high: 5.0,
            whole,
            marks: marks.to_vec(),
        }
    }

    #[test]
    fn marks_are_read_wherever_the_object_stands() {
        let criteria = [asked("clarity", true, &[]), asked("overall", false, &[])];
        for reply in [
            r#"{"clarity": 4, "overall": 3.5}"#,
            r#"  {"overall": 3.5, "clarity": 4.0, "why": "so {far}"} "#,
            r#"{"Clarity": "4", "OVERALL ": " 3.5 "}"#,
            "Here you are:\n```json\n{\"clarity\": 4,\n \"overall\": 3.5}\n```\nDone.",
            "I weigh {this} and {\"that\": 1}: {\"clarity\": 4, \"overall\": 3.5}",
            r#"{"marks": {"clarity": 4, "overall": 3.5}}"#,
            r#"{"clarity": 4, "overall": 3.5} as I said {"clarity": 4, "overall": 3.5}"#,
        ] {
            assert_eq!(read(reply, &criteria), Ok(vec![4.0, 3.5]), "{reply}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_nothing_is_made_up() {
        let criteria = [asked("clarity", true, &[]), asked("overall", false, &[])];
        for (reply, says) in [
            ("", "empty"),
            ("4", "no JSON object"),
            ("clarity: 4, overall: 3", "no JSON object"),
            (r#"{"clarity": 4, "overall": 3.5"#, "no JSON object"),
            (r#"{"clarity": 4}"#, "lacks \"overall\""),
            (
                r#"{"clarity": 6, "overall": 3}"#,
                "\"clarity\" is 6, expected a whole number from 1 to 5",
            ),
            (r#"{"clarity": 4.5, "overall": 3}"#, "\"clarity\" is 4.5"),
            (r#"{"clarity": 0, "overall": 3}"#, "\"clarity\" is 0"),
            (r#"{"clarity": "4/5", "overall": 3}"#, "\"clarity\" is \"4/5\""),
            (r#"{"clarity": true, "overall": 3}"#, "\"clarity\" is true"),
            (r#"{"clarity": null, "overall": 3}"#, "\"clarity\" is null"),
            (r#"{"clarity": "NaN", "overall": 3}"#, "\"clarity\" is \"NaN\""),
            (
                r#"{"clarity": 4, "overall": 3} or {"clarity": 4, "overall": 2}"#,
                "2 JSON objects",
            ),
        ] {
            let e = read(reply, &criteria).unwrap_err();
            assert!(e.contains(says), "{reply}: {e}");
        }
        let listed = [asked("rubric_1", false, &[1.0, 2.5, 5.0])];
        assert_eq!(read(r#"{"rubric_1": 2.5}"#, &listed), Ok(vec![2.5]));
        assert!(read(r#"{"rubric_1": 2}"#, &listed)
            .unwrap_err()
            .contains("one of 1, 2.5, 5"));
        // Many braces are no work.
        assert!(read(&"{".repeat(1 << 20), &criteria).is_err());
    }
}
