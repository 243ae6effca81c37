//! What a stage trains.

use super::optim::{AdamW, Group};
use crate::error::Result;
use crate::model::params::{Params, Role};
use crate::recipe::{EmbeddingRows, Held, Part, StageRecipe};
use tch::{Device, Kind, Tensor};

/// Freezes everything but the stage's parts and gives what is left to an optimizer.
///
/// Reference: two groups, weight decay on names with `gated_cross_attn` and none on the others, each in the model's
/// order: so its `AdamW.load_state_dict` takes our state. Rates of their own make further groups.
pub fn optimizer(params: &Params, stage: &StageRecipe) -> AdamW {
    params.train_only(|name| stage.train.contains(&Part::of(name)));
    let o = &stage.optim;
    let group = |weight_decay: f64, rate: f64| Group {
        params: Vec::new(),
        weight_decay,
        rate,
    };
    const DECAY: usize = 0;
    const NO_DECAY: usize = 1;
    let mut groups = vec![group(o.weight_decay, 1.0), group(0.0, 1.0)];
    let mut own_rate = |weight_decay: f64, rate: f64, otherwise: usize| {
        if rate == 1.0 {
            return otherwise;
        }
        groups.push(group(weight_decay, rate));
        groups.len() - 1
    };
    let gates = own_rate(o.weight_decay, o.gate_rate, DECAY);
    let clap = own_rate(0.0, o.clap_rate, NO_DECAY);
    for (name, tensor) in params.trainable() {
        let place = match Part::of(&name) {
            Part::CrossAttention if name.ends_with("_gate") => gates,
            Part::CrossAttention => DECAY,
            Part::Clap => clap,
            _ => NO_DECAY,
        };
        groups[place].params.push((name, tensor));
    }
    AdamW::new(groups)
}

/// Holds frozen matrices in bf16 where the recipe asks for it and nothing is lost by it; tells how many stayed.
pub fn hold_frozen(params: &Params, held: Held, tell: bool) -> Result<()> {
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

/// Sets the embedding's gradient to zero but for the rows that may change.
pub struct EmbeddingMask {
    weight: Tensor,
    keep_v1: Tensor,
}

impl EmbeddingMask {
    /// None where the stage leaves the embeddings alone or may change them all.
    /// Reference: only `<audio>` and `<|endofchunk|>` learn, `<SEP>` does not; a tied head shares the mask.
    pub fn new(params: &Params, stage: &StageRecipe, rows: &[i64], device: Device) -> Option<Self> {
        let weight = params.get("lang_encoder.model.embed_tokens.weight")?;
        if !stage.train.contains(&Part::Embeddings) || stage.embedding_rows == EmbeddingRows::All {
            return None;
        }
        let keep = Tensor::zeros([weight.size()[0], 1], (Kind::Float, device));
        for row in rows {
            let _ = keep.get(*row).fill_(1.0);
        }
        Some(EmbeddingMask {
            weight: weight.shallow_clone(),
            keep_v1: keep,
        })
    }

    pub fn apply(&self) {
        let mut grad = self.weight.grad();
        if grad.defined() {
            tch::no_grad(|| {
                let _ = grad.g_mul_(&self.keep_v1);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::{Init, Origin, Store};

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
        hold_frozen(&params, Held::Bf16, false).unwrap();
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
