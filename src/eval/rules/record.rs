//! Fields of a record in a benchmark's own prediction file, with the errors that the official script would end with.

use serde_json::Value;

/// What Python calls the type of a JSON value.
fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// A field, or Python's `KeyError`.
pub(super) fn field<'a>(record: &'a Value, key: &str) -> Result<&'a Value, String> {
    record.get(key).ok_or_else(|| format!("KeyError: '{key}'"))
}

/// A string, or Python's `AttributeError` on the method that the script calls first.
pub(super) fn string<'a>(value: &'a Value, method: &str) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| {
        format!(
            "AttributeError: '{}' object has no attribute '{method}'",
            python_type(value)
        )
    })
}

/// The values that a loop walks over: a list's, or a string's characters.
pub(super) fn walked(value: &Value, method: &str) -> Result<Vec<String>, String> {
    match value {
        Value::Array(all) => all.iter().map(|v| Ok(string(v, method)?.to_owned())).collect(),
        Value::String(text) => Ok(text.chars().map(String::from).collect()),
        Value::Object(map) => Ok(map.keys().cloned().collect()),
        other => Err(format!(
            "TypeError: '{}' object is not iterable",
            python_type(other)
        )),
    }
}

/// Whether a dictionary could have it as a key.
pub(super) fn hashable(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(_) | Value::Object(_) => {
            Err(format!("TypeError: unhashable type: '{}'", python_type(value)))
        }
        _ => Ok(()),
    }
}

/// A value as Python prints it in a `KeyError`.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(b) => if *b { "True" } else { "False" }.into(),
        Value::String(text) if text.contains('\'') && !text.contains('"') => format!("\"{text}\""),
        Value::String(text) => format!("'{text}'"),
        other => other.to_string(),
    }
}
