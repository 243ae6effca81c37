//! The run's folder: whether it can be written, and what lies below it.

use super::line::{Line, FILES};
use crate::ffi;
use crate::proc::mounts::{self, Mount};
use rustix::fs::Advice;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const NAMES: [&str; 5] = ["run_folder", "file_system", "locks", "room", "disk_speed"];

/// Left behind where af2 is killed while it looks, these say whose they are.
const PREFIX: &str = ".af2-doctor.";
/// What is written and read for the time of it, in pieces of [`PIECE`].
const SAMPLE: u64 = 128 << 20;
const PIECE: usize = 8 << 20;
/// A disk that has not taken the sample by then is slow enough to be known.
const PATIENCE: Duration = Duration::from_secs(4);
/// Bytes a second: the checkpoint of the 3B model's last stage, some 40 GB, in a quarter of an hour.
const SPEED: f64 = 50e6;
/// Without a recipe: the demo's run is 0.7 GB, a 0.5B model's checkpoint some 6 GB.
const ROOM: u64 = 10_000_000_000;
const LEAST_ROOM: u64 = 1_000_000_000;

/// File systems that several hosts see.
const SHARED: [&str; 12] = [
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "glusterfs",
    "cifs",
    "smb3",
    "9p",
    "afs",
    "wekafs",
];

pub(super) fn look(run: &Path, needs: Option<u64>, quick: bool) -> Vec<Line> {
    let place = match there(run) {
        Ok(place) => place,
        Err((at, why)) => {
            let advice = "output=DIR (or --run DIR) on a disk that this user may write to";
            let first = Line::broken(NAMES[0], FILES, format!("{}: {why}", at.display()), advice);
            let rest = NAMES[1..]
                .iter()
                .map(|name| Line::ok(name, "not looked at: no folder"));
            return std::iter::once(first).chain(rest).collect();
        }
    };
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts::read(&mountinfo);
    let mount = mounts::of(&mounted, &place);
    let shared = mount.is_some_and(|m| is_shared(&m.kind));
    let written = written(&place);
    let can = written.is_ok();
    let free = crate::preflight::free(&place);
    let mut lines = vec![folder(run, &place, written), kind(mount)];
    let unwritten = |name| Line::ok(name, "not looked at: the folder cannot be written");
    lines.push(match can {
        true => locks(&place, shared),
        false => unwritten("locks"),
    });
    lines.push(room(free, needs));
    lines.push(match (can, quick) {
        (false, _) => unwritten("disk_speed"),
        (true, true) => Line::ok("disk_speed", "not timed"),
        (true, false) => speed(&place, free),
    });
    lines
}

/// The folder, or the nearest above it that is there: in it the run's would be made. Without links.
fn there(run: &Path) -> Result<PathBuf, (PathBuf, String)> {
    let run = std::path::absolute(run).map_err(|e| (run.to_path_buf(), e.to_string()))?;
    for path in run.ancestors() {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                return path
                    .canonicalize()
                    .map_err(|e| (path.to_path_buf(), e.to_string()));
            }
            Ok(_) => return Err((path.to_path_buf(), "expected a folder, found a file".into())),
            // Below a file, too, nothing is found.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err((path.to_path_buf(), e.to_string())),
        }
    }
    Err((run, "nothing of it is there".into()))
}

/// As results are written: a new name, bytes, fsync, rename; and deleted. Nothing is overwritten.
fn written(folder: &Path) -> io::Result<()> {
    let new = || tempfile::Builder::new().prefix(PREFIX).tempfile_in(folder);
    let mut file = new()?;
    file.write_all(b"af2 doctor")?;
    file.as_file().sync_all()?;
    // A name that was free a moment ago, for the other end of the rename.
    let second = new()?.into_temp_path();
    file.persist(&second).map_err(|e| e.error)?;
    let same = fs::read(&second)? == b"af2 doctor";
    second.close()?;
    File::open(folder)?.sync_all()?;
    match same {
        true => Ok(()),
        false => Err(io::Error::other("what was read is not what was written")),
    }
}

fn folder(run: &Path, place: &Path, written: io::Result<()>) -> Line {
    const NAME: &str = "run_folder";
    let new = match run.is_dir() {
        true => String::new(),
        false => format!(", to be made in {}", place.display()),
    };
    let line = match written {
        Ok(()) => Line::ok(NAME, format!("{}{new}: can be written", run.display())),
        Err(e) => Line::broken(
            NAME,
            FILES,
            format!("{}{new}: {e}", run.display()),
            "output=DIR (or --run DIR) on a disk that this user may write to",
        ),
    };
    line.value("path", run.display().to_string())
        .value("looked_at", place.display().to_string())
}

