//! CIDEr-D (arXiv 1411.5726) as `pycocoevalcap` has it: cosines of n-grams' weights, of one to four words, clipped by the reference's,
//! with a Gaussian of the difference in length, times 10.
//!
//! A weight is the count times ln(clips / clips whose references have the n-gram). So of a single clip all weights and scores are 0.
//! The length is the number of pairs of words. Where no reference has a word, which `pycocoevalcap` fails on, scores are 0.

use super::grams::{Caption, Corpus, N};
use rayon::prelude::*;

const SIGMA: f64 = 6.0;

struct Weighed {
    /// By length less one, each n-gram's weight.
    weights: [Vec<(u32, f64)>; N],
    norms: [f64; N],
    pairs: f64,
}

/// Of each clip.
pub(super) fn score(corpus: &Corpus) -> Vec<f64> {
    let clips = (corpus.clips.len() as f64).ln();
    let logs: Vec<f64> = corpus
        .clips_with
        .iter()
        .map(|n| clips - f64::from((*n).max(1)).ln())
        .collect();
    let of_clip = |clip: &super::grams::Clip| {
        let prediction = weigh(&clip.prediction, &logs);
        let mut sums = [0.0; N];
        for reference in &clip.references {
            let alike = similar(&prediction, &weigh(reference, &logs));
            sums.iter_mut().zip(alike).for_each(|(sum, alike)| *sum += alike);
        }
        sums.iter().sum::<f64>() / N as f64 / clip.references.len() as f64 * 10.0
    };
    corpus.clips.par_iter().map(of_clip).collect()
}

fn weigh(caption: &Caption, logs: &[f64]) -> Weighed {
    let weight = |&(gram, count): &(u32, u32)| (gram, f64::from(count) * logs[gram as usize]);
    let weights: [Vec<(u32, f64)>; N] =
        std::array::from_fn(|n| caption.grams[n].iter().map(weight).collect());
    let norm = |n: usize| weights[n].iter().map(|(_, w)| w * w).sum::<f64>().sqrt();
    Weighed {
        norms: std::array::from_fn(norm),
        weights,
        pairs: caption.words.saturating_sub(1) as f64,
    }
}

/// The cosines by length less one.
fn similar(prediction: &Weighed, reference: &Weighed) -> [f64; N] {
    let delta = prediction.pairs - reference.pairs;
    let gaussian = (-(delta * delta) / (2.0 * SIGMA * SIGMA)).exp();
    std::array::from_fn(|n| {
        let mut rest = reference.weights[n].as_slice();
        let mut value = 0.0;
        for (gram, weight) in &prediction.weights[n] {
            let skipped = rest.partition_point(|(other, _)| other < gram);
            rest = &rest[skipped..];
            match rest.first() {
                Some((other, of_reference)) if other == gram => {
                    value += weight.min(*of_reference) * of_reference
                }
                Some(_) => {}
                None => break,
            }
        }
        let norms = prediction.norms[n] * reference.norms[n];
        if norms != 0.0 {
            value /= norms;
        }
        value * gaussian
    })
}
