//! Which items a rank sees, batch by batch, epoch by epoch, from any point on.

use super::blend::{sampled, Blend, Pick};
use super::bucket::{self, Length, Limits};
use crate::error::{Error, Result};
use rand::seq::SliceRandom;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What mixes the items of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixing {
    /// Every pass over a set is shuffled by the run's seed, and the sets are riffled together; shards are read from front
    /// to back, in another order in every pass. Each item of an epoch is seen by one rank.
    #[default]
    Seeded,
    /// The reference's own: numpy's shuffle seeded by the sets' names, then torch's `DistributedSampler`, which repeats
    /// some items where they do not divide by the ranks.
    Reference,
}

/// How an epoch is cut.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Batching {
    /// So many items; an epoch's last batch may be smaller.
    Fixed(usize),
    /// Items of like length, under a bound.
    Budget(Limits),
}

/// Everything that decides an order.
pub struct Order {
    /// The sets and their shares.
    pub blend: Blend,
    /// How they are mixed.
    pub mixing: Mixing,
    /// How items become batches.
    pub batching: Batching,
    /// Of all shuffles.
    pub seed: u64,
    /// This rank, from 0.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// Batches of each rank that make one optimizer step. An epoch ends with a step, whose batches are halved where there
    /// are too few: so the same steps are made however their batches are spread over ranks and micro-steps.
    pub micro_steps: usize,
}

/// Where a run is in its data. The same on every rank after the same number of batches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// The epoch in work, from 0.
    pub epoch: u64,
    /// Batches of this epoch that all ranks together have had.
    pub batches: u64,
    /// Items of each of them, where they have a fixed number: other ranks may go on in batches of another size.
    #[serde(default)]
    pub size: u64,
    /// `Order::fingerprint`: another order has other items behind the same numbers. Empty for the beginning.
    #[serde(default)]
    pub order: String,
}

impl Cursor {
    /// Reads what [`Cursor::write`] wrote; the beginning where there is no file.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Cursor::default());
        }
        let text = crate::fsutil::read_text_within(path, MOST_CURSOR)?;
        serde_json::from_str(&text)
            .map_err(|e| Error::data(path, format!("line {}", e.line()), "a cursor", e.to_string()))
    }

    /// Writes it as JSON, whole or not at all.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        crate::fsutil::write_json(path, &serde_json::json!(self))
    }
}

/// A cursor's file is a line.
const MOST_CURSOR: u64 = 1 << 16;
/// No run comes so far in anything.
const MOST: u64 = 1 << 53;

/// One rank's part of an epoch, from a cursor on.
#[derive(Debug)]
pub struct Epoch {
    /// The epoch's items, of all ranks.
    pub picks: Vec<Pick>,
    /// This rank's batches, as indices of `picks`. Every rank has as many; one is empty only where an epoch's end holds
    /// fewer items than there are ranks.
    pub batches: Vec<Vec<usize>>,
    /// Where the run is after each of them.
    pub after: Vec<Cursor>,
}

impl Order {
    /// A short hash of all that decides the order. The number of ranks and the size of batches are part of it in the
    /// reference's own only: other orders go on with any number, in batches of any size.
    pub(crate) fn fingerprint(&self) -> String {
        let sets: Vec<_> = (self.blend.sets.iter())
            .map(|s| (&s.name, s.manifest.len(), s.weight))
            .collect();
        let reference = self.mixing == Mixing::Reference;
        let batching = match &self.batching {
            Batching::Fixed(_) if !reference => None,
            own => Some(own),
        };
        let world = reference.then_some(self.world);
        let all = serde_json::json!([
            sets,
            self.blend.global_weight,
            self.mixing,
            batching,
            self.seed,
            world
        ]);
        blake3::hash(all.to_string().as_bytes()).to_hex()[..16].to_owned()
    }

