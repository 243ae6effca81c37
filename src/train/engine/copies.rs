//! Tensors off the device while training goes on.

use crate::dist;
use crate::error::{short, Result};
use crate::ffi::kernels;
use crate::train::number;
use std::sync::Once;
use tch::{Device, Tensor};

/// Copies on the CPU, one of each tensor and no other between.
///
/// From a GPU they go into page-locked memory, which the device itself writes to: all are under way before any is waited for.
/// That is as much memory as all that is saved: the weights that train with their two moments, the embeddings and the
/// buffers. libtorch rounds each tensor up to a power of two, and keeps the memory for the next time. Where the system gives no
/// more of it, what is left goes into ordinary memory, tensor by tensor.
pub(crate) struct Copies {
    device: Device,
    page_locked: bool,
}

impl Copies {
    pub(crate) fn new(device: Device) -> Self {
        Copies {
            device,
            page_locked: device != Device::Cpu,
        }
    }

    /// Not to be read before [`Copies::wait`].
    pub(crate) fn copy(&mut self, tensor: &Tensor) -> Tensor {
        let tensor = tensor.detach();
        if tensor.device() == Device::Cpu {
            let mut copy = tensor.empty_like();
            copy.copy_(&tensor);
            return copy;
        }
        if self.page_locked {
            match kernels::page_locked_copy(&tensor) {
                Ok(copy) => return copy,
                Err(e) => {
                    static TOLD: Once = Once::new();
                    TOLD.call_once(|| {
                        crate::say!(
                            "note: checkpoints take longer: no page-locked memory for them: {}",
                            short(&e)
                        );
                    });
                    self.page_locked = false;
                }
            }
        }
        tensor.to_device(Device::Cpu)
    }

    /// Waits until all copies are whole.
    pub(crate) fn wait(self) -> Result<()> {
        match self.device {
            Device::Cpu => Ok(()),
            // What is read is behind them.
            device => number(&dist::zero(device)).map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn what_is_copied_is_no_longer_what_trains() {
        let mut weight = Tensor::randn([3, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mut copies = Copies::new(Device::Cpu);
        let all = [&weight, &weight.tr()].map(|t| (copies.copy(t), t.detach().copy()));
        copies.wait().unwrap();
        let _ = tch::no_grad(|| weight.zero_());
        for (copy, then) in &all {
            assert!(copy.equal(then) && !copy.requires_grad());
            assert_eq!(copy.size(), then.size());
            assert_ne!(copy.data_ptr(), weight.data_ptr());
        }
    }
}
