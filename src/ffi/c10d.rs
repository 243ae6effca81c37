//! libtorch's own c10d: the store, process groups (Gloo on CPU, NCCL on CUDA), and the Reducer.

use super::{call, handles, take, ErrorSlot};
use std::ffi::{c_char, c_int, c_void, CString};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::IntoRawFd;
use std::time::Duration;
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

type Result<T> = std::result::Result<T, TchError>;
type Handles = *const *mut C_tensor;

#[repr(C)]
struct RawStore {
    _opaque: [u8; 0],
}
#[repr(C)]
struct RawGroup {
    _opaque: [u8; 0],
}
#[repr(C)]
struct RawReducer {
    _opaque: [u8; 0],
}

extern "C" {
    fn af2_store_serve(port: c_int, listens: c_int, err: ErrorSlot) -> *mut c_void;
    fn af2_store_free(store: *mut c_void);
    fn af2_log_level(level: c_int) -> c_int;
    fn af2_store_open(
        host: *const c_char,
        port: c_int,
        is_server: c_int,
        listens: c_int,
        timeout_ms: i64,
        err: ErrorSlot,
    ) -> *mut RawStore;
    fn af2_store_close(store: *mut RawStore);
    fn af2_store_set(store: *mut RawStore, key: *const c_char, text: *const c_char, err: ErrorSlot) -> c_int;
    fn af2_store_get(store: *mut RawStore, key: *const c_char, err: ErrorSlot) -> *mut c_char;
    fn af2_group_new(
        store: *mut RawStore,
        prefix: *const c_char,
        rank: c_int,
        world: c_int,
        timeout_ms: i64,
        address: *const c_char,
        nccl: *mut c_void,
        cuda_device: c_int,
        err: ErrorSlot,
    ) -> *mut RawGroup;
    fn af2_group_free(g: *mut RawGroup);
    fn af2_group_abort(g: *mut RawGroup, err: ErrorSlot) -> c_int;
    fn af2_group_all_reduce(g: *mut RawGroup, t: Handles, n: usize, op: c_int, err: ErrorSlot) -> c_int;
    fn af2_group_broadcast(g: *mut RawGroup, t: Handles, n: usize, root: c_int, err: ErrorSlot) -> c_int;
    fn af2_group_all_gather(
        g: *mut RawGroup,
        out: *mut C_tensor,
        input: *mut C_tensor,
        err: ErrorSlot,
    ) -> c_int;
    fn af2_reducer_new(
        g: *mut RawGroup,
        params: Handles,
        names: *const *const c_char,
        n: usize,
        bucket_bytes: i64,
        err: ErrorSlot,
    ) -> *mut RawReducer;
    fn af2_reducer_free(r: *mut RawReducer);
    fn af2_reducer_before_forward(r: *mut RawReducer, err: ErrorSlot) -> c_int;
    fn af2_reducer_before_backward(r: *mut RawReducer, err: ErrorSlot) -> c_int;
}

fn text(s: &str) -> Result<CString> {
    CString::new(s).map_err(|_| TchError::Torch(format!("a zero byte in `{s:?}`")))
}

/// A TCP store on a free port of this machine, as torchrun's agent hosts one: it outlives any rank. Only this machine reaches it.
pub struct StoreServer {
    raw: *mut c_void,
    /// Where it listens.
    pub port: u16,
}

impl StoreServer {
    /// Starts one.
    ///
    /// # Errors
    /// No port that is free.
    pub fn start() -> Result<Self> {
        let (socket, port) = listening(Ipv4Addr::LOCALHOST.into(), 0)?;
        // SAFETY: two integers; the store is freed once, and the socket with it.
        let raw = call(|e| unsafe { af2_store_serve(c_int::from(port), socket, e) })?;
        Ok(StoreServer { raw, port })
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        // SAFETY: made by af2_store_serve, dropped once.
        unsafe { af2_store_free(self.raw) }
    }
}

