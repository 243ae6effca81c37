//! `af2 judge`

mod check;
mod run;
mod shown;
mod task;

pub(super) use run::no_limits;
pub(super) use task::{protocol, Judge, Task};

use crate::error::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum JudgeVerb {
    /// Have a file of answers marked by a language model, by a benchmark's protocol; writes judgements.jsonl and results.json.
    Run(Box<run::RunArgs>),
    /// Hold a judge's marks against people's, and against another judge's.
    Check(check::CheckArgs),
}

pub(crate) fn run(verb: &JudgeVerb) -> Result<()> {
    match verb {
        JudgeVerb::Run(args) => args.run(),
        JudgeVerb::Check(args) => args.run(),
    }
}
