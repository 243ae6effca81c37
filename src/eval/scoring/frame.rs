//! What answers get that do not depend on the sound: a score means little without it.

use super::measure::{goes_by_more, measure, Mark, Row};
use super::mmau_pro::left_out;
use super::sample::Sample;
use crate::benchmark::names::{Aggregation, Metric, Task};
use crate::benchmark::Card;
use crate::error::Result;
use crate::eval::json::Json;
use crate::eval::rules::{Item, RuleName, State};
use crate::run::scored::Frame;
use std::borrow::Cow;

/// What an item's options get, each judged as if a model had answered it.
#[derive(Default)]
pub(super) struct Constants {
    /// In the options' order; none of an item that does not count.
    verdicts: Verdicts,
    /// Of most characters, of equals the first.
    longest: usize,
    /// Of fewest.
    shortest: usize,
}

/// What some options get.
enum Verdicts {
    /// Of so many, whose verdicts all count, those that are right: a bit each. A million items lie side by side.
    Right { of: u32, right: u64 },
    /// Of metrics that go by more, and of many options.
    Marks(Vec<Mark>),
}

impl Default for Verdicts {
    fn default() -> Self {
        Verdicts::Right { of: 0, right: 0 }
    }
}

impl Verdicts {
    fn of_marks(marks: Vec<Mark>, more: bool) -> Self {
        if more || marks.len() > u64::BITS as usize || !marks.iter().all(|mark| mark.counted) {
            return Verdicts::Marks(marks);
        }
        Verdicts::of_rights(marks.iter().map(|mark| mark.correct))
    }

    /// At most as many as bits.
    fn of_rights(all: impl Iterator<Item = bool>) -> Self {
        let (mut of, mut right) = (0, 0);
        for correct in all {
            right |= u64::from(correct) << of;
            of += 1;
        }
        Verdicts::Right { of, right }
    }

    fn len(&self) -> usize {
        match self {
            Verdicts::Right { of, .. } => *of as usize,
            Verdicts::Marks(marks) => marks.len(),
        }
    }

    fn correct(&self) -> usize {
        match self {
            Verdicts::Right { right, .. } => right.count_ones() as usize,
            Verdicts::Marks(marks) => marks.iter().filter(|mark| mark.correct).count(),
        }
    }

    fn mark(&self, place: usize) -> Option<Mark> {
        match self {
            Verdicts::Right { right, .. } => {
                (place < self.len()).then(|| Mark::told(right >> place & 1 == 1))
            }
            Verdicts::Marks(marks) => marks.get(place).cloned(),
        }
    }
}

/// Judges the options of an item whose own verdict is this. None where it counts and has none.
pub(super) fn constants(
    card: &Card,
    rule: RuleName,
    sample: &Sample,
    state: State,
    counted: bool,
) -> Option<Constants> {
    if !counted {
        return Some(Constants::default());
    }
    let options = options(card, sample);
    let lengths = || options.iter().map(|option| option.chars().count()).enumerate();
    let (longest, _) = lengths().reduce(|most, own| if own.1 > most.1 { own } else { most })?;
    let (shortest, _) = lengths().reduce(|least, own| if own.1 < least.1 { own } else { least })?;
    let more = goes_by_more(card);
    let at_once = match more || state == State::Error {
        true => None,
        false => at_once(rule, sample),
    };
    Some(Constants {
        verdicts: match at_once {
            Some(all) => Verdicts::of_rights(all.into_iter()),
            None => Verdicts::of_marks(answered(rule, sample, &options, more), more),
        },
        longest,
        shortest,
    })
}

/// Which of an item's own options are right, where the rule tells that of all at once and its script reads what the sample has.
fn at_once(rule: RuleName, sample: &Sample) -> Option<Vec<bool>> {
    if let (Some(record), Some(_)) = (&sample.record, rule.prediction_key()) {
        let choices = record.get("choices")?.as_list()?;
        let same = choices.len() == sample.choices.len()
            && choices
                .iter()
                .zip(&sample.choices)
                .all(|(read, own)| read.as_str() == Some(own))
            && record.get("answer")?.as_str()? == sample.answer;
        if !same {
            return None;
        }
    }
    let few = sample.choices.len() <= u64::BITS as usize && !sample.choices.is_empty();
    few.then(|| rule.choices_that_are_right(&sample.answer, &sample.choices))?
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
            let mark = constants.verdicts.mark(choose(constants));
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
    let asked = || {
        all.iter()
            .map(|own| &own.verdicts)
            .filter(|verdicts| verdicts.len() > 0)
    };
    if card.metric == Metric::Accuracy && card.aggregation == Aggregation::Micro {
        let shares: Vec<f64> = asked()
            .map(|verdicts| verdicts.correct() as f64 / verdicts.len() as f64)
            .collect();
        return Ok(crate::metrics::mean(&shares));
    }
    let most = asked().map(Verdicts::len).max().unwrap_or(0);
    // F1 and its like are not linear in the verdicts.
    let linear = matches!(card.metric, Metric::Accuracy | Metric::PaHrMean);
    if !linear || asked().any(|verdicts| verdicts.len() != most) {
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

/// Each option judged by itself. `more`: what the metrics go by stays.
fn answered<'s>(rule: RuleName, sample: &'s Sample, options: &'s [String], more: bool) -> Vec<Mark> {
    let letters = reads_letters(rule);
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
