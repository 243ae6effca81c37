//! Files that are not there under the name that a manifest has, but nearly: with Windows' separators, in another Unicode form
//! or letter case, with white space around.

use crate::error::Error;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use unicode_normalization::UnicodeNormalization;

/// Names of folders that are read in all, over a whole run: hints are not worth more.
const MOST_NAMES: usize = 2_000_000;

/// The same error with a hint where the missing file is there under another name.
pub(super) fn hinted(e: Error) -> Error {
    let missing = match &e {
        Error::Io { path, source, .. } if source.kind() == ErrorKind::NotFound => path.clone(),
        _ => return e,
    };
    match hint(&missing) {
        Some(hint) => e.hint(hint),
        None => e,
    }
}

fn hint(missing: &Path) -> Option<String> {
    let text = missing.to_str()?;
    if text.contains('\\') {
        let there = PathBuf::from(text.replace('\\', "/"));
        return Some(match there.exists() {
            true => format!(
                "Windows' separator: write / and not \\ in the manifest's names; {} is there",
                there.display()
            ),
            false => "\\ is Windows' separator: write / in the manifest's names".to_owned(),
        });
    }
    let (there, how) = nearly(missing)?;
    let what = match how {
        How::Form => "in another Unicode form, as Macs write names: `convmv -r --notest -f utf8 -t utf8 --nfc FOLDER` renames the files, or write the manifest's names as the disk has them",
        How::Case => "in other letters, large or small",
        How::Space => "but for white space around it",
    };
    Some(format!("{} is there: the same name {what}", there.display()))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Space,
    Form,
    Case,
}

/// The file whose path differs in what people do not see, and the greatest difference.
fn nearly(missing: &Path) -> Option<(PathBuf, How)> {
    let (mut there, mut how) = (PathBuf::new(), How::Space);
    for part in missing.components() {
        let whole = there.join(part);
        let Component::Normal(name) = part else {
            there = whole;
            continue;
        };
        if whole.symlink_metadata().is_ok() {
            there = whole;
            continue;
        }
        let name = name.to_str()?;
        let folder = match there.as_os_str().is_empty() {
            true => Path::new("."),
            false => &there,
        };
        let found = listed(folder, name)?;
        let own = found.to_str()?;
        let form = |s: &str| s.nfc().collect::<String>();
        how = how.max(
            match (form(own) == form(name), form(own.trim()) == form(name.trim())) {
                (true, _) => How::Form,
                (false, true) => How::Space,
                (false, false) => How::Case,
            },
        );
        there.push(found);
    }
    there.exists().then_some((there, how))
}

/// The names of the folder that was looked at last, as they are seen, and how many were read so far.
static LAST: Mutex<Option<Listing>> = Mutex::new(None);

struct Listing {
    folder: PathBuf,
    names: HashMap<String, OsString>,
    read: usize,
}

/// The name in a folder that looks like this one.
fn listed(folder: &Path, name: &str) -> Option<OsString> {
    let mut last = LAST.lock().unwrap_or_else(|e| e.into_inner());
    let known = last.as_ref().is_some_and(|l| l.folder == folder);
    if !known {
        let before = last.take().map_or(0, |l| l.read);
        let mut listing = Listing {
            folder: folder.to_path_buf(),
            names: HashMap::new(),
            read: before,
        };
        let left = MOST_NAMES.saturating_sub(before);
        for file in std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .take(left)
        {
            listing.read += 1;
            let name = file.file_name();
            if let Some(seen) = name.to_str().map(seen) {
                listing.names.entry(seen).or_insert(name);
            }
        }
        *last = Some(listing);
    }
    last.as_ref()?.names.get(&seen(name)).cloned()
}

/// A name as people see it.
fn seen(name: &str) -> String {
    name.trim().nfc().collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nearly_is_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let sub = folder.path().join("Sub");
        std::fs::create_dir(&sub).unwrap();
        for name in ["e\u{301}te\u{301}.wav", "LOUD.wav", "a.wav"] {
            std::fs::write(sub.join(name), "").unwrap();
        }
        let hint_of = |name: &str| {
            let path = folder.path().join(name);
            hinted(Error::io(&path, ErrorKind::NotFound.into())).to_string()
        };
        for (name, words) in [
            ("Sub/\u{e9}t\u{e9}.wav", "another Unicode form"),
            ("Sub/loud.wav", "in other letters"),
            ("sub/a.wav", "in other letters"),
            ("Sub/a.wav\n", "white space around it"),
            ("Sub\\a.wav", "Windows' separator: write / and not \\"),
            ("Sub\\gone.wav", "\\ is Windows' separator"),
        ] {
            let said = hint_of(name);
            assert!(said.contains("hint: ") && said.contains(words), "{said}");
        }
        assert!(!hint_of("Sub/gone.wav").contains("hint"));
        let other = Error::io(&sub, ErrorKind::PermissionDenied.into());
        assert!(!hinted(other).to_string().contains("hint"));
    }
}
