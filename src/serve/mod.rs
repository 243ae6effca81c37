//! A model that answers over HTTP, in the form of OpenAI's chat completions.
//!
//! ```text
//! client ─► listen ─► routes ─► body ─► request ─► sound ─┐  (threads of tokio)
//!                                                         ▼  a bounded channel
//!                                                       worker: steps the engine  (the caller's thread)
//!                                                         │  a channel per request
//! client ◄─ listen ◄─ response ◄─ answer ◄────────────────┘
//! ```

mod answer;
mod body;
mod listen;
mod metrics;
mod refusal;
mod request;
mod response;
mod routes;
mod settings;
mod sound;
mod worker;

pub use settings::{History, Settings, Token};

use crate::data::feed::Ears;
use crate::error::{Error, Result};
use crate::load::Loaded;
use metrics::Metrics;
use routes::House;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Threads that read requests and write answers. What computes has its own.
const THREADS: usize = 2;
/// So long what decodes a sound may go on when all else has ended.
const LAST: Duration = Duration::from_secs(1);

/// Fails where nobody can listen at this address.
///
/// # Errors
/// [`Error::Io`]
pub fn check(address: SocketAddr) -> Result<()> {
    listen::check(address)
}

/// Answers until SIGTERM, SIGINT or SIGHUP. `listens` is told the address, once connections are taken there.
///
/// # Errors
/// [`Error::Io`] for an address that cannot be had; what ends the engine.
pub fn serve(model: &Loaded, settings: Settings, listens: impl FnOnce(SocketAddr) + Send) -> Result<()> {
    let settings = Arc::new(settings);
    let (metrics, ears) = (Arc::new(Metrics::default()), Arc::new(Ears::new(0)));
    let (jobs, questions) = mpsc::channel(settings.places());
    let house = House::new(settings.clone(), metrics.clone(), ears.clone(), jobs);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|e| Error::io("threads for connections", e))?;
    let front = || {
        let (house, counts) = (Arc::new(house), metrics.clone());
        let run = listen::run(settings.address, house, counts, settings.grace, listens);
        let ended = runtime.block_on(run);
        // With the connections goes what they hold, and the worker learns that nobody asks any more.
        runtime.shutdown_timeout(LAST);
        ended
    };
    std::thread::scope(|scope| {
        let front = scope.spawn(front);
        let worked = worker::work(model, &ears, &settings.engine, &metrics, questions);
        let listened = front.join().unwrap_or_else(|_| {
            let e = std::io::Error::other("the thread of connections is gone");
            Err(Error::io(settings.address.to_string(), e))
        });
        worked.and(listened)
    })
}
