//! `af2 tables`

use crate::benchmark::Registry;
use crate::error::{Error, Result};
use crate::fsutil::write_atomic_bytes;
use crate::report::paper::{results, Measured};
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct TablesArgs {
    /// Where results.json are looked for, in folders below.
    #[arg(long, value_name = "DIR", default_value = "experiments")]
    runs: PathBuf,
    /// Write the same as Markdown.
    #[arg(long, value_name = "FILE.md")]
    markdown: Option<PathBuf>,
    /// A folder of cards of your own.
    #[arg(long, value_name = "DIR")]
    cards: Option<PathBuf>,
}

pub(crate) fn run(args: &TablesArgs) -> Result<()> {
    let cards = Registry::with(args.cards.as_deref())?.cards()?;
    let measured = Measured::below(&args.runs);
    for reason in &measured.unreadable {
        crate::say!("note: not used: {reason}");
    }
    let mut text = String::from(
        "# The paper's results\n\nAudio Flamingo 2 (arXiv 2503.03983) and what was measured here. A cell without a run says so.\n",
    );
    let mut commands = Vec::new();
    for table in results(&cards, &measured) {
        let title = format!("Table {}: {}", table.number, table.title);
        crate::out!("{title}\n{}", table.table.terminal());
        text += &format!("\n## {title}\n\n{}", table.table.markdown());
        for note in &table.notes {
            crate::out!("  {note}");
            text += &format!("\n* {note}");
        }
        if !table.notes.is_empty() {
            text.push('\n');
        }
        crate::out!("");
        for command in table.commands {
            // A benchmark may stand in two tables.
            if !commands.contains(&command) {
                commands.push(command);
            }
        }
    }
    if let Some(command) = commands.first() {
        crate::out!(
            "{} benchmarks are missing. For the first:\n  {command}",
            commands.len()
        );
        let all: Vec<String> = commands.iter().map(|c| format!("    {c}\n")).collect();
        text += &format!("\n## What fills the missing cells\n\n{}", all.concat());
    }
    if let Some(file) = &args.markdown {
        if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        write_atomic_bytes(file, text.as_bytes())?;
    }
    Ok(())
}
