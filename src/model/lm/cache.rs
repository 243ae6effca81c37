//! Keys and values of texts of one length.

use tch::Tensor;

/// Keys and values of the text so far, per layer (B, H_kv, T, head_dim).
#[derive(Default)]
pub struct Cache {
    layers: Vec<Option<(Tensor, Tensor)>>,
}

impl Cache {
    /// Tokens held.
    pub fn len(&self) -> i64 {
        match self.layers.first() {
            Some(Some((k, _))) => k.size()[2],
            _ => 0,
        }
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same texts once more, to be gone on with in another way: nothing is copied.
    pub(crate) fn fork(&self) -> Cache {
        let both = |(k, v): &(Tensor, Tensor)| (k.shallow_clone(), v.shallow_clone());
        Cache {
            layers: self.layers.iter().map(|l| l.as_ref().map(both)).collect(),
        }
    }

    /// Makes row i what row `rows_r[i]` was: beams that go on, several texts behind one.
    ///
    /// # Shapes
    /// `rows_r` (R) int64
    pub(crate) fn select(&mut self, rows_r: &Tensor) {
        for (k, v) in self.layers.iter_mut().flatten() {
            (*k, *v) = (k.index_select(0, rows_r), v.index_select(0, rows_r));
        }
    }

    /// The first `tokens` of the texts alone: nothing is copied.
    pub(crate) fn beginning(&self, tokens: i64) -> Cache {
        let both = |(k, v): &(Tensor, Tensor)| (k.narrow(2, 0, tokens), v.narrow(2, 0, tokens));
        Cache {
            layers: self.layers.iter().map(|l| l.as_ref().map(both)).collect(),
        }
    }

    /// The first `tokens` of one of the texts, by themselves.
    pub(crate) fn row(&self, row: i64, tokens: i64) -> Cache {
        let own = |t: &Tensor| t.narrow(0, row, 1).narrow(2, 0, tokens).copy();
        let both = |(k, v): &(Tensor, Tensor)| (own(k), own(v));
        Cache {
            layers: self.layers.iter().map(|l| l.as_ref().map(both)).collect(),
        }
    }

    /// What it holds, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let both = |(k, v): (&Tensor, &Tensor)| (k.numel() + v.numel()) * k.kind().elt_size_in_bytes();
        self.layers().map(both).sum::<usize>() as u64
    }

    /// Keys and values of each layer.
    pub(crate) fn layers(&self) -> impl Iterator<Item = (&Tensor, &Tensor)> {
        self.layers.iter().flatten().map(|(k, v)| (k, v))
    }

    pub(super) fn extend(&mut self, layer: usize, k: Tensor, v: Tensor) -> (Tensor, Tensor) {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, || None);
        }
        let (k, v) = match self.layers[layer].take() {
            Some((k0, v0)) => (Tensor::cat(&[k0, k], 2), Tensor::cat(&[v0, v], 2)),
            None => (k, v),
        };
        self.layers[layer] = Some((k.shallow_clone(), v.shallow_clone()));
        (k, v)
    }
}
