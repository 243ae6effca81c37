//! BERTScore: each token is matched with the one that is most like it in the other text (Zhang et al. 2020), over vectors of tokens
//! that come from elsewhere. Follows `bert_score` 0.3.13.
//!
//! ```
//! use af2::metrics::bert_score::{matched, Tokens};
//! use ndarray::array;
//!
//! let candidate = Tokens::new(array![[1.0, 0.0], [0.0, 2.0]], vec![1.0, 1.0])?;
//! let reference = Tokens::new(array![[3.0, 0.0]], vec![1.0])?;
//! let score = matched(&candidate, &reference)?;
//! // Half of what is said stands in the reference, and all of that is said.
//! assert_eq!((score.precision, score.recall), (Some(0.5), Some(1.0)));
//! # Ok::<(), af2::Error>(())
//! ```

use crate::error::{Error, Result};
use ndarray::{Array2, Axis};
use serde::Serialize;
use std::collections::HashMap;

/// A text as its tokens' vectors.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// (T, D), rows of length 1.
    directions: Array2<f32>,
    weights: Vec<f64>,
    empty: bool,
}

impl Tokens {
    /// Vectors, a row each, and how much each token counts. Rows of weight 0, as special tokens have it, are still there to be matched.
    ///
    /// # Errors
    /// As many weights as rows, at least one, finite and not below 0.
    pub fn new(vectors: Array2<f32>, weights: Vec<f64>) -> Result<Self> {
        let fits = |w: &f64| w.is_finite() && *w >= 0.0;
        if vectors.nrows() == 0 || weights.len() != vectors.nrows() || !weights.iter().all(fits) {
            let expected = format!("a weight for each of {} vectors, 0 or more", vectors.nrows());
            let found = format!("{} weights", weights.len());
            return Err(Error::data("BERTScore", "tokens", expected, found));
        }
        let mut directions = vectors;
        for mut row in directions.rows_mut() {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.mapv_inplace(|x| x / length);
        }
        Ok(Tokens {
            directions,
            weights,
            empty: false,
        })
    }

    /// A text that says nothing: what is compared with it gets 0.
    pub fn nothing() -> Self {
        Tokens {
            directions: Array2::zeros((0, 0)),
            weights: Vec::new(),
            empty: true,
        }
    }
}

/// How alike two texts are; 1 is the same tokens. `None` where no token of the text has a weight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// The mean, by weight, of how well the candidate's tokens are matched.
    pub precision: Option<f64>,
    /// The same of the reference's.
    pub recall: Option<f64>,
    /// Their harmonic mean; 0 where their sum is.
    pub f1: Option<f64>,
}

impl Score {
    const NOTHING: Score = Score {
        precision: Some(0.0),
        recall: Some(0.0),
        f1: Some(0.0),
    };

    /// The larger of each of the three, as over several references: F1 need not be that of the other two then.
    pub fn best(self, other: Score) -> Score {
        let most = |a: Option<f64>, b: Option<f64>| Some(a?.max(b?));
        Score {
            precision: most(self.precision, other.precision),
            recall: most(self.recall, other.recall),
            f1: most(self.f1, other.f1),
        }
    }

    /// Each as its place between a baseline (0) and 1, which texts that have nothing to do with each other have in its stead.
    pub fn rescaled(self, baseline: [f64; 3]) -> Score {
        let place = |value: Option<f64>, base: f64| Some((value? - base) / (1.0 - base));
        Score {
            precision: place(self.precision, baseline[0]),
            recall: place(self.recall, baseline[1]),
            f1: place(self.f1, baseline[2]),
        }
    }

    /// The means of each; `None` of nothing and where one has none.
    pub fn mean(all: &[Score]) -> Score {
        let of = |value: fn(&Score) -> Option<f64>| {
            let values: Option<Vec<f64>> = all.iter().map(value).collect();
            super::mean(&values?)
        };
        Score {
            precision: of(|s| s.precision),
            recall: of(|s| s.recall),
            f1: of(|s| s.f1),
        }
    }
}

