//! `af2 doctor`

use crate::doctor::{self, Ask, Line, State};
use crate::error::{Error, Result};
use crate::preflight;
use crate::recipe_file;
use clap::Args;
use std::path::PathBuf;

/// One line a thing: ok, slow (it works, worse than it should) or broken, with what to do.
///
/// Exit code: 0 where nothing is broken (with --strict 14 where something is slow), else that of the first line that is broken:
/// 13 CUDA or a GPU, 3 the run's folder and files, 1 libtorch, or what it needs of the machine.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// A recipe whose output is the run's folder, and whose checkpoints must fit on its disk.
    recipe: Option<PathBuf>,
    /// Changes of the recipe.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// The run's folder. It need not be there, and is not made. Default: the recipe's output, else experiments.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Everything as one JSON object.
    #[arg(long)]
    json: bool,
    /// Time nothing: no product, no disk.
    #[arg(long)]
    quick: bool,
    /// Exit code 14 where something is slow and nothing broken.
    #[arg(long)]
    strict: bool,
}

impl DoctorArgs {
    /// Returns the exit code.
    pub(crate) fn run(&self, threads: Option<usize>) -> Result<i32> {
        let recipe = self
            .recipe
            .as_ref()
            .map(|path| recipe_file::open(path, &self.overrides, 1));
        let recipe = recipe.transpose()?.map(|(recipe, _)| recipe);
        let run = match (&self.run, &recipe) {
            (Some(run), _) => run.clone(),
            (None, Some(recipe)) => recipe.output.clone(),
            (None, None) => "experiments".into(),
        };
        let needs = recipe.and_then(|r| preflight::needed(&r, &preflight::all(&r), 1));
        let ask = Ask {
            run,
            needs,
            quick: self.quick,
            threads,
        };
        let report = doctor::look(&ask, &mut |line| {
            if !self.json {
                show(line);
            }
        });
        let code = report.exit_code(self.strict);
        if self.json {
            let text = serde_json::to_string_pretty(&report.json(self.strict));
            let text = text.map_err(|e| Error::usage(e.to_string()))?;
            crate::out!("{text}");
        } else {
            let count = |state| report.lines.iter().filter(|l| l.state == state).count();
            crate::out!(
                "{} ok, {} slow, {} broken in {:.1} s",
                count(State::Ok),
                count(State::Slow),
                count(State::Broken),
                report.seconds
            );
        }
        if report.hangs {
            // What hangs would hold the end of the process, too.
            crate::screen::finish()?;
            crate::ffi::exit_at_once(code);
        }
        Ok(code)
    }
}

fn show(line: &Line) {
    // What others say may have lines of its own.
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    crate::out!(
        "{:<7} {:<20} {}",
        line.state.word(),
        line.title(),
        one_line(&line.found)
    );
    if let Some(advice) = &line.advice {
        crate::out!("{:<28} → {}", "", one_line(advice));
    }
}
