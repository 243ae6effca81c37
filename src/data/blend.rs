//! The reference's order of items: sets by weight, virtual epochs, a new shuffle at each wrap-around.
//!
//! Epoch `e` of a set of `n` items with weight `w` (the global weight times its own) takes the positions
//! `⌊e·n·w⌋ … ⌊(e+1)·n·w⌋` of an endless row of passes over the set. Every pass is shuffled anew by numpy's generator,
//! seeded by the set's name; a slice that begins inside a later pass reads the first pass's order until it comes to
//! that pass's end (a quirk of the reference, kept: golden lists depend on it).

use super::item::Item;
use super::manifest::Manifest;
use super::numpy::{randperm, DefaultRng};
use crate::error::{Error, Result};
use std::path::Path;

/// From here on doubles lie further apart than one.
const MOST_POSITIONS: f64 = (1u64 << 53) as f64;
/// Items of an epoch that are taken for a mistake.
const MOST_ITEMS: f64 = (1u64 << 30) as f64;

/// A data set with its share.
pub struct Set {
    /// As the configuration writes it: `Clotho-AQA-AQA/train`. Its characters seed the shuffle.
    pub name: String,
    /// Its items.
    pub manifest: Manifest,
    /// How often an epoch passes over it, times [`Blend::global_weight`].
    pub weight: f64,
}

/// Sets in the configuration's order.
pub struct Blend {
    /// In the order of the configuration.
    pub sets: Vec<Set>,
    /// Multiplies every weight: 0.005 makes 200 virtual epochs of one pass.
    pub global_weight: f64,
}

/// An item of a blend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Index of its set.
    pub set: usize,
    /// Index in the set's manifest.
    pub item: usize,
}

impl Blend {
    /// The items of a virtual epoch, set after set.
    pub fn epoch(&self, epoch: u64) -> Vec<Pick> {
        let mut picks = Vec::new();
        for (set, s) in self.sets.iter().enumerate() {
            let share = self.share(set, epoch);
            let order = s.manifest.file_order();
            picks.extend(
                slice(&s.name, &order, share.start, share.end)
                    .into_iter()
                    .map(|item| Pick { set, item }),
            );
        }
        picks
    }

    /// Fails where an epoch cannot be made: so far away that double precision does not tell its positions apart, or with
    /// more items than any run sees.
    pub(crate) fn reaches(&self, epoch: u64) -> Result<()> {
        let mut items = 0.0;
        for (set, s) in self.sets.iter().enumerate() {
            let (from, to) = self.positions(set, epoch);
            // A NaN is not below either.
            if !(to < MOST_POSITIONS && epoch < MOST_POSITIONS as u64) {
                let each = self.positions(set, 0).1.max(1.0);
                let most = ((MOST_POSITIONS / each) as u64).saturating_sub(1);
                let expected = format!("a virtual epoch up to {most}");
                return Err(
                    Error::data(&s.manifest.path, "epoch", expected, epoch.to_string())
                        .hint("the reference counts positions in double precision, which ends there"),
                );
            }
            items += to - from;
        }
        if items > MOST_ITEMS {
            let message = format!("an epoch of {items:.0} items, and at most {MOST_ITEMS:.0} are made");
            return Err(Error::recipe("weights", message)
                .hint("a set's weight times the global weight is how often an epoch passes over the set"));
        }
        Ok(())
    }

    /// Reads an item.
    ///
    /// # Errors
    /// A manifest or shard that cannot be read any more.
    pub fn item(&self, pick: Pick) -> Result<Item> {
        self.sets[pick.set].manifest.item(pick.item)
    }

    /// `task|path`, the reference's line for an item; the path is relative to the data root.
    pub fn line(&self, pick: Pick, item: &Item) -> String {
        let manifest = &self.sets[pick.set].manifest;
        let path = manifest.audio_path(Path::new(""), item);
        format!("{}|{}", manifest.task, path.display())
    }

    /// Items of all sets, each once.
    pub fn len(&self) -> usize {
        self.sets.iter().map(|s| s.manifest.len()).sum()
    }

