//! What `af2 export` writes beside an item for other tools' files (`report/export/exported.rs`), so that these are scored as the
//! predictions were that they are made of.

use crate::eval::json::Json;
use serde_json::{Map, Value};

/// The key in lm-evaluation-harness's `doc` and inspect's `metadata`.
pub(super) const KEY: &str = "af2";

/// Keys of official records that are not the item's: what a model has written, and what af2 says of that in exported ones.
pub(super) const SAID: [&str; 7] = [
    "model_output",
    "model_prediction",
    "answer_prediction",
    "thinking_prediction",
    "pred",
    "response",
    KEY,
];

/// A record's own keys, and those that are not the item's.
pub(crate) fn parted(record: &Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    let all = record.iter().map(|(k, v)| (k.clone(), v.clone()));
    all.partition(|(k, _)| !SAID.contains(&k.as_str()))
}

/// What stands under it.
pub(super) struct Beside(Map<String, Value>);

impl Beside {
    /// None where nothing of ours stands there.
    pub(super) fn of(holder: &Json) -> Option<Self> {
        match holder.get(KEY)?.to_value() {
            Value::Object(all) => Some(Beside(all)),
            _ => None,
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        self.0.get(key)?.as_str().map(str::to_owned)
    }

    /// Of the item.
    pub(super) fn id(&self) -> Option<String> {
        self.text("id")
    }

    /// What it is about.
    pub(super) fn clip(&self) -> Option<String> {
        self.text("clip")
    }

    /// Which choice is right, where that was known by its place.
    pub(super) fn right(&self) -> Option<usize> {
        self.0.get("right")?.as_u64().map(|at| at as usize)
    }

    /// Whether the prediction ran into its most tokens.
    pub(super) fn truncated(&self) -> Option<bool> {
        self.0.get("truncated")?.as_bool()
    }

    /// Of our own predictions.
    pub(super) fn tasks(&self) -> Option<Vec<String>> {
        let all = self.0.get("groups")?.get("task")?.as_array()?;
        Some(all.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// What a model has written into an official record, by its keys; null is the answer that is scored.
    pub(super) fn said(&self) -> Option<&Map<String, Value>> {
        self.0.get("said")?.as_object()
    }
}
