//! Finding clips by their captions and captions by their clip, from embeddings of both.
//!
//! N clips with K captions each (K = 5 in Clotho and AudioCaps): captions K·i to K·i + K − 1 belong to clip i. A rank is how many
//! candidates are nearer by cosine similarity, so 0 is best. Of candidates that are as near, the one that stands first in its
//! file counts as nearer: embeddings that are all alike rank as chance would, not first.

use super::bootstrap::{refuse, Bootstrap, Interval};
use super::ranking::{not_finite, shape};
use super::statistics::clusters::Clusters;
use crate::error::{Error, Result};
use ndarray::{s, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

/// Similarities that are held at once by each thread: 16 MiB.
const HELD: usize = 2 << 20;

/// The ranks of every query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks {
    /// K
    captions: usize,
    text_to_audio: Vec<u32>,
    audio_to_text: Vec<u32>,
    tied: [usize; 2],
}

/// How the ranks of a clip's K captions become its average precision at 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioToText {
    /// (1/K) Σ i / (rᵢ + 1) over the ranks below 10 in ascending order: the definition, and what XinhaoMei's tools compute.
    Sorted,
    /// The same sum over the ranks in the order of the captions: what LAION-CLAP's `evaluate_clotho_audiocaps` computes,
    /// although it says that it sorts. Depends on the order of captions, is never lower than with sorted ranks, and can pass 1.
    LaionClap,
}

/// One direction's scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// (k, share of queries that find one of theirs among the first k), k = 1, 5, 10, 50.
    pub recall: [(u32, f64); 4],
    /// Mean average precision among the first 10.
    pub map_10: f64,
    /// From 1. Of an even number of queries the lower whole number, as in both official tools.
    pub median_rank: f64,
    /// From 1.
    pub mean_rank: f64,
}

const CUTS: [u32; 4] = [1, 5, 10, 50];

impl Ranks {
    /// Of embeddings `audio` (N, D) and `text` (N·K, D). Their lengths do not count.
    ///
    /// # Errors
    /// No clips, no captions, other shapes; a value that is not finite, a row whose values are all 0: as of files `audio` and
    /// `text`, with row and column from 0.
    pub fn of(audio: &Array2<f64>, text: &Array2<f64>, captions: usize) -> Result<Self> {
        let (clips, width) = audio.dim();
        if clips == 0 || width == 0 {
            return Err(Error::data(
                "audio",
                "shape",
                "(clips, width), at least one of each",
                shape(audio),
            ));
        }
        let rows = clips
            .checked_mul(captions)
            .filter(|r| *r > 0 && u32::try_from(*r).is_ok());
        let Some(rows) = rows else {
            let expected = format!("1 to {} for {clips} clips", u32::MAX as usize / clips);
            return Err(Error::data(
                "text",
                "captions per clip",
                expected,
                captions.to_string(),
            ));
        };
        if text.dim() != (rows, width) {
            let expected = format!("({rows}, {width}): {captions} captions for each of {clips} clips");
            let error = Error::data("text", "shape", expected, shape(text));
            let whole = text.nrows() > 0 && text.nrows().is_multiple_of(clips) && text.ncols() == width;
            return Err(match whole {
                true => error.hint(format!("captions per clip: {} would fit", text.nrows() / clips)),
                false => error.hint("captions of a clip lie together, in the order of the clips"),
            });
        }
        let (audio, text) = (normalised("audio", audio)?, normalised("text", text)?);
        let (text_to_audio, tied_audio) =
            ranks(&text, &audio, |query| query / captions..query / captions + 1);
        let (audio_to_text, tied_text) =
            ranks(&audio, &text, |query| query * captions..(query + 1) * captions);
        Ok(Ranks {
            captions,
            text_to_audio,
            audio_to_text,
            tied: [tied_audio, tied_text],
        })
    }

    /// N
    pub fn clips(&self) -> usize {
        self.text_to_audio.len() / self.captions
    }

    /// K
    pub fn captions_per_clip(&self) -> usize {
        self.captions
    }

    /// Of each caption, the rank of its clip among all clips, in the order of the captions.
    pub fn text_to_audio(&self) -> &[u32] {
        &self.text_to_audio
    }

    /// Of each clip, the ranks of its captions among all captions, in the order of the captions.
    pub fn audio_to_text(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.audio_to_text.chunks(self.captions)
    }

