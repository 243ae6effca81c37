//! YAML from files that people write: a tree whose every value knows where it was written, and typed values out of it.
//!
//! Read is YAML 1.2 with its core schema. What other readers take for something else (a second value of a key, `yes`, `010`,
//! `1_000`, a tag, a list in the place of a mapping) is refused and named, and bounds hold before memory is asked for.

mod de;
mod fields;
mod node;
mod parse;
mod place;
mod scalar;
mod understand;

pub(crate) use fields::Fields;
pub use node::Step;
pub(crate) use node::{Content, Node};
pub(crate) use parse::parse;
pub(crate) use place::{Place, Source};
pub(crate) use understand::{understand, Understood};

use crate::error::{all, Result};
use serde_yaml::Value;

/// More bytes are no recipe and no configuration.
pub(crate) const MOST_BYTES: u64 = 1 << 20;

/// A text as a plain value, for what is read key by key.
///
/// # Errors
/// What is no YAML, or would be understood in two ways: all of it.
pub(crate) fn value(text: &str, file: &str) -> Result<Value> {
    let parsed = parse(text, file)?;
    all(parsed.faults)?;
    Ok(parsed.root.map_or(Value::Null, |root| root.to_value()))
}
