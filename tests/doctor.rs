//! `af2 doctor`: the right lines and the right exit codes, on this machine as it is and with one thing wrong at a time.
#![cfg(target_os = "linux")]
#![allow(clippy::panic, clippy::unwrap_used)]

#[path = "common/full_set.rs"]
mod full_set;

use full_set::full_set;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const CHECKS: [&str; 19] = [
    "af2",
    "libtorch",
    "cuda",
    "driver",
    "cuda_runtime",
    "nvrtc",
    "cudnn_attention",
    "nccl",
    "cores",
    "threads",
    "memory",
    "swap",
    "open_files",
    "run_folder",
    "file_system",
    "locks",
    "room",
    "disk_speed",
    "other_programs",
];
const OF_A_DEVICE: [&str; 4] = ["device", "bf16", "product_fp32", "product_bf16"];

/// Runs it as a user without settings of his own would.
fn doctor(environment: &[(&str, &Path)], arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("af2"));
    for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"] {
        command.env_remove(name);
    }
    let out = command
        .arg("doctor")
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(errors.is_empty(), "{errors}");
    (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
}

fn json(environment: &[(&str, &Path)], arguments: &[&str]) -> (i32, Value) {
    let arguments = [arguments, &["--json"]].concat();
    let (code, text) = doctor(environment, &arguments);
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(value["exit_code"], code);
    (code, value)
}

/// A folder that the loader looks into first, with another CUDA half. The rest of libtorch stays where it is: its libraries find
/// each other by their places.
fn libtorch(folder: &Path, cuda: impl FnOnce(&Path)) -> PathBuf {
    cuda(&folder.join("libtorch_cuda.so"));
    folder.to_path_buf()
}

#[test]
fn this_machine_is_well_and_every_thing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let (code, all) = json(&[], &["--run", run.to_str().unwrap()]);
    // Programs beside it may make things slow; nothing is broken.
    assert_eq!(code, 0, "{all:#}");
    assert_eq!(all["format"], 1);
    let names: Vec<&String> = all["checks"].as_object().unwrap().keys().collect();
    assert_eq!(names, CHECKS);
    let lines = all["checks"].as_object().unwrap().iter();
    for device in all["devices"].as_object().unwrap().values() {
        let names: Vec<&String> = device.as_object().unwrap().keys().collect();
        assert_eq!(names, OF_A_DEVICE);
    }
    for (name, line) in lines.chain(all["devices"]["cpu"].as_object().unwrap()) {
        assert!(!line["found"].as_str().unwrap().is_empty(), "{name}");
        let well = line["state"] == "ok";
        assert_eq!(line["advice"].is_null(), well, "{name}: {line}");
    }
    assert_eq!(
        all["checks"]["libtorch"]["values"]["version"].as_str().unwrap()[..6],
        *"2.11.0"
    );
    assert_eq!(all["checks"]["run_folder"]["state"], "ok");
    let cores = af2::cores::allowed();
    assert_eq!(all["checks"]["cores"]["values"]["usable"], cores);
    assert_eq!(all["checks"]["threads"]["values"]["threads"], cores);
    for name in ["product_fp32", "product_bf16"] {
        assert!(all["devices"]["cpu"][name]["values"]["rate"].as_f64().unwrap() > 1e8);
    }
    assert!(!run.exists());
}

#[test]
fn lines_begin_with_a_state_and_what_is_wrong_says_what_to_do() {
    let (code, text) = doctor(
        &[("OMP_NUM_THREADS", Path::new("1"))],
        &["--quick", "--run", "/tmp"],
    );
    assert_eq!(code, 0, "{text}");
    let mut lines: Vec<&str> = text.lines().collect();
    let last = lines.pop().unwrap();
    assert!(last.contains(" ok, ") && last.contains(" broken in "), "{last}");
    let mut advice = true;
    for line in lines {
        let word = line.split_whitespace().next().unwrap();
        match word {
            "→" => advice = true,
            "ok" | "slow" | "broken" => {
                assert!(advice, "nothing to do about the line before: {line}");
                advice = word == "ok";
            }
            _ => panic!("{line}"),
        }
    }
    assert!(text.contains("libtorch has 1 (OMP_NUM_THREADS=1)"), "{text}");
    if af2::cores::allowed() == 1 {
        return;
    }
    assert!(text.contains("slow    threads"), "{text}");
    let (code, all) = json(
        &[("OMP_NUM_THREADS", Path::new("1"))],
        &["--quick", "--strict", "--run", "/tmp"],
    );
    assert_eq!((code, &all["state"]), (14, &"slow".into()));
}

