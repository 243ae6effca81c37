//! `af2 recipe`: what recipes there are, what one says with every default, whether it is sound, and the reference's as ours.

use super::parts::{self, RecipeArgs};
use crate::error::{all, Error, Result};
use crate::recipe::{Recipe, DEMO};
use crate::recipe_file;
use crate::recipe_file::Layers;
use clap::{Args, Subcommand};
use serde_yaml::Value;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(crate) enum RecipeVerb {
    /// List the recipes below recipes/ and ablations/, and the built-in one.
    Ls,
    /// Print a recipe whole: its bases merged, changes applied, every default written out.
    Show(ShowArgs),
    /// Read recipes and say everything that is wrong with them; exit code 4 where something is.
    Check(CheckArgs),
    /// Turn the reference's pretrain.yaml or sft.yaml into a recipe that names each source key.
    Import(ImportArgs),
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// One line a value, with where it was written: file:line, command line or default.
    #[arg(long)]
    origin: bool,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    #[arg(required = true, value_name = "RECIPE")]
    recipes: Vec<PathBuf>,
    /// Look at every file that they name, too, and say how often items are seen; exit code 3 where one is missing.
    #[arg(long)]
    files: bool,
}

#[derive(Args)]
pub(crate) struct ImportArgs {
    /// The reference's file.
    file: PathBuf,
    /// Where the recipe is written; default: standard output.
    #[arg(long, short, value_name = "OUT")]
    out: Option<PathBuf>,
    /// Ranks that will train: epochs become steps by them.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    ranks: u32,
    /// Names the stage, and with it the folder below checkpoints/; default: pretrain, or sft for fine-tuning.
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
}

pub(crate) fn run(verb: &RecipeVerb) -> Result<()> {
    match verb {
        RecipeVerb::Ls => ls(),
        RecipeVerb::Show(args) => show(args),
        RecipeVerb::Check(args) => check(args),
        RecipeVerb::Import(args) => import(args),
    }
}

fn ls() -> Result<()> {
    let mut files = Vec::new();
    for folder in ["recipes", "ablations"] {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        let mut own: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        own.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
        own.sort();
        files.extend(own);
    }
    let mut shown = line("(built in: af2 demo)", recipe_file::demo(&[]), DEMO);
    for file in &files {
        let recipe = recipe_file::load(file, &[]);
        let text = match recipe {
            Ok(_) => crate::fsutil::read_text(file).unwrap_or_default(),
            Err(_) => String::new(),
        };
        shown.push_str(&line(&file.display().to_string(), recipe, &text));
    }
    if files.is_empty() {
        crate::say!("no recipes/ or ablations/ with recipes here");
    }
    parts::out(&shown)
}

/// Two lines: file, stages, LM; then what it is for.
fn line(file: &str, recipe: Result<Recipe>, text: &str) -> String {
    let first = match recipe {
        Ok(r) => {
            let stages: Vec<&str> = r.stages.iter().map(|s| s.name.as_str()).collect();
            let (stages, lm) = (stages.join(", "), lm_name(&r));
            format!("{file:<42} {:<18} {stages}", format!("LM {lm}"))
        }
        Err(e) => {
            let e = e.to_string();
            format!(
                "{file:<42} cannot be read: {}",
                e.lines().next().unwrap_or_default()
            )
        }
    };
    let purpose = text
        .lines()
        .find_map(|l| l.strip_prefix("# "))
        .unwrap_or_default();
    format!("{first}\n    {purpose}\n")
}

fn lm_name(recipe: &Recipe) -> String {
    match (&recipe.model.lm, &recipe.lm) {
        (Some(path), _) => path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        (None, Some(_)) => "its own".into(),
        (None, None) => "of the checkpoint".into(),
    }
}

fn show(args: &ShowArgs) -> Result<()> {
    let ranks = 1;
    let (recipe, layers) = recipe_file::open(&args.recipe.recipe, &args.recipe.overrides, ranks)?;
    parts::say(&recipe.notes);
    let unwritable = |e: serde_yaml::Error| Error::recipe(&recipe.name, e.to_string());
    if !args.origin {
        return parts::out(&serde_yaml::to_string(&recipe).map_err(unwritable)?);
    }
    let mut rows = Vec::new();
    let whole = serde_yaml::to_value(&recipe).map_err(unwritable)?;
    leaves(&whole, &[], &[], &layers, &mut rows);
    // Values stand last: some are long.
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max();
    let (keys, origins) = (width(0).unwrap_or(0), width(2).unwrap_or(0));
    let mut text = String::new();
    for [key, value, origin] in &rows {
        text.push_str(&format!("{key:<keys$}  {origin:<origins$}  {value}\n"));
    }
    parts::out(&text)
}

