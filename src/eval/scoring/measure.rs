//! A card's metric of verdicts.

use super::no_text;
use crate::benchmark::names::{Aggregation, Metric};
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::eval::rules::{cmm, Judged, State, Tally};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::classification::{Average, Confusion};
use crate::metrics::statistics::clusters::Clusters;
use indexmap::IndexMap;
use std::borrow::Cow;
use std::hash::{Hash, Hasher};

/// What of a verdict the metrics read: a million of them lie side by side.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub state: State,
    pub correct: bool,
    pub counted: bool,
    /// Whether the rule found an answer.
    pub read: bool,
    /// Whether CMM's own script decided, whose hits are its own.
    cmm: bool,
    /// What was said, where a metric goes by it.
    pub answer: Option<Box<str>>,
}

impl Mark {
    /// `keeps` the answer where [`goes_by_more`] says so.
    pub(super) fn of(judged: &Judged, keeps: bool) -> Self {
        let answer = judged.answer.as_deref().filter(|_| keeps);
        Mark {
            state: judged.state,
            correct: judged.correct,
            counted: judged.counted,
            read: judged.answer.is_some(),
            cmm: judged.by.starts_with("cmm"),
            answer: answer.map(Box::from),
        }
    }

    /// Of an answer that is an option.
    pub(super) fn told(correct: bool) -> Self {
        Mark {
            state: State::Answered,
            correct,
            counted: true,
            read: true,
            cmm: false,
            answer: None,
        }
    }

    /// Another verdict than a rule's: a person's, or one on an answer that no model gave.
    pub(super) fn decide(&mut self, correct: bool) {
        self.correct = correct;
        self.cmm = false;
    }
}

/// The marks, counted.
pub(super) fn tally(marks: &[Mark]) -> Tally {
    let mut tally = Tally::default();
    for mark in marks {
        tally.counted += usize::from(mark.counted);
        tally.correct += usize::from(mark.counted && mark.correct);
        tally.unread += usize::from(mark.counted && !mark.read);
        tally.left_out += usize::from(!mark.counted);
        tally.errors += usize::from(mark.state == State::Error);
    }
    tally
}

/// The same marks, those of items that are not `within` the card's split not counted.
pub(super) fn within<'m>(marks: &'m [Mark], rows: &[Row]) -> Cow<'m, [Mark]> {
    if rows.iter().all(|row| row.within) {
        return Cow::Borrowed(marks);
    }
    let all = marks.iter().zip(rows).map(|(mark, row)| Mark {
        counted: mark.counted && row.within,
        ..mark.clone()
    });
    all.collect()
}

/// What of an item the metrics read beside its mark.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// What it is about, where that is known, with a hash of that: when clusters are sought the text is no longer at hand.
    pub clip: Option<(u64, Cow<'a, str>)>,
    /// Whether it is one of the card's split.
    pub within: bool,
    /// Where [`goes_by_more`] says so.
    pub more: Option<Box<More<'a>>>,
}

/// Of metrics that are not the share of right ones over all items.
#[derive(Debug)]
pub(super) struct More<'a> {
    pub answer: Cow<'a, str>,
    pub prediction: Option<Cow<'a, str>>,
    /// The values of the card's `over`.
    pub over: Vec<Cow<'a, str>>,
}

impl Row<'_> {
    pub(super) fn answer(&self) -> &str {
        self.more.as_ref().map_or("", |more| &more.answer)
    }
}

/// Whether one of the card's metrics wants more of an item than whether it is right.
pub(super) fn goes_by_more(card: &Card) -> bool {
    let share = |metric: &Metric| matches!(metric, Metric::Accuracy | Metric::JudgeMean);
    card.aggregation != Aggregation::Micro || !share(&card.metric) || !card.also.iter().all(share)
}

pub(super) struct Measured {
    pub score: Option<f64>,
    pub interval: Option<Interval>,
    pub parts: IndexMap<String, f64>,
}

/// What is drawn together: an item's clip, or the item alone where no clip is known.
#[derive(PartialEq, Eq)]
enum Cluster<'a> {
    Clip(u64, &'a str),
    Item(usize),
}

impl Hash for Cluster<'_> {
    fn hash<H: Hasher>(&self, to: &mut H) {
        match self {
            Cluster::Clip(hash, _) => hash.hash(to),
            Cluster::Item(i) => i.hash(to),
        }
    }
}

impl<'a> Cluster<'a> {
    fn of(i: usize, row: &'a Row) -> Self {
        let clip = row.clip.as_ref();
        clip.map_or(Cluster::Item(i), |(hash, clip)| Cluster::Clip(*hash, clip))
    }
}

fn right(mark: &Mark) -> f64 {
    f64::from(u8::from(mark.correct))
}

