//! `af2 data check`

use super::of_recipe::tokenizer;
use crate::data::doctor::{self, Checks, Diagnosis, Fault};
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::recipe_file;
use crate::report::table::Table;
use crate::text::tokenizer::SpecialTokens;
use crate::text::tokenizer::Tokenizer;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

const TOKENS: usize = 512;
const WINDOWS: usize = 30;

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Manifests, or a recipe: then all of its sets.
    #[arg(required = true, value_name = "RECIPE|MANIFEST")]
    files: Vec<PathBuf>,
    /// Audio paths are relative to this; default: the recipe's data root, or the current folder.
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// An LM's folder, whose tokenizer counts the tokens of each item; default: the one that the recipe trains with.
    #[arg(long, value_name = "DIR")]
    llm: Option<PathBuf>,
    /// Most text tokens of an item; default: the recipe's, or 512.
    #[arg(long)]
    max_tokens: Option<usize>,
    /// Most windows of 10 s of an item; default: the most of the recipe's stages, or 30.
    #[arg(long)]
    windows: Option<usize>,
    /// Items of a batch, for the padding estimate.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Read headers only: no duplicates, no leaks.
    #[arg(long)]
    no_hash: bool,
    /// Findings that are printed of each kind; --json has 100,000 of each, and all are counted.
    #[arg(long, default_value_t = 10)]
    show: usize,
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &CheckArgs) -> Result<()> {
    let (mut manifests, mut recipes) = (Vec::new(), Vec::new());
    for file in &args.files {
        if file.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            let recipe = recipe_file::load(file, &[])?;
            manifests.extend(recipe.data.sets.keys().map(|set| recipe.manifest(set)));
            recipes.push(recipe);
        } else {
            manifests.push(file.clone());
        }
    }
    let recipe = recipes.first();
    let root = args.data_root.clone().or(recipe.map(Recipe::data_root));
    let tokenizer = match (recipe, &args.llm) {
        (None, None) => None,
        (None, Some(folder)) => Some(Tokenizer::open(folder)?),
        (Some(recipe), Some(folder)) => Some(tokenizer(recipe, None, Some(folder))?),
        (Some(recipe), None) => match tokenizer(recipe, recipe.stages.first(), None) {
            Ok(tokenizer) => Some(tokenizer),
            Err(e) => {
                crate::say!("note: tokens are not counted, the recipe's tokenizer does not open: {e}");
                None
            }
        },
    };
    for note in tokenizer.iter().flat_map(|t| &t.notes) {
        crate::say!("note: {note}");
    }
    let tokenizer = tokenizer.map(|mut t| {
        // The doctor names such texts; it does not end at the first.
        if t.special_tokens == SpecialTokens::Refuse {
            t.special_tokens = SpecialTokens::Text;
        }
        t
    });
    let stages = recipe.map(|r| r.stages.iter().map(|s| s.windows).max());
    let most = args.max_tokens.or(recipe.map(|r| r.data.max_tokens));
    let root = root.unwrap_or_default();
    let found = doctor::examine(
        &manifests,
        &Checks {
            root: &root,
            windows: args.windows.or(stages.flatten()).unwrap_or(WINDOWS),
            batch: args.batch,
            hash: !args.no_hash,
            tokenizer: tokenizer.as_ref().map(|t| (t, most.unwrap_or(TOKENS))),
        },
    )?;
    if args.json {
        let mut all = json!({"manifests": found.manifests, "counts": found.counts});
        if !found.left_out().is_empty() {
            all["findings_left_out"] = json!(found.left_out());
        }
        // Many of them are better not held a second time.
        let text = all.to_string();
        crate::screen::out(text.strip_suffix('}').unwrap_or_default());
        print_list(&found);
    } else {
        print_diagnosis(&found, args.show);
    }
    match found.counts.values().sum::<usize>() {
        0 => Ok(()),
        n => {
            let kinds: Vec<String> = found
                .counts
                .iter()
                .map(|(k, n)| format!("{n} {}", name(*k)))
                .collect();
            let place = args.files.first().cloned().unwrap_or_default();
            Err(Error::data(
                place,
                "data",
                "nothing wrong",
                format!("{n} fault{}: {}", if n == 1 { "" } else { "s" }, kinds.join(", ")),
            ))
        }
    }
}

/// The end of the JSON object: all findings.
fn print_list(found: &Diagnosis) {
    crate::screen::out(",\"findings\":[");
    for (i, finding) in found.findings.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        crate::screen::out(&format!("{comma}{}", json!(finding)));
    }
    crate::out!("]}}");
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
    for (fault, n) in found.counts.clone() {
        crate::out!("{}: {n}", name(fault));
        if fault == Fault::SpecialTokens {
            crate::out!("  (how they are read: data.special_tokens_in_texts, text | refuse | as_tokens)");
        }
        for f in found.findings.iter().filter(|f| f.fault == fault).take(show) {
            match f.item.as_str() {
                // What is wrong with a manifest names it itself.
                "" => crate::out!("  {}", f.what),
                item => crate::out!("  {} item {item}: {}", f.manifest.display(), f.what),
            }
        }
        if n > show {
            crate::out!("  … {} more", n - show);
        }
    }
}
