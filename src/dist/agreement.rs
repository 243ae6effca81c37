//! What must be the same on all ranks. Each brings it as keys and values; a hash says whether it is, and where it is not the ranks
//! that differ are named, with their keys.

use super::meeting::{ask, names, Table};
use super::words::words;
use crate::error::short;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Keys and their values, as people read them.
pub type Facts = Vec<(String, String)>;

/// So many keys of a rank are told…
const MOST_KEYS: usize = 12;
/// …of so many kinds of ranks.
const MOST_KINDS: usize = 4;
/// How long rank 0, which may host the store, stays for the others to read why nobody goes on.
const FAREWELL: Duration = Duration::from_secs(5);

/// `a.b` for keys; of a list by its items' names where they have some, else by their numbers.
pub(crate) fn flatten(at: &str, value: &Value, all: &mut Facts) {
    let below = |key: &str| match at {
        "" => key.to_owned(),
        at => format!("{at}.{key}"),
    };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                flatten(&below(key), value, all);
            }
        }
        Value::Array(items) => {
            all.push((at.to_owned(), format!("{} items", items.len())));
            for (i, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(Value::as_str);
                flatten(&below(name.unwrap_or(&i.to_string())), item, all);
            }
        }
        Value::String(text) => all.push((at.to_owned(), text.clone())),
        other => all.push((at.to_owned(), other.to_string())),
    }
}

fn hash(facts: &Facts) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for text in facts.iter().flat_map(|(key, value)| [key, value]) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize()
}

/// The hash as numbers that a reduction carries without rounding.
pub(super) fn numbers(facts: &Facts) -> Vec<f64> {
    let bytes = hash(facts);
    let whole = |six: &[u8]| six.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)) as f64;
    bytes.as_bytes().chunks(6).map(whole).collect()
}

/// None where all ranks have brought the same, else what differs: the same text on all of them.
///
/// # Errors
/// Who said nothing in time; a store that fails.
pub(super) fn compare(table: Table, key: &str, facts: &Facts) -> Result<Option<String>, String> {
    let failed = |e: tch::TchError| words(&e);
    let at = |rank: usize| format!("{key}/facts/{rank}");
    let text = serde_json::to_string(facts).map_err(|e| e.to_string())?;
    table.store.set(&at(table.rank), &text).map_err(failed)?;
    let said = ask(table, key, hash(facts).to_hex().as_str(), |hashes| {
        let mut kinds: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
        for (rank, hash) in hashes.iter().enumerate() {
            kinds.entry(hash).or_default().push(rank);
        }
        if kinds.len() == 1 {
            return Ok(String::new());
        }
        let mut kinds: Vec<Vec<usize>> = kinds.into_values().collect();
        // The most; of equally many those with the first rank.
        kinds.sort_by_key(|ranks| (usize::MAX - ranks.len(), ranks[0]));
        let mut read = Vec::new();
        for ranks in kinds.into_iter().take(1 + MOST_KINDS) {
            let text = table
                .store
                .get(&at(ranks[0]))
                .map_err(failed)?
                .unwrap_or_default();
            read.push((ranks, serde_json::from_str(&text).unwrap_or_default()));
        }
        Ok(differences(&read))
    })?;
    if said.is_empty() {
        return Ok(None);
    }
    let heard = |rank: usize| format!("{key}/heard/{rank}");
    if table.rank > 0 {
        table.store.set(&heard(table.rank), "").map_err(failed)?;
    } else {
        let until = Instant::now() + FAREWELL;
        let table = Table { until, ..table };
        for other in 1..table.world {
            table.wait(&heard(other))?;
        }
    }
    Ok(Some(said))
}

/// What all but the first have otherwise than the first.
fn differences(kinds: &[(Vec<usize>, Facts)]) -> String {
    let Some(((most, theirs), others)) = kinds.split_first() else {
        return String::new();
    };
    let ranks = |all: &[usize]| format!("rank{} {}", if all.len() == 1 { "" } else { "s" }, names(all));
    let (them, value) = (ranks(most), |v: Option<&&String>| {
        v.map_or("nothing".into(), |v| short(v))
    });
    let theirs: BTreeMap<&String, &String> = theirs.iter().map(|(k, v)| (k, v)).collect();
    let mut text = String::new();
    for (who, own) in others {
        let own: BTreeMap<&String, &String> = own.iter().map(|(k, v)| (k, v)).collect();
        let mut keys: Vec<&&String> = own.keys().chain(theirs.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|k| own.get(**k) != theirs.get(**k));
        let us = ranks(who);
        let verb = if who.len() == 1 { "differs" } else { "differ" };
        text += &format!(
            "{}{us} {verb} from {them}:",
            if text.is_empty() { "" } else { "\n" }
        );
        for key in keys.iter().take(MOST_KEYS) {
            let (own, theirs) = (value(own.get(**key)), value(theirs.get(**key)));
            text += &format!("\n  {key}: {own} on {us}, {theirs} on {them}");
        }
        if keys.len() > MOST_KEYS {
            text += &format!("\n  and {} more", keys.len() - MOST_KEYS);
        }
    }
    // What a store carries ends at a zero.
    text.replace('\0', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::c10d::{Host, Store, StoreServer};

    fn facts(of: &[(&str, &str)]) -> Facts {
        of.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    /// What each rank hears.
    fn heard(all: &[Facts]) -> Vec<Option<String>> {
        let server = StoreServer::start().unwrap();
        let one = |rank: usize, facts: &Facts| {
            let timeout = Duration::from_secs(20);
            let store = Store::open("127.0.0.1", server.port, Host::Other, timeout).unwrap();
            let table = Table {
                store: &store,
                rank,
                world: all.len(),
                until: Instant::now() + timeout,
            };
            compare(table, "k", facts).unwrap()
        };
        std::thread::scope(|scope| {
            let one = &one;
            let all = all.iter().enumerate();
            let all: Vec<_> = all.map(|(rank, f)| scope.spawn(move || one(rank, f))).collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        })
    }

    #[test]
    fn who_differs_is_named_with_the_keys_on_all_ranks() {
        let same = facts(&[("seed", "1"), ("precision", "fp32")]);
        assert_eq!(
            heard(&[same.clone(), same.clone(), same.clone()]),
            [None, None, None]
        );
        let other = facts(&[("seed", "2"), ("precision", "fp32"), ("more", "x")]);
        let expected = "rank 1 differs from ranks 0, 2:\n  more: x on rank 1, nothing on ranks 0, 2\n  \
                        seed: 2 on rank 1, 1 on ranks 0, 2";
        for said in heard(&[same.clone(), other.clone(), same.clone()]) {
            assert_eq!(said.as_deref(), Some(expected));
        }
        // Of two the first is right, and the majority of three even where the first is not in it.
        let two = heard(&[same.clone(), other.clone()]);
        assert!(
            two[1]
                .as_ref()
                .unwrap()
                .starts_with("rank 1 differs from rank 0:"),
            "{two:?}"
        );
        let three = heard(&[other, same.clone(), same]);
        assert!(
            three[0]
                .as_ref()
                .unwrap()
                .starts_with("rank 0 differs from ranks 1, 2:"),
            "{three:?}"
        );
    }

    #[test]
    fn a_key_that_runs_into_its_value_is_another_key() {
        assert_ne!(numbers(&facts(&[("ab", "c")])), numbers(&facts(&[("a", "bc")])));
        let n = numbers(&facts(&[("a", "b")]));
        assert!(n.len() == 6 && n.iter().all(|n| *n < (1u64 << 48) as f64));
    }
}
