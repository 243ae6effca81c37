//! Kernels and switches of libtorch that tch lacks.

use super::{call, handles, ErrorSlot};
use std::ffi::{c_int, c_void, CString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, TchError, Tensor};
use torch_sys::C_tensor;

type Handles = *const *mut C_tensor;
type Forward = extern "C" fn(*mut c_void, Handles, usize, *mut *mut C_tensor, ErrorSlot) -> c_int;

extern "C" {
    fn af2_checkpoint(
        forward: Forward,
        drop: extern "C" fn(*mut c_void),
        env: *mut c_void,
        inputs: Handles,
        n: usize,
        err: ErrorSlot,
    ) -> *mut C_tensor;
    fn af2_grad_enabled() -> c_int;
    fn af2_fused_adamw(
        p: Handles,
        g: Handles,
        m: Handles,
        v: Handles,
        step: Handles,
        n: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        decay: f64,
        eps: f64,
        found_inf: *mut C_tensor,
        err: ErrorSlot,
    ) -> c_int;
    fn af2_total_norm(g: Handles, n: usize, err: ErrorSlot) -> *mut C_tensor;
    fn af2_foreach_mul(g: Handles, n: usize, by: *mut C_tensor, err: ErrorSlot) -> c_int;
    fn af2_forget_grads(p: Handles, n: usize, err: ErrorSlot) -> c_int;
    fn af2_foreach_zero(g: Handles, n: usize, err: ErrorSlot) -> c_int;
    fn af2_autocast(device: c_int, on: c_int, dtype: c_int, err: ErrorSlot) -> c_int;
    fn af2_allow_tf32(on: c_int, err: ErrorSlot) -> c_int;
    fn af2_tf32(err: ErrorSlot) -> c_int;
    fn af2_rng_state(index: c_int, err: ErrorSlot) -> *mut C_tensor;
    fn af2_set_rng_state(index: c_int, state: *mut C_tensor, err: ErrorSlot) -> c_int;
    fn af2_page_locked_copy(from: *mut C_tensor, err: ErrorSlot) -> *mut C_tensor;
    fn af2_mark(index: c_int, err: ErrorSlot) -> *mut c_void;
    fn af2_mark_reached(mark: *mut c_void, err: ErrorSlot) -> c_int;
    fn af2_mark_free(mark: *mut c_void);
    fn af2_pinned(t: *mut C_tensor, err: ErrorSlot) -> *mut C_tensor;
    fn af2_deterministic(err: ErrorSlot) -> c_int;
    fn af2_is_deterministic() -> c_int;
    fn af2_device_memory(index: c_int, now: *mut i64, peak: *mut i64, err: ErrorSlot) -> c_int;
}

/// c10's own numbers.
const BFLOAT16: c_int = 15;

fn device_type(device: Device) -> c_int {
    match device {
        Device::Cuda(_) => 1,
        _ => 0,
    }
}

fn index(device: Device) -> c_int {
    match device {
        Device::Cuda(n) => n as c_int,
        _ => -1,
    }
}

/// A tensor that the shim made for us.
fn owned(raw: *mut C_tensor) -> Tensor {
    // SAFETY: a new at::Tensor whose only owner we are; `call` has seen that there was no error.
    unsafe { Tensor::from_ptr(raw) }
}

type Block = Box<dyn Fn(&[Tensor]) -> Tensor + Send>;

extern "C" fn run(
    env: *mut c_void,
    inputs: Handles,
    n: usize,
    out: *mut *mut C_tensor,
    why: ErrorSlot,
) -> c_int {
    // SAFETY: `env` is the Block that `recompute` gave away, alive until `forget`; `inputs` are n live tensors.
    let (block, inputs): (&Block, Vec<Tensor>) = unsafe {
        let block = &*env.cast::<Block>();
        let inputs = (0..n).map(|i| Tensor::clone_from_ptr(*inputs.add(i)));
        (block, inputs.collect())
    };
    // No panic may cross C++.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| block(&inputs))) {
        Ok(mut tensor) => {
            // SAFETY: the shim takes the tensor over; ours is forgotten, not dropped.
            unsafe { *out = tensor.as_mut_ptr() };
            std::mem::forget(tensor);
            0
        }
        Err(payload) => {
            let text = CString::new(crate::panics::words(&*payload)).unwrap_or_default();
            // SAFETY: a place for one string, which the shim frees.
            unsafe { *why = libc::strdup(text.as_ptr()) };
            1
        }
    }
}

