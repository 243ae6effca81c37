//! Recipes in layers: a file over its base over that one's base, and changes from the command line over all of them.

use super::renamed::renew;
use crate::error::{Error, Result};
use crate::fsutil::read_text_within;
use crate::recipe::texts;
use crate::reference::{self, Imported};
use crate::yaml::{parse, Node, Place, Source, MOST_BYTES};
use std::path::{Path, PathBuf};

/// The key that names the file which is read first.
const BASE: &str = "base";
/// Bases below each other.
const MOST_BASES: usize = 32;
/// Parts of a key on the command line.
const MOST_PARTS: usize = 32;
const KEYS: &str = "such as `name: mine`, each in a line of its own; recipes/ has examples";

/// Files and changes, merged.
pub(crate) struct Layers {
    pub(super) root: Node,
    /// Set where the lowest file is the reference's own.
    pub(super) imported: Option<Imported>,
    /// What is wrong with the files and the changes, as far as they could be merged all the same.
    pub(super) faults: Vec<Error>,
    /// A base could not be read: what is missing may stand in it.
    pub(super) incomplete: bool,
    /// Keys that have another name now, one note each.
    pub(super) renamed: Vec<String>,
}

impl Layers {
    /// Reads a file and the bases it names. What is wrong in them but leaves the rest readable is told with what is wrong
    /// with the whole.
    ///
    /// # Errors
    /// A file that cannot be read, or is no YAML.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = read_text_within(path, MOST_BYTES).map_err(|e| match &e {
            Error::Io { hint: None, .. } => e.hint("a recipe is a YAML file, see recipes/"),
            _ => e,
        })?;
        let own = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        layer(&text, path, &mut vec![own])
    }

    /// Reads a text as if it stood in `file`.
    ///
    /// # Errors
    /// As [`Layers::load`].
    pub(crate) fn of(text: &str, file: &str) -> Result<Self> {
        layer(text, Path::new(file), &mut Vec::new())
    }

    /// Applies `key=value` from the command line; `key=null` removes a key. No `=`, a value that is no YAML and a path that
    /// leads nowhere are told with what is wrong with the whole.
    pub(crate) fn change(&mut self, overrides: &[String]) {
        for one in overrides {
            if let Err(e) = self.change_one(one) {
                self.faults.push(e);
            }
        }
        self.renamed.extend(renew(&mut self.root));
    }

    fn change_one(&mut self, one: &str) -> Result<()> {
        let place = Place::whole(Source::COMMAND_LINE, one);
        let Some((key, value)) = one.split_once('=') else {
            let e = place.error("expected key=value");
            return Err(usage(e.hint("for example stages.0.optim.steps=100")));
        };
        if key.split('.').count() > MOST_PARTS {
            return Err(usage(place.error("so deep no key lies")));
        }
        let own = |e: Error| match e {
            Error::Recipe { message, hint, .. } => {
                let e = place.error(message.lines().next().unwrap_or_default());
                usage(match hint {
                    Some(hint) => e.hint(hint),
                    None => e,
                })
            }
            e => e,
        };
        let parsed = parse(value, Source::COMMAND_LINE).map_err(own)?;
        if let Some(fault) = parsed.faults.into_iter().next() {
            return Err(own(fault));
        }
        let mut value = parsed.root.unwrap_or_else(|| Node::plain("null", &place));
        value.stand_at(&place);
        self.root.set(key, value).map_err(|m| usage(place.error(m)))
    }

    /// Puts the numbers that were counted into an imported stage.
    pub(super) fn counted(&mut self, numbers: &[(&str, usize)]) -> Result<()> {
        let place = Place::whole("counted in the manifests", "");
        for (key, number) in numbers {
            let key = format!("stages.0.{key}");
            let told = self
                .find(key.split('.'))
                .and_then(|(_, n)| n.text())
                .map(str::to_owned);
            if told.as_deref() != Some(&number.to_string()) && *number > 0 {
                let node = Node::plain(number.to_string(), &place);
                self.root.set(&key, node).map_err(|m| place.error(m))?;
            }
        }
        Ok(())
    }

    /// An imported recipe as a file of its own, each line with the reference's key behind it.
    pub(crate) fn imported_yaml(&self) -> Option<String> {
        let imported = self.imported.as_ref()?;
        Some(super::write::commented(&self.root, &|key| imported.comment(key)))
    }

    /// Where the value under a dotted path was written: `file:line`, `command line`; none where it was not.
    pub(crate) fn origin(&self, path: &[String]) -> Option<String> {
        self.find(path.iter().map(String::as_str)).map(|(p, _)| p.short())
    }

    fn find<'k>(&self, path: impl Iterator<Item = &'k str>) -> Option<(&Place, &Node)> {
        let mut at = (&self.root.place, &self.root);
        for part in path {
            at = at.1.child(part)?;
        }
        Some(at)
    }

    /// The place of a dotted key, or of what is nearest above it.
    fn nearest(&self, key: &str) -> Option<&Place> {
        let parts: Vec<&str> = key.split('.').collect();
        let found = (1..=parts.len())
            .rev()
            .find_map(|n| self.find(parts[..n].iter().copied()));
        found.map(|(place, _)| place)
    }

    /// Gives errors that begin with a key (`stages.stage1.windows: …`) the place of that key, or of the nearest above it.
    pub(crate) fn placed(&self, error: Error) -> Error {
        match error {
            Error::Many(all) => Error::Many(all.into_iter().map(|e| self.placed(e)).collect()),
            Error::Recipe {
                line: None,
                message,
                hint,
                file,
            } => {
                let place = self.nearest(message.split(':').next().unwrap_or_default());
                match place {
                    Some(place) => {
                        let placed = place.error(message);
                        match hint {
                            Some(hint) => placed.hint(hint),
                            None => placed,
                        }
                    }
                    None => Error::Recipe {
                        line: None,
                        message,
                        hint,
                        file,
                    },
                }
            }
            e => e,
        }
    }
}

