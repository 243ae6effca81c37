//! `af2 data`

use crate::data::blend::{sampled, Blend, Set};
use crate::data::doctor::{self, Checks, Diagnosis, Fault};
use crate::data::manifest::{Item, Manifest};
use crate::error::{Error, Result};
use crate::recipe::reference::Blending;
use crate::recipe::Recipe;
use crate::report::table::Table;
use crate::text::prompt;
use crate::text::tokenizer::Tokenizer;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum DataVerb {
    /// The items of a virtual epoch in the reference's order, `task|path` a line.
    Blend(BlendArgs),
    /// The data doctor: missing, unreadable and duplicate audio, wrong durations, empty or long texts, leaks between
    /// splits. Exit code 6 where something is wrong.
    Check(CheckArgs),
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

#[derive(Args)]
pub struct CheckArgs {
    /// Manifests, or a recipe: then all of its sets.
    #[arg(required = true, value_name = "RECIPE|MANIFEST")]
    files: Vec<PathBuf>,
    /// Audio paths are relative to this; default: the recipe's data root, or the current folder.
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// An LM's folder, whose tokenizer counts the tokens of each item.
    #[arg(long, value_name = "DIR")]
    llm: Option<PathBuf>,
    /// Most text tokens of an item.
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// Most windows of 10 s of an item.
    #[arg(long, default_value_t = 30)]
    windows: usize,
    /// Items of a batch, for the padding estimate.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Read headers only: no duplicates, no leaks.
    #[arg(long)]
    no_hash: bool,
    /// Findings that are printed of each kind; --json has all.
    #[arg(long, default_value_t = 10)]
    show: usize,
    #[arg(long)]
    json: bool,
}

pub fn run(verb: &DataVerb) -> Result<()> {
    match verb {
        DataVerb::Blend(args) => blend(args),
        DataVerb::Check(args) => check(args),
    }
}

fn blend(args: &BlendArgs) -> Result<()> {
    let usage = |message: String| Err(Error::recipe("command line", message));
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
        format!(
            "{}\n",
            json!({"epoch": args.epoch, "sets": counts, "items": items})
        )
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
        Error::recipe(
            args.recipe.display().to_string(),
            format!("no stage {wanted} among {:?}", names()),
        )
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

fn check(args: &CheckArgs) -> Result<()> {
    let (mut manifests, mut root) = (Vec::new(), args.data_root.clone());
    for file in &args.files {
        if file.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            let recipe = Recipe::load(file, &[])?;
            manifests.extend(recipe.data.sets.keys().map(|set| recipe.manifest(set)));
            root = root.or_else(|| Some(recipe.data_root()));
        } else {
            manifests.push(file.clone());
        }
    }
    let tokenizer = args.llm.as_deref().map(Tokenizer::open).transpose()?;
    let count = |item: &Item| match &tokenizer {
        None => Ok(0),
        Some(t) => Ok(t.encode(&prompt::example(&item.prompt, &item.output))?.len()),
    };
    let root = root.unwrap_or_default();
    let found = doctor::examine(
        &manifests,
        &Checks {
            root: &root,
            windows: args.windows,
            batch: args.batch,
            hash: !args.no_hash,
            tokens: tokenizer.is_some().then_some((&count, args.max_tokens)),
        },
    )?;
    if args.json {
        println!(
            "{}",
            json!({"manifests": found.manifests, "counts": found.counts(), "findings": found.findings})
        );
    } else {
        print_diagnosis(&found, args.show);
    }
    match found.findings.len() {
        0 => Ok(()),
        n => {
            let kinds: Vec<String> = found
                .counts()
                .iter()
                .map(|(k, n)| format!("{n} {}", name(*k)))
                .collect();
            let place = args.files.first().cloned().unwrap_or_default();
            Err(Error::data(
                place,
                "data",
                "nothing wrong",
                format!("{n} faults: {}", kinds.join(", ")),
            ))
        }
    }
}

/// A fault's name, as `--json` writes it.
fn name(fault: Fault) -> String {
    json!(fault).as_str().unwrap_or_default().replace('_', " ")
}

fn print_diagnosis(found: &Diagnosis, show: usize) {
    let mut table = Table::new([
        "manifest",
        "task",
        "split",
        "items",
        "files",
        "hours",
        "windows",
        "padding",
        "in buckets",
    ]);
    for s in &found.manifests {
        let windows: Vec<String> = s.windows.iter().map(|(w, n)| format!("{w}: {n}")).collect();
        table.row([
            s.manifest.display().to_string(),
            s.task.clone(),
            s.split.clone(),
            s.items.to_string(),
            s.files.to_string(),
            format!("{:.2}", s.hours),
            windows.join(", "),
            format!("{:.0}%", 100.0 * s.padding_in_order),
            format!("{:.0}%", 100.0 * s.padding_in_buckets),
        ]);
    }
    println!("{}", table.terminal());
    for s in &found.manifests {
        let answers: Vec<String> = s.answers.iter().map(|(a, n)| format!("{a} ({n})")).collect();
        println!("answers of {}/{}: {}", s.task, s.split, answers.join(", "));
    }
    for (fault, n) in found.counts() {
        println!("{}: {n}", name(fault));
        for f in found.findings.iter().filter(|f| f.fault == fault).take(show) {
            println!("  {} item {}: {}", f.manifest.display(), f.item, f.what);
        }
        if n > show {
            println!("  … {} more", n - show);
        }
    }
}