extern "C" fn forget(env: *mut c_void) {
    // SAFETY: called once, by the last owner, with what Box::into_raw gave.
    drop(unsafe { Box::from_raw(env.cast::<Block>()) });
}

/// Activation checkpointing: runs `block` without keeping what it computes between, and again when the gradient comes,
/// with the same random numbers and the same autocast. Where no gradient can flow through `inputs`, or none is wanted,
/// it runs once and plainly.
///
/// Weights that other blocks use too must be among `inputs`: those that the closure holds get their gradient when this block's
/// backward pass ends.
///
/// # Panics
/// Where libtorch refuses an operation, as tch's own operations do.
pub fn recompute(inputs: &[Tensor], block: impl Fn(&[Tensor]) -> Tensor + Send + 'static) -> Tensor {
    // SAFETY: reads a switch of this thread.
    let wanted = unsafe { af2_grad_enabled() } != 0;
    if !wanted || !inputs.iter().any(Tensor::requires_grad) {
        return block(inputs);
    }
    let env = Box::into_raw(Box::new(Box::new(block) as Block)).cast::<c_void>();
    let all = handles(inputs);
    // SAFETY: the handles live through the call; the shim owns `env` and drops it once.
    match call(|e| unsafe { af2_checkpoint(run, forget, env, all.as_ptr(), all.len(), e) }) {
        Ok(made) => owned(made),
        #[expect(
            clippy::panic,
            reason = "what tch's own operations do, between which it stands"
        )]
        Err(e) => panic!("{e}"),
    }
}

/// A part of a model that blocks hold while their graph lives. On a GPU the backward pass runs them on a thread of
/// autograd's own, which may also be the last to let go of one: one thread at a time may use what is in here.
///
/// What may not go to another thread may not go there in here:
///
/// ```compile_fail
/// fn sent<T: Send>(_: T) {}
/// sent(af2::ffi::kernels::Shared::new(std::rc::Rc::new(1)));
/// ```
pub struct Shared<T>(Arc<Mutex<T>>);

impl<T> Shared<T> {
    pub(crate) fn new(part: T) -> Self {
        Shared(Arc::new(Mutex::new(part)))
    }

    /// The part, for this thread alone while the guard lives. Not to be asked for twice at once by one thread.
    pub fn get(&self) -> MutexGuard<'_, T> {
        // A block that panicked has changed nothing: what is in here is only read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

/// A mark behind everything that was queued on a CUDA device so far.
pub(crate) struct Mark(*mut c_void);

// SAFETY: an event of CUDA's, which any thread may ask.
unsafe impl Send for Mark {}

impl Mark {
    /// None on a CPU, which has done what it was told.
    pub(crate) fn behind(device: Device) -> Result<Option<Self>, TchError> {
        match device {
            // SAFETY: returns a new event.
            Device::Cuda(_) => call(|e| unsafe { af2_mark(index(device), e) }).map(|m| Some(Mark(m))),
            _ => Ok(None),
        }
    }

