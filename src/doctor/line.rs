//! One thing that was looked at, and how it is.

use serde::Serialize;
use serde_json::{Map, Value};

/// Codes of what is broken, as [`crate::Error::exit_code`] has them.
pub(super) const LIBTORCH: i32 = 1;
pub(super) const FILES: i32 = 3;
pub(super) const DEVICE: i32 = 13;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Ok,
    /// It works, worse than it should.
    Slow,
    /// A run that needs it fails.
    Broken,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Slow => "slow",
            State::Broken => "broken",
        }
    }
}

/// One thing, and how it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Line {
    #[serde(skip)]
    pub name: &'static str,
    /// `cpu`, `cuda:0`; none for what is no device's.
    #[serde(skip)]
    pub device: Option<String>,
    pub state: State,
    pub found: String,
    /// What to do.
    pub advice: Option<String>,
    /// Numbers of what was found: bytes, bytes a second, operations a second, shares.
    pub values: Map<String, Value>,
    #[serde(skip)]
    pub(super) code: i32,
}

impl Line {
    pub(super) fn new(name: &'static str, state: State, found: impl Into<String>) -> Self {
        Line {
            name,
            device: None,
            state,
            found: found.into(),
            advice: None,
            values: Map::new(),
            code: 0,
        }
    }

    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Line::new(name, State::Ok, found)
    }

    pub(super) fn slow(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let mut line = Line::new(name, State::Slow, found);
        line.advice = Some(advice.into());
        line
    }

    pub(super) fn broken(
        name: &'static str,
        code: i32,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let mut line = Line::new(name, State::Broken, found);
        (line.advice, line.code) = (Some(advice.into()), code);
        line
    }

    pub(super) fn value(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.values.insert(key.into(), value.into());
        self
    }

    /// The name for people.
    pub(crate) fn title(&self) -> String {
        let name = self.name.replace('_', " ");
        match &self.device {
            Some(device) => format!("{device}: {name}"),
            None => name,
        }
    }
}

/// Bytes as people say them: 1.5 GiB.
pub(super) fn gib(bytes: u64) -> String {
    pub(super) const GIB: f64 = (1u64 << 30) as f64;
    format!("{:.1} GiB", bytes as f64 / GIB)
}
