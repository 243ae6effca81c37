//! Which of libtorch's attention kernels each call of the model got: asked of libtorch while the model runs, so that masks and shapes
//! are the model's own.

use super::made::{self, under, Shape};
use super::part::{Check, Measured};
use crate::error::Result;
use crate::ffi::check::{attention_calls, Attention};
use crate::ffi::kernels;
use crate::load::Loaded;
use crate::model::audio;
use crate::model::flamingo::Config;
use crate::model::lm::Cache;
use crate::model::mode::Mode;
use crate::model::presets::preset;
use crate::recipe::{Part, TrainRecipe};
use crate::train::job::Batch;
use crate::train::jobs::curriculum::batch::Input;
use indexmap::IndexMap;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tch::{no_grad, Kind, Tensor};

pub(crate) const ABOUT: &str = "The 3B model's widths with one LM layer and two blocks a stage of the encoder; libtorch says what it ran. cuDNN's \
    kernels must not appear: they are switched off. In training, what is computed in bf16 must not take the math path, which keeps every pair \
    of positions; in fp32, and where nothing is kept, it may. On the CPU nothing is judged.";

/// Neither is a multiple of the other, so that shapes tell the modules apart.
const WINDOWS: usize = 3;
const TEXT: usize = 48;

/// What the model is doing.
#[derive(Debug, Clone, Copy)]
struct Phase {
    name: &'static str,
    training: bool,
    bf16: bool,
    ragged: bool,
}

pub(crate) fn run(check: &mut Check) -> Result<()> {
    let config = match check.tiny {
        true => made::tiny(),
        false => widths_of_3b()?,
    };
    let Some(loaded) = made::model(check, &config)? else {
        return Ok(());
    };
    for bf16 in [true, false] {
        for ragged in [false, true] {
            training(check, &loaded, bf16, ragged)?;
        }
        answering(check, &loaded, bf16)?;
    }
    Ok(())
}

fn widths_of_3b() -> Result<Config> {
    let mut config = preset("af2-3b")?;
    config.encoder = made::shallow_encoder();
    config.audio_transformer.n_layers = 1;
    config.lm = made::lm_3b(1, config.lm.decoder().intermediate_size, 512)?;
    config.vocab = 512;
    Ok(config)
}

fn training(check: &mut Check, loaded: &Loaded, bf16: bool, ragged: bool) -> Result<()> {
    let device = check.device;
    let shape = Shape {
        items: 2,
        windows: WINDOWS,
        text: TEXT,
        ragged,
    };
    let phase = |name, training| Phase {
        name,
        training,
        bf16,
        ragged,
    };
    for (name, parts) in [
        ("training", "audio_transformer, cross_attention, embeddings"),
        (
            "training, CLAP too",
            "clap, audio_transformer, cross_attention, embeddings",
        ),
    ] {
        let stage = made::stage(parts, 2, WINDOWS)?;
        listen(check, phase(name, true), || {
            loaded
                .params
                .train_only(|name| stage.train.contains(&Part::of(name)));
            let batch = made::batch(shape, &loaded.tokenizer, device);
            loss(loaded, &batch, bf16, stage.mode(&TrainRecipe::default(), 0.0))?.f_backward()?;
            let trained: Vec<Tensor> = loaded.params.trainable().into_iter().map(|(_, p)| p).collect();
            kernels::forget_grads(&trained)?;
            loaded.params.train_only(|_| false);
            Ok(())
        })?;
    }
    listen(check, phase("validation", false), || {
        let batch = made::batch(shape, &loaded.tokenizer, device);
        let _ = no_grad(|| loss(loaded, &batch, bf16, Mode::EVAL))?;
        Ok(())
    })
}

fn loss(loaded: &Loaded, batch: &Batch<Input>, bf16: bool, mode: Mode) -> Result<Tensor> {
    under(bf16, loaded.device, || {
        batch.input.loss_sum(&loaded.model, mode, 16)
    })
}

/// One clip and one question.
fn answering(check: &mut Check, loaded: &Loaded, bf16: bool) -> Result<()> {
    let (model, device) = (&loaded.model, check.device);
    let shape = Shape {
        items: 1,
        windows: WINDOWS,
        text: TEXT,
        ragged: false,
    };
    let prompt = made::prompt(&mut ChaCha8Rng::seed_from_u64(3), TEXT, &loaded.tokenizer);
    let prompt = Tensor::from_slice(&prompt).unsqueeze(0).to_device(device);
    let seen = Tensor::zeros([1, 1], (Kind::Int64, device));
    let phase = |name| Phase {
        name,
        training: false,
        bf16,
        ragged: false,
    };
    let mut cache = Cache::default();
    let mut heard = None;
    listen(check, phase("prefill"), || {
        let batch = made::batch(shape, &loaded.tokenizer, device);
        let (listened, _) = no_grad(|| {
            under(bf16, device, || {
                let listened = model.hear(&batch.input.audio, Mode::EVAL);
                let logits = model.decode(&prompt, &listened, &mut cache, &seen);
                (listened, logits)
            })
        })?;
        heard = Some(listened);
        Ok(())
    })?;
    let Some(heard) = heard else { return Ok(()) };
    listen(check, phase("decoding, one token"), || {
        let one = prompt.narrow(1, 1, 1);
        let _ = no_grad(|| under(bf16, device, || model.decode(&one, &heard, &mut cache, &seen)))?;
        Ok(())
    })
}

