//! How a server is asked.

use super::account::{Budget, Prices};
use super::endpoint::Endpoint;
use super::key::Key;
use super::retry::Backoff;
use super::wire::TimeOuts;
use std::path::PathBuf;

/// How a server is asked.
#[derive(Debug)]
pub struct Settings {
    /// Where it is; may be left out where nothing is asked.
    pub endpoint: Option<Endpoint>,
    /// What it knows its user by.
    pub key: Option<Key>,
    /// The folder of answers; without one they are forgotten with the client.
    pub store: Option<PathBuf>,
    /// Nothing is asked: an answer that is not stored is an error.
    pub offline: bool,
    /// Requests that are on their way at once.
    pub at_once: usize,
    /// Requests in any minute.
    pub calls_a_minute: Option<u32>,
    /// Tokens of questions, and of answers as long as they may be, in any minute.
    pub tokens_a_minute: Option<u64>,
    /// What may be spent.
    pub budget: Budget,
    /// What tokens cost.
    pub prices: Option<Prices>,
    /// How long is waited.
    pub times: TimeOuts,
    /// How often a request is tried, the first time included.
    pub tries: u32,
    /// How long is waited in between.
    pub backoff: Backoff,
    /// Most bytes of an answer.
    pub most_bytes: u64,
    /// Of the waits.
    pub seed: u64,
    /// So many requests without an answer, and none with one between, end all.
    pub failures_in_a_row: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            endpoint: None,
            key: None,
            store: None,
            offline: false,
            at_once: 8,
            calls_a_minute: None,
            tokens_a_minute: None,
            budget: Budget::default(),
            prices: None,
            times: TimeOuts::default(),
            tries: 6,
            backoff: Backoff::default(),
            most_bytes: 10 << 20,
            seed: 0,
            failures_in_a_row: 20,
        }
    }
}
