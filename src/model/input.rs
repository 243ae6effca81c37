//! Arrays from the loader as tensors of a batch.

use super::flamingo::{Audio, Text};
use crate::shapes::{MEL_BINS, WINDOW_FRAMES};
use ndarray::{Array2, Array3};
use tch::{Device, Kind, Tensor};

/// log-mel of digital silence, which padded windows hold: 10·log10(1e-10).
const SILENCE_DB: f64 = -100.0;

impl Audio {
    /// Pads every clip's windows to the longest of the batch.
    ///
    /// # Shapes
    /// each mel (W_i, 1001, 64), W_i ≥ 1 → `mel_bwfm` (B, max W, 1001, 64).
    pub fn from_mels<'m>(mels: impl IntoIterator<Item = &'m Array3<f32>>, device: Device) -> Audio {
        let mels: Vec<&Array3<f32>> = mels.into_iter().collect();
        let (b, w) = (mels.len(), mels.iter().map(|m| m.shape()[0]).max().unwrap_or(1));
        let (f, m) = (WINDOW_FRAMES as i64, MEL_BINS as i64);
        let all = Tensor::full([b as i64, w as i64, f, m], SILENCE_DB, (Kind::Float, Device::Cpu));
        let mut windows = vec![0f32; b * w];
        let mut real = Vec::with_capacity(b * w);
        for (i, mel) in mels.iter().enumerate() {
            let own = mel.shape()[0];
            let standard = mel.as_standard_layout();
            if let Some(values) = standard.as_slice() {
                all.get(i as i64)
                    .narrow(0, 0, own as i64)
                    .copy_(&Tensor::from_slice(values).reshape([own as i64, f, m]));
            }
            for j in 0..own {
                windows[i * w + j] = 1.0;
                real.push((i * w + j) as i64);
            }
        }
        Audio {
            mel_bwfm: all.to_device(device),
            windows_bw: Tensor::from_slice(&windows)
                .reshape([b as i64, w as i64])
                .to_device(device),
            real,
        }
    }

    /// The same windows without their mels, for features that were encoded before.
    pub fn windows_only(windows: &[usize], device: Device) -> Audio {
        let (b, w) = (windows.len(), windows.iter().copied().max().unwrap_or(1));
        let mut mask = vec![0f32; b * w];
        let mut real = Vec::new();
        for (i, own) in windows.iter().enumerate() {
            for j in 0..*own {
                mask[i * w + j] = 1.0;
                real.push((i * w + j) as i64);
            }
        }
        Audio {
            mel_bwfm: Tensor::zeros([b as i64, w as i64, 0, 0], (Kind::Float, device)),
            windows_bw: Tensor::from_slice(&mask)
                .reshape([b as i64, w as i64])
                .to_device(device),
            real,
        }
    }
}

impl Text {
    /// (B, T) ids and mask.
    pub fn from_arrays(ids: &Array2<i64>, mask: &Array2<u8>, device: Device) -> Text {
        Text {
            ids_bt: matrix(ids).to_device(device),
            mask_bt: matrix(mask).to_device(device),
        }
    }
}

/// A 2-D array as a CPU tensor of its own dtype.
pub fn matrix<T: tch::kind::Element + Copy>(a: &Array2<T>) -> Tensor {
    let values: Vec<T> = a.iter().copied().collect();
    Tensor::from_slice(&values).reshape([a.nrows() as i64, a.ncols() as i64])
}

/// The counted labels and where their predictions stand, found on the host so that no step waits for the device.
///
/// # Shapes
/// `labels` (B, T), −100 where nothing counts → targets (N) and positions (N), flat b·T + t of the state before each.
pub fn targets(labels: &Array2<i64>, device: Device) -> (Tensor, Tensor) {
    let mut wanted = Vec::new();
    let mut places = Vec::new();
    for (b, row) in labels.outer_iter().enumerate() {
        for (t, &label) in row.iter().enumerate().skip(1) {
            if label >= 0 {
                wanted.push(label);
                places.push((b * labels.ncols() + t - 1) as i64);
            }
        }
    }
    (
        Tensor::from_slice(&wanted).to_device(device),
        Tensor::from_slice(&places).to_device(device),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_predicted_by_the_state_before_them() {
        let labels = ndarray::arr2(&[[-100, -100, 7, 8], [-100, 9, -100, -100]]);
        let (targets, positions) = targets(&labels, Device::Cpu);
        assert_eq!(Vec::<i64>::try_from(targets).unwrap(), [7, 8, 9]);
        assert_eq!(Vec::<i64>::try_from(positions).unwrap(), [1, 2, 4]);
    }

    #[test]
    fn clips_are_padded_with_silence_and_masked() {
        let mel = |w: usize| Array3::<f32>::ones((w, WINDOW_FRAMES, MEL_BINS));
        let audio = Audio::from_mels([&mel(1), &mel(2)], Device::Cpu);
        assert_eq!(audio.mel_bwfm.size(), [2, 2, 1001, 64]);
        assert_eq!(audio.real, [0, 2, 3]);
        assert!(!audio.full());
        assert_eq!(audio.mel_bwfm.double_value(&[0, 1, 5, 5]), -100.0);
        assert_eq!(audio.mel_bwfm.double_value(&[0, 0, 5, 5]), 1.0);
    }
}
