//! A typed value out of a tree, with all that is wrong at once: what does not fit is told, then taken out or replaced by
//! something that fits, so that the rest can be read and checked.

use super::node::{Content, Node, Step};
use super::place::Place;
use crate::error::Error;
use serde::de::DeserializeOwned;

/// So many faults of a file are told at once.
const MOST_FAULTS: usize = 30;

/// What could be read of a tree.
pub(crate) struct Understood<T> {
    /// None where even what fits could not be put together.
    pub value: Option<T>,
    pub faults: Vec<Error>,
    /// Keys, as a command line writes them, whose values are not the file's: checks of them say nothing.
    doubtful: Vec<String>,
}

impl<T> Understood<T> {
    /// Whether an error is about a value that nobody wrote.
    pub(crate) fn is_moot(&self, error: &Error) -> bool {
        let Error::Recipe { message, hint, .. } = error else {
            return false;
        };
        let said = format!("{message} {}", hint.as_deref().unwrap_or_default());
        self.doubtful.iter().any(|key| names(&said, key))
    }
}

/// Whether a text names a key, or one below it.
fn names(text: &str, key: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    text.match_indices(key).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + key.len()..].chars().next();
        !before.is_some_and(inside) && !after.is_some_and(|c| inside(c) && c != '.')
    })
}

/// What may stand for a key that is needed, until one fits: it is of a number, a text or a path; of a list; of a mapping; of
/// a truth.
const STAND_INS: usize = 4;

fn stand_in(which: usize, place: &Place) -> Node {
    let content = match which {
        0 => return Node::plain("1", place),
        1 => Content::List(Vec::new()),
        2 => return Node::map(place),
        _ => return Node::plain("true", place),
    };
    Node {
        place: place.clone(),
        content,
    }
}

/// Reads all that can be read. `faults` are those of the text, told first; `incomplete` says that what is missing may stand in
/// another file, which could not be read.
pub(crate) fn understand<T: DeserializeOwned>(
    root: &Node,
    mut faults: Vec<Error>,
    incomplete: bool,
) -> Understood<T> {
    let nowhere = Place::whole("", "");
    let mut rest = root.clone();
    let mut taken: Vec<Vec<Step>> = Vec::new();
    let mut tried: Vec<(Vec<Step>, usize)> = Vec::new();
    let mut doubtful = Vec::new();
    let value = loop {
        let failure = match T::deserialize(&rest) {
            Ok(value) => break Some(value),
            Err(failure) => failure,
        };
        let mut path = failure.path();
        if incomplete && failure.wants_list() && rest.at_mut(&path).is_some_and(Node::list_by_name) {
            continue;
        }
        let ours = failure.place().is_some_and(|p| p.is(&nowhere));
        let mut next = None;
        if let Some(key) = failure.missing() {
            path.push(Step::Key(key.into()));
            let known = ours || incomplete || taken.contains(&path);
            if !known {
                faults.push(failure.into_error(root));
            }
            next = Some(0);
            doubtful.push(rest.dotted(&path));
            tried.push((path.clone(), 0));
        } else if ours {
            // A stand-in that does not fit.
            if let Some((_, which)) = tried.iter_mut().find(|(p, _)| *p == path) {
                *which += 1;
                next = Some(*which);
            }
        } else {
            doubtful.push(rest.dotted(&path));
            if let (Some(key), Some((_, above))) = (failure.nearest_key(), path.split_last()) {
                // What a slip was meant to be is neither missing nor what the default says.
                let meant = [above, &[Step::Key(key.into())]].concat();
                doubtful.push(rest.dotted(&meant));
                taken.push(meant);
            }
            faults.push(failure.into_error(root));
        }
        let went_on = match next {
            Some(which) if which >= STAND_INS => false,
            Some(which) => rest.put(&path, stand_in(which, &nowhere)),
            None => {
                taken.push(path.clone());
                rest.remove(&path)
            }
        };
        if !went_on || faults.len() >= MOST_FAULTS {
            break None;
        }
    };
    if faults.len() >= MOST_FAULTS {
        faults.truncate(MOST_FAULTS);
        faults.push(Error::recipe(
            &root.place.source.file,
            "there may be more: these are the first",
        ));
    }
    Understood {
        value,
        faults,
        doubtful,
    }
}
