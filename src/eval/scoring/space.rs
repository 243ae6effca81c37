//! What a rule that compares embeddings has to be given: those of all texts that it will look at, by AF-CLAP's text tower.

use super::frame::options;
use super::near;
use super::{Kind, Sample, Way};
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::eval::rules::retrieval::{fill, mean_direction, Space, PLACE};
use crate::eval::rules::RuleName;
use crate::load::TextSpace;
use crate::progress::Progress;
use indexmap::IndexSet;
use std::sync::Arc;

/// Fewer texts than this are embedded before anybody could read that they are.
const WORTH_A_BAR: usize = 200;

/// Whether one of the card's rules compares embeddings.
pub(crate) fn compares_embeddings(card: &Card) -> bool {
    [Kind::Official, Kind::Fair]
        .iter()
        .any(|kind| kind.rule(card).is_ok_and(RuleName::compares_embeddings))
}

/// Whether there is a tower where one is wanted, and something to do for it, and for an encoder of tokens, where there is one.
///
/// # Errors
/// No tower for the rule that reads the answers; a tower or an encoder of which the card makes no use.
pub fn fits(card: &Card, way: Way, kind: Kind, tower: bool, encoder: bool) -> Result<()> {
    if encoder && way != Way::Texts {
        let e = Error::usage(format!(
            "--bertscore: answers to {} are not compared with reference texts",
            card.name
        ));
        return Err(e.hint(format!("`af2 benchmark show {}` says its rules", card.name)));
    }
    let compares = way != Way::Texts && compares_embeddings(card);
    if tower && !compares {
        let e = Error::usage(format!(
            "--clap: no rule of {} compares embeddings, and nothing would be read with it",
            card.name
        ));
        return Err(e.hint(format!("`af2 benchmark show {}` says its rules", card.name)));
    }
    // Numbers for labels may be brought where no text is read.
    match compares && way == Way::Verdicts && !tower && kind.rule(card)?.compares_embeddings() {
        true => Err(near::wanted(card, kind.name())),
        false => Ok(()),
    }
}

/// What is embedded of a label, with [`PLACE`] where it stands.
pub fn templates(card: &Card) -> Vec<String> {
    let own = card.labels.as_ref().map(|labels| labels.templates.clone());
    match own.filter(|templates| !templates.is_empty()) {
        Some(templates) => templates,
        None => vec![PLACE.to_owned()],
    }
}

/// Embeds the predictions, the labels in their templates, and the options that a constant answer gives, each text once, and gives the
/// samples what was made of them.
///
/// # Errors
/// The tower's; a template without a place for its label.
pub fn embed(card: &Card, samples: &mut [Sample], tower: &TextSpace) -> Result<()> {
    let shared = card.labels.as_ref().and_then(|labels| labels.of.as_ref());
    let labels: IndexSet<String> = match shared {
        Some(labels) => labels.iter().cloned().collect(),
        None => samples.iter().flat_map(|s| s.choices.iter().cloned()).collect(),
    };
    let mut texts: IndexSet<String> = samples
        .iter()
        .filter_map(|s| s.prediction.as_deref())
        .filter(|text| !text.trim().is_empty())
        .map(str::to_owned)
        .collect();
    for sample in samples.iter() {
        texts.extend(options(card, sample).iter().cloned());
    }
    // Those of the rule come first; what is embedded of a label may be what a model has said.
    let said = texts.len();
    let mut filled = Vec::with_capacity(labels.len());
    for label in &labels {
        filled.push(in_templates(card, label, &mut texts)?);
    }
    let vectors = vectors(&texts, tower)?;
    let vector = |at: usize| -> Vec<f64> { vectors[at].clone() };
    let labels = labels.into_iter().zip(filled).filter_map(|(label, places)| {
        let each: Vec<Vec<f64>> = places.into_iter().map(vector).collect();
        Some((label, mean_direction(&each)?))
    });
    let labels = labels.collect();
    let texts = texts.into_iter().take(said).enumerate();
    let texts = texts.map(|(at, text)| (text, vector(at))).collect();
    let space = Arc::new(Space::new(labels, shared.is_some(), texts));
    for sample in samples {
        sample.space = Some(space.clone());
    }
    Ok(())
}

/// A label in each of the card's templates: where these stand in `texts`, which gets those that it lacks.
///
/// # Errors
/// A template without a place for its label.
pub(super) fn in_templates(card: &Card, label: &str, texts: &mut IndexSet<String>) -> Result<Vec<usize>> {
    let each = templates(card).into_iter().map(|template| {
        let text =
            fill(&template, label).map_err(|e| Error::data(&card.name, "labels.templates", PLACE, e))?;
        Ok(texts.insert_full(text).0)
    });
    each.collect()
}

/// What the tower makes of each text.
pub(super) fn vectors(texts: &IndexSet<String>, tower: &TextSpace) -> Result<Vec<Vec<f64>>> {
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    let bar = (all.len() >= WORTH_A_BAR).then(|| Progress::new("texts embedded", all.len() as u64));
    let vectors = tower.embed(&all, &|more| {
        if let Some(bar) = &bar {
            bar.inc(more as u64);
        }
    })?;
    if let Some(bar) = bar {
        bar.finish("");
    }
    let doubles = |vector: Vec<f32>| vector.into_iter().map(f64::from).collect();
    Ok(vectors.into_iter().map(doubles).collect())
}