/// Every plain value and every list of them: key, value, origin. Stages are shown by their names and looked up by number.
fn leaves(value: &Value, shown: &[String], path: &[String], layers: &Layers, rows: &mut Vec<[String; 3]>) {
    let below = |parts: &[String], part: String| [parts, &[part]].concat();
    match value {
        Value::Mapping(map) if !map.is_empty() => {
            for (key, value) in map {
                let key = key.as_str().unwrap_or_default().to_owned();
                leaves(value, &below(shown, key.clone()), &below(path, key), layers, rows);
            }
        }
        Value::Sequence(list) if list.iter().any(Value::is_mapping) => {
            for (i, value) in list.iter().enumerate() {
                let name = value.get("name").and_then(Value::as_str);
                let name = name.map_or(i.to_string(), str::to_owned);
                leaves(
                    value,
                    &below(shown, name),
                    &below(path, i.to_string()),
                    layers,
                    rows,
                );
            }
        }
        _ => {
            let origin = layers.origin(path).unwrap_or("default".into());
            rows.push([shown.join("."), plain(value), origin]);
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Sequence(list) => format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(", ")),
        Value::Mapping(_) => "{}".into(),
        Value::Null => "–".into(),
        _ => serde_yaml::to_string(value)
            .unwrap_or_default()
            .trim_end()
            .to_owned(),
    }
}

fn check(args: &CheckArgs) -> Result<()> {
    let mut errors = Vec::new();
    let mut unmeasured = false;
    for file in &args.recipes {
        match recipe_file::sound(file) {
            Ok(recipe) => {
                parts::say(&recipe.notes);
                crate::out!("{}", summary(file, &recipe, args.files));
                unmeasured |= recipe.eval.is_none();
            }
            Err(e) => {
                let found = match &e {
                    Error::Many(all) => all.len(),
                    _ => 1,
                };
                let s = if found == 1 { "" } else { "s" };
                parts::out(&format!("{}: {found} error{s}\n", file.display()))?;
                errors.push(e);
            }
        }
        // One that makes no steps yet may lack the files that tell them.
        if let Some(recipe) = recipe_file::open(file, &[], 1).ok().filter(|_| args.files) {
            errors.extend(super::files::look(&recipe.0).err());
        }
    }
    if unmeasured {
        crate::say!(
            "note: no evaluation: `af2 eval` asks the sets of a section `eval: {{sets: [NAME, …], windows: N}}`, such as test \
             splits among data.sets"
        );
    }
    all(errors)
}

/// What is sound, and what was not looked at.
fn summary(file: &Path, recipe: &Recipe, looked: bool) -> String {
    let steps: usize = recipe.stages.iter().map(|s| s.optim.steps).sum();
    let stages = recipe.stages.len();
    let s = |n: usize| if n == 1 { "" } else { "s" };
    let (s, t) = (s(stages), s(steps));
    let file = file.display();
    let eval = match recipe.eval {
        Some(_) => "",
        None => ", no evaluation",
    };
    let files = match looked {
        true => "",
        false => "; the files that it names were not looked at (--files does)",
    };
    format!("{file}: sound; {stages} stage{s}, {steps} optimizer step{t}{eval}{files}")
}

fn import(args: &ImportArgs) -> Result<()> {
    // In quotation marks it is a text, whatever it looks like.
    let quoted = |name: &String| serde_json::Value::from(name.as_str()).to_string();
    let named = args
        .stage
        .iter()
        .map(|name| format!("stages.0.name={}", quoted(name)));
    let (recipe, layers) = recipe_file::open(&args.file, &named.collect::<Vec<_>>(), args.ranks as usize)?;
    let file = args.file.display().to_string();
    let Some(yaml) = layers.imported_yaml() else {
        let e = Error::recipe(file, "expected the reference's YAML, found a recipe");
        return Err(e.hint("its top keys are train_config, data_config, clap_config and model_config"));
    };
    parts::say(&recipe.notes);
    crate::say!("note: `af2 plan {file} --gpus N --memory 80G` says whether a GPU holds it as it is");
    // A comment ends with its line.
    let in_a_line = |text: &str| text.replace(char::is_control, " ");
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let text = format!(
        "# {} of the reference as a recipe, in parity mode; behind each value the key it comes from, or why it is there.\n\
         # Made by: af2 recipe import {}\n{yaml}",
        in_a_line(&name),
        in_a_line(&file)
    );
    // What is written must be readable as what it is.
    recipe_file::parse(&text, &file, &[])?;
    match &args.out {
        None => parts::out(&text),
        Some(out) => write(out, &text),
    }
}

fn write(out: &Path, text: &str) -> Result<()> {
    crate::fsutil::write_atomic_bytes(out, text.as_bytes())?;
    crate::say!("recipe: {}", out.display());
    Ok(())
}
