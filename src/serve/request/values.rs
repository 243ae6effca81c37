//! Values in a request, in the words of a refusal.

use crate::serve::sound::shown;
use serde_json::{Map, Value};

/// What kind of value.
pub(super) fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value in a message: itself where it is short.
pub(super) fn found(v: &Value) -> String {
    match v {
        Value::String(text) => shown(text),
        Value::Array(_) | Value::Object(_) if !empty(v) => kind(v).to_owned(),
        other => other.to_string(),
    }
}

/// A list or an object without anything in it.
pub(super) fn empty(v: &Value) -> bool {
    v.as_array().is_some_and(Vec::is_empty) || v.as_object().is_some_and(Map::is_empty)
}