/// The metric, with an interval where one is wanted.
pub(super) fn measure(
    card: &Card,
    rows: &[Row],
    marks: &[Mark],
    bootstrap: Option<Bootstrap>,
) -> Result<Measured> {
    let all = rows.iter().zip(marks).enumerate();
    let counted = || {
        let all = all.clone().filter(|(_, (_, mark))| mark.counted);
        all.map(|(i, (row, mark))| (i, row, mark))
    };
    let mut parts = IndexMap::new();
    match card.metric {
        Metric::Accuracy if card.aggregation == Aggregation::Micro => {
            let interval = |bootstrap: Bootstrap| {
                // Their number is known: the table of clips is made once.
                let all: Vec<_> = counted()
                    .map(|(i, row, mark)| (Cluster::of(i, row), right(mark)))
                    .collect();
                bootstrap.clustered_mean(&Clusters::of(all)?)
            };
            Ok(Measured {
                score: tally(marks).score(),
                interval: bootstrap.map(interval).transpose()?,
                parts,
            })
        }
        Metric::Accuracy => {
            let over = card.over.as_deref().unwrap_or_default();
            let mut of: IndexMap<&str, (f64, f64)> = IndexMap::new();
            for (_, row, mark) in counted() {
                for value in row.more.iter().flat_map(|more| &more.over) {
                    let sums = of.entry(value).or_default();
                    *sums = (sums.0 + right(mark), sums.1 + 1.0);
                }
            }
            if of.is_empty() {
                let expected = format!("items with `{over}`, over whose values the mean goes");
                return Err(Error::data(&card.name, "over", expected, "none"));
            }
            parts.extend(of.iter().map(|(k, (r, n))| ((*k).to_owned(), r / n)));
            let score = parts.values().sum::<f64>() / parts.len() as f64;
            Ok(Measured {
                score: Some(score),
                interval: None,
                parts,
            })
        }
        Metric::PaHrMean => pa_hr_mean(counted(), tally(marks).score(), bootstrap),
        Metric::BalancedAccuracy | Metric::MacroF1 | Metric::MicroF1 | Metric::WeightedF1 => {
            let mut labels: Vec<String> = card
                .labels
                .as_ref()
                .and_then(|l| l.of.clone())
                .unwrap_or_default();
            if labels.is_empty() {
                labels = counted().map(|(_, row, _)| row.answer().to_owned()).collect();
                labels.sort();
                labels.dedup();
            }
            let pairs = counted().map(|(_, row, mark)| {
                let said = match mark.correct {
                    true => Some(row.answer()),
                    false => mark.answer.as_deref(),
                };
                (row.answer(), said)
            });
            let confusion = Confusion::of(&labels, pairs)?;
            let average = |of| confusion.average(of).map(|s| s.f1);
            let score = match card.metric {
                Metric::BalancedAccuracy => confusion.balanced_accuracy(),
                Metric::MacroF1 => average(Average::Macro),
                Metric::MicroF1 => average(Average::Micro),
                _ => average(Average::Weighted),
            };
            parts.extend(confusion.accuracy().map(|a| ("accuracy".to_owned(), a)));
            Ok(Measured {
                score,
                interval: None,
                parts,
            })
        }
        metric => Err(no_text(card, &format!("the metric {metric}"))),
    }
}

/// CMM's two shares and their mean.
fn pa_hr_mean<'r>(
    counted: impl Iterator<Item = (usize, &'r Row<'r>, &'r Mark)>,
    accuracy: Option<f64>,
    bootstrap: Option<Bootstrap>,
) -> Result<Measured> {
    let (mut pa, mut hr) = ((0, 0), (0, 0));
    let mut sums: IndexMap<Cluster, [f64; 4]> = IndexMap::new();
    for (i, row, mark) in counted {
        let prediction = row.more.as_ref().and_then(|more| more.prediction.as_deref());
        let mut shares = cmm::shares(row.answer(), prediction.unwrap_or_default());
        if !mark.cmm {
            // Another rule has its own hits.
            shares.pa_hit = shares.counts_in_pa && mark.correct;
            shares.hr_hit = shares.counts_in_hr && mark.correct;
        }
        pa = (
            pa.0 + usize::from(shares.pa_hit),
            pa.1 + usize::from(shares.counts_in_pa),
        );
        hr = (
            hr.0 + usize::from(shares.hr_hit),
            hr.1 + usize::from(shares.counts_in_hr),
        );
        let own = sums.entry(Cluster::of(i, row)).or_default();
        let flags = [
            shares.pa_hit,
            shares.counts_in_pa,
            shares.hr_hit,
            shares.counts_in_hr,
        ];
        own.iter_mut()
            .zip(flags)
            .for_each(|(sum, flag)| *sum += f64::from(u8::from(flag)));
    }
    let share = |(hits, all): (usize, usize)| (all > 0).then(|| hits as f64 / all as f64);
    let (pa, hr) = (share(pa), share(hr));
    let mut parts = IndexMap::new();
    parts.extend(accuracy.map(|v| ("accuracy".to_owned(), v)));
    parts.extend(pa.map(|v| ("pa".to_owned(), v)));
    parts.extend(hr.map(|v| ("hr".to_owned(), v)));
    let clusters = Clusters::of_sums(4, sums.into_values().flatten().collect())?;
    // A resample without one kind of items is the other kind's share alone.
    let mean = |s: &[f64]| match (s[1] > 0.0, s[3] > 0.0) {
        (true, true) => (s[0] / s[1] + s[2] / s[3]) / 2.0,
        (true, false) => s[0] / s[1],
        _ => s[2] / s[3],
    };
    Ok(Measured {
        score: pa.zip(hr).map(|(a, b)| (a + b) / 2.0),
        interval: pa
            .and(hr)
            .and(bootstrap)
            .map(|bootstrap| bootstrap.of_sums(&clusters, mean))
            .transpose()?,
        parts,
    })
}
