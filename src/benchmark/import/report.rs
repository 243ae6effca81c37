//! What is wrong with rows, and what was left out: each with its place, all told at once.

use super::row::{Place, MOST_TOLD};
use crate::benchmark::Card;
use crate::error::{Error, Result};
use indexmap::IndexMap;
use std::collections::HashSet;
use std::path::PathBuf;

/// A fault of a row.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// A short name for its kind, as a card's `defects` have them.
    pub class: &'static str,
    pub place: Place,
    /// The field.
    pub key: String,
    pub expected: String,
    pub found: String,
    /// Whether the row can be asked all the same.
    pub mild: bool,
}

/// What an import found.
#[derive(Debug, Default)]
pub(super) struct Report {
    faults: Vec<Fault>,
    /// Rows that are left out for a fault: one is counted once, however many it has.
    faulty: HashSet<(PathBuf, String)>,
    /// Rows that are no part of the split, or cannot be asked, by why.
    pub left_out: IndexMap<String, usize>,
    /// Faults that were let pass, by class, with the places of the first of them.
    pub tolerated: IndexMap<&'static str, Tolerated>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// How often, and where first.
#[derive(Debug, Default)]
pub(super) struct Tolerated {
    pub count: usize,
    pub first: Vec<String>,
}

impl Report {
    /// A row that cannot be asked.
    pub(super) fn broken(
        &mut self,
        place: &Place,
        class: &'static str,
        key: &str,
        expected: &str,
        found: impl Into<String>,
    ) {
        self.add(place, class, key, expected, found.into(), false);
    }

    /// A row that can be asked all the same.
    pub(super) fn mild(
        &mut self,
        place: &Place,
        class: &'static str,
        key: &str,
        expected: &str,
        found: impl Into<String>,
    ) {
        self.add(place, class, key, expected, found.into(), true);
    }

    fn add(
        &mut self,
        place: &Place,
        class: &'static str,
        key: &str,
        expected: &str,
        found: String,
        mild: bool,
    ) {
        self.faults.push(Fault {
            class,
            place: place.clone(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: found.chars().take(120).collect(),
            mild,
        });
    }

    pub(super) fn leave_out(&mut self, why: impl Into<String>) {
        *self.left_out.entry(why.into()).or_insert(0) += 1;
    }

    /// What is counted and no fault.
    pub(super) fn count(&mut self, class: &'static str, place: &Place) {
        let of = self.tolerated.entry(class).or_default();
        of.count += 1;
        if of.first.len() < MOST_TOLD {
            of.first.push(place.at.clone());
        }
    }

    /// Sorts the faults: those that the card describes pass, and with `accepted` all of them; of the others the rows are left out.
    ///
    /// # Errors
    /// All other faults.
    pub(super) fn judge(&mut self, card: &Card, accepted: bool) -> Result<()> {
        let known = |class: &str| card.defects.iter().any(|d| d.class == class);
        let mut errors = Vec::new();
        let mut more = 0;
        for fault in std::mem::take(&mut self.faults) {
            if accepted || (fault.mild && known(fault.class)) {
                self.count(fault.class, &fault.place);
                let row = (fault.place.file.to_path_buf(), fault.place.at.clone());
                if !fault.mild && self.faulty.insert(row) {
                    self.leave_out(format!("faulty: {}", fault.class));
                }
                continue;
            }
            if errors.len() == MOST_TOLD {
                more += 1;
                continue;
            }
            let key = format!("{}: {}", fault.place.at, fault.key);
            errors.push(Error::data(&*fault.place.file, key, fault.expected, fault.found));
        }
        if more > 0 {
            errors.push(Error::data(
                &card.name,
                "rows",
                "no fault",
                format!("{more} more"),
            ));
        }
        if let Some(last) = errors.pop() {
            let hint = "what the card's `defects` name passes; --accept-faulty takes rows that can be asked all the same and leaves out \
                        the others";
            errors.push(last.hint(hint));
        }
        crate::error::all(errors)
    }
}
