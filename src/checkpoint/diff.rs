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
    /// The same, divided by the largest finite absolute value of the first tensor.
    pub relative: f64,
}

/// Two tensors of one name that cannot be compared element by element, or that have two dtypes.
#[derive(Debug, Clone, PartialEq)]
pub struct Unlike {
    /// Of both.
    pub name: String,
    /// Shapes in the first and in the second checkpoint.
    pub shapes: (Vec<i64>, Vec<i64>),
    /// Dtypes there.
    pub kinds: (Kind, Kind),
}

/// What [`diff`] found, in the first checkpoint's order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    /// Names that the second lacks.
    pub only_first: Vec<String>,
    /// Names that the first lacks.
    pub only_second: Vec<String>,
    /// Tensors of different shapes.
    pub shapes: Vec<Unlike>,
    /// Another dtype; the values are compared all the same.
    pub kinds: Vec<Unlike>,
    /// How far tensors of equal shape are apart, where they are.
    pub values: Vec<Distance>,
    /// Tensors with equal elements; NaN is equal to NaN at the same place.
    pub equal: usize,
    /// Tensors that hold NaN at the same places in both.
    pub nan: Vec<String>,
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
        if a.kind != b.kind {
            found.kinds.push(unlike);
        } else if x.f_equal(&y)? {
            found.equal += 1;
            continue;
        }
        let (x, y) = (x.to_kind(Kind::Double), y.to_kind(Kind::Double));
        // Infinities of one sign are equal, and a NaN is equal to a NaN.
        let both_nan = x.isnan().logical_and(&y.isnan());
        let same = x.eq_tensor(&y).logical_or(&both_nan);
        if i64::try_from(both_nan.any())? != 0 {
            found.nan.push(name.to_owned());
        }
        if i64::try_from(same.all())? != 0 {
            found.equal += 1;
            continue;
        }
        let distance = (&x - &y).abs().masked_fill(&same, 0.0);
        let finite = x.masked_fill(&x.isfinite().logical_not(), 0.0).abs();
        // The largest of numbers and a NaN is NaN, in libtorch.
        let (absolute, largest) = (f64::try_from(distance.max())?, f64::try_from(finite.max())?);
        found.values.push(Distance {
            name: name.to_owned(),
            absolute,
            relative: absolute / largest.max(f64::MIN_POSITIVE),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{items, write_safetensors};
    use tch::Tensor;

    #[test]
    fn nan_is_equal_to_nan_at_the_same_place_and_to_nothing_else() {
        const N: f32 = f32::NAN;
        const I: f32 = f32::INFINITY;
        let folder = tempfile::tempdir().unwrap();
        let open = |values: &[f32], kind: Kind| {
            let path = folder.path().join("x.safetensors");
            let t = Tensor::from_slice(values).to_kind(kind);
            write_safetensors(&path, &items(vec![("w".into(), t)]), &[]).unwrap();
            // A file that takes its place leaves this one open as it was.
            Archive::open(&path).unwrap()
        };
        for (a, b, equal, absolute, nan) in [
            ([1.0, N, 3.0], [1.0, N, 3.0], true, 0.0, 1),
            ([I, -I, 3.0], [I, -I, 3.0], true, 0.0, 0),
            ([I, N, 2.0], [I, N, 4.0], false, 2.0, 1),
            ([1.0, N, 3.0], [N, 1.0, 3.0], false, f64::NAN, 0),
            ([1.0, 2.0, 3.0], [1.0, 2.0, N], false, f64::NAN, 0),
            ([I, 2.0, 3.0], [-I, 2.0, 3.0], false, f64::INFINITY, 0),
        ] {
            for (first, second) in [
                (Kind::Float, Kind::Float),
                (Kind::Float, Kind::BFloat16),
                (Kind::Half, Kind::Half),
            ] {
                let found = diff(&open(&a, first), &open(&b, second)).unwrap();
                assert_eq!(found.within(0.0), equal, "{a:?} {b:?} {found:?}");
                assert_eq!((found.equal == 1, found.nan.len()), (equal, nan), "{found:?}");
                if let Some(d) = found.values.first() {
                    assert!(
                        d.absolute == absolute || d.absolute.is_nan() && absolute.is_nan(),
                        "{d:?}"
                    );
                    assert!(!found.within(0.4), "{found:?}");
                }
            }
        }
    }
}