/// What was said on the command line and cannot be understood.
pub(super) fn usage(e: Error) -> Error {
    match e {
        Error::Recipe { message, hint, .. } => Error::Usage { message, hint },
        e => e,
    }
}

/// One file over its base. `above` are the files that led here.
fn layer(text: &str, path: &Path, above: &mut Vec<PathBuf>) -> Result<Layers> {
    let file = path.display().to_string();
    let parsed = parse(text, &file)?;
    let mut faults = parsed.faults;
    let Some(mut own) = parsed.root.filter(|root| !root.is_empty()) else {
        faults.push(Error::recipe(&file, "nothing stands in it: expected the keys of a recipe").hint(KEYS));
        return Err(Error::Many(faults));
    };
    if let Some(found) = own.no_mapping() {
        faults.push(
            own.place
                .error(format!("expected the keys of a recipe, found {found}"))
                .hint(KEYS),
        );
        return Err(Error::Many(faults));
    }
    let renamed = renew(&mut own);
    let mut layers = Layers {
        root: own.clone(),
        imported: None,
        faults,
        incomplete: false,
        renamed,
    };
    if reference::is_reference(&own) {
        match reference::convert(&own) {
            Ok((root, imported)) => {
                layers.root = root;
                layers.imported = Some(imported);
            }
            Err(e) => {
                layers.faults.push(e);
                return Err(Error::Many(layers.faults));
            }
        }
        return Ok(layers);
    }
    let Some(base) = own.take(BASE) else {
        return Ok(layers);
    };
    match below(&base, path, above) {
        Ok(mut whole) => {
            whole.faults.append(&mut layers.faults);
            whole.renamed.append(&mut layers.renamed);
            whole.faults.extend(whole.root.merge(own));
            Ok(whole)
        }
        Err(e) => {
            layers.faults.push(e);
            layers.root = own;
            layers.incomplete = true;
            Ok(layers)
        }
    }
}

/// What a file names as its base.
fn below(base: &Node, path: &Path, above: &mut Vec<PathBuf>) -> Result<Layers> {
    let wrong = |message: String| base.place.error(format!("{BASE}: {message}"));
    let Some(name) = base.text() else {
        return Err(wrong("expected the path of a recipe".into()).hint("relative to this file"));
    };
    if let Some(variable) = texts::variable(name) {
        return Err(wrong(format!("`{name}`: {variable}")).hint(texts::WRITE_OUT));
    }
    if above.len() > MOST_BASES {
        return Err(wrong(format!("more than {MOST_BASES} recipes over each other")));
    }
    let below = path.parent().unwrap_or(Path::new("")).join(name);
    let known = below.canonicalize().map_err(|e| {
        wrong(format!("{}: {e}", below.display())).hint("a base is named relative to this file")
    })?;
    if above.contains(&known) {
        let chain: Vec<String> = above
            .iter()
            .chain([&known])
            .map(|p| p.display().to_string())
            .collect();
        return Err(wrong(format!(
            "recipes that are each other's base: {}",
            chain.join(" → ")
        )));
    }
    above.push(known);
    let text = read_text_within(&below, MOST_BYTES).map_err(|e| match e {
        Error::Io { path, source, hint } => {
            let e = wrong(format!("{}: {source}", path.display()));
            e.hint(hint.unwrap_or("a base is a recipe, a YAML file".into()))
        }
        e => e,
    })?;
    layer(&text, &below, above)
}
