//! A recipe out of its layers, with all that is wrong at once.

use super::layers::{usage, Layers};
use crate::error::Error;
use crate::yaml::{understand, Source, Understood};
use serde::de::DeserializeOwned;

impl Layers {
    /// Reads all that can be read. What was said on the command line is wrong there, and is told first.
    pub(super) fn understand<T: DeserializeOwned>(&mut self) -> Understood<T> {
        let mut understood = understand(&self.root, std::mem::take(&mut self.faults), self.incomplete);
        for fault in &mut understood.faults {
            let said = matches!(fault, Error::Recipe { file, .. } if file == Source::COMMAND_LINE);
            if said {
                let error = std::mem::replace(fault, Error::usage(""));
                *fault = usage(error);
            }
        }
        understood
            .faults
            .sort_by_key(|e| !matches!(e, Error::Usage { .. }));
        understood
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many are told of one recipe.
    const MOST: usize = 30;

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
        assert_eq!(found.len(), MOST + 1);
        assert!(found[MOST].contains("these are the first"));
    }
}
