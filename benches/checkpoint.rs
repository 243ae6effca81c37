//! How fast a 4.3 GB checkpoint loads, beside reading the same file and beside Python's loaders.
//!
//! `make bench` runs this. Every row is a share of the raw read in the same state of the disk cache, in the same run:
//! the seconds themselves say more about the machine than about us. Python's rows need the environment of
//! `make test-interop` (or AF2_INTEROP_PYTHON).
#![allow(clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

#[path = "../tests/common/full_size.rs"]
mod full_size;

use af2::checkpoint::{items_of, names, training, Archive, Parts};
use af2::load::{self, Options};
use af2::report::table::Table;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tch::Device;

const RUNS: usize = 3;

/// What is timed, on a file or folder.
type Work<'a> = Box<dyn Fn() -> Option<f64> + 'a>;

fn main() {
    // cargo's own arguments (--bench) mean nothing here.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    eprintln!("writing the 0.5B-size checkpoint in three forms (13 GB) …");
    let (released, safe, torch) = (at("af2"), at("model.safetensors"), at("checkpoint_0.pt"));
    full_size::write("af2-0.5b", &full_size::golden_llm(), &released);
    full_size::write_one("af2-0.5b", &safe);
    let tensors = Archive::open(&safe).expect("what was just written");
    let model = items_of(&tensors, |n| Some(names::in_training_tree(n)));
    training::write_model(&torch, model).expect("a disk with room");
    let llm = released.join("llm");
    let python = python();
    if python.is_none() {
        eprintln!("no Python environment: run `make test-interop` once for its rows");
    }

    let mut table = Table::new([
        "what",
        "disk cache",
        "seconds (median of 3)",
        "GB/s",
        "raw read ÷ this",
    ]);
    let gigabytes = size(&safe) as f64 / 1e9;
    for cold in [false, true] {
        let files = [&safe, &torch];
        if cold && !files.iter().all(|f| forget(f)) {
            eprintln!("the disk cache cannot be emptied here (dd): no cold rows");
            continue;
        }
        let seconds = |file: &Path, work: &Work| -> Option<f64> {
            let mut all: Vec<f64> = (0..RUNS)
                .map(|_| {
                    if cold {
                        forget(file);
                    }
                    work()
                })
                .collect::<Option<_>>()?;
            all.sort_by(f64::total_cmp);
            Some(all[RUNS / 2])
        };
        let raw = seconds(&safe, &(Box::new(|| Some(timed(|| read(&safe)))) as Work)).unwrap_or(f64::NAN);
        let mut row = |what: &str, file: &Path, work: Work| {
            let state = if cold { "empty" } else { "warm" };
            let cells = match seconds(file, &work) {
                Some(s) => [
                    what,
                    state,
                    &format!("{s:.2}"),
                    &format!("{:.2}", gigabytes / s),
                    &format!("{:.2}", raw / s),
                ]
                .map(str::to_owned),
                None => [what, state, "failed", "", ""].map(str::to_owned),
            };
            table.row(cells);
        };
        row(
            "raw read, 16 MiB pieces",
            &safe,
            Box::new(|| Some(timed(|| read(&safe)))),
        );
        for (name, file) in [("safetensors", &safe), (".pt", &torch)] {
            row(
                &format!("af2: every tensor of {name}, checksums verified"),
                file,
                Box::new(move || Some(timed(|| read_all(file)))),
            );
            row(
                &format!("af2: the whole model from {name}"),
                file,
                Box::new(|| Some(timed(|| open(file, &llm)))),
            );
        }
        let Some(python) = &python else { continue };
        for (what, file, code) in [
            ("Python: safetensors.torch.load_file, mapped", &safe, "load_file(p)"),
            ("Python: the same, every tensor copied", &safe, "{k: v.clone() for k, v in load_file(p).items()}"),
            ("Python: torch.load", &torch, "torch.load(p, weights_only=True)"),
            ("Python: torch.load(mmap=True), mapped", &torch, "torch.load(p, weights_only=True, mmap=True)"),
            (
                "Python: the same, every tensor copied",
                &torch,
                "{k: v.clone() for k, v in torch.load(p, weights_only=True, mmap=True)['model_state_dict'].items()}",
            ),
        ] {
            row(what, file, Box::new(move || python_seconds(python, file, code)));
        }
    }
    println!(
        "{gigabytes:.2} GB, {} threads\n{}",
        tch::get_num_threads(),
        table.terminal()
    );
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn size(file: &Path) -> u64 {
    file.metadata().map_or(0, |m| m.len())
}

fn read(file: &Path) {
    let mut buffer = vec![0u8; 16 << 20];
    let mut file = File::open(file).expect("the file that was just written");
    while file.read(&mut buffer).expect("a readable file") > 0 {}
}

fn read_all(file: &Path) {
    let archive = Archive::open(file).expect("the file that was just written");
    let all: Vec<_> = archive
        .names()
        .map(|n| archive.get(n).expect("a readable tensor"))
        .collect();
    assert_eq!(all.len(), archive.names().count());
}

fn open(file: &Path, llm: &Path) {
    let parts = Parts {
        llm: Some(llm.to_path_buf()),
        ..file.into()
    };
    let model = load::open_parts(&parts, &Options::new(Device::Cpu)).expect("a model that fits");
    assert_eq!(model.params.count(), 1_074_680_455);
}

/// Drops a file's pages from the disk cache.
fn forget(file: &Path) -> bool {
    let of = format!("of={}", file.display());
    let out = Command::new("dd")
        .args([
            &of,
            "oflag=nocache",
            "conv=notrunc,fdatasync",
            "count=0",
            "status=none",
        ])
        .output();
    out.is_ok_and(|o| o.status.success())
}

/// The Python that judges in `make test-interop`.
fn python() -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("AF2_INTEROP_PYTHON") {
        return Some(python.into());
    }
    let cache = std::env::var_os("AF2_CACHE").map(PathBuf::from).or_else(|| {
        let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        xdg.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
            .map(|c| c.join("af2"))
    })?;
    let mut found: Vec<PathBuf> = std::fs::read_dir(cache)
        .ok()?
        .filter_map(|f| Some(f.ok()?.path()))
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("interop-"))
        })
        .map(|p| p.join("bin/python"))
        .filter(|p| p.exists())
        .collect();
    found.sort();
    found.pop()
}

/// Seconds of the expression itself, without Python's start.
fn python_seconds(python: &Path, file: &Path, code: &str) -> Option<f64> {
    let program = format!(
        "import sys, time, torch\nfrom safetensors.torch import load_file\ntorch.set_num_threads(2)\np = sys.argv[1]\n\
         t = time.perf_counter()\nx = {code}\nprint(time.perf_counter() - t)"
    );
    let out = Command::new(python)
        .args(["-c", &program])
        .arg(file)
        .output()
        .ok()?;
    String::from_utf8_lossy(&out.stdout).trim().parse().ok()
}
