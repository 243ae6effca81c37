//! A provider's files: requests that are handed in together, and their answers a day later for half the price.

use super::answer::{Answers, Failure, Outcome, Why};
use super::client::Client;
use super::halt::lock;
use super::request::{Dialect, Request};
use super::store::lines;
use crate::error::{Error, Result};
use crate::fsutil::write_atomic;
use indexmap::IndexMap;
use serde_json::{json, Value};
use std::path::Path;
use std::sync::Mutex;

/// What every provider's files call it.
const URL: &str = "/v1/chat/completions";

/// Answers from a client's store alone, and collects what is not there.
pub struct Pending<'a> {
    client: &'a Client,
    missing: Mutex<IndexMap<String, Request>>,
}

/// What a file of answers held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchRead {
    /// Answers that are stored now.
    pub taken: usize,
    /// Answers that were there already.
    pub known: usize,
    /// Requests that the provider has not answered, or not in the form of chat completions.
    pub failed: usize,
    /// Answers to requests that are not asked here.
    pub others: usize,
}

impl<'a> Pending<'a> {
    /// Beside a client.
    pub fn new(client: &'a Client) -> Self {
        Pending {
            client,
            missing: Mutex::default(),
        }
    }

    /// How many requests wait for an answer.
    pub fn len(&self) -> usize {
        lock(&self.missing).len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what waits: to be asked again with more in the store.
    pub fn clear(&self) {
        lock(&self.missing).clear();
    }

    /// Writes what waits as JSON lines of `custom_id` (the request's hash), `method`, `url` and `body`.
    ///
    /// # Errors
    /// A sound that cannot be read, a file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let missing = lock(&self.missing);
        let dialect = Dialect {
            schema: true,
            completion_tokens: false,
        };
        write_atomic(path, |out| {
            for (hash, request) in missing.iter() {
                let body = request.body(dialect)?;
                let line = json!({"custom_id": hash, "method": "POST", "url": URL, "body": body});
                writeln!(out, "{line}").map_err(|e| Error::io(path, e))?;
            }
            Ok(())
        })
    }

    /// Stores a file's answers to what waits.
    ///
    /// # Errors
    /// A line that is none of such a file.
    pub fn read(&self, path: &Path) -> Result<BatchRead> {
        let missing = lock(&self.missing);
        let mut read = BatchRead::default();
        lines(path, |place, line| {
            if line.trim_ascii().is_empty() {
                return Ok(());
            }
            let wrong = |expected: &str, found: &dyn std::fmt::Display| {
                Error::data(path, place, expected, crate::error::short(found))
            };
            let line: Value =
                serde_json::from_slice(line).map_err(|e| wrong("a batch's answer as JSON", &e))?;
            let Some(id) = line.get("custom_id").and_then(Value::as_str) else {
                return Err(wrong("`custom_id`", &"none"));
            };
            let Some(request) = missing.get(id) else {
                match self.client.knows(id) {
                    true => read.known += 1,
                    false => read.others += 1,
                }
                return Ok(());
            };
            let response = line.get("response").filter(|r| r.is_object());
            let fine = response
                .and_then(|r| r.get("status_code"))
                .is_none_or(|s| s == 200);
            let body = response.and_then(|r| r.get("body")).filter(|_| fine);
            match body.map(|body| self.client.keep(request, id, ("batch", None, 1), body.clone())) {
                Some(Ok(Ok(_))) => read.taken += 1,
                Some(Ok(Err(_))) | None => read.failed += 1,
                Some(Err(e)) => return Err(e),
            }
            Ok(())
        })?;
        self.client.sync()?;
        Ok(read)
    }
}

impl Answers for Pending<'_> {
    fn answers(
        &self,
        requests: &[Request],
        each: &mut dyn FnMut(usize, Outcome) -> Result<()>,
    ) -> Result<()> {
        for (i, request) in requests.iter().enumerate() {
            let hash = request.hash();
            let outcome = self.client.stored(&hash).ok_or_else(|| {
                lock(&self.missing).insert(hash, request.clone());
                Failure::new(Why::Pending, "still to be asked")
            });
            each(i, outcome)?;
        }
        Ok(())
    }
}
