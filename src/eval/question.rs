//! One question of an evaluation, and a set of items with how they are to be asked.

use super::control::Control;
use super::rules::RuleName;
use crate::benchmark::wording::Reworded;
use crate::benchmark::Card;
use crate::data::feed::Clip;
use crate::generate::decoding::Decoding;
use crate::generate::engine::Sound;
use std::collections::HashMap;
use std::path::PathBuf;

/// A set of items, and how they are to be asked.
pub(super) struct Wanted<'a> {
    /// For messages, and what ranks agree on.
    pub name: String,
    pub manifest: PathBuf,
    /// Below it lie the sounds.
    pub root: PathBuf,
    /// Only so many items, from the front.
    pub limit: Option<usize>,
    pub decoding: Decoding,
    /// Whether the decoding is the set's own: then it tells its questions from others'.
    pub own_decoding: bool,
    pub controls: Vec<Control>,
    /// Of a benchmark, by which items are worded.
    pub card: Option<&'a Card>,
    pub paraphrase: Paraphrase,
    pub way: Way,
    /// By which the answers are to be read, as far as texts alone say.
    pub rule: Option<RuleName>,
    /// Whether what was thought is taken off the answers.
    pub strip_thinking: bool,
    /// What stands in the place of the sounds, where nobody is to hear them.
    pub in_words: Option<&'a InWords>,
}

/// Sounds in words: the items are asked of these alone.
pub(super) struct InWords {
    /// How answers that were got so are marked.
    pub condition: String,
    /// What stands before an item's question, by the [place](InWords::place) of its clip.
    pub before: HashMap<String, String>,
}

impl InWords {
    /// Tells a clip from others by its sound's hash and where it begins.
    pub(super) fn place(sound: &str, clip: &Clip) -> String {
        format!("{sound} {}", clip.span().start.0)
    }
}

/// Which of a card's paraphrases is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paraphrase {
    /// The one that the card has chosen, which the manifest's questions have.
    Chosen,
    /// By its number, from 0.
    Of(usize),
    /// One after another, item by item.
    All,
}

/// How an answer is got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In the model's own words.
    Said,
    /// The likeliest of the item's options.
    Weighed,
}

/// One question: an item's, in one way.
pub(super) struct Question {
    /// Its place in [`Questions::items`], and in [`Questions::sets`].
    pub item: usize,
    pub set: usize,
    pub control: Control,
    pub way: Way,
    pub sound: Sound,
    /// What is said before the question, in the sound's place.
    pub before: Option<String>,
    /// None where it is asked in the manifest's words.
    pub reworded: Option<Reworded>,
    /// Of options that were rotated: at each place the number of the option that stands there.
    pub order: Vec<usize>,
    /// A hash of all that is asked.
    pub hash: String,
}
