//! Captions beside reference captions, as `pycocoevalcap` 1.2 scores them: tokens of the Penn Treebank tokenizer, then BLEU, ROUGE-L
//! and CIDEr-D, for each clip and for the corpus.
//!
//! ```
//! use af2::metrics::captions::{score, Item};
//!
//! let item = |prediction, references| Item { prediction, references };
//! let scored = score(&[
//!     item("A dog barks.", vec!["A dog is barking.", "A dog barks twice!"]),
//!     item("Rain.", vec!["Rain falls on a roof."]),
//! ])?;
//! assert_eq!(scored.items[0].tokens, ["a", "dog", "barks"]);
//! assert!(scored.items[0].scores.rouge_l > 0.7);
//! assert!(scored.corpus.cider > 0.0);
//! # Ok::<(), af2::Error>(())
//! ```

mod bleu;
mod cider;
mod grams;
pub mod ptb;
mod rouge;

use super::bootstrap::{Bootstrap, Interval};
use crate::error::{Error, Result};
use grams::Corpus;
use rayon::prelude::*;

/// A clip's captions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The one that is scored.
    pub prediction: &'a str,
    /// Those that people wrote: at least one.
    pub references: Vec<&'a str>,
}

/// Scores of a clip or of a corpus, each from 0, the best is 1 (of CIDEr-D 10).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// BLEU-1 to BLEU-4.
    pub bleu: [f64; 4],
    /// ROUGE-L.
    pub rouge_l: f64,
    /// CIDEr-D.
    pub cider: f64,
}

/// What was measured of a clip.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The prediction's tokens.
    pub tokens: Vec<String>,
    /// Those of each reference.
    pub references: Vec<Vec<String>>,
    /// The clip's scores.
    pub scores: Scores,
}

/// What was measured of a corpus.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredCorpus {
    /// Clip by clip, in the order given.
    pub items: Vec<Scored>,
    /// Of BLEU what all clips give together; of the others the mean.
    pub corpus: Scores,
    /// What BLEU counts, clip by clip.
    counts: Vec<bleu::Counts>,
}

/// Cuts and scores a corpus. The order counts, but hardly: all references are cut as one text and all predictions as another, see
/// [`ptb`]. An error where there is no item, or one without references.
pub fn score(items: &[Item]) -> Result<ScoredCorpus> {
    let refused =
        |place: String, expected: &str, found: &str| Err(Error::data("captions", place, expected, found));
    if items.is_empty() {
        return refused("items".into(), "at least one", "none");
    }
    if let Some(n) = items.iter().position(|item| item.references.is_empty()) {
        return refused(format!("item {}", n + 1), "at least one reference", "none");
    }
    let (predictions, references) = rayon::join(
        || ptb::tokenize_corpus(&items.iter().map(|i| i.prediction).collect::<Vec<_>>()),
        || {
            ptb::tokenize_corpus(
                &items
                    .iter()
                    .flat_map(|i| i.references.iter().copied())
                    .collect::<Vec<_>>(),
            )
        },
    );
    let mut rest = references.into_iter();
    let references = items
        .iter()
        .map(|i| rest.by_ref().take(i.references.len()).collect());
    Ok(score_tokens(predictions, references.collect()))
}

/// Scores captions that are cut already: a prediction each, and its references.
fn score_tokens(predictions: Vec<Vec<String>>, references: Vec<Vec<Vec<String>>>) -> ScoredCorpus {
    let corpus = Corpus::of(&predictions, &references);
    let counts: Vec<bleu::Counts> = corpus.clips.par_iter().map(bleu::Counts::of).collect();
    let rouge: Vec<f64> = corpus.clips.par_iter().map(rouge::score).collect();
    let cider = cider::score(&corpus);
    let scores = |n: usize| Scores {
        bleu: counts[n].score(),
        rouge_l: rouge[n],
        cider: cider[n],
    };
    let mean = |values: &[f64]| super::mean(values).unwrap_or(0.0);
    let of_corpus = Scores {
        bleu: counts.iter().sum::<bleu::Counts>().score(),
        rouge_l: mean(&rouge),
        cider: mean(&cider),
    };
    let items = predictions.into_iter().zip(references).enumerate();
    let items = items.map(|(n, (tokens, references))| Scored {
        tokens,
        references,
        scores: scores(n),
    });
    ScoredCorpus {
        items: items.collect(),
        corpus: of_corpus,
        counts,
    }
}

impl ScoredCorpus {
    /// Intervals of BLEU-1 to BLEU-4 of the corpus: clips are drawn again, and what they give together is BLEU of their summed counts.
    ///
    /// # Errors
    /// A level or a number of resamples that cannot be.
    pub fn bleu_intervals(&self, bootstrap: &Bootstrap) -> Result<[Option<Interval>; 4]> {
        let sums = |drawn: &[u32]| {
            let all = self.counts.iter().zip(drawn).filter(|(_, n)| **n > 0);
            bleu::Counts::repeated(all).score().map(Some)
        };
        let resampled = bootstrap.of_counts(self.counts.len(), sums)?;
        Ok(resampled.map(|values| bootstrap.middle(&values?)))
    }
}
