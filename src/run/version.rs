//! Which version of its format a file is of.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Of a file that says none.
const FIRST: u64 = 1;

/// Something as it is written, the version before it.
#[derive(Serialize)]
pub(super) struct Versioned<'a, T> {
    pub version: u64,
    #[serde(flatten)]
    pub value: &'a T,
}

pub(super) fn first() -> u64 {
    FIRST
}

#[derive(Deserialize)]
struct Said {
    #[serde(default = "first")]
    version: u64,
}

/// Fails where an object of JSON says a version that is newer than `known`; `place` says where it stands in the file. What is
/// no such object whoever reads it tells.
pub(super) fn check(json: &[u8], known: u64, path: &Path, place: &str) -> Result<()> {
    let said = serde_json::from_slice::<Said>(json).map_or(FIRST, |s| s.version);
    if said <= known {
        return Ok(());
    }
    let expected = format!("version {known} of this file or an older one");
    let e = Error::data(path, place, expected, format!("version {said}"));
    Err(e.hint("a newer af2 has written it: that one reads it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_one_and_none_are_read_and_a_newer_one_is_refused() {
        let of = |json: &str| check(json.as_bytes(), 2, Path::new("a.jsonl"), "line 7");
        for fine in [
            "{}",
            r#"{"version": 1}"#,
            r#"{"a": {"version": 9}, "version": 2}"#,
            "[",
            "7",
        ] {
            assert!(of(fine).is_ok(), "{fine}");
        }
        let e = of(r#"{"version": 3, "unheard": [1, 2]}"#).unwrap_err();
        assert_eq!(e.exit_code(), 6);
        let text = e.to_string();
        for piece in [
            "a.jsonl: line 7: ",
            "version 2 of this file or an older one",
            "found version 3",
            "newer af2",
        ] {
            assert!(text.contains(piece), "{text}");
        }
    }
}
