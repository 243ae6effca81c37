//! One call of a server, and what its answer means for this request, for the next try, for all others.

use super::answer::{Failure, Usage, Why};
use super::endpoint::Endpoint;
use super::key::Key;
use super::request::{Dialect, Request};
use super::retry::{verdict, Verdict};
use super::wire::{Met, Reply, TimeOuts, Wire};
use crate::error::{Error, Result};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// A redirect within a server is followed so often.
const MOST_MOVES: u32 = 3;
/// So many bytes of a refusal are looked at.
const MOST_SAID: usize = 1 << 16;

pub(super) struct Server {
    wire: Wire,
    endpoint: Endpoint,
    key: Option<Key>,
    most_bytes: u64,
    /// What it has turned out not to take, and to want instead.
    no_schema: AtomicBool,
    completion_tokens: AtomicBool,
}

/// What a call has come to.
pub(super) enum Came {
    /// JSON with a good status.
    Body(Value),
    /// This request will never have an answer.
    Failed(Failure),
    /// It may have one later: after so long a wait, where the server says so.
    Again { why: String, wait: Option<Duration> },
    /// It has answered, and not with JSON: a proxy's page, half an answer.
    NoJson(String),
    /// The server speaks another dialect, which is spoken from now on.
    Learned,
    /// No request will have an answer.
    End(Error),
}

/// That, and what it may have cost. `None`: it never reached the server.
pub(super) struct Called {
    pub came: Came,
    pub usage: Option<Usage>,
}

impl Called {
    /// A refusal costs a call and no token.
    fn free(came: Came) -> Self {
        Called {
            came,
            usage: Some(Usage::default()),
        }
    }

    fn unsent(came: Came) -> Self {
        Called { came, usage: None }
    }

    fn may_cost(came: Came, (prompt, completion): (u64, u64)) -> Self {
        let usage = Usage {
            prompt,
            completion,
            estimated: true,
        };
        Called {
            came,
            usage: Some(usage),
        }
    }
}

impl Server {
    pub(super) fn new(
        endpoint: Endpoint,
        key: Option<Key>,
        times: TimeOuts,
        most_bytes: u64,
        at_once: usize,
    ) -> Result<Self> {
        if key.is_some() && endpoint.is_open() {
            let host = endpoint.host();
            crate::say!("note: the key goes to {host} without encryption: who is between can read it");
        }
        Ok(Server {
            wire: Wire::new(&endpoint, key.as_ref(), times, most_bytes, at_once)?,
            endpoint,
            key,
            most_bytes,
            no_schema: AtomicBool::new(false),
            completion_tokens: AtomicBool::new(false),
        })
    }

    pub(super) fn host(&self) -> &str {
        self.endpoint.host()
    }

    pub(super) fn dialect(&self) -> Dialect {
        Dialect {
            schema: !self.no_schema.load(Relaxed),
            completion_tokens: self.completion_tokens.load(Relaxed),
        }
    }

    pub(super) fn error(&self, message: String) -> Error {
        Error::Endpoint {
            endpoint: self.host().to_owned(),
            message,
            hint: None,
        }
    }

