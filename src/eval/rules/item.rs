//! What goes into a rule and what comes out.

use super::space::Space;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What a benchmark's item gives a rule. A rule reads of it what it needs, see the table of [the room](super).
#[derive(Debug, Clone, Copy, Default)]
pub struct Item<'a> {
    /// The question as it was asked; fair rules look here for letters before the options.
    pub question: &'a str,
    /// The options in the order in which they were shown; none of an open question.
    pub choices: &'a [String],
    /// The right answer.
    pub answer: &'a str,
    /// Which of the choices is right, where the benchmark says so by its place and not by its text.
    pub right: Option<usize>,
    /// What the model wrote, untouched; `None` where its file has nothing for this item.
    pub prediction: Option<&'a str>,
    /// Whether the prediction ran into the most tokens that it might have.
    pub truncated: bool,
    /// What a question of following instructions demands.
    pub instruction: Option<Instruction<'a>>,
    /// How near texts are to labels, for the rule that compares them.
    pub space: Option<&'a Space>,
}

/// A demand of MMAU-Pro's instruction following.
#[derive(Debug, Clone, Copy)]
pub struct Instruction<'a> {
    /// `task_identifier`: "Number Bullets".
    pub task: &'a str,
    /// What it is about: `{"N": 2}`.
    pub kwargs: &'a serde_json::Value,
}

/// What became of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The rule found an answer.
    Answered,
    /// The rule found none, or several; it counts as wrong.
    Unparsed,
    /// It declines to answer. Fair rules alone know this.
    Refused,
    /// Nothing, or nothing but white space.
    Empty,
    /// It ran into its most tokens, whatever the rule found in it.
    Truncated,
    /// The item does not fit the rule, or is one on which the official script crashes; [`Judged::reason`] says why.
    Error,
}

impl State {
    /// As files have it.
    pub fn name(self) -> &'static str {
        match self {
            State::Answered => "answered",
            State::Unparsed => "unparsed",
            State::Refused => "refused",
            State::Empty => "empty",
            State::Truncated => "truncated",
            State::Error => "error",
        }
    }
}

/// A rule's verdict on one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// What became of the prediction.
    pub state: State,
    /// What it answers, in the words of the item's choices where there are any. `None`: nothing that the rule could read.
    pub answer: Option<String>,
    /// Where in the prediction, in bytes and on borders of characters.
    pub span: Option<Range<usize>>,
    /// Whether that is right.
    pub correct: bool,
    /// Whether the item is in the score's denominator. The official scripts leave some out.
    pub counted: bool,
    /// The rule, and the branch of it, that found the answer or ended the search: `muchomusic.letter`.
    pub by: &'static str,
    /// Of [`State::Error`], what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Judged {
    pub(super) fn found(
        answer: impl Into<String>,
        span: Range<usize>,
        correct: bool,
        by: &'static str,
    ) -> Self {
        Judged {
            state: State::Answered,
            answer: Some(answer.into()),
            span: Some(span),
            correct,
            counted: true,
            by,
            reason: None,
        }
    }

    /// No answer; wrong.
    pub(super) fn none(state: State, by: &'static str) -> Self {
        Judged {
            state,
            answer: None,
            span: None,
            correct: false,
            counted: true,
            by,
            reason: None,
        }
    }

    pub(super) fn error(by: &'static str, reason: impl Into<String>) -> Self {
        Judged {
            reason: Some(reason.into()),
            ..Judged::none(State::Error, by)
        }
    }

    pub(super) fn uncounted(self) -> Self {
        Judged {
            counted: false,
            ..self
        }
    }

    /// Whether it counts without that the rule found an answer in it: the share that belongs beside every score.
    pub fn unread(&self) -> bool {
        self.counted && self.answer.is_none()
    }
}

/// Verdicts, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Items in the denominator.
    pub counted: usize,
    /// Right ones among them.
    pub correct: usize,
    /// Those among them that the rule could not read, see [`Judged::unread`].
    pub unread: usize,
    /// Items that the official script leaves out.
    pub left_out: usize,
    /// Items on which it would end, whatever the others are.
    pub errors: usize,
}

impl Tally {
    /// Counts verdicts.
    pub fn of<'a>(all: impl IntoIterator<Item = &'a Judged>) -> Self {
        let mut tally = Tally::default();
        for judged in all {
            tally.counted += usize::from(judged.counted);
            tally.correct += usize::from(judged.counted && judged.correct);
            tally.unread += usize::from(judged.unread());
            tally.left_out += usize::from(!judged.counted);
            tally.errors += usize::from(judged.state == State::Error);
        }
        tally
    }

    /// The share of right ones, from 0 to 1; `None` where no item counts.
    pub fn score(&self) -> Option<f64> {
        (self.counted > 0).then(|| self.correct as f64 / self.counted as f64)
    }

    /// The share that the rule could not read.
    pub fn unread_share(&self) -> Option<f64> {
        (self.counted > 0).then(|| self.unread as f64 / self.counted as f64)
    }
}
