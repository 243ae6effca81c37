//! What is wrong with a manifest, told at once.

use crate::error::{Error, Result};
use std::path::Path;

/// Problems that are told before the rest is only counted.
const MOST_PROBLEMS: usize = 20;

/// What is wrong with a manifest, told at once.
pub(super) struct Problems<'a> {
    pub path: &'a Path,
    told: Vec<Error>,
    more: usize,
}

impl<'a> Problems<'a> {
    pub(crate) fn new(path: &'a Path) -> Self {
        Problems {
            path,
            told: Vec::new(),
            more: 0,
        }
    }

    pub(crate) fn add(&mut self, key: &str, expected: &str, found: &str) {
        self.push(Error::data(self.path, key, expected, found));
    }

    /// [`Problems::add`] with something to try.
    pub(crate) fn hint(&mut self, key: &str, expected: &str, found: &str, hint: &str) {
        self.push(Error::data(self.path, key, expected, found).hint(hint));
    }

    /// An error of another kind.
    pub(crate) fn push(&mut self, e: Error) {
        match self.told.len() < MOST_PROBLEMS {
            true => self.told.push(e),
            false => self.more += 1,
        }
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        if self.more > 0 {
            self.told.push(Error::data(
                self.path,
                "data",
                "no problem",
                format!("{} more", self.more),
            ));
        }
        crate::error::all(self.told)
    }
}

/// The same errors, the last of them with something to try.
pub(super) fn hinted(e: Error, hint: &str) -> Error {
    match e {
        Error::Many(mut all) => {
            let last = all.pop().map(|e| e.hint(hint));
            all.extend(last);
            Error::Many(all)
        }
        e => e.hint(hint),
    }
}