    /// Whether the device has come to it. Does not wait.
    pub(crate) fn reached(&self) -> Result<bool, TchError> {
        // SAFETY: the event lives as long as we do.
        call(|e| unsafe { af2_mark_reached(self.0, e) }).map(|r| r == 1)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: made by af2_mark, dropped once.
        unsafe { af2_mark_free(self.0) }
    }
}

/// What the fused AdamW works on: as many of each.
#[derive(Default)]
pub(crate) struct AdamWeights {
    pub params: Vec<Tensor>,
    pub grads: Vec<Tensor>,
    pub exp_avg: Vec<Tensor>,
    pub exp_avg_sq: Vec<Tensor>,
    /// One float each, on the weight's device.
    pub steps: Vec<Tensor>,
}

/// One fused AdamW step. With `found_inf` (one float on the device) at 1 nothing changes.
pub(crate) fn fused_adamw(
    w: &AdamWeights,
    learning_rate: f64,
    (beta1, beta2): (f64, f64),
    decay: f64,
    eps: f64,
    found_inf: &Tensor,
) -> Result<(), TchError> {
    if w.params.is_empty() {
        return Ok(());
    }
    let [p, g, m, v, s] = [&w.params, &w.grads, &w.exp_avg, &w.exp_avg_sq, &w.steps].map(|t| handles(t));
    // SAFETY: five lists of live tensors of one length.
    call(|e| unsafe {
        af2_fused_adamw(
            p.as_ptr(),
            g.as_ptr(),
            m.as_ptr(),
            v.as_ptr(),
            s.as_ptr(),
            p.len(),
            learning_rate,
            beta1,
            beta2,
            decay,
            eps,
            found_inf.as_ptr().cast_mut(),
            e,
        )
    })
    .map(|_| ())
}

/// The joint norm of tensors on one device, there (float32). Not of none.
pub(crate) fn total_norm(tensors: &[Tensor]) -> Result<Tensor, TchError> {
    let all = handles(tensors);
    // SAFETY: live tensors.
    call(|e| unsafe { af2_total_norm(all.as_ptr(), all.len(), e) }).map(owned)
}

/// Multiplies all by a scalar tensor.
pub(crate) fn foreach_mul(tensors: &[Tensor], by: &Tensor) -> Result<(), TchError> {
    if tensors.is_empty() {
        return Ok(());
    }
    let all = handles(tensors);
    // SAFETY: live tensors.
    call(|e| unsafe { af2_foreach_mul(all.as_ptr(), all.len(), by.as_ptr().cast_mut(), e) }).map(|_| ())
}

/// Forgets the gradients of weights: their memory is free until the next backward pass, which need not add to anything.
pub(crate) fn forget_grads(params: &[Tensor]) -> Result<(), TchError> {
    let all = handles(params);
    // SAFETY: live tensors.
    call(|e| unsafe { af2_forget_grads(all.as_ptr(), all.len(), e) }).map(|_| ())
}

/// Sets all to zero in place.
pub(crate) fn foreach_zero(tensors: &[Tensor]) -> Result<(), TchError> {
    if tensors.is_empty() {
        return Ok(());
    }
    let all = handles(tensors);
    // SAFETY: live tensors.
    call(|e| unsafe { af2_foreach_zero(all.as_ptr(), all.len(), e) }).map(|_| ())
}

/// Runs `f` under bf16 autocast of the device's kind.
pub fn autocast_bf16<T>(device: Device, f: impl FnOnce() -> T) -> Result<T, TchError> {
    struct Off(c_int);
    impl Drop for Off {
        fn drop(&mut self) {
            // SAFETY: a switch of this thread.
            let _ = call(|e| unsafe { af2_autocast(self.0, 0, BFLOAT16, e) });
        }
    }
    let kind = device_type(device);
    // SAFETY: a switch of this thread.
    call(|e| unsafe { af2_autocast(kind, 1, BFLOAT16, e) })?;
    let _off = Off(kind);
    Ok(f())
}

/// TensorFloat-32 for this process: whether CUDA may compute fp32 matrix products and convolutions with 10 bits of mantissa, much
/// faster. libtorch's own default is products without it and convolutions with it.
pub fn allow_tf32(on: bool) -> Result<(), TchError> {
    // SAFETY: switches.
    call(|e| unsafe { af2_allow_tf32(c_int::from(on), e) }).map(|_| ())
}

/// Whether matrix products and convolutions may be TensorFloat-32 now.
pub fn tf32() -> Result<(bool, bool), TchError> {
    // SAFETY: reads switches.
    let both = call(|e| unsafe { af2_tf32(e) })?;
    Ok((both & 1 != 0, both & 2 != 0))
}

/// The state of the device's random numbers, as bytes on the CPU.
pub fn rng_state(device: Device) -> Result<Tensor, TchError> {
    // SAFETY: returns a new tensor.
    call(|e| unsafe { af2_rng_state(index(device), e) }).map(owned)
}

/// Gives back what [`rng_state`] saved. A state of another kind of device is refused.
pub fn set_rng_state(device: Device, state: &Tensor) -> Result<(), TchError> {
    let state = state.to_device(Device::Cpu).to_kind(Kind::Uint8).contiguous();
    // SAFETY: a live tensor, which the generator copies after checking its size.
    call(|e| unsafe { af2_set_rng_state(index(device), state.as_ptr().cast_mut(), e) }).map(|_| ())
}

/// A copy of a CPU tensor in page-locked memory, from which a GPU reads while the host goes on. Needs CUDA. tch's own
/// `pin_memory` names a device, of which libtorch warns at each call.
///
/// # Errors
/// No CUDA; no room that may be locked.
pub(crate) fn pinned(tensor: &Tensor) -> Result<Tensor, TchError> {
    // SAFETY: a live tensor; returns a new one.
    call(|e| unsafe { af2_pinned(tensor.as_ptr().cast_mut(), e) }).map(owned)
}

/// For the rest of this process: kernels that give the same bits each time, where libtorch has them. It warns of those that do not.
///
/// # Errors
/// None that is known.
pub fn deterministic() -> Result<(), TchError> {
    // cuBLAS, too, wants its work space fixed; it is asked when its first product is made.
    if std::env::var_os(CUBLAS_SPACE).is_none() {
        std::env::set_var(CUBLAS_SPACE, ":4096:8");
    }
    // SAFETY: switches.
    call(|e| unsafe { af2_deterministic(e) }).map(|_| ())
}

/// Whether [`deterministic`] was asked for.
pub fn is_deterministic() -> bool {
    // SAFETY: reads switches.
    unsafe { af2_is_deterministic() != 0 }
}

const CUBLAS_SPACE: &str = "CUBLAS_WORKSPACE_CONFIG";

/// A copy of a GPU's tensor in page-locked memory, contiguous, which the device makes while this thread goes on: to be read only
/// when what was queued there is done.
///
/// # Errors
/// No such memory, or no accelerator.
pub(crate) fn page_locked_copy(tensor: &Tensor) -> Result<Tensor, TchError> {
    // SAFETY: a live tensor; returns a new one.
    call(|e| unsafe { af2_page_locked_copy(tensor.as_ptr().cast_mut(), e) }).map(owned)
}

/// Bytes that tensors take on a CUDA device: now, and at most so far.
pub fn device_memory(device: Device) -> Result<(i64, i64), TchError> {
    let (mut now, mut peak) = (0, 0);
    // SAFETY: two integers to write to.
    call(|e| unsafe { af2_device_memory(index(device), &mut now, &mut peak, e) })?;
    Ok((now, peak))
}

/// libtorch's meta device, which knows shapes and no numbers: what would be left on the CPU of a GPU's tensors shows there.
#[cfg(test)]
pub(crate) mod meta {
    use super::*;

