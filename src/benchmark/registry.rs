//! Where cards are found: those that are built in, and a folder of a user's own.

use super::card::Card;
use super::embedded::CARDS;
use super::fault::of_a_card;
use crate::error::{all, nearest, Error, Result};
use crate::yaml::{self, Place, MOST_BYTES};
use std::path::{Path, PathBuf};

const KEYS: &str = "docs/benchmarks.md has the keys of a card, data-manifests/benchmarks/ has cards";

/// A card that can be opened.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is asked for by: its file's name without `.yaml`.
    pub name: String,
    /// The file, or what stands for one that is built in: what errors name.
    pub file: String,
    /// Its text, byte for byte: what a hash is of.
    pub text: String,
    /// Whether it came with the program.
    pub built_in: bool,
}

impl Entry {
    /// Of its text, in small hexadecimal digits.
    pub(crate) fn sha256(&self) -> String {
        format!(
            "{:x}",
            <sha2::Sha256 as sha2::Digest>::digest(self.text.as_bytes())
        )
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with file, line and key.
    pub fn card(&self) -> Result<Card> {
        let (card, name) = placed(&self.text, &self.file)?;
        if card.name != self.name {
            let message = format!("name: `{}`, and the file is called {}.yaml", card.name, self.name);
            return Err(of_a_card(name.error(message)));
        }
        Ok(card)
    }
}

/// All cards that can be asked for.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// The cards that are built in, by the paper's tables, then what came after it.
    pub fn built_in() -> Self {
        let entries = CARDS.iter().map(|(name, text)| Entry {
            name: (*name).to_owned(),
            file: format!("data-manifests/benchmarks/{name}.yaml (built in)"),
            text: (*text).to_owned(),
            built_in: true,
        });
        Registry {
            entries: entries.collect(),
        }
    }

    /// Those, and every `NAME.yaml` of a folder. One of a name that is built in stands in that one's place, and says in
    /// `overrides` why.
    ///
    /// # Errors
    /// A folder or file that cannot be read, and everything that is wrong with the folder's cards.
    pub fn with(folder: Option<&Path>) -> Result<Self> {
        let mut registry = Self::built_in();
        let Some(folder) = folder else {
            return Ok(registry);
        };
        let mut errors = Vec::new();
        for path in yaml_files(folder)? {
            match opened(&path).and_then(|entry| registry.add(entry)) {
                Ok(()) => {}
                Err(e) => errors.push(e),
            }
        }
        all(errors)?;
        Ok(registry)
    }

    fn add(&mut self, entry: Entry) -> Result<()> {
        let (card, name) = placed(&entry.text, &entry.file)?;
        entry.card()?;
        let there = self.entries.iter().position(|e| e.name == entry.name);
        match (there, &card.overrides) {
            (Some(at), Some(_)) => self.entries[at] = entry,
            (Some(_), None) => {
                let e = name.error(format!("name: a card `{}` is built in", entry.name));
                let hint = "`overrides:` says why this one stands in its place; or give it another name";
                return Err(of_a_card(e.hint(hint)));
            }
            (None, Some(_)) => {
                let e = name.error(format!("overrides: no card `{}` is built in", entry.name));
                return Err(of_a_card(e));
            }
            (None, None) => self.entries.push(entry),
        }
        Ok(())
    }

