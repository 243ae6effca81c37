//! In what weights are held that do not train.

use crate::error::Result;
use crate::model::params::{Params, Role};
use crate::recipe::Held;
use tch::Kind;

/// Holds frozen matrices in bf16 where the recipe asks for it and nothing is lost by it; tells how many stayed.
pub fn hold(params: &Params, held: Held, tell: bool) -> Result<()> {
    if held == Held::Fp32 {
        return Ok(());
    }
    let (mut cast, mut stayed) = (0usize, 0usize);
    for (_, entry) in params.iter() {
        let mut t = entry.tensor.shallow_clone();
        let matrix = entry.role == Role::Weight && t.dim() >= 2 && t.kind() == Kind::Float;
        if !matrix || t.requires_grad() {
            continue;
        }
        let small = t.detach().to_kind(Kind::BFloat16);
        if small.to_kind(Kind::Float).equal(&t.detach()) {
            t.f_set_data(&small)?;
            cast += 1;
        } else {
            stayed += 1;
        }
    }
    if tell && stayed > 0 {
        crate::say!(
            "train.frozen: {cast} frozen matrices are held in bf16; {stayed} are not exactly that and stay in fp32"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::{Init, Origin, Store};
    use tch::Device;

    #[test]
    fn frozen_matrices_are_held_in_bf16_where_nothing_is_lost() {
        let store = Store::new(Origin::Fresh, Device::Cpu);
        let root = store.root();
        let made = [
            ("exact", vec![2, 2], Init::Const(0.5)),
            ("inexact", vec![2, 2], Init::Const(0.1)),
            ("vector", vec![4], Init::Const(0.5)),
            ("trained", vec![2, 2], Init::Const(0.5)),
        ]
        .map(|(name, shape, init)| (name, root.weight(name, &shape, init)));
        let params = store.finish().unwrap();
        params.train_only(|n| n == "trained");
        hold(&params, Held::Bf16, false).unwrap();
        // The module's own handle sees it.
        for (name, tensor) in made {
            let expected = if name == "exact" {
                Kind::BFloat16
            } else {
                Kind::Float
            };
            assert_eq!(tensor.kind(), expected, "{name}");
        }
    }
}
