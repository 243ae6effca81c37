//! `af2 score`

mod arrays;
mod retrieval;
mod tagging;

use crate::error::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum ScoreVerb {
    /// Embeddings of clips and captions: R@1, 5, 10 and 50, mAP@10, median and mean rank, both ways.
    Retrieval(retrieval::RetrievalArgs),
    /// Scores of classes: mAP, area under the ROC curve, label ranking, F1.
    Tagging(tagging::TaggingArgs),
}

pub(crate) fn run(verb: &ScoreVerb) -> Result<()> {
    match verb {
        ScoreVerb::Retrieval(args) => retrieval::run(args),
        ScoreVerb::Tagging(args) => tagging::run(args),
    }
}