    /// In their order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One by its name, or by one of its other names.
    ///
    /// # Errors
    /// A name that none has; near ones are named.
    pub fn entry(&self, name: &str) -> Result<&Entry> {
        let plain = name.to_lowercase().replace('_', "-");
        if let Some(entry) = self.entries.iter().find(|e| e.name == name || e.name == plain) {
            return Ok(entry);
        }
        let called = |e: &&Entry| e.card().is_ok_and(|card| card.aliases.contains(&plain));
        if let Some(entry) = self.entries.iter().find(called) {
            return Ok(entry);
        }
        let e = Error::usage(format!("no benchmark is called `{name}`"));
        let names = || self.entries.iter().map(|e| e.name.as_str());
        // A beginning or a part of it is as near as a slip.
        let small = name.to_lowercase();
        let part: Vec<&str> = names()
            .filter(|n| small.len() > 2 && n.contains(&small))
            .collect();
        let hint = match (nearest(&small, names()), part.as_slice()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, []) => "`af2 benchmark ls` lists all".into(),
            (None, part) => format!("there are {}", part.join(", ")),
        };
        Err(e.hint(hint))
    }

    /// Reads one by its name.
    ///
    /// # Errors
    /// As [`Registry::entry`] and [`Entry::card`].
    pub fn card(&self, name: &str) -> Result<Card> {
        self.entry(name)?.card()
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// Everything that is wrong with any.
    pub fn cards(&self) -> Result<Vec<Card>> {
        let (mut cards, mut errors) = (Vec::new(), Vec::new());
        for entry in &self.entries {
            match entry.card() {
                Ok(card) => cards.push(card),
                Err(e) => errors.push(e),
            }
        }
        all(errors)?;
        Ok(cards)
    }
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A file as an entry, not yet understood.
fn opened(path: &Path) -> Result<Entry> {
    let text = crate::fsutil::read_text_within(path, MOST_BYTES)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Entry {
        name: name.into_owned(),
        file: path.display().to_string(),
        text,
        built_in: false,
    })
}

/// Reads and checks files, whatever else is known: all of them, and that no two have one name.
///
/// # Errors
/// Files that cannot be read, and everything that is wrong with any.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Card>> {
    let (mut cards, mut errors) = (Vec::<Card>::new(), Vec::new());
    let mut first: Vec<(String, &Path)> = Vec::new();
    for path in paths {
        let entry = match opened(path) {
            Ok(entry) => entry,
            Err(e) => {
                errors.push(e);
                continue;
            }
        };
        match entry.card() {
            Ok(card) => cards.push(card),
            Err(e) => {
                errors.push(e);
                continue;
            }
        }
        match first.iter().find(|(name, _)| *name == entry.name) {
            Some((name, other)) => {
                let place = placed(&entry.text, &entry.file)?.1;
                let message = format!("name: `{name}` is the name of {} already", other.display());
                errors.push(of_a_card(place.error(message)));
            }
            None => first.push((entry.name, path)),
        }
    }
    all(errors)?;
    Ok(cards)
}

/// Reads and checks a text; `file` is what errors name.
///
/// # Errors
/// Everything that is wrong with it, each with file, line and key.
pub fn parse(text: &str, file: &str) -> Result<Card> {
    placed(text, file).map(|(card, _)| card)
}

/// A card, and where its name stands.
fn placed(text: &str, file: &str) -> Result<(Card, Place)> {
    let parsed = yaml::parse(text, file).map_err(of_a_card)?;
    let Some(root) = parsed.root.filter(|root| !root.is_empty()) else {
        let e = Error::recipe(file, "nothing stands in it: expected the keys of a card");
        return Err(of_a_card(e.hint(KEYS)));
    };
    if let Some(found) = root.no_mapping() {
        let e = root
            .place
            .error(format!("expected the keys of a card, found {found}"));
        return Err(of_a_card(e.hint(KEYS)));
    }
    let understood = yaml::understand::<Card>(&root, parsed.faults, false);
    let mut errors = Vec::new();
    if let Some(card) = &understood.value {
        errors = super::check::faults(card, &root);
        // What nobody wrote is not wrong.
        errors.retain(|e| !understood.is_moot(e));
    }
    errors.extend(understood.faults);
    errors.sort_by_key(|e| match e {
        Error::Recipe { line, .. } => line.unwrap_or((usize::MAX, 0)),
        _ => (0, 0),
    });
    all(errors.into_iter().map(of_a_card).collect())?;
    let name = root.child("name").map_or(&root.place, |(at, _)| at).clone();
    match understood.value {
        Some(card) => Ok((card, name)),
        None => Err(of_a_card(Error::recipe(file, "cannot be read"))),
    }
}
