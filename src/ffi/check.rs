//! What `af2 gpu-check` asks of libtorch: which attention kernel each call got, and a device's memory and clock.

use super::{call, take, ErrorSlot};
use std::ffi::{c_char, c_int};
use std::sync::{Mutex, PoisonError};
use tch::{Device, TchError};

extern "C" {
    fn af2_attention_listen(err: ErrorSlot) -> c_int;
    fn af2_attention_heard(err: ErrorSlot) -> *mut c_char;
    fn af2_cuda_versions(cuda: *mut i64, cudnn: *mut i64, err: ErrorSlot) -> c_int;
    fn af2_synchronize(index: c_int, err: ErrorSlot) -> c_int;
    fn af2_reset_peak(index: c_int, err: ErrorSlot) -> c_int;
    fn af2_empty_cache(err: ErrorSlot) -> c_int;
    fn af2_memory_info(
        index: c_int,
        free: *mut i64,
        total: *mut i64,
        reserved: *mut i64,
        err: ErrorSlot,
    ) -> c_int;
}

type Result<T> = std::result::Result<T, TchError>;

/// One call of `scaled_dot_product_attention`, as libtorch itself saw it: under autocast with what was cast.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Attention {
    pub query: Vec<i64>,
    pub key: Vec<i64>,
    pub mask: Option<Vec<i64>>,
    /// libtorch's name of the dtype.
    pub kind: String,
    pub causal: bool,
    /// Fewer heads of keys than of queries.
    pub grouped: bool,
    /// A backward pass follows.
    pub grad: bool,
    /// libtorch's name of what it ran, without `_scaled_dot_product_`.
    pub kernel: String,
}

impl Attention {
    fn read(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [query, key, mask, kind, causal, grouped, grad, kernel] = fields[..] else {
            return None;
        };
        let shape = |text: &str| -> Option<Vec<i64>> {
            let inside = text.trim().strip_prefix('[')?.strip_suffix(']')?;
            let sizes = inside.split(',').map(str::trim).filter(|n| !n.is_empty());
            sizes.map(|n| n.parse().ok()).collect()
        };
        Some(Attention {
            query: shape(query)?,
            key: shape(key)?,
            mask: shape(mask),
            kind: kind.into(),
            causal: causal == "1",
            grouped: grouped == "1",
            grad: grad == "1",
            kernel: kernel.into(),
        })
    }
}

/// Runs `f`, and returns beside its result every attention call that this process made meanwhile, on whichever thread. One at a
/// time: another waits. Not to be asked for within itself.
///
/// # Errors
/// None that is known of libtorch; [`TchError::Torch`] where a call cannot be understood.
pub(crate) fn attention_calls<T>(f: impl FnOnce() -> T) -> Result<(T, Vec<Attention>)> {
    struct Listening;
    impl Drop for Listening {
        fn drop(&mut self) {
            let _ = heard();
        }
    }
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: adds a callback that lives in the shim.
    call(|e| unsafe { af2_attention_listen(e) })?;
    let listening = Listening;
    let result = f();
    let lines = heard()?;
    std::mem::forget(listening);
    let calls = lines.lines().map(|line| {
        Attention::read(line).ok_or_else(|| TchError::Torch(format!("an attention call that reads {line:?}")))
    });
    Ok((result, calls.collect::<Result<_>>()?))
}

fn heard() -> Result<String> {
    // SAFETY: what comes back is ours.
    call(|e| unsafe { af2_attention_heard(e) }).map(take)
}

fn index(device: Device) -> Option<c_int> {
    match device {
        Device::Cuda(n) => Some(n as c_int),
        _ => None,
    }
}

/// CUDA's version as this libtorch runs it (13000 is 13.0), and cuDNN's (91900 is 9.19.0).
///
/// # Errors
/// libtorch without CUDA.
pub(crate) fn cuda_versions() -> Result<(i64, i64)> {
    let (mut cuda, mut cudnn) = (0, 0);
    // SAFETY: two integers to write to.
    call(|e| unsafe { af2_cuda_versions(&mut cuda, &mut cudnn, e) })?;
    Ok((cuda, cudnn))
}

