//! `af2 score`

mod captions;

use crate::error::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum ScoreVerb {
    /// Captions beside reference captions, as pycocoevalcap scores them: BLEU, ROUGE-L and CIDEr-D, and METEOR and SPICE where
    /// their Java programs are.
    Captions(captions::CaptionsArgs),
}

pub(crate) fn run(verb: &ScoreVerb) -> Result<()> {
    match verb {
        ScoreVerb::Captions(args) => captions::run(args),
    }
}
