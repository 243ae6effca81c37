//! One error for the whole house. A variant carries the thing it is about: path, key or line,
//! what was expected, what was found, and a hint where there is something to try.

use std::path::{Path, PathBuf};

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. [`Error::exit_code`] gives each kind its own process exit code.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "what each was about, in the words of its message")]
pub enum Error {
    /// The file system said no: not found, no permission, disk full.
    #[error("{path}: {source}{}", hint_text(.hint))]
    Io {
        path: PathBuf,
        source: std::io::Error,
        hint: Option<String>,
    },
    /// A command line that cannot be understood: what clap cannot know of it, and changes of a recipe that name no key or no
    /// value of it.
    #[error("command line: {message}{}", hint_text(.hint))]
    Usage { message: String, hint: Option<String> },
    /// A recipe or configuration that does not say what it must.
    #[error("{file}{}: {message}{}", place_text(.line), hint_text(.hint))]
    Recipe {
        file: String,
        /// Line and column, from 1.
        line: Option<(usize, usize)>,
        message: String,
        hint: Option<String>,
    },
    /// An audio file that cannot be used.
    #[error("{path}: expected {expected}, found {found}{}", hint_text(.hint))]
    Audio {
        path: PathBuf,
        expected: String,
        found: String,
        hint: Option<String>,
    },
    /// A manifest, JSON lines or other data file with a wrong entry.
    #[error("{path}: {key}: expected {expected}, found {found}{}", hint_text(.hint))]
    Data {
        path: PathBuf,
        /// Item, field or line.
        key: String,
        expected: String,
        found: String,
        hint: Option<String>,
    },
    /// A benchmark's card that does not say what it must.
    #[error("{file}{}: {message}{}", place_text(.line), hint_text(.hint))]
    Card {
        file: String,
        /// Line and column, from 1.
        line: Option<(usize, usize)>,
        message: String,
        hint: Option<String>,
    },
    /// A checkpoint or tokenizer file that does not hold what the model needs.
    #[error("{path}: {key}: expected {expected}, found {found}{}", hint_text(.hint))]
    Checkpoint {
        path: PathBuf,
        /// The tensor's or entry's name.
        key: String,
        expected: String,
        found: String,
        hint: Option<String>,
    },
    /// What a run needs and does not have, listed whole before its first step; see `preflight`.
    #[error("{listing}")]
    Missing { listing: String, code: i32 },
    /// Several errors of one kind, all told at once.
    #[error("{}", .0.iter().map(|e| e.to_string()).collect::<Vec<_>>().join("\n"))]
    Many(Vec<Error>),
    /// Training could not go on: a non-finite loss, too many skipped items.
    #[error("{message}{}", hint_text(.hint))]
    Training { message: String, hint: Option<String> },
    /// More items of a data set cannot be used than the recipe allows.
    #[error(
        "{skipped} of {items} items cannot be used, and {most} may be skipped; the last: {last}\n  hint: {ledger} names \
         each; `af2 data check` looks at all; data.skip_budget allows a larger share",
        ledger = ledger.display()
    )]
    Skips {
        ledger: PathBuf,
        skipped: usize,
        items: usize,
        most: usize,
        last: String,
    },
    /// Ranks that could not be joined, or one that does not answer any more.
    #[error("{message}{}", hint_text(.hint))]
    Ranks { message: String, hint: Option<String> },
    /// A device that was asked for, or should be used, and cannot be.
    #[error("device: {message}{}", hint_text(.hint))]
    Device { message: String, hint: Option<String> },
    /// A server of a language model that cannot be used: it refuses, or does not answer.
    #[error("{endpoint}: {message}{}", hint_text(.hint))]
    Endpoint {
        /// Host and port.
        endpoint: String,
        message: String,
        hint: Option<String>,
    },
    /// What may be spent for asking a server is spent; what was answered is kept.
    #[error("{message}{}", hint_text(.hint))]
    Budget { message: String, hint: Option<String> },
    /// A signal ended the run; its state is saved.
    #[error("{0}")]
    Stopped(String),
    /// A comparison went past its tolerance.
    #[error("{0}")]
    Mismatch(String),
    /// libtorch refused an operation.
    #[error("libtorch: {}", sentence(&.0.to_string()))]
    Torch(#[from] tch::TchError),
}

fn hint_text(hint: &Option<String>) -> String {
    hint.as_ref()
        .map(|h| format!("\n  hint: {h}"))
        .unwrap_or_default()
}

fn place_text(line: &Option<(usize, usize)>) -> String {
    line.map(|(l, c)| format!(":{l}:{c}")).unwrap_or_default()
}

