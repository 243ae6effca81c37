//! Arrays from the loader as tensors of a batch.

use super::flamingo::{Audio, Text};
use super::layers::onto;
use ndarray::{Array2, Array3};
use tch::{Device, Kind, Tensor};

/// log-mel of digital silence, which padded windows hold: 10·log10(1e-10).
const SILENCE_DB: f64 = -100.0;

impl Audio {
    /// The windows of a batch of clips, one after another; padding is an index only.
    ///
    /// # Shapes
    /// each mel (W_i, F, M), W_i ≥ 1 → `mel_nfm` (Σ W_i, F, M), `windows_bw` (B, max W).
    pub fn from_mels<'m>(mels: impl IntoIterator<Item = &'m Array3<f32>>, device: Device) -> Audio {
        let mels: Vec<&Array3<f32>> = mels.into_iter().collect();
        let windows: Vec<usize> = mels.iter().map(|m| m.shape()[0]).collect();
        let all = windows.iter().sum::<usize>() as i64;
        let of = |axis: usize| mels.first().map_or(0, |m| m.shape()[axis] as i64);
        let shape = [all, of(1), of(2)];
        let mel_nfm = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let mut at = 0;
        for (mel, own) in mels.iter().zip(&windows) {
            let standard = mel.as_standard_layout();
            if let Some(values) = standard.as_slice() {
                let own = *own as i64;
                let values = Tensor::from_slice(values).reshape([own, shape[1], shape[2]]);
                mel_nfm.narrow(0, at, own).copy_(&values);
                at += own;
            }
        }
        Audio {
            mel_nfm: onto(mel_nfm, device),
            ..Audio::windows_only(&windows, device)
        }
    }

    /// The mels with the padded windows between them, as the reference has them. (B, max W, F, M)
    pub(crate) fn padded_mels(&self) -> Tensor {
        let (b, w) = self.windows_bw.size2().unwrap_or_default();
        let (_, f, m) = self.mel_nfm.size3().unwrap_or_default();
        self.scatter(&self.mel_nfm, &[f, m], SILENCE_DB)
            .reshape([b, w, f, m])
    }

    /// Puts what belongs to real windows into the places of all windows: (N, …) → (B·W, …).
    pub(crate) fn scatter(&self, real: &Tensor, shape: &[i64], padding: f64) -> Tensor {
        let index = onto(Tensor::from_slice(&self.real), real.device());
        let shape: Vec<i64> = std::iter::once(self.windows_bw.numel() as i64)
            .chain(shape.iter().copied())
            .collect();
        Tensor::full(shape, padding, (real.kind(), real.device())).index_copy(0, &index, real)
    }

    /// The same windows without their mels, for features that were encoded before.
    pub(crate) fn windows_only(windows: &[usize], device: Device) -> Audio {
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
            mel_nfm: Tensor::zeros([0i64; 3], (Kind::Float, device)),
            windows_bw: onto(Tensor::from_slice(&mask).reshape([b as i64, w as i64]), device),
            real,
        }
    }
}

impl Text {
    /// (B, T) ids and mask.
    pub(crate) fn from_arrays(ids: &Array2<i64>, mask: &Array2<u8>, device: Device) -> Text {
        let mut rows = mask.outer_iter();
        Text {
            ids_bt: onto(matrix(ids), device),
            mask_bt: onto(matrix(mask), device),
            padded_behind: rows.all(|row| row.windows(2).into_iter().all(|w| w[0] != 0 || w[1] == 0)),
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
        onto(Tensor::from_slice(&wanted), device),
        onto(Tensor::from_slice(&places), device),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::{MEL_BINS, WINDOW_FRAMES};

    #[test]
    fn labels_are_predicted_by_the_state_before_them() {
        let labels = ndarray::arr2(&[[-100, -100, 7, 8], [-100, 9, -100, -100]]);
        let (targets, positions) = targets(&labels, Device::Cpu);
        assert_eq!(Vec::<i64>::try_from(targets).unwrap(), [7, 8, 9]);
        assert_eq!(Vec::<i64>::try_from(positions).unwrap(), [1, 2, 4]);
    }

    #[test]
    fn a_mask_is_dropped_only_where_all_padding_stands_behind() {
        use crate::model::lm::Padding;
        let behind = |rows: [[u8; 3]; 2]| {
            let text = Text::from_arrays(&Array2::zeros((2, 3)), &ndarray::arr2(&rows), Device::Cpu);
            matches!(text.padding(), Padding::Behind)
        };
        assert!(behind([[1, 1, 1], [1, 0, 0]]));
        assert!(behind([[1, 1, 0], [0, 0, 0]]));
        assert!(!behind([[1, 1, 1], [0, 1, 1]]), "padded before the text");
        assert!(!behind([[1, 0, 1], [1, 1, 0]]), "a hole");
    }

    #[test]
    fn clips_are_padded_with_silence_and_masked() {
        let mel = |w: usize| Array3::<f32>::ones((w, WINDOW_FRAMES, MEL_BINS));
        let audio = Audio::from_mels([&mel(1), &mel(2)], Device::Cpu);
        assert_eq!(audio.mel_nfm.size(), [3, 1001, 64]);
        assert_eq!(audio.real, [0, 2, 3]);
        assert!(!audio.full());
        let padded = audio.padded_mels();
        assert_eq!(padded.size(), [2, 2, 1001, 64]);
        assert_eq!(padded.double_value(&[0, 1, 5, 5]), -100.0);
        assert_eq!(padded.double_value(&[0, 0, 5, 5]), 1.0);
    }
}