    /// Ranks, text to audio and audio to text, that depend on the order of candidates that are as near as the right one.
    pub fn tied(&self) -> [usize; 2] {
        self.tied
    }

    /// A caption is a query: where is its clip?
    pub fn text_to_audio_scores(&self) -> Scores {
        scores(&self.text_to_audio, self.text_to_audio_precisions())
    }

    /// A clip is a query: recall and ranks are of its best caption, mAP@10 of all.
    pub fn audio_to_text_scores(&self, how: AudioToText) -> Scores {
        scores(
            &self.best(),
            self.audio_to_text().map(|r| average_precision(r, how)),
        )
    }

    fn best(&self) -> Vec<u32> {
        self.audio_to_text()
            .filter_map(|r| r.iter().min().copied())
            .collect()
    }

    fn text_to_audio_precisions(&self) -> impl Iterator<Item = f64> + '_ {
        self.text_to_audio.iter().map(|r| reciprocal(*r))
    }

    /// The interval of each of [`Ranks::text_to_audio_scores`], by the bootstrap over clips: a clip's captions are drawn
    /// together. The candidates stay all clips: what is drawn again is who asks, not among what.
    ///
    /// # Errors
    /// A level or a number of resamples that cannot be.
    pub fn text_to_audio_intervals(&self, bootstrap: &Bootstrap) -> Result<Intervals> {
        intervals(
            &self.text_to_audio,
            self.text_to_audio_precisions().collect(),
            self.captions,
            bootstrap,
        )
    }

    /// The interval of each of [`Ranks::audio_to_text_scores`]; clips are drawn again, the candidates stay all captions.
    ///
    /// # Errors
    /// A level or a number of resamples that cannot be.
    pub fn audio_to_text_intervals(&self, how: AudioToText, bootstrap: &Bootstrap) -> Result<Intervals> {
        let precisions = self.audio_to_text().map(|r| average_precision(r, how)).collect();
        intervals(&self.best(), precisions, 1, bootstrap)
    }
}

/// The intervals of [`Scores`].
#[derive(Debug, Clone, PartialEq)]
pub struct Intervals {
    /// As [`Scores::recall`].
    pub recall: [(u32, Interval); 4],
    /// Of [`Scores::map_10`].
    pub map_10: Interval,
    /// Of [`Scores::median_rank`].
    pub median_rank: Interval,
    /// Of [`Scores::mean_rank`].
    pub mean_rank: Interval,
}

fn share(ranks: &[u32], k: u32) -> f64 {
    ranks.iter().filter(|r| **r < k).count() as f64 / ranks.len() as f64
}

fn reciprocal(rank: u32) -> f64 {
    match rank {
        0..10 => 1.0 / f64::from(rank + 1),
        _ => 0.0,
    }
}

fn average_precision(ranks: &[u32], how: AudioToText) -> f64 {
    let mut first: Vec<u32> = ranks.iter().copied().filter(|r| *r < 10).collect();
    if how == AudioToText::Sorted {
        first.sort_unstable();
    }
    let sum: f64 = (1..)
        .zip(&first)
        .map(|(i, r)| f64::from(i) * reciprocal(*r))
        .sum();
    sum / ranks.len() as f64
}

fn scores(ranks: &[u32], precisions: impl Iterator<Item = f64>) -> Scores {
    let n = ranks.len() as f64;
    let mut sorted = ranks.to_vec();
    sorted.sort_unstable();
    // The mean of the middle ones, rounded down.
    let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2;
    Scores {
        recall: CUTS.map(|k| (k, share(ranks, k))),
        map_10: precisions.sum::<f64>() / n,
        median_rank: f64::from(middle + 1),
        mean_rank: ranks.iter().map(|r| f64::from(*r)).sum::<f64>() / n + 1.0,
    }
}

