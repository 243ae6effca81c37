//! `af2 data check`

use crate::data::doctor::{self, Checks, Diagnosis, Fault};
use crate::data::item::Item;
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::report::table::Table;
use crate::text::prompt;
use crate::text::tokenizer::Tokenizer;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

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

pub fn run(args: &CheckArgs) -> Result<()> {
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
    for note in tokenizer.iter().flat_map(|t| &t.notes) {
        crate::say!("note: {note}");
    }
    let count = |item: &Item| match &tokenizer {
        None => Ok(0),
        Some(t) => Ok(t.encode(&prompt::example(t, &item.prompt, &item.output))?.len()),
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
        crate::out!(
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
    crate::out!("{}", table.terminal());
    for s in &found.manifests {
        let answers: Vec<String> = s.answers.iter().map(|(a, n)| format!("{a} ({n})")).collect();
        crate::out!("answers of {}/{}: {}", s.task, s.split, answers.join(", "));
    }
    for (fault, n) in found.counts() {
        crate::out!("{}: {n}", name(fault));
        for f in found.findings.iter().filter(|f| f.fault == fault).take(show) {
            crate::out!("  {} item {}: {}", f.manifest.display(), f.item, f.what);
        }
        if n > show {
            crate::out!("  … {} more", n - show);
        }
    }
}
