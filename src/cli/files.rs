//! `af2 recipe check --files`: every file that a recipe names, and how often its items are seen.

use super::parts;
use crate::error::Result;
use crate::preflight::{self, Passes};
use crate::recipe::Recipe;
use crate::report::table::Table;

/// Prints how often items are seen.
///
/// # Errors
/// All that is missing, at once.
pub(crate) fn look(recipe: &Recipe) -> Result<()> {
    let (report, passes) = preflight::whole(recipe);
    for stage in &passes {
        parts::out(&shown(stage))?;
    }
    report.result()
}

fn shown(p: &Passes) -> String {
    let one = if p.sets.len() == 1 {
        "its set"
    } else {
        "its sets, by their weights,"
    };
    let mut text = format!(
        "{}: {} steps of {} items; one pass over {one} is {} items: {} of it\n",
        p.stage,
        p.steps,
        p.batch,
        p.pass,
        times(p.number())
    );
    let mut table = Table::new(["set", "items", "each is seen"]);
    for (set, items, seen) in &p.sets {
        table.row([set.clone(), items.to_string(), times(*seen)]);
    }
    text.push_str(&table.terminal());
    text.push('\n');
    text
}

fn times(n: f64) -> String {
    match n {
        n if n < 10.0 => format!("{n:.2} times"),
        n => format!("{n:.0} times"),
    }
}
