//! How ranks come together: the store, who is there, whether all have the same run, the process group. Everything that waits here
//! is bounded by one timeout.

use super::agreement::{self, Facts};
use super::left::LEFT;
use super::machine::{self, Machines};
use super::meeting::{self, Table};
use super::place::Place;
use super::words::{words, NCCL};
use crate::error::{short, Error, Result};
use crate::ffi::c10d::{self, Host, Meeting, ProcessGroup, Store};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{mpsc, Arc, Mutex};
use std::time::{Duration, Instant};
use tch::Device;

/// Behind the timeout, for libtorch to say itself what it has waited for.
const SPARE: Duration = Duration::from_secs(1);

const NO_MEETING: &str =
    "do all ranks run, and reach this address, where nothing but rank 0's or the launcher's store may listen? train.timeout is \
    how long they wait; where a machine has several networks GLOO_SOCKET_IFNAME names the one to use";
const DIFFERENT: &str =
    "give all ranks the same recipe, overrides and program; what may differ from machine to machine is left out of it";

const NO_STORE: &str =
    "what listens there does not answer as a store does: another program, or one that is frozen";

/// What the ranks have when they have met.
pub(super) struct Met {
    pub store: Store,
    pub round: String,
    pub group: ProcessGroup,
    pub machines: Machines,
}

/// Meets the others, or gives up when the timeout is over.
pub(super) fn meet_within(
    place: &Place,
    device: Result<Device>,
    timeout: Duration,
    same: &Facts,
) -> Result<(Met, Device)> {
    let doing = Arc::new(Mutex::new(""));
    let (send, receive) = mpsc::channel();
    let (own, facts, at) = (place.clone(), same.clone(), doing.clone());
    // libtorch waits without end for a store that accepts a connection and then says nothing: not on this thread.
    std::thread::spawn(move || send.send(meet(&own, device, timeout, facts, &at)));
    match receive.recv_timeout(timeout + SPARE) {
        Ok(met) => met,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            LEFT.store(true, Ordering::SeqCst);
            let doing = *doing.lock().unwrap_or_else(|e| e.into_inner());
            Err(no_meeting(place, timeout, doing.into()))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(no_meeting(place, timeout, "the attempt ended in a fault".into()))
        }
    }
}

fn no_meeting(p: &Place, timeout: Duration, why: String) -> Error {
    let nccl = why.contains("NCCL");
    Error::Ranks {
        message: format!(
            "rank {} of {}: no meeting at {}:{} within {} s: {why}",
            p.rank,
            p.world,
            p.host,
            p.port,
            timeout.as_secs()
        ),
        hint: Some(if nccl { NCCL.into() } else { NO_MEETING.into() }),
    }
}

/// Everything that waits for the others. `doing` says what for.
fn meet(
    place: &Place,
    device: Result<Device>,
    timeout: Duration,
    mut facts: Facts,
    doing: &Mutex<&'static str>,
) -> Result<(Met, Device)> {
    let failed = |why: String| no_meeting(place, timeout, why);
    let refused = |e: tch::TchError| failed(words(&e));
    let waits_for = |what: &'static str| *doing.lock().unwrap_or_else(|e| e.into_inner()) = what;
    let until = Instant::now() + timeout;
    let (rank, world) = (place.rank, place.world);

    waits_for(NO_STORE);
    let loopback = place.loopback().filter(|_| !place.agent);
    let host = loopback.map_or(place.host.clone(), |address| address.to_string());
    let by = match (place.agent || rank > 0, loopback) {
        (true, _) => Host::Other,
        (false, Some(address)) => Host::UsAt(address),
        (false, None) => Host::Us,
    };
    // What libtorch logs here are its own frames around the words that our errors have.
    let _quiet = c10d::Quiet::new();
    let store = Store::open(&host, place.port, by, timeout).map_err(|e| match words(&e) {
        text if text.starts_with("Ping failed") => failed(NO_STORE.into()),
        text => failed(text),
    })?;
    waits_for("the store that the ranks meet in does not answer any more");
    let table = Table {
        store: &store,
        rank,
        world,
        until,
    };
    let round = meeting::round(table, place.again).map_err(failed)?;
    let machines = machine::count(table, &format!("{round}/machine")).map_err(failed)?;
    let kind = match &device {
        Ok(Device::Cuda(_)) => "cuda".into(),
        Ok(_) => "cpu".into(),
        Err(why) => format!("none ({})", short(why)),
    };
    facts.extend([("device".into(), kind), ("WORLD_SIZE".into(), world.to_string())]);
    facts.extend(crate::ffi::program());
    if let Some(what) = agreement::compare(table, &format!("{round}/run"), &facts).map_err(failed)? {
        return Err(Error::Ranks {
            message: format!("rank {rank} of {world}: the ranks were not given the same run: {what}"),
            hint: Some(DIFFERENT.into()),
        });
    }

    let device = device?;
    let cuda = match device {
        Device::Cuda(n) => Some(n),
        _ => None,
    };
    waits_for("the ranks do not reach each other");
    let group = ProcessGroup::join(
        &store,
        &Meeting {
            prefix: format!("{round}/default_pg"),
            rank,
            world,
            timeout,
            address: gloo_address(place),
            cuda,
        },
    );
    let met = Met {
        group: group.map_err(refused)?,
        store,
        round,
        machines,
    };
    Ok((met, device))
}

/// Where only this machine's ranks can be met, Gloo need not listen to others either.
fn gloo_address(place: &Place) -> Option<IpAddr> {
    let chosen = std::env::var_os("GLOO_SOCKET_IFNAME").is_some();
    place.loopback().filter(|_| !chosen)
}
