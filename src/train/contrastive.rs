//! AF-CLAP from clip–caption pairs, by the plain symmetric contrastive loss.
//!
//! Paper section 3.1 adds composition-aware negatives; this is its "vanilla loss" row of table 3.

use super::finite::{self, Patience};
use super::optim::{groups, learning_rate, AdamW};
use super::record::Recorder;
use super::{log_every, number};
use crate::checkpoint::{items, write_safetensors};
use crate::data::feed::{examples, Ears, Example};
use crate::data::manifest::Manifest;
use crate::error::{self, Error, Result};
use crate::model::clap::{Clap, Config, TEXT_TOKENS};
use crate::model::mode::{EncoderMode, Mode};
use crate::model::params::{Origin, Store};
use crate::progress::Progress;
use crate::recipe::{ClapRecipe, Recipe};
use crate::run::events;
use crate::text::prompt;
use crate::text::tokenizer::Tokenizer;
use ndarray::Array3;
use rand::seq::SliceRandom;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use std::{collections::HashSet, sync::Arc};
use tch::{no_grad, Device, Kind, Tensor};

/// Largest scale of the similarities, as CLIP bounds it.
const MOST_SCALE: f64 = 100.0;

/// Trains both towers and writes `clap.safetensors`.
pub fn train(recipe: &Recipe, clap: &ClapRecipe, ears: &Ears, device: Device) -> Result<()> {
    let mut tokenizer = Tokenizer::open(&recipe.lm_folder())?;
    tokenizer.special_tokens = recipe.data.special_tokens_in_texts;
    let mut pairs = captions(recipe, clap, "train.json")?;
    let validation = captions(recipe, clap, "val.json")?;
    if pairs.is_empty() {
        return Err(Error::Training {
            message: "clap.sets: no caption to learn from".into(),
            hint: None,
        });
    }
    tch::manual_seed(recipe.seed as i64);
    let config = Config {
        audio: clap.audio.clone(),
        text: clap.text.config(tokenizer.len() as i64),
        joint_dim: clap.joint_dim,
    };
    let wrong = config.check().into_iter();
    error::all(
        wrong
            .map(|w| Error::recipe(&recipe.name, w.to_string()))
            .collect(),
    )?;
    let store = Store::new(Origin::Fresh, device);
    let model = Clap::new(&store.root(), &config);
    let params = store.finish()?;
    params.train_only(|n| !n.starts_with("logit_scale_t"));
    let o = &clap.optim;
    let mut optimizer = AdamW::new(groups(params.trainable(), o.weight_decay, |_, p| p.dim() > 1));
    let mode = Mode {
        encoder: EncoderMode {
            batch_norm: true,
            spec_augment: clap.augment,
            drop_path: clap.augment,
            ..EncoderMode::EVAL
        },
        ..Mode::EVAL
    };
    let mut record = Recorder::create(&events::folder(&recipe.output, "clap"))?;
    let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
    let progress = Progress::new("AF-CLAP: train", o.steps as u64);
    let every = log_every(o.steps);
    let mut patience = Patience::new("clap", recipe.train.nonfinite_limit);
    let mut loss_sum = Tensor::zeros([0i64; 0], (Kind::Float, device));
    let mut batches: Vec<Vec<Example>> = Vec::new();
    for step in 0..o.steps {
        let mut grad_norm = Tensor::from(0f32);
        for _ in 0..o.accumulate {
            while batches.is_empty() {
                pairs.shuffle(&mut rng);
                batches = distinct_batches(&pairs, o.batch_size);
            }
            let batch = batches.pop().unwrap_or_default();
            let (audio, text) = embed(&model, &batch, ears, &tokenizer, mode, device)?;
            let scale = model.logit_scale_a.exp().clamp_max(MOST_SCALE);
            let loss = symmetric_loss(&audio, &text, &scale);
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
        if (step + 1) % (20 * every) == 0 || last {
            if let Some(recall) = retrieval(&model, &validation, ears, &tokenizer, device)? {
                record.record(step as u64 + 1, &[("validation_recall_at_1", recall)])?;
            }
        }
    }
    progress.finish("");
    record.flush()?;
    finite::check(&recipe.clap_file().display().to_string(), &params)?;
    write_safetensors(&recipe.clap_file(), &items(params.tensors()), &[("format", "pt")])
}

/// Cross-entropy of the matching caption among the batch's captions, and of the matching clip among its clips.
///
/// # Shapes
/// both (B, joint), of length 1 → scalar
pub fn symmetric_loss(audio: &Tensor, text: &Tensor, scale: &Tensor) -> Tensor {
    let logits = audio.matmul(&text.tr()) * scale;
    let right = Tensor::arange(audio.size()[0], (Kind::Int64, audio.device()));
    (logits.cross_entropy_for_logits(&right) + logits.tr().cross_entropy_for_logits(&right)) / 2.0
}

fn captions(recipe: &Recipe, clap: &ClapRecipe, file: &str) -> Result<Vec<Example>> {
    let mut all = Vec::new();
    for set in &clap.sets {
        let path = recipe.manifest(set).with_file_name(file);
        if path.exists() {
            let manifest = Manifest::open(&path)?;
            all.extend(examples(&manifest, &recipe.data_root(), 1, usize::MAX)?);
        }
    }
    Ok(all)
}

/// Batches in which no caption stands twice: the loss would call one of the two clips wrong.
fn distinct_batches(pairs: &[Example], size: usize) -> Vec<Vec<Example>> {
    let mut left: Vec<&Example> = pairs.iter().collect();
    let mut batches = Vec::new();
    while !left.is_empty() {
        let mut seen = HashSet::new();
        let mut batch = Vec::new();
        let mut later = Vec::new();
        for e in left {
            if batch.len() < size && seen.insert(prompt::clean(&e.item.output)) {
                batch.push(e.clone());
            } else {
                later.push(e);
            }
        }
        // A batch of a few says little about what does not match.
        if batch.len() * 2 >= size || batches.is_empty() {
            batches.push(batch);
        }
        left = later;
    }
    batches
}

fn embed(
    model: &Clap,
    batch: &[Example],
    ears: &Ears,
    tokenizer: &Tokenizer,
    mode: Mode,
    device: Device,
) -> Result<(Tensor, Tensor)> {
    let mels = ears.mels(&batch.iter().map(|e| &e.clip).collect::<Vec<_>>())?;
    let audio = model.embed_windows(&first_windows(&mels, device), mode);
    let (ids, real) = text_tokens(batch, tokenizer, device)?;
    Ok((audio, model.embed_text(&ids, &real)))
}

/// (B, 1001, 64): the first window of each clip, zero-padded as AF2 hears it. (AF-CLAP's own loader repeats
/// short clips instead; a repeated bark would be a wrong example for counting.)
fn first_windows(mels: &[Arc<Array3<f32>>], device: Device) -> Tensor {
    let each: Vec<Tensor> = mels
        .iter()
        .map(|m| {
            let window: Vec<f32> = m
                .outer_iter()
                .next()
                .map(|w| w.iter().copied().collect())
                .unwrap_or_default();
            Tensor::from_slice(&window).reshape([m.shape()[1] as i64, m.shape()[2] as i64])
        })
        .collect();
    Tensor::stack(&each, 0).to_device(device)
}

/// Captions padded to 77 tokens: (B, 77) ids and mask.
fn text_tokens(batch: &[Example], tokenizer: &Tokenizer, device: Device) -> Result<(Tensor, Tensor)> {
    let mut ids = vec![tokenizer.pad; batch.len() * TEXT_TOKENS];
    let mut real = vec![0i64; ids.len()];
    for (b, e) in batch.iter().enumerate() {
        let mut own = tokenizer.text(&prompt::clean(&e.item.output))?;
        own.truncate(TEXT_TOKENS - 1);
        own.push(tokenizer.eos);
        for (t, id) in own.into_iter().enumerate() {
            ids[b * TEXT_TOKENS + t] = id;
            real[b * TEXT_TOKENS + t] = 1;
        }
    }
    let shape = [batch.len() as i64, TEXT_TOKENS as i64];
    let tensor = |v: &[i64]| Tensor::from_slice(v).reshape(shape).to_device(device);
    Ok((tensor(&ids), tensor(&real)))
}

/// Share of validation clips whose own caption is the nearest of all distinct ones.
fn retrieval(
    model: &Clap,
    validation: &[Example],
    ears: &Ears,
    tokenizer: &Tokenizer,
    device: Device,
) -> Result<Option<f64>> {
    if validation.is_empty() {
        return Ok(None);
    }
    let mut seen = HashSet::new();
    let distinct: Vec<Example> = validation
        .iter()
        .filter(|e| seen.insert(prompt::clean(&e.item.output)))
        .cloned()
        .collect();
    no_grad(|| {
        let (ids, real) = text_tokens(&distinct, tokenizer, device)?;
        let text = model.embed_text(&ids, &real);
        let mut right = 0;
        for batch in validation.chunks(32) {
            let mels = ears.mels(&batch.iter().map(|e| &e.clip).collect::<Vec<_>>())?;
            let audio = model.embed_windows(&first_windows(&mels, device), Mode::EVAL);
            let best = Vec::<i64>::try_from(audio.matmul(&text.tr()).argmax(1, false))?;
            right += best
                .iter()
                .zip(batch)
                .filter(|(i, e)| {
                    prompt::clean(&distinct[**i as usize].item.output) == prompt::clean(&e.item.output)
                })
                .count();
        }
        Ok(Some(right as f64 / validation.len() as f64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pairs by hand: similarities 1 on the diagonal and 0 beside it, scale s → loss ln(1 + e^−s).
    #[test]
    fn the_loss_by_hand() {
        let eye = Tensor::eye(2, (Kind::Float, Device::Cpu));
        let loss = f64::try_from(symmetric_loss(&eye, &eye, &Tensor::from(2f32))).unwrap();
        assert!((loss - (1.0 + (-2f64).exp()).ln()).abs() < 1e-6);
    }
}
