//! What tests of whole runs share: a job's folder while it trains, processes that are killed, and the distance of two models.
#![allow(dead_code)]

use af2::run::events::{latest, read_events, Event};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tch::Tensor;

/// What a job leaves in its run's folder.
pub(crate) struct Left<'a> {
    pub(crate) run: PathBuf,
    /// A stage's name, `lm` or `clap`.
    pub(crate) job: &'a str,
}

impl Left<'_> {
    pub(crate) fn events_file(&self) -> PathBuf {
        self.run.join("events").join(self.job).join("events.jsonl")
    }

    pub(crate) fn checkpoints_folder(&self) -> PathBuf {
        self.run.join("checkpoints").join(self.job)
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        latest(read_events(&self.events_file()).unwrap())
    }

    /// (step, micro-step, loss) of every micro-step, to the last bit.
    pub(crate) fn losses(&self) -> Vec<(u64, u64, u64)> {
        let all = self.events().into_iter();
        all.filter_map(|e| Some((e.step, e.micro_step?, e.values.get("loss")?.0.to_bits())))
            .collect()
    }

    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        let all = self.events().into_iter();
        all.filter_map(|e| Some(e.values.get(name)?.0)).collect()
    }

    /// Lines of events, whole or not.
    pub(crate) fn lines(&self) -> usize {
        let text = fs::read_to_string(self.events_file()).unwrap_or_default();
        text.lines().count()
    }

    /// Waits until the run has logged so many micro-steps.
    pub(crate) fn wait_for(&self, lines: usize, child: &mut Child) {
        wait(child, &format!("{lines} lines"), || self.lines() >= lines);
    }

    /// The numbers of those that are whole.
    pub(crate) fn checkpoints(&self) -> Vec<u64> {
        let all = fs::read_dir(self.checkpoints_folder()).into_iter().flatten();
        let number = |f: fs::DirEntry| {
            let name = f.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix("checkpoint_")?.strip_suffix(".pt")?;
            number.parse().ok()
        };
        let mut all: Vec<u64> = all.flatten().filter_map(number).collect();
        all.sort_unstable();
        all
    }

    /// Waits until a checkpoint is whole.
    pub(crate) fn wait_for_checkpoint(&self, child: &mut Child) {
        wait(child, "a checkpoint", || !self.checkpoints().is_empty());
    }
}

/// Waits until something is there that a process makes.
pub(crate) fn wait(child: &mut Child, what: &str, there: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !there() {
        assert!(Instant::now() < until, "{what} never came");
        if let Some(status) = child.try_wait().unwrap() {
            panic!("ended before {what} came: {status}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Exit code (128 and its number for a signal), and all that was said.
pub(crate) fn ended(child: Child) -> (i32, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or(status.signal().map(|s| 128 + s)).unwrap();
    (
        code,
        String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr),
    )
}

pub(crate) fn signal(process: u32, name: &str) {
    let done = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(done.unwrap().success(), "kill -{name} {process}");
}

/// Kills a run of so many ranks as a machine that loses its power does.
pub(crate) fn kill_all(child: Child, ranks: usize) {
    if ranks > 1 {
        ranks_of(&child, ranks).iter().for_each(|p| signal(*p, "KILL"));
    }
    signal(child.id(), "KILL");
    ended(child);
}

/// The ranks of a launcher, by their numbers.
pub(crate) fn ranks_of(launcher: &Child, ranks: usize) -> Vec<u32> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let id = launcher.id();
        let text = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let mut all: Vec<(String, u32)> = Vec::new();
        for process in text.split_whitespace().filter_map(|p| p.parse::<u32>().ok()) {
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            let rank = environment
                .split(|b| *b == 0)
                .find_map(|v| v.strip_prefix(b"RANK="))
                .map(|v| String::from_utf8_lossy(v).into_owned());
            all.extend(rank.map(|r| (r, process)));
        }
        if all.len() == ranks {
            all.sort();
            return all.into_iter().map(|(_, p)| p).collect();
        }
        assert!(Instant::now() < until, "no ranks");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same command where no file may grow beyond so many KiB, which does what a full disk does: a write fails in its middle.
pub(crate) fn on_a_full_disk(plain: &Command, kib: usize) -> Command {
    let mut limited = Command::new("bash");
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$@\"");
    limited
        .args(["-c", &script, "limited"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    limited
}

/// All tensors of a `.safetensors` file or of a folder of them, by name.
pub(crate) fn weights(path: &Path) -> Vec<(String, Tensor)> {
    let files: Vec<PathBuf> = match path.is_dir() {
        true => fs::read_dir(path).unwrap().map(|f| f.unwrap().path()).collect(),
        false => vec![path.to_path_buf()],
    };
    let mut all = Vec::new();
    for file in files {
        if file.extension().is_some_and(|e| e == "safetensors") {
            all.extend(Tensor::read_safetensors(file).unwrap());
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Distance of two runs' weights, relative to each tensor's norm; the largest, by name.
pub(crate) fn distance(a: &[(String, Tensor)], b: &[(String, Tensor)], except: &[&str]) -> (f64, String) {
    assert_eq!(a.len(), b.len());
    let norm = |t: &Tensor| f64::try_from(t.to_kind(tch::Kind::Double).norm()).unwrap();
    let mut worst = (0.0, String::new());
    for ((name, a), (_, b)) in a.iter().zip(b) {
        let off = norm(&(a - b)) / norm(a).max(1e-12);
        // What is no number is at no distance.
        let off = if off.is_nan() { f64::INFINITY } else { off };
        if off > worst.0 && !except.iter().any(|e| name.contains(e)) {
            worst = (off, name.clone());
        }
    }
    worst
}
