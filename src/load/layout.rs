//! How weights lie in memory while a model is asked.

use super::Loaded;
use crate::error::Result;
use rayon::prelude::*;
use tch::{no_grad, Device, Kind, Tensor};

/// What every token of an answer reads.
const SPOKEN: &str = "lang_encoder.";

impl Loaded {
    /// Makes the model ready to write one answer at a time, and for nothing but being asked. On the CPU, in fp32, a product of one row
    /// with a matrix of more outputs than inputs reads it faster where each input's weights lie together: with MKL on an AMD EPYC
    /// 20 GB/s, where rows of 896 give 14. Several rows are slower so. The weights stay what they are; sums are in another order, as
    /// with another number of rows.
    ///
    /// It takes the time of a copy of these matrices, and of weights that were mapped from a file their memory.
    ///
    /// # Errors
    /// libtorch's.
    pub fn lay_out_to_speak(&self) -> Result<()> {
        if self.device != Device::Cpu {
            return Ok(());
        }
        let wide = |t: &Tensor| matches!(t.size()[..], [out, input] if out > input);
        let spoken: Vec<Tensor> = (self.params.iter())
            .filter(|(name, e)| name.starts_with(SPOKEN) && e.tensor.kind() == Kind::Float && wide(&e.tensor))
            .map(|(_, entry)| entry.tensor.shallow_clone())
            .collect();
        // libtorch's own transposing copy takes one core.
        spoken.into_par_iter().try_for_each(|mut weight| -> Result<()> {
            let by_input = no_grad(|| {
                weight
                    .detach()
                    .f_transpose(0, 1)?
                    .f_contiguous()?
                    .f_transpose(0, 1)
            })?;
            Ok(weight.f_set_data(&by_input)?)
        })?;
        crate::ffi::give_back_memory();
        Ok(())
    }
}
