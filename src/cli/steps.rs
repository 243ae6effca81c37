//! `af2 synth`, `lm`, `clap`, `train`, `launch`, `report`: the steps of a recipe, one by one.

use super::parts::{self, RecipeArgs};
use super::same;
use crate::device;
use crate::dist::{launch::Launch, note_alone, Facts, Place, Ranks};
use crate::error::{Error, Result};
use crate::ffi::kernels;
use crate::progress::{self, Progress};
use crate::recipe::Recipe;
use crate::recipe_file;
use crate::report;
use crate::train::{Resume, Which};
use crate::{cores, lock, run, synth, train};
use clap::Args;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tch::Device;

/// How a job of a recipe is trained.
#[derive(Args)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Go on where the run was: behind what is done, from the newest checkpoint that can be read; a run
    /// that has none begins. Or from this checkpoint, ours or the reference trainer's.
    #[arg(long, value_name = "auto|FILE")]
    resume: Option<PathBuf>,
    /// Show that a run of this recipe goes on exactly: a few steps, a checkpoint, more steps; and the same
    /// again from the checkpoint. Trains nothing.
    #[arg(long)]
    verify_resume: bool,
}

#[derive(Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    job: JobArgs,
    /// What is trained. Default: the recipe's stages; of a recipe without any, the one section that it has.
    #[arg(long = "job", value_enum)]
    which: Option<Which>,
}

#[derive(Args)]
pub(crate) struct LaunchArgs {
    /// Ranks; with CUDA one a GPU.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    ranks: u16,
    /// Start all ranks again so often when one has failed: they go on where they were.
    #[arg(long, default_value_t = 0)]
    max_restarts: usize,
    /// Seconds that the others have to save and end when one has failed.
    #[arg(long, default_value_t = 300)]
    grace: u64,
    /// What every rank runs: `train RECIPE …`, `eval RECIPE …`.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Args)]
pub(crate) struct ReportArgs {
    /// A run's folder, or a recipe whose output is meant.
    run: PathBuf,
}

impl ReportArgs {
    pub(crate) fn run(&self) -> Result<()> {
        let folder = if self.run.is_file() {
            recipe_file::load(&self.run, &[])?.output
        } else {
            self.run.clone()
        };
        report_run(&folder)
    }
}

/// The recipe of a verb that may be one of several ranks; of these the first says its notes.
pub(super) fn load_for(recipe: &RecipeArgs, place: Option<&Place>) -> Result<Recipe> {
    let recipe = recipe.load_for(place.map_or(1, |p| p.world))?;
    if place.is_none() {
        note_alone(|name| std::env::var(name).ok())
            .iter()
            .for_each(|note| crate::say!("note: {note}"));
    }
    if place.is_none_or(|p| p.rank == 0) {
        parts::say(&recipe.notes);
    }
    Ok(recipe)
}

pub(super) fn missing(recipe: &Recipe, section: &str) -> Error {
    Error::recipe(&recipe.name, format!("the recipe has no section `{section}`"))
        .hint("recipes/demo.yaml has each of them")
}

/// Writes the corpus.
pub(crate) fn synth(recipe: &Recipe) -> Result<()> {
    let spec = recipe.corpus.as_ref().ok_or_else(|| missing(recipe, "corpus"))?;
    let _held = lock::hold(&recipe.output, false)?;
    let bar = std::sync::Mutex::new(None);
    let corpus = synth::write(&recipe.data_root(), spec, &|done, total| {
        let mut bar = bar.lock().unwrap_or_else(|e| e.into_inner());
        bar.get_or_insert_with(|| Progress::new("corpus: write", total as u64))
            .set(done as u64);
    })?;
    if let Some(bar) = bar.into_inner().unwrap_or_else(|e| e.into_inner()) {
        bar.finish("");
    }
    crate::out!(
        "corpus: {} clips, {:.1} minutes of sound, in {}",
        corpus.clips,
        corpus.seconds / 60.0,
        corpus.root.display()
    );
    Ok(())
}

/// Trains tokenizer and LM on the texts of all training manifests.
pub(crate) fn lm(recipe: &Recipe) -> Result<()> {
    alone(recipe, Which::Lm)
}

/// Trains AF-CLAP.
pub(crate) fn clap(recipe: &Recipe) -> Result<()> {
    alone(recipe, Which::Clap)
}

/// Trains the stages.
pub(crate) fn train(recipe: &Recipe) -> Result<()> {
    alone(recipe, Which::Curriculum)
}

fn alone(recipe: &Recipe, which: Which) -> Result<()> {
    let task = Task {
        which,
        resume: Resume::No,
        verify: false,
    };
    train_as(Place::of_environment()?.as_ref(), recipe, &task)
}

/// What is trained, and how; `verify` shows instead that a run goes on from its checkpoints exactly.
struct Task {
    which: Which,
    resume: Resume,
    verify: bool,
}

/// Trains as the rank in this place, or alone.
fn train_as(place: Option<&Place>, recipe: &Recipe, task: &Task) -> Result<()> {
    task.which.in_recipe(recipe)?;
    let same = || same::facts(recipe, task.which, &task.resume, task.verify);
    as_rank(
        place,
        &Seat::of(recipe, recipe.train.tf32),
        same,
        |ranks, device| run_as(recipe, ranks, device, task),
    )
}

/// Where something runs.
pub(super) struct Seat<'a> {
    /// As a recipe says it.
    pub device: &'a str,
    /// Seconds that ranks wait for each other.
    pub timeout: u64,
    pub tf32: bool,
}

