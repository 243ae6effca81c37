//! How results that were made again differ from those that were there.

use crate::error::{Error, Result};
use crate::eval::scoring::VERSION;
use crate::run::scored::Scored;
use serde_json::Value;
use std::path::Path;

/// Differences that are told one by one.
const MOST: usize = 10;

pub(super) struct Told {
    pub differ: bool,
    pub text: String,
}

/// Between the file, which is `before`, and `after`. Where another af2 has written it, only values that both have.
pub(super) fn differences(file: &Path, before: &Scored, after: &Scored) -> Result<Told> {
    let bytes = std::fs::read(file).map_err(|e| Error::io(file, e))?;
    let (shown, n) = (file.display(), after.items.len());
    let new = after.json()?;
    if bytes == new {
        let text = format!("{shown}: {n} items, the same byte for byte");
        return Ok(Told { differ: false, text });
    }
    let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(|e| Error::io(file, e.into()));
    let (old, new) = (value(&bytes)?, value(&new)?);
    let same_af2 = before.af2.as_deref() == Some(VERSION);
    let mut looked = Looked {
        all_keys: same_af2,
        count: 0,
        first: Vec::new(),
    };
    looked.at("", &old, &new);
    let by = match (&before.af2, same_af2) {
        (_, true) => String::new(),
        (Some(other), false) => format!("; af2 {other} has written it, and {VERSION} is this one"),
        (None, false) => "; an af2 before versions were written down has written it".to_owned(),
    };
    let text = match looked.count {
        0 if same_af2 => format!("{shown}: {n} items, the same in all values, written differently"),
        0 => format!("{shown}: {n} items, the same in all values that both have{by}"),
        count => {
            let of = if count == 1 {
                "value differs"
            } else {
                "values differ"
            };
            let more = match count.saturating_sub(MOST) {
                0 => String::new(),
                more => format!("\n  and {more} more"),
            };
            format!(
                "{shown}: {count} {of} from those made again{by}\n  {}{more}",
                looked.first.join("\n  ")
            )
        }
    };
    Ok(Told {
        differ: looked.count > 0,
        text,
    })
}

struct Looked {
    /// Whether a key that one of them alone has is a difference.
    all_keys: bool,
    count: usize,
    first: Vec<String>,
}

impl Looked {
    fn at(&mut self, place: &str, old: &Value, new: &Value) {
        let inside = |key: &str| match place.is_empty() {
            true => key.to_owned(),
            false => format!("{place}.{key}"),
        };
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                for (key, value) in old {
                    match new.get(key) {
                        Some(other) => self.at(&inside(key), value, other),
                        None if self.all_keys => self.tell(&inside(key), Some(value), None),
                        None => {}
                    }
                }
                let wanted = self.all_keys;
                for (key, value) in new.iter().filter(|(key, _)| wanted && !old.contains_key(*key)) {
                    self.tell(&inside(key), None, Some(value));
                }
            }
            (Value::Array(old), Value::Array(new)) => {
                for (i, pair) in old.iter().zip(new).enumerate() {
                    self.at(&inside(&i.to_string()), pair.0, pair.1);
                }
                if old.len() != new.len() {
                    let (old, new) = (Value::from(old.len()), Value::from(new.len()));
                    self.tell(&inside("length"), Some(&old), Some(&new));
                }
            }
            (old, new) if old != new => self.tell(place, Some(old), Some(new)),
            _ => {}
        }
    }

    fn tell(&mut self, place: &str, old: Option<&Value>, new: Option<&Value>) {
        self.count += 1;
        if self.first.len() < MOST {
            let shown = |v: Option<&Value>| {
                let text: String = v.map_or("nothing".to_owned(), |v| v.to_string());
                match text.char_indices().nth(60) {
                    Some((at, _)) => format!("{}…", &text[..at]),
                    None => text,
                }
            };
            self.first.push(format!(
                "{place}: the file has {}, made again {}",
                shown(old),
                shown(new)
            ));
        }
    }
}