fn intervals(ranks: &[u32], precisions: Vec<f64>, group: usize, bootstrap: &Bootstrap) -> Result<Intervals> {
    let mean = |value: &dyn Fn(usize) -> f64| {
        let items = (0..ranks.len()).map(|i| (i / group, value(i)));
        bootstrap.clustered_mean(&Clusters::of(items)?)
    };
    let recall = |k: u32| mean(&|i| f64::from(u8::from(ranks[i] < k)));
    let [one, five, ten, fifty] = CUTS.map(|k| recall(k).map(|i| (k, i)));
    let mut sorted: Vec<(u32, usize)> = ranks.iter().enumerate().map(|(i, r)| (*r, i / group)).collect();
    sorted.sort_unstable();
    let median = |counts: &[u32]| -> Option<f64> {
        let queries = ranks.len() as u64;
        // Ranks at the two middle places of as many as were drawn: every clip has as many queries.
        let (mut seen, mut lower) = (0u64, None);
        for (rank, clip) in &sorted {
            seen += u64::from(counts[*clip]);
            if seen > (queries - 1) / 2 {
                let lower = *lower.get_or_insert(*rank);
                if seen > queries / 2 {
                    return Some(f64::from((lower + rank) / 2 + 1));
                }
            }
        }
        None
    };
    let [medians] = bootstrap.of_counts(ranks.len() / group, |counts| [median(counts)])?;
    let Some(median_rank) = medians.and_then(|all| bootstrap.middle(&all)) else {
        return refuse("median rank", "a query in every resample", "none");
    };
    Ok(Intervals {
        recall: [one?, five?, ten?, fifty?],
        map_10: mean(&|i| precisions[i])?,
        median_rank,
        mean_rank: mean(&|i| f64::from(ranks[i]) + 1.0)?,
    })
}

/// Each row over its length.
fn normalised(what: &str, rows: &Array2<f64>) -> Result<Array2<f64>> {
    let mut rows = rows.as_standard_layout().into_owned();
    for (i, mut row) in rows.outer_iter_mut().enumerate() {
        if let Some(column) = row.iter().position(|v| !v.is_finite()) {
            return Err(not_finite(
                what,
                &format!("row {i}, column {column}"),
                row[column],
            ));
        }
        // Squares of the largest numbers would not fit, nor those of the smallest be seen.
        let largest = row.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        if largest == 0.0 {
            return Err(Error::data(
                what,
                format!("row {i}"),
                "an embedding of some length",
                "zeros alone",
            )
            .hint("was this item left out where the file was written?"));
        }
        row.mapv_inplace(|v| v / largest);
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.mapv_inplace(|v| v / length);
    }
    Ok(rows)
}

/// Of each query, the ranks of its own among all candidates; and how many of them depend on a tie.
fn ranks(
    queries: &Array2<f64>,
    candidates: &Array2<f64>,
    own: impl Fn(usize) -> std::ops::Range<usize> + Sync,
) -> (Vec<u32>, usize) {
    let block = (HELD / candidates.nrows()).clamp(1, 256);
    let blocks: Vec<(usize, ArrayView2<f64>)> = queries
        .axis_chunks_iter(Axis(0), block)
        .enumerate()
        .map(|(i, rows)| (i * block, rows))
        .collect();
    let found: Vec<(Vec<u32>, usize)> = blocks
        .into_par_iter()
        .map(|(first, rows)| {
            let near = rows.dot(&candidates.t());
            let (mut ranks, mut ties) = (Vec::new(), 0);
            for (i, near) in near.outer_iter().enumerate() {
                for one in own(first + i) {
                    let (rank, tied) = rank(near, one);
                    ranks.push(rank);
                    ties += usize::from(tied);
                }
            }
            (ranks, ties)
        })
        .collect();
    let ties = found.iter().map(|(_, ties)| ties).sum();
    (found.into_iter().flat_map(|(ranks, _)| ranks).collect(), ties)
}

