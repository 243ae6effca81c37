//! A long filter between two rates whose ratio is a small fraction, by Fourier transforms (overlap-save).
//!
//! Blocks of the input are transformed, multiplied by the filter's response and transformed back. The change of
//! rate needs no work of its own: putting zeros between samples repeats the spectrum and leaving samples out adds
//! parts of it up, so that the way back is a transform of another length. What wraps around at a block's ends is
//! dropped.
//!
//! The filter is real, hence acts on real and imaginary parts apart: two blocks go through one transform.

use rustfft::{num_complex::Complex, Fft, FftPlanner};
use std::sync::Arc;

/// A block is at least this many times as long as the filter. Longer ones waste less at their ends but fit the cache
/// less well; from 3 to 8 makes no difference of more than a tenth.
const BLOCK_PER_FILTER: usize = 4;

/// What does not change from file to file.
pub(super) struct Plan {
    /// Outputs per `down` inputs.
    up: usize,
    down: usize,
    /// Outputs at either end of a block that its other end has leaked into; a multiple of `up`.
    edge: usize,
    /// Outputs of a block between them; a multiple of `up`, so that blocks begin at whole inputs.
    step: usize,
    forward: Arc<dyn Fft<f64>>,
    inverse: Arc<dyn Fft<f64>>,
    /// The filter's spectrum at `up` times the input's rate, divided by the transforms' gain. It is real, since
    /// the filter is symmetric about time 0.
    response: Vec<f64>,
}

impl Plan {
    /// `half` is the right half of a symmetric filter, its centre first, at `up` times the input's rate. `up` and
    /// `down` have no common factor, and are small against the filter.
    pub(crate) fn new(up: usize, down: usize, half: &[f64]) -> Self {
        let reach = half.len().saturating_sub(1);
        let filter = 2 * reach + 1;
        // Transforms of down · 2^n inputs and up · 2^n outputs are fast, since ratios are of small numbers.
        let unit = (BLOCK_PER_FILTER * filter)
            .div_ceil(up * down)
            .next_power_of_two();
        let (inputs, outputs) = (down * unit, up * unit);
        let edge = reach.div_ceil(down).next_multiple_of(up);
        let step = (outputs - 2 * edge) / up * up;

        let mut planner = FftPlanner::new();
        let mut spectrum = vec![Complex::default(); inputs * up];
        let gain = 1.0 / spectrum.len() as f64;
        for (i, h) in half.iter().enumerate() {
            let wrapped = (spectrum.len() - i) % spectrum.len();
            spectrum[i] = Complex::from(h * gain);
            spectrum[wrapped] = Complex::from(h * gain);
        }
        planner.plan_fft_forward(spectrum.len()).process(&mut spectrum);
        Plan {
            up,
            down,
            edge,
            step,
            forward: planner.plan_fft_forward(inputs),
            inverse: planner.plan_fft_inverse(outputs),
            response: spectrum.into_iter().map(|c| c.re).collect(),
        }
    }

    /// Inputs from one block's beginning to the next one's.
    fn stride(&self) -> usize {
        self.step / self.up * self.down
    }
}

/// The filter at work on one channel.
pub(super) struct OverlapSave {
    plan: Arc<Plan>,
    /// Input from the next pair of blocks on, shorter than the pair.
    pending: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    product: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
}

impl OverlapSave {
    /// The first output lies `lead` outputs (rounded up to a multiple of `up`) before the first input.
    pub(crate) fn new(plan: Arc<Plan>, lead: usize) -> Self {
        let zeros = (plan.edge + lead.next_multiple_of(plan.up)) / plan.up * plan.down;
        let mut pending = Vec::with_capacity(plan.forward.len() + plan.stride());
        pending.resize(zeros, 0.0);
        let scratch = (plan.forward.get_inplace_scratch_len()).max(plan.inverse.get_inplace_scratch_len());
        OverlapSave {
            pending,
            spectrum: vec![Complex::default(); plan.forward.len()],
            product: vec![Complex::default(); plan.inverse.len()],
            scratch: vec![Complex::default(); scratch],
            plan,
        }
    }

