//! Recipes in layers: a file over its base over that one's base, and changes from the command line over all of them. Errors
//! point: file, line, column, the line itself, and "did you mean".

use super::de::Failure;
use super::import;
use super::node::Node;
use super::parse::parse as read_text;
use super::place::{Place, Source};
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// The key that names the file which is read first.
const BASE: &str = "base";

/// So many faults of a recipe are told at once.
const MOST_FAULTS: usize = 20;

/// Files and changes, merged.
pub struct Layers {
    root: Node,
    /// Set where the lowest file is the reference's own.
    pub imported: Option<import::Imported>,
}

impl Layers {
    /// Reads a file and the bases it names.
    ///
    /// # Errors
    /// Files that cannot be read, no YAML, a base that leads back to a file that names it.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            crate::fsutil::read_text(path).map_err(|e| e.hint("a recipe is a YAML file, see recipes/"))?;
        let own = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        layer(&text, path, &mut vec![own])
    }

    /// Reads a text as if it stood in `file`.
    ///
    /// # Errors
    /// As [`Layers::load`].
    pub fn of(text: &str, file: &str) -> Result<Self> {
        layer(text, Path::new(file), &mut Vec::new())
    }

    /// Applies `key=value` from the command line; `key=null` removes a key.
    ///
    /// # Errors
    /// No `=`, a value that is no YAML, a path that leads nowhere.
    pub fn change(&mut self, overrides: &[String]) -> Result<()> {
        for one in overrides {
            let place = Place::whole(Source::COMMAND_LINE, one.as_str());
            let Some((key, value)) = one.split_once('=') else {
                return Err(place
                    .error("expected key=value")
                    .hint("for example stages.0.steps=100"));
            };
            let value = if value.trim().is_empty() { "null" } else { value };
            let mut value = read_text(value, Source::COMMAND_LINE).map_err(|e| match e {
                Error::Recipe { message, .. } => place.error(message.lines().next().unwrap_or_default()),
                e => e,
            })?;
            value.stand_at(&place);
            self.root.set(key, value).map_err(|m| place.error(m))?;
        }
        Ok(())
    }

    /// The whole as a typed value.
    ///
    /// # Errors
    /// Unknown keys, missing keys, wrong types: all of them.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let mut next = match T::deserialize(&self.root) {
            Ok(value) => return Ok(value),
            Err(e) => Some(e),
        };
        // Types stop at the first fault: it is taken out, and they are asked again.
        let (mut rest, mut found) = (self.root.clone(), Vec::<Failure>::new());
        while let Some(failure) = next.take() {
            let taken = failure.place().map_or(0, |place| rest.remove_at(place));
            // A key that is missed because it was taken out is none.
            if !(failure.is_of_missing() && found.iter().any(|f| f.is_within(&failure))) {
                found.push(failure);
            }
            if taken > 0 && found.len() < MOST_FAULTS {
                next = T::deserialize(&rest).err();
            }
        }
        let errors = found.into_iter().map(|e| e.into_error(&self.root)).collect();
        Err(crate::error::all(errors)
            .err()
            .unwrap_or_else(|| Error::recipe("recipe", "cannot be read")))
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
    pub fn imported_yaml(&self) -> Option<String> {
        let imported = self.imported.as_ref()?;
        Some(super::write::commented(&self.root, &|key| imported.comment(key)))
    }

    /// Where the value under a dotted path was written: `file:line`, `command line`; none where it was not.
    pub fn origin(&self, path: &[String]) -> Option<String> {
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
    pub fn placed(&self, error: Error) -> Error {
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

/// One file over its base. `above` are the files that led here.
fn layer(text: &str, path: &Path, above: &mut Vec<PathBuf>) -> Result<Layers> {
    let file = path.display().to_string();
    let mut own = read_text(text, &file)?;
    if import::is_reference(&own) {
        let (root, imported) = import::convert(&own)?;
        return Ok(Layers {
            root,
            imported: Some(imported),
        });
    }
    let Some(base) = own.take(BASE) else {
        return Ok(Layers {
            root: own,
            imported: None,
        });
    };
    let wrong = |message: String| base.place.error(format!("{BASE}: {message}"));
    let Some(name) = base.text() else {
        return Err(wrong("expected the path of a recipe".into()).hint("relative to this file"));
    };
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
    let mut layers = layer(&crate::fsutil::read_text(&below)?, &below, above)?;
    layers.root.merge(own)?;
    Ok(layers)
}

/// Reads `text` as a `T`, with `key=value` overrides from the command line applied afterwards.
/// `file` is named in errors, and a base is looked for beside it.
pub fn parse<T: DeserializeOwned>(text: &str, file: &str, overrides: &[String]) -> Result<T> {
    let mut layers = Layers::of(text, file)?;
    layers.change(overrides)?;
    layers.read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        stages: Vec<Inner>,
    }
    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code)]
        name: String,
        steps: usize,
    }

    const TEXT: &str = "stages:\n  - name: one\n    steps: 5\n";

    #[test]
    fn an_unknown_key_is_placed_and_a_near_one_named() {
        let e = parse::<Outer>(&TEXT.replace("steps", "stepps"), "r.yaml", &[])
            .unwrap_err()
            .to_string();
        assert!(e.starts_with("r.yaml:3:5: "), "{e}");
        assert!(e.contains("did you mean `steps`?"), "{e}");
        assert!(e.contains("3 |     stepps: 5"), "{e}");
    }

    #[test]
    fn a_wrong_type_is_placed() {
        let e = parse::<Outer>(&TEXT.replace('5', "many"), "r.yaml", &[])
            .unwrap_err()
            .to_string();
        assert!(
            e.starts_with("r.yaml:3:12: stages[0].steps: invalid type: string \"many\""),
            "{e}"
        );
    }

    #[test]
    fn overrides_reach_lists_by_index_and_by_name() {
        for key in ["stages.0.steps", "stages.one.steps"] {
            let r: Outer = parse(TEXT, "r.yaml", &[format!("{key}=7")]).unwrap();
            assert_eq!(r.stages[0].steps, 7);
        }
        let e = parse::<Outer>(TEXT, "r.yaml", &["stages.0.stps=7".into()])
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("command line: stages.0.stps=7") && e.contains("did you mean `steps`?"),
            "{e}"
        );
        assert!(parse::<Outer>(TEXT, "r.yaml", &["stages.two.steps=7".into()]).is_err());
    }
}
