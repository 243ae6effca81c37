//! What NVIDIA's own libraries say of the GPUs and of themselves. Opened by name where they are there; nothing is linked. Of each
//! function the name and type are those of NVIDIA's headers (`nvml.h`, `cuda.h`, `cuda_runtime_api.h`, `nccl.h`), which keep them.

use super::cuda::{self, words};
use libloading::os::unix::{Library, Symbol, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void, CStr};
use std::path::Path;

/// The driver's library of management. Not every container has it.
const NVML: &str = "libnvidia-ml.so.1";
/// The driver's half of CUDA.
const DRIVER: &str = "libcuda.so.1";
/// CUDA's half, of the set that libtorch 2.11 is built for.
const RUNTIME: &str = "libcudart.so.13";
const NCCL: &str = "libnccl.so.2";

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpu {
    pub name: String,
    /// Compute capability, such as (9, 0) of an H100.
    pub capability: Option<(i32, i32)>,
    pub memory: Option<Memory>,
}

/// Bytes of a GPU's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub total: u64,
    /// What no process has.
    pub free: u64,
}

/// All GPUs that the driver shows, in its own order, whether CUDA answers or not.
///
/// # Errors
/// The loader's words, or NVML's number.
pub(crate) fn cards() -> Result<Vec<Gpu>, String> {
    cards_by(Path::new(NVML))
}

fn cards_by(library: &Path) -> Result<Vec<Gpu>, String> {
    type Device = *mut c_void;
    #[repr(C)]
    #[derive(Default)]
    struct Bytes {
        total: c_ulonglong,
        free: c_ulonglong,
        used: c_ulonglong,
    }
    // SAFETY: types are NVML's; whatever it writes to lives through the call and is as large as it is told.
    unsafe {
        let library = open(library)?;
        let init: Symbol<unsafe extern "C" fn() -> c_int> = find(&library, c"nvmlInit_v2")?;
        let end: Symbol<unsafe extern "C" fn() -> c_int> = find(&library, c"nvmlShutdown")?;
        let count: Symbol<unsafe extern "C" fn(*mut c_uint) -> c_int> =
            find(&library, c"nvmlDeviceGetCount_v2")?;
        let handle: Symbol<unsafe extern "C" fn(c_uint, *mut Device) -> c_int> =
            find(&library, c"nvmlDeviceGetHandleByIndex_v2")?;
        let name: Symbol<unsafe extern "C" fn(Device, *mut c_char, c_uint) -> c_int> =
            find(&library, c"nvmlDeviceGetName")?;
        let memory: Symbol<unsafe extern "C" fn(Device, *mut Bytes) -> c_int> =
            find(&library, c"nvmlDeviceGetMemoryInfo")?;
        let capability: Symbol<unsafe extern "C" fn(Device, *mut c_int, *mut c_int) -> c_int> =
            find(&library, c"nvmlDeviceGetCudaComputeCapability")?;
        good("nvmlInit", init())?;
        let mut n = 0;
        let counted = good("nvmlDeviceGetCount", count(&mut n));
        let mut cards = Vec::new();
        for index in 0..n {
            let mut device = std::ptr::null_mut();
            if handle(index, &mut device) != 0 {
                continue;
            }
            let named = text(|at, size| name(device, at, size as c_uint));
            let (mut bytes, mut major, mut minor) = (Bytes::default(), 0, 0);
            cards.push(Gpu {
                name: named.unwrap_or_else(|_| "a GPU without a name".into()),
                memory: (memory(device, &mut bytes) == 0).then_some(Memory {
                    total: bytes.total,
                    free: bytes.free,
                }),
                capability: (capability(device, &mut major, &mut minor) == 0).then_some((major, minor)),
            });
        }
        end();
        counted.map(|()| cards)
    }
}