    /// Whether no set has an item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The positions of a set's endless row that a virtual epoch takes.
    pub(super) fn share(&self, set: usize, epoch: u64) -> std::ops::Range<u64> {
        let (from, to) = self.positions(set, epoch);
        from as u64..to as u64
    }

    fn positions(&self, set: usize, epoch: u64) -> (f64, f64) {
        let n = self.sets[set].manifest.len() as u128;
        let weight = self.global_weight * self.sets[set].weight;
        // From left to right, as the reference computes it: the first product is Python's, of whole numbers.
        let at = |epoch: u128| (epoch * n) as f64 * weight;
        (at(u128::from(epoch)), at(u128::from(epoch) + 1))
    }

    /// Keeps a random part of each set, for ablations of the amount of data: the same part for the same seed.
    pub fn keep(&mut self, fraction: f64, seed: u64) {
        for set in &mut self.sets {
            let n = set.manifest.len();
            let mut chosen: Vec<usize> = (0..n).collect();
            DefaultRng::new(character_sum(&set.name).wrapping_add(seed)).shuffle(&mut chosen);
            chosen.truncate((n as f64 * fraction).round() as usize);
            set.manifest.retain(&chosen);
        }
    }
}

/// Positions `from..to` of the endless row of a set's passes, as items.
fn slice(name: &str, file_order: &[usize], from: u64, to: u64) -> Vec<usize> {
    let n = file_order.len() as u64;
    if n == 0 || from >= to {
        return Vec::new();
    }
    let first = pass(file_order, character_sum(name));
    let mut current = first.clone();
    let mut out = Vec::with_capacity((to - from) as usize);
    for at in from..to {
        if at > 0 && at % n == 0 {
            // The first order is shuffled again, not the one before.
            let seed = character_sum(&format!("{name}-epoch-{}", at / n));
            current = reshuffled(&first, file_order, seed);
        }
        out.push(current[(at % n) as usize]);
    }
    out
}

/// The first pass: which item stands under each number.
fn pass(file_order: &[usize], seed: u64) -> Vec<usize> {
    let own: Vec<usize> = (0..file_order.len()).collect();
    reshuffled(&own, file_order, seed)
}

/// Gives the item under each key to another key: keys are shuffled in the order in which the file has them.
fn reshuffled(items: &[usize], file_order: &[usize], seed: u64) -> Vec<usize> {
    let mut keys = file_order.to_vec();
    DefaultRng::new(seed).shuffle(&mut keys);
    let mut out = vec![0; items.len()];
    for (to, from) in file_order.iter().zip(keys) {
        out[*to] = items[from];
    }
    out
}

/// The seed that the reference makes of a name: the sum of its code points.
fn character_sum(name: &str) -> u64 {
    name.chars().map(|c| u64::from(u32::from(c))).sum()
}

/// The part of an epoch of `n` items that a rank sees, in its order, as torch's `DistributedSampler(shuffle=True,
/// seed=0)`: a permutation by the epoch's number, filled up from its beginning to a multiple of `world`, dealt out in
/// turn.
pub(crate) fn sampled(n: usize, epoch: u64, rank: usize, world: usize) -> Vec<usize> {
    if n == 0 {
        return Vec::new();
    }
    let (order, world) = (randperm(n, epoch), world.max(1));
    // More ranks than can be counted to see an item each at most.
    let total = n.checked_next_multiple_of(world).unwrap_or(usize::MAX);
    (rank..total).step_by(world).map(|i| order[i % n]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_an_epoch_and_the_last_round_is_filled_from_its_beginning() {
        let ranks: Vec<Vec<usize>> = (0..3).map(|r| sampled(7, 5, r, 3)).collect();
        assert!(ranks.iter().all(|r| r.len() == 3));
        let mut dealt: Vec<usize> = (0..9).map(|i| ranks[i % 3][i / 3]).collect();
        assert_eq!(dealt[..7], randperm(7, 5));
        assert_eq!(dealt[7..], randperm(7, 5)[..2]);
        dealt.truncate(7);
        dealt.sort_unstable();
        assert_eq!(dealt, [0, 1, 2, 3, 4, 5, 6]);
        assert!(sampled(0, 0, 0, 2).is_empty());
        assert_eq!(sampled(7, 5, 1, usize::MAX), randperm(7, 5)[1..2]);
    }
}
