//! Fields of a record in a benchmark's own prediction file, with the errors that the official script would end with.

use crate::eval::json::Json;
use std::borrow::Cow;

/// What Python calls the type of a JSON value.
fn python_type(value: &Json) -> &'static str {
    match value {
        Json::Null => "NoneType",
        Json::Bool(_) => "bool",
        Json::Number(n) if n.is_f64() => "float",
        Json::Number(_) => "int",
        Json::Text(_) => "str",
        Json::List(_) => "list",
        Json::Object(_) => "dict",
    }
}

/// A field, or Python's `KeyError`.
pub(super) fn field<'a, 't>(record: &'a Json<'t>, key: &str) -> Result<&'a Json<'t>, String> {
    record.get(key).ok_or_else(|| format!("KeyError: '{key}'"))
}

/// A string, or Python's `AttributeError` on the method that the script calls first.
pub(super) fn string<'a>(value: &'a Json, method: &str) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| {
        format!(
            "AttributeError: '{}' object has no attribute '{method}'",
            python_type(value)
        )
    })
}

/// The values that a loop walks over: a list's, or a string's characters.
pub(super) fn walked<'a>(value: &'a Json, method: &str) -> Result<Vec<Cow<'a, str>>, String> {
    match value {
        Json::List(all) => all.iter().map(|v| Ok(string(v, method)?.into())).collect(),
        Json::Text(text) => Ok(text.chars().map(|c| String::from(c).into()).collect()),
        Json::Object(all) => Ok(all.iter().map(|(key, _)| Cow::from(&**key)).collect()),
        other => Err(format!(
            "TypeError: '{}' object is not iterable",
            python_type(other)
        )),
    }
}

/// Whether a dictionary could have it as a key.
pub(super) fn hashable(value: &Json) -> Result<(), String> {
    match value {
        Json::List(_) | Json::Object(_) => {
            Err(format!("TypeError: unhashable type: '{}'", python_type(value)))
        }
        _ => Ok(()),
    }
}

/// A value as Python prints it in a `KeyError`.
pub(super) fn shown(value: &Json) -> String {
    match value {
        Json::Null => "None".into(),
        Json::Bool(b) => if *b { "True" } else { "False" }.into(),
        Json::Text(text) if text.contains('\'') && !text.contains('"') => format!("\"{text}\""),
        Json::Text(text) => format!("'{text}'"),
        other => other.to_value().to_string(),
    }
}
