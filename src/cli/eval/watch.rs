//! `af2 eval --watch`: each checkpoint of a training run, asked cards as soon as it is there.

use super::benchmarks::{wants_judge, BenchmarksArgs, Common};
use crate::cli::asking::count;
use crate::cli::steps::{as_rank, Seat};
use crate::dist::{Place, Ranks};
use crate::error::{self, Error, Result};
use crate::eval::benchmarks::{folder, Benchmark, Request};
use crate::recipe::Recipe;
use crate::run::benchmarks::{self as scores, CheckpointScore};
use crate::run::scored::{self, Scored};
use crate::train::engine::board::Board;
use crate::train::written::{self, Opened, Written};
use crate::{lock, recipe_file, report, run};
use clap::Args;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tch::Device;

#[derive(Args)]
#[command(next_help_heading = "A run's checkpoints")]
pub(super) struct WatchArgs {
    /// The folder of a run that trains, or has: asks each of its checkpoints, in the place of --checkpoint, until the run is done.
    #[arg(long, value_name = "RUN", requires = "benchmarks", conflicts_with_all = ["checkpoint", "endpoint", "score_only"])]
    pub(super) watch: Option<PathBuf>,
    /// Ends when those are asked that are there now.
    #[arg(long, requires = "watch")]
    once: bool,
    /// Seconds between two looks for new ones.
    #[arg(long, value_name = "SECONDS", requires = "watch", default_value_t = 30, value_parser = count(1, 86_400))]
    every: usize,
}

impl WatchArgs {
    pub(super) fn run(&self, run: &Path, benchmarks: &BenchmarksArgs, common: &Common) -> Result<()> {
        if Place::of_environment()?.is_some_and(|place| place.world > 1) {
            let e = Error::usage("--watch: expected one process, found a rank of several");
            return Err(e.hint("af2 launch shares out the clips of one --checkpoint"));
        }
        // The rest of a checkpoint is what its run says.
        if let Some(option) = common.open.said().filter(|option| *option != "--device") {
            return Err(Error::usage(format!(
                "{option} goes with --checkpoint; of a run that is watched its plan.yaml says it"
            )));
        }
        let out = benchmarks.out()?;
        let registry = benchmarks.registry()?;
        let found = benchmarks.find(&registry, true)?;
        if let Some(one) = found.there.iter().find(|one| wants_judge(&one.card)) {
            let e = Error::usage(format!(
                "--watch: {}: a judge marks its answers, so that they have no score yet",
                one.card.name
            ));
            return Err(e.hint("af2 eval --checkpoint asks one checkpoint, af2 judge run has it marked"));
        }
        let controls = benchmarks.controls(&found.there)?;
        benchmarks.check(&benchmarks.request(&found.there, &controls, out, "", false)?)?;
        // Looked at before its folder is made anything in.
        plan(run)?;
        let _scores = lock::hold(&scores::folder(run), false)?;
        let _held = lock::hold(out, false)?;
        let seat = Seat {
            device: common.open.device(),
            timeout: 0,
            tf32: common.arithmetic.tf32,
        };
        let seen = match common.afresh {
            true => Vec::new(),
            false => scores::read(run)?,
        };
        as_rank(
            None,
            &seat,
            || Ok(Default::default()),
            |ranks, device| {
                let mut watcher = Watcher {
                    run,
                    out,
                    benchmarks,
                    common,
                    there: &found.there,
                    ranks,
                    device,
                    seen,
                    looked_at: HashSet::new(),
                    board: None,
                    failed: Vec::new(),
                };
                let result = watcher.watch(self.once, Duration::from_secs(self.every as u64));
                let failed = std::mem::take(&mut watcher.failed);
                result?;
                let table = report::checkpoints::table(&scores::latest(scores::read(run)?));
                crate::out!("{}", table.terminal());
                error::all(failed)
            },
        )
    }
}

/// What the run trains.
///
/// # Errors
/// A folder that is no run's, or whose run trains no stage.
fn plan(run: &Path) -> Result<Recipe> {
    let file = run::plan(run);
    if !file.is_file() {
        let e = Error::data(
            run,
            "plan.yaml",
            "what af2 train writes when it begins",
            "no such file",
        );
        return Err(e.hint("--watch RUN is the `output` of the recipe that trains"));
    }
    let mut recipe = recipe_file::load(&file, &[])?;
    // It may have moved, or be named from elsewhere.
    recipe.output = run.to_owned();
    if recipe.stages.is_empty() {
        let message = "expected stages, whose checkpoints are models that answer, found none";
        return Err(Error::recipe(file.display().to_string(), message));
    }
    // TensorBoard takes all files of a folder for one run's.
    if recipe.stages.iter().any(|stage| stage.name == scores::NAME) {
        let message = format!(
            "stages.{}: its events lie where those of --watch would",
            scores::NAME
        );
        return Err(Error::recipe(file.display().to_string(), message));
    }
    Ok(recipe)
}

