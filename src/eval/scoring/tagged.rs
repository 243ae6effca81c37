//! Texts that name several labels, as a number for each label: how near what they name is to it, in the space of AF-CLAP's text tower.

use super::space::{in_templates, vectors};
use crate::benchmark::Card;
use crate::error::Result;
use crate::eval::rules::ltu::{self, Mode};
use crate::eval::rules::retrieval::mean_direction;
use crate::load::TextSpace;
use indexmap::IndexSet;

/// What a text names: its parts between semicolons or, where it has none, commas.
pub(super) fn phrases(text: &str) -> Vec<&str> {
    let sign = if text.contains(';') { ';' } else { ',' };
    let parts = text
        .split(sign)
        .map(|part| part.trim().trim_end_matches('.').trim_end());
    parts.filter(|part| !part.is_empty()).collect()
}

/// For each text the sum of its phrases' cosines to each label, as LTU's `eval_fsd50k.py` sums them; nothing but zeros for a text that
/// names nothing.
///
/// # Errors
/// The tower's; a template without a place for its label.
pub(super) fn scores(
    card: &Card,
    labels: &[String],
    texts: &[Option<String>],
    tower: &TextSpace,
) -> Result<Vec<Vec<f64>>> {
    let mut all: IndexSet<String> = IndexSet::new();
    let of_labels = labels.iter().map(|label| in_templates(card, label, &mut all));
    let of_labels: Vec<Vec<usize>> = of_labels.collect::<Result<_>>()?;
    let said: Vec<Vec<usize>> = texts
        .iter()
        .map(|text| {
            let named = phrases(text.as_deref().unwrap_or_default());
            named
                .into_iter()
                .map(|phrase| all.insert_full(phrase.to_owned()).0)
                .collect()
        })
        .collect();
    let vectors = vectors(&all, tower)?;
    let labels: Vec<Vec<f64>> = of_labels
        .iter()
        .map(|places| {
            let each: Vec<Vec<f64>> = places.iter().map(|at| vectors[*at].clone()).collect();
            // Of no direction at all nothing is near.
            mean_direction(&each).unwrap_or_else(|| vec![0.0; each.first().map_or(0, Vec::len)])
        })
        .collect();
    let labels: Vec<&[f64]> = labels.iter().map(Vec::as_slice).collect();
    let scored = said.iter().map(|places| {
        let phrases: Vec<&[f64]> = places.iter().map(|at| vectors[*at].as_slice()).collect();
        ltu::scores(&phrases, &labels, Mode::Accu)
    });
    Ok(scored.collect())
}

#[cfg(test)]
mod tests {
    use super::phrases;

    #[test]
    fn a_text_is_cut_into_what_it_names() {
        assert_eq!(
            phrases("Bark; Dog, domestic; Animal."),
            ["Bark", "Dog, domestic", "Animal"]
        );
        assert_eq!(phrases("Bark, Dog , ,Animal"), ["Bark", "Dog", "Animal"]);
        assert_eq!(phrases("a dog barks."), ["a dog barks"]);
        assert!(phrases(" ,. ").is_empty() && phrases("").is_empty());
    }
}
