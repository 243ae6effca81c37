//! Bounds of the sizes that files give: configurations, checkpoints' tensors, recipes. What lies outside is a slip or
//! worse, and must reach neither an allocation nor libtorch. Each architecture's `check` says its own.

use std::ops::RangeInclusive;

/// Rows of an embedding.
pub(crate) const VOCABULARY: RangeInclusive<i64> = 1..=1 << 24;
/// Width of a transformer, of a head, of a projection.
pub(crate) const WIDTH: RangeInclusive<i64> = 1..=1 << 17;
/// Inner width of a feed-forward part.
pub(crate) const INNER: RangeInclusive<i64> = 1..=1 << 19;
pub(crate) const LAYERS: RangeInclusive<i64> = 1..=1 << 10;
pub(crate) const HEADS: RangeInclusive<i64> = 1..=1 << 12;
pub(crate) const HEAD_DIM: RangeInclusive<i64> = 1..=1 << 12;
/// Windows of 10 s of one clip.
pub(crate) const WINDOWS: RangeInclusive<i64> = 1..=1 << 12;
pub(crate) const POSITIONS: RangeInclusive<i64> = 1..=1 << 30;

/// A size that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// As the configuration writes it, such as `audio_transformer.n_head`.
    pub key: String,
    /// What it may be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(
            f,
            "{}: expected {}, found {}",
            self.key, self.expected, self.found
        )
    }
}

/// Collects what is wrong under one place, such as `clap.text`.
pub(super) struct Sizes {
    place: &'static str,
    pub(super) wrong: Vec<Wrong>,
}

impl Sizes {
    pub(super) fn of(place: &'static str) -> Self {
        Sizes {
            place,
            wrong: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, key: &str, expected: impl Into<String>, found: impl ToString) {
        let dot = if self.place.is_empty() { "" } else { "." };
        self.wrong.push(Wrong {
            key: format!("{}{dot}{key}", self.place),
            expected: expected.into(),
            found: found.to_string(),
        });
    }

    pub(super) fn within(&mut self, key: &str, value: i64, bounds: RangeInclusive<i64>) {
        if !bounds.contains(&value) {
            self.add(key, format!("{} to {}", bounds.start(), bounds.end()), value);
        }
    }

    pub(super) fn count(&mut self, key: &str, value: usize, bounds: RangeInclusive<i64>) {
        self.within(key, i64::try_from(value).unwrap_or(i64::MAX), bounds);
    }

    pub(super) fn number(&mut self, key: &str, value: f64, fits: bool, expected: &str) {
        if !(value.is_finite() && fits) {
            self.add(key, expected, value);
        }
    }

    /// `whole` is a multiple of `part`; told only where both are sizes that can be.
    pub(super) fn multiple(&mut self, key: &str, whole: i64, part: i64, what: &str) {
        if whole > 0 && part > 0 && whole % part != 0 {
            self.add(key, format!("a multiple of {part}, {what}"), whole);
        }
    }
}