impl<'a> Seat<'a> {
    pub(super) fn of(recipe: &'a Recipe, tf32: bool) -> Self {
        Seat {
            device: &recipe.device,
            timeout: recipe.train.timeout,
            tf32,
        }
    }
}

/// Does something as the rank in this place, or alone; all ranks must bring the `same`.
pub(super) fn as_rank(
    place: Option<&Place>,
    seat: &Seat,
    same: impl FnOnce() -> Result<Facts>,
    what: impl FnOnce(&Rc<Ranks>, Device) -> Result<()>,
) -> Result<()> {
    kernels::allow_tf32(seat.tf32)?;
    let (ranks, device) = match place {
        None => (Ranks::alone(), device::of(seat.device)?),
        Some(place) => {
            let same = same()?;
            // A rank without one meets the others all the same, to tell them.
            let device = device::of_rank(seat.device, place.local);
            Ranks::join(place, device, Duration::from_secs(seat.timeout), &same)?
        }
    };
    cores::at_most(ranks.cores());
    let ranks = Rc::new(ranks);
    if !ranks.first() {
        progress::set_quiet(true);
    }
    let result = what(&ranks, device);
    let result = result.map_err(|e| ranks.explain(e, 0).0);
    if let (Err(_), Ok(ranks)) = (&result, Rc::try_unwrap(ranks)) {
        ranks.abandon();
    }
    result
}

fn run_as(recipe: &Recipe, ranks: &Rc<Ranks>, device: Device, task: &Task) -> Result<()> {
    // Of all ranks the first writes.
    let _held = match ranks.first() {
        true => Some(lock::hold(&recipe.output, ranks.again())?),
        false => None,
    };
    if ranks.first() {
        super::environment::describe(recipe, device, ranks)?;
    }
    match task.verify {
        true => train::verify_resume(recipe, task.which, ranks, device),
        false => train::run(recipe, task.which, ranks, device, &agreed(&task.resume, ranks)?),
    }
}

/// What the first rank was told to go on from counts for all; a run that its launcher has started again goes on.
fn agreed(resume: &Resume, ranks: &Ranks) -> Result<Resume> {
    let again = *resume == Resume::No && ranks.again();
    if again && ranks.first() {
        crate::say!("the launcher has started this run again: --resume auto");
    }
    let own = match resume {
        Resume::No => f64::from(u8::from(again)),
        Resume::Auto => 1.0,
        Resume::From(_) => 2.0,
    };
    let mut first = [own];
    ranks.of_first(&mut first)?;
    match (first[0], resume) {
        (0.0, _) => Ok(Resume::No),
        (1.0, _) => Ok(Resume::Auto),
        (_, Resume::From(_)) => Ok(resume.clone()),
        _ => Err(Error::Ranks {
            message: format!(
                "rank {} was not told which checkpoint to go on from, rank 0 was",
                ranks.rank
            ),
            hint: Some("give all ranks the same command".into()),
        }),
    }
}

impl TrainArgs {
    pub(crate) fn run(&self) -> Result<()> {
        self.job.run(self.which)
    }
}

impl JobArgs {
    /// Trains this job, or the one that the recipe is for.
    pub(crate) fn run(&self, which: Option<Which>) -> Result<()> {
        let resume = match self.resume.as_deref() {
            Some(word) if word == Path::new("auto") => Resume::Auto,
            Some(file) => Resume::From(file.to_path_buf()),
            None => Resume::No,
        };
        let place = Place::of_environment()?;
        let recipe = load_for(&self.recipe, place.as_ref())?;
        let task = Task {
            which: which.map_or_else(|| Which::of(&recipe), Ok)?,
            resume,
            verify: self.verify_resume,
        };
        train_as(place.as_ref(), &recipe, &task)
    }
}

impl LaunchArgs {
    /// Returns the ranks' exit code.
    pub(crate) fn run(&self) -> Result<i32> {
        let launch = Launch {
            ranks: usize::from(self.ranks),
            arguments: self.command.clone(),
            restarts: self.max_restarts,
            grace: Duration::from_secs(self.grace),
        };
        launch.run()
    }
}

/// Prints the tables; writes table.md and curves.svg. A run that was not evaluated may have scores of its checkpoints alone.
pub(crate) fn report_run(folder: &Path) -> Result<()> {
    let mut tables = Vec::new();
    let checkpoints = run::benchmarks::latest(run::benchmarks::read(folder)?);
    let results = run::results::path(folder);
    if checkpoints.is_empty() || results.is_file() {
        tables.push(report::table::results(&run::results::Results::read(&results)?));
    }
    if !checkpoints.is_empty() {
        tables.push(report::checkpoints::table(&checkpoints));
    }
    let markdown: Vec<String> = tables.iter().map(report::table::Table::markdown).collect();
    for table in &tables {
        crate::out!("{}", table.terminal());
    }
    let table = run::table(folder);
    crate::fsutil::write_atomic_bytes(&table, markdown.join("\n").as_bytes())?;
    let drawn = report::curves(folder)?;
    crate::out!("table: {}", table.display());
    for file in drawn {
        crate::out!("curve: {}", file.display());
    }
    Ok(())
}
