//! Plain values by their keys, where a file may say things in several places.

use crate::error::{nearest, short, Error, Result};
use serde_yaml::{Mapping, Value};
use std::ops::RangeInclusive;

/// A file whose mappings are read key by key; its path is for errors.
pub(crate) struct Fields(pub String);

impl Fields {
    /// A key whose value is not what it should be.
    pub(crate) fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        let found = serde_yaml::to_string(found).unwrap_or_default();
        let found = short(&found);
        Error::recipe(&self.0, format!("{key}: expected {expected}, found {found}"))
    }

    /// A part that is a mapping; nothing where it is missing or empty.
    pub(crate) fn section<'m>(&self, map: &'m Mapping, name: &str) -> Result<Option<&'m Mapping>> {
        match map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Mapping(part)) => Ok(Some(part)),
            Some(other) => Err(self.wrong(name, "a mapping of keys to values", other)),
        }
    }

    /// Fails at a key that a section does not have.
    pub(crate) fn only(&self, section: &str, map: &Mapping, keys: &[&str]) -> Result<()> {
        for key in map.keys() {
            let name = key.as_str().unwrap_or_default();
            if !keys.contains(&name) {
                let shown = short(&serde_yaml::to_string(key).unwrap_or_default());
                let e = Error::recipe(&self.0, format!("{section}: unknown key `{shown}`"));
                return Err(match nearest(name, keys.iter().copied()) {
                    Some(near) => e.hint(format!("did you mean `{near}`?")),
                    None => e.hint(format!("known are {}", keys.join(", "))),
                });
            }
        }
        Ok(())
    }

    pub(crate) fn size(
        &self,
        map: Option<&Mapping>,
        key: &str,
        bounds: RangeInclusive<i64>,
    ) -> Result<Option<i64>> {
        self.size_as(map, key, key, bounds)
    }

    pub(crate) fn size_as(
        &self,
        map: Option<&Mapping>,
        key: &str,
        shown: &str,
        bounds: RangeInclusive<i64>,
    ) -> Result<Option<i64>> {
        let Some(value) = map.and_then(|m| m.get(key)).filter(|v| !v.is_null()) else {
            return Ok(None);
        };
        match value.as_i64().filter(|n| bounds.contains(n)) {
            Some(size) => Ok(Some(size)),
            None => {
                let expected = format!("a number from {} to {}", bounds.start(), bounds.end());
                Err(self.wrong(shown, &expected, value))
            }
        }
    }
}