#[test]
fn a_run_folder_that_cannot_be_written_is_3() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("run");
    for run in [below.to_str().unwrap(), "/proc/run"] {
        let (code, all) = json(&[], &["--quick", "--run", run]);
        assert_eq!(code, 3, "{run}");
        assert_eq!(all["checks"]["run_folder"]["state"], "broken");
        assert!(all["checks"]["run_folder"]["advice"]
            .as_str()
            .unwrap()
            .contains("output=DIR"));
        assert_eq!(all["checks"]["cuda"]["state"], "ok");
    }
    // As a recipe says it, with what its run keeps.
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/demo.yaml");
    let recipe = recipe.to_str().unwrap();
    let (code, _) = json(&[], &[recipe, &format!("output={}", below.display()), "--quick"]);
    assert_eq!(code, 3);
    let run = folder.path().join("run");
    let (code, all) = json(&[], &[recipe, &format!("output={}", run.display()), "--quick"]);
    assert_eq!(code, 0, "{all:#}");
    assert_eq!(
        all["checks"]["run_folder"]["values"]["path"],
        run.to_str().unwrap()
    );
    let (code, text) = doctor(&[], &["--quick", "--run", below.to_str().unwrap()]);
    assert_eq!(code, 3);
    assert!(text.contains("broken  run folder"), "{text}");
}

#[test]
fn a_cuda_half_that_does_not_open_is_13_and_says_why() {
    let first = tempfile::tempdir().unwrap();
    let garbage = libtorch(first.path(), |path| {
        std::fs::write(path, "not a library\n".repeat(1000)).unwrap()
    });
    let folder = tempfile::tempdir().unwrap();
    let incomplete = libtorch(folder.path(), |path| {
        let source = path.with_file_name("half.cpp");
        std::fs::write(&source, "").unwrap();
        let build = |out: &Path, with: &[&Path]| {
            let mut command = Command::new("g++");
            command
                .args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"])
                .arg(out);
            assert!(command.arg(&source).args(with).status().unwrap().success());
        };
        // Without a folder in its name, as the real ones are needed.
        let needed = path.with_file_name("libcudnn.so.9");
        let mut command = Command::new("g++");
        command.args(["-shared", "-fPIC", "-Wl,-soname,libcudnn.so.9", "-o"]);
        assert!(command.arg(&needed).arg(&source).status().unwrap().success());
        build(path, &[&needed]);
        std::fs::remove_file(needed).unwrap();
    });
    for (lib, why) in [
        (garbage, "invalid ELF header"),
        (incomplete, "libcudnn.so.9: cannot open shared object file"),
    ] {
        let run = folder.path().to_str().unwrap();
        let (code, all) = json(&[("LD_LIBRARY_PATH", &lib)], &["--quick", "--run", run]);
        assert_eq!(code, 13);
        let cuda = &all["checks"]["cuda"];
        assert_eq!(
            (&cuda["state"], &cuda["values"]["kind"]),
            (&"broken".into(), &"unopened".into())
        );
        assert!(cuda["found"].as_str().unwrap().contains(why), "{cuda}");
        // The CPU is as well as before.
        assert_eq!(all["devices"]["cpu"]["bf16"]["state"], "ok");
    }
}

/// NVRTC compiles in a process that opened libraries as af2 does, which needs `libnvrtc-builtins` to be open before; cuDNN's
/// attention is off; and where no GPU is, that is no fault.
#[test]
#[ignore = "make test-interop"]
fn with_the_whole_cuda_set_kernels_compile_and_no_gpu_is_no_fault() {
    let lib = full_set();
    let (code, all) = json(&[("LD_LIBRARY_PATH", &lib)], &["--quick", "--run", "/tmp"]);
    let checks = &all["checks"];
    for (name, found) in [
        ("nvrtc", "compiles a kernel"),
        ("cudnn_attention", "off"),
        ("cuda_runtime", "13."),
        ("nccl", "the library is 2."),
        ("libtorch", "CUDA set"),
    ] {
        let line = &checks[name];
        assert_eq!(line["state"], "ok", "{name}: {line}");
        assert!(line["found"].as_str().unwrap().contains(found), "{name}: {line}");
    }
    if !af2::ffi::cuda::is_given_a_gpu() {
        assert_eq!(code, 0, "{all:#}");
        assert_eq!(
            (&checks["cuda"]["state"], &checks["cuda"]["values"]["kind"]),
            (&"ok".into(), &"silent".into())
        );
        assert_eq!(checks["driver"]["state"], "ok");
    }
}