fn is_shared(kind: &str) -> bool {
    SHARED.contains(&kind) || kind.starts_with("fuse.") || kind == "fuse"
}

fn kind(mount: Option<&Mount>) -> Line {
    const NAME: &str = "file_system";
    let Some(mount) = mount else {
        return Line::ok(NAME, "/proc/self/mountinfo does not say");
    };
    let from = format!("{} at {}", mount.kind, mount.at.display());
    let line = match mount.kind.as_str() {
        "tmpfs" | "ramfs" => Line::slow(
            NAME,
            format!("{from}: memory, gone when the machine stops"),
            "a run's checkpoints take memory from it: output=DIR (or --run DIR) on a disk",
        ),
        "overlay" => Line::ok(NAME, format!("{from}: a container's own, gone with it")),
        kind if is_shared(kind) => Line::ok(
            NAME,
            format!("{from}, from {}: shared with other hosts", mount.source),
        ),
        _ => Line::ok(NAME, format!("{from}, on {}", mount.source)),
    };
    line.value("kind", mount.kind.as_str())
        .value("shared", is_shared(&mount.kind))
}

/// Whether a second holder of a lock is kept out.
fn locks(folder: &Path, shared: bool) -> Line {
    const NAME: &str = "locks";
    let advice = "a second run in the same folder is found out by run.lock's age alone, some seconds late: start one at a time";
    let kept_out = || -> io::Result<bool> {
        let file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(folder)?;
        let second = File::open(file.path())?;
        if !ffi::try_lock(file.as_file())? {
            return Ok(false);
        }
        if ffi::try_lock(&second)? {
            return Ok(false);
        }
        // Goes with who has it.
        drop(file);
        ffi::try_lock(&second)
    };
    match kept_out() {
        Ok(true) if shared => Line::ok(
            NAME,
            "hold on this host; of others run.lock's age tells, should this file system not carry them",
        ),
        Ok(true) => Line::ok(NAME, "hold"),
        Ok(false) => Line::slow(NAME, "a file was locked twice, or stayed locked", advice),
        Err(e) => Line::slow(NAME, format!("none: {e}"), advice),
    }
}

fn room(free: Option<u64>, needs: Option<u64>) -> Line {
    const NAME: &str = "room";
    let gb = |n: u64| format!("{:.1} GB", n as f64 / 1e9);
    let Some(free) = free else {
        return Line::ok(NAME, "this file system does not say how much is free");
    };
    let line = match needs {
        Some(needs) => {
            let found = format!("{} free, the recipe's run keeps {}", gb(free), gb(needs));
            match needs > free {
                true => Line::broken(
                    NAME,
                    FILES,
                    found,
                    "output=DIR on a larger disk, or fewer checkpoints (save: in the recipe; `af2 plan` says what takes how much)",
                ),
                false => Line::ok(NAME, found),
            }
        }
        None => {
            let found = format!("{} free", gb(free));
            let advice =
                "`af2 doctor RECIPE` says whether a run fits; output=DIR (or --run DIR) on a larger disk";
            match free {
                n if n < LEAST_ROOM => Line::broken(NAME, FILES, found, advice),
                n if n < ROOM => Line::slow(NAME, found, advice),
                _ => Line::ok(NAME, found),
            }
        }
    };
    line.value("free", free).value("needs", needs)
}

fn speed(folder: &Path, free: Option<u64>) -> Line {
    const NAME: &str = "disk_speed";
    // Never the last of a disk that others write to.
    let size = SAMPLE.min(free.unwrap_or(SAMPLE) / 8);
    if size < PIECE as u64 {
        return Line::ok(NAME, "not timed: there is no room for a sample");
    }
    match timed(folder, size) {
        Ok((write, read)) => of_rates(write, read),
        Err(e) => Line::broken(
            NAME,
            FILES,
            e.to_string(),
            "the disk refuses a file of 128 MB: is a quota full?",
        ),
    }
}

fn of_rates(write: f64, read: Option<f64>) -> Line {
    const NAME: &str = "disk_speed";
    let mb = |rate: f64| format!("{:.0} MB/s", rate / 1e6);
    let back = read.map_or("not timed".into(), mb);
    let found = format!(
        "written with fsync {}, read back {back}; expected {} at least",
        mb(write),
        mb(SPEED)
    );
    let line = match write.min(read.unwrap_or(f64::MAX)) >= SPEED {
        true => Line::ok(NAME, found),
        false => Line::slow(
            NAME,
            found,
            "checkpoints will take long to write, and training waits for the last one: a faster disk, or save less often",
        ),
    };
    line.value("write", write)
        .value("read", read)
        .value("expected", SPEED)
}

