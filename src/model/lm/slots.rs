//! Keys and values of texts that are written on together, each as long as it is.

use super::cache::Cache;
use tch::{Device, Kind, Tensor};

/// Room for a text grows by so many tokens.
pub(crate) const STEP: i64 = 64;

/// Rows of keys and values that lie in one place, so that one product reads the weights for all of them. A row is one text; those
/// that are written on stand at the front.
///
/// Their room grows in steps: a token is written into its place, nothing is copied for it.
pub(crate) struct Slots {
    /// Of each layer (R, H_kv, C, head_dim).
    layers: Vec<(Tensor, Tensor)>,
    /// Tokens of each text; as many as there are texts.
    lens: Vec<i64>,
    rows: i64,
    capacity: i64,
    kv_heads: i64,
    head_dim: i64,
    depth: usize,
    kind: Kind,
    device: Device,
    step: Option<Step>,
}

/// What all layers of one step share.
struct Step {
    /// (n, H_kv, 1, head_dim) int64: where each text's new token goes.
    place: Tensor,
    /// (n, 1, 1, T), −∞ where a text has no token; none where all are equally long.
    mask: Option<Tensor>,
    longest: i64,
}

impl Slots {
    /// Without a text, for so many layers with keys and values of so many heads. `kind`: in what attention is computed.
    pub(crate) fn new(depth: usize, kv_heads: i64, head_dim: i64, kind: Kind, device: Device) -> Self {
        Slots {
            layers: Vec::new(),
            lens: Vec::new(),
            rows: 0,
            capacity: 0,
            kv_heads,
            head_dim,
            depth,
            kind,
            device,
            step: None,
        }
    }

    /// What is held, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_of(self.rows, self.capacity)
    }

    /// What so many texts of so many tokens take, in bytes.
    pub(crate) fn bytes_of(&self, rows: i64, tokens: i64) -> u64 {
        let token =
            2 * self.depth as i64 * self.kv_heads * self.head_dim * self.kind.elt_size_in_bytes() as i64;
        (rows * stepped(tokens) * token) as u64
    }

    /// Adds a text: the one of a cache of one row.
    pub(crate) fn push(&mut self, cache: &Cache) {
        let (row, len) = (self.lens.len() as i64, cache.len());
        self.grow(self.rows.max(row + 1), self.capacity.max(stepped(len + 1)));
        for ((k, v), held) in self.layers.iter().zip(cache.layers()) {
            for (all, own) in [(k, held.0), (v, held.1)] {
                all.get(row).narrow(1, 0, len).copy_(&own.get(0));
            }
        }
        self.lens.push(len);
    }

    /// Takes a text out; the last one comes into its place.
    pub(crate) fn swap_remove(&mut self, row: usize) {
        let last = self.lens.len() - 1;
        if row != last {
            let len = self.lens[last];
            for (k, v) in &self.layers {
                for all in [k, v] {
                    let from = all.get(last as i64).narrow(1, 0, len);
                    all.get(row as i64).narrow(1, 0, len).copy_(&from);
                }
            }
        }
        self.lens.swap_remove(row);
    }

    /// Gives all room back.
    pub(crate) fn clear(&mut self) {
        self.layers.clear();
        self.lens.clear();
        (self.rows, self.capacity) = (0, 0);
    }

    fn grow(&mut self, rows: i64, capacity: i64) {
        if (rows, capacity) == (self.rows, self.capacity) {
            return;
        }
        let size = [rows, self.kv_heads, capacity, self.head_dim];
        let options = (self.kind, self.device);
        if self.layers.is_empty() {
            // What nobody wrote is masked, and must be a number all the same.
            self.layers = (0..self.depth)
                .map(|_| (Tensor::zeros(size, options), Tensor::zeros(size, options)))
                .collect();
        } else {
            let (had, held) = (self.rows, self.capacity);
            // Layer by layer, so that twice the room is needed of one layer only.
            for (k, v) in &mut self.layers {
                for all in [k, v] {
                    let new = Tensor::zeros(size, options);
                    new.narrow(0, 0, had).narrow(2, 0, held).copy_(all);
                    *all = new;
                }
            }
        }
        (self.rows, self.capacity) = (rows, capacity);
    }

    /// Begins a step: one more token of each text. Returns their positions (n) int64.
    pub(crate) fn begin(&mut self) -> Tensor {
        let n = self.lens.len() as i64;
        let longest = 1 + self.lens.iter().copied().max().unwrap_or(0);
        self.grow(self.rows, self.capacity.max(stepped(longest)));
        let positions = Tensor::from_slice(&self.lens).to_device(self.device);
        let place = positions
            .reshape([n, 1, 1, 1])
            .expand([n, self.kv_heads, 1, self.head_dim], false);
        let even = self.lens.iter().all(|l| l + 1 == longest);
        let mask = (!even).then(|| {
            let keys = Tensor::arange(longest, (Kind::Int64, self.device));
            let hidden = keys
                .gt_tensor(&positions.unsqueeze(1))
                .reshape([n, 1, 1, longest]);
            let zeros = Tensor::zeros([n, 1, 1, longest], (self.kind, self.device));
            zeros.masked_fill(&hidden, f64::NEG_INFINITY)
        });
        self.step = Some(Step { place, mask, longest });
        positions
    }

    /// One layer's attention of the new tokens, which are kept.
    ///
    /// A token's queries of one group see the same keys: they are as many queries of one head, so that no kernel needs to know of
    /// groups, and keys are read once a group.
    ///
    /// # Shapes
    /// `q` (n, H, 1, head_dim), `k`, `v` (n, H_kv, 1, head_dim) → (n, 1, H · head_dim)
    pub(crate) fn attend(&self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let Some(Step { place, mask, longest }) = &self.step else {
            return q.transpose(1, 2).flatten(2, 3);
        };
        let n = self.lens.len() as i64;
        let (keys, values) = &self.layers[layer];
        let [keys, values] = [(keys, k), (values, v)].map(|(all, new)| {
            let mut rows = all.narrow(0, 0, n);
            let _ = rows.scatter_(2, place, &new.to_kind(self.kind));
            rows.narrow(2, 0, *longest)
        });
        let q = q
            .to_kind(self.kind)
            .reshape([n, self.kv_heads, -1, self.head_dim]);
        let out =
            Tensor::scaled_dot_product_attention(&q, &keys, &values, mask.as_ref(), 0.0, false, None, false);
        out.reshape([n, 1, -1])
    }

    /// Ends a step: each text has one token more.
    pub(crate) fn end(&mut self) {
        self.step = None;
        self.lens.iter_mut().for_each(|l| *l += 1);
    }
}

/// Room for so many tokens.
fn stepped(tokens: i64) -> i64 {
    (tokens + STEP - 1) / STEP * STEP
}
