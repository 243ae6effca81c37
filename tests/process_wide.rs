//! What a process has one of, the generator of random numbers and libtorch's switches: in a process without other tests.

use af2::ffi::kernels::{
    allow_tf32, deterministic, is_deterministic, recompute, rng_state, set_rng_state, tf32,
};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor};

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_recomputed_block_has_the_gradients_of_a_plain_one_and_draws_the_same() {
    let _alone = alone();
    tch::manual_seed(3);
    let float = (Kind::Float, Device::Cpu);
    let [x, w] = [Tensor::randn([4, 8], float), Tensor::randn([8, 8], float)];
    let gradients = |again: bool| {
        tch::manual_seed(5);
        let x = x.copy().set_requires_grad(true);
        let w = w.copy().set_requires_grad(true);
        let held = w.shallow_clone();
        let block = move |t: &[Tensor]| t[0].matmul(&held).tanh().dropout(0.5, true);
        let y = match again {
            true => recompute(&[x.shallow_clone()], block),
            false => block(&[x.shallow_clone()]),
        };
        // The numbers after it are the same too.
        let after = Tensor::rand([3], float);
        y.square().sum(Kind::Float).backward();
        [y.detach(), x.grad(), w.grad(), after]
    };
    for (a, b) in gradients(false).iter().zip(gradients(true)) {
        assert!(a.equal(&b), "{a} {b}");
    }
}

#[test]
fn random_numbers_go_on_where_they_were() {
    let _alone = alone();
    let draw = || Vec::<f32>::try_from(Tensor::rand([3], (Kind::Float, Device::Cpu))).unwrap();
    let state = rng_state(Device::Cpu).unwrap();
    let first = draw();
    set_rng_state(Device::Cpu, &state).unwrap();
    assert_eq!(draw(), first);
    assert!(set_rng_state(Device::Cpu, &Tensor::zeros([3], (Kind::Uint8, Device::Cpu))).is_err());
}

#[test]
fn tf32_is_off_or_on_for_products_and_convolutions_alike() {
    // libtorch's own default, which the program does not leave at that.
    assert_eq!(tf32().unwrap(), (false, true));
    for on in [true, false, true, false] {
        allow_tf32(on).unwrap();
        assert_eq!(tf32().unwrap(), (on, on));
    }
}

/// What `--verify-resume` asks for on a GPU.
#[test]
fn kernels_of_equal_bits_are_asked_for_with_cublas_work_space() {
    let _alone = alone();
    assert!(!is_deterministic());
    deterministic().unwrap();
    assert!(is_deterministic());
    assert_eq!(std::env::var("CUBLAS_WORKSPACE_CONFIG").unwrap(), ":4096:8");
}
