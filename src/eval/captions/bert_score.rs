//! BERTScore of texts beside references, over the tokens of an encoder.

use crate::error::{Error, Result};
use crate::fsutil::read_text_within;
use crate::load::TextEncoder;
use crate::metrics::bert_score::{matched, Idf, Score, Tokens};
use crate::metrics::captions::Item;
use crate::progress::Progress;
use indexmap::IndexSet;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Whose computation it is.
pub const FOLLOWS: &str = "bert_score 0.3.13";
/// Fewer texts than this are embedded before anybody could read that they are.
const WORTH_A_BAR: usize = 200;
/// A file of baselines has a line a layer.
const MOST_BASELINE: u64 = 1 << 20;

/// An encoder and how its tokens are weighed and compared.
pub struct BertScore {
    /// Whose vectors.
    pub encoder: TextEncoder,
    /// Tokens count by how rare they are among the references; else all but special ones alike.
    pub idf: bool,
    /// Scores are rescaled by this.
    pub baseline: Option<Baseline>,
}

/// What texts get that have nothing to do with each other.
pub struct Baseline {
    /// The file.
    pub path: PathBuf,
    /// Precision, recall and F1 of the layer.
    pub values: [f64; 3],
}

/// Scores of texts.
pub struct BertScored {
    /// Each text's, the best over its references.
    pub items: Vec<Score>,
    /// Their means.
    pub corpus: Score,
}

impl Baseline {
    /// Reads a layer's line of `LAYER,P,R,F`, as the package's `rescale_baseline/en/roberta-large.tsv` has it.
    ///
    /// # Errors
    /// No such table; no line for the layer; a value that is no number, or 1, from which nothing can be told.
    pub fn read(path: &Path, layer: usize) -> Result<Self> {
        let text = read_text_within(path, MOST_BASELINE)?;
        let wrong = |key: String, expected: &str, found: String| {
            let e = Error::data(path, key, expected, found);
            e.hint("bert_score brings such files: rescale_baseline/en/roberta-large.tsv")
        };
        let mut lines = text.lines();
        let head = lines.next().unwrap_or_default().trim();
        if head.trim_start_matches('\u{feff}') != "LAYER,P,R,F" {
            let found = crate::error::short(&head);
            return Err(wrong("line 1".to_owned(), "LAYER,P,R,F", found));
        }
        // The package counts lines and does not read the first column.
        let Some(line) = lines.nth(layer) else {
            return Err(wrong(
                "lines".to_owned(),
                &format!("one for layer {layer}"),
                "none".to_owned(),
            ));
        };
        let place = format!("line {}", layer + 2);
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        if cells.first().and_then(|own| own.parse::<f64>().ok()) != Some(layer as f64) {
            let found = crate::error::short(&line);
            return Err(wrong(place, &format!("layer {layer}"), found));
        }
        let values: Option<Vec<f64>> = cells[1..]
            .iter()
            .map(|cell| cell.parse().ok().filter(|v: &f64| v.is_finite() && *v != 1.0))
            .collect();
        match values.as_deref() {
            Some([p, r, f]) => Ok(Baseline {
                path: path.to_owned(),
                values: [*p, *r, *f],
            }),
            _ => Err(wrong(
                place,
                "three numbers, none of them 1",
                crate::error::short(&line),
            )),
        }
    }
}

impl BertScore {
    /// Scores predictions beside their references. Each text is embedded once.
    ///
    /// # Errors
    /// The encoder's.
    pub fn of(&self, items: &[Item]) -> Result<BertScored> {
        let mut texts: IndexSet<&str> = IndexSet::new();
        for item in items {
            texts.insert(item.prediction);
            texts.extend(item.references.iter().copied());
        }
        let ids: Vec<Vec<i64>> = texts.iter().map(|t| self.encoder.ids(t)).collect::<Result<_>>()?;
        let own = |text: &str| texts.get_index_of(text).map(|at| ids[at].as_slice());
        let references = items.iter().flat_map(|item| &item.references);
        let idf = self.idf.then(|| Idf::of(references.filter_map(|text| own(text))));
        let weight = |id: &i64| match &idf {
            Some(idf) => idf.weight(*id),
            None if self.encoder.special.contains(id) => 0.0,
            None => 1.0,
        };
        let bar = (texts.len() >= WORTH_A_BAR).then(|| Progress::new("texts embedded", texts.len() as u64));
        let vectors = self.encoder.embed(&ids, &|more| {
            if let Some(bar) = &bar {
                bar.inc(more as u64);
            }
        })?;
        if let Some(bar) = bar {
            bar.finish("");
        }
        // Two tokens are the special ones around nothing.
        let tokens = ids.iter().zip(vectors).map(|(ids, vectors)| match ids.len() {
            0..=2 => Ok(Tokens::nothing()),
            _ => Tokens::new(vectors, ids.iter().map(weight).collect()),
        });
        let tokens: Vec<Tokens> = tokens.collect::<Result<_>>()?;
        let of = |text: &str| texts.get_index_of(text).map(|at| &tokens[at]);
        let baseline = self.baseline.as_ref().map(|baseline| baseline.values);
        let score = |item: &Item| -> Result<Score> {
            let mut best: Option<Score> = None;
            for reference in &item.references {
                let (Some(said), Some(reference)) = (of(item.prediction), of(reference)) else {
                    continue;
                };
                let own = matched(said, reference)?;
                best = Some(best.map_or(own, |best| best.best(own)));
            }
            let best = best.ok_or_else(|| Error::data("BERTScore", "references", "at least one", "none"))?;
            Ok(baseline.map_or(best, |baseline| best.rescaled(baseline)))
        };
        let items: Vec<Score> = items.par_iter().map(score).collect::<Result<_>>()?;
        Ok(BertScored {
            corpus: Score::mean(&items),
            items,
        })
    }
}
