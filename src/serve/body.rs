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
    let large = |found: u64| {
        let message = format!("the body: expected at most {most} bytes, found {found} or more");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
            .hint("send less of the sound, or mp3 or flac; `af2 serve --max-body` takes more")
    };
    let said = body.size_hint().lower();
    if said > most as u64 {
        return Err(large(said));
    }
    let mut all = Vec::new();
    let mut chunks = Chunks::new(body);
    while let Some(chunk) = chunks.next().await? {
        if all.len() + chunk.len() > most {
            return Err(large((all.len() + chunk.len()) as u64));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// Takes what still comes, and forgets it: a client that is cut off while it writes does not read why.
pub(super) async fn drain(body: Body, most: usize) {
    let mut left = most;
    let mut chunks = Chunks::new(body);
    while let Ok(Some(chunk)) = chunks.next().await {
        if chunk.len() > left {
            return;
        }
        left -= chunk.len();
    }
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
