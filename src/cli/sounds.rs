//! Which sounds are asked about: files, folders, patterns, standard input; and which piece of each.

use crate::data::feed::Clip;
use crate::error::{Error, Result};
use crate::shapes::{Seconds, WINDOW_SECONDS};
use clap::Args;
use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Deserializer};
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names of sound files, in a folder.
const EXTENSIONS: [&str; 21] = [
    "wav", "wave", "flac", "mp3", "ogg", "oga", "m4a", "m4b", "mp4", "aac", "aif", "aiff", "aifc", "caf",
    "mka", "mkv", "webm", "au", "snd", "sph", "nist",
];
/// Most bytes of a sound on standard input: half an hour of 48 kHz stereo in 24 bit.
const MOST_BYTES: u64 = 512 << 20;
/// Longer than any sound, in seconds.
const MOST_SECONDS: f64 = 1e7;
/// Folders deep that `**` goes.
const DEEPEST: usize = 32;

/// A place in a sound, or a length: 80, 1:20 or 1:02:03.5.
pub(super) fn time(text: &str) -> std::result::Result<Seconds, String> {
    let wrong = || "expected a time such as 80, 1:20 or 1:02:03.5".to_owned();
    let parts: Vec<&str> = text.trim().split(':').collect();
    let last = parts.len() - 1;
    if parts.len() > 3 {
        return Err(wrong());
    }
    let mut seconds = 0.0;
    for (i, part) in parts.iter().enumerate() {
        let digits = part
            .bytes()
            .all(|b| b.is_ascii_digit() || (b == b'.' && i == last));
        let value: f64 = part.parse().map_err(|_| wrong())?;
        if !digits || (i > 0 && value >= 60.0) {
            return Err(wrong());
        }
        seconds = 60.0 * seconds + value;
    }
    match seconds <= MOST_SECONDS {
        true => Ok(Seconds(seconds)),
        false => Err(wrong()),
    }
}

/// A length above 0.
pub(super) fn length(text: &str) -> std::result::Result<Seconds, String> {
    match time(text)? {
        Seconds(s) if s > 0.0 => Ok(Seconds(s)),
        _ => Err("expected a length above 0 s".to_owned()),
    }
}

/// Which piece of a sound is heard.
#[derive(Args, Deserialize, Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Piece {
    /// Where hearing begins: 80, 1:20 or 1:02:03.5.
    #[arg(long, value_name = "TIME", value_parser = time)]
    #[serde(default, deserialize_with = "time_of_json")]
    pub(super) start: Option<Seconds>,
    /// How much is heard: of a length that is no multiple of 10 s the last window is filled up with silence.
    #[arg(long, value_name = "N", value_parser = length)]
    #[serde(default, deserialize_with = "length_of_json")]
    pub(super) seconds: Option<Seconds>,
}

impl Piece {
    /// What this piece leaves out, another says.
    pub(super) fn or(self, other: Piece) -> Piece {
        Piece {
            start: self.start.or(other.start),
            seconds: self.seconds.or(other.seconds),
        }
    }

    /// The piece of a file, or what was wrong with it: expected and found.
    pub(super) fn of(&self, path: PathBuf, windows: usize) -> std::result::Result<Clip, [String; 2]> {
        let clip = Clip::new(path, self.start.unwrap_or_default(), windows);
        let most = windows as f64 * WINDOW_SECONDS;
        match self.seconds {
            None => Ok(clip),
            Some(seconds) if seconds.0 <= most => Ok(clip.within(seconds)),
            Some(Seconds(s)) => Err([
                format!("at most {most} s, {windows} windows of 10 s"),
                s.to_string(),
            ]),
        }
    }

    /// For the seed: nothing for a whole sound.
    pub(super) fn item(&self) -> String {
        let say =
            |name: &str, s: Option<Seconds>| s.map(|Seconds(s)| format!("\n{name} {s}")).unwrap_or_default();
        say("start", self.start) + &say("seconds", self.seconds)
    }
}

