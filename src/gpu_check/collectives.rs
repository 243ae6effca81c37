//! A process group of one rank, by the code that ranks meet with: NCCL on a GPU, Gloo on the CPU.

use super::made;
use super::part::Check;
use crate::dist::{Place, Ranks};
use crate::error::{Error, Result};
use crate::ffi::c10d::{Host, Meeting, ProcessGroup, Reduce, Reducer, Store, StoreServer};
use crate::ffi::{check, kernels};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Small, so that a few weights fill several buckets.
const BUCKET: i64 = 1 << 12;

pub(crate) fn run(check: &mut Check) -> Result<()> {
    let device = check.device;
    let mut timed = |name: &str, look: &mut dyn FnMut() -> Result<std::result::Result<(), String>>| {
        check.row(name, |m| {
            let begun = Instant::now();
            let found = look()?;
            check::synchronize(device)?;
            m.set("seconds", begun.elapsed().as_secs_f64());
            m.must(found.is_ok(), || found.clone().err().unwrap_or_default());
            Ok(())
        })
    };
    let mut server = None;
    timed("a store", &mut || {
        server = Some(StoreServer::start()?);
        Ok(Ok(()))
    })?;
    let Some(server) = server else { return Ok(()) };

    timed("ranks meet, as those of a run", &mut || {
        let place = Place {
            rank: 0,
            world: 1,
            local: 0,
            host: "127.0.0.1".into(),
            port: server.port,
            agent: true,
            again: false,
        };
        let (ranks, met) = Ranks::join(&place, Ok(device), TIMEOUT, &Default::default())?;
        ranks.barrier()?;
        Ok(match met == device && ranks.world == 1 {
            true => Ok(()),
            false => Err(format!("{met:?} and {} ranks came of it", ranks.world)),
        })
    })?;

    let mut group = None;
    timed("a process group", &mut || {
        group = Some(joined(&server, device, "ops")?);
        Ok(Ok(()))
    })?;
    let Some(group) = group else { return Ok(()) };
    let known = || Tensor::arange(1000, (Kind::Float, device)) - 500.0;
    let same = |found: &Tensor| match found.equal(&known().view_as(found)) {
        true => Ok(()),
        false => Err("the numbers came back changed".to_owned()),
    };
    for (name, how) in [("sum", Reduce::Sum), ("largest", Reduce::Max)] {
        timed(&format!("all_reduce, {name}"), &mut || {
            let tensor = known();
            group.all_reduce(&[tensor.shallow_clone()], how)?;
            Ok(same(&tensor))
        })?;
    }
    timed("broadcast", &mut || {
        let tensor = known();
        group.broadcast(&[tensor.shallow_clone()], 0)?;
        Ok(same(&tensor))
    })?;
    timed("all_gather", &mut || Ok(same(&group.all_gather(&known())?)))?;
    timed("numbers on the CPU beside it, through Gloo", &mut || {
        let tensor = Tensor::from_slice(&[1.0f64, 2.0]);
        group.all_reduce(&[tensor.shallow_clone()], Reduce::Sum)?;
        Ok(match tensor.equal(&Tensor::from_slice(&[1.0f64, 2.0])) {
            true => Ok(()),
            false => Err("the numbers came back changed".into()),
        })
    })?;
    timed("the Reducer, two backward passes", &mut || {
        reduced(&group, device)
    })?;
    timed("the group is left", &mut || {
        drop(group_of(&server, device)?);
        Ok(Ok(()))
    })?;
    timed("a group is given up", &mut || {
        let lost = group_of(&server, device)?;
        let given_up = lost.abort();
        // Whoever has given up leaves without a farewell.
        std::mem::forget(lost);
        Ok(given_up.map_err(|e| e.to_string()))
    })?;
    // This process ends at once after its rows.
    std::mem::forget((group, server));
    Ok(())
}

/// One that was used.
fn group_of(server: &StoreServer, device: Device) -> Result<ProcessGroup> {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let group = joined(server, device, &format!("other{number}"))?;
    group.all_reduce(&[Tensor::ones([4], (Kind::Float, device))], Reduce::Sum)?;
    Ok(group)
}

fn joined(server: &StoreServer, device: Device, prefix: &str) -> Result<ProcessGroup> {
    let store = Store::open("127.0.0.1", server.port, Host::Other, TIMEOUT)?;
    let meeting = Meeting {
        prefix: prefix.to_owned(),
        rank: 0,
        world: 1,
        timeout: TIMEOUT,
        address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        cuda: match device {
            Device::Cuda(n) => Some(n),
            _ => None,
        },
    };
    Ok(ProcessGroup::join(&store, &meeting)?)
}

/// Gradients through the Reducer's buckets beside those of plain backward passes: of one rank the mean is its own.
fn reduced(group: &ProcessGroup, device: Device) -> Result<std::result::Result<(), String>> {
    let weights: Vec<(String, Tensor)> = (0..6)
        .map(|i| {
            let w = made::noise(60 + i, &[40, 40], device).set_requires_grad(true);
            (format!("w{i}"), w)
        })
        .collect();
    let loss = |seed: i64| {
        let x = made::noise(seed, &[7, 40], device);
        let out = weights.iter().fold(x, |x, (_, w)| x.matmul(w).tanh());
        out.square().sum(Kind::Float)
    };
    let grads = || weights.iter().map(|(_, w)| w.grad().copy()).collect::<Vec<_>>();
    let all: Vec<Tensor> = weights.iter().map(|(_, w)| w.shallow_clone()).collect();
    let mut expected = Vec::new();
    for seed in [70, 71] {
        loss(seed).f_backward()?;
        expected.push(grads());
        kernels::forget_grads(&all)?;
    }
    let reducer = Reducer::new(group, &weights, BUCKET).map_err(Error::from)?;
    for (seed, expected) in [70, 71].into_iter().zip(&expected) {
        reducer.before_forward()?;
        let loss = loss(seed);
        reducer.before_backward()?;
        loss.f_backward()?;
        for (i, (found, expected)) in grads().iter().zip(expected).enumerate() {
            if !found.allclose(expected, 1e-5, 1e-7, false) {
                return Ok(Err(format!("w{i} has another gradient")));
            }
        }
        kernels::foreach_zero(&weights.iter().map(|(_, w)| w.grad()).collect::<Vec<_>>())?;
    }
    Ok(Ok(()))
}
