//! Finding an item's sound below a folder: official files name sounds by the owner's paths, by an id alone, or with another extension.
//! What is found lies below the folder, whatever a file says.

use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::Path;
use unicode_normalization::UnicodeNormalization;

/// Names of sound files, and of videos that have a sound track.
const EXTENSIONS: [&str; 22] = [
    "wav", "flac", "wave", "mp3", "ogg", "oga", "opus", "m4a", "m4b", "mp4", "aac", "aif", "aiff", "aifc",
    "caf", "mka", "mkv", "webm", "au", "snd", "sph", "nist",
];
/// Folders deep, and files in all.
const DEEPEST: usize = 32;
const MOST_FILES: usize = 20_000_000;
/// Letters of a YouTube id.
const ID: usize = 11;

/// How an official file names a sound.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Ways to name it, the best one first: a path, a file's name or an id without extension.
    pub names: Vec<String>,
    /// Where it begins in its video, for clips that are called so.
    pub begins: Option<u64>,
}

impl Wanted {
    pub(super) fn named(name: impl Into<String>) -> Self {
        Wanted {
            names: vec![name.into()],
            begins: None,
        }
    }
}

/// What became of a search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Below the folder, with `/`.
    At(String),
    Nothing,
    /// Several that are named so equally well.
    Several(Vec<String>),
    /// The name leads out of the folder, or is none.
    Unsafe(String),
}

/// The sounds below a folder.
pub(super) struct Sounds {
    /// Sorted.
    paths: Vec<String>,
    /// Their places by file name and by file name without extension, as people see names, and by YouTube id.
    by_name: HashMap<String, Vec<usize>>,
    by_stem: HashMap<String, Vec<usize>>,
    by_id: HashMap<String, Vec<usize>>,
}

impl Sounds {
    /// Lists a folder with all below it.
    ///
    /// # Errors
    /// A folder that cannot be read, or that has no sound.
    pub(super) fn below(root: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        walk(root, "", 0, &mut paths)?;
        if paths.is_empty() {
            let e = Error::data(root, "--audio", "sound files in it or below it", "none");
            return Err(e.hint("the folder into which the benchmark's sounds were unpacked"));
        }
        paths.sort();
        Ok(Self::of(paths))
    }

