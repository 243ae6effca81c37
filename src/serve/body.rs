//! A request's body, read within bounds of size and time.

use super::refusal::Refusal;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::{timeout_at, Instant};

/// So long nothing need come.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes a second that a client must send beyond that.
const SLOWEST: u64 = 16 * 1024;

/// All of it, at most `most` bytes.
pub(super) async fn read(body: Body, most: usize) -> Result<Vec<u8>, Refusal> {
    let said = body.size_hint().lower();
    let mut chunks = Chunks::new(body);
    let mut all = Vec::new();
    let mut found = said;
    if said <= most as u64 {
        loop {
            let Some(chunk) = chunks.next().await? else {
                return Ok(all);
            };
            if all.len() + chunk.len() > most {
                found = (all.len() + chunk.len()) as u64;
                break;
            }
            all.extend_from_slice(&chunk);
        }
    }
    drop(all);
    chunks.drain(most).await;
    let message = format!("the body: expected at most {most} bytes, found {found} or more");
    Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        .hint("send less of the sound, or mp3 or flac; `af2 serve --max-body` takes more"))
}

/// Takes what still comes, up to `most` bytes, and forgets it: a client that is cut off while it writes does not read why.
pub(super) async fn drain(body: Body, most: usize) {
    Chunks::new(body).drain(most).await;
}

struct Chunks {
    data: axum::body::BodyDataStream,
    begun: Instant,
    bytes: u64,
}

impl Chunks {
    fn new(body: Body) -> Self {
        Chunks {
            data: body.into_data_stream(),
            begun: Instant::now(),
            bytes: 0,
        }
    }

    async fn drain(mut self, most: usize) {
        let mut left = most;
        while let Ok(Some(chunk)) = self.next().await {
            match left.checked_sub(chunk.len()) {
                Some(less) => left = less,
                None => return,
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let until = self.begun + PATIENCE + Duration::from_secs(self.bytes / SLOWEST);
        match timeout_at(until, self.data.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => {
                self.bytes += chunk.len() as u64;
                Ok(Some(chunk))
            }
            Ok(Some(Err(e))) => {
                let message = format!("the body: expected all of it, found an end: {e}");
                Err(Refusal::new(StatusCode::BAD_REQUEST, message))
            }
            Err(_) => {
                let message = format!("the body: expected {SLOWEST} bytes a second, found fewer");
                Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, message))
            }
        }
    }
}