fn json<'de, D: Deserializer<'de>>(
    from: D,
    parse: fn(&str) -> std::result::Result<Seconds, String>,
) -> std::result::Result<Option<Seconds>, D::Error> {
    let text = match serde_json::Value::deserialize(from)? {
        serde_json::Value::Null => return Ok(None),
        serde_json::Value::Number(n) => n.to_string(),
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    parse(&text)
        .map(Some)
        .map_err(|e| serde::de::Error::custom(format!("{e}, found {text}")))
}

fn time_of_json<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Seconds>, D::Error> {
    json(from, time)
}

fn length_of_json<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Seconds>, D::Error> {
    json(from, length)
}

/// The sounds that `--audio` names.
pub(super) struct Sounds {
    /// In the order of the command line; of a folder or a pattern by name. `-` is standard input.
    pub(super) paths: Vec<PathBuf>,
    /// Whether a folder or a pattern stands for them, and another time for another number.
    pub(super) many: bool,
}

/// Whether a name stands for standard input.
pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Finds the sounds of these names: files, folders, patterns, `-`.
///
/// # Errors
/// A folder without sound files, a pattern that fits none, `-` twice.
pub(super) fn find(names: &[PathBuf]) -> Result<Sounds> {
    let mut found = Sounds {
        paths: Vec::new(),
        many: false,
    };
    if names.iter().filter(|n| is_stdin(n)).count() > 1 {
        return Err(Error::usage(
            "--audio -: standard input is one sound, and is named twice",
        ));
    }
    for name in names {
        let pattern = name
            .to_str()
            .filter(|t| t.contains(['*', '?', '[', '{']) && !name.exists());
        let new = match pattern {
            Some(pattern) => fitting(pattern)?,
            None if name.is_dir() => in_folder(name)?,
            None => {
                found.paths.push(name.clone());
                continue;
            }
        };
        let s = if new.len() == 1 { "" } else { "s" };
        crate::say!("note: {}: {} file{s}", name.display(), new.len());
        found.many = true;
        found.paths.extend(new);
    }
    Ok(found)
}

/// The sound files of a folder, by name.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = entries(folder)?;
    let there = all.len();
    all.retain(|path| {
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .map(str::to_ascii_lowercase);
        extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str())) && path.is_file()
    });
    match all.is_empty() {
        false => Ok(all),
        true => Err(not_found(
            folder,
            format!("expected sound files (.wav, .flac, .mp3, …), found none among {there} names"),
        )),
    }
}

/// The files that fit a pattern, by name. `*` and `?` stop at `/`, `**` goes into folders.
fn fitting(pattern: &str) -> Result<Vec<PathBuf>> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    let glob = glob.map_err(|e| {
        Error::usage(format!(
            "--audio {pattern}: expected a pattern, found {}",
            e.kind()
        ))
    })?;
    // Up to the last `/` before the first sign.
    let signs = pattern.find(['*', '?', '[', '{', '\\']).unwrap_or(pattern.len());
    let base = pattern[..signs].rfind('/').map_or(0, |at| at + 1);
    let rest = &pattern[base..];
    let deep = match rest.contains("**") {
        true => DEEPEST,
        false => rest.matches('/').count(),
    };
    let mut all = Vec::new();
    let folder = Path::new(&pattern[..base]);
    if base == 0 || folder.is_dir() {
        walk(
            folder,
            deep,
            rest.contains("**"),
            &glob.compile_matcher(),
            &mut all,
        )?;
    }
    all.sort_unstable();
    match all.is_empty() {
        false => Ok(all),
        true => Err(not_found(
            Path::new(pattern),
            "no file fits this pattern".to_owned(),
        )),
    }
}

fn walk(
    folder: &Path,
    deep: usize,
    anywhere: bool,
    glob: &GlobMatcher,
    all: &mut Vec<PathBuf>,
) -> Result<()> {
    for path in entries(folder)? {
        if path.is_dir() {
            // A link may lead back up.
            let link = anywhere && path.is_symlink();
            if deep > 0 && !link {
                walk(&path, deep - 1, anywhere, glob, all)?;
            }
        } else if glob.is_match(&path) {
            all.push(path);
        }
    }
    Ok(())
}