    fn of(paths: Vec<String>) -> Self {
        let mut sounds = Sounds {
            by_name: HashMap::new(),
            by_stem: HashMap::new(),
            by_id: HashMap::new(),
            paths: Vec::new(),
        };
        for (i, path) in paths.iter().enumerate() {
            let name = file_name(path);
            let stem = stem(name);
            sounds.by_name.entry(seen(name)).or_default().push(i);
            sounds.by_stem.entry(seen(stem)).or_default().push(i);
            // Jamendo's excerpts: 1234.2min.mp3.
            if let Some((first, "2min")) = stem.split_once('.') {
                sounds.by_stem.entry(seen(first)).or_default().push(i);
            }
            if let Some((id, _)) = youtube(stem) {
                sounds.by_id.entry(id.to_owned()).or_default().push(i);
            }
        }
        sounds.paths = paths;
        sounds
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// All of them, sorted.
    pub(super) fn paths(&self) -> &[String] {
        &self.paths
    }

    /// The one that is wanted.
    pub(super) fn find(&self, wanted: &Wanted) -> Found {
        let mut several = None;
        for name in &wanted.names {
            let parts = match parts(name) {
                Ok(parts) => parts,
                Err(why) => return Found::Unsafe(why),
            };
            match self.named(&parts, wanted.begins) {
                Found::Nothing => {}
                Found::Several(all) => {
                    several.get_or_insert(all);
                }
                found => return found,
            }
        }
        several.map_or(Found::Nothing, Found::Several)
    }

    fn named(&self, parts: &[&str], begins: Option<u64>) -> Found {
        let whole = parts.join("/");
        if self.paths.binary_search(&whole).is_ok() {
            return Found::At(whole);
        }
        let Some(name) = parts.last() else {
            return Found::Nothing;
        };
        // With its extension, then with any.
        let any = match is_sound(name) {
            true => stem(name),
            false => name,
        };
        for (index, key) in [(&self.by_name, *name), (&self.by_stem, any)] {
            if let Some(all) = index.get(&seen(key)) {
                return self.best(all, parts);
            }
        }
        match youtube(any).and_then(|(id, from)| Some((self.by_id.get(id)?, from))) {
            None => Found::Nothing,
            Some((all, from)) => {
                let begins = begins.or(from);
                let at = |i: &&usize| {
                    youtube(stem(file_name(&self.paths[**i]))).and_then(|(_, from)| from) == begins
                };
                let exact: Vec<usize> = all.iter().filter(at).copied().collect();
                // One that says another place in its video is another clip.
                let unsaid = |i: &&usize| {
                    youtube(stem(file_name(&self.paths[**i]))).is_some_and(|(_, from)| from.is_none())
                };
                let plain: Vec<usize> = all.iter().filter(unsaid).copied().collect();
                match (exact.is_empty(), plain.is_empty(), begins) {
                    (false, ..) => self.best(&exact, parts),
                    (_, false, _) => self.best(&plain, parts),
                    (.., None) => self.best(all, parts),
                    _ => Found::Nothing,
                }
            }
        }
    }

    /// Of those with the right name the one whose folders agree longest, from the file up; several where that does not tell.
    fn best(&self, all: &[usize], parts: &[&str]) -> Found {
        let agree = |i: usize| {
            let own = self.paths[i].rsplit('/').skip(1);
            let folders = parts.iter().rev().skip(1);
            own.zip(folders).take_while(|(a, b)| seen(a) == seen(b)).count()
        };
        let Some(most) = all.iter().map(|i| agree(*i)).max() else {
            return Found::Nothing;
        };
        let mut best: Vec<&String> = all
            .iter()
            .filter(|i| agree(**i) == most)
            .map(|i| &self.paths[*i])
            .collect();
        if let (true, Some(name)) = (best.len() > 1, parts.last()) {
            let same: Vec<&String> = best.iter().copied().filter(|p| file_name(p) == *name).collect();
            if !same.is_empty() {
                best = same;
            }
        }
        match best.as_slice() {
            [one] => Found::At((*one).clone()),
            several => Found::Several(several.iter().take(4).map(|p| (*p).clone()).collect()),
        }
    }
}

/// The parts of a name, whichever separators it has; of a path of the owner's machine those below its root.
fn parts(name: &str) -> std::result::Result<Vec<&str>, String> {
    if name.chars().any(char::is_control) {
        return Err(format!("a control character in {name:?}"));
    }
    let windows = name.as_bytes().get(1) == Some(&b':') && name.as_bytes()[0].is_ascii_alphabetic();
    let name = if windows { &name[2..] } else { name };
    let all: Vec<&str> = name
        .split(['/', '\\'])
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    if all.contains(&"..") {
        return Err(format!("{name:?}, which leads out of its folder"));
    }
    match all.last() {
        Some(last) if !last.trim().is_empty() => Ok(all),
        _ => Err("no name".to_owned()),
    }
}

fn walk(root: &Path, below: &str, depth: usize, out: &mut Vec<String>) -> Result<()> {
    let folder = root.join(below);
    let io = |e| Error::io(&folder, e);
    for entry in std::fs::read_dir(&folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        // What is not UTF-8 no official file names.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // Also what macOS packs beside each file.
        if name.starts_with('.') || name == "__MACOSX" {
            continue;
        }
        let path = if below.is_empty() {
            name.clone()
        } else {
            format!("{below}/{name}")
        };
        // Follows links; one that leads nowhere is no sound.
        let Ok(meta) = std::fs::metadata(entry.path()) else {
            continue;
        };
        if meta.is_dir() {
            if depth < DEEPEST {
                walk(root, &path, depth + 1, out)?;
            }
        } else if meta.is_file() && is_sound(&name) {
            if out.len() == MOST_FILES {
                return Err(Error::data(
                    root,
                    "--audio",
                    format!("at most {MOST_FILES} sounds"),
                    "more",
                ));
            }
            out.push(path);
        }
    }
    Ok(())
}

fn is_sound(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A file's name without its extension.
pub(super) fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// A name as people see it.
fn seen(name: &str) -> String {
    name.trim().nfc().collect::<String>().to_lowercase()
}

/// The YouTube id that a clip is called by, and where the clip begins: `ID`, `YID`, `ID_30`, `ID_30_40`, `ID_30000_40000`,
/// `ID_000030`, `[ID]-[30-40]`.
fn youtube(stem: &str) -> Option<(&str, Option<u64>)> {
    let is_id = |s: &str| {
        s.len() == ID
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if let Some((id, rest)) = stem.strip_prefix('[').and_then(|s| s.split_once(']')) {
        return is_id(id).then(|| (id, first_number(rest)));
    }
    for before in [0, 1] {
        let Some((id, rest)) = stem.get(before..).and_then(|s| s.split_at_checked(ID)) else {
            continue;
        };
        let fits = before == 0 || stem.starts_with('Y');
        if fits && is_id(id) && (rest.is_empty() || rest.starts_with(['_', '.', ' ', '-'])) {
            return Some((id, first_number(rest)));
        }
    }
    None
}

/// Seconds; large round numbers are milliseconds.
fn first_number(rest: &str) -> Option<u64> {
    let digits: String = rest
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    let number: u64 = digits.parse().ok()?;
    Some(match number >= 1000 && number.is_multiple_of(1000) {
        true => number / 1000,
        false => number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sounds(paths: &[&str]) -> Sounds {
        let mut paths: Vec<String> = paths.iter().map(|p| (*p).to_owned()).collect();
        paths.sort();
        Sounds::of(paths)
    }

    fn at(path: &str) -> Found {
        Found::At(path.to_owned())
    }

    #[test]
    fn sounds_are_found_by_path_name_and_id() {
        let all = sounds(&[
            "a/rain.wav",
            "b/rain.wav",
            "a/Dog Barks.flac",
            "sdd/02/1234.2min.mp3",
            "mc/[-0049eab_X1]-[30-40].wav",
            "ac/Yabcdefghij0.wav",
            "ac/ABCDEFGHIJ0_30.wav",
            "ac/ABCDEFGHIJ0_70.wav",
            "ms/ZZZZZZZZZZ0_30000_40000.wav",
            "c/cafe\u{301}.wav",
        ]);
        let find = |name: &str| all.find(&Wanted::named(name));
        for (name, found) in [
            ("a/rain.wav", at("a/rain.wav")),
            ("./b/rain.wav", at("b/rain.wav")),
            ("set/test/b/rain.mp3", at("b/rain.wav")),
            ("/data/owner/a/rain", at("a/rain.wav")),
            ("b\\rain.wav", at("b/rain.wav")),
            ("C:\\own\\b\\rain.wav", at("b/rain.wav")),
            ("dog barks.wav", at("a/Dog Barks.flac")),
            ("1234", at("sdd/02/1234.2min.mp3")),
            ("-0049eab_X1", at("mc/[-0049eab_X1]-[30-40].wav")),
            ("abcdefghij0", at("ac/Yabcdefghij0.wav")),
            ("Yabcdefghij0.wav", at("ac/Yabcdefghij0.wav")),
            ("caf\u{e9}.wav", at("c/cafe\u{301}.wav")),
            ("gone.wav", Found::Nothing),
        ] {
            assert_eq!(find(name), found, "{name}");
        }
        assert!(matches!(find("rain.wav"), Found::Several(all) if all.len() == 2));
        let clip = |begins| {
            all.find(&Wanted {
                names: vec!["ABCDEFGHIJ0".into()],
                begins,
            })
        };
        assert_eq!(clip(Some(70)), at("ac/ABCDEFGHIJ0_70.wav"));
        assert_eq!(clip(Some(50)), Found::Nothing);
        assert!(matches!(clip(None), Found::Several(_)));
        let other = Wanted {
            names: vec!["ZZZZZZZZZZ0".into()],
            begins: Some(30),
        };
        assert_eq!(all.find(&other), at("ms/ZZZZZZZZZZ0_30000_40000.wav"));
    }

    #[test]
    fn no_name_leads_out() {
        let all = sounds(&["passwd.wav", "a/x.wav"]);
        for name in [
            "../../etc/passwd",
            "a/../../x.wav",
            "..\\x.wav",
            "",
            "/",
            "a/x\0.wav",
            "x\n.wav",
        ] {
            assert!(
                matches!(all.find(&Wanted::named(name)), Found::Unsafe(_)),
                "{name:?}"
            );
        }
        // The owner's own paths are looked up by what they end in.
        assert_eq!(all.find(&Wanted::named("/etc/passwd")), at("passwd.wav"));
        assert_eq!(all.find(&Wanted::named("/etc/shadow")), Found::Nothing);
    }
}
