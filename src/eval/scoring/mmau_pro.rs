//! MMAU-Pro's three kinds of items, of which a text alone decides one. Its script takes closed questions by NV-Embed's cosines, open
//! ones by a judge, and instructions by checks; the total weighs them by their items.

use super::Sample;
use crate::benchmark::names::Rule;
use crate::benchmark::Card;
use crate::eval::rules::{Judged, RuleName, State};
use indexmap::IndexMap;

#[derive(Clone, Copy, PartialEq, Eq)]
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

/// Takes out of the score what the rule does not decide.
pub(super) fn apart(card: &Card, rule: RuleName, samples: &[Sample], mut judged: Vec<Judged>) -> Vec<Judged> {
    if is_one(card) {
        let wanted = decided(rule);
        for (judged, _) in judged
            .iter_mut()
            .zip(samples)
            .filter(|(_, sample)| of(sample) != wanted)
        {
            *judged = left_out();
        }
    }
    judged
}

fn decided(rule: RuleName) -> Sort {
    match rule {
        RuleName::MmauProInstructions => Sort::Instruction,
        _ => Sort::Closed,
    }
}

/// What of the total is not in the score, by category, and why.
pub(super) fn not_scored(card: &Card, rule: RuleName, samples: &[Sample]) -> IndexMap<String, String> {
    let mut all = IndexMap::new();
    if !is_one(card) {
        return all;
    }
    let mut counts: IndexMap<(String, u8), usize> = IndexMap::new();
    for sample in samples.iter().filter(|sample| of(sample) != decided(rule)) {
        let category = sample.groups.iter().find(|(key, _)| *key == "category");
        let category = category.and_then(|(_, values)| values.first());
        let category = category.map_or("without a category".to_owned(), |c| c.to_string());
        *counts.entry((category, of(sample) as u8)).or_default() += 1;
    }
    let whole = match counts.is_empty() {
        true => "the official total also counts closed and open questions, and this file has none",
        false => "the official total is the mean of all categories by their items, and some are not scored",
    };
    all.insert("total".to_owned(), whole.to_owned());
    for ((category, sort), n) in counts {
        let why = match sort {
            s if s == Sort::Open as u8 => "open questions want a judge's marks",
            s if s == Sort::Closed as u8 => {
                "the official script reads these by cosines of NV-Embed-v2; `--rule fair` reads the option that is named"
            }
            _ => "instructions are checked by the official rule",
        };
        let name = match all.contains_key(&category) {
            true => format!("{category}, other items"),
            false => category,
        };
        all.insert(name, format!("{n} items: {why}"));
    }
    all
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
