//! Steps that moved nothing: their gradient was not finite, or no label of theirs counted. They are counted and named; too
//! many in a row end the run.

use super::steps::{Stepped, Steps};
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::run::nonfinite;
use crate::train::job::Job;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Why a step was skipped whose gradient is finite.
const NOTHING_COUNTS: &str = "no counted token";
/// Items that a message names; the ledger names all.
const SHOWN: usize = 8;

/// A step of which it is not read yet whether it was skipped.
struct Made {
    step: usize,
    skipped: Tensor,
    /// Whether any label counted.
    counted: bool,
}

/// A micro-step of this rank.
pub(crate) struct Micro<'a> {
    pub step: usize,
    pub loss: f64,
    pub items: &'a [String],
}

/// The skipped steps of a stage.
pub(crate) struct Skipped {
    label: String,
    /// Where the job's keys stand.
    section: String,
    /// One JSON object a step and rank.
    ledger: PathBuf,
    /// Most text tokens of an item.
    max_tokens: usize,
    /// So many in a row end the run.
    most: usize,
    rank: usize,
    made: Vec<Made>,
    /// Steps of this process that are read; those that were skipped in a row, and all of them.
    read: usize,
    row: usize,
    all: usize,
}

impl Skipped {
    pub(crate) fn new<J: Job>(recipe: &Recipe, steps: &Steps<J>) -> Self {
        Skipped {
            label: steps.job.name().to_owned(),
            section: steps.job.section(),
            ledger: nonfinite::path(&recipe.output),
            max_tokens: recipe.data.max_tokens,
            most: recipe.train.nonfinite_limit,
            rank: steps.ranks.rank,
            made: Vec::new(),
            read: 0,
            row: 0,
            all: 0,
        }
    }

    /// Notes a step that is made; nothing is read off the device.
    pub(crate) fn note(&mut self, step: usize, done: &Stepped) {
        self.made.push(Made {
            step,
            skipped: done.skipped.shallow_clone(),
            counted: done.counted,
        });
    }

    /// What is to be read of each step since the last time.
    pub(crate) fn unread(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.made.iter().map(|m| &m.skipped)
    }

    /// Takes in what was read and tells of steps that were skipped: these are returned.
    ///
    /// # Errors
    /// Too many in a row; a disk that is full.
    pub(crate) fn take(&mut self, read: &[f64], micro: &[Micro]) -> Result<Vec<usize>> {
        let mut skipped = Vec::new();
        for (made, read) in std::mem::take(&mut self.made).iter().zip(read) {
            self.read += 1;
            if *read == 0.0 {
                self.row = 0;
                continue;
            }
            skipped.push(made.step);
            (self.row, self.all) = (self.row + 1, self.all + 1);
            let own: Vec<&Micro> = micro.iter().filter(|m| m.step == made.step).collect();
            self.tell(made, &own)?;
        }
        Ok(skipped)
    }

    fn tell(&self, made: &Made, own: &[&Micro]) -> Result<()> {
        // Where every loss is finite the gradient overflowed: any of the items may have done it.
        let worst = made.counted && own.iter().any(|m| !m.loss.is_finite());
        let guilty = own.iter().filter(|m| !worst || !m.loss.is_finite());
        let items: Vec<&String> = guilty.flat_map(|m| m.items).collect();
        let what = if worst { "loss" } else { "gradient" };
        // Of a loss that is not finite the rank that had it tells.
        let line = nonfinite::Step {
            stage: &self.label,
            step: made.step,
            rank: self.rank,
            not_finite: made.counted.then_some(what),
            skipped: (!made.counted).then_some(NOTHING_COUNTS),
            items: &items,
        };
        let line = line.line().map_err(|e| Error::io(&self.ledger, e.into()))?;
        append(&self.ledger, &line)?;
        if self.row < self.most {
            return Ok(());
        }
        let (what, hint) = match made.counted {
            true => (
                format!("the {what} is not finite"),
                format!("lower {}.optim.learning_rate or raise its warmup", self.section),
            ),
            false => (
                NOTHING_COUNTS.to_owned(),
                format!(
                    "answers are empty, or data.max_tokens ({}) cuts them off: raise it",
                    self.max_tokens
                ),
            ),
        };
        let shown: Vec<String> = items.iter().take(SHOWN).map(|i| format!("\n  {i}")).collect();
        Err(Error::Training {
            message: format!(
                "{}: {what} at step {}, {} skipped in a row; items of rank {}:{}",
                self.label,
                made.step,
                self.most,
                self.rank,
                shown.concat(),
            ),
            hint: Some(format!(
                "{hint}; {} names the items of every such step",
                self.ledger.display()
            )),
        })
    }

    /// All that were skipped so far.
    pub(crate) fn all(&self) -> usize {
        self.all
    }

    /// Whether the last step that was read moved the weights.
    pub(crate) fn sound(&self) -> bool {
        self.row == 0
    }

    /// # Errors
    /// A stage that made steps, and no one of them moved the weights.
    pub(crate) fn finish(&self) -> Result<()> {
        if self.read == 0 || self.all < self.read {
            return Ok(());
        }
        Err(Error::Training {
            message: format!(
                "{}: all {} steps were skipped: nothing is trained",
                self.label, self.read
            ),
            hint: Some(format!("{} says why of each", self.ledger.display())),
        })
    }
}

fn append(path: &Path, line: &str) -> Result<()> {
    let io = |e| Error::io(path, e);
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(io)?.write_all(line.as_bytes()).map_err(io)
}