    /// A message without the key, in one line, short.
    pub(super) fn clean(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => key.out_of_message(text),
            None => text.to_owned(),
        };
        crate::error::short(&text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Sends a request once.
    ///
    /// # Errors
    /// A sound that cannot be read.
    pub(super) fn call(&self, request: &Request, dialect: Dialect) -> Result<Called> {
        let body = request.body(dialect)?.to_string();
        let (prompt, completion) = request.tokens();
        let mut url = self.endpoint.chat();
        for _ in 0..=MOST_MOVES {
            let reply = match self.wire.post(&url, body.as_bytes()) {
                Met::Reply(reply) => reply,
                Met::NotReached(why) => return Ok(Called::unsent(Came::Again { why, wait: None })),
                Met::Never(why) => return Ok(Called::unsent(Came::End(self.error(self.clean(&why))))),
                // It may be paid for all the same.
                Met::Broken(why) => {
                    return Ok(Called::may_cost(Came::Again { why, wait: None }, (prompt, 0)))
                }
                Met::TooLarge => {
                    let message = format!("the answer has more than {} bytes", self.most_bytes);
                    let failure = Failure::new(Why::TooLarge, message);
                    return Ok(Called::may_cost(Came::Failed(failure), (prompt, completion)));
                }
            };
            if verdict(reply.status) != Verdict::Elsewhere {
                return Ok(self.understand(reply, request, dialect));
            }
            let to = reply.location.unwrap_or_default();
            match self
                .endpoint
                .within(&to)
                .filter(|_| matches!(reply.status, 307 | 308))
            {
                Some(within) => url = within,
                None => {
                    let to = self.clean(&to);
                    let e = self.error(format!(
                        "redirects to {to:?} ({}), which is not followed",
                        reply.status
                    ));
                    return Ok(Called::free(Came::End(e.hint("name the address that is meant"))));
                }
            }
        }
        let e = self.error(format!("redirects more than {MOST_MOVES} times"));
        Ok(Called::free(Came::End(e)))
    }

    fn understand(&self, reply: Reply, request: &Request, dialect: Dialect) -> Called {
        let status = reply.status;
        let said = || format!("{status}: {}", self.said(&reply.body));
        match verdict(status) {
            Verdict::Fine => match serde_json::from_slice(&reply.body) {
                Ok(body) => Called::may_cost(Came::Body(body), (request.tokens().0, 0)),
                Err(e) => {
                    let why = format!("no JSON: {}", self.clean(&e.to_string()));
                    Called::may_cost(Came::NoJson(why), (request.tokens().0, 0))
                }
            },
            Verdict::Never if status == 400 && self.learns(&said(), dialect, request) => {
                Called::free(Came::Learned)
            }
            Verdict::Never => Called::free(Came::Failed(Failure::new(Why::Refused(status), said()))),
            Verdict::Again => {
                let text = String::from_utf8_lossy(&reply.body);
                let came = match text.contains("insufficient_quota") {
                    true => Came::End(self.error(said()).hint("the account has no money left")),
                    false => Came::Again {
                        why: said(),
                        wait: reply.retry_after,
                    },
                };
                Called::free(came)
            }
            Verdict::None | Verdict::Elsewhere => {
                let e = self.error(said());
                Called::free(Came::End(match (status, self.key.is_some()) {
                    (401 | 403, false) => e.hint("no key was given"),
                    (401 | 403, true) => e.hint("is it this server's key?"),
                    (404, _) => e.hint("most addresses end in /v1; or the server calls its model otherwise"),
                    _ => e,
                }))
            }
        }
    }

    /// What a body that is no answer says.
    fn said(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(&body[..body.len().min(MOST_SAID)]);
        let message = serde_json::from_str::<Value>(&text).ok().and_then(|v| {
            let error = v.get("error").unwrap_or(&v);
            let message = error.get("message").or(error.get("detail")).unwrap_or(error);
            message.as_str().map(str::to_owned)
        });
        self.clean(message.as_deref().unwrap_or(&text))
    }

    /// Whether a refusal tells of another dialect.
    fn learns(&self, said: &str, spoken: Dialect, request: &Request) -> bool {
        let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
        if spoken.schema && request.schema.is_some() && has(&["response_format", "json_schema"]) {
            if !self.no_schema.swap(true, Relaxed) {
                crate::say!(
                    "note: {} takes no JSON schema: it is asked in words alone",
                    self.host()
                );
            }
            return true;
        }
        if !spoken.completion_tokens
            && request.sampling.max_tokens.is_some()
            && has(&["max_completion_tokens"])
        {
            self.completion_tokens.store(true, Relaxed);
            return true;
        }
        false
    }

    pub(super) fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }
}