/// A GPU by CUDA's number, which counts what CUDA_VISIBLE_DEVICES leaves. Only where [`cuda::state`] answers. Makes it this
/// thread's own, which takes it some memory.
///
/// # Errors
/// The loader's words, CUDA's number, libtorch's words.
pub(crate) fn of_cuda(index: usize) -> Result<Gpu, String> {
    let mut gpu = by_driver(Path::new(DRIVER), index)?;
    cuda::make_current(index).map_err(|e| e.to_string())?;
    // SAFETY: the type is the runtime's; two integers that live through the call.
    unsafe {
        let library = opened(RUNTIME).ok_or("libcudart.so.13 is not open")?;
        let memory: Symbol<unsafe extern "C" fn(*mut usize, *mut usize) -> c_int> =
            find(&library, c"cudaMemGetInfo")?;
        let (mut free, mut total) = (0, 0);
        good("cudaMemGetInfo", memory(&mut free, &mut total))?;
        gpu.memory = Some(Memory {
            total: total as u64,
            free: free as u64,
        });
    }
    Ok(gpu)
}

/// Name, capability and all memory of a GPU, without setting it up: what is free is not known so.
fn by_driver(library: &Path, index: usize) -> Result<Gpu, String> {
    /// CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
    const CAPABILITY: [c_int; 2] = [75, 76];
    // SAFETY: types are the driver's; whatever it writes to lives through the call and is as large as it is told.
    unsafe {
        let library = open(library)?;
        let init: Symbol<unsafe extern "C" fn(c_uint) -> c_int> = find(&library, c"cuInit")?;
        let get: Symbol<unsafe extern "C" fn(*mut c_int, c_int) -> c_int> = find(&library, c"cuDeviceGet")?;
        let name: Symbol<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int> =
            find(&library, c"cuDeviceGetName")?;
        let attribute: Symbol<unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int> =
            find(&library, c"cuDeviceGetAttribute")?;
        good("cuInit", init(0))?;
        let mut device = 0;
        good("cuDeviceGet", get(&mut device, index as c_int))?;
        let mut capability = [0; 2];
        for (value, which) in capability.iter_mut().zip(CAPABILITY) {
            good("cuDeviceGetAttribute", attribute(value, which, device))?;
        }
        Ok(Gpu {
            name: text(|at, size| name(at, size as c_int, device))?,
            capability: Some((capability[0], capability[1])),
            memory: None,
        })
    }
}

/// The version of CUDA's runtime that this process has open, such as (13, 0).
pub(crate) fn cuda_runtime() -> Option<(i32, i32)> {
    asked(RUNTIME, c"cudaRuntimeGetVersion").map(|v| (v / 1000, v % 1000 / 10))
}

/// The newest CUDA that the driver knows, as the runtime that is open says; none without a driver.
pub(crate) fn cuda_of_driver() -> Option<(i32, i32)> {
    let version = asked(RUNTIME, c"cudaDriverGetVersion").filter(|v| *v > 0);
    version.map(|v| (v / 1000, v % 1000 / 10))
}

/// The version of NCCL that this process has open, such as 2.28.9.
pub(crate) fn nccl() -> Option<String> {
    asked(NCCL, c"ncclGetVersion").map(nccl_words)
}

/// NCCL_VERSION's rule since 2.9.
fn nccl_words(version: c_int) -> String {
    format!(
        "{}.{}.{}",
        version / 10_000,
        version % 10_000 / 100,
        version % 100
    )
}

/// What a function that says one number says.
fn asked(library: &str, name: &CStr) -> Option<c_int> {
    let library = opened(library)?;
    let mut value = 0;
    // SAFETY: each of the three asked so writes an int and returns 0.
    unsafe {
        let function: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> = find(&library, name).ok()?;
        (function(&mut value) == 0).then_some(value)
    }
}

/// A library that is open already; nothing is loaded.
fn opened(name: &str) -> Option<Library> {
    // SAFETY: no initialiser runs.
    unsafe { Library::open(Some(name), RTLD_NOW | libc::RTLD_NOLOAD).ok() }
}

/// Opens a library of the driver's, for good: it has threads of its own.
///
/// # Safety
/// Its initialisers run.
unsafe fn open(path: &Path) -> Result<std::mem::ManuallyDrop<Library>, String> {
    let library = Library::open(Some(path), RTLD_NOW | RTLD_LOCAL).map_err(|e| words(&e))?;
    Ok(std::mem::ManuallyDrop::new(library))
}

/// # Safety
/// The type must be the function's.
unsafe fn find<T>(library: &Library, name: &CStr) -> Result<Symbol<T>, String> {
    library.get(name.to_bytes_with_nul()).map_err(|e| words(&e))
}