/// What is in a folder, by name; hidden names are left aside.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, e);
    let here = folder.as_os_str().is_empty();
    let mut all = Vec::new();
    for entry in std::fs::read_dir(if here { Path::new(".") } else { folder }).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            all.push(folder.join(name));
        }
    }
    all.sort_unstable();
    Ok(all)
}

fn not_found(path: &Path, what: String) -> Error {
    Error::io(path, io::Error::new(ErrorKind::NotFound, what))
}

/// The sound on standard input.
///
/// # Errors
/// A terminal, more than half an hour's bytes, none.
pub(super) fn of_stdin() -> Result<Arc<[u8]>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Error::usage(
            "--audio -: expected a sound on standard input, found a terminal",
        ));
    }
    let mut bytes = Vec::new();
    let read = stdin.lock().take(MOST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io("standard input", e))?;
    if bytes.len() as u64 > MOST_BYTES {
        let expected = format!("a sound of at most {} MiB", MOST_BYTES >> 20);
        return Err(Error::audio("standard input", expected, "more").hint("write it into a file first"));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("80", 80.0),
            ("1:20", 80.0),
            ("1:02:03.5", 3723.5),
            ("0", 0.0),
            ("90.25", 90.25),
            ("100:00", 6000.0),
            ("0:00:05", 5.0),
            (" 7 ", 7.0),
        ] {
            assert_eq!(time(text), Ok(Seconds(seconds)), "{text}");
        }
        let wrong = [
            "",
            "-1",
            "1:60",
            "1:2:3:4",
            "1:",
            ":5",
            "1.5:00",
            "1e3",
            "nan",
            "inf",
            "+5",
            "5s",
            "1:99:00",
            "99999999999",
            ".",
        ];
        for text in wrong {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(length("0").is_err() && length("0.5").is_ok());
    }

    #[test]
    fn names_folders_and_patterns_are_sounds_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("deep/er")).unwrap();
        for name in [
            "b.WAV",
            "a.flac",
            "notes.txt",
            ".hidden.wav",
            "deep/c.wav",
            "deep/er/d.wav",
            "odd[1].wav",
        ] {
            std::fs::write(at(name), "").unwrap();
        }
        let found = |name: &str| {
            let sounds = find(&[at(name)]).unwrap();
            let strip = |p: &PathBuf| p.strip_prefix(folder.path()).unwrap().display().to_string();
            (
                sounds.paths.iter().map(strip).collect::<Vec<_>>().join(" "),
                sounds.many,
            )
        };
        let many = |text: &str| (text.to_owned(), true);
        assert_eq!(found(""), many("a.flac b.WAV odd[1].wav"));
        assert_eq!(found("*.wav"), many("odd[1].wav"));
        assert_eq!(found("*"), many("a.flac b.WAV notes.txt odd[1].wav"));
        assert_eq!(found("*/?.wav"), many("deep/c.wav"));
        assert_eq!(found("**/*.wav"), many("deep/c.wav deep/er/d.wav odd[1].wav"));
        assert_eq!(found("{a,b}.{flac,WAV}"), many("a.flac b.WAV"));
        // A file is a file, whatever its name, and one that is not there as well.
        assert_eq!(found("odd[1].wav"), ("odd[1].wav".to_owned(), false));
        assert_eq!(found("gone.wav"), ("gone.wav".to_owned(), false));
        for (name, says) in [
            ("*.mp3", "no file fits"),
            ("gone/*.wav", "no file fits"),
            ("deep/er/../none*", "no file fits"),
        ] {
            let e = find(&[at(name)]).err().unwrap();
            assert!(
                e.exit_code() == 3 && e.to_string().contains(says) && e.to_string().contains(name),
                "{e}"
            );
        }
        std::fs::remove_file(at("deep/er/d.wav")).unwrap();
        let e = find(&[at("deep/er")]).err().unwrap().to_string();
        assert!(e.contains("found none among 0 names"), "{e}");
        assert_eq!(find(&["[z".into()]).err().unwrap().exit_code(), 2);
        assert_eq!(find(&["-".into(), "-".into()]).err().unwrap().exit_code(), 2);
    }
}
