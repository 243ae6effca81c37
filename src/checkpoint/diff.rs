//! What differs between two checkpoints.

use super::archive::Archive;
use crate::error::Result;
use std::collections::HashSet;
use tch::Kind;

/// Two tensors of one name whose values differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Distance {
    pub name: String,
    /// Largest absolute difference.
    pub absolute: f64,
    /// The same, divided by the largest absolute value of the first tensor.
    pub relative: f64,
}

/// Two tensors of one name that cannot be compared element by element, or that have two dtypes.
#[derive(Debug, Clone, PartialEq)]
pub struct Unlike {
    pub name: String,
    pub shapes: (Vec<i64>, Vec<i64>),
    pub kinds: (Kind, Kind),
}

/// What [`diff`] found, in the first checkpoint's order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    pub only_first: Vec<String>,
    pub only_second: Vec<String>,
    pub shapes: Vec<Unlike>,
    /// Another dtype; the values are compared all the same.
    pub kinds: Vec<Unlike>,
    pub values: Vec<Distance>,
    /// Tensors with equal elements.
    pub equal: usize,
}

impl Difference {
    /// Whether both hold the same names and shapes, and no values further apart than `relative`.
    pub fn within(&self, relative: f64) -> bool {
        self.only_first.is_empty()
            && self.only_second.is_empty()
            && self.shapes.is_empty()
            // A distance that is no number is no small distance.
            && self.values.iter().all(|d| d.relative <= relative)
    }
}

/// Compares two checkpoints name by name, one pair of tensors in memory at a time.
///
/// # Errors
/// A tensor that cannot be read.
pub fn diff(first: &Archive, second: &Archive) -> Result<Difference> {
    let mut found = Difference::default();
    let firsts: HashSet<&str> = first.names().collect();
    found.only_second = second
        .names()
        .filter(|n| !firsts.contains(n))
        .map(str::to_owned)
        .collect();
    for name in first.names() {
        let (Some(a), Some(b)) = (first.info(name), second.info(name)) else {
            found.only_first.push(name.to_owned());
            continue;
        };
        let unlike = Unlike {
            name: name.to_owned(),
            shapes: (a.shape.clone(), b.shape.clone()),
            kinds: (a.kind, b.kind),
        };
        if a.shape != b.shape {
            found.shapes.push(unlike);
            continue;
        }
        let (x, y) = (first.get(name)?, second.get(name)?);
        let equal = if a.kind == b.kind {
            x.f_equal(&y)?
        } else {
            let equal = x.to_kind(Kind::Double).f_equal(&y.to_kind(Kind::Double))?;
            found.kinds.push(unlike);
            equal
        };
        if equal {
            found.equal += 1;
            continue;
        }
        let (x, y) = (x.to_kind(Kind::Double), y.to_kind(Kind::Double));
        let absolute = f64::try_from((&x - y).abs().max())?;
        found.values.push(Distance {
            name: name.to_owned(),
            absolute,
            relative: absolute / f64::try_from(x.abs().max())?.max(f64::MIN_POSITIVE),
        });
    }
    Ok(found)
}
