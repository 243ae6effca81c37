//! A run of `af2 train` that is killed and goes on, beside the same run in one piece; each a process of this program.

use super::compare::distance;
use super::part::Check;
use crate::checkpoint::{numbered, Archive};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tch::Device;

pub(crate) const ABOUT: &str = "A tiny model under bf16 autocast, the audio encoder trained too. One run is killed (SIGKILL) behind its first \
    checkpoint and goes on by `--resume auto`; its weights are compared with those of a run in one piece, as the largest difference of a \
    weight by its norm. On the CPU they must be equal bit for bit. A GPU adds up some gradients in whichever order comes first, so that two runs \
    in one piece differ as well: there the bound is 3 times how far those two are apart, and at least 1e-3. `--verify-resume` takes kernels \
    without that freedom, and asks for equal bits.";

const RECIPE: &str = include_str!("resume.yaml");
const STAGE: &str = "one";

pub(crate) fn run(check: &mut Check) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::io(std::env::temp_dir(), e))?;
    let runs = Runs {
        folder: folder.path().to_path_buf(),
        device: match check.device {
            Device::Cuda(n) => format!("cuda:{n}"),
            _ => "cpu".into(),
        },
        steps: check.size(400, 24),
        every: check.size(10, 4),
    };
    let recipe = runs.folder.join("recipe.yaml");
    std::fs::write(&recipe, RECIPE).map_err(|e| Error::io(&recipe, e))?;
    let (until, on_gpu) = (Instant::now() + check.left(), check.on_gpu());

    let made = check.row("corpus, LM and AF-CLAP", |m| {
        let begun = Instant::now();
        for verb in ["synth", "lm", "clap"] {
            ended(runs.start(verb, "run", &[])?, until)?;
        }
        m.set("seconds", begun.elapsed().as_secs_f64());
        Ok(())
    })?;
    let whole = made
        && check.row("a run in one piece", |m| {
            let begun = Instant::now();
            ended(runs.start("train", "whole", &[])?, until)?;
            m.set("seconds", begun.elapsed().as_secs_f64());
            Ok(())
        })?;
    if !whole {
        return Ok(());
    }
    let mut most = 0.0;
    if on_gpu {
        check.row("another run in one piece", |m| {
            let begun = Instant::now();
            ended(runs.start("train", "other", &[])?, until)?;
            let (off, whose) = runs.apart("whole", "other")?;
            m.set("seconds", begun.elapsed().as_secs_f64());
            m.set("largest_difference", off);
            m.note(whose);
            most = (3.0 * off).max(1e-3);
            Ok(())
        })?;
    }
    check.row("killed, and gone on", |m| {
        let begun = Instant::now();
        let mut child = runs.start("train", "killed", &[])?;
        let checkpoints = runs.folder.join("killed/checkpoints").join(STAGE);
        while !numbered(&checkpoints).is_ok_and(|all| !all.is_empty()) {
            if let Some(status) = child.0.try_wait().map_err(|e| Error::io(&checkpoints, e))? {
                return Err(Error::Training {
                    message: format!("it ended before it could be killed: {status}"),
                    hint: None,
                });
            }
            within(until)?;
            std::thread::sleep(Duration::from_millis(2));
        }
        // Dropping it kills it, as a lost machine would.
        drop(child);
        m.must(!runs.stage("killed").join("safe_ckpt").exists(), || {
            "it was through before it was killed".into()
        });
        ended(runs.start("train", "killed", &["--resume", "auto"])?, until)?;
        let (off, whose) = runs.apart("whole", "killed")?;
        m.set("seconds", begun.elapsed().as_secs_f64());
        m.set("largest_difference", off);
        if off > 0.0 {
            m.note(whose);
        }
        m.at_most("the largest difference", off, most);
        Ok(())
    })?;
    check.row("--verify-resume", |m| {
        let begun = Instant::now();
        ended(runs.start("train", "verified", &["--verify-resume"])?, until)?;
        m.set("seconds", begun.elapsed().as_secs_f64());
        m.must(true, String::new);
        Ok(())
    })?;
    Ok(())
}

/// Where the runs are.
struct Runs {
    folder: PathBuf,
    device: String,
    steps: usize,
    every: usize,
}

/// A process that does not outlive us, nor the row that wants it, and what it says on standard error.
struct Started(Child, PathBuf);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Runs {
    fn stage(&self, output: &str) -> PathBuf {
        self.folder.join(output).join("checkpoints").join(STAGE)
    }

    /// Starts a verb on the recipe; all but the first share that one's corpus and models.
    fn start(&self, verb: &str, output: &str, flags: &[&str]) -> Result<Started> {
        let own = std::env::current_exe().map_err(|e| Error::io("/proc/self/exe", e))?;
        let at = |path: &str| self.folder.join(path).display().to_string();
        let log = self.folder.join(format!("{verb}-{output}.log"));
        let said = std::fs::File::create(&log).map_err(|e| Error::io(&log, e))?;
        let mut command = Command::new(&own);
        command
            .arg(verb)
            .arg(self.folder.join("recipe.yaml"))
            .args(flags)
            .arg(format!("output={}", at(output)))
            .arg(format!("device={}", self.device))
            .arg(format!("data.root={}", at("run/corpus")))
            .arg(format!("stages.{STAGE}.optim.steps={}", self.steps))
            .arg(format!("stages.{STAGE}.save.every={}", self.every))
            .arg("--quiet");
        if verb == "train" {
            command
                .arg(format!("model.lm={}", at("run/llm")))
                .arg(format!("model.clap={}", at("run/clap/clap.safetensors")));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        crate::ffi::ends_with_us(&mut command);
        let child = command.spawn().map_err(|e| Error::io(&own, e))?;
        Ok(Started(child, log))
    }

    /// The largest relative difference of a weight of two runs, and which that is.
    fn apart(&self, first: &str, second: &str) -> Result<(f64, String)> {
        let [first, second] = [first, second].map(|run| opened(&self.stage(run)));
        let (first, second) = (first?, second?);
        let mut worst = (0.0, String::new());
        for name in first.names() {
            let off = distance(&second.get(name)?, &first.get(name)?);
            if off.is_nan() || off > worst.0 {
                worst = (off, name.to_owned());
            }
            if off.is_nan() {
                break;
            }
        }
        Ok(worst)
    }
}

fn opened(stage: &Path) -> Result<Archive> {
    Ok(crate::checkpoint::open_released(stage)?.tensors)
}

fn within(until: Instant) -> Result<()> {
    match Instant::now() < until {
        true => Ok(()),
        false => Err(Error::Training {
            message: "the part's time is over".into(),
            hint: None,
        }),
    }
}

/// Waits for its end, which must be a good one.
fn ended(mut started: Started, until: Instant) -> Result<()> {
    loop {
        let status = started.0.try_wait().map_err(|e| Error::io(&started.1, e))?;
        match status {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                let said = std::fs::read_to_string(&started.1).unwrap_or_default();
                let line = said
                    .lines()
                    .rev()
                    .find(|l| l.contains("error"))
                    .unwrap_or_default();
                return Err(Error::Training {
                    message: format!("{status}: {line}"),
                    hint: None,
                });
            }
            None => within(until)?,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
