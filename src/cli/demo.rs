//! `af2 demo`

use super::steps;
use crate::error::Result;
use crate::recipe::Recipe;
use crate::recipe_file;
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// A few steps a stage on a small corpus: shows that the line holds, not that the model learns.
    #[arg(long)]
    smallest: bool,
    /// The run's folder.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print the recipe and stop.
    #[arg(long)]
    show: bool,
    /// Changes to the recipe, such as stages.stage1.optim.steps=100.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

type Step = fn(&Recipe) -> Result<()>;

/// What `--smallest` changes.
const SMALLEST: &[&str] = &[
    "output=experiments/demo-smallest",
    "corpus.singles_per_class=5",
    "corpus.counting=20",
    "corpus.scenes=20",
    "corpus.attributes=10",
    "corpus.long=6",
    "lm.optim.steps=10",
    "clap.optim.steps=3",
    "clap.optim.batch_size=8",
    "stages.0.optim.steps=3",
    "stages.1.optim.steps=2",
    "stages.2.optim.steps=2",
    "stages.0.optim.batch_size=4",
    "stages.1.optim.batch_size=2",
    "stages.2.optim.batch_size=2",
    "eval.limit=4",
    "eval.max_new_tokens=8",
];

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    if args.show {
        crate::screen::out(crate::recipe::DEMO);
        return Ok(());
    }
    let mut overrides: Vec<String> = Vec::new();
    if args.smallest {
        overrides.extend(SMALLEST.iter().map(|s| s.to_string()));
    }
    overrides.extend(args.output.iter().map(|o| format!("output={}", o.display())));
    overrides.extend(args.overrides.iter().cloned());
    let recipe = recipe_file::demo(&overrides)?;
    let _held = crate::lock::hold(&recipe.output, false)?;
    let started = Instant::now();
    let steps: [(&str, Step); 5] = [
        ("corpus", steps::synth),
        ("tokenizer and language model, on text alone", steps::lm),
        ("AF-CLAP, contrastive", steps::clap),
        ("curriculum, three stages", steps::train),
        ("evaluation", super::eval::evaluate),
    ];
    for (i, (name, step)) in steps.iter().enumerate() {
        let begun = Instant::now();
        crate::say!("[{}/{}] {name}", i + 1, steps.len());
        step(&recipe)?;
        crate::say!(
            "[{}/{}] {name}: {:.0} s",
            i + 1,
            steps.len(),
            begun.elapsed().as_secs_f64()
        );
    }
    crate::say!(
        "all: {:.1} minutes, in {}",
        started.elapsed().as_secs_f64() / 60.0,
        recipe.output.display()
    );
    Ok(())
}
