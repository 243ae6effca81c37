//! Nothing is written as done whose weights are not finite.

use crate::error::{Error, Result};
use crate::model::params::{Params, Role};
use tch::{no_grad, Kind, Tensor};

/// Looks at everything that training may have changed: what trains, and running averages. Waits for the device once.
///
/// # Errors
/// [`Error::Training`] with the first tensor that holds NaN or an infinity; `what` names what is then not written, and `section`
/// is where the job's keys stand.
pub(crate) fn check(what: &str, section: &str, params: &Params) -> Result<()> {
    let averages = |name: &str| name.ends_with("running_mean") || name.ends_with("running_var");
    let changed = params.iter().filter(|(name, e)| {
        let moved = e.tensor.requires_grad() || (e.role == Role::Buffer && averages(name));
        moved && e.tensor.is_floating_point() && e.tensor.numel() > 0
    });
    // The least and the largest are NaN where any is: no copy as large as the weight is made.
    let both = |t: &Tensor| {
        no_grad(|| {
            let (least, most) = t.detach().aminmax(None, false);
            least.to_kind(Kind::Double) + most.to_kind(Kind::Double)
        })
    };
    let (names, sums): (Vec<&str>, Vec<Tensor>) =
        changed.map(|(n, e)| (n, both(&e.tensor).reshape([1]))).unzip();
    if sums.is_empty() {
        return Ok(());
    }
    let finite = Vec::<bool>::try_from(Tensor::cat(&sums, 0).isfinite())?;
    let bad: Vec<&str> = (names.iter().zip(&finite))
        .filter(|(_, f)| !**f)
        .map(|(n, _)| *n)
        .collect();
    let Some(first) = bad.first() else {
        return Ok(());
    };
    Err(Error::Training {
        message: format!(
            "{what} is not written: {} of {} trained tensors hold values that are not finite, the first is {first}",
            bad.len(),
            names.len()
        ),
        hint: Some(format!("the run diverged: lower {section}.optim.learning_rate or raise its warmup")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::{Init, Origin, Store};
    use tch::Device;

    #[test]
    fn weights_that_are_not_finite_are_named_and_large_ones_are_not() {
        for (value, bad) in [
            (1e38, false),
            (f64::NAN, true),
            (f64::INFINITY, true),
            (f64::NEG_INFINITY, true),
        ] {
            let store = Store::new(Origin::Fresh, Device::Cpu);
            let root = store.root();
            let _ = root.weight("whole", &[2, 2], Init::Const(0.5));
            let watched = root.weight("watched", &[3], Init::Const(0.5));
            let params = store.finish().unwrap();
            params.train_only(|_| true);
            let _ = no_grad(|| watched.get(1).fill_(value));
            let found = check("model.pt", "lm", &params);
            assert_eq!(found.is_err(), bad, "{value}");
            if let Err(e) = found {
                let text = e.to_string();
                assert!(
                    text.contains("model.pt is not written: 1 of 2")
                        && text.contains("watched")
                        && text.contains("lower lm.optim.learning_rate"),
                    "{text}"
                );
                assert_eq!(e.exit_code(), 8);
            }
            // What is frozen is as its file has it.
            params.train_only(|n| n == "whole");
            assert!(check("model.pt", "lm", &params).is_ok());
        }
    }
}
