//! GNU's OpenMP, on which libtorch and the matrix library inside it share out their work.

use std::ffi::{c_uint, c_void};

/// Lets so many threads do nothing once. They stay this thread's team, asleep, until it ends. False where libtorch came with
/// another OpenMP.
pub fn team(threads: u32) -> bool {
    type Parallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);
    extern "C" fn nothing(_: *mut c_void) {}
    // SAFETY: the name is a C string; the function, where there is one, has been GNU OpenMP's entry to a parallel region since
    // GCC 4.9: function, its argument, number of threads, flags.
    unsafe {
        let found = libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr());
        if found.is_null() {
            return false;
        }
        let parallel: Parallel = std::mem::transmute(found);
        parallel(nothing, std::ptr::null_mut(), threads, 0);
    }
    true
}
