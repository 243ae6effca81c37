//! `af2 data read`

use super::of_recipe::{stage_of, tokenizer};
use crate::curriculum;
use crate::data::feed::Ears;
use crate::data::loader::{Loader, Prepared};
use crate::data::order::Cursor;
use crate::data::skips::Ledger;
use crate::error::{Error, Result};
use crate::recipe_file;
use crate::run::skipped;
use clap::Args;
use serde_json::json;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// More ranks than any machine has.
const MOST_RANKS: usize = 1 << 20;

#[derive(Args)]
pub(crate) struct ReadArgs {
    /// The recipe, a YAML file.
    recipe: PathBuf,
    /// Changes to the recipe, such as data.threads=4.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// The stage whose items are read; default: the first.
    #[arg(long)]
    stage: Option<String>,
    /// An LM's folder, whose tokenizer is used; default: the recipe's.
    #[arg(long, value_name = "DIR")]
    llm: Option<PathBuf>,
    /// Stop at the end of so many epochs, from the first on.
    #[arg(long, default_value_t = 1)]
    epochs: u64,
    /// Stop after so many batches.
    #[arg(long)]
    batches: Option<usize>,
    /// Read this rank's part of --world.
    #[arg(long, default_value_t = 0)]
    rank: usize,
    #[arg(long, default_value_t = 1)]
    world: usize,
    /// Go on where this file says, and keep it up to date after every batch.
    #[arg(long, value_name = "FILE")]
    cursor: Option<PathBuf>,
    /// Append a JSON object for each batch: its items, and the cursor after it.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Where bad items are noted; default: skipped.jsonl in the recipe's output folder.
    #[arg(long, value_name = "FILE")]
    skipped: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

/// What went by.
#[derive(Default)]
struct Sums {
    batches: usize,
    items: usize,
    windows: usize,
    padded_windows: usize,
    tokens: usize,
    padded_tokens: usize,
}

pub(crate) fn run(args: &ReadArgs) -> Result<()> {
    if args.rank >= args.world || args.world > MOST_RANKS {
        let message = format!(
            "--rank {}: ranks of --world {} are below it, and at most {MOST_RANKS}",
            args.rank, args.world
        );
        return Err(Error::usage(message));
    }
    let recipe = recipe_file::load(&args.recipe, &args.overrides)?;
    let stage = stage_of(&recipe, &args.recipe, args.stage.as_deref())?;
    let tokenizer = tokenizer(&recipe, Some(stage), args.llm.as_deref())?;
    let order = curriculum::order(&recipe, stage, args.rank, args.world)?;
    let ears = Ears::new(recipe.data.cache_mib);
    let log = args
        .skipped
        .clone()
        .unwrap_or_else(|| skipped::path(&recipe.output));
    let ledger = Ledger::new(&log, &stage.name, order.blend.len(), recipe.data.skip_budget);
    let loader = Loader {
        order,
        root: recipe.data_root(),
        windows: stage.windows,
        ears: &ears,
        tokenizer: &tokenizer,
        max_tokens: recipe.data.max_tokens,
        ledger,
        bad_items: recipe.data.bad_items,
        known: HashSet::new(),
        threads: recipe.data.threads,
        ahead: recipe.data.ahead,
    };
    let mut from = match &args.cursor {
        None => Cursor::default(),
        Some(path) => Cursor::read(path)?,
    };
    let mut list = args.list.as_deref().map(append).transpose()?;
    let mut sums = Sums::default();
    let started = Instant::now();
    loader.run(from.clone(), |next| {
        while from.epoch < args.epochs && args.batches.is_none_or(|most| sums.batches < most) {
            let batch = next()?;
            // An epoch without an item for this rank shows in the first batch of a later one.
            if (batch.after.epoch, batch.after.batches) > (args.epochs, 0) {
                break;
            }
            sums.add(&batch);
            if let (Some(file), Some(path)) = (&mut list, &args.list) {
                let items: Vec<String> = batch.examples.iter().map(name).collect();
                let line = json!({"after": batch.after, "items": items});
                let written = file.write_all(format!("{line}\n").as_bytes());
                written.map_err(|e| Error::io(path, e))?;
            }
            from = batch.after;
            if let Some(path) = &args.cursor {
                from.write(path)?;
            }
        }
        Ok(())
    })?;
    sums.print(args.json, started.elapsed().as_secs_f64(), loader.ledger.count());
    Ok(())
}

fn append(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|e| Error::io(path, e))
}

/// `FILE#KEY`
fn name(example: &crate::data::feed::Example) -> String {
    format!("{}#{}", example.clip.path().display(), example.item.key)
}

impl Sums {
    fn add(&mut self, batch: &Prepared) {
        let windows = batch.mels.iter().map(|m| m.shape()[0]);
        self.batches += 1;
        self.items += batch.examples.len();
        self.padded_windows += windows.clone().max().unwrap_or(0) * batch.mels.len();
        self.windows += windows.sum::<usize>();
        if let Some(text) = &batch.text {
            self.tokens += text.attention_mask.iter().map(|m| usize::from(*m)).sum::<usize>();
            self.padded_tokens += text.attention_mask.len();
        }
    }

    fn print(&self, json: bool, seconds: f64, skipped: usize) {
        let padding = |real: usize, all: usize| 1.0 - real as f64 / all.max(1) as f64;
        let (windows, tokens) = (
            padding(self.windows, self.padded_windows),
            padding(self.tokens, self.padded_tokens),
        );
        let peak = peak_memory();
        if json {
            crate::out!(
                "{}",
                json!({"batches": self.batches, "items": self.items, "windows": self.windows,
                       "seconds": seconds, "windows_per_second": self.windows as f64 / seconds,
                       "padding_windows": windows, "padding_tokens": tokens, "skipped": skipped,
                       "peak_memory_bytes": peak})
            );
            return;
        }
        crate::out!(
            "{} items in {} batches, {} windows in {seconds:.1} s: {:.0} windows/s",
            self.items,
            self.batches,
            self.windows,
            self.windows as f64 / seconds
        );
        crate::out!(
            "padding: {:.1}% of windows, {:.1}% of tokens; {skipped} items skipped{}",
            100.0 * windows,
            100.0 * tokens,
            peak.map_or(String::new(), |b| format!("; {} MiB at most", b >> 20))
        );
    }
}

/// The process's largest resident memory in bytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
    Some(kib << 10)
}
