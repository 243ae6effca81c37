//! Two ranks in one process.

use super::*;
use crate::ffi::c10d::StoreServer;

/// One of two, at a store of this machine.
fn of_two(rank: usize, port: u16) -> Place {
    Place {
        rank,
        world: 2,
        local: rank,
        host: "127.0.0.1".into(),
        port,
        agent: true,
        again: false,
    }
}

/// What each of two ranks makes of it.
fn both<T: Send>(each: impl Fn(&Ranks) -> T + Sync) -> [T; 2] {
    let server = StoreServer::start().unwrap();
    let one = |rank: usize| {
        let ranks = Ranks::join(
            &of_two(rank, server.port),
            Ok(Device::Cpu),
            Duration::from_secs(20),
            &Facts::new(),
        );
        each(&ranks.unwrap().0)
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(|| one(1));
        [one(0), second.join().unwrap()]
    })
}

/// Gloo ends the process where messages differ in length.
#[test]
fn messages_of_other_lengths_are_an_error_of_both() {
    for how in [Reduce::Sum, Reduce::Max] {
        for lengths in [[1, 2], [3, 40], [40, 41]] {
            let said = both(|ranks| {
                let mut values = vec![1.0; lengths[ranks.rank]];
                ranks.join_numbers(&mut values, how).unwrap_err()
            });
            for e in said {
                assert_eq!(e.exit_code(), 11);
                assert!(e.to_string().contains("not at the same place"), "{e}");
            }
        }
    }
}

#[test]
fn numbers_are_joined_in_short_and_in_long_messages() {
    for n in [1, SHORT, SHORT + 1, 100] {
        for values in both(|ranks| {
            let own: Vec<f64> = (0..n).map(|i| (i + ranks.rank * n) as f64).collect();
            let (mut sum, mut most) = (own.clone(), own);
            ranks.sum(&mut sum).unwrap();
            ranks.max(&mut most).unwrap();
            (sum, most)
        }) {
            let expected =
                |f: fn(usize, usize) -> usize| -> Vec<f64> { (0..n).map(|i| f(i, n) as f64).collect() };
            assert_eq!(values, (expected(|i, n| 2 * i + n), expected(|i, n| i + n)));
        }
    }
}

#[test]
fn what_differs_between_ranks_is_told_to_both() {
    let facts = |weights: &str| Facts::from([("weights".into(), weights.into())]);
    let said = both(|ranks| {
        ranks.agree("one: its model", &facts("12")).unwrap();
        ranks
            .agree("one: its data", &facts(["12", "13"][ranks.rank]))
            .unwrap_err()
            .to_string()
    });
    for (rank, text) in said.iter().enumerate() {
        let expected = "one: its data: rank 1 differs from rank 0:\n  weights: 13 on rank 1, 12 on rank 0";
        assert!(text.starts_with(&format!("rank {rank}: {expected}")), "{text}");
    }
}

/// What each of two ranks hears that bring these devices.
fn devices(of: [fn() -> Result<Device>; 2]) -> [Error; 2] {
    let server = StoreServer::start().unwrap();
    let one = |rank: usize| {
        Ranks::join(
            &of_two(rank, server.port),
            of[rank](),
            Duration::from_secs(20),
            &Facts::new(),
        )
        .err()
        .unwrap()
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(|| one(1));
        [one(0), second.join().unwrap()]
    })
}

#[test]
fn a_rank_without_its_gpu_is_told_to_all_before_nccl_waits() {
    const WHY: &str = "`auto`: this machine has a GPU, but CUDA does not answer: too old";
    let began = Instant::now();
    for e in devices([|| Ok(Device::Cuda(0)), || Err(Error::device(WHY))]) {
        let text = e.to_string();
        assert!(text.contains("cuda on rank 0") && text.contains(WHY), "{text}");
        assert_eq!(e.exit_code(), 11);
    }
    for e in devices([|| Ok(Device::Cuda(0)), || Ok(Device::Cpu)]) {
        assert!(
            e.to_string().contains("device: cpu on rank 1, cuda on rank 0"),
            "{e}"
        );
    }
    // The same on all is no difference between them.
    for e in devices([|| Err(Error::device(WHY)), || Err(Error::device(WHY))]) {
        assert!(e.to_string().contains(WHY), "{e}");
        assert_eq!(e.exit_code(), 13);
    }
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_reason_behind_nccls_first_line_is_kept() {
    let text = "NCCL error in: NCCLUtils.cpp:94, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.28.9\n\
                ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.\n\
                Last error:\nsocketPollConnect: connect to 10.0.0.1<1234> returned Connection refused";
    let said = words(&tch::TchError::Torch(text.into()));
    assert!(
        said.starts_with("NCCL error in") && said.ends_with("returned Connection refused"),
        "{said}"
    );
    assert!(!said.contains('\n'), "{said}");
    // Where it has none, as where the reason stands on the same line.
    let none = words(&tch::TchError::Torch("NCCL error: x\nLast error:\n".into()));
    assert_eq!(none, "NCCL error: x");
    let same = words(&tch::TchError::Torch("NCCL error: x\nLast error: y".into()));
    assert_eq!(same, "NCCL error: x; its last error: y");
    let other = words(&tch::TchError::Torch("Connection closed\nmore".into()));
    assert_eq!(other, "Connection closed");
}
