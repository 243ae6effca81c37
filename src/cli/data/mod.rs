//! `af2 data`

mod blend;
mod check;
mod of_recipe;
mod pack;
mod read;

use crate::error::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum DataVerb {
    /// The items of a virtual epoch in the reference's order, `task|path` a line.
    Blend(blend::BlendArgs),
    /// The data doctor: missing, unreadable and duplicate audio, wrong durations, empty or long texts, special tokens in
    /// texts, leaks between splits. Exit code 6 where something is wrong.
    Check(check::CheckArgs),
    /// Write a manifest's items as tar shards of sound that is decoded, resampled and cut already.
    Pack(pack::PackArgs),
    /// Run a stage's loader without a model: how fast it is, what padding there is, what is skipped. Stops and goes on
    /// with --cursor.
    Read(read::ReadArgs),
}

pub(crate) fn run(verb: &DataVerb) -> Result<()> {
    match verb {
        DataVerb::Blend(args) => blend::run(args),
        DataVerb::Check(args) => check::run(args),
        DataVerb::Pack(args) => pack::run(args),
        DataVerb::Read(args) => read::run(args),
    }
}
