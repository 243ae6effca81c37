//! `af2 data`

use crate::data::blend::{sampled, Blend, Set};
use crate::data::manifest::Manifest;
use crate::error::{Error, Result};
use crate::recipe::reference::Blending;
use crate::recipe::Recipe;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum DataVerb {
    /// The items of a virtual epoch in the reference's order, `task|path` a line.
    Blend(BlendArgs),
}

#[derive(Args)]
pub struct BlendArgs {
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

pub fn run(verb: &DataVerb) -> Result<()> {
    match verb {
        DataVerb::Blend(args) => blend(args),
    }
}

fn blend(args: &BlendArgs) -> Result<()> {
    let usage = |message: String| Err(Error::recipe("command line", message));
    if !(args.subset > 0.0 && args.subset <= 1.0) {
        return usage(format!("--subset: {} is not above 0 and at most 1", args.subset));
    }
    if let (Some(rank), Some(world)) = (args.rank, args.world) {
        if rank >= world {
            return usage(format!("--rank {rank}: ranks of --world {world} are 0 to {}", world.saturating_sub(1)));
        }
    }
    let mut blend = open(args)?;
    if args.subset < 1.0 {
        blend.keep(args.subset, args.seed);
    }
    let mut picks = blend.epoch(args.epoch);
    let counts: serde_json::Map<_, _> = blend
        .sets
        .iter()
        .enumerate()
        .map(|(i, s)| (s.name.clone(), picks.iter().filter(|p| p.set == i).count().into()))
        .collect();
    if let (Some(rank), Some(world)) = (args.rank, args.world) {
        picks = sampled(&picks, args.epoch, rank, world);
    }
    let text = if args.json {
        let items: Vec<_> = picks
            .iter()
            .map(|p| {
                let item = blend.item(*p);
                json!({"set": blend.sets[p.set].name, "key": item.key, "line": blend.line(*p),
                       "prompt": item.prompt, "output": item.output})
            })
            .collect();
        format!("{}\n", json!({"epoch": args.epoch, "sets": counts, "items": items}))
    } else {
        picks.iter().map(|p| blend.line(*p) + "\n").collect()
    };
    match &args.out {
        Some(out) => crate::fsutil::write_atomic_bytes(out, text.as_bytes()),
        None => {
            print!("{text}");
            Ok(())
        }
    }
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
    let recipe = Recipe::load(&args.recipe, &[])?;
    let names = || recipe.stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>();
    let stage = match &args.stage {
        None => recipe.stages.first(),
        Some(name) => recipe.stages.iter().find(|s| s.name == *name),
    };
    let stage = stage.ok_or_else(|| {
        let wanted = args.stage.as_deref().unwrap_or("the first");
        Error::recipe(args.recipe.display().to_string(), format!("no stage {wanted} among {:?}", names()))
    })?;
    let sets = stage.sets.iter().map(|(key, weight)| {
        let path = match &args.manifests {
            None => recipe.manifest(key),
            Some(folder) => folder.join(recipe.data.sets.get(key).cloned().unwrap_or_default()),
        };
        set(named_by(&path), &path, *weight)
    });
    Ok(Blend {
        sets: sets.collect::<Result<_>>()?,
        global_weight: 1.0,
    })
}

fn set(name: String, path: &Path, weight: f64) -> Result<Set> {
    Ok(Set {
        name,
        manifest: Manifest::open(path)?,
        weight,
    })
}

/// `Name-Task/split`, as the reference's configuration would write it: its characters seed the shuffle.
fn named_by(manifest: &Path) -> String {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let folder = text(manifest.parent().and_then(Path::file_name));
    format!("{folder}/{}", text(manifest.file_stem()))
}