impl Error {
    /// A file that the system does not give or take.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        Error::Io {
            path,
            source,
            hint: None,
        }
    }

    /// A sound file that cannot be used, with what was expected of it and what was found.
    pub fn audio(path: impl AsRef<Path>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Error::Audio {
            path: path.as_ref().to_path_buf(),
            expected: expected.into(),
            found: found.into(),
            hint: None,
        }
    }

    /// An entry of a data file, at `key`, that is not what was expected.
    pub fn data(
        path: impl AsRef<Path>,
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Error::Data {
            path: path.as_ref().to_path_buf(),
            key: key.into(),
            expected: expected.into(),
            found: found.into(),
            hint: None,
        }
    }

    /// A tensor or entry of a checkpoint, at `key`, that is not what was expected.
    pub fn checkpoint(
        path: impl AsRef<Path>,
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Error::Checkpoint {
            path: path.as_ref().to_path_buf(),
            key: key.into(),
            expected: expected.into(),
            found: found.into(),
            hint: None,
        }
    }

    /// A recipe that does not say what it must.
    pub fn recipe(file: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Recipe {
            file: file.into(),
            line: None,
            message: message.into(),
            hint: None,
        }
    }

    /// A device that cannot be used.
    pub fn device(message: impl Into<String>) -> Self {
        Error::Device {
            message: message.into(),
            hint: None,
        }
    }

    /// A command line that cannot be understood.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::Usage {
            message: message.into(),
            hint: None,
        }
    }

    /// The same error with something to try.
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Error::Io { hint, .. }
            | Error::Usage { hint, .. }
            | Error::Recipe { hint, .. }
            | Error::Audio { hint, .. }
            | Error::Data { hint, .. }
            | Error::Card { hint, .. }
            | Error::Checkpoint { hint, .. }
            | Error::Training { hint, .. }
            | Error::Ranks { hint, .. }
            | Error::Device { hint, .. }
            | Error::Endpoint { hint, .. }
            | Error::Budget { hint, .. } => *hint = Some(text.into()),
            Error::Many(_)
            | Error::Missing { .. }
            | Error::Mismatch(_)
            | Error::Skips { .. }
            | Error::Stopped(_)
            | Error::Torch(_) => {}
        }
        self
    }

    /// 1 libtorch, 2 usage (clap's own end so too), 3 files, 4 recipe, 5 audio, 6 data, 7 checkpoint, 8 training, 9 mismatch,
    /// 10 too many skips, 11 ranks, 12 stopped by a signal, 13 a device that cannot be used, 15 a server, 16 a budget.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Torch(_) => 1,
            Error::Usage { .. } => 2,
            Error::Io { .. } => 3,
            Error::Recipe { .. } => 4,
            Error::Audio { .. } => 5,
            Error::Data { .. } | Error::Card { .. } => 6,
            Error::Checkpoint { .. } => 7,
            Error::Training { .. } => 8,
            Error::Mismatch(_) => 9,
            Error::Skips { .. } => 10,
            Error::Ranks { .. } => 11,
            Error::Stopped(_) => 12,
            Error::Device { .. } => 13,
            Error::Endpoint { .. } => 15,
            Error::Budget { .. } => 16,
            Error::Missing { code, .. } => *code,
            Error::Many(all) => all.first().map_or(1, Error::exit_code),
        }
    }
}

/// All errors of a list as one, or nothing when the list is empty. A list within it is told as its elements.
pub(crate) fn all(errors: Vec<Error>) -> Result<()> {
    let mut flat = Vec::with_capacity(errors.len());
    for e in errors {
        match e {
            Error::Many(within) => flat.extend(within),
            e => flat.push(e),
        }
    }
    let mut errors = flat;
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(Error::Many(errors)),
    }
}

/// The first line of a message that may quote pages, and of that so much as fits into one of ours.
pub(crate) fn short(message: &dyn std::fmt::Display) -> String {
    let text = message.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(200).collect()
}

/// What libtorch says, without the frames of its C++ behind it. tch's plain operations wrap it once more.
pub(crate) fn sentence(text: &str) -> String {
    let inner = text
        .split_once("Torch(\"")
        .filter(|(before, _)| before.contains("Result::unwrap()"))
        .map_or(text, |(_, inner)| inner.trim_end_matches("\")"));
    let ends = ["\\nException raised from", "\nException raised from"];
    let end = ends.iter().filter_map(|e| inner.find(e)).min();
    inner[..end.unwrap_or(inner.len())].replace("\\\"", "\"")
}

/// Did you mean: the candidate nearest in spelling, when it is near enough to be a typo.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(word, c), c))
        // Of a word of one letter every other one is near.
        .filter(|(d, c)| *d <= 2.max(c.len() / 4) && *d < c.chars().count())
        .min()
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_path_key_expected_found_and_hint() {
        let e = Error::data("m.json", "data.3.prompt", "a string", "nothing").hint("add it");
        assert_eq!(
            e.to_string(),
            "m.json: data.3.prompt: expected a string, found nothing\n  hint: add it"
        );
        assert_eq!(e.exit_code(), 6);
    }

    #[test]
    fn nearest_finds_typos_and_refuses_strangers() {
        assert_eq!(
            nearest("lerning_rate", ["learning_rate", "warmup"]),
            Some("learning_rate")
        );
        assert_eq!(nearest("zebra", ["learning_rate", "warmup"]), None);
        assert_eq!(nearest("c", ["a", "b"]), None);
    }
}
