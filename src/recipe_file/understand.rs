//! A typed value out of layers, with all that is wrong at once: what does not fit is told, then taken out or replaced by
//! something that fits, so that the rest can be read and checked.

use super::layers::{usage, Layers};
use crate::error::Error;
use crate::yaml::{Content, Failure, Node, Place, Source, Step};
use serde::de::DeserializeOwned;

/// So many faults of a recipe are told at once.
const MOST_FAULTS: usize = 30;

/// What could be read of a recipe.
pub(super) struct Understood<T> {
    /// None where even what fits could not be put together.
    pub value: Option<T>,
    pub faults: Vec<Error>,
    /// Keys, as a command line writes them, whose values are not the recipe's: checks of them say nothing.
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

impl Layers {
    /// Reads all that can be read.
    pub(super) fn understand<T: DeserializeOwned>(&mut self) -> Understood<T> {
        let mut faults = std::mem::take(&mut self.faults);
        let nowhere = Place::whole("", "");
        let mut rest = self.root.clone();
        let mut taken: Vec<Vec<Step>> = Vec::new();
        let mut tried: Vec<(Vec<Step>, usize)> = Vec::new();
        let mut doubtful = Vec::new();
        let value = loop {
            let failure = match T::deserialize(&rest) {
                Ok(value) => break Some(value),
                Err(failure) => failure,
            };
            let mut path = failure.path();
            if self.incomplete && failure.wants_list() && rest.at_mut(&path).is_some_and(Node::list_by_name) {
                continue;
            }
            let ours = failure.place().is_some_and(|p| p.is(&nowhere));
            let mut next = None;
            if let Some(key) = failure.missing() {
                path.push(Step::Key(key.into()));
                let known = ours || self.incomplete || taken.contains(&path);
                if !known {
                    faults.push(self.told(failure));
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
                faults.push(self.told(failure));
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
        faults.sort_by_key(|e| !matches!(e, Error::Usage { .. }));
        if faults.len() >= MOST_FAULTS {
            faults.truncate(MOST_FAULTS);
            let file = self.root.place.source.file.clone();
            faults.push(Error::recipe(file, "there may be more: these are the first"));
        }
        Understood {
            value,
            faults,
            doubtful,
        }
    }

    fn told(&self, failure: Failure) -> Error {
        let said = failure
            .place()
            .is_some_and(|p| p.source.file == Source::COMMAND_LINE);
        let error = failure.into_error(&self.root);
        match said {
            true => usage(error),
            false => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        stages: Vec<Inner>,
        sizes: Option<Sizes>,
    }
    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        name: String,
        steps: usize,
        #[serde(default)]
        flag: bool,
    }
    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Sizes {
        width: i64,
        rate: f64,
        parts: Vec<String>,
        by: std::collections::BTreeMap<String, f64>,
        on: bool,
    }

    const TEXT: &str = "stages:\n  - name: one\n    steps: 5\n";

    fn read(text: &str, overrides: &[&str]) -> Understood<Outer> {
        let mut layers = Layers::of(text, "r.yaml").unwrap();
        let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
        layers.change(&overrides);
        layers.understand()
    }

    fn faults(text: &str, overrides: &[&str]) -> Vec<String> {
        let understood = read(text, overrides);
        understood.faults.iter().map(Error::to_string).collect()
    }

    #[test]
    fn an_unknown_key_is_placed_and_a_near_one_named() {
        let [e] = &faults(&TEXT.replace("steps", "stepps"), &[])[..] else {
            panic!()
        };
        assert!(e.starts_with("r.yaml:3:5: "), "{e}");
        assert!(e.contains("did you mean `steps`?"), "{e}");
        assert!(e.contains("3 |     stepps: 5"), "{e}");
    }

    #[test]
    fn a_wrong_type_is_placed() {
        let e = &faults(&TEXT.replace('5', "many"), &[])[0];
        assert!(
            e.starts_with("r.yaml:3:12: stages[0].steps: invalid type: string \"many\""),
            "{e}"
        );
        assert!(e.contains("a whole number, 0 or more"), "{e}");
    }

    #[test]
    fn a_list_is_no_mapping() {
        for (text, place) in [
            ("stages: [[one, 5, true]]\n", "r.yaml:1:10: stages[0]: "),
            (
                "stages: []\nsizes: [1, 2.0, [a], {b: 1}, true]\n",
                "r.yaml:2:8: sizes: ",
            ),
        ] {
            let found = faults(text, &[]);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(place), "{found:?}");
            assert!(found[0].contains("a list, expected a mapping"), "{found:?}");
        }
    }

    #[test]
    fn every_fault_is_told_and_the_rest_is_read() {
        let text = "stages:\n  - {name: one, steps: 1_0, flag: yes}\n  - {nmae: two, steps: '7'}\n\
            sizes: {width: 1.0, rate: \"2\", parts: clap, on: 3, more: 1}\nodd: 1\n";
        let found = faults(text, &["stages.one.stps=3", "x", "stages.nine.steps=1"]);
        for piece in [
            "write 10: digits stand together",
            "write true",
            "unknown field `nmae`",
            "write 7 without them",
            "write 1, without a point",
            "write 2 without them",
            "[clap]",
            "missing field `by`",
            "sizes.on: invalid type",
            "unknown field `more`",
            "unknown field `odd`",
            "stages.one.stps=3: stages[0]: unknown field `stps`",
            "expected key=value",
            "no element `nine`",
        ] {
            let told: Vec<_> = found.iter().filter(|e| e.contains(piece)).collect();
            assert_eq!(told.len(), 1, "{piece}: {found:#?}");
        }
        // Nothing that follows from them.
        assert_eq!(found.len(), 14, "{found:#?}");
        let value = read(text, &[]).value.unwrap();
        assert_eq!(value.stages.len(), 2);
        assert!(found[0].starts_with("command line: ") && !found[3].starts_with("command line: "));
    }

    #[test]
    fn what_is_not_known_is_not_checked() {
        let understood = read("stages: [{name: one, steps: many}]\n", &[]);
        let about = |message: &str| Error::recipe("r.yaml", message.to_owned());
        assert!(understood.is_moot(&about("stages.one.steps: 1 is not from 5 to 9")));
        assert!(understood.is_moot(&about("stages.one.flag: needs stages.one.steps")));
        assert!(!understood.is_moot(&about("stages.one.stepsize: 1")));
        assert!(!understood.is_moot(&about("stages.one.flag: 1")));
    }

    #[test]
    fn overrides_reach_lists_by_index_and_by_name() {
        for key in ["stages.0.steps", "stages.one.steps"] {
            let understood = read(TEXT, &[&format!("{key}=7")]);
            assert_eq!(understood.value.unwrap().stages[0].steps, 7);
        }
        let deep = format!("{}=1", "a.".repeat(60_000) + "a");
        assert!(faults(TEXT, &[&deep])[0].len() < 200_000);
    }

    #[test]
    fn faults_without_end_are_not_all_told() {
        let many: String = (0..1000).map(|i| format!("k{i}: 1\n")).collect();
        let found = faults(&(TEXT.to_owned() + &many), &[]);
        assert_eq!(found.len(), MOST_FAULTS + 1);
        assert!(found[MOST_FAULTS].contains("these are the first"));
    }
}
