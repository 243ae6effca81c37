//! Connections: how they are taken, how long each may be silent, and how all of them end.

use super::metrics::Metrics;
use super::routes::{router, House};
use crate::dist::launch::INTERRUPTED;
use crate::error::{Error, Result};
use crate::ffi;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{signal, Signal, SignalKind};
use tokio::sync::{watch, Semaphore};
use tokio::time::{sleep, timeout};

/// Connections at a time; others wait until one ends.
const MOST_CONNECTIONS: usize = 512;
/// From a connection's beginning, or the end of its last answer, to the end of a request's head.
const HEAD: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 64 * 1024;
/// A client that takes nothing of what it is sent for so long is gone.
const UNREAD: Duration = Duration::from_secs(60);
/// A second SIGINT that comes sooner is the first once more: `timeout` sends it to a process and then to its group.
const TWICE: Duration = Duration::from_millis(30);

/// The signals that end a server.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
    /// Under nohup a closed terminal ends nothing.
    hang_up: Option<Signal>,
}

impl Ending {
    fn listen() -> Result<Self> {
        let of = |kind| signal(kind).map_err(|e| Error::io("a signal", e));
        let hang_up = match ffi::ignores(libc::SIGHUP) {
            true => None,
            false => Some(of(SignalKind::hangup())?),
        };
        Ok(Ending {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
            hang_up,
        })
    }

    async fn come(&mut self) -> &'static str {
        let hung_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hung_up => "SIGHUP",
        }
    }
}

/// Fails where nobody can listen at this address: before a model is loaded, which may take minutes.
pub(super) fn check(address: SocketAddr) -> Result<()> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(e) => Err(refused(address, e)),
    }
}

fn refused(address: SocketAddr, e: std::io::Error) -> Error {
    let taken = e.kind() == std::io::ErrorKind::AddrInUse;
    let e = Error::io(address.to_string(), e);
    match taken {
        true => e.hint("another program listens there: choose another --port, or 0 for any"),
        false => e,
    }
}

/// Answers until a signal comes or nobody computes any more; then what is in work has `grace` to end.
///
/// # Errors
/// [`Error::Io`]: an address that is taken or is none of this machine, signals that cannot be heard.
pub(super) async fn run(
    address: SocketAddr,
    house: Arc<House>,
    metrics: Arc<Metrics>,
    grace: Duration,
    listens: impl FnOnce(SocketAddr),
) -> Result<()> {
    let io = |e| refused(address, e);
    let listener = TcpListener::bind(address).await.map_err(io)?;
    let mut ending = Ending::listen()?;
    listens(listener.local_addr().map_err(io)?);
    let (stop, stopped) = watch::channel(());
    let open = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let router = router(house.clone());
    let came = loop {
        let accept = async {
            let permit = open.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            name = ending.come() => break Some(name),
            () = house.abandoned() => break None,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, metrics, stopped) = (router.clone(), metrics.clone(), stopped.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    metrics.connections.fetch_add(1, Relaxed);
                    connection(stream, router, stopped).await;
                    metrics.connections.fetch_sub(1, Relaxed);
                });
            }
            // No more files, or a client that has gone already.
            Err(e) => {
                crate::say!("note: a connection that cannot be taken: {e}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    };
    house.stop();
    drop(listener);
    let Some(name) = came else { return Ok(()) };
    crate::say!(
        "{name}: no more questions are taken; those in work have {} s; SIGINT once more ends at once",
        grace.as_secs()
    );
    drop(stop);
    let all = u32::try_from(MOST_CONNECTIONS).unwrap_or(u32::MAX);
    let over = async {
        // Its end is the end of all connections.
        let _ = open.acquire_many(all).await;
    };
    sleep(TWICE).await;
    let twice = async {
        loop {
            if ending.come().await == "SIGINT" {
                break;
            }
        }
    };
    tokio::select! {
        ended = timeout(grace, over) => {
            if ended.is_err() {
                crate::say!("note: what was still in work after {} s is cut off", grace.as_secs());
            }
        }
        () = twice => ffi::exit_at_once(INTERRUPTED),
    }
    Ok(())
}

/// One connection, request after request, until it ends or the server does and nothing is in work on it.
async fn connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<()>) {
    // Pieces of an answer go out as they come.
    let _ = stream.set_nodelay(true);
    let unread = u32::try_from(UNREAD.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, unread);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES);
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        // What goes wrong on a connection ends it, and nothing else.
        _ = serving.as_mut() => return,
        _ = stopped.changed() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}