    extern "C" {
        fn af2_meta(t: *mut C_tensor, err: ErrorSlot) -> *mut C_tensor;
        fn af2_is_meta(t: *mut C_tensor) -> c_int;
    }

    pub(crate) fn on_meta(tensor: &Tensor) -> Tensor {
        // SAFETY: a live tensor; returns a new one.
        owned(call(|e| unsafe { af2_meta(tensor.as_ptr().cast_mut(), e) }).unwrap())
    }

    pub(crate) fn is_meta(tensor: &Tensor) -> bool {
        // SAFETY: a live tensor.
        unsafe { af2_is_meta(tensor.as_ptr().cast_mut()) != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_its_autocast_when_it_runs_again() {
        let x = Tensor::randn([8, 64], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let w = Tensor::randn([64, 64], (Kind::Float, Device::Cpu));
        let kinds = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = kinds.clone();
        let y = autocast_bf16(Device::Cpu, || {
            recompute(&[x.shallow_clone()], move |t| {
                let y = t[0].matmul(&w);
                seen.lock().unwrap().push(y.kind());
                y
            })
        });
        y.unwrap().sum(Kind::Float).backward();
        assert_eq!(*kinds.lock().unwrap(), [Kind::BFloat16; 2]);
        assert_eq!(x.matmul(&x.tr()).kind(), Kind::Float);
    }

    #[test]
    fn two_threads_lose_no_update_of_what_they_share() {
        let counter = Shared::new(std::cell::Cell::new(0u32));
        let threads = [0; 2].map(|_| {
            let own = counter.clone();
            std::thread::spawn(move || {
                for _ in 0..100_000 {
                    let cell = own.get();
                    cell.set(cell.get() + 1);
                }
            })
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(counter.get().get(), 200_000);
    }

    #[test]
    fn a_block_that_fails_says_why() {
        let x = Tensor::randn([2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let failed = std::panic::catch_unwind(|| recompute(&[x.shallow_clone()], |t| t[0].matmul(&t[0])));
        let text = crate::panics::words(&*failed.unwrap_err());
        assert!(text.contains("cannot be multiplied"), "{text}");
    }

    #[test]
    fn page_locked_memory_is_refused_with_words_where_nothing_has_it() {
        let t = Tensor::randn([3, 4], (Kind::Float, Device::Cpu));
        match page_locked_copy(&t) {
            Ok(copy) => assert!(copy.equal(&t) && copy.data_ptr() != t.data_ptr()),
            Err(e) => assert!(!tch::Cuda::is_available() && !e.to_string().is_empty(), "{e}"),
        }
    }
}