/// Waits until a GPU has done what it was told; a CPU has.
///
/// # Errors
/// What the device says of what it was told.
pub(crate) fn synchronize(device: Device) -> Result<()> {
    match index(device) {
        // SAFETY: an integer.
        Some(n) => call(|e| unsafe { af2_synchronize(n, e) }).map(|_| ()),
        None => Ok(()),
    }
}

/// From now on the largest amounts of a GPU's memory are counted anew.
pub(crate) fn reset_peak(device: Device) -> Result<()> {
    match index(device) {
        // SAFETY: an integer.
        Some(n) => call(|e| unsafe { af2_reset_peak(n, e) }).map(|_| ()),
        None => Ok(()),
    }
}

/// Gives back what libtorch holds of GPUs' memory and does not use.
pub(crate) fn empty_cache(device: Device) -> Result<()> {
    match index(device) {
        // SAFETY: no argument.
        Some(_) => call(|e| unsafe { af2_empty_cache(e) }).map(|_| ()),
        None => Ok(()),
    }
}

/// Bytes of a GPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub free: i64,
    pub total: i64,
    /// The most that libtorch has held of it since [`reset_peak`], used or not.
    pub reserved: i64,
}

/// None on a CPU.
pub(crate) fn memory(device: Device) -> Result<Option<Memory>> {
    let Some(n) = index(device) else { return Ok(None) };
    let (mut free, mut total, mut reserved) = (0, 0, 0);
    // SAFETY: three integers to write to.
    call(|e| unsafe { af2_memory_info(n, &mut free, &mut total, &mut reserved, e) })?;
    Ok(Some(Memory {
        free,
        total,
        reserved,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::kernels::{autocast_bf16, recompute};
    use tch::{Kind, Tensor};

    /// Those of a length that no other test has: all of this process are heard.
    fn of_length(length: i64, calls: Vec<Attention>) -> Vec<Attention> {
        calls
            .into_iter()
            .filter(|c| c.query.get(2) == Some(&length))
            .collect()
    }

    fn attend(q: &Tensor, kv: &Tensor, mask: Option<&Tensor>) -> Tensor {
        Tensor::scaled_dot_product_attention(q, kv, kv, mask, 0.0, mask.is_none(), None, true)
    }

    #[test]
    fn attention_is_heard_as_the_kernel_got_it() {
        let [q, kv] = [[2, 4, 13, 8], [2, 2, 13, 8]].map(|s| Tensor::randn(s, (Kind::Float, Device::Cpu)));
        let mask = Tensor::ones([13, 13], (Kind::Bool, Device::Cpu));
        let (_, calls) = attention_calls(|| {
            let _ = attend(&q, &kv, None);
            let _ = autocast_bf16(Device::Cpu, || attend(&q, &kv, Some(&mask))).unwrap();
        })
        .unwrap();
        let calls = of_length(13, calls);
        assert_eq!(calls.len(), 2, "{calls:?}");
        let (plain, cast) = (&calls[0], &calls[1]);
        assert_eq!(
            (plain.query.as_slice(), plain.key.as_slice()),
            (&[2, 4, 13, 8][..], &[2, 2, 13, 8][..])
        );
        assert!(plain.causal && plain.grouped && !plain.grad && plain.mask.is_none());
        assert!(plain.kernel.starts_with("flash"), "{plain:?}");
        assert_eq!((plain.kind.as_str(), cast.kind.as_str()), ("Float", "BFloat16"));
        assert_eq!(cast.mask, Some(vec![13, 13]));
        // Nobody listens any more.
        let _ = attend(&q, &kv, None);
        let (_, after) = attention_calls(|| ()).unwrap();
        assert!(of_length(13, after).is_empty());
    }

    #[test]
    fn a_block_that_is_computed_again_is_heard_again() {
        let q = Tensor::randn([1, 2, 17, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let ((), calls) = attention_calls(|| {
            let out = recompute(&[q.shallow_clone()], |t| attend(&t[0], &t[0], None));
            out.sum(Kind::Float).backward();
        })
        .unwrap();
        let calls = of_length(17, calls);
        let grads: Vec<bool> = calls.iter().map(|c| c.grad).collect();
        assert_eq!(grads, [false, true], "{calls:?}");
    }
}
