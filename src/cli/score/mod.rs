//! `af2 score`

mod arrays;
mod benchmark;
mod captions;
mod retrieval;
mod tagging;

use crate::error::Result;
use clap::{Args, Subcommand};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ScoreArgs {
    #[command(subcommand)]
    verb: Option<ScoreVerb>,
    #[command(flatten)]
    benchmark: benchmark::BenchmarkArgs,
}

#[derive(Subcommand)]
enum ScoreVerb {
    /// Captions beside reference captions, as pycocoevalcap scores them: BLEU, ROUGE-L and CIDEr-D, and METEOR and SPICE where
    /// their Java programs are.
    Captions(captions::CaptionsArgs),
    /// Embeddings of clips and captions: R@1, 5, 10 and 50, mAP@10, median and mean rank, both ways.
    Retrieval(retrieval::RetrievalArgs),
    /// Scores of classes: mAP, area under the ROC curve, label ranking, F1.
    Tagging(tagging::TaggingArgs),
}

pub(crate) fn run(args: &ScoreArgs) -> Result<()> {
    match &args.verb {
        None => benchmark::run(&args.benchmark),
        Some(ScoreVerb::Captions(args)) => captions::run(args),
        Some(ScoreVerb::Retrieval(args)) => retrieval::run(args),
        Some(ScoreVerb::Tagging(args)) => tagging::run(args),
    }
}
