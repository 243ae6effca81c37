//! Texts about one clip that are written on: several rows, whose keys and values are cached.

use crate::model::flamingo::{Flamingo, Heard};
use crate::model::lm::Cache;
use tch::{Kind, Tensor};

/// R texts of the same length about one clip, whose audio they share.
pub(crate) struct Texts<'a> {
    model: &'a Flamingo,
    heard: &'a Heard,
    cache: Cache,
    /// `<audio>` tokens so far, (R, 1).
    seen: Tensor,
}

impl<'a> Texts<'a> {
    /// Texts that were begun before.
    pub(crate) fn of(model: &'a Flamingo, heard: &'a Heard, cache: Cache, seen: Tensor) -> Self {
        Texts {
            model,
            heard,
            cache,
            seen,
        }
    }

    /// What [`Texts::of`] takes.
    pub(crate) fn parts(self) -> (Cache, Tensor) {
        (self.cache, self.seen)
    }

    /// Reads rows of the same length from their beginning. Returns the logits (R, V) of what follows, float32.
    pub(crate) fn read(model: &'a Flamingo, heard: &'a Heard, rows: &[Vec<i64>]) -> (Self, Tensor) {
        let mut texts = Texts {
            model,
            heard,
            cache: Cache::default(),
            seen: Tensor::zeros([rows.len() as i64, 1], (Kind::Int64, heard.device())),
        };
        let logits = texts.go_on(&texts.block(rows));
        (texts, logits)
    }

    /// One more token for each row. Returns the logits (R, V) of what follows, float32.
    pub(crate) fn append(&mut self, tokens: &[i64]) -> Tensor {
        let new = Tensor::from_slice(tokens)
            .unsqueeze(1)
            .to_device(self.heard.device());
        self.go_on(&new)
    }

    fn go_on(&mut self, new_rt: &Tensor) -> Tensor {
        let logits = self.model.decode(new_rt, self.heard, &mut self.cache, &self.seen);
        self.seen = &self.seen + self.model.audio_tokens(new_rt);
        logits.squeeze_dim(1).to_kind(Kind::Float)
    }

    /// The normed states (R, T, D) of T more tokens for each row, shorter rows being filled up behind: those positions mean
    /// nothing, and nothing can be written behind them.
    pub(crate) fn states(mut self, rows: &[Vec<i64>]) -> Tensor {
        let new = self.block(rows);
        self.model
            .states_after(&new, self.heard, &mut self.cache, &self.seen)
    }

    /// (R, T) of rows that are filled up to the longest.
    fn block(&self, rows: &[Vec<i64>]) -> Tensor {
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let filled: Vec<i64> = rows
            .iter()
            .flat_map(|row| {
                row.iter()
                    .copied()
                    .chain(std::iter::repeat_n(0, longest - row.len()))
            })
            .collect();
        let size = [rows.len() as i64, longest as i64];
        Tensor::from_slice(&filled)
            .reshape(size)
            .to_device(self.heard.device())
    }

    /// The same texts, to be gone on with in another way: nothing is copied.
    pub(crate) fn fork(&self) -> Self {
        Texts {
            model: self.model,
            heard: self.heard,
            cache: self.cache.fork(),
            seen: self.seen.shallow_clone(),
        }
    }

    /// Makes row i what row `rows[i]` was.
    pub(crate) fn select(&mut self, rows: &[i64]) {
        let now = self.seen.size()[0];
        if rows.len() as i64 == now && rows.iter().copied().eq(0..now) {
            return;
        }
        let rows = Tensor::from_slice(rows).to_device(self.heard.device());
        self.cache.select(&rows);
        self.seen = self.seen.index_select(0, &rows);
    }
}
