//! The same shapes in Python's torch, where there is one.

use super::part::Check;
use crate::error::{Error, Result};
use crate::model::flamingo::Config;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SCRIPT: &str = include_str!("peer.py");

/// What one process of it does; see `peer.py`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Job {
    pub what: &'static str,
    pub config: Config,
    pub device: String,
    pub bf16: bool,
    pub items: usize,
    pub windows: usize,
    pub text: usize,
    pub new: usize,
    pub warmup: usize,
    pub rounds: usize,
    pub clap: bool,
    /// Labels of an item that count, in a training step.
    pub counted: Option<usize>,
}

/// What it found.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Found {
    pub seconds: Vec<f64>,
    pub parameters: i64,
    pub torch: String,
    pub finite: bool,
}

/// A Python with torch, and the script.
pub(crate) struct Peer {
    python: PathBuf,
    folder: tempfile::TempDir,
}

impl Peer {
    /// None where there is no such Python; where one was named, that is an error.
    pub(crate) fn find(check: &Check) -> Result<Option<Self>> {
        let named = check.python.clone();
        let python = named.clone().unwrap_or("python3".into());
        let ask = match check.on_gpu() {
            true => "import torch; assert torch.cuda.is_available()",
            false => "import torch",
        };
        let mut command = Command::new(&python);
        command
            .arg("-c")
            .arg(ask)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let asked = clean(&mut command).output();
        match (asked, named) {
            (Ok(out), _) if out.status.success() => {}
            (_, None) => return Ok(None),
            (Ok(out), Some(python)) => {
                let said = String::from_utf8_lossy(&out.stderr).into_owned();
                let line = said.lines().last().unwrap_or_default().to_owned();
                return Err(Error::usage(format!("--python {}: {line}", python.display())));
            }
            (Err(e), Some(python)) => return Err(Error::io(python, e)),
        }
        let folder = tempfile::tempdir().map_err(|e| Error::io(std::env::temp_dir(), e))?;
        let script = folder.path().join("peer.py");
        std::fs::write(&script, SCRIPT).map_err(|e| Error::io(&script, e))?;
        Ok(Some(Peer { python, folder }))
    }

    /// Runs one job; ends it where it takes longer than there is.
    pub(crate) fn run(&self, job: &Job, limit: Duration) -> Result<Found> {
        let wrong = |what: String| Error::Training {
            message: format!("torch: {what}"),
            hint: None,
        };
        let json = serde_json::to_string(job).map_err(|e| wrong(e.to_string()))?;
        let [out, err] = ["out", "err"].map(|n| self.folder.path().join(n));
        let open = |path: &PathBuf| std::fs::File::create(path).map_err(|e| Error::io(path, e));
        let mut command = Command::new(&self.python);
        command.arg(self.folder.path().join("peer.py")).arg(json);
        command
            .stdin(Stdio::null())
            .stdout(open(&out)?)
            .stderr(open(&err)?);
        crate::ffi::ends_with_us(&mut command);
        let mut child = clean(&mut command)
            .spawn()
            .map_err(|e| Error::io(&self.python, e))?;
        let until = Instant::now() + limit;
        let status = loop {
            match child.try_wait().map_err(|e| Error::io(&self.python, e))? {
                Some(status) => break status,
                None if Instant::now() >= until => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(wrong(format!("no end after {:.0} s", limit.as_secs_f64())));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        if !status.success() {
            let said = text(&err);
            return Err(wrong(
                said.lines().last().unwrap_or("it ended without a word").into(),
            ));
        }
        let line = text(&out);
        let line = line.lines().last().unwrap_or_default();
        serde_json::from_str(line).map_err(|e| wrong(format!("{e} in {line:?}")))
    }
}

/// Takes folders of a libtorch out of LD_LIBRARY_PATH: Python's torch finds its own, and another one's would be mixed with it.
fn clean(command: &mut Command) -> &mut Command {
    const NAME: &str = "LD_LIBRARY_PATH";
    if let Some(paths) = std::env::var_os(NAME) {
        let others = std::env::split_paths(&paths).filter(|p| !p.join("libtorch_cpu.so").exists());
        let others: OsString = std::env::join_paths(others).unwrap_or_default();
        match others.is_empty() {
            true => command.env_remove(NAME),
            false => command.env(NAME, others),
        };
    }
    command
}
