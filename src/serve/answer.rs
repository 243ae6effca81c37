//! From what the engine's thread tells to what a client reads.

use super::metrics::Metrics;
use super::refusal::Refusal;
use super::response::{broken, Form};
use super::worker::Reply;
use axum::body::Bytes;
use futures_util::stream::{unfold, Stream};
use serde_json::Value;
use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{timeout, timeout_at, Instant};

/// A stream says so often that it lives: some proxies cut what is silent for long.
const SILENCE: Duration = Duration::from_secs(15);

/// A request's place in the house, until it is dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Place {
    pub(super) fn new(permit: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Self {
        metrics.requests.fetch_add(1, Relaxed);
        Place {
            _permit: permit,
            metrics,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.requests.fetch_sub(1, Relaxed);
    }
}

/// What comes for one request, up to its time. Dropped with the client's connection, it tells the engine's thread so.
pub(super) struct Replies {
    replies: UnboundedReceiver<Reply>,
    until: Instant,
    time: Duration,
    _place: Place,
}

impl Replies {
    pub(super) fn new(
        replies: UnboundedReceiver<Reply>,
        until: Instant,
        time: Duration,
        place: Place,
    ) -> Self {
        Replies {
            replies,
            until,
            time,
            _place: place,
        }
    }

    pub(super) async fn next(&mut self) -> Reply {
        match timeout_at(self.until, self.replies.recv()).await {
            Ok(Some(reply)) => reply,
            Ok(None) => Reply::Refused(Refusal::stopping()),
            Err(_) => Reply::Refused(Refusal::late(self.time.as_secs())),
        }
    }
}

/// The answer in one piece.
pub(super) async fn whole(mut replies: Replies, form: &Form) -> Result<Value, Refusal> {
    loop {
        match replies.next().await {
            Reply::Taken | Reply::Piece { .. } => {}
            Reply::Said { said, usage } => return Ok(form.whole(said, usage)),
            Reply::Refused(refusal) => return Err(refusal),
        }
    }
}

/// The answers as server-sent events, their texts as they come.
pub(super) fn events(
    replies: Replies,
    form: Form,
    answers: usize,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let begun: String = (0..answers).map(|i| form.begun(i)).collect();
    let first = State::Begun { replies, form, begun };
    unfold(first, |state| async move {
        let (text, state) = match state {
            State::Begun { replies, form, begun } => (begun, State::Going { replies, form }),
            State::Going { mut replies, form } => match timeout(SILENCE, replies.next()).await {
                Err(_) => (": still here\n\n".to_owned(), State::Going { replies, form }),
                Ok(Reply::Taken) => (String::new(), State::Going { replies, form }),
                Ok(Reply::Piece {
                    sample,
                    text,
                    logprobs,
                }) => (
                    form.piece(sample, &text, logprobs.as_deref()),
                    State::Going { replies, form },
                ),
                Ok(Reply::Said { said, usage }) => {
                    let ends = said.iter().enumerate().map(|(i, s)| form.ended(i, s));
                    (ends.collect::<String>() + &form.done(usage), State::Over)
                }
                Ok(Reply::Refused(refusal)) => (broken(&refusal), State::Over),
            },
            State::Over => return None,
        };
        Some((Ok(Bytes::from(text)), state))
    })
}

enum State {
    Begun {
        replies: Replies,
        form: Form,
        begun: String,
    },
    Going {
        replies: Replies,
        form: Form,
    },
    Over,
}
