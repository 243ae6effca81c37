//! Rotary positions: the frequencies that a `config.json` asks for.

use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;
use tch::{Device, Kind, Tensor};

/// What fixes the frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rotary {
    /// Base of the wavelengths (`rope_theta`).
    pub theta: f64,
    /// How long waves are stretched; none where they are not.
    pub scaling: Option<Llama3>,
}

/// `rope_type: llama3`: long waves are stretched by `factor`, short ones kept, those between blended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the keys of `rope_scaling`, by their names")]
pub struct Llama3 {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: i64,
}

impl Rotary {
    /// Positions as they are.
    pub(crate) fn plain(theta: f64) -> Self {
        Rotary { theta, scaling: None }
    }

    /// (head_dim / 2) float32, each operation as the reference computes it.
    pub(crate) fn inv_freq(&self, head_dim: i64, device: Device) -> Tensor {
        let float = (Kind::Float, device);
        let exponents = Tensor::arange_start_step(0, head_dim, 2, float) / head_dim as f64;
        let inv_freq = Tensor::full([1], self.theta, float).pow(&exponents).reciprocal();
        match &self.scaling {
            Some(scaling) => scaling.stretched(&inv_freq),
            None => inv_freq,
        }
    }
}

impl Llama3 {
    /// Reference: transformers' `_compute_llama3_parameters`.
    fn stretched(&self, inv_freq: &Tensor) -> Tensor {
        let trained = self.original_max_position_embeddings as f64;
        let (low, high) = (self.low_freq_factor, self.high_freq_factor);
        let wavelength = inv_freq.reciprocal() * TAU;
        let (long, short) = (wavelength.gt(trained / low), wavelength.lt(trained / high));
        let slow = (inv_freq / self.factor).where_self(&long, inv_freq);
        let smooth = (wavelength.reciprocal() * trained - low) / (high - low);
        let blended = (1.0 - &smooth) * &slow / self.factor + &smooth * &slow;
        slow.where_self(&long.logical_or(&short), &blended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Llama 3.2 1B's frequencies, as transformers 5.23.0 on torch 2.11.0 (CPU) computes them.
    #[test]
    fn the_frequencies_of_a_published_model_are_transformers() {
        const BITS: [u32; 32] = [
            0x3f800000, 0x3f29e1c6, 0x3ee177bc, 0x3e959ee3, 0x3e4693b0, 0x3e03c6a0, 0x3daee4ad, 0x3d681e67,
            0x3d1a08c8, 0x3ccc6f49, 0x3c87a9c3, 0x3c340d6d, 0x3beef74f, 0x3b9e9402, 0x3b527720, 0x3aa9279b,
            0x39e13620, 0x38cb98f7, 0x37a3418d, 0x3758ac81, 0x370fc8f8, 0x36bed4f4, 0x367d45c3, 0x3628126b,
            0x35df10c4, 0x359406cb, 0x35447610, 0x35025f34, 0x34ad07a7, 0x3465a54d, 0x341864a7, 0x33ca41b0,
        ];
        let rotary = Rotary {
            theta: 5e5,
            scaling: Some(Llama3 {
                factor: 32.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            }),
        };
        let found = Vec::<f32>::try_from(rotary.inv_freq(64, Device::Cpu)).unwrap();
        // `pow` rounds its last bit differently from one processor's kernels to another's.
        for (found, bits) in found.iter().zip(BITS) {
            assert!(
                found.to_bits().abs_diff(bits) <= 2,
                "{found:e} {:e}",
                f32::from_bits(bits)
            );
        }
        let plain = Vec::<f32>::try_from(Rotary::plain(5e5).inv_freq(64, Device::Cpu)).unwrap();
        // Short waves stay, long ones are stretched by the factor.
        assert_eq!(plain[..15], found[..15]);
        assert!((plain[31] / found[31] - 32.0).abs() < 1e-4);
    }
}
