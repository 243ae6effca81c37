//! Checks that the libtorch beside us is the one tch was made for, compiles the C++ shim against it (`src/ffi/shim`), and
//! lets the binary find it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The libtorch release that tch 0.24 binds.
const WANTED: &str = "2.11.0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        stop("torch-sys did not say where libtorch lies. Run `make setup`.");
    };
    // In LIBTORCH mode torch-sys checks no version: a wrong one would fail as C++ errors, or worse, at run time.
    let version_py = lib.join("../version.py");
    match fs::read_to_string(&version_py) {
        Ok(text) => {
            let found = text
                .lines()
                .find_map(|l| l.strip_prefix("__version__ = "))
                .map(|v| v.trim_matches(|c| c == '\'' || c == '"').to_owned())
                .unwrap_or_default();
            if found.split('+').next() != Some(WANTED) {
                stop(&format!(
                    "libtorch {found} found at {}, but tch 0.24 needs {WANTED}. Run `make setup`, or point LIBTORCH at a {WANTED} folder.",
                    lib.display()
                ));
            }
        }
        // A plain libtorch archive has no version.py but a build-version file.
        Err(_) => {
            let stamp = fs::read_to_string(lib.join("../build-version")).unwrap_or_default();
            if !stamp.trim().starts_with(WANTED) {
                stop(&format!(
                    "no libtorch {WANTED} at {} (neither version.py nor build-version names it). Run `make setup`.",
                    lib.display()
                ));
            }
        }
    }
    println!("cargo:rustc-env=AF2_LIBTORCH={WANTED}");
    // A RUNPATH: cargo run, cargo test and doctests need no LD_LIBRARY_PATH, and one that is set still wins.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    shim(&lib);
}

/// The interface to c10d and to the kernels that tch lacks. NCCL's half is a shared object of its own, compiled where the
/// headers of the CUDA set lie beside torch, empty elsewhere.
fn shim(lib: &Path) {
    const SHIM: &str = "src/ffi/shim";
    println!("cargo:rerun-if-changed={SHIM}");
    let torch = lib.parent().unwrap_or(lib);
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .debug(false)
        .opt_level(1)
        .flag("-fvisibility=hidden")
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .define("USE_RPC", None)
        // As libtorch itself: some of its classes have members that only a build without it has.
        .define("NDEBUG", None)
        .include(format!("{SHIM}/stub"))
        .include(torch.join("include"))
        .include(torch.join("include/torch/csrc/api/include"));
    build
        .clone()
        .files(["c10d.cpp", "check.cpp", "kernels.cpp"].map(|f| format!("{SHIM}/{f}")))
        .compile("af2_shim");
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");

    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("libaf2_nccl.so");
    println!("cargo:rustc-env=AF2_NCCL={}", out.display());
    // torch may be a link to its place in site-packages; the nvidia wheels lie beside that.
    let nvidia = fs::canonicalize(torch).unwrap_or_default().join("../nvidia");
    let (cuda, nccl) = (nvidia.join("cu13/include"), nvidia.join("nccl/include"));
    // A file that is not there would make cargo come back each time.
    let header = [nccl.join("nccl.h"), nvidia.clone()]
        .into_iter()
        .find(|p| p.exists());
    println!(
        "cargo:rerun-if-changed={}",
        header.unwrap_or_else(|| lib.to_path_buf()).display()
    );
    let there = cuda.join("cuda_runtime_api.h").exists() && nccl.join("nccl.h").exists();
    let compiled = there && {
        let mut compiler = build
            .define("USE_C10D_NCCL", None)
            .define("USE_CUDA", None)
            .include(&cuda)
            .include(cuda.join("cccl"))
            .include(&nccl)
            .get_compiler()
            .to_command();
        let command = compiler
            .args(["-shared", &format!("{SHIM}/nccl.cpp"), "-o"])
            .arg(&out);
        command.status().is_ok_and(|s| s.success())
    };
    if !compiled {
        if there {
            println!("cargo:warning=the NCCL half did not compile: built without it; see the messages above");
        }
        if let Err(e) = fs::write(&out, []) {
            stop(&format!("{}: {e}", out.display()));
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "cargo shows what a build script that fails wrote there"
)]
fn stop(message: &str) -> ! {
    eprintln!("\naf2: {message}\n");
    std::process::exit(1);
}
