//! MMAU-Pro's three kinds of items, of which a text alone decides one. Its script takes closed questions by NV-Embed's cosines, open
//! ones by a judge, and instructions by checks; the total weighs them by their items.

use super::sample::Sample;
use crate::benchmark::names::Rule;
use crate::benchmark::Card;
use crate::eval::rules::{Judged, RuleName, State};
use indexmap::IndexMap;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Sort {
    Instruction,
    Closed,
    Open,
}

fn of(sample: &Sample) -> Sort {
    let text = |key: &str| {
        let record = sample.record.as_ref();
        record.and_then(|r| r.get(key)?.as_str()).unwrap_or_default()
    };
    let told = !text("task_identifier").is_empty() || text("category") == "instruction following";
    match told {
        true => Sort::Instruction,
        false if text("category") != "open" && !sample.choices.is_empty() => Sort::Closed,
        false => Sort::Open,
    }
}

/// Whether an item is a question without options, which a judge marks.
pub(crate) fn is_open(sample: &Sample) -> bool {
    of(sample) == Sort::Open
}

fn is_one(card: &Card) -> bool {
    card.rules
        .as_ref()
        .is_some_and(|r| r.official == Rule::MmauProInstructions)
}

/// Whether the rule decides the item. Of other benchmarks each rule decides all.
pub(super) fn decides(card: &Card, rule: RuleName, sample: &Sample) -> bool {
    !is_one(card) || of(sample) == decided(rule)
}

fn decided(rule: RuleName) -> Sort {
    match rule {
        RuleName::MmauProInstructions => Sort::Instruction,
        _ => Sort::Closed,
    }
}

/// Items that a rule does not decide, counted by category and kind.
#[derive(Default)]
pub(super) struct Undecided(IndexMap<(String, Sort), usize>);

impl Undecided {
    pub(super) fn add(&mut self, sample: &Sample) {
        let category = sample.groups.iter().find(|(key, _)| *key == "category");
        let category = category.map_or("without a category".to_owned(), |(_, c)| c.to_string());
        *self.0.entry((category, of(sample))).or_default() += 1;
    }

    pub(super) fn append(&mut self, other: Self) {
        for (key, n) in other.0 {
            *self.0.entry(key).or_default() += n;
        }
    }

    /// What of the total is not in the score, by category, and why.
    pub(super) fn not_scored(&self, card: &Card) -> IndexMap<String, String> {
        let mut all = IndexMap::new();
        if !is_one(card) {
            return all;
        }
        let whole = match self.0.is_empty() {
            true => "the official total also counts closed and open questions, and this file has none",
            false => {
                "the official total is the mean of all categories by their items, and some are not scored"
            }
        };
        all.insert("total".to_owned(), whole.to_owned());
        for ((category, sort), n) in &self.0 {
            let why = match sort {
                Sort::Open => "open questions want a judge's marks",
                Sort::Closed => {
                    "the official script reads these by cosines of NV-Embed-v2; `--rule fair` reads the option that is named"
                }
                Sort::Instruction => "instructions are checked by the official rule",
            };
            let name = match all.contains_key(category) {
                true => format!("{category}, other items"),
                false => category.clone(),
            };
            all.insert(name, format!("{n} items: {why}"));
        }
        all
    }
}

/// Of an item that no rule of this score decides.
pub(super) fn left_out() -> Judged {
    Judged {
        state: State::Unparsed,
        answer: None,
        span: None,
        correct: false,
        counted: false,
        by: "not_scored",
        reason: None,
    }
}