/// A TCP store: keys and texts that all ranks see.
pub(crate) struct Store {
    raw: *mut RawStore,
}

// SAFETY: c10d's store takes one request at a time, from whichever thread.
unsafe impl Send for Store {}
unsafe impl Sync for Store {}

/// A socket that listens at one address; it belongs to whom it is given to.
fn listening(address: IpAddr, port: u16) -> Result<(c_int, u16)> {
    let wrong = |e: std::io::Error| TchError::Torch(format!("{address}, port {port}: {e}"));
    let socket = TcpListener::bind((address, port)).map_err(wrong)?;
    let port = socket.local_addr().map_err(wrong)?.port();
    Ok((socket.into_raw_fd(), port))
}

/// While it lives, c10d writes no log of its own, unless TORCH_CPP_LOG_LEVEL asks for one.
pub(crate) struct Quiet(Option<c_int>);

impl Quiet {
    #[allow(clippy::new_without_default)]
    pub(crate) fn new() -> Self {
        const FATAL: c_int = 3;
        let asked = std::env::var_os("TORCH_CPP_LOG_LEVEL").is_some();
        // SAFETY: sets an integer, and returns what it was.
        Quiet((!asked).then(|| unsafe { af2_log_level(FATAL) }))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            // SAFETY: as above.
            unsafe { af2_log_level(before) };
        }
    }
}

/// Who hosts a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    /// Another process.
    Other,
    /// This one, for all networks.
    Us,
    /// This one, for who reaches this address.
    UsAt(IpAddr),
}

impl Store {
    /// Waits for the host. Gives up after the timeout where nobody is there; but who accepts a connection and then says nothing is
    /// waited for without end.
    pub(crate) fn open(host: &str, port: u16, by: Host, timeout: Duration) -> Result<Self> {
        let host = text(host)?;
        let socket = match by {
            Host::UsAt(address) => listening(address, port)?.0,
            Host::Us | Host::Other => -1,
        };
        let serves = c_int::from(by != Host::Other);
        let (port, ms) = (c_int::from(port), timeout.as_millis() as i64);
        // SAFETY: a string that lives through the call; the store is closed once.
        let raw = call(|e| unsafe { af2_store_open(host.as_ptr(), port, serves, socket, ms, e) })?;
        Ok(Store { raw })
    }

    pub(crate) fn set(&self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (text(key)?, text(value)?);
        // SAFETY: strings that live through the call.
        call(|e| unsafe { af2_store_set(self.raw, key.as_ptr(), value.as_ptr(), e) }).map(|_| ())
    }

    /// What is there now. Has no timeout of its own: a host that is frozen is waited for.
    pub(crate) fn get(&self, key: &str) -> Result<Option<String>> {
        let key = text(key)?;
        // SAFETY: a string that lives through the call; what comes back is ours.
        let found = call(|e| unsafe { af2_store_get(self.raw, key.as_ptr(), e) })?;
        Ok((!found.is_null()).then(|| take(found)))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by af2_store_open, dropped once.
        unsafe { af2_store_close(self.raw) }
    }
}

/// Who meets in a store.
#[derive(Debug, Clone)]
pub(crate) struct Meeting {
    /// Keeps this round's keys from those of an earlier one.
    pub prefix: String,
    pub rank: usize,
    pub world: usize,
    pub timeout: Duration,
    /// The address of this machine that Gloo talks through; none for its own choice.
    pub address: Option<IpAddr>,
    /// The CUDA device of this rank: with one, NCCL reduces what lies there.
    pub cuda: Option<usize>,
}

/// How `ProcessGroup::all_reduce` joins.
#[derive(Debug, Clone, Copy)]
pub enum Reduce {
    /// Adds.
    Sum = 0,
    /// Takes the largest.
    Max = 4,
}

