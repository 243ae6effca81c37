//! What is missing, as it is told.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// What a thing is to a run, in the order in which they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A training or validation set's.
    Manifest,
    /// The folder that a manifest's sounds should lie in.
    Sounds,
    /// An evaluation set's manifest.
    Evaluation,
    /// Something of the LM's folder.
    Lm,
    /// AF-CLAP's file.
    Clap,
    /// A checkpoint to start from.
    Checkpoint,
    /// The disk.
    Room,
}

/// Something that a recipe names and that is not there, or cannot be used.
#[derive(Debug, Clone)]
pub(crate) struct Lack {
    pub kind: Kind,
    /// The key that names it, or in words what it is to the recipe.
    pub key: String,
    pub path: PathBuf,
    /// What is there instead.
    pub found: String,
    /// Who asks for it: stages, `clap`, `eval`.
    pub by: Vec<String>,
    /// Commands that put it there.
    pub get: Vec<String>,
    /// It is there, and is not what it should be.
    pub damaged: bool,
}

impl Lack {
    /// Something that is not there, or is none of what it should be.
    pub(super) fn new(kind: Kind, key: &str, path: &Path, found: impl Into<String>, by: &[String]) -> Self {
        Lack {
            kind,
            key: key.into(),
            path: path.to_path_buf(),
            found: found.into(),
            by: by.to_vec(),
            get: Vec::new(),
            damaged: false,
        }
    }

    /// What a reader said of it.
    pub(super) fn refused(kind: Kind, key: &str, path: &Path, error: &Error, by: &[String]) -> Self {
        let text = error.to_string();
        let own = format!("{}: ", path.display());
        let found = text
            .strip_prefix(&own)
            .unwrap_or(&text)
            .replace(&format!("\n{own}"), "\n");
        Lack {
            damaged: !matches!(error, Error::Io { .. }),
            ..Lack::new(kind, key, path, found, by)
        }
    }

    pub(super) fn get(mut self, commands: Vec<String>) -> Self {
        self.get = commands;
        self
    }
}

/// All that was looked at and is not as it should be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub lacks: Vec<Lack>,
    /// What is worth a word and stops nothing.
    pub notes: Vec<String>,
}

impl Report {
    /// The exit code of it; 0 where nothing is missing. Files that are not there come before those that are damaged.
    pub(crate) fn code(&self) -> i32 {
        let code = |lack: &Lack| match (lack.damaged, lack.kind) {
            (false, _) | (_, Kind::Room) => 3,
            (true, Kind::Manifest | Kind::Sounds | Kind::Evaluation) => 6,
            (true, Kind::Lm | Kind::Clap | Kind::Checkpoint) => 7,
        };
        self.lacks.iter().map(code).min().unwrap_or(0)
    }

    /// Says the notes.
    ///
    /// # Errors
    /// [`Error::Missing`]: everything at once.
    pub(crate) fn result(self) -> Result<()> {
        for note in &self.notes {
            crate::say!("note: {note}");
        }
        self.error().map_or(Ok(()), Err)
    }

    /// Everything that is missing as one error.
    pub(crate) fn error(&self) -> Option<Error> {
        let code = self.code();
        (code != 0).then(|| Error::Missing {
            listing: self.listing(),
            code,
        })
    }

    fn listing(&self) -> String {
        let mut lacks: Vec<&Lack> = self.lacks.iter().collect();
        lacks.sort_by_key(|lack| lack.kind);
        let (n, s, are) = match lacks.len() {
            1 => (1, "", "is"),
            n => (n, "s", "are"),
        };
        let mut text = format!("{n} thing{s} that this recipe names {are} missing or cannot be used");
        for group in lacks.chunk_by(|a, b| a.kind == b.kind) {
            let Some(first) = group.first() else { continue };
            text.push_str(&format!("\n  {}:", title(first.kind, group.len())));
            for lack in group {
                let by = match lack.by.is_empty() {
                    true => String::new(),
                    false => format!(" ({})", lack.by.join(", ")),
                };
                let key = match lack.kind {
                    Kind::Manifest | Kind::Sounds | Kind::Evaluation => String::new(),
                    _ => format!("{}: ", lack.key),
                };
                // A reader's own error goes on over several lines.
                let found = lack.found.replace('\n', "\n      ");
                text.push_str(&format!("\n    {key}{}: {found}{by}", lack.path.display()));
            }
            let mut said: Vec<&String> = Vec::new();
            for command in group.iter().flat_map(|lack| &lack.get) {
                if !said.contains(&command) {
                    text.push_str(&format!("\n      {command}"));
                    said.push(command);
                }
            }
        }
        text.push_str(
            "\n  hint: `af2 recipe check --files RECIPE` looks at all of this again and starts nothing; \
             `af2 data check RECIPE` reads every item and the header of every sound",
        );
        text
    }
}

fn title(kind: Kind, n: usize) -> String {
    let s = if n == 1 { "" } else { "s" };
    match kind {
        Kind::Manifest => format!("{n} manifest{s} (data.sets, below data.root)"),
        Kind::Sounds => format!("{n} folder{s} of sounds"),
        Kind::Evaluation => format!("{n} manifest{s} of evaluation sets"),
        Kind::Lm => "the language model".into(),
        Kind::Clap => "the audio encoder, AF-CLAP".into(),
        Kind::Checkpoint => "what stages begin with".into(),
        Kind::Room => "room on the disk".into(),
    }
}
