//! `af2 data pack`

use crate::data::manifest::Manifest;
use crate::data::pack::{pack, Packing};
use crate::data::skips::Ledger;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::run::skipped;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct PackArgs {
    /// A manifest: .json, .jsonl, or shards that others made.
    manifest: PathBuf,
    /// The shards' folder, such as data/shards/Clotho-AQA-AQA/train.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Audio paths are relative to this.
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_root: PathBuf,
    /// Most windows of 10 s of an item. A sound that is longer is heard only by stages with the same number, because
    /// loudness is normalised over what is read.
    #[arg(long, default_value_t = 30)]
    windows: usize,
    /// A shard is closed before it grows larger.
    #[arg(long, value_name = "MB", default_value_t = 512)]
    shard_mb: usize,
    /// Mixes the items: shards are read from front to back.
    #[arg(long, default_value_t = 0, conflicts_with = "in_order")]
    seed: u64,
    /// Keep the manifest's order.
    #[arg(long)]
    in_order: bool,
    /// Share of the items that may be unusable: they are named in DIR/skipped.jsonl and left out.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    skip_budget: f64,
}

pub(crate) fn run(args: &PackArgs) -> Result<()> {
    if args.windows == 0 || !(0.0..=1.0).contains(&args.skip_budget) {
        return Err(Error::usage("--windows is 1 or more, --skip-budget from 0 to 1"));
    }
    let manifest = Manifest::open(&args.manifest)?;
    let progress = Progress::new("pack", manifest.len() as u64);
    let log = skipped::path(&args.out);
    let ledger = Ledger::new(&log, "pack", manifest.len(), args.skip_budget);
    let packing = Packing {
        root: &args.data_root,
        windows: args.windows,
        shard_bytes: args.shard_mb.saturating_mul(1_000_000),
        shuffle: (!args.in_order).then_some(args.seed),
    };
    let index = pack(&manifest, &args.out, &packing, &ledger, |n| {
        progress.inc(n as u64)
    })?;
    progress.finish("");
    let skipped = match ledger.count() {
        0 => String::new(),
        n => format!("; {n} skipped, see {}", log.display()),
    };
    crate::out!(
        "{} items in {} shards in {}{skipped}",
        index.items,
        index.shards,
        args.out.display()
    );
    Ok(())
}