/// Bytes a second of writing a file until the disk has it, and of reading it back from there. The file has no name: it goes with
/// the process.
fn timed(folder: &Path, size: u64) -> io::Result<(f64, Option<f64>)> {
    use rand::{RngCore, SeedableRng};
    let mut file = tempfile::tempfile_in(folder)?;
    // What a file system could compress would be another disk's speed.
    let mut piece = vec![0; PIECE];
    rand_pcg::Pcg64Mcg::seed_from_u64(size).fill_bytes(&mut piece);
    let begun = Instant::now();
    let mut written = 0;
    while written < size && begun.elapsed() < PATIENCE {
        // No two pieces are the same to a file system that finds those.
        piece[..8].copy_from_slice(&written.to_le_bytes());
        file.write_all(&piece)?;
        written += PIECE as u64;
        if written == PIECE as u64 {
            // A slow disk is known after the first.
            file.sync_data()?;
        }
    }
    file.sync_all()?;
    let write = written as f64 / begun.elapsed().as_secs_f64().max(1e-9);
    // Otherwise it comes from memory.
    if rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).is_err() {
        return Ok((write, None));
    }
    file.rewind()?;
    let begun = Instant::now();
    let mut read = 0;
    while begun.elapsed() < PATIENCE {
        match file.read(&mut piece)? {
            0 => break,
            n => read += n,
        }
    }
    Ok((write, Some(read as f64 / begun.elapsed().as_secs_f64().max(1e-9))))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn of<'l>(lines: &'l [Line], name: &str) -> &'l Line {
        lines.iter().find(|l| l.name == name).unwrap()
    }

    #[test]
    fn a_folder_that_is_not_there_is_looked_at_where_it_would_be_made_and_stays_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("experiments/first");
        let lines = look(&run, None, false);
        assert_eq!(lines.iter().map(|l| l.name).collect::<Vec<_>>(), NAMES);
        let line = of(&lines, "run_folder");
        assert_eq!(line.state, State::Ok, "{line:?}");
        assert!(line.found.contains("to be made in"), "{}", line.found);
        assert!(of(&lines, "disk_speed").values["write"].as_f64().unwrap() > 0.0);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_broken_for_root_too() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "mine").unwrap();
        let lines = look(&file.join("run"), None, false);
        let line = of(&lines, "run_folder");
        assert_eq!((line.state, line.code), (State::Broken, 3));
        assert!(
            line.found.contains("expected a folder, found a file"),
            "{}",
            line.found
        );
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        // Nobody writes there.
        let lines = look(Path::new("/proc/run"), None, false);
        assert_eq!(lines.iter().map(|l| l.name).collect::<Vec<_>>(), NAMES);
        let line = of(&lines, "run_folder");
        assert_eq!((line.state, line.code), (State::Broken, 3), "{line:?}");
        assert_eq!(of(&lines, "file_system").values["kind"], "proc");
    }

    #[test]
    fn room_is_held_against_what_a_recipe_keeps() {
        let gb = 1_000_000_000;
        let state = |free, needs| room(Some(free), needs).state;
        assert_eq!(state(50 * gb, Some(40 * gb)), State::Ok);
        assert_eq!(state(5 * gb, Some(gb)), State::Ok);
        assert_eq!(state(50 * gb, Some(51 * gb)), State::Broken);
        assert_eq!(state(50 * gb, None), State::Ok);
        assert_eq!(state(5 * gb, None), State::Slow);
        assert_eq!(state(gb / 2, None), State::Broken);
        assert_eq!(room(None, Some(gb)).state, State::Ok);
    }

    #[test]
    fn speed_and_kind_are_judged() {
        assert_eq!(of_rates(900e6, Some(2e9)).state, State::Ok);
        assert_eq!(of_rates(900e6, None).state, State::Ok);
        assert_eq!(of_rates(20e6, Some(2e9)).state, State::Slow);
        assert_eq!(of_rates(900e6, Some(1e6)).state, State::Slow);
        let line = |name: &str| {
            let text = format!("27 1 254:0 / /runs rw,relatime - {name} host:/export rw\n");
            kind(mounts::of(&mounts::read(&text), Path::new("/runs/a")))
        };
        assert_eq!(line("tmpfs").state, State::Slow);
        assert!(line("nfs4").found.contains("from host:/export: shared"));
        assert_eq!(line("fuse.sshfs").values["shared"], true);
        assert_eq!(line("ext4").values["shared"], false);
        assert_eq!(kind(None).state, State::Ok);
    }

    #[test]
    fn locks_hold_on_this_disk() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(locks(root.path(), false).state, State::Ok);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
