//! Predictions of any model, scored by a benchmark's card: no model, no sound.
//!
//! ```text
//! files.rs: any file to records ─► samples.rs: items with predictions ─► a rule's verdicts ─► the card's metric ─► run/scored.rs
//!                                  pairs.rs: texts beside references  ─► texts.rs: captions, MusicQA ───────────┤
//!            tagged.rs: texts ─►   classes.rs: a number for each label ─► mAP, or the likeliest label ──────────┘
//! run/scored.rs, twice or more ─► compare.rs: do they differ;  lines with likelihoods ─► likelihoods.rs: are they meant
//! ```

mod answers;
mod beside;
mod classes;
mod compare;
mod cut;
mod files;
mod frame;
mod joined;
mod likelihoods;
mod listening;
mod loaded;
mod measure;
mod mmau_pro;
mod near;
mod overrides;
mod pairs;
mod sample;
mod samples;
mod score;
mod space;
mod tagged;
mod texts;
mod way;

pub use answers::{answers, Answers};
pub(crate) use beside::parted;
pub use classes::classes;
pub use compare::{compare, seeds, Agreement, Compared, Seeds};
pub use files::{open, Opened, Records};
pub use likelihoods::{likelihoods, By, Likelihood};
pub use listening::{listening, Asked};
pub(crate) use loaded::named_records;
pub(crate) use mmau_pro::is_open;
pub use overrides::{read_overrides, Overrides};
pub use pairs::{pairs, pairs_with_records, Pair, Pairs};
pub use sample::{Form, Sample};
pub use samples::{samples, Samples};
pub use score::score;
pub(crate) use space::compares_embeddings;
pub use space::{embed, fits, templates};
pub use texts::texts;
pub use way::Way;

use super::rules::RuleName;
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::run::scored::{EncoderFacts, PredictionsFile, SpaceFacts};

/// Which of a card's two rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The benchmark's own script, to the letter.
    Official,
    /// What an attentive reader would count.
    Fair,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Official => "official",
            Kind::Fair => "fair",
        }
    }

    fn other(self) -> Self {
        match self {
            Kind::Official => Kind::Fair,
            Kind::Fair => Kind::Official,
        }
    }

    /// The card's rule of this kind.
    ///
    /// # Errors
    /// One that cannot be applied to texts alone.
    pub fn rule(self, card: &Card) -> Result<RuleName> {
        let named = match self {
            Kind::Official => card.rules.as_ref().map(|r| r.official),
            Kind::Fair => card.rules.as_ref().map(|r| r.fair),
        };
        let Some(named) = named else {
            return Err(no_text(card, "no rule: embeddings are compared"));
        };
        named.name().parse().map_err(|_| {
            let needs = match named.name() {
                "judge" => JUDGE,
                other => other,
            };
            no_text(card, needs)
        })
    }
}

/// What open answers want.
const JUDGE: &str = "a judge's marks";

fn no_text(card: &Card, needs: &str) -> Error {
    let expected = "a benchmark whose answers are scored as texts";
    let e = Error::data(&card.name, "rules", expected, needs.to_owned());
    if needs == JUDGE {
        let name = &card.name;
        return e.hint(format!(
            "`af2 judge run --benchmark {name} --predictions FILE --endpoint URL --out DIR` asks one"
        ));
    }
    e.hint("`af2 benchmark ls` shows rules and metrics; `af2 score --help` what else is scored")
}

/// Where the items come from.
#[derive(Default)]
pub struct Source {
    /// The sha256 of a file of items; none where the predictions carry them.
    pub items: Option<(String, String)>,
    /// Whose predictions.
    pub model: Option<String>,
    /// Of the card's file.
    pub card_sha256: String,
    /// The files, to be found again.
    pub predictions: Option<PredictionsFile>,
    /// Where the samples' embeddings come from, if they have some.
    pub space: Option<SpaceFacts>,
    /// Whose tokens are compared, if some are.
    pub bert_score: Option<EncoderFacts>,
}

/// The card's name, and of how many of its items where they are not all.
fn named(card: &Card, n: usize) -> String {
    match card.items() {
        Some(all) if all != n as u64 => format!("{} ({n} of {all} items)", card.name),
        _ => card.name.clone(),
    }
}

/// Which af2 this is.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
