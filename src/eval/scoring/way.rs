//! How a card's predictions are scored.

use super::{no_text, texts, Kind};
use crate::benchmark::names::{Metric, Task};
use crate::benchmark::Card;
use crate::error::Result;

/// What of a model's answers is brought to a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Texts that a rule reads: right or wrong.
    Verdicts,
    /// Texts beside reference texts: captions, answers to open questions.
    Texts,
    /// A number for each label.
    Classes,
}

impl Way {
    /// How a card's predictions are scored.
    ///
    /// # Errors
    /// A benchmark of embeddings, which has a verb of its own; answers that only a judge or another model can mark.
    pub fn of(card: &Card, kind: Kind) -> Result<Self> {
        match card.metric {
            Metric::RecallAtK | Metric::MapAt10 => {
                let e = no_text(card, &format!("the metric {}", card.metric));
                Err(e.hint(
                    "embeddings are compared: `af2 score retrieval --audio FILE.npy --text FILE.npy --captions-per-clip 5`",
                ))
            }
            metric if texts::gives(metric) => Ok(Way::Texts),
            _ if texts::is_musicqa(card) => Ok(Way::Texts),
            Metric::MeanAveragePrecision => Ok(Way::Classes),
            Metric::Accuracy if card.task == Task::ZeroShot => Ok(Way::Classes),
            _ => kind.rule(card).map(|_| Way::Verdicts),
        }
    }
}