/// The ranks of a run. Every call but [`ProcessGroup::abort`] waits for all of them; it fails when one has died, or after the
/// timeout.
pub(crate) struct ProcessGroup {
    raw: *mut RawGroup,
    pub world: usize,
}

// SAFETY: one thread talks through it; beside that another may call `abort`, which is made for it.
unsafe impl Send for ProcessGroup {}
unsafe impl Sync for ProcessGroup {}

impl ProcessGroup {
    pub(crate) fn join(store: &Store, m: &Meeting) -> Result<Self> {
        let nccl = match m.cuda {
            Some(_) => nccl()?,
            None => std::ptr::null_mut(),
        };
        let prefix = text(&m.prefix)?;
        let address = text(&m.address.map_or(String::new(), |a| a.to_string()))?;
        let cuda = m.cuda.map_or(-1, |n| n as c_int);
        // SAFETY: a store and strings that live through the call; the group is freed once, and keeps the store itself.
        let raw = call(|e| unsafe {
            af2_group_new(
                store.raw,
                prefix.as_ptr(),
                m.rank as c_int,
                m.world as c_int,
                m.timeout.as_millis() as i64,
                address.as_ptr(),
                nccl,
                cuda,
                e,
            )
        })?;
        Ok(ProcessGroup { raw, world: m.world })
    }

    /// Joins each tensor with those of the other ranks, in place.
    pub(crate) fn all_reduce(&self, tensors: &[Tensor], how: Reduce) -> Result<()> {
        let all = handles(tensors);
        // SAFETY: live tensors.
        call(|e| unsafe { af2_group_all_reduce(self.raw, all.as_ptr(), all.len(), how as c_int, e) })
            .map(|_| ())
    }

    /// Overwrites the tensors with those of rank `root`. All on one device.
    pub(crate) fn broadcast(&self, tensors: &[Tensor], root: usize) -> Result<()> {
        let all = handles(tensors);
        if all.is_empty() {
            return Ok(());
        }
        // SAFETY: live tensors.
        call(|e| unsafe { af2_group_broadcast(self.raw, all.as_ptr(), all.len(), root as c_int, e) })
            .map(|_| ())
    }

    /// (…) of each rank → (world, …).
    pub(crate) fn all_gather(&self, tensor: &Tensor) -> Result<Tensor> {
        let flat = tensor.contiguous().view(-1);
        // Gloo wants what it writes to flat.
        let out = Tensor::empty([self.world as i64 * flat.size()[0]], (flat.kind(), flat.device()));
        // SAFETY: two live tensors, one `world` times as large.
        call(|e| unsafe {
            af2_group_all_gather(self.raw, out.as_ptr().cast_mut(), flat.as_ptr().cast_mut(), e)
        })?;
        let shape: Vec<i64> = std::iter::once(self.world as i64).chain(tensor.size()).collect();
        Ok(out.view(&shape[..]))
    }

    /// After the loss of a rank: gives up what the device still waits for. Nothing can be reduced there any more.
    pub(crate) fn abort(&self) -> Result<()> {
        // SAFETY: the group lives as long as we do.
        call(|e| unsafe { af2_group_abort(self.raw, e) }).map(|_| ())
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: made by af2_group_new, dropped once.
        unsafe { af2_group_free(self.raw) }
    }
}

/// The engine of DistributedDataParallel: averages gradients over the ranks, bucket by bucket while the backward pass
/// runs. Every weight must get a gradient in each pass that reduces.
pub(crate) struct Reducer {
    raw: *mut RawReducer,
}

impl Reducer {
    /// `named`: the same weights in the same order on every rank.
    pub(crate) fn new(group: &ProcessGroup, named: &[(String, Tensor)], bucket_bytes: i64) -> Result<Self> {
        let names = named.iter().map(|(n, _)| text(n)).collect::<Result<Vec<_>>>()?;
        let names: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
        let params: Vec<*mut C_tensor> = named.iter().map(|(_, t)| t.as_ptr().cast_mut()).collect();
        // SAFETY: live tensors and strings, as many of each; the reducer is freed once.
        let raw = call(|e| unsafe {
            let (params, names, n) = (params.as_ptr(), names.as_ptr(), params.len());
            af2_reducer_new(group.raw, params, names, n, bucket_bytes, e)
        })?;
        Ok(Reducer { raw })
    }

