//! `af2 data blend`

use super::of_recipe::stage_of;
use crate::curriculum;
use crate::data::blend::{sampled, Blend, Pick, Set};
use crate::data::manifest::Manifest;
use crate::error::{Error, Result};
use crate::recipe_file;
use crate::reference::Blending;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Text that is written at once.
const AT_ONCE: usize = 1 << 16;

#[derive(Args)]
pub(crate) struct BlendArgs {
    /// A recipe, or one of the reference's own YAML files.
    recipe: PathBuf,
    /// The virtual epoch, from 0.
    #[arg(long, default_value_t = 0)]
    epoch: u64,
    /// A recipe's stage; default: the first.
    #[arg(long)]
    stage: Option<String>,
    /// The manifests' folder, where it is not the one that the file says.
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Only a random part of each set, for ablations of the amount of data.
    #[arg(long, value_name = "FRACTION", default_value_t = 1.0)]
    subset: f64,
    /// Chooses the part.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What this rank of --world sees, in the order in which torch's DistributedSampler deals it out.
    #[arg(long, requires = "world")]
    rank: Option<usize>,
    #[arg(long, requires = "rank")]
    world: Option<usize>,
    /// One JSON object: epoch, count of each set, items with key, prompt and answer.
    #[arg(long)]
    json: bool,
    /// Write into a file and not to the screen.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &BlendArgs) -> Result<()> {
    let usage = |message: String| Err(Error::usage(message));
    if !(args.subset > 0.0 && args.subset <= 1.0) {
        return usage(format!("--subset: {} is not above 0 and at most 1", args.subset));
    }
    if let (Some(rank), Some(world)) = (args.rank, args.world) {
        if rank >= world {
            return usage(format!(
                "--rank {rank}: ranks of --world {world} are 0 to {}",
                world.saturating_sub(1)
            ));
        }
    }
    let mut blend = open(args)?;
    if args.subset < 1.0 {
        blend.keep(args.subset, args.seed);
    }
    blend.reaches(args.epoch)?;
    let mut picks = blend.epoch(args.epoch);
    let counts: serde_json::Map<_, _> = blend
        .sets
        .iter()
        .enumerate()
        .map(|(i, s)| (s.name.clone(), picks.iter().filter(|p| p.set == i).count().into()))
        .collect();
    if picks.is_empty() {
        let what = "the sets' weights give this epoch no item of any";
        crate::say!("note: {what}: {}", json!(counts));
    }
    if let (Some(rank), Some(world)) = (args.rank, args.world) {
        let own = sampled(picks.len(), args.epoch, rank, world);
        picks = own.into_iter().map(|i| picks[i]).collect();
    }
    match &args.out {
        Some(out) => crate::fsutil::write_atomic(out, |w| {
            list(&blend, &picks, args, &counts, |text| {
                w.write_all(text.as_bytes()).map_err(|e| Error::io(out, e))
            })
        }),
        None => list(&blend, &picks, args, &counts, |text| {
            crate::screen::out(text);
            Ok(())
        }),
    }
}

/// Writes the items, a piece at a time: an epoch may have millions.
fn list(
    blend: &Blend,
    picks: &[Pick],
    args: &BlendArgs,
    counts: &serde_json::Map<String, serde_json::Value>,
    mut write: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut text = String::new();
    if args.json {
        let head = json!({"epoch": args.epoch, "sets": counts}).to_string();
        text = format!("{},\"items\":[", head.strip_suffix('}').unwrap_or_default());
    }
    for (i, pick) in picks.iter().enumerate() {
        let item = blend.item(*pick)?;
        let line = blend.line(*pick, &item);
        if args.json {
            let comma = if i > 0 { "," } else { "" };
            let item = json!({"set": blend.sets[pick.set].name, "key": item.key, "line": line,
                              "prompt": item.prompt, "output": item.output});
            text += &format!("{comma}{item}");
        } else {
            text += &line;
            text.push('\n');
        }
        if text.len() > AT_ONCE {
            write(&text)?;
            text.clear();
        }
        if args.out.is_none() && crate::screen::lost() {
            return Ok(());
        }
    }
    if args.json {
        text += "]}\n";
    }
    write(&text)
}

fn open(args: &BlendArgs) -> Result<Blend> {
    if let Some(reference) = Blending::read(&args.recipe)? {
        let folder = args.manifests.clone().unwrap_or(reference.manifests);
        let sets = reference.sets.into_iter().map(|(name, weight)| {
            let path = folder.join(format!("{name}.json"));
            set(name, &path, weight)
        });
        return Ok(Blend {
            sets: sets.collect::<Result<_>>()?,
            global_weight: reference.global_weight,
        });
    }
    let recipe = recipe_file::load(&args.recipe, &[])?;
    let stage = stage_of(&recipe, &args.recipe, args.stage.as_deref())?;
    curriculum::blend(&recipe, stage, args.manifests.as_deref())
}

fn set(name: String, path: &Path, weight: f64) -> Result<Set> {
    Ok(Set {
        name,
        manifest: Manifest::open(path)?,
        weight,
    })
}
