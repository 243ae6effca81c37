//! Items in batches, shuffled, pass after pass: what jobs with all their items in memory train on.

use crate::data::order::Cursor;
use crate::dist::Ranks;
use crate::error::{Error, Result};
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use std::collections::VecDeque;

/// Shuffles a pass and cuts it into batches of items' numbers; never into none.
type Deal<'a> = Box<dyn FnMut(&mut ChaCha8Rng) -> Vec<Vec<usize>> + 'a>;

/// Batches one after another, the same on any number of ranks: each takes its turn.
pub(crate) struct Deck<'a> {
    rng: ChaCha8Rng,
    deal: Deal<'a>,
    ready: VecDeque<Vec<usize>>,
    /// Where the run is: passes dealt, and batches of all of them that all ranks together have had.
    at: Cursor,
    rank: usize,
    world: usize,
}

impl<'a> Deck<'a> {
    /// `order` names all that decides which items follow each other, and `size` how many are in a batch.
    pub(crate) fn new(seed: u64, order: String, size: usize, ranks: &Ranks, deal: Deal<'a>) -> Self {
        Deck {
            rng: ChaCha8Rng::seed_from_u64(seed),
            deal,
            ready: VecDeque::new(),
            at: Cursor {
                size: size as u64,
                order,
                ..Cursor::default()
            },
            rank: ranks.rank,
            world: ranks.world.max(1),
        }
    }

    /// Goes to where a run was.
    ///
    /// # Errors
    /// A run of other items, or in other batches.
    pub(crate) fn go_to(&mut self, place: &Cursor) -> Result<()> {
        if place.order.is_empty() {
            return Ok(());
        }
        if (&place.order, place.size) != (&self.at.order, self.at.size) {
            return Err(Error::Training {
                message: format!(
                    "the run to go on from had other items or batches: {} in batches of {}, now {} in batches of {}",
                    place.order, place.size, self.at.order, self.at.size
                ),
                hint: Some("without --resume it begins anew".into()),
            });
        }
        while self.at.batches < place.batches {
            self.turn();
        }
        Ok(())
    }

    fn turn(&mut self) -> Vec<usize> {
        self.at.batches += 1;
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return batch;
            }
            self.at.epoch += 1;
            self.ready = (self.deal)(&mut self.rng).into();
        }
    }

    /// This rank's next batch, and the place behind those of all ranks.
    pub(crate) fn next(&mut self) -> (Vec<usize>, Cursor) {
        let mut own = Vec::new();
        for rank in 0..self.world {
            let batch = self.turn();
            if rank == self.rank {
                own = batch;
            }
        }
        (own, self.at.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::seq::SliceRandom;

    fn deck(rank: usize, world: usize) -> Deck<'static> {
        let mut ranks = Ranks::alone();
        (ranks.rank, ranks.world) = (rank, world);
        let deal = |rng: &mut ChaCha8Rng| {
            let mut all: Vec<usize> = (0..7).collect();
            all.shuffle(rng);
            all.chunks(3).map(<[usize]>::to_vec).collect()
        };
        Deck::new(1, "seven".into(), 3, &ranks, Box::new(deal))
    }

    #[test]
    fn ranks_share_the_batches_of_one_and_a_run_goes_on_where_it_was() {
        let mut alone = deck(0, 1);
        let all: Vec<_> = (0..12).map(|_| alone.next().0).collect();
        let [mut first, mut second] = [deck(0, 2), deck(1, 2)];
        let shared: Vec<_> = (0..6).flat_map(|_| [first.next().0, second.next().0]).collect();
        assert_eq!(shared, all);
        // From the middle of a pass, on another number of ranks.
        let mut alone = deck(0, 1);
        let place = (0..4).map(|_| alone.next().1).last().unwrap();
        assert_eq!((place.epoch, place.batches), (2, 4));
        let mut second = deck(1, 2);
        second.go_to(&place).unwrap();
        assert_eq!(second.next().0, all[5]);
        let other = Cursor { size: 4, ..place };
        let e = deck(0, 1).go_to(&other).unwrap_err().to_string();
        assert!(e.contains("in batches of 4, now seven in batches of 3"), "{e}");
    }
}
