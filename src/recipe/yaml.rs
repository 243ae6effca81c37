//! Typed YAML with errors that point: file, line, column, the line itself, and "did you mean".

use crate::error::{nearest, Error, Result};
use serde::de::DeserializeOwned;
use serde_yaml::Value;

/// Reads `text` as a `T`, with `key=value` overrides from the command line applied afterwards.
/// `file` is named in errors.
pub fn parse<T: DeserializeOwned>(text: &str, file: &str, overrides: &[String]) -> Result<T> {
    // First the file alone: its errors have places.
    let base: T = serde_yaml::from_str(text).map_err(|e| explain(&e, text, file))?;
    if overrides.is_empty() {
        return Ok(base);
    }
    let mut value: Value = serde_yaml::from_str(text).map_err(|e| explain(&e, text, file))?;
    let mut typed = base;
    for one in overrides {
        let wrong = |message: String| Error::Recipe {
            file: "command line".into(),
            line: None,
            message: format!("{one}: {message}"),
            hint: None,
        };
        let (key, new) = one
            .split_once('=')
            .ok_or_else(|| wrong("expected key=value".into()).hint("for example stages.0.steps=100"))?;
        let new: Value = serde_yaml::from_str(new).map_err(|e| wrong(e.to_string()))?;
        set(&mut value, key, new).map_err(wrong)?;
        typed = serde_yaml::from_value(value.clone()).map_err(|e| {
            let e2 = wrong(e.to_string());
            match suggestion(&e.to_string()) {
                Some(s) => e2.hint(s),
                None => e2,
            }
        })?;
    }
    Ok(typed)
}

/// Sets a dotted path; list elements go by index or by their `name`.
fn set(root: &mut Value, key: &str, new: Value) -> Result<(), String> {
    let mut at = root;
    for part in key.split('.') {
        if part.is_empty() {
            return Err("an empty part in the key".into());
        }
        at = match at {
            Value::Mapping(map) => map.entry(Value::String(part.into())).or_insert(Value::Null),
            Value::Sequence(list) => {
                let place = part.parse::<usize>().ok().or_else(|| {
                    list.iter()
                        .position(|v| v.get("name").and_then(Value::as_str) == Some(part))
                });
                let length = list.len();
                place
                    .and_then(|i| list.get_mut(i))
                    .ok_or(format!("no element `{part}` in a list of {length}"))?
            }
            Value::Null => {
                *at = Value::Mapping(Default::default());
                match at {
                    Value::Mapping(map) => map.entry(Value::String(part.into())).or_insert(Value::Null),
                    _ => return Err("a mapping was expected".into()),
                }
            }
            _ => return Err(format!("`{part}` lies below a plain value")),
        };
    }
    *at = new;
    Ok(())
}

/// A serde_yaml error as ours, with the line it points at and a caret under the column.
fn explain(e: &serde_yaml::Error, text: &str, file: &str) -> Error {
    let full = e.to_string();
    let line = e.location().map(|l| (l.line(), l.column()));
    let mut message = full.split(" at line ").next().unwrap_or(&full).to_owned();
    if let Some((l, c)) = line {
        if let Some(source) = text.lines().nth(l.saturating_sub(1)) {
            let source: String = source.chars().take(160).collect();
            let caret = " ".repeat(c.saturating_sub(1).min(160));
            message = format!(
                "{message}\n  {l} | {source}\n  {} | {caret}^",
                " ".repeat(l.to_string().len())
            );
        }
    }
    Error::Recipe {
        file: file.into(),
        line,
        message,
        hint: suggestion(&full),
    }
}

/// From "unknown field `x`, expected one of `a`, `b`": did you mean.
fn suggestion(message: &str) -> Option<String> {
    let start = message
        .find("unknown field `")
        .or(message.find("unknown variant `"))?;
    let mut quoted = message[start..].split('`').skip(1).step_by(2);
    let word = quoted.next()?;
    nearest(word, quoted).map(|n| format!("did you mean `{n}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        stages: Vec<Inner>,
    }
    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code)]
        name: String,
        steps: usize,
    }

    const TEXT: &str = "stages:\n  - name: one\n    steps: 5\n";

    #[test]
    fn an_unknown_key_is_placed_and_a_near_one_named() {
        let e = parse::<Outer>(&TEXT.replace("steps", "stepps"), "r.yaml", &[])
            .unwrap_err()
            .to_string();
        assert!(e.starts_with("r.yaml:3:5: "), "{e}");
        assert!(e.contains("did you mean `steps`?"), "{e}");
        assert!(e.contains("3 |     stepps: 5"), "{e}");
    }

    #[test]
    fn a_wrong_type_is_placed() {
        let e = parse::<Outer>(&TEXT.replace('5', "many"), "r.yaml", &[])
            .unwrap_err()
            .to_string();
        assert!(
            e.starts_with("r.yaml:3:12: stages[0].steps: invalid type: string \"many\""),
            "{e}"
        );
    }

    #[test]
    fn overrides_reach_lists_by_index_and_by_name() {
        for key in ["stages.0.steps", "stages.one.steps"] {
            let r: Outer = parse(TEXT, "r.yaml", &[format!("{key}=7")]).unwrap();
            assert_eq!(r.stages[0].steps, 7);
        }
        let e = parse::<Outer>(TEXT, "r.yaml", &["stages.0.stps=7".into()])
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("command line: stages.0.stps=7") && e.contains("did you mean `steps`?"),
            "{e}"
        );
        assert!(parse::<Outer>(TEXT, "r.yaml", &["stages.two.steps=7".into()]).is_err());
    }
}