    /// What is left of the cursor's epoch for this rank. `lengths` is asked where batches depend on them.
    ///
    /// # Errors
    /// A cursor of another order; what `lengths` fails with.
    pub fn epoch(
        &self,
        from: &Cursor,
        lengths: impl FnOnce(&Blend, &[Pick]) -> Result<Vec<Length>>,
    ) -> Result<Epoch> {
        let order = self.fingerprint();
        if !from.order.is_empty() && from.order != order {
            return Err(Error::Training {
                message: format!("the data cursor is of another order: {}, not {order}", from.order),
                hint: Some(
                    "sets, weights, seed, batches and data.order must be those of the run that is resumed"
                        .into(),
                ),
            });
        }
        let epoch = from.epoch;
        if epoch.max(from.batches).max(from.size) >= MOST {
            return Err(Error::Training {
                message: format!("the data cursor is at {from:?}, where no run comes"),
                hint: Some("its file or checkpoint is damaged".into()),
            });
        }
        self.blend.reaches(epoch)?;
        let (picks, batches) = match (self.mixing, &self.batching) {
            (Mixing::Reference, Batching::Fixed(size)) => {
                let picks = self.blend.epoch(epoch);
                let own = sampled(picks.len(), epoch, self.rank, self.world);
                let batches = own.chunks((*size).max(1)).map(<[_]>::to_vec);
                let past = from.batches as usize / self.world.max(1);
                let batches = batches.skip(past).collect();
                (picks, batches)
            }
            (mixing, batching) => {
                let picks: Vec<Pick> = match mixing {
                    Mixing::Seeded => self.riffled(epoch),
                    Mixing::Reference => {
                        let picks = self.blend.epoch(epoch);
                        let order = sampled(picks.len(), epoch, 0, 1);
                        order.into_iter().map(|i| picks[i]).collect()
                    }
                };
                let all: Vec<usize> = (0..picks.len()).collect();
                let batches = match batching {
                    Batching::Fixed(size) => all.chunks((*size).max(1)).map(<[_]>::to_vec).collect(),
                    Batching::Budget(limits) => {
                        let lengths = lengths(&self.blend, &picks)?;
                        bucket::batches(&lengths, limits, self.seed.wrapping_add(epoch))
                    }
                };
                let batches = deal(
                    batches,
                    self.past(from)?,
                    self.rank,
                    self.world.max(1),
                    self.micro_steps.max(1),
                );
                (picks, batches)
            }
        };
        let world = self.world.max(1) as u64;
        let past = self.past(from)? as u64;
        let after = (1..=batches.len() as u64).map(|n| match n == batches.len() as u64 {
            true => (epoch + 1, 0),
            false => (epoch, past + n * world),
        });
        let after = after.map(|(epoch, batches)| Cursor {
            epoch,
            batches,
            size: self.size(),
            order: order.clone(),
        });
        Ok(Epoch {
            after: after.collect(),
            picks,
            batches,
        })
    }

    /// Items of every batch but an epoch's last ones; 0 where that differs.
    fn size(&self) -> u64 {
        match self.batching {
            Batching::Fixed(size) => size.max(1) as u64,
            Batching::Budget(_) => 0,
        }
    }

    /// Batches, of our own size, that a cursor is behind.
    fn past(&self, from: &Cursor) -> Result<usize> {
        let (theirs, own) = (from.size, self.size());
        if theirs == own || theirs == 0 || own == 0 {
            return Ok(from.batches as usize);
        }
        let items = from.batches.saturating_mul(theirs);
        if items % own != 0 {
            return Err(Error::Training {
                message: format!(
                    "the data cursor is behind {items} items, which batches of {own} do not reach"
                ),
                hint: Some(format!(
                    "`batch_size: {theirs}` in the stage's `optim` goes on as the run was"
                )),
            });
        }
        Ok((items / own) as usize)
    }

    /// An epoch's items: of each set the next stretch of an endless row of shuffled passes, riffled together so that each
    /// set's own order stays (what is read from front to back stays so).
    fn riffled(&self, epoch: u64) -> Vec<Pick> {
        let mut deck = Vec::new();
        let mut rows = Vec::new();
        for set in 0..self.blend.sets.len() {
            let row = self.stretch(set, self.blend.share(set, epoch));
            deck.extend(std::iter::repeat_n(set, row.len()));
            rows.push(row.into_iter());
        }
        deck.shuffle(&mut rng(self.seed, &[1, epoch]));
        deck.into_iter()
            .filter_map(|set| {
                Some(Pick {
                    set,
                    item: rows[set].next()?,
                })
            })
            .collect()
    }

