//! How ranks agree on which round of a run this is. A store may outlive many: torchrun's agents keep theirs over restarts, and do
//! not count these alike on every node.

use super::words::words;
use crate::ffi::c10d::Store;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A store, and who asks it until when.
#[derive(Clone, Copy)]
pub(super) struct Table<'s> {
    pub store: &'s Store,
    pub rank: usize,
    pub world: usize,
    pub until: Instant,
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Set by the first round of a store.
const BEGUN: &str = "af2/begun";
/// Ends the name of a round that is not the first.
const AGAIN: char = '+';

/// Whether a round is one of a run that was started again.
pub(super) fn is_again(round: &str) -> bool {
    round.ends_with(AGAIN)
}

/// The round's name, the same on all ranks and never used before; `again` of rank 0 says that the run was started again, which
/// the store knows too where it has outlived a round. Every rank knocks with a word of its own; rank 0 answers each
/// word, and what an earlier round has left there cannot be taken for a knock, as nobody confirms the answer.
///
/// # Errors
/// Who did not come in time; a store that fails.
pub(super) fn round(table: Table, again: bool) -> Result<String, String> {
    let Table {
        store,
        rank,
        world,
        until,
    } = table;
    let failed = |e: tch::TchError| words(&e);
    let word = format!("{:016x}", rand::random::<u64>());
    if rank > 0 {
        store.set(&format!("af2/knock/{rank}"), &word).map_err(failed)?;
        let answer = format!("af2/answer/{word}");
        while Instant::now() < until {
            if let Some(round) = store.get(&answer).map_err(failed)? {
                store
                    .set(&format!("{round}/here/{rank}"), &word)
                    .map_err(failed)?;
                return Ok(round);
            }
            std::thread::sleep(LOOK);
        }
        return Err("rank 0 did not answer".into());
    }
    let again = again || store.get(BEGUN).map_err(failed)?.is_some();
    store.set(BEGUN, "").map_err(failed)?;
    let end = if again { AGAIN.to_string() } else { String::new() };
    let round = format!("af2/round/{word}{end}");
    let mut away: Vec<usize> = (1..world).collect();
    let mut answered: HashMap<usize, String> = HashMap::new();
    while !away.is_empty() {
        if Instant::now() >= until {
            return Err(format!("{} did not come: {}", count(away.len()), names(&away)));
        }
        let mut still = Vec::new();
        for other in away {
            if store
                .get(&format!("{round}/here/{other}"))
                .map_err(failed)?
                .is_some()
            {
                continue;
            }
            let knock = store.get(&format!("af2/knock/{other}")).map_err(failed)?;
            if let Some(knock) = knock.filter(|k| answered.get(&other) != Some(k)) {
                store
                    .set(&format!("af2/answer/{knock}"), &round)
                    .map_err(failed)?;
                answered.insert(other, knock);
            }
            still.push(other);
        }
        away = still;
        std::thread::sleep(LOOK);
    }
    Ok(round)
}

/// Hears every rank's word and lets rank 0 answer all of them: what it makes of the words, in the order of the ranks.
///
/// # Errors
/// Who said nothing in time; a store that fails.
pub(super) fn ask(
    table: Table,
    key: &str,
    own: &str,
    answer: impl FnOnce(&[String]) -> Result<String, String>,
) -> Result<String, String> {
    let Table {
        store, rank, world, ..
    } = table;
    let failed = |e: tch::TchError| words(&e);
    let reply = format!("{key}/answer");
    if rank > 0 {
        store.set(&format!("{key}/{rank}"), own).map_err(failed)?;
        return table.wait(&reply)?.ok_or("rank 0 did not answer".into());
    }
    let mut words = vec![own.to_owned()];
    for other in 1..world {
        match table.wait(&format!("{key}/{other}"))? {
            Some(word) => words.push(word),
            None => return Err(format!("rank {other} did not say what it is")),
        }
    }
    let answer = answer(&words)?;
    store.set(&reply, &answer).map_err(failed)?;
    Ok(answer)
}

impl Table<'_> {
    /// What is under a key, as soon as something is; none where that is not in time.
    pub(super) fn wait(&self, key: &str) -> Result<Option<String>, String> {
        loop {
            let found = self.store.get(key).map_err(|e| words(&e))?;
            if found.is_some() || Instant::now() >= self.until {
                return Ok(found);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Numbers of ranks, for people.
pub(super) fn names(ranks: &[usize]) -> String {
    let names: Vec<String> = ranks.iter().take(16).map(usize::to_string).collect();
    let more = if ranks.len() > 16 { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}

fn count(ranks: usize) -> String {
    match ranks {
        1 => "a rank".into(),
        n => format!("{n} ranks"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::c10d::{Host, StoreServer};

    /// One rank at the table of a server on this machine.
    fn sit<T>(port: u16, rank: usize, world: usize, seconds: f64, say: impl FnOnce(Table) -> T) -> T {
        let timeout = Duration::from_secs(20);
        let store = Store::open("127.0.0.1", port, Host::Other, timeout).unwrap();
        say(Table {
            store: &store,
            rank,
            world,
            until: Instant::now() + Duration::from_secs_f64(seconds),
        })
    }

    fn meet(port: u16, world: usize) -> Vec<String> {
        let one = |rank: usize| sit(port, rank, world, 20.0, |table| round(table, false).unwrap());
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..world).map(|rank| scope.spawn(move || one(rank))).collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        })
    }

    #[test]
    fn every_round_in_one_store_is_another() {
        let server = StoreServer::start().unwrap();
        let first = meet(server.port, 3);
        let second = meet(server.port, 3);
        for all in [&first, &second] {
            assert!(all.iter().all(|r| *r == all[0]), "{all:?}");
        }
        assert_ne!(first[0], second[0]);
        assert!(!is_again(&first[0]) && is_again(&second[0]));
    }

    #[test]
    fn who_does_not_come_is_named() {
        let server = StoreServer::start().unwrap();
        let alone = |rank: usize| {
            sit(server.port, rank, 3, 0.2, |table| {
                round(table, false).unwrap_err()
            })
        };
        assert_eq!(alone(0), "2 ranks did not come: 1, 2");
        assert_eq!(alone(1), "rank 0 did not answer");
    }
}
