//! `af2 score`

mod arrays;
pub(in crate::cli) mod benchmark;
mod calibration;
mod captions;
mod compare;
mod controls;
mod encoder;
mod retrieval;
mod shown;
mod tagging;
mod told;

pub(super) use benchmark::named_from;

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
    /// Two results of one benchmark, item by item: the difference with its interval, two tests, and what the items could show.
    Compare(compare::CompareArgs),
    /// Results of runs that differ by their seed: their mean, how far they lie apart, and what other clips would change.
    Seeds(compare::SeedsArgs),
    /// Shares that a model gives to choices: Brier score and calibration error, with the bins of a reliability diagram.
    Calibration(calibration::CalibrationArgs),
}

pub(crate) fn run(args: &ScoreArgs) -> Result<()> {
    match &args.verb {
        None => benchmark::run(&args.benchmark),
        Some(ScoreVerb::Captions(args)) => captions::run(args),
        Some(ScoreVerb::Retrieval(args)) => retrieval::run(args),
        Some(ScoreVerb::Tagging(args)) => tagging::run(args),
        Some(ScoreVerb::Compare(args)) => compare::run(args),
        Some(ScoreVerb::Seeds(args)) => compare::run_seeds(args),
        Some(ScoreVerb::Calibration(args)) => calibration::run(args),
    }
}
