//! How a judge marks free text, as data: whom to ask, with which words, on which scale, how often, and what is made of the marks.
//! Every key stands in the table of `docs/judging.md`.

use super::embedded::PROTOCOLS;
use super::fault::of_a_card;
use super::names::Mark;
use crate::error::{all, nearest, Error, Result};
use crate::yaml::{self, MOST_BYTES};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;

const KEYS: &str = "docs/judging.md has the keys of a protocol, data-manifests/judges/ has protocols";

/// A judge's protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// The file is called so.
    pub name: String,
    /// From 1: another one asks otherwise.
    pub version: u32,
    /// What is marked, in a sentence.
    pub about: String,
    /// Whose description the words follow.
    pub after: String,
    /// How well it is known that it is asked so.
    pub mark: Mark,
    /// What to know about it.
    #[serde(default)]
    pub note: Option<String>,
    /// Who is asked, unless told otherwise: a snapshot.
    pub model: String,
    /// Not sent where it is `null`.
    pub temperature: Option<f64>,
    /// The same.
    pub seed: Option<u64>,
    /// Most tokens of a reply.
    pub max_tokens: u32,
    /// How often each answer is marked.
    pub runs: u32,
    /// What becomes of the marks of several runs.
    pub aggregate: Aggregate,
    /// Of every mark that no rubric bounds otherwise.
    pub scale: MarkScale,
    /// What is marked; empty where the items bring their own, or pairs are compared.
    pub criteria: Vec<Criterion>,
    /// The items' key for criteria of their own.
    #[serde(default)]
    pub rubric: Option<String>,
    /// What an item gets of its marks.
    pub item: ItemMark,
    /// An answer that is wrong by this rule gets 0 and is not judged.
    #[serde(default)]
    pub gate: Option<String>,
    /// Which items are judged, where not all are.
    #[serde(default)]
    pub only: Option<Only>,
    /// Whether the answer stands beside the reference, neither of them named, in both orders.
    #[serde(default)]
    pub pairs: bool,
    /// What the judge is told of its task.
    pub system: String,
    /// What it is asked, with names of [`Field`]s in braces.
    pub prompt: String,
}

/// What becomes of several runs' marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// Their mean.
    Mean,
    /// The one in the middle, or the mean of both there.
    Median,
    /// The mean without the lowest and the highest.
    Trimmed,
}

/// What an item gets of its criteria's marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemMark {
    /// Their mean.
    Mean,
    /// The mark of the criterion `overall`.
    Overall,
    /// Their sum over the sum of their highest.
    Share,
}

/// Items that are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Only {
    /// Questions without options.
    Open,
}

/// From where to where marks go.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkScale {
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// Whether there is nothing between whole numbers.
    pub whole: bool,
}

/// One thing that is marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// Its key in the reply: small letters, digits, `_`.
    pub name: String,
    /// What it means.
    pub about: String,
}

/// What may stand in braces in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // `NAMES` and the table of the page say each.
pub enum Field {
    Question,
    Reference,
    Prediction,
    Options,
    Caption,
    Events,
    Thinking,
    Criteria,
    Form,
    First,
    Second,
}

const FIELDS: [(&str, Field); 11] = [
    ("question", Field::Question),
    ("reference", Field::Reference),
    ("prediction", Field::Prediction),
    ("options", Field::Options),
    ("caption", Field::Caption),
    ("events", Field::Events),
    ("thinking", Field::Thinking),
    ("criteria", Field::Criteria),
    ("form", Field::Form),
    ("first", Field::First),
    ("second", Field::Second),
];

impl Field {
    /// As it stands in braces.
    pub fn name(self) -> &'static str {
        FIELDS
            .iter()
            .find(|(_, f)| *f == self)
            .map_or("", |(name, _)| name)
    }
}

/// A piece of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it stands.
    Text(&'a str),
    /// In its place the item's own.
    Field(Field),
}