struct Watcher<'a> {
    run: &'a Path,
    out: &'a Path,
    benchmarks: &'a BenchmarksArgs,
    common: &'a Common<'a>,
    there: &'a [Benchmark<'a>],
    ranks: &'a Ranks,
    device: Device,
    /// The scores that the run has.
    seen: Vec<CheckpointScore>,
    /// What was looked at by this command: it is not tried again and again.
    looked_at: HashSet<(PathBuf, u64)>,
    /// From the first score on.
    board: Option<Board>,
    /// Checkpoints that cannot be asked.
    failed: Vec<Error>,
}

impl Watcher<'_> {
    fn watch(&mut self, once: bool, every: Duration) -> Result<()> {
        let mut told = false;
        loop {
            let recipe = plan(self.run)?;
            // Before it is looked what is there: what was written last is among it then.
            let done = written::done(&recipe)?;
            let mut any = false;
            for checkpoint in written::all(&recipe)? {
                let key = (checkpoint.path.clone(), checkpoint.written_ns);
                if self.looked_at.insert(key) {
                    any |= self.look_at(&recipe, &checkpoint)?;
                }
            }
            if once || (done && !any) {
                return Ok(());
            }
            if any {
                continue;
            }
            if !told {
                crate::say!(
                    "{}: waiting for its next checkpoint; Ctrl-C ends this, and the same command goes on",
                    self.run.display()
                );
                told = true;
            }
            std::thread::sleep(every);
        }
    }

    /// Asks a checkpoint what it was not asked yet. Whether it was asked anything.
    fn look_at(&mut self, recipe: &Recipe, checkpoint: &Written) -> Result<bool> {
        let stage = &checkpoint.stage(recipe).name;
        let out = self.out.join(stage).join(checkpoint.name());
        let mut left = Vec::new();
        for one in self.there {
            let how = self.benchmarks.how(one, self.common)?;
            let known = |score: &CheckpointScore| {
                (&score.stage, score.checkpoint, score.written_ns)
                    == (stage, checkpoint.number, checkpoint.written_ns)
                    && (&score.benchmark, &score.asked) == (&one.card.name, &how)
            };
            let there = scored::path(&folder(&out, &one.card)).is_file();
            if !(there && self.seen.iter().any(known)) {
                left.push((one, how));
            }
        }
        if left.is_empty() {
            return Ok(false);
        }
        let name = format!("{stage}/{}", checkpoint.name());
        let Opened { model, step } = match checkpoint.open(recipe, self.device) {
            Ok(opened) => opened,
            Err(_) if !checkpoint.path.exists() => {
                crate::say!("{name}: not asked: training has taken it away");
                return Ok(false);
            }
            Err(e) => {
                crate::say!("{name}: not asked: {e}");
                self.failed.push(e);
                return Ok(false);
            }
        };
        crate::say!("{name}: step {step}");
        let own = self.benchmarks.model.clone();
        let own = own.unwrap_or_else(|| recipe.name.clone()) + " " + &name;
        let controls = self.benchmarks.controls(self.there)?;
        let cascade = self.benchmarks.cascade();
        let afresh = self.common.afresh;
        let request = Request {
            cascade: cascade.as_ref(),
            ..self
                .benchmarks
                .request(self.there, &controls, &out, &own, afresh)?
        };
        self.benchmarks.ask(&request, &model, self.common, self.ranks)?;
        // Its memory is the next one's.
        drop(model);
        self.benchmarks
            .score(self.there, &own, &out, self.common, Some(self.device))?;
        for (one, how) in left {
            let scored = Scored::read(&scored::path(&folder(&out, &one.card)))?;
            self.record(CheckpointScore {
                kind: CheckpointScore::kind(),
                stage: stage.clone(),
                step,
                checkpoint: checkpoint.number,
                written_ns: checkpoint.written_ns,
                benchmark: one.card.name.clone(),
                name: scored.name,
                metric: scored.metric,
                score: scored.score,
                interval: scored.interval,
                n: scored.n,
                limited: self.benchmarks.limit,
                asked: how,
                time: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0.0, |since| since.as_secs_f64()),
            })?;
        }
        Ok(true)
    }

    /// Writes a score where the run's events are: for us, and for TensorBoard.
    fn record(&mut self, score: CheckpointScore) -> Result<()> {
        scores::append(self.run, std::slice::from_ref(&score))?;
        if let Some(value) = score.score {
            let board = match &mut self.board {
                Some(board) => board,
                none => none.insert(Board::create(&scores::folder(self.run), None)?),
            };
            let tag = format!("{}/{}/{}", score.stage, score.name, score.metric);
            board.scalars(score.step, &[(tag.as_str(), value)])?;
            board.flush()?;
        }
        self.seen.push(score);
        Ok(())
    }
}
