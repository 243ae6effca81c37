//! What answers get that do not depend on the sound: a score means little without it.

use super::mmau_pro::left_out;
use super::{measure, Kind, Sample};
use crate::benchmark::names::{Aggregation, Metric, Task};
use crate::benchmark::Card;
use crate::error::Result;
use crate::eval::json::Json;
use crate::eval::rules::{Item, Judged, RuleName};
use crate::run::scored::{Frame, Scored};
use rayon::prelude::*;

/// Which of an item's options is answered.
type Choose<'a> = dyn Fn(&[String]) -> usize + 'a;

/// Adds the frame to a score of the same samples: each option of each item is judged as if a model had answered it. Nothing is added
/// where the items carry no options.
///
/// # Errors
/// A rule or a metric that texts alone do not give.
pub fn add_frame(scored: &mut Scored, card: &Card, samples: &[Sample], kind: Kind) -> Result<()> {
    let rule = kind.rule(card)?;
    let letters = reads_letters(rule);
    let of_item = |(sample, counted): (&Sample, bool)| -> Option<Vec<Judged>> {
        let options = options(card, sample);
        if !counted {
            return Some(Vec::new());
        }
        (!options.is_empty()).then(|| answered(rule, sample, &options, letters))
    };
    let counted: Vec<bool> = scored.items.iter().map(|item| item.counted).collect();
    let all: Option<Vec<Vec<Judged>>> = samples
        .par_iter()
        .zip(counted)
        .map(of_item)
        .collect::<Vec<_>>()
        .into_iter()
        .collect();
    let Some(all) = all else {
        return Ok(());
    };
    let score = |choose: &Choose| -> Result<Option<f64>> {
        let judged: Vec<Judged> = samples
            .iter()
            .zip(&all)
            .map(|(sample, judged)| {
                let place = match judged.is_empty() {
                    true => 0,
                    false => choose(&options(card, sample)),
                };
                judged.get(place).cloned().unwrap_or_else(left_out)
            })
            .collect();
        if !judged.iter().any(|j| j.counted) {
            return Ok(None);
        }
        Ok(measure(card, samples, &judged, None)?.score)
    };
    let length = |text: &String| text.chars().count();
    scored.frame = Some(Frame {
        chance: chance(card, &all, &score)?,
        first: score(&|_| 0)?,
        longest: score(&|options| {
            let most = options.iter().map(length).max().unwrap_or(0);
            options.iter().position(|o| length(o) == most).unwrap_or(0)
        })?,
        shortest: score(&|options| {
            let least = options.iter().map(length).min().unwrap_or(0);
            options.iter().position(|o| length(o) == least).unwrap_or(0)
        })?,
        answered_by: if letters { "letter" } else { "text" }.to_owned(),
    });
    Ok(())
}

/// The mean over items of the share of options that are right. Another metric than that share is the mean of what its options get
/// place by place, where all items have as many; else it is not known.
fn chance(
    card: &Card,
    all: &[Vec<Judged>],
    score: &dyn Fn(&Choose) -> Result<Option<f64>>,
) -> Result<Option<f64>> {
    let asked: Vec<&Vec<Judged>> = all.iter().filter(|judged| !judged.is_empty()).collect();
    if card.metric == Metric::Accuracy && card.aggregation == Aggregation::Micro {
        let shares: Vec<f64> = asked
            .iter()
            .map(|judged| judged.iter().filter(|j| j.correct).count() as f64 / judged.len() as f64)
            .collect();
        return Ok(crate::metrics::mean(&shares));
    }
    let most = asked.iter().map(|judged| judged.len()).max().unwrap_or(0);
    // F1 and its like are not linear in the verdicts.
    let linear = matches!(card.metric, Metric::Accuracy | Metric::PaHrMean);
    if !linear || asked.iter().any(|judged| judged.len() != most) {
        return Ok(None);
    }
    let each = (0..most).map(|place| score(&|_| place));
    let each: Option<Vec<f64>> = each.collect::<Result<Vec<_>>>()?.into_iter().collect();
    Ok(each.and_then(|each| crate::metrics::mean(&each)))
}

/// Rules that look for a letter and not for what the option says.
fn reads_letters(rule: RuleName) -> bool {
    matches!(
        rule,
        RuleName::OptionLetter
            | RuleName::AirBenchFoundation
            | RuleName::LmmsEvalMmau
            | RuleName::LmmsEvalMmar
            | RuleName::LmmsEvalMuchomusic
    )
}

/// The item's own, or those that all items share.
pub(super) fn options(card: &Card, sample: &Sample) -> Vec<String> {
    if !sample.choices.is_empty() {
        return sample.choices.clone();
    }
    let shared = card.labels.as_ref().and_then(|labels| labels.of.clone());
    match shared {
        Some(labels) => labels,
        None if card.task == Task::YesNo => vec!["yes".to_owned(), "no".to_owned()],
        None => Vec::new(),
    }
}

fn answered(rule: RuleName, sample: &Sample, options: &[String], letters: bool) -> Vec<Judged> {
    let answer = |(place, option): (usize, &String)| match u8::try_from(place) {
        Ok(place) if letters && place < 26 => char::from(b'A' + place).to_string(),
        _ => option.clone(),
    };
    let judge = |text: String| {
        let record = record(sample, &text).and_then(|record| rule.record_as_read(&record));
        let judged = record.unwrap_or_else(|| {
            rule.judge(&Item {
                prediction: Some(&text),
                truncated: false,
                ..sample.item()
            })
        });
        // The metrics that read the text again would read the prediction's.
        Judged {
            by: "frame",
            ..judged
        }
    };
    options.iter().enumerate().map(answer).map(judge).collect()
}

/// The official record with this answer, under every key that a script takes it from.
fn record<'a>(sample: &Sample<'a>, text: &str) -> Option<Json<'a>> {
    let mut record = sample.record.clone().filter(Json::is_object)?;
    for key in ["model_output", "answer_prediction", "pred", "response"] {
        record.set(key, Json::Text(text.to_owned().into()));
    }
    Some(record)
}