    /// Before the forward pass of a micro-step whose gradients are reduced.
    pub(crate) fn before_forward(&self) -> Result<()> {
        // SAFETY: the reducer lives as long as we do.
        call(|e| unsafe { af2_reducer_before_forward(self.raw, e) }).map(|_| ())
    }

    /// Between its forward and its backward pass.
    pub(crate) fn before_backward(&self) -> Result<()> {
        // SAFETY: as above.
        call(|e| unsafe { af2_reducer_before_backward(self.raw, e) }).map(|_| ())
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: made by af2_reducer_new, dropped once.
        unsafe { af2_reducer_free(self.raw) }
    }
}

/// How libtorch's own watchdog over NCCL is held back. A lost rank is found out, named and saved after by us: the watchdog would
/// end the process without a word, or give up a reduction and let the update that is queued behind it run on half of a
/// gradient. torchrun sets the first; an error of CUDA's is thrown again whatever that says, unless the fourth says not to. Behind
/// a failed reduction the watchdog sleeps four times as long as the last, with the lock that an abort needs: by default a minute, and a
/// launcher's grace is over before.
pub const WATCHDOG: [(&str, &str); 5] = [
    ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0"),
    ("TORCH_NCCL_ENABLE_MONITORING", "0"),
    ("TORCH_NCCL_DUMP_ON_TIMEOUT", "0"),
    ("TORCH_NCCL_RETHROW_CUDA_ERRORS", "0"),
    ("TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "100"),
];

/// NCCL's half, which travels inside the program; empty where its headers were not there when it was built.
static PLUGIN: &[u8] = include_bytes!(env!("AF2_NCCL"));

/// Whether this program was built with NCCL's half: ranks on GPUs need it.
pub(crate) fn has_nccl() -> bool {
    !PLUGIN.is_empty()
}

/// Whether NCCL's half finds all that it needs in the libraries that are open.
///
/// # Errors
/// Built without it, libtorch's CUDA half not open, or the loader's words.
pub(crate) fn nccl_opens() -> Result<()> {
    nccl().map(|_| ())
}

/// Opens NCCL's half from memory, so that there is no path to keep.
fn nccl() -> Result<*mut c_void> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    use std::io::Write;
    use std::os::fd::{AsRawFd, FromRawFd};
    let wrong = |what: String| TchError::Torch(format!("NCCL: {what}"));
    if PLUGIN.is_empty() {
        let why = "this program was built without its headers; `make setup CUDA=1 && make build` has them";
        return Err(wrong(why.into()));
    }
    use super::cuda::{state, State};
    for (name, value) in WATCHDOG {
        std::env::set_var(name, value);
    }
    // Its symbols are found there.
    if let State::Absent | State::Unopened(_) = state() {
        return Err(wrong("libtorch_cuda.so is not open".into()));
    }
    // SAFETY: a new file of our own, and a library that was built with this program; it is never unloaded.
    unsafe {
        let fd = libc::memfd_create(c"af2_nccl".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(wrong(std::io::Error::last_os_error().to_string()));
        }
        let mut file = std::fs::File::from_raw_fd(fd);
        file.write_all(PLUGIN).map_err(|e| wrong(e.to_string()))?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let library = Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL).map_err(|e| wrong(e.to_string()))?;
        let symbol = library
            .get::<*mut c_void>(b"af2_nccl_new\0")
            .map_err(|e| wrong(e.to_string()))?;
        let factory = symbol.into_raw();
        std::mem::forget((library, file));
        Ok(factory)
    }
}
