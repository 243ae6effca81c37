//! The JSON object of an item, field by field: with what is no JSON in it, and with the names that stand twice, of which a map
//! would lose one.

use super::problems::Problems;
use super::python::{depth, mend, Odd};
use crate::error::Error;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Lists and objects within each other.
const MOST_DEEP: usize = 100;

/// A JSON object's names and values in the order in which they are written.
pub(super) struct Pairs<'a, V>(pub Vec<(Cow<'a, str>, V)>);

/// A text, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'de: 'a, 'a, V: Deserialize<'de>> Deserialize<'de> for Pairs<'a, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for InOrder<V> {
            type Value = Pairs<'de, V>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de, V>, A::Error> {
                let mut all = Vec::new();
                while let Some(Text(key)) = map.next_key()? {
                    all.push((key, map.next_value()?));
                }
                Ok(Pairs(all))
            }
        }
        deserializer.deserialize_map(InOrder(std::marker::PhantomData))
    }
}

/// An item's fields, those that somebody reads.
#[derive(Default)]
pub(super) struct Fields {
    values: Map<String, Value>,
    odd: HashMap<String, Odd>,
}

impl Fields {
    /// Reads an object. Only fields that `wanted` names are kept; of the others only the names are looked at.
    pub(crate) fn read(text: &[u8], wanted: &[&str], place: &str, problems: &mut Problems) -> Option<Self> {
        let deep = depth(text);
        if deep > MOST_DEEP {
            problems.add(
                place,
                "a JSON object",
                &format!("{deep} lists and objects within each other"),
            );
            return None;
        }
        let (mended, odd) = mend(text, wanted).unzip();
        let bytes = mended.as_deref().unwrap_or(text);
        let pairs: Pairs<&RawValue> = match serde_json::from_slice(bytes) {
            Ok(pairs) => pairs,
            Err(e) => {
                match serde_json::from_slice::<Value>(bytes) {
                    Ok(other) => {
                        problems.add(place, "an object with name, prompt and output", &shown(&other))
                    }
                    Err(_) => problems.add(place, "a JSON object", &format!("{:?}", e.to_string())),
                }
                return None;
            }
        };
        let mut fields = Fields::default();
        let mut seen = HashSet::new();
        for (key, raw) in pairs.0 {
            if !seen.insert(key.clone()) {
                problems.add(&format!("{place}.{key}"), "each field once", "it twice");
                continue;
            }
            if !wanted.contains(&&*key) {
                continue;
            }
            match serde_json::from_str(raw.get()) {
                Ok(value) => drop(fields.values.insert(key.into_owned(), value)),
                Err(e) => problems.add(&format!("{place}.{key}"), "JSON", &format!("{:?}", e.to_string())),
            }
        }
        fields.odd = odd.unwrap_or_default();
        Some(fields)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// What is odd about a field.
    pub(crate) fn odd(&self, key: &str) -> Option<&Odd> {
        self.odd.get(key)
    }

    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.odd.remove(key);
        self.values.insert(key.to_owned(), value);
    }

    /// Gives a field the value of another, and what is odd about it.
    pub(crate) fn copy(&mut self, from: &str, to: &str) {
        if let Some(value) = self.values.get(from).cloned() {
            self.values.insert(to.to_owned(), value);
        }
        if let Some(odd) = self.odd.get(from).cloned() {
            self.odd.insert(to.to_owned(), odd);
        }
    }

    /// A field in words.
    pub(crate) fn found(&self, key: &str) -> String {
        match (self.odd.get(key), self.values.get(key)) {
            (Some(Odd::Number(word)), _) => (*word).to_owned(),
            (Some(Odd::Half(escape)), _) => format!("half a character, {escape}"),
            (None, Some(value)) => shown(value),
            (None, None) => "nothing".to_owned(),
        }
    }

