//! A small tokenizer and a small Qwen2 from text alone, so that a run without downloads has a frozen LM to speak through.

use super::finite::{self, Patience};
use super::optim::{groups, learning_rate, AdamW};
use super::record::Recorder;
use super::{log_every, number};
use crate::checkpoint::{items, write_safetensors};
use crate::error::{Error, Result};
use crate::fsutil::write_atomic_bytes;
use crate::model::lm::{Decoder, Naming};
use crate::model::params::{Origin, Store};
use crate::progress::Progress;
use crate::recipe::{LmRecipe, Recipe};
use crate::run::events;
use crate::text::{bpe, prompt};
use rand::seq::SliceRandom;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use std::collections::BTreeSet;
use tch::{Device, Kind, Tensor};

/// Trains both on the texts of `pairs` (prompt, answer) and writes a Hugging Face folder to `output/llm`.
pub fn train(recipe: &Recipe, lm: &LmRecipe, pairs: &[(String, String)], device: Device) -> Result<()> {
    // The same question about a hundred clips is one text: an LM that saw it a hundred times would
    // only know the answers' frequencies better, which the silence control should not profit from.
    let texts: BTreeSet<String> = pairs
        .iter()
        .map(|(p, a)| format!("{}\n{}", prompt::clean(p), prompt::clean(a)))
        .collect();
    if texts.is_empty() {
        return Err(Error::Training {
            message: "no text to train the LM on".into(),
            hint: Some("the stages' sets are empty".into()),
        });
    }
    let folder = recipe.lm_folder();
    let mut tokenizer = bpe::train(texts.iter().map(String::as_str), lm.vocab_size, &folder)?;
    tokenizer.special_tokens = recipe.data.special_tokens_in_texts;
    // Ids from <audio> on are AF2's additions; the LM knows what is before them.
    let vocab = tokenizer.audio;
    let config = lm.config(vocab);
    let ids = texts
        .iter()
        .map(|t| {
            let mut ids = tokenizer.text(t)?;
            ids.push(tokenizer.eos);
            ids.truncate(config.max_position_embeddings as usize);
            Ok(ids)
        })
        .collect::<Result<Vec<_>>>()?;

    tch::manual_seed(recipe.seed as i64);
    let store = Store::new(Origin::Fresh, device);
    let model = Decoder::new(&store.root(), &config.decoder(), vocab, Naming::Plain);
    let params = store.finish()?;
    params.train_only(|_| true);
    let o = &lm.optim;
    let mut optimizer = AdamW::new(groups(params.trainable(), o.weight_decay, |_, p| p.dim() > 1));
    let mut record = Recorder::create(&events::folder(&recipe.output, "lm"))?;
    let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
    let progress = Progress::new("language model: train", o.steps as u64);
    let mut order: Vec<usize> = Vec::new();
    let every = log_every(o.steps);
    let mut patience = Patience::new("lm", recipe.train.nonfinite_limit);
    let mut loss_sum = Tensor::zeros([0i64; 0], (Kind::Float, device));
    for step in 0..o.steps {
        let mut grad_norm = Tensor::from(0f32);
        for _ in 0..o.accumulate {
            let mut batch = Vec::with_capacity(o.batch_size);
            while batch.len() < o.batch_size {
                if order.is_empty() {
                    order = (0..ids.len()).collect();
                    order.shuffle(&mut rng);
                }
                batch.extend(order.pop().map(|i| ids[i].as_slice()));
            }
            let (input, targets) = next_tokens(&batch, tokenizer.eos, device);
            let logits = model.forward(&input).flatten(0, 1);
            let loss = logits.cross_entropy_loss::<Tensor>(&targets, None, tch::Reduction::Mean, -100, 0.0);
            (&loss / o.accumulate as f64).f_backward()?;
            loss_sum += loss.detach();
            grad_norm = optimizer.clip(o.clip)?;
        }
        let rate = learning_rate(o, step);
        optimizer.step(rate, &patience.note(&grad_norm))?;
        optimizer.zero_grad(false)?;
        progress.inc(1);
        let last = step + 1 == o.steps;
        if (step + 1) % every == 0 || last {
            patience.look(step + 1, last)?;
        }
        if (step + 1) % every == 0 {
            let loss = number(&loss_sum)? / (every * o.accumulate) as f64;
            loss_sum = loss_sum.zeros_like();
            let values = [
                ("loss", loss),
                ("learning_rate", rate),
                ("grad_norm", number(&grad_norm)?),
            ];
            record.record(step as u64 + 1, &values)?;
            progress.message(&format!("loss {loss:.3}"));
        }
    }
    progress.finish("");
    record.flush()?;
    finite::check(&folder.display().to_string(), &params)?;
    let json = serde_json::to_vec_pretty(&config.to_json(tokenizer.eos))
        .map_err(|e| Error::recipe("config.json", e.to_string()))?;
    write_atomic_bytes(&folder.join("config.json"), &json)?;
    write_safetensors(
        &folder.join("model.safetensors"),
        &items(params.tensors()),
        &[("format", "pt")],
    )
}

/// Pads on the right and shifts by one: (B, T) input and (B·T) targets, −100 on padding.
/// Causal attention keeps padding from what stands before it, so no mask is needed.
fn next_tokens(batch: &[&[i64]], pad: i64, device: Device) -> (Tensor, Tensor) {
    let width = batch.iter().map(|t| t.len()).max().unwrap_or(1).max(2) - 1;
    let mut input = vec![pad; batch.len() * width];
    let mut targets = vec![-100i64; batch.len() * width];
    for (b, ids) in batch.iter().enumerate() {
        for t in 0..ids.len().saturating_sub(1) {
            input[b * width + t] = ids[t];
            targets[b * width + t] = ids[t + 1];
        }
    }
    (
        Tensor::from_slice(&input)
            .reshape([batch.len() as i64, width as i64])
            .to_device(device),
        Tensor::from_slice(&targets).to_device(device),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_asked_for_from_those_before_it() {
        let (input, targets) = next_tokens(&[&[1, 2, 3, 0], &[4, 0]], 0, Device::Cpu);
        assert_eq!(
            Vec::<i64>::try_from(input.flatten(0, 1)).unwrap(),
            [1, 2, 3, 4, 0, 0]
        );
        assert_eq!(Vec::<i64>::try_from(targets).unwrap(), [2, 3, 0, 0, -100, -100]);
    }
}
