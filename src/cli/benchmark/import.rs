//! `af2 benchmark import`: official files to a manifest.

use super::cards::{printed, CardsArgs};
use crate::benchmark::import::{import, Imported, Request};
use crate::cli::parts::{out, say};
use crate::error::{Error, Result};
use crate::report::table::Table;
use clap::Args;
use serde_json::{json, Value};
use std::path::PathBuf;

/// Missing sounds that are named without --json.
const SHOWN: usize = 20;
/// The exit code of files that are not there.
const FILES: i32 = 3;

#[derive(Args)]
pub(crate) struct ImportArgs {
    /// The benchmark, as `af2 benchmark ls` names it.
    name: String,
    /// The official files, or a folder that holds them; for sets whose labels are folders or file names, the folder of the sounds.
    #[arg(long, value_name = "FILE|DIR", required = true, num_args = 1..)]
    from: Vec<PathBuf>,
    /// The folder below which the sounds lie.
    #[arg(long, value_name = "DIR")]
    audio: PathBuf,
    /// Where NAME/SPLIT.json is written.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Default: the split that the card scores.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Of the order of options, where the official one is drawn anew each time; it is written down.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Take files whose sha256 the card does not know, or knows otherwise.
    #[arg(long)]
    accept: bool,
    /// Leave out items whose sounds are missing, and say how many in the manifest.
    #[arg(long)]
    accept_missing: bool,
    /// Take faulty rows that can be asked, leave out the others, and say which in the manifest.
    #[arg(long)]
    accept_faulty: bool,
    /// One object: the manifest, its facts, all missing sounds.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cards: CardsArgs,
}

pub(super) fn run(args: &ImportArgs) -> Result<()> {
    let registry = args.cards.registry()?;
    let imported = import(&Request {
        entry: registry.entry(&args.name)?,
        from: &args.from,
        audio: &args.audio,
        out: &args.out,
        split: args.split.as_deref(),
        seed: args.seed,
        accept: args.accept,
        accept_missing: args.accept_missing,
        accept_faulty: args.accept_faulty,
    })?;
    say(&imported.notes);
    if args.json {
        let missing = imported
            .missing
            .iter()
            .map(|(id, wanted)| json!({"id": id, "sound": wanted}));
        printed(&json!({
            "manifest": imported.manifest,
            "benchmark": imported.facts,
            "missing": missing.collect::<Vec<_>>(),
        }))?;
    }
    if imported.manifest.is_none() {
        let listing = format!(
            "{}\n  hint: --accept-missing writes the manifest without them",
            listed(args, &imported)
        );
        return Err(Error::Missing { listing, code: FILES });
    }
    if args.json {
        return Ok(());
    }
    if !imported.missing.is_empty() {
        crate::say!("note: {}", listed(args, &imported));
    }
    shown(&imported)
}

fn listed(args: &ImportArgs, imported: &Imported) -> String {
    let missing = &imported.missing;
    let mut text = format!("{}: {} sounds are missing", args.audio.display(), missing.len());
    for (id, wanted) in missing.iter().take(SHOWN) {
        text += &format!("\n  {wanted} (item {id})");
    }
    if missing.len() > SHOWN {
        text += &format!("\n  and {} more; --json has all", missing.len() - SHOWN);
    }
    text
}

fn shown(imported: &Imported) -> Result<()> {
    let facts = &imported.facts;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let count = |key: &str| facts["counts"][key].as_u64();
    let mut text = format!(
        "{}, split {}: {} items on {} sounds",
        word(&facts["name"]),
        word(&facts["split"]),
        count("items").unwrap_or_default(),
        count("sounds").unwrap_or_default()
    );
    match (count("card"), count("items")) {
        (Some(card), Some(items)) if card == items => text += ", as the card counts\n",
        (Some(card), _) => text += &format!("; the card counts {card}\n"),
        (None, _) => text += "; the card does not say how many\n",
    }
    for file in facts["files"].as_array().into_iter().flatten() {
        let known = match file["known"].as_str() {
            Some("whole") => "the card's".to_owned(),
            Some("beginning") => format!("as far as the card knows it, {}", word(&file["card"])),
            Some("other") => format!("accepted; the card has {}", word(&file["card"])),
            _ => "accepted; the card has no hash for it".to_owned(),
        };
        text += &format!(
            "{}: sha256 {}, {known}\n",
            word(&file["name"]),
            word(&file["sha256"])
        );
    }
    if let Some(seed) = facts["seed"].as_u64() {
        text += &format!("the order of options is drawn here, with the seed {seed}\n");
    }
    let counts = |key: &str, value: &Value| format!("  {key}: {}\n", value.get("count").unwrap_or(value));
    for (title, of) in [
        ("left out", &facts["counts"]["left_out"]),
        ("let pass", &facts["faults"]),
    ] {
        let all: Vec<String> = of
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| counts(k, v))
            .collect();
        if !all.is_empty() {
            text += &format!("{title}:\n{}", all.concat());
        }
    }
    match count("hidden_answers") {
        Some(0) | None => {}
        Some(n) => {
            text += &format!(
                "{n} answers are hidden: `af2 benchmark submit` writes the file for the owner's server\n"
            )
        }
    }
    out(&text)?;
    if let Some(constant) = facts["constant"].as_object().filter(|c| !c.is_empty()) {
        let share = |value: Option<&Value>| {
            value
                .and_then(Value::as_f64)
                .map_or("–".to_owned(), |v| format!("{v:.4}"))
        };
        let mut table = Table::new(["constant answer", "scores here", "in the card"]);
        for (kind, score) in constant {
            table.row([
                kind.clone(),
                share(Some(score)),
                share(facts["constant_card"].get(kind)),
            ]);
        }
        out(&format!("{}\n", table.terminal()))?;
    }
    let path = imported.manifest.as_ref().map(|p| p.display().to_string());
    out(&format!("{}\n", path.unwrap_or_default()))
}