fn good(what: &str, code: c_int) -> Result<(), String> {
    match code {
        0 => Ok(()),
        code => Err(format!("{what} says {code}")),
    }
}

/// The text that a function writes into so many bytes.
fn text(write: impl FnOnce(*mut c_char, usize) -> c_int) -> Result<String, String> {
    let mut bytes = [0u8; 256];
    // One less, so that a zero stands behind it whatever happens.
    good("a GPU's name", write(bytes.as_mut_ptr().cast(), bytes.len() - 1))?;
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(0);
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A driver as its headers say it is, of two GPUs of which one does not tell its memory.
    const DRIVER: &str = r#"
        #include <string.h>
        typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
        extern "C" {
        static int begun = 0;
        static int one = 1, two = 2;
        int nvmlInit_v2(void) { begun++; return 0; }
        int nvmlShutdown(void) { begun--; return 0; }
        int nvmlDeviceGetCount_v2(unsigned int* n) { *n = 3; return begun == 1 ? 0 : 1; }
        int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void** d) { *d = i ? &two : &one; return i == 2 ? 15 : 0; }
        int nvmlDeviceGetName(void* d, char* name, unsigned int n) {
            strncpy(name, d == &one ? "NVIDIA H100 80GB HBM3" : "NVIDIA A100-SXM4-80GB", n); return 0; }
        int nvmlDeviceGetMemoryInfo(void* d, nvmlMemory_t* m) {
            m->total = 85520809984ull; m->free = 84980793344ull; m->used = 540016640ull; return d == &one ? 0 : 3; }
        int nvmlDeviceGetCudaComputeCapability(void* d, int* major, int* minor) {
            *major = d == &one ? 9 : 8; *minor = 0; return 0; }
        int cuInit(unsigned int flags) { return flags; }
        int cuDeviceGet(int* d, int i) { *d = i + 40; return i > 1 ? 101 : 0; }
        int cuDeviceGetName(char* name, int n, int d) { memset(name, 'x', n); return d == 40 ? 0 : 1; }
        int cuDeviceGetAttribute(int* v, int what, int d) { *v = what == 75 ? 12 : what == 76 ? 1 : -1; return 0; }
        }
    "#;

    #[test]
    fn a_driver_as_its_headers_say_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let [source, library] = ["driver.cpp", "libdriver.so"].map(|n| folder.path().join(n));
        std::fs::write(&source, DRIVER).unwrap();
        let made = Command::new("g++")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status();
        assert!(made.unwrap().success());
        let h100 = Gpu {
            name: "NVIDIA H100 80GB HBM3".into(),
            capability: Some((9, 0)),
            memory: Some(Memory {
                total: 85_520_809_984,
                free: 84_980_793_344,
            }),
        };
        let a100 = Gpu {
            name: "NVIDIA A100-SXM4-80GB".into(),
            capability: Some((8, 0)),
            memory: None,
        };
        // Twice: what was begun was ended. The third does not answer and is left out.
        for _ in 0..2 {
            assert_eq!(cards_by(&library).unwrap(), [h100.clone(), a100.clone()]);
        }
        let gpu = by_driver(&library, 0).unwrap();
        assert_eq!(gpu.capability, Some((12, 1)));
        // A name without an end is cut.
        assert_eq!(gpu.name, "x".repeat(255));
        assert!(by_driver(&library, 1).unwrap_err().contains("says 1"));
        assert!(by_driver(&library, 2)
            .unwrap_err()
            .contains("cuDeviceGet says 101"));
    }

    #[test]
    fn what_is_not_there_is_said_in_the_loaders_words() {
        let e = cards_by(Path::new("/nowhere/libnvidia-ml.so.1")).unwrap_err();
        assert!(e.contains("libnvidia-ml.so.1: cannot open"), "{e}");
        // A library, but not NVML.
        let e = cards_by(Path::new("libc.so.6")).unwrap_err();
        assert!(e.contains("nvmlInit_v2"), "{e}");
    }

    #[test]
    fn versions_are_read_as_their_makers_write_them() {
        assert_eq!(nccl_words(22_809), "2.28.9");
        assert_eq!(nccl_words(21_805), "2.18.5");
    }
}