    /// Takes input and appends the outputs of the blocks that it completes. Blocks lie where they lie however the
    /// input is cut, so that the result is the same to the bit.
    pub(crate) fn push(&mut self, mut input: &[f64], out: &mut Vec<f64>) {
        let pair = self.plan.forward.len() + self.plan.stride();
        while self.pending.len() + input.len() >= pair {
            let (now, later) = input.split_at(pair - self.pending.len());
            self.pending.extend_from_slice(now);
            input = later;
            self.blocks(out);
        }
        self.pending.extend_from_slice(input);
    }

    /// Appends what the input so far gives with zeros after it, in whole blocks, at least `outputs`.
    pub(crate) fn flush(mut self, outputs: usize, out: &mut Vec<f64>) {
        let wanted = out.len().saturating_add(outputs);
        let pair = self.plan.forward.len() + self.plan.stride();
        while out.len() < wanted {
            self.pending.resize(pair, 0.0);
            self.blocks(out);
        }
    }

    /// Filters the pair of blocks at the front of `pending` and passes over it.
    fn blocks(&mut self, out: &mut Vec<f64>) {
        let plan = &*self.plan;
        let stride = plan.stride();
        let (first, second) = (&self.pending[..], &self.pending[stride..]);
        for ((value, a), b) in self.spectrum.iter_mut().zip(first).zip(second) {
            *value = Complex::new(*a, *b);
        }
        plan.forward
            .process_with_scratch(&mut self.spectrum, &mut self.scratch);

        // The input's spectrum repeats every `inputs` bins; bins that are `outputs` apart become one.
        let (inputs, outputs) = (self.spectrum.len(), self.product.len());
        self.product.fill(Complex::default());
        let mut bin = 0;
        while bin < plan.response.len() {
            let (from, to) = (bin % inputs, bin % outputs);
            let run = (inputs - from).min(outputs - to);
            let response = &plan.response[bin..bin + run];
            let spectrum = &self.spectrum[from..from + run];
            let product = &mut self.product[to..to + run];
            for ((p, s), r) in product.iter_mut().zip(spectrum).zip(response) {
                *p += s * r;
            }
            bin += run;
        }

        plan.inverse
            .process_with_scratch(&mut self.product, &mut self.scratch);
        let whole = &self.product[plan.edge..plan.edge + plan.step];
        out.extend(whole.iter().map(|c| c.re));
        out.extend(whole.iter().map(|c| c.im));
        self.pending.drain(..2 * stride);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum that the transforms stand for, at every ratio and across several blocks.
    #[test]
    fn equals_direct_convolution() {
        let half: Vec<f64> = (0..23).map(|i| (-0.1 * f64::from(i)).exp()).collect();
        let input: Vec<f64> = (0..1500).map(|i| f64::from(i * i % 97) / 97.0 - 0.5).collect();
        for (up, down, lead) in [
            (1, 1, 0),
            (2, 1, 0),
            (1, 3, 5),
            (2, 3, 0),
            (4, 3, 3),
            (3, 2, 0),
            (1, 12, 1),
        ] {
            let plan = Arc::new(Plan::new(up, down, &half));
            let mut filter = OverlapSave::new(plan.clone(), lead);
            let mut out = Vec::new();
            input.chunks(211).for_each(|c| filter.push(c, &mut out));
            let lead = lead.next_multiple_of(up);
            let length = lead + 1500 * up / down + 9;
            filter.flush(length - out.len(), &mut out);
            for (m, y) in out[..length].iter().enumerate() {
                let at = (m as i64 - lead as i64) * down as i64;
                let tap = |n: usize| half.get((at - (n * up) as i64).unsigned_abs() as usize);
                let expected: f64 = (input.iter().enumerate())
                    .map(|(n, x)| x * tap(n).unwrap_or(&0.0))
                    .sum();
                assert!((y - expected).abs() < 1e-13, "{up}/{down} {m}: {y} {expected}");
            }
        }
    }
}
