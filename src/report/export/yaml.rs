//! A JSON value as block YAML that every reader takes alike, be it of YAML 1.1 or 1.2: strings are always quoted and hold no
//! character that must not stand in a stream, floats always have a point and a signed exponent.

use serde_json::Value;
use std::fmt::Write as _;

/// Lines, each with its end.
pub(super) fn block(value: &Value) -> String {
    let mut out = String::new();
    for line in lines(value) {
        out += &line;
        out.push('\n');
    }
    out
}

fn lines(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) if !map.is_empty() => map
            .iter()
            .flat_map(|(key, value)| {
                let key = if plain(key) { key.clone() } else { quoted(key) };
                match nested(value) {
                    false => vec![format!("{key}: {}", scalar(value))],
                    true => {
                        let within = lines(value).into_iter().map(|l| format!("  {l}"));
                        std::iter::once(format!("{key}:")).chain(within).collect()
                    }
                }
            })
            .collect(),
        Value::Array(all) if !all.is_empty() => all
            .iter()
            .flat_map(|value| {
                let within = lines(value).into_iter().enumerate();
                within.map(|(i, l)| format!("{}{l}", if i == 0 { "- " } else { "  " }))
            })
            .collect(),
        other => vec![scalar(other)],
    }
}

fn nested(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(all) => !all.is_empty(),
        _ => false,
    }
}

/// A key that is a text without quotes: words such as `no` and `on`, which YAML 1.1 takes for booleans, are none.
fn plain(key: &str) -> bool {
    let word = key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let truth = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    word && key.starts_with(|c: char| c.is_ascii_alphabetic())
        && !truth.contains(&key.to_lowercase().as_str())
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Number(n) => match n.as_f64().filter(|_| n.is_f64()) {
            Some(float) => number(float),
            None => n.to_string(),
        },
        // `{}` and `[]` too.
        other => other.to_string(),
    }
}

/// The shortest digits that are this number, as Rust and Python find them.
fn number(float: f64) -> String {
    let text = format!("{float:?}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{digits}{point}e{sign}{exponent}")
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' => {
                out.push(c)
            }
            '\u{10000}'.. => out.push(c),
            // Controls, DEL, NEL, U+2028, U+2029, the byte order mark, U+FFFE and U+FFFF.
            c => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_read_back_as_it_was() {
        let hostile = "\u{0}\u{7f}\u{85}\u{feff}\u{fffe}\u{ffff}\u{2028}\r\n\t\"\\😀 # : - é <script>";
        let value = json!({
            "model-index": [{"name": hostile, "results": [{"a": 1, "b": []}, {"c": {}}, [1, [2]]]}],
            "no": ["yes", "2026-11-27", "1e3", "", "~", "12:30:45"],
            "1": {"tiny": 1e-7, "large": 1.5e300, "score": 0.5649536647009267, "none": null, "true": true},
            hostile: -3,
        });
        let text = block(&value);
        let read: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(read, value, "{text}");
        assert!(text.contains("1.0e-7") && text.contains("1.5e+300"), "{text}");
        assert!(text.contains("\"no\":\n"), "{text}");
        assert!(text.bytes().all(|b| b >= b' ' || b == b'\n'), "{text:?}");
    }
}
