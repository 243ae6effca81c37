//! What tch does not reach: CUDA on request, libtorch's c10d, and a few kernels, through a thin C++ shim (`shim/`). The only
//! `unsafe` of the crate outside memory maps.
#![expect(
    unsafe_code,
    reason = "C functions, of which the compiler knows only what is declared"
)]

pub mod c10d;
pub(crate) mod check;
pub mod cuda;
pub mod kernels;
pub(crate) mod nvml;
pub mod openmp;

use std::ffi::{c_char, CStr};
use tch::Tensor;
use torch_sys::C_tensor;

/// Where the shim leaves its error.
type ErrorSlot = *mut *mut c_char;

extern "C" {
    fn af2_free(s: *mut c_char);
}

/// Takes a string that C++ allocated.
fn take(text: *mut c_char) -> String {
    // SAFETY: the shim's strings come from strdup, end in a zero, and are handed over once.
    unsafe {
        let own = CStr::from_ptr(text).to_string_lossy().into_owned();
        af2_free(text);
        own
    }
}

/// Calls into the shim; its error as tch's.
fn call<T>(f: impl FnOnce(ErrorSlot) -> T) -> Result<T, tch::TchError> {
    let mut error: *mut c_char = std::ptr::null_mut();
    let result = f(&mut error);
    match error.is_null() {
        true => Ok(result),
        false => Err(tch::TchError::Torch(take(error))),
    }
}

/// Ends the process now: no destructor of libtorch's may wait for ranks or devices that are lost. What of a line is not printed
/// yet is not either (`screen::close`).
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Gives back to the system what was freed: the C library keeps blocks of up to 32 MiB for later, gigabytes of them where many
/// tensors were there for a moment.
pub(crate) fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it gives free pages back and takes nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The handles behind tensors. The shim copies them and never moves or frees one.
fn handles(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(|t| t.as_ptr().cast_mut()).collect()
}

/// Sends a signal to a process of ours; one that has ended already does not mind.
pub(crate) fn signal(process: u32, signal: i32) {
    // SAFETY: a system call on two integers.
    unsafe { libc::kill(process as libc::pid_t, signal) };
}

/// Whether this process was started so that it does not hear a signal, as `nohup` does it with SIGHUP.
pub(crate) fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
    mask.is_some_and(|m| m >> (signal - 1) & 1 == 1)
}

/// A process that is told to end (SIGTERM: it saves first) when this one is gone, however that happened.
pub(crate) fn ends_with_us(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec, one system call that allocates nothing.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        })
    };
}

/// Takes the lock of an open file, which goes with it and with the process; false where another open file has it.
///
/// # Errors
/// A file system that has no locks.
pub(crate) fn try_lock(file: &std::fs::File) -> std::io::Result<bool> {
    use std::os::fd::AsRawFd;
    // SAFETY: a system call on an open file.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match std::io::Error::last_os_error() {
        e if e.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
        e => Err(e),
    }
}

/// What this program is made of, as keys and values: ranks of different ones would compute different numbers.
pub(crate) fn program() -> [(String, String); 3] {
    // All that is ours between the program and libtorch.
    let shim = [
        include_bytes!("shim/c10d.cpp").as_slice(),
        include_bytes!("shim/check.cpp"),
        include_bytes!("shim/kernels.cpp"),
        include_bytes!("shim/nccl.cpp"),
        include_bytes!("shim/common.hpp"),
    ];
    let shim = blake3::hash(&shim.concat()).to_hex();
    [
        ("program.af2".into(), env!("CARGO_PKG_VERSION").into()),
        ("program.libtorch".into(), env!("AF2_LIBTORCH").into()),
        ("program.shim".into(), shim[..16].into()),
    ]
}
