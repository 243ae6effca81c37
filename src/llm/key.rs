//! A server's key: sent to the server, and nowhere else.

use crate::error::{Error, Result};
use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// No key is longer.
const MOST_BYTES: u64 = 8192;
/// A shorter one is a word that servers without keys are given ("EMPTY"), and may stand in any answer.
const SHORTEST_SECRET: usize = 8;
/// So much of a key in front of `***` is known for one that a server has masked.
const MASKED: usize = 3;

/// What a server knows its user by. It can be used and not be read: `Debug` shows `[key]`, and nothing writes it.
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("[key]")
    }
}

impl Key {
    /// The first of these variables of the environment that is set and not empty.
    ///
    /// # Errors
    /// One that cannot be a key; its variable is named.
    pub fn of_variables(names: &[&str]) -> Result<Option<Self>> {
        for name in names {
            if let Some(value) = std::env::var_os(name).filter(|v| !v.is_empty()) {
                let text = value.to_str().unwrap_or("\u{fffd}");
                return Self::of(text, name).map(Some);
            }
        }
        Ok(None)
    }

    /// A file's only line. Others of its group, and all others, must not be able to read it.
    ///
    /// # Errors
    /// A file that cannot be read, that others may read, or that holds no key.
    pub fn of_file(path: &Path) -> Result<Self> {
        let text = crate::fsutil::read_text_within(path, MOST_BYTES)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path)
                .map_err(|e| Error::io(path, e))?
                .permissions()
                .mode()
                & 0o777;
            if mode & 0o077 != 0 {
                let found = format!("the mode {mode:03o}");
                let e = Error::data(
                    path,
                    "mode",
                    "a key's file that its owner alone may read (600 or 400)",
                    found,
                );
                return Err(e.hint(format!("chmod 600 {}", path.display())));
            }
        }
        Self::of(&text, &path.display().to_string())
    }

    /// What cannot stand in a header is no key; of a wrong one nothing is told but where it is from.
    pub(super) fn of(text: &str, from: &str) -> Result<Self> {
        let text = text.trim();
        let expected = "a key: one word of visible ASCII";
        let found = match text {
            "" => "nothing",
            t if t.len() as u64 > MOST_BYTES => "too many characters",
            t if t.bytes().all(|b| b.is_ascii_graphic()) => return Ok(Key(t.to_owned())),
            t if t.contains(char::is_whitespace) => "several words or lines",
            _ => "other characters",
        };
        Err(Error::data(from, "key", expected, found))
    }

    /// For the one header that carries it.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// A message without the key, also where a server shows its two ends only.
    pub(super) fn out_of_message(&self, text: &str) -> String {
        let text = text.replace(&self.0, "[key]");
        let ends = |c: char| c.is_whitespace() || "\"'`,;()<>{}".contains(c);
        let mut shown = String::with_capacity(text.len());
        for word in text.split_inclusive(ends) {
            let own = word.trim_end_matches(ends);
            let kept = match self.is_masked(own) {
                true => "[key]",
                false => own,
            };
            shown.push_str(kept);
            shown.push_str(&word[own.len()..]);
        }
        shown
    }

    fn is_masked(&self, word: &str) -> bool {
        let Some(at) = word
            .find("**")
            .or_else(|| word.find('…'))
            .or_else(|| word.find("..."))
        else {
            return false;
        };
        let (begin, end) = (
            &word[..at],
            word.trim_start_matches(|c| !"*….".contains(c))
                .trim_start_matches(['*', '…', '.']),
        );
        let end = end.trim_end_matches(['.', ':']);
        let begins = begin.len() >= MASKED && self.0.starts_with(begin);
        begins || (end.len() >= MASKED && self.0.ends_with(end))
    }

    /// An answer's text without the key. One that is too short to be a secret may be a word of the answer, and stays.
    pub(super) fn out_of_answer<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.0.len() >= SHORTEST_SECRET && text.contains(&self.0) {
            true => Cow::Owned(text.replace(&self.0, "[key]")),
            false => Cow::Borrowed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::of(" sk-proj-0123456789abcdef\n", "here").unwrap()
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(
            format!("{:?} {:#?}", key(), Some(key())),
            "[key] Some(\n    [key],\n)"
        );
    }

    #[test]
    fn what_a_server_shows_of_it_is_taken_out() {
        for (said, shown) in [
            ("bad key sk-proj-0123456789abcdef.", "bad key [key]."),
            (
                "Incorrect API key provided: sk-proj-****cdef. See…",
                "Incorrect API key provided: [key] See…",
            ),
            ("key 'sk-p...cdef' is wrong", "key '[key]' is wrong"),
            ("no such model: ***", "no such model: ***"),
            ("wait... then ask", "wait... then ask"),
            ("\"****cdef\"", "\"[key]\""),
        ] {
            assert_eq!(key().out_of_message(said), shown);
        }
        assert_eq!(key().out_of_answer("so sk-proj-0123456789abcdef"), "so [key]");
        let empty = Key::of("EMPTY", "here").unwrap();
        assert_eq!(empty.out_of_answer("the room is EMPTY"), "the room is EMPTY");
        assert_eq!(empty.out_of_message("key EMPTY"), "key [key]");
    }

    #[test]
    fn what_is_no_key_is_told_without_it() {
        for (text, found) in [
            ("", "nothing"),
            (" \n", "nothing"),
            ("two words", "several words"),
            ("sécret", "other characters"),
            ("a\u{7}b", "other characters"),
        ] {
            let e = Key::of(text, "AF2_API_KEY").unwrap_err().to_string();
            assert!(e.starts_with("AF2_API_KEY: key: ") && e.contains(found), "{e}");
            assert!(text.trim().is_empty() || !e.contains(text), "{e}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "sk-secret-of-a-file\n").unwrap();
        for (mode, fine) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o644, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = Key::of_file(&path);
            assert_eq!(found.is_ok(), fine, "{mode:o}");
            if let Err(e) = found {
                assert!(
                    e.to_string().contains(&format!("{mode:03o}")) && !e.to_string().contains("secret"),
                    "{e}"
                );
            }
        }
    }
}