    /// Says that a field is not what it should be.
    pub(crate) fn wrong(&self, place: &str, key: &str, expected: &str, problems: &mut Problems) {
        let e = Error::data(problems.path, format!("{place}.{key}"), expected, self.found(key));
        problems.push(match self.odd(key) {
            Some(Odd::Half(_)) => e.hint(
                "a text that was cut in the middle of a character, or decoded with errors='surrogateescape': write it again",
            ),
            _ => e,
        });
    }
}

/// The beginning of a value as JSON.
pub(super) fn shown(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

/// Looks whether a text is an item without making one: what passes is read by [`super::item::parse`] without a problem. A
/// manifest of millions of items is checked like this when it is opened.
pub(super) fn passes(text: &[u8]) -> bool {
    let shallow = text.iter().filter(|b| matches!(b, b'{' | b'[')).count() < MOST_DEEP;
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    shallow && serde_json::from_str::<Lean>(text).is_ok_and(|l| l.is_item())
}

/// An item's fields, looked at and not kept. A name that stands twice does not pass, and is left to [`Fields::read`].
#[derive(Default)]
struct Lean {
    seen: u8,
    duration: Option<f64>,
    audio_start: Option<f64>,
    chance: Option<f64>,
}

const NAME: u8 = 1;
const PATH: u8 = 2;
const PROMPT: u8 = 4;
const OUTPUT: u8 = 8;

impl Lean {
    fn is_item(&self) -> bool {
        let seconds = |s: Option<f64>| s.is_none_or(|s| s.is_finite() && s >= 0.0);
        self.seen & (NAME | PATH) != 0
            && self.seen & (PROMPT | OUTPUT) == PROMPT | OUTPUT
            && seconds(self.duration)
            && seconds(self.audio_start)
            && self.chance.is_none_or(|c| (0.0..=1.0).contains(&c))
    }
}

impl<'de> Deserialize<'de> for Lean {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Lean;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an item")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lean, A::Error> {
                let mut lean = Lean::default();
                let (mut once, mut others) = (0u8, Vec::new());
                while let Some(Text(key)) = map.next_key()? {
                    let bit = match &*key {
                        "name" => NAME,
                        "path" => PATH,
                        "prompt" => PROMPT,
                        "output" => OUTPUT,
                        "duration" => 16,
                        "audio_start" => 32,
                        "labels" => 64,
                        "chance" => 128,
                        _ => 0,
                    };
                    let twice = match bit {
                        0 => {
                            let twice = others.contains(&key);
                            others.push(key.clone());
                            twice
                        }
                        bit => once & bit != 0,
                    };
                    if twice {
                        return Err(serde::de::Error::custom("a field twice"));
                    }
                    once |= bit;
                    let there = match bit {
                        NAME | PATH => map.next_value::<Option<Text>>()?.is_some(),
                        PROMPT | OUTPUT => map.next_value::<Text>().map(|_| true)?,
                        16 => {
                            lean.duration = map.next_value()?;
                            true
                        }
                        32 => {
                            lean.audio_start = map.next_value()?;
                            true
                        }
                        64 => map.next_value::<Option<Vec<Text>>>()?.is_some(),
                        128 => {
                            lean.chance = map.next_value()?;
                            true
                        }
                        _ => map.next_value::<IgnoredAny>().map(|_| false)?,
                    };
                    lean.seen |= bit * u8::from(there);
                }
                Ok(lean)
            }
        }
        deserializer.deserialize_map(Look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_read_and_what_stands_twice_does_not_pass() {
        let item = |more: &str| format!(r#"{{"name": "a", "prompt": "p", "output": "o"{more}}}"#);
        for (more, good) in [
            ("", true),
            (r#", "x": 1e999, "y": "\ud83d", "deep": [[{}]]"#, true),
            (r#", "labels": null, "duration": null, "path": null"#, true),
            (r#", "output": "again""#, false),
            (r#", "x": 1, "x": 1"#, false),
            (r#", "\u0078": 1, "x": 1"#, false),
            (r#", "duration": NaN"#, false),
            (r#", "chance": 2"#, false),
        ] {
            assert_eq!(passes(item(more).as_bytes()), good, "{more}");
        }
    }
}
