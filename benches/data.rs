//! How fast sound files become log-mel windows, beside the reference's work in Python on the same files.
//!
//! `make bench-data` runs this. Windows per second are the machine's; the ratio is what compares.
#![allow(clippy::expect_used, clippy::print_stdout)]

use af2::audio::{self, decode::Reader, LogMel, Span};
use af2::report::table::Table;
use af2::shapes::Seconds;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Most windows of a file.
const WINDOWS: usize = 30;
const KINDS: [&str; 4] = ["wav_16k", "wav_44k_stereo", "flac_44k_stereo", "mp3_44k_stereo"];

fn main() {
    let python = std::env::var_os("AF2_PEER_PYTHON").expect("`make bench-data` sets AF2_PEER_PYTHON");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/data.py");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let peer = |arguments: &[&str]| {
        let out = Command::new(&python)
            .arg(&script)
            .args(
                [
                    &arguments[..1],
                    &[folder.path().to_str().expect("a path that is text")],
                    &arguments[1..],
                ]
                .concat(),
            )
            .output()
            .expect("a Python that starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    peer(&["make"]);
    let mut table = Table::new([
        "files",
        "threads",
        "af2, windows/s",
        "Python, windows/s",
        "af2 ÷ Python",
    ]);
    let mut stages = Table::new([
        "files, one thread",
        "decode, ms/window",
        "resample and normalise",
        "mel",
        "together",
    ]);
    for kind in KINDS {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder.path().join(kind))
            .expect("the folder that was just written")
            .map(|f| f.expect("a file").path())
            .collect();
        files.sort();
        for threads in [1usize, 2] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("threads");
            let ours = pool.install(|| median(|| windows_per_second(&files)));
            let theirs: f64 = peer(&["run", kind, &threads.to_string()])
                .parse()
                .expect("a number");
            table.row([
                kind.to_owned(),
                threads.to_string(),
                format!("{ours:.0}"),
                format!("{theirs:.0}"),
                format!("{:.1}", ours / theirs),
            ]);
        }
        let one = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .expect("a thread");
        let [decode, resample, mel] = one.install(|| stage_costs(&files));
        stages.row([
            kind.to_owned(),
            format!("{decode:.2}"),
            format!("{resample:.2}"),
            format!("{mel:.2}"),
            format!("{:.2}", decode + resample + mel),
        ]);
    }
    println!("{}\n{}", table.terminal(), stages.terminal());
}

fn span() -> Span {
    Span {
        start: Seconds(0.0),
        duration: Seconds(WINDOWS as f64 * 10.0),
    }
}

fn median(mut work: impl FnMut() -> f64) -> f64 {
    let mut all = [work(), work(), work()];
    all.sort_by(f64::total_cmp);
    all[1]
}

/// From the disk to the mel, files in parallel.
fn windows_per_second(files: &[PathBuf]) -> f64 {
    let front_end = LogMel::new();
    let start = Instant::now();
    let windows: usize = files
        .par_iter()
        .map(|path| {
            let samples = audio::load(path, span()).expect("a sound file");
            front_end.batch(&audio::windows(&samples, WINDOWS)).shape()[0]
        })
        .sum();
    windows as f64 / start.elapsed().as_secs_f64()
}

/// Milliseconds per window: decoding, what loading adds to it, the mel with its windows.
fn stage_costs(files: &[PathBuf]) -> [f64; 3] {
    let front_end = LogMel::new();
    let mut best = [f64::INFINITY; 3];
    for _ in 0..3 {
        let mut seconds = [0.0; 3];
        let mut windows = 0;
        for path in files {
            let start = Instant::now();
            Reader::open(path)
                .and_then(|r| r.read(0, u64::MAX, |_| ()))
                .expect("a sound file");
            let decoded = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let samples = audio::load(path, span()).expect("a sound file");
            let loaded = start.elapsed().as_secs_f64();
            let start = Instant::now();
            windows += front_end.batch(&audio::windows(&samples, WINDOWS)).shape()[0];
            let mel = start.elapsed().as_secs_f64();
            for (sum, s) in seconds.iter_mut().zip([decoded, loaded - decoded, mel]) {
                *sum += s;
            }
        }
        for (best, s) in best.iter_mut().zip(seconds) {
            *best = best.min(1e3 * s / windows as f64);
        }
    }
    best
}