    fn stretch(&self, set: usize, positions: std::ops::Range<u64>) -> Vec<usize> {
        let manifest = &self.blend.sets[set].manifest;
        let n = manifest.len() as u64;
        if n == 0 {
            return Vec::new();
        }
        let mut out = Vec::new();
        let mut at = positions.start;
        while at < positions.end {
            let pass = at / n;
            let mut rng = rng(self.seed, &[2, set as u64, pass]);
            let mut own: Vec<usize> = (0..manifest.len()).collect();
            if manifest.in_shards() {
                let mut shards: Vec<&[usize]> = own
                    .chunk_by(|a, b| manifest.shard(*a) == manifest.shard(*b))
                    .collect();
                shards.shuffle(&mut rng);
                own = shards.concat();
            } else {
                own.shuffle(&mut rng);
            }
            let end = positions.end.min((pass + 1) * n);
            out.extend_from_slice(&own[(at % n) as usize..(end - pass * n) as usize]);
            at = end;
        }
        out
    }
}

fn rng(seed: u64, of: &[u64]) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    for n in std::iter::once(&seed).chain(of) {
        hasher.update(&n.to_le_bytes());
    }
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// A rank's batches of those behind the first `past`: every `world`-th. The last step is made whole by halving its
/// largest batches, so that every rank takes as many and each item is seen once.
fn deal(
    mut all: Vec<Vec<usize>>,
    past: usize,
    rank: usize,
    world: usize,
    micro_steps: usize,
) -> Vec<Vec<usize>> {
    let mut left = all.split_off(past.min(all.len()));
    let step = world * micro_steps;
    let over = left.len() % step;
    if over > 0 {
        let mut last = left.split_off(left.len() - over);
        while last.len() < step {
            let largest = (0..last.len()).max_by_key(|i| (last[*i].len(), std::cmp::Reverse(*i)));
            let half = match largest.map(|i| &mut last[i]) {
                Some(batch) if batch.len() > 1 => batch.split_off(batch.len().div_ceil(2)),
                _ => Vec::new(),
            };
            last.push(half);
        }
        left.extend(last);
    }
    left.into_iter().skip(rank).step_by(world).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_gets_as_many_batches_and_every_item_is_dealt_once() {
        for (items, size) in [(0, 3), (1, 3), (7, 3), (12, 4), (13, 4), (5, 1), (40, 7)] {
            for (world, micro) in [(1, 1), (2, 1), (3, 1), (5, 1), (1, 4), (2, 2), (4, 1), (3, 2)] {
                let all: Vec<usize> = (0..items).collect();
                let batches: Vec<Vec<usize>> = all.chunks(size).map(<[_]>::to_vec).collect();
                let step = world * micro;
                let ranks: Vec<_> = (0..world)
                    .map(|r| deal(batches.clone(), 0, r, world, micro))
                    .collect();
                assert!(ranks
                    .iter()
                    .all(|r| r.len() == batches.len().div_ceil(step) * micro));
                assert!(ranks.iter().flatten().all(|b| b.len() <= size));
                let mut seen: Vec<usize> = ranks.concat().concat();
                seen.sort_unstable();
                assert_eq!(seen, all, "{items} items in {size}s for {world}");
                // However a step is spread, it holds the same batches.
                for (i, batch) in deal(batches.clone(), 0, 0, 1, step).iter().enumerate() {
                    assert_eq!(*batch, ranks[i % world][i / world]);
                }
                // From a later step on the rest is the same.
                if let Some(later) = batches.len().checked_sub(step) {
                    let past = later / step * step;
                    for (rank, whole) in ranks.iter().enumerate() {
                        let rest = deal(batches.clone(), past, rank, world, micro);
                        assert_eq!(rest, whole[past / world..]);
                    }
                }
            }
        }
    }
}
