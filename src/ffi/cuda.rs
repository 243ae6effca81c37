//! CUDA on request: one binary for machines with and without a GPU. What is made of it is [`crate::device`]'s.

use super::{call, ErrorSlot};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{c_char, c_int, c_void, CStr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

extern "C" {
    fn af2_cuda_begin(err: ErrorSlot) -> c_int;
    fn af2_use_device(index: c_int, err: ErrorSlot) -> c_int;
    fn af2_cudnn_attention() -> c_int;
}

/// libtorch's CUDA half, beside libtorch itself.
const LIBRARY: &str = "libtorch_cuda.so";
/// What NVRTC, CUDA's compiler at run time, looks for by this name when it first compiles.
const BUILTINS: &str = "libnvrtc-builtins.so.13.0";
/// NVRTC itself, of the CUDA that libtorch 2.11 is built for.
const NVRTC: &str = "libnvrtc.so.13";
/// Whoever has set one of these has chosen how the allocator works.
const ALLOCATOR: [&str; 2] = ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"];

/// What CUDA is to this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// libtorch's CUDA half does not lie beside it: the CPU set.
    Absent,
    /// It lies there and does not open; the loader's words.
    Unopened(String),
    /// It is open, and no device answers; libtorch's words.
    Silent(String),
    /// So many devices answer.
    Answers(usize),
}

/// Opens what is there, once. Must run before anything else asks libtorch about CUDA: libtorch keeps the first answer for the
/// whole process. Costs 0.2 s and 235 MB where the CUDA half is there, and nothing elsewhere.
pub(crate) fn state() -> &'static State {
    static STATE: OnceLock<State> = OnceLock::new();
    STATE.get_or_init(|| {
        // Libtorch reads it when its CUDA half is loaded. Without it a step whose batch is a little longer than all before finds
        // the memory in pieces of which none is large enough.
        if ALLOCATOR.iter().all(|name| std::env::var_os(name).is_none()) {
            std::env::set_var(ALLOCATOR[0], "expandable_segments:True");
        }
        // Before the CUDA half, as Python's torch does it: cuDNN and libtorch compile kernels by NVRTC, which has no path to them.
        let builtins = beside_libtorch(BUILTINS).unwrap_or(BUILTINS.into());
        let _ = open(&builtins);
        match open(Path::new(LIBRARY)) {
            Err(why) if why.starts_with(&format!("{LIBRARY}: cannot open shared object file")) => {
                State::Absent
            }
            Err(why) => State::Unopened(why),
            // SAFETY: asks libtorch for its devices.
            Ok(()) => match call(|e| unsafe { af2_cuda_begin(e) }) {
                Ok(devices) if devices > 0 => State::Answers(devices as usize),
                Ok(_) => State::Silent("no device is there".into()),
                Err(e) => State::Silent(reason(&e)),
            },
        }
    })
}

/// Opens a library for good: kernels and tables of others stay registered.
fn open(path: &Path) -> Result<(), String> {
    // SAFETY: loading runs the library's initialisers: libtorch's registration of its CUDA kernels, or tables of NVIDIA's.
    match unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(e) => Err(words(&e)),
    }
}

/// The sentences of libtorch's that say what is wrong, without what it appends for its own developers.
fn reason(error: &tch::TchError) -> String {
    let text = match error {
        tch::TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    };
    let lines = text.lines().take_while(|l| !l.starts_with("Exception raised"));
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// The folder that this process has libtorch from.
pub fn libtorch() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|l| l.ends_with("/libtorch_cpu.so"))?;
    let path = Path::new(&line[line.find('/')?..]);
    path.parent().map(Path::to_path_buf)
}

/// A library of CUDA's in libtorch's own folder (its archive) or in those of NVIDIA's wheels beside it.
fn beside_libtorch(name: &str) -> Option<PathBuf> {
    let lib = libtorch()?;
    let nvidia = lib.join("../../nvidia");
    let wheels = std::fs::read_dir(nvidia).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = wheels.map(|f| f.path().join("lib")).collect();
    folders.sort();
    folders.insert(0, lib);
    folders.into_iter().map(|f| f.join(name)).find(|p| p.exists())
}

/// Makes a GPU this thread's own, on which lands what names none: CUDA otherwise sets up the first one too.
///
/// # Errors
/// A device that is not there, or does not answer any more.
pub(crate) fn make_current(index: usize) -> Result<(), tch::TchError> {
    // SAFETY: an integer.
    call(|e| unsafe { af2_use_device(index as c_int, e) }).map(|_| ())
}

