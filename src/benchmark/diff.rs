//! Which values of two cards differ.

use super::card::Card;
use serde_json::Value;
use std::collections::BTreeMap;

/// A value that is another one, or stands in one card alone.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// Such as `splits.test.items.value`.
    pub key: String,
    /// In the first card.
    pub a: Option<String>,
    /// In the second one.
    pub b: Option<String>,
}

/// All of them, in the order of a card's keys.
pub fn differences(a: &Card, b: &Card) -> Vec<Difference> {
    let [(order, a), (more, b)] = [a, b].map(leaves);
    let mut keys = order;
    keys.extend(more.into_iter().filter(|key| !a.contains_key(key)));
    // One that only the second has stands beside its like.
    let top: Vec<String> = keys.iter().map(|key| first(key).to_owned()).collect();
    let place = |key: &String| top.iter().position(|t| t == first(key));
    keys.sort_by_key(place);
    let told = keys.into_iter().filter(|key| a.get(key) != b.get(key));
    told.map(|key| Difference {
        a: a.get(&key).cloned(),
        b: b.get(&key).cloned(),
        key,
    })
    .collect()
}

fn first(key: &str) -> &str {
    key.split(['.', '[']).next().unwrap_or(key)
}

/// The plain values by their keys, and the keys in their order. What is `null` is not there.
fn leaves(card: &Card) -> (Vec<String>, BTreeMap<String, String>) {
    let (mut order, mut values) = (Vec::new(), BTreeMap::new());
    let whole = serde_json::to_value(card).unwrap_or_default();
    walk(String::new(), &whole, &mut |key, value| {
        order.push(key.clone());
        values.insert(key, value);
    });
    (order, values)
}

fn walk(key: String, value: &Value, leaf: &mut impl FnMut(String, String)) {
    let below = |part: &str| match key.is_empty() {
        true => part.to_owned(),
        false => format!("{key}.{part}"),
    };
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (part, value) in map {
                walk(below(part), value, leaf);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            let named = ["name", "by", "class", "model", "row"];
            let mut seen = Vec::new();
            for (i, value) in list.iter().enumerate() {
                let name = named.iter().find_map(|key| value.get(key)?.as_str());
                // Two numbers of one model.
                let part = match name.filter(|name| !seen.contains(name)) {
                    Some(name) => format!("{key}[{name}]"),
                    None => format!("{key}[{i}]"),
                };
                seen.extend(name);
                walk(part, value, leaf);
            }
        }
        Value::String(text) => leaf(key, text.clone()),
        Value::Array(list) if list.is_empty() => {}
        value => leaf(key, value.to_string()),
    }
}
