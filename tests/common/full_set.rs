//! libtorch's full CUDA set, in the Python environment of `make test-interop`.
#![allow(clippy::expect_used, clippy::unwrap_used, unreachable_pub)]

use std::path::{Path, PathBuf};

/// The `torch/lib` of the environment.
pub fn full_set() -> PathBuf {
    let python = std::env::var_os("AF2_INTEROP_PYTHON").expect("`make test-interop` sets AF2_INTEROP_PYTHON");
    let lib = Path::new(&python).ancestors().nth(2).unwrap().join("lib");
    let versions = std::fs::read_dir(lib).unwrap().map(|f| f.unwrap().path());
    let mut torch = versions.map(|v| v.join("site-packages/torch/lib"));
    torch
        .find(|t| t.join("libtorch_cuda.so").exists())
        .expect("a full CUDA set")
}
