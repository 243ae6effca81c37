//! CUDA on request: one binary for machines with and without a GPU.

use super::{call, ErrorSlot};
use std::ffi::c_int;
use std::sync::OnceLock;
use tch::{Cuda, Device};

extern "C" {
    fn af2_use_device(index: c_int, err: ErrorSlot) -> c_int;
}

/// Loads `libtorch_cuda.so` when it lies beside libtorch. Must run before anything asks libtorch about CUDA:
/// libtorch keeps the first answer for the whole process. True when the library could be loaded.
pub fn load() -> bool {
    static LOADED: OnceLock<bool> = OnceLock::new();
    *LOADED.get_or_init(|| {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: loading runs the library's initialisers; this is libtorch's own registration of its CUDA kernels.
        match unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => {
                // Its kernels stay registered: it must never be unloaded.
                std::mem::forget(library);
                true
            }
            Err(_) => false,
        }
    })
}

/// The device of the rank with number `local` on this machine: its own GPU, or the CPU. A rank that was given one GPU to see
/// (`srun --gpus-per-task=1`) takes that.
pub fn device_of_rank(name: &str, local: usize) -> crate::Result<Device> {
    let given = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let local = if given.is_empty() || given.contains(',') {
        local
    } else {
        0
    };
    match device(match name {
        "cuda" => "cuda:0",
        other => other,
    })? {
        Device::Cuda(_) if name == "auto" || name == "cuda" => device(&format!("cuda:{local}")),
        Device::Cuda(_) => Err(crate::Error::recipe(
            "device",
            format!("`{name}` is one GPU, but there are several ranks"),
        )
        .hint("`cuda` gives each rank its own")),
        other => Ok(other),
    }
}

/// Makes a GPU this thread's own, on which lands what names none.
pub fn make_current(index: usize) -> Result<(), tch::TchError> {
    // SAFETY: an integer.
    call(|e| unsafe { af2_use_device(index as c_int, e) }).map(|_| ())
}

/// The device that a name asks for: `auto`, `cpu`, `cuda`, `cuda:N`.
pub fn device(name: &str) -> crate::Result<Device> {
    let wrong = |message: String| crate::Error::recipe("device", message);
    let missing = "a CUDA build of libtorch and a driver are needed; `make setup CUDA=1` installs the first";
    match name {
        "cpu" => Ok(Device::Cpu),
        // Costs 0.2 s and 235 MB only where the library is there at all.
        "auto" => Ok(if load() && Cuda::is_available() {
            Device::Cuda(0)
        } else {
            Device::Cpu
        }),
        _ => {
            let index = match name.strip_prefix("cuda") {
                Some("") => Some(0),
                Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse::<usize>().ok()),
                None => None,
            };
            let index =
                index.ok_or_else(|| wrong(format!("expected auto, cpu, cuda or cuda:N, found `{name}`")))?;
            if !load() || !Cuda::is_available() {
                return Err(
                    wrong(format!("`{name}` was asked for, but no CUDA device answers")).hint(missing),
                );
            }
            if index as i64 >= Cuda::device_count() {
                return Err(wrong(format!(
                    "`{name}`: there are {} devices",
                    Cuda::device_count()
                )));
            }
            Ok(Device::Cuda(index))
        }
    }
}
