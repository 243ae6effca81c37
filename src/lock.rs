//! One run at a time in a folder.
//!
//! `run.lock` names who has the folder, and carries a lock of the file system, which goes with the process however that ends. Some
//! shared file systems keep such locks on each host for itself, or have none; so whoever has the folder also writes into the file
//! again and again, and a host that reads another's name there waits whether that is renewed. That other host's clock is not
//! asked: the file system's own is.

use crate::dist::machine;
use crate::error::{Error, Result};
use crate::ffi;
use crate::run::{self, lock::Holder};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often who has the folder says so.
const RENEW: Duration = Duration::from_secs(10);
/// The first time is sooner: two that came at once, on a file system without locks, find out.
const FIRST: Duration = Duration::from_secs(1);
/// Not renewed for so long: three times did not come.
const STALE: Duration = Duration::from_secs(35);
/// How long a run waits for the end of the one before, where its launcher has started it again…
const PATIENCE: Duration = Duration::from_secs(60);
/// …and else, for one that is just ending.
const BRIEFLY: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(100);

/// A folder that is this process's while this lives. Within the process it may be held several times.
pub(crate) struct Held {
    _inner: Arc<Inner>,
}

/// Folders that this process holds.
static HELD: Mutex<Vec<(PathBuf, Weak<Inner>)>> = Mutex::new(Vec::new());

/// Makes the folder and takes it. `again`: a launcher has started this run again, so that the one before may still be ending.
///
/// # Errors
/// A folder that another run has: who that is, on which host, since when.
pub(crate) fn hold(folder: &Path, again: bool) -> Result<Held> {
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let folder = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
    let mut all = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(_, inner)| inner.strong_count() > 0);
    let known = all.iter().find(|(path, _)| *path == folder);
    if let Some(inner) = known.and_then(|(_, inner)| inner.upgrade()) {
        return Ok(Held { _inner: inner });
    }
    let inner = Arc::new(take(&run::lock::path(&folder), again)?);
    all.push((folder, Arc::downgrade(&inner)));
    Ok(Held { _inner: inner })
}

fn us() -> Holder {
    let command: Vec<String> = std::env::args().collect();
    Holder {
        host: machine::host(),
        boot: machine::boot(),
        process: std::process::id(),
        command: command.join(" ").chars().take(1000).collect(),
        since_unix: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
        launcher: launcher(|name| std::env::var(name).ok()),
        word: format!("{:016x}", rand::random::<u64>()),
        renewed: count(0),
    }
}

fn count(n: u64) -> String {
    format!("{n:010}")
}

/// The job that starts its runs again by itself. A user's own shells in a job do not.
fn launcher(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let number = |name: &str| variable(name)?.parse::<u64>().ok();
    let task = number("SLURM_STEP_ID").is_some_and(|n| n < 0xffff_fff0);
    let again = number("SLURM_RESTART_COUNT").is_some_and(|n| n > 0);
    let slurm = variable("SLURM_JOB_ID").filter(|_| task || again);
    // torchrun's own word for a run without a name.
    let torchrun = variable("TORCHELASTIC_RUN_ID").filter(|id| !id.is_empty() && id != "none");
    let slurm = slurm.map(|id| format!("Slurm job {id}"));
    slurm.or(torchrun.map(|id| format!("torchrun's {id}")))
}

struct Inner {
    path: PathBuf,
    file: File,
    word: String,
    /// Ends the thread that renews.
    renews: Option<(Sender<()>, JoinHandle<()>)>,
}

fn take(path: &Path, again: bool) -> Result<Inner> {
    let us = us();
    let begun = Instant::now();
    let mut waits = false;
    let file = loop {
        let file = open(path)?;
        let locked = ffi::try_lock(&file);
        // Who ends takes the file away: what was opened before is then nobody's.
        if !is_at(&file, path) {
            continue;
        }
        run::lock::check(&file, path)?;
        let holder = Holder::read(&file);
        let elsewhere = holder.as_ref().filter(|h| h.boot != us.boot);
        match (&locked, elsewhere) {
            (Ok(true), None) => break file,
            // Another host has no lock that we see, or there are none: has it the folder?
            (Ok(true) | Err(_), _) => match holder.as_ref().filter(|_| !is_stale(&file, path)) {
                None => break file,
                Some(holder) => wait_for_renewal(path, holder)?,
            },
            (Ok(false), _) => {
                let before = holder.as_ref().and_then(|h| h.launcher.as_ref());
                let ours = again || before.is_some() && before == us.launcher.as_ref();
                if begun.elapsed() > if ours { PATIENCE } else { BRIEFLY } {
                    return Err(refused(path, holder.as_ref(), &us, &file));
                }
                if ours && !waits {
                    crate::say!(
                        "{}: the run before has the folder yet: waiting for its end",
                        path.display()
                    );
                    waits = true;
                }
                std::thread::sleep(LOOK);
            }
        }
    };
    us.write(&file).map_err(|e| {
        Error::io(path, e).hint("a run writes into its folder: is it writable, and is there room?")
    })?;
    let (send, receive) = mpsc::channel();
    let (word, own, at) = (us.word.clone(), file.try_clone(), path.to_path_buf());
    let own = own.map_err(|e| Error::io(path, e))?;
    let thread = std::thread::spawn(move || renew(us, &own, &at, &receive));
    Ok(Inner {
        path: path.to_path_buf(),
        file,
        word,
        renews: Some((send, thread)),
    })
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false);
    let file = file.open(path).map_err(|e| Error::io(path, e))?;
    match file.metadata().is_ok_and(|m| m.is_file()) {
        true => Ok(file),
        false => Err(Error::io(path, io::Error::other("expected a file"))),
    }
}