/// Whether libtorch may take cuDNN's kernels for attention. Not after [`state`]: with a mask their backward pass was reported to
/// give NaN at some lengths (pytorch issue 196678).
pub(crate) fn cudnn_attention() -> bool {
    // SAFETY: reads a switch.
    unsafe { af2_cudnn_attention() != 0 }
}

/// Compiles a kernel of one line by NVRTC, which needs no device: what cuDNN and libtorch's own fused kernels will ask of it.
///
/// # Errors
/// NVRTC's words, or the loader's.
pub(crate) fn nvrtc() -> Result<(), String> {
    type Program = *mut c_void;
    type Strings = *const *const c_char;
    type Create =
        unsafe extern "C" fn(*mut Program, *const c_char, *const c_char, c_int, Strings, Strings) -> c_int;
    type Compile = unsafe extern "C" fn(Program, c_int, Strings) -> c_int;
    type Words = unsafe extern "C" fn(c_int) -> *const c_char;
    type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;
    state();
    let path = beside_libtorch(NVRTC).unwrap_or(NVRTC.into());
    let missing = |e: libloading::Error| e.to_string();
    // SAFETY: the names and types are of nvrtc.h, CUDA 13; strings that live through the calls; the program is destroyed once.
    unsafe {
        let library = Library::open(Some(path), RTLD_NOW).map_err(missing)?;
        let create = library.get::<Create>(b"nvrtcCreateProgram\0").map_err(missing)?;
        let compile = library
            .get::<Compile>(b"nvrtcCompileProgram\0")
            .map_err(missing)?;
        let words = library.get::<Words>(b"nvrtcGetErrorString\0").map_err(missing)?;
        let destroy = library
            .get::<Destroy>(b"nvrtcDestroyProgram\0")
            .map_err(missing)?;
        let source = c"extern \"C\" __global__ void twice(float *x) { x[threadIdx.x] *= 2.0f; }";
        let mut program: Program = std::ptr::null_mut();
        let none = std::ptr::null();
        let mut code = create(&mut program, source.as_ptr(), c"twice.cu".as_ptr(), 0, none, none);
        if code == 0 {
            let options = [c"--gpu-architecture=compute_90".as_ptr()];
            code = compile(program, 1, options.as_ptr());
            destroy(&mut program);
        }
        match code {
            0 => Ok(()),
            code => Err(CStr::from_ptr(words(code)).to_string_lossy().into_owned()),
        }
    }
}

/// The version of the driver's kernel module, as it says itself; none where there is no driver.
pub(crate) fn driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let line = text.lines().find(|l| l.contains("NVRM"))?;
    let number = |w: &&str| w.contains('.') && w.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(number).map(str::to_owned)
}

/// Whether this process may open a GPU: its file is there, and neither its permissions nor the control group of a job without
/// GPUs stand before it. Opens nothing: that can take seconds.
pub fn is_given_a_gpu() -> bool {
    let all = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    all.map(|f| f.path()).filter(|p| is_gpu(p)).any(|p| {
        use std::os::unix::ffi::OsStrExt;
        std::ffi::CString::new(p.as_os_str().as_bytes()).is_ok_and(|path| {
            // SAFETY: a string that lives through the call.
            unsafe { libc::access(path.as_ptr(), libc::R_OK | libc::W_OK) == 0 }
        })
    })
}

/// `/dev/nvidia0` and its kin, not `/dev/nvidiactl`.
fn is_gpu(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str());
    let number = name.and_then(|n| n.strip_prefix("nvidia"));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// The loader's own words; libloading's are around them.
pub(super) fn words(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    source.unwrap_or_else(|| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtorch_lies_where_it_was_loaded_from() {
        // Something of libtorch's must be used for it to be loaded at all.
        let _ = tch::get_num_threads();
        assert!(libtorch().unwrap().join("libtorch_cpu.so").exists());
    }

    #[test]
    fn gpus_are_told_from_other_files_of_the_driver() {
        for (name, gpu) in [
            ("nvidia0", true),
            ("nvidia12", true),
            ("nvidiactl", false),
            ("nvidia-uvm", false),
        ] {
            assert_eq!(is_gpu(&Path::new("/dev").join(name)), gpu, "{name}");
        }
    }

    #[test]
    fn words_for_developers_are_left_out() {
        let error =
            "Found no NVIDIA driver on your system. Please check.\nException raised from x at y.cpp:1";
        let words = reason(&tch::TchError::Torch(error.into()));
        assert_eq!(words, "Found no NVIDIA driver on your system. Please check.");
    }
}