/// How many stand before this one, and whether any is as near.
fn rank(near: ArrayView1<f64>, one: usize) -> (u32, bool) {
    let own = near[one];
    let count = |of: ArrayView1<f64>, f: fn(f64, f64) -> bool| of.iter().filter(|v| f(**v, own)).count();
    let nearer = count(near, |v, own| v > own);
    let alike = count(near, |v, own| v == own);
    let before = match alike {
        1 => 0,
        _ => count(near.slice(s![..one]), |v, own| v == own),
    };
    ((nearer + before) as u32, alike > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[test]
    fn embeddings_that_are_all_alike_rank_as_chance_would() {
        let ranks = Ranks::of(&Array2::ones((6, 4)), &Array2::from_elem((12, 4), -3.0), 2).unwrap();
        assert_eq!(ranks.text_to_audio(), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
        assert_eq!(ranks.audio_to_text().nth(1), Some([2, 3].as_slice()));
        assert_eq!(ranks.tied(), [12, 12]);
        let scores = ranks.text_to_audio_scores();
        // Of twelve, 2 and 3 in the middle: ranks 3 and 4, of which the median is the lower.
        assert_eq!((scores.median_rank, scores.mean_rank), (3.0, 3.5));
    }

    #[test]
    fn a_large_pool_is_ranked_block_by_block_as_at_once() {
        let value = |(i, d): (usize, usize)| (((i * 7919 + d * 104_729) % 1009) as f64 / 504.0) - 1.0;
        let (audio, text) = (
            Array2::from_shape_fn((300, 16), value),
            Array2::from_shape_fn((900, 16), |(i, d)| value((i / 3, d)) + 0.9 * value((i + 1000, d))),
        );
        let ranks = Ranks::of(&audio, &text, 3).unwrap();
        let unit = |rows: &Array2<f64>, i: usize| {
            let row = rows.row(i).to_owned();
            let length = row.dot(&row).sqrt();
            row / length
        };
        for query in [0, 255, 256, 257, 899] {
            let near: Vec<f64> = (0..300)
                .map(|c| unit(&text, query).dot(&unit(&audio, c)))
                .collect();
            let before = near.iter().filter(|n| **n > near[query / 3]).count();
            assert_eq!(ranks.text_to_audio()[query] as usize, before, "{query}");
        }
        for clip in [0, 255, 256, 299] {
            let near: Vec<f64> = (0..900)
                .map(|c| unit(&audio, clip).dot(&unit(&text, c)))
                .collect();
            let of = |c: usize| near.iter().filter(|n| **n > near[c]).count() as u32;
            let own: Vec<u32> = (clip * 3..clip * 3 + 3).map(of).collect();
            assert_eq!(ranks.audio_to_text().nth(clip), Some(own.as_slice()), "{clip}");
        }
    }

    #[test]
    fn lengths_of_any_size_do_not_count() {
        let audio = arr2(&[[1e200, 2e200], [2e-200, -1e-200]]);
        let text = arr2(&[[1.0, 2.0], [2.0, -1.0]]);
        let ranks = Ranks::of(&audio, &text, 1).unwrap();
        assert_eq!((ranks.text_to_audio(), ranks.tied()), ([0, 0].as_slice(), [0, 0]));
    }

    #[test]
    fn intervals_hold_their_scores() {
        let value = |(i, d): (usize, usize)| (((i * 7919 + d * 104_729) % 1009) as f64 / 504.0) - 1.0;
        let audio = Array2::from_shape_fn((60, 8), value);
        let text = Array2::from_shape_fn((300, 8), |(i, d)| value((i / 5, d)) + 1.2 * value((i + 77, d)));
        let ranks = Ranks::of(&audio, &text, 5).unwrap();
        let settings = Bootstrap::default();
        let both = [
            (
                ranks.text_to_audio_scores(),
                ranks.text_to_audio_intervals(&settings).unwrap(),
            ),
            (
                ranks.audio_to_text_scores(AudioToText::Sorted),
                ranks
                    .audio_to_text_intervals(AudioToText::Sorted, &settings)
                    .unwrap(),
            ),
        ];
        for (scores, intervals) in both {
            let holds = |i: Interval, v: f64| assert!(i.low <= v && v <= i.high, "{i:?} {v}");
            for ((_, score), (_, interval)) in scores.recall.iter().zip(intervals.recall) {
                holds(interval, *score);
            }
            holds(intervals.map_10, scores.map_10);
            holds(intervals.mean_rank, scores.mean_rank);
            holds(intervals.median_rank, scores.median_rank);
            assert!(intervals.mean_rank.low < intervals.mean_rank.high);
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let ones = |n| Array2::<f64>::ones((n, 2));
        let e = |a: Array2<f64>, t: Array2<f64>, k| Ranks::of(&a, &t, k).unwrap_err().to_string();
        assert!(e(ones(2), ones(4), 5).contains("text: shape: expected (10, 2)"));
        assert!(e(ones(2), ones(4), 5).contains("captions per clip: 2 would fit"));
        assert!(e(ones(2), ones(5), 5).contains("lie together"));
        assert!(e(ones(2), ones(4), 0).contains("captions per clip"));
        assert!(e(ones(2), ones(4), usize::MAX).contains("captions per clip"));
        assert!(e(ones(0), ones(0), 5).contains("at least one"));
        assert!(e(arr2(&[[1.0, f64::NAN]]), ones(1), 1).contains("audio: row 0, column 1"));
        assert!(
            e(ones(1), arr2(&[[0.0, -0.0]]), 1).contains("text: row 0: expected an embedding of some length")
        );
    }
}
