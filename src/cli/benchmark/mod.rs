//! `af2 benchmark`: which benchmarks are known, what is known about one, whether cards are sound, how two differ; official files to
//! manifests, predictions to official files.

mod cards;
mod import;
mod submit;

use super::parts::out;
use crate::benchmark::names::{Task, Unit};
use crate::benchmark::{differences, page, read, Card, Number};
use crate::error::{Error, Result};
use crate::report::table::Table;
use cards::{printed, CardsArgs};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum BenchmarkVerb {
    /// List the benchmarks that are known: by the paper's tables, then what came after it.
    Ls(LsArgs),
    /// Print all that is known about one, what is not checked marked as such.
    Show(ShowArgs),
    /// Read cards and say everything that is wrong with them; exit code 6 where something is.
    Check(CheckArgs),
    /// Say which values of two cards differ.
    Diff(DiffArgs),
    /// Make a manifest of a benchmark's official files and sounds; exit code 3 where sounds are missing, 6 where rows are wrong.
    Import(import::ImportArgs),
    /// Write predictions as the answer file that the benchmark's own server takes.
    Submit(submit::SubmitArgs),
}

#[derive(Args)]
pub(crate) struct LsArgs {
    /// Only those of this kind.
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(Task::NAMES))]
    task: Option<String>,
    /// Only those that fill a row of this table of the paper.
    #[arg(long, value_name = "N")]
    table: Option<u32>,
    /// A list of objects in place of the table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cards: CardsArgs,
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    name: String,
    /// The card as one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cards: CardsArgs,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Default: all cards that are built in, and those of --cards.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    cards: CardsArgs,
}

#[derive(Args)]
pub(crate) struct DiffArgs {
    /// A benchmark's name, or a card's file.
    a: String,
    /// Another.
    b: String,
    /// A list of {key, a, b}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cards: CardsArgs,
}

pub(crate) fn run(verb: &BenchmarkVerb) -> Result<()> {
    match verb {
        BenchmarkVerb::Ls(args) => ls(args),
        BenchmarkVerb::Show(args) => show(args),
        BenchmarkVerb::Check(args) => check(args),
        BenchmarkVerb::Diff(args) => diff(args),
        BenchmarkVerb::Import(args) => import::run(args),
        BenchmarkVerb::Submit(args) => submit::run(args),
    }
}

fn ls(args: &LsArgs) -> Result<()> {
    let mut cards = args.cards.registry()?.cards()?;
    cards.retain(|card| {
        let task = args.task.as_ref().is_none_or(|task| card.task.name() == task);
        let table = args
            .table
            .is_none_or(|n| card.paper.iter().any(|row| row.table == n));
        task && table
    });
    if args.json {
        let list: Vec<_> = cards.iter().map(summary).collect();
        return printed(&json!(list));
    }
    let mut table = Table::new(["name", "task", "items", "metric", "AF2", "previous best", "table"]);
    for card in &cards {
        let previous = card.numbers.previous.as_ref();
        table.row([
            card.name.clone(),
            card.task.name().to_owned(),
            items(card),
            card.metric.name().to_owned(),
            value(&card.numbers.paper, card.unit),
            previous.map_or("–".into(), |n| format!("{} {}", value(n, card.unit), n.model)),
            tables(card),
        ]);
    }
    if cards.is_empty() {
        crate::say!("no benchmark is of that kind and in that table");
        return Ok(());
    }
    out(&format!(
        "{}\n{} benchmarks. AF2: in Tables 7 and 10 AF-CLAP. `?`: not known, or not checked; `af2 benchmark show NAME` says \
         more.\n",
        table.terminal(),
        cards.len()
    ))
}

fn summary(card: &Card) -> serde_json::Value {
    let number = |number: &Number| json!({"model": number.model, "value": number.value, "mark": number.mark});
    let items = card.scored_split().map(|split| &split.items);
    json!({
        "name": card.name,
        "version": card.version,
        "title": card.title,
        "task": card.task,
        "split": card.scored,
        "items": items.and_then(|fact| fact.value),
        "items_mark": items.and_then(|fact| fact.mark),
        "metric": card.metric,
        "unit": card.unit,
        "paper": number(&card.numbers.paper),
        "previous": card.numbers.previous.as_ref().map(number),
        "rows": card.paper,
    })
}

fn items(card: &Card) -> String {
    let fact = card.scored_split().map(|split| &split.items);
    let sure = fact.and_then(|f| f.mark).is_some_and(|mark| mark.is_sure());
    match fact.and_then(|f| f.value) {
        Some(n) if sure => n.to_string(),
        Some(n) => format!("{n}?"),
        None => "?".into(),
    }
}

fn value(number: &Number, unit: Unit) -> String {
    let sure = number.mark.is_some_and(|mark| mark.is_sure());
    let doubt = if sure { "" } else { "?" };
    match (number.value, unit) {
        (None, _) => "–".into(),
        (Some(v), Unit::Plain) => format!("{v:.2}{doubt}"),
        (Some(v), Unit::Percent) => format!("{v:.1}{doubt}"),
    }
}

fn tables(card: &Card) -> String {
    let list: Vec<String> = card.paper.iter().map(|row| row.table.to_string()).collect();
    match list.is_empty() {
        true => "–".into(),
        false => list.join(", "),
    }
}

fn show(args: &ShowArgs) -> Result<()> {
    let card = args.cards.registry()?.card(&args.name)?;
    match args.json {
        true => printed(&json!(card)),
        false => out(&page(&card)),
    }
}

fn check(args: &CheckArgs) -> Result<()> {
    let cards = match args.files.is_empty() {
        true => args.cards.registry()?.cards()?,
        false => read(&args.files)?,
    };
    let s = if cards.len() == 1 { " is" } else { "s are" };
    out(&format!("{} card{s} sound\n", cards.len()))
}

fn diff(args: &DiffArgs) -> Result<()> {
    let registry = args.cards.registry()?;
    let card = |word: &String| -> Result<Card> {
        if !word.ends_with(".yaml") {
            return registry.card(word);
        }
        let mut one = read(&[PathBuf::from(word)])?;
        one.pop().ok_or_else(|| Error::usage(format!("{word}: no card")))
    };
    let all = differences(&card(&args.a)?, &card(&args.b)?);
    if args.json {
        return printed(&json!(all));
    }
    let mut text = String::new();
    for one in &all {
        text.push_str(&one.key);
        text.push('\n');
        for (sign, value) in [('-', &one.a), ('+', &one.b)] {
            if let Some(value) = value {
                text.push_str(&format!("  {sign} {}\n", value.replace('\n', "\\n")));
            }
        }
    }
    if all.is_empty() {
        text.push_str("no difference\n");
    }
    out(&text)
}
