//! What answers get that do not depend on the sound: a score means little without it.

use super::measure::{goes_by_more, measure, Mark, Row};
use super::mmau_pro::left_out;
use super::sample::Sample;
use crate::benchmark::names::{Aggregation, Metric, Task};
use crate::benchmark::Card;
use crate::error::Result;
use crate::eval::json::Json;
use crate::eval::rules::{Item, RuleName};
use crate::run::scored::Frame;
use std::borrow::Cow;

/// What an item's options get, each judged as if a model had answered it.
#[derive(Default)]
pub(super) struct Constants {
    /// In the options' order; none of an item that does not count.
    marks: Vec<Mark>,
    /// Of most characters, of equals the first.
    longest: usize,
    /// Of fewest.
    shortest: usize,
}

/// Judges an item's options. None where it counts and has none.
pub(super) fn constants(card: &Card, rule: RuleName, sample: &Sample, counted: bool) -> Option<Constants> {
    if !counted {
        return Some(Constants::default());
    }
    let options = options(card, sample);
    let lengths = || options.iter().map(|option| option.chars().count()).enumerate();
    let (longest, _) = lengths().reduce(|most, own| if own.1 > most.1 { own } else { most })?;
    let (shortest, _) = lengths().reduce(|least, own| if own.1 < least.1 { own } else { least })?;
    Some(Constants {
        marks: answered(card, rule, sample, &options),
        longest,
        shortest,
    })
}

/// Which of an item's options is answered.
type Choose = dyn Fn(&Constants) -> usize;

/// The frame of a score over these items; none where one of them carries no options.
///
/// # Errors
/// A rule or a metric that texts alone do not give.
pub(super) fn frame(
    card: &Card,
    rule: RuleName,
    rows: &[Row],
    all: &[Option<Constants>],
) -> Result<Option<Frame>> {
    let Some(all) = all
        .iter()
        .map(Option::as_ref)
        .collect::<Option<Vec<&Constants>>>()
    else {
        return Ok(None);
    };
    let score = |choose: &Choose| -> Result<Option<f64>> {
        let answer = |constants: &&Constants| {
            let mark = constants.marks.get(choose(constants)).cloned();
            mark.unwrap_or_else(|| Mark::of(&left_out(), false))
        };
        let marks: Vec<Mark> = all.iter().map(answer).collect();
        if !marks.iter().any(|mark| mark.counted) {
            return Ok(None);
        }
        Ok(measure(card, rows, &marks, None)?.score)
    };
    Ok(Some(Frame {
        chance: chance(card, &all, &score)?,
        first: score(&|_| 0)?,
        longest: score(&|constants| constants.longest)?,
        shortest: score(&|constants| constants.shortest)?,
        answered_by: if reads_letters(rule) { "letter" } else { "text" }.to_owned(),
    }))
}

/// The mean over items of the share of options that are right. Another metric than that share is the mean of what its options get
/// place by place, where all items have as many; else it is not known.
fn chance(
    card: &Card,
    all: &[&Constants],
    score: &dyn Fn(&Choose) -> Result<Option<f64>>,
) -> Result<Option<f64>> {
    let asked = || all.iter().map(|own| &own.marks).filter(|marks| !marks.is_empty());
    if card.metric == Metric::Accuracy && card.aggregation == Aggregation::Micro {
        let shares: Vec<f64> = asked()
            .map(|marks| marks.iter().filter(|m| m.correct).count() as f64 / marks.len() as f64)
            .collect();
        return Ok(crate::metrics::mean(&shares));
    }
    let most = asked().map(Vec::len).max().unwrap_or(0);
    // F1 and its like are not linear in the verdicts.
    let linear = matches!(card.metric, Metric::Accuracy | Metric::PaHrMean);
    if !linear || asked().any(|marks| marks.len() != most) {
        return Ok(None);
    }
    let each = (0..most).map(|place| score(&move |_| place));
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
pub(super) fn options<'s>(card: &'s Card, sample: &'s Sample) -> Cow<'s, [String]> {
    if !sample.choices.is_empty() {
        return Cow::Borrowed(&sample.choices);
    }
    match card.labels.as_ref().and_then(|labels| labels.of.as_deref()) {
        Some(labels) => Cow::Borrowed(labels),
        None if card.task == Task::YesNo => Cow::Owned(vec!["yes".to_owned(), "no".to_owned()]),
        None => Cow::Borrowed(&[]),
    }
}

fn answered<'s>(card: &Card, rule: RuleName, sample: &'s Sample, options: &'s [String]) -> Vec<Mark> {
    let letters = reads_letters(rule);
    let more = goes_by_more(card);
    let answer = |(place, option)| match u8::try_from(place) {
        Ok(place) if letters && place < 26 => Cow::Owned(char::from(b'A' + place).to_string()),
        _ => Cow::Borrowed(option),
    };
    // The official record with another answer where the script takes it from. It is written nowhere.
    let mut record: Option<Json<'s>> = sample.record.clone().filter(Json::is_object);
    let key = rule.prediction_key();
    let judge = |text: Cow<'s, str>| {
        let official = match (&mut record, key) {
            (Some(record), Some(key)) => {
                record.set(key, Json::Text(text.clone()));
                rule.record_as_read(record)
            }
            _ => None,
        };
        let judged = official.unwrap_or_else(|| {
            rule.judge(&Item {
                prediction: Some(&text),
                truncated: false,
                ..sample.item()
            })
        });
        // The metrics that read the text again would read the prediction's.
        let mut mark = Mark::of(&judged, more);
        mark.decide(judged.correct);
        mark
    };
    let options = options.iter().map(String::as_str).enumerate();
    options.map(answer).map(judge).collect()
}