impl Protocol {
    /// Names of those that are built in.
    pub fn names() -> Vec<&'static str> {
        PROTOCOLS.iter().map(|(name, _)| *name).collect()
    }

    /// One that is built in, and the text of its file.
    ///
    /// # Errors
    /// A name that none has.
    pub fn built_in(name: &str) -> Result<(Self, &'static str)> {
        let Some((_, text)) = PROTOCOLS.iter().find(|(own, _)| *own == name) else {
            let e = Error::usage(format!("no judge's protocol is called `{name}`"));
            return Err(e.hint(format!("there are {}", Self::names().join(", "))));
        };
        let file = format!("data-manifests/judges/{name}.yaml (built in)");
        Ok((Self::parse(text, &file)?, text))
    }

    /// Reads a file, and hands its text out as well.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with file, line and key.
    pub fn read(path: &Path) -> Result<(Self, String)> {
        let text = crate::fsutil::read_text_within(path, MOST_BYTES)?;
        Ok((Self::parse(&text, &path.display().to_string())?, text))
    }

    /// Reads a text; `file` is what errors name.
    ///
    /// # Errors
    /// As [`Protocol::read`].
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let parsed = yaml::parse(text, file).map_err(of_a_card)?;
        let Some(root) = parsed
            .root
            .filter(|root| !root.is_empty() && root.no_mapping().is_none())
        else {
            let e = Error::recipe(file, "expected the keys of a judge's protocol");
            return Err(of_a_card(e.hint(KEYS)));
        };
        let understood = yaml::understand::<Protocol>(&root, parsed.faults, false);
        let mut errors = Vec::new();
        for (key, message) in understood.value.iter().flat_map(Protocol::faults) {
            let place = root.child(key).map_or(&root.place, |(at, _)| at);
            errors.push(place.error(format!("{key}: {message}")));
        }
        errors.retain(|e| !understood.is_moot(e));
        errors.extend(understood.faults);
        all(errors.into_iter().map(of_a_card).collect())?;
        understood
            .value
            .ok_or_else(|| of_a_card(Error::recipe(file, "cannot be read").hint(KEYS)))
    }

    /// What is wrong beyond the type of each value, by key.
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        let MarkScale { low, high, .. } = self.scale;
        if !(low.is_finite() && high.is_finite() && low < high && low >= 0.0) {
            all.push((
                "scale",
                "expected `low` from 0 on, and `high` above it".to_owned(),
            ));
        }
        for (key, number) in [
            ("version", self.version),
            ("runs", self.runs),
            ("max_tokens", self.max_tokens),
        ] {
            if number == 0 {
                all.push((key, "is 0".into()));
            }
        }
        if self.aggregate == Aggregate::Trimmed && self.runs < 3 {
            all.push((
                "aggregate",
                "without the lowest and the highest nothing is left of fewer than 3 runs".into(),
            ));
        }
        if self.temperature.is_some_and(|t| !(0.0..=2.0).contains(&t)) {
            all.push(("temperature", "is not from 0 to 2".into()));
        }
        let mut seen = HashSet::new();
        for Criterion { name, .. } in &self.criteria {
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if name.is_empty() || !name.chars().all(fine) || !seen.insert(name) {
                all.push((
                    "criteria",
                    format!("`{name}`: expected each name once, in small letters, digits and `_`"),
                ));
            }
        }
        let own = usize::from(!self.criteria.is_empty())
            + usize::from(self.rubric.is_some())
            + usize::from(self.pairs);
        if own != 1 {
            all.push((
                "criteria",
                "expected either criteria, or `rubric`, or `pairs`".into(),
            ));
        }
        if self.item == ItemMark::Overall && !seen.contains(&"overall".to_owned()) {
            all.push(("item", "`overall`, and no criterion is called so".into()));
        }
        match self.pieces() {
            Err(e) => all.push(("prompt", e)),
            Ok(pieces) => {
                let has = |field| pieces.contains(&Piece::Field(field));
                let mut wanted = vec![Field::Form];
                match self.pairs {
                    true => wanted.extend([Field::First, Field::Second]),
                    false if self.rubric.is_some() => wanted.push(Field::Criteria),
                    false => {}
                }
                for field in wanted.into_iter().filter(|f| !has(*f)) {
                    all.push(("prompt", format!("expected {{{}}} in it", field.name())));
                }
                if !self.pairs && (has(Field::First) || has(Field::Second)) {
                    all.push(("prompt", "{first} and {second} are of `pairs`".into()));
                }
            }
        }
        all
    }

    /// The prompt, taken apart.
    ///
    /// # Errors
    /// A name in braces that is no field, in words.
    pub fn pieces(&self) -> Result<Vec<Piece<'_>>, String> {
        let (mut pieces, mut rest) = (Vec::new(), self.prompt.as_str());
        while let Some((before, behind)) = rest.split_once('{') {
            let Some((name, after)) = behind.split_once('}') else {
                return Err("a brace is not closed".into());
            };
            let known = FIELDS.iter().find(|(own, _)| *own == name);
            let Some((_, field)) = known else {
                let names = FIELDS.iter().map(|(own, _)| *own);
                let near = nearest(name, names.clone())
                    .map_or(String::new(), |n| format!(": did you mean {{{n}}}?"));
                let list = names.collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "{{{}}} is none of {list}{near}",
                    crate::error::short(&name)
                ));
            };
            pieces.extend([Piece::Text(before), Piece::Field(*field)]);
            rest = after;
        }
        pieces.push(Piece::Text(rest));
        Ok(pieces)
    }
}