/// Greedy matching of a candidate with a reference.
///
/// # Errors
/// Vectors of two widths.
pub fn matched(candidate: &Tokens, reference: &Tokens) -> Result<Score> {
    if candidate.empty || reference.empty {
        return Ok(Score::NOTHING);
    }
    let (own, other) = (&candidate.directions, &reference.directions);
    if own.ncols() != other.ncols() {
        let (expected, found) = (own.ncols().to_string(), other.ncols().to_string());
        return Err(Error::data("BERTScore", "width of the vectors", expected, found));
    }
    let alike = own.dot(&other.t());
    let mean = |axis: Axis, weights: &[f64]| -> Option<f64> {
        let best = alike.map_axis(axis, |row| row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let all: f64 = weights.iter().sum();
        let sum: f64 = best.iter().zip(weights).map(|(b, w)| f64::from(*b) * w).sum();
        let mean = sum / all;
        mean.is_finite().then_some(mean)
    };
    let precision = mean(Axis(1), &candidate.weights);
    let recall = mean(Axis(0), &reference.weights);
    let f1 = precision.zip(recall).map(|(p, r)| match p + r {
        0.0 => 0.0,
        sum => 2.0 * p * r / sum,
    });
    Ok(Score {
        precision,
        recall,
        f1,
    })
}

/// How rare tokens are among texts: the logarithm of (texts + 1) / (texts with it + 1).
#[derive(Debug, Clone)]
pub struct Idf {
    texts: usize,
    with: HashMap<i64, usize>,
}

impl Idf {
    /// Of texts as ids.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a [i64]>) -> Self {
        let (mut n, mut with) = (0, HashMap::new());
        for text in texts {
            n += 1;
            let mut own = text.to_vec();
            own.sort_unstable();
            own.dedup();
            own.into_iter().for_each(|id| *with.entry(id).or_insert(0) += 1);
        }
        Idf { texts: n, with }
    }

    /// A token's weight.
    pub fn weight(&self, id: i64) -> f64 {
        let with = self.with.get(&id).copied().unwrap_or(0);
        ((self.texts + 1) as f64 / (with + 1) as f64).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn tokens(vectors: Array2<f32>, weights: &[f64]) -> Tokens {
        Tokens::new(vectors, weights.to_vec()).unwrap()
    }

    /// By hand: cosines 1, 0.6 | 0, 0.8 of two tokens with two; weights 1 and 3.
    #[test]
    fn weights_count_and_what_has_none_is_still_matched() {
        let own = tokens(array![[1.0, 0.0], [0.0, 1.0]], &[1.0, 3.0]);
        let other = tokens(array![[2.0, 0.0], [0.6, 0.8]], &[0.0, 5.0]);
        let score = matched(&own, &other).unwrap();
        let near = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-6, "{a:?} {b}");
        near(score.precision, (1.0 + 3.0 * 0.8) / 4.0);
        near(score.recall, 0.8);
        near(score.f1, 2.0 * 0.85 * 0.8 / 1.65);
        let better = score.best(Score {
            precision: Some(0.1),
            recall: Some(0.9),
            f1: Some(0.2),
        });
        near(better.precision, 0.85);
        near(better.recall, 0.9);
        near(score.rescaled([0.2, 0.3, 0.5]).recall, 0.5 / 0.7);
        let mean = Score::mean(&[score, Score::NOTHING]);
        near(mean.recall, 0.4);
        assert_eq!(Score::mean(&[]).f1, None);
    }

    #[test]
    fn nothing_is_alike_to_nothing() {
        let own = tokens(array![[1.0, 0.0]], &[1.0]);
        for (a, b) in [
            (&own, &Tokens::nothing()),
            (&Tokens::nothing(), &own),
            (&Tokens::nothing(), &Tokens::nothing()),
        ] {
            assert_eq!(matched(a, b).unwrap(), Score::NOTHING);
        }
        // Opposite and orthogonal texts.
        let away = tokens(array![[-1.0, 0.0]], &[1.0]);
        assert_eq!(matched(&own, &away).unwrap().precision, Some(-1.0));
        let across = tokens(array![[0.0, 1.0]], &[1.0]);
        assert_eq!(matched(&own, &across).unwrap().f1, Some(0.0));
    }

    #[test]
    fn what_cannot_be_measured_is_none_or_an_error() {
        let own = tokens(array![[1.0, 0.0]], &[1.0]);
        let weightless = tokens(array![[1.0, 0.0]], &[0.0]);
        let score = matched(&own, &weightless).unwrap();
        assert_eq!((score.precision, score.recall, score.f1), (Some(1.0), None, None));
        let no_direction = tokens(array![[0.0, 0.0]], &[1.0]);
        assert_eq!(matched(&own, &no_direction).unwrap().precision, None);
        assert_eq!(Score::mean(&[score]).recall, None);
        assert!(matched(&own, &tokens(array![[1.0]], &[1.0])).is_err());
        for (vectors, weights) in [
            (array![[1.0f32]], vec![]),
            (array![[1.0]], vec![-1.0]),
            (array![[1.0]], vec![f64::NAN]),
            (Array2::zeros((0, 2)), vec![]),
        ] {
            assert!(Tokens::new(vectors, weights).is_err());
        }
    }

    #[test]
    fn rare_tokens_weigh_more() {
        let texts: [&[i64]; 3] = [&[0, 5, 5, 2], &[0, 5, 2], &[0, 7, 2]];
        let idf = Idf::of(texts);
        assert_eq!(idf.weight(0), 0.0);
        assert_eq!(idf.weight(5), (4.0f64 / 3.0).ln());
        assert_eq!(idf.weight(9), 4.0f64.ln());
    }
}