/// Rows of the calls that `f` makes, equal ones together.
fn listen(check: &mut Check, phase: Phase, f: impl FnOnce() -> Result<()>) -> Result<()> {
    let on_gpu = check.on_gpu();
    let padding = if phase.ragged { ", padded" } else { "" };
    let precision = if phase.bf16 { "bf16" } else { "fp32" };
    let name = format!("{}, {precision}{padding}", phase.name);
    check.rows_of(&name, |begin| {
        let (done, calls) = attention_calls(f)?;
        done?;
        let mut distinct: IndexMap<Attention, usize> = IndexMap::new();
        for call in calls {
            *distinct.entry(call).or_insert(0) += 1;
        }
        let mut rows: Vec<(String, Measured)> = Vec::new();
        for (call, count) in &distinct {
            let mut m = begin();
            m.set("calls", *count);
            m.set("dtype", call.kind.clone());
            m.set("query", json!(call.query).to_string());
            m.set("key", json!(call.key).to_string());
            m.set("mask", call.mask.as_ref().map(|s| json!(s).to_string()));
            m.set("causal", call.causal);
            m.set("grouped", call.grouped);
            m.set("kernel", call.kernel.clone());
            if on_gpu {
                let wrong = wrong(phase, call);
                m.must(wrong.is_none(), || wrong.unwrap_or_default().into());
            }
            rows.push((format!("{name}: {}", module(&call.query, &call.key)), m));
        }
        if rows.is_empty() {
            let mut m = begin();
            m.must(false, || "libtorch told of no call".into());
            rows.push((name.clone(), m));
        }
        Ok(rows)
    })?;
    Ok(())
}

/// Whose attention has these shapes, in the batches above.
fn module(query: &[i64], key: &[i64]) -> &'static str {
    let length = |s: &[i64]| s.iter().rev().nth(1).copied().unwrap_or(0);
    let heard = WINDOWS as i64 * audio::Config::published().tokens_per_window();
    match (length(query), length(key)) {
        (64, 64) => "HTSAT",
        (q, k) if q == heard && k == heard => "audio transformer",
        (_, k) if k == heard => "cross-attention",
        _ => "LM",
    }
}

/// What is wrong with the kernel that a call on a GPU got.
fn wrong(phase: Phase, call: &Attention) -> Option<&'static str> {
    if call.kernel.contains("cudnn") {
        return Some("cuDNN's attention is switched off, and was taken");
    }
    let math = call.kernel.contains("math");
    // Under activation checkpointing a first run wants no gradient; its second one does.
    (math && phase.training && call.kind == "BFloat16" && call.grad)
        .then_some("the math path in training keeps every pair of positions")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(kind: &str, kernel: &str, grad: bool) -> Attention {
        Attention {
            query: vec![2, 16, 48, 128],
            key: vec![2, 2, 48, 128],
            mask: None,
            kind: kind.into(),
            causal: true,
            grouped: true,
            grad,
            kernel: kernel.into(),
        }
    }

    #[test]
    fn cudnn_and_math_in_bf16_training_are_wrong_and_nothing_else() {
        let phase = |training| Phase {
            name: "p",
            training,
            bf16: true,
            ragged: false,
        };
        for (training, kind, kernel, grad, bad) in [
            (true, "BFloat16", "flash_attention", true, false),
            (true, "BFloat16", "efficient_attention", true, false),
            (true, "BFloat16", "attention_math", true, true),
            (true, "BFloat16", "attention_math", false, false),
            (true, "Float", "attention_math", true, false),
            (false, "BFloat16", "attention_math", false, false),
            (false, "BFloat16", "cudnn_attention", false, true),
            (true, "BFloat16", "cudnn_attention", true, true),
        ] {
            let found = wrong(phase(training), &call(kind, kernel, grad));
            assert_eq!(found.is_some(), bad, "{training} {kind} {kernel} {grad}");
        }
    }

    #[test]
    fn shapes_tell_the_modules_apart() {
        for (query, key, expected) in [
            ([2, 64, 64, 64], [2, 64, 64, 64], "HTSAT"),
            ([2, 8, 192, 256], [2, 8, 192, 256], "audio transformer"),
            ([2, 8, 48, 64], [2, 8, 192, 64], "cross-attention"),
            ([1, 8, 1, 64], [1, 8, 192, 64], "cross-attention"),
            ([2, 16, 48, 128], [2, 2, 48, 128], "LM"),
            ([1, 16, 1, 128], [1, 2, 49, 128], "LM"),
        ] {
            assert_eq!(module(&query, &key), expected, "{query:?} {key:?}");
        }
    }
}