/// Whether an open file is still the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |m: io::Result<fs::Metadata>| m.ok().map(|m| (m.dev(), m.ino()));
    id(file.metadata()) == id(fs::metadata(path))
}

/// How long ago a file was written, by the clock of its file system.
fn age(file: &File, path: &Path) -> Option<Duration> {
    let beside = tempfile::tempfile_in(path.parent()?).ok()?;
    let now = beside.metadata().ok()?.modified().ok()?;
    let then = file.metadata().ok()?.modified().ok()?;
    Some(now.duration_since(then).unwrap_or_default())
}

fn is_stale(file: &File, path: &Path) -> bool {
    age(file, path).is_some_and(|age| age > STALE)
}

/// Returns when another host has left the folder, or has not renewed its name there for so long that it must be gone.
fn wait_for_renewal(path: &Path, holder: &Holder) -> Result<()> {
    crate::say!(
        "{}: {} had this folder a moment ago; watching for {} s whether it still has",
        path.display(),
        who(holder),
        STALE.as_secs()
    );
    loop {
        std::thread::sleep(10 * LOOK);
        // A shared file system shows what is new to who opens anew.
        let Ok(file) = File::open(path) else { return Ok(()) };
        match Holder::read(&file) {
            Some(now) if now == *holder => {
                if is_stale(&file, path) {
                    return Ok(());
                }
            }
            Some(now) => return Err(refused(path, Some(&now), &us(), &file)),
            None => return Ok(()),
        }
    }
}

fn who(holder: &Holder) -> String {
    format!("process {} on {}", holder.process, holder.host)
}

fn refused(path: &Path, holder: Option<&Holder>, us: &Holder, file: &File) -> Error {
    let Some(holder) = holder else {
        let e = io::Error::other("another run has this folder, and has not said yet which one");
        return Error::io(path, e).hint("wait for its end, or give this run another folder: output=…");
    };
    let mut text = format!(
        "another run has this folder: {}, since {}: {}",
        who(holder),
        utc(holder.since_unix),
        holder.command
    );
    let mut hint = "wait for its end, or give this run another folder: output=…".to_owned();
    if holder.boot != us.boot {
        let ago = age(file, path).map_or("some time".into(), |a| format!("{} s", a.as_secs()));
        text += &format!("\n  that is another host, which wrote this {ago} ago; whether the run is still alive cannot be seen from here");
        hint += &format!("; where {} is known to be gone, remove this file", holder.host);
    }
    Error::io(path, io::Error::other(text)).hint(hint)
}

/// Says again and again that the folder is ours.
fn renew(mut us: Holder, file: &File, path: &Path, ends: &mpsc::Receiver<()>) {
    let mut pause = FIRST;
    for n in 1.. {
        match ends.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
        pause = RENEW;
        // The name may be another file's by now.
        let found = File::open(path).ok().and_then(|file| Holder::read(&file));
        if let Some(other) = found.filter(|h| h.word != us.word) {
            crate::say!(
                "error: {}: {} has taken this run's folder: this run ends, as two would overwrite each other",
                path.display(),
                who(&other)
            );
            ffi::exit_at_once(3);
        }
        us.renewed = count(n);
        // A disk that is full stays so; others then see the lock alone.
        let _ = us.write(file);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some((send, thread)) = self.renews.take() {
            drop(send);
            let _ = thread.join();
        }
        let ours = Holder::read(&self.file).is_some_and(|h| h.word == self.word);
        if ours && is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// 2026-11-26 05:41:33 UTC.
fn utc(unix: u64) -> String {
    // Days from the first of March of year 0, so that a leap day ends a year.
    let (days, seconds) = ((unix / 86_400) as i64 + 719_468, unix % 86_400);
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (
        day - (153 * month + 2) / 5 + 1,
        if month < 10 { month + 3 } else { month - 9 },
    );
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests;
