//! How ranks agree on which round of a run this is. A store may outlive many: torchrun's agents keep theirs over restarts, and do
//! not count these alike on every node.

use crate::error::short;
use crate::ffi::c10d::Store;
use std::collections::HashMap;
use std::time::{Duration, Instant};

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
/// Who did not come within the timeout; a store that fails.
pub(super) fn round(
    store: &Store,
    rank: usize,
    world: usize,
    again: bool,
    timeout: Duration,
) -> Result<String, String> {
    let until = Instant::now() + timeout;
    let failed = |e: tch::TchError| short(&e);
    let word = format!("{:016x}", rand::random::<u64>());
    if rank > 0 {
        store.set(&format!("af2/knock/{rank}"), &word).map_err(failed)?;
        let answer = format!("af2/answer/{word}");
        while Instant::now() < until {
            if let Some(round) = store.get(&answer).map_err(failed)? {
                store.set(&format!("{round}/here/{rank}"), "").map_err(failed)?;
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
            let names: Vec<String> = away.iter().take(16).map(usize::to_string).collect();
            let more = if away.len() > 16 { ", …" } else { "" };
            return Err(format!(
                "{} did not come: {}{more}",
                count(away.len()),
                names.join(", ")
            ));
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

fn count(ranks: usize) -> String {
    match ranks {
        1 => "a rank".into(),
        n => format!("{n} ranks"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::c10d::StoreServer;

    fn meet(port: u16, world: usize) -> Vec<String> {
        let one = |rank: usize| {
            let store = Store::open("127.0.0.1", port, false, Duration::from_secs(20)).unwrap();
            round(&store, rank, world, false, Duration::from_secs(20)).unwrap()
        };
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
        let store = Store::open("127.0.0.1", server.port, false, Duration::from_secs(5)).unwrap();
        let e = round(&store, 0, 3, false, Duration::from_millis(200)).unwrap_err();
        assert_eq!(e, "2 ranks did not come: 1, 2");
        let e = round(&store, 1, 3, false, Duration::from_millis(200)).unwrap_err();
        assert_eq!(e, "rank 0 did not answer");
    }
}
