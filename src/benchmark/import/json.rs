//! JSON of other tools: what Python writes and JSON has not is mended and counted, and a name that stands twice in one object, of
//! which a map would lose one, is an error.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Reads a value; tells how often something was mended: `NaN` and `Infinity`, which become null, and escapes for half a character,
/// which become U+FFFD.
///
/// # Errors
/// What is wrong, with line and column.
pub(super) fn value(text: &str) -> Result<(Value, usize), String> {
    let strict = |text: &str| {
        let mut reader = serde_json::Deserializer::from_str(text);
        let value = Strict.deserialize(&mut reader)?;
        reader.end().map(|()| value)
    };
    match strict(text) {
        Ok(value) => Ok((value, 0)),
        Err(e) => match mend(text) {
            (_, 0) => Err(e.to_string()),
            (mended, times) => strict(&mended).map(|v| (v, times)).map_err(|e| e.to_string()),
        },
    }
}

/// A value in whose objects each name stands once.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict)? {
            all.push(value);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(Name(name)) = map.next_key()? {
            if all.contains_key(&*name) {
                let name = crate::error::short(&name);
                return Err(A::Error::custom(format!(
                    "the name {name:?} stands twice in one object"
                )));
            }
            let value = map.next_value_seed(Strict)?;
            all.insert(name.into_owned(), value);
        }
        Ok(Value::Object(all))
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The text without what is no JSON, and how often there was any.
fn mend(text: &str) -> (String, usize) {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at, mut times) = (String::new(), 0, 0, 0);
    let mut within = false;
    let mut replace = |from: &mut usize, at: usize, len: usize, by: &str| {
        out.push_str(&text[*from..at]);
        out.push_str(by);
        *from = at + len;
        times += 1;
    };
    while at < bytes.len() {
        let skip = match bytes[at] {
            b'"' => {
                within = !within;
                1
            }
            b'\\' if within => match (unit(text, at), unit(text, at + 6)) {
                (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
                (Some(0xD800..=0xDFFF), _) => {
                    replace(&mut copied, at, 6, "\\ufffd");
                    6
                }
                _ => 2,
            },
            b'-' | b'I' | b'N' if !within => {
                match WORDS.iter().find(|w| bytes[at..].starts_with(w.as_bytes())) {
                    Some(word) => {
                        replace(&mut copied, at, word.len(), "null");
                        word.len()
                    }
                    None => 1,
                }
            }
            _ => 1,
        };
        at += skip;
    }
    out.push_str(&text[copied..]);
    (out, times)
}

/// The code unit of an escape `\uXXXX`.
fn unit(text: &str, at: usize) -> Option<u16> {
    let escape = text.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(escape, 16).ok()
}

/// Reads any type; what [`value`] is for plain values.
pub(super) fn of<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_python_writes_is_mended_and_counted() {
        for (text, wanted, times) in [
            (r#"{"a": [1, 2.5, "NaN"]}"#, json!({"a": [1, 2.5, "NaN"]}), 0),
            (
                r#"[NaN, -Infinity, Infinity, "-Infinity"]"#,
                json!([null, null, null, "-Infinity"]),
                3,
            ),
            (r#""x\ud83dy""#, json!("x\u{fffd}y"), 1),
            (r#"["\ud83d\ude00", NaN]"#, json!(["😀", null]), 1),
            (r#"["\"NaN\\", NaN]"#, json!(["\"NaN\\", null]), 1),
        ] {
            assert_eq!(value(text).unwrap(), (wanted, times), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_told() {
        for (text, words) in [
            ("", "EOF"),
            ("{\"a\": 1, \"a\": 2}", "\"a\" stands twice"),
            ("{\"a\": 1, \"\\u0061\": 2}", "stands twice"),
            ("[1] x", "trailing"),
            ("[Nan]", "expected"),
            ("\"\\ud83", "EOF"),
        ] {
            let e = value(text).unwrap_err();
            assert!(e.contains(words), "{text}: {e}");
        }
        let deep = "[".repeat(100_000);
        assert!(value(&deep).unwrap_err().contains("recursion"));
    }
}
