//! Each module of the model on the device beside the same on the CPU, forward and backward.

use super::compare::{distance, gradients};
use super::made::{self, Shape};
use super::part::{Check, Measured};
use crate::error::Result;
use crate::ffi::kernels;
use crate::generate::{generate, sampling, Options};
use crate::model::audio::Encoder;
use crate::model::audio_transformer::AudioTransformer;
use crate::model::cross_attention::{self, frame_mask, GatedCrossAttention};
use crate::model::flamingo::{Config, Flamingo};
use crate::model::lm::Cache;
use crate::model::mode::{EncoderMode, Mode};
use crate::model::params::{Params, Scope};
use crate::model::parts::Part;
use crate::optim::{groups, Optimizer, Rule, BETAS};
use crate::recipe::TrainRecipe;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::{no_grad, Device, Kind, Tensor};

pub(crate) const ABOUT: &str = "The same random weights and inputs; heads as large as the 3B model's, widths and depths reduced. A distance \
    is the norm of the difference by the norm of what the CPU computed in fp32, for gradients that of the worst weight, of which \
    those below a share of the whole gradient are measured by that share, as theirs is rounding: a thousandth in fp32, a tenth in bf16. Bounds: in fp32, with TF32 off, the two sides add up in another order: \
    about 6e-8 times the root of some thousand terms a product, some tens of products one behind the other, so 1e-4 for outputs and 1e-3 for \
    gradients, in which more cancels; TF32, with 10 bits of mantissa, would be past it. Under bf16 autocast every product rounds to 8 bits, \
    0.4%, at random. At these sizes the CPU's own bf16 was seen 1e-2 from its fp32 in outputs, 5e-2 in the gradients of a module and 1.2e-1 in \
    those of the whole model; the bounds are 3e-2, 2e-1 and 5e-1, and a path that is left out is 1. The mel is computed on the CPU alone.";

/// How far apart the device and the CPU may be.
#[derive(Clone, Copy)]
struct Bounds {
    output: f64,
    gradient: f64,
    /// Smaller gradients are measured by this share of the whole one.
    small: f64,
}
const FP32: Bounds = Bounds {
    output: 1e-4,
    gradient: 1e-3,
    small: 1e-3,
};
const BF16: Bounds = Bounds {
    output: 3e-2,
    gradient: 2e-1,
    small: 1e-1,
};
const WHOLE_BF16: Bounds = Bounds {
    gradient: 5e-1,
    ..BF16
};
/// Of what is added up in fixed order, weight by weight: AdamW.
const ELEMENTWISE: f64 = 1e-5;

pub(crate) fn run(check: &mut Check) -> Result<()> {
    if check.on_gpu() {
        kernels::allow_tf32(false)?;
    }
    encoder(check)?;
    audio_transformer(check)?;
    cross_attention(check)?;
    flamingo(check)?;
    adamw(check)?;
    random_numbers(check)
}

/// What one pass gives: an output, and gradients by weight.
struct Pass {
    out: Tensor,
    grads: Vec<(String, Tensor)>,
}

fn pass<M>(
    (model, params): &(M, Params),
    device: Device,
    bf16: bool,
    forward: &dyn Fn(&M, Device) -> Tensor,
) -> Result<Pass> {
    let out = match bf16 {
        true => kernels::autocast_bf16(device, || forward(model, device))?,
        false => forward(model, device),
    };
    let trained = params.trainable();
    if !trained.is_empty() {
        let n = out.numel() as i64;
        let flat = out.to_kind(Kind::Float).reshape([n]);
        // Every element counts, and by another weight.
        let weights = match n {
            1 => Tensor::ones([1], (Kind::Float, device)),
            _ => made::noise(9, &[n], device),
        };
        (flat * weights).sum(Kind::Float).f_backward()?;
    }
    let grads = trained.iter().filter(|(_, p)| p.grad().defined());
    let grads = grads.map(|(n, p)| (n.clone(), p.grad().copy())).collect();
    let all: Vec<Tensor> = trained.into_iter().map(|(_, p)| p).collect();
    kernels::forget_grads(&all)?;
    Ok(Pass {
        out: out.detach(),
        grads,
    })
}

/// A row in fp32 and one in bf16: a module on the device beside the same on the CPU in fp32.
fn beside_the_cpu<M>(
    check: &mut Check,
    name: &str,
    build: &dyn Fn(&Scope) -> M,
    trains: &dyn Fn(&str) -> bool,
    forward: &dyn Fn(&M, Device) -> Tensor,
) -> Result<()> {
    compared(check, name, build, trains, forward, BF16)
}

/// The same with other bounds in bf16.
fn compared<M>(
    check: &mut Check,
    name: &str,
    build: &dyn Fn(&Scope) -> M,
    trains: &dyn Fn(&str) -> bool,
    forward: &dyn Fn(&M, Device) -> Tensor,
    cast: Bounds,
) -> Result<()> {
    let device = check.device;
    let mut expected = None;
    for (bf16, bounds) in [(false, FP32), (true, cast)] {
        let precision = if bf16 { "bf16 autocast" } else { "fp32" };
        check.row(&format!("{name}, {precision}"), |m| {
            let (expected, weights) = match &mut expected {
                Some(made) => made,
                None => {
                    let cpu = made::fresh(build)?;
                    cpu.1.train_only(trains);
                    let made = pass(&cpu, Device::Cpu, false, forward)?;
                    expected.insert((made, cpu.1))
                }
            };
            let own = made::copied(weights, device, build)?;
            own.1.train_only(trains);
            let found = pass(&own, device, bf16, forward)?;
            m.set("precision", precision);
            judge(m, &found, expected, bounds);
            Ok(())
        })?;
    }
    Ok(())
}

fn judge(m: &mut Measured, found: &Pass, expected: &Pass, bounds: Bounds) {
    let off = distance(&found.out, &expected.out);
    m.set("output_distance", off);
    m.set("output_bound", bounds.output);
    m.at_most("the output's distance", off, bounds.output);
    if expected.grads.is_empty() && found.grads.is_empty() {
        return;
    }
    let (off, whose) = gradients(&found.grads, &expected.grads, bounds.small);
    m.set("gradient_distance", off);
    m.set("gradient_bound", bounds.gradient);
    m.at_most(
        &format!("the gradient's distance ({whose})"),
        off,
        bounds.gradient,
    );
}

fn encoder(check: &mut Check) -> Result<()> {
    let config = check.size(made::encoder(), made::tiny().encoder);
    let build = |p: &Scope| Encoder::new(p, &config);
    let mel = |seed: i64, shape: &[i64], device: Device| made::noise(seed, shape, device) * 10.0 - 40.0;
    beside_the_cpu(check, "HTSAT, 2 windows", &build, &|_| true, &|model, device| {
        model.encode(&mel(1, &[2, 1001, 64], device), Mode::EVAL)
    })?;
    let trained = Mode {
        encoder: EncoderMode {
            batch_norm: true,
            ..EncoderMode::EVAL
        },
        ..Mode::EVAL
    };
    let name = "HTSAT, a longer sound's fusion, batch statistics";
    // Batch statistics over the one longer sound take away all that a convolution before them says, where each channel has one value:
    // what its gradient holds is rounding, larger than itself in bf16 on some processors.
    let trains = |name: &str| {
        !["global_att.1.", "global_att.4."]
            .iter()
            .any(|conv| name.contains(conv))
    };
    beside_the_cpu(check, name, &build, &trains, &|model, device| {
        model.encode_whole(&mel(2, &[2, 4, 1001, 64], device), &[1], trained)
    })
}

fn audio_transformer(check: &mut Check) -> Result<()> {
    let width = check.size(512, 64);
    let config = check.size(made::joiner(512), made::tiny().audio_transformer);
    let build = |p: &Scope| AudioTransformer::new(p, &config, width);
    for (name, padded) in [("3 windows", false), ("2 windows and padding", true)] {
        let name = format!("audio transformer, {name}");
        beside_the_cpu(check, &name, &build, &|_| true, &|model, device| {
            let x = made::noise(3, &[2, 192, width], device);
            let real = Tensor::ones([2, 192], (Kind::Bool, device));
            if padded {
                let _ = real.get(1).narrow(0, 128, 64).fill_(0);
            }
            // None where every window is real, as the model passes it.
            model.forward(&x, padded.then_some(&real), Mode::EVAL)
        })?;
    }
    Ok(())
}

fn cross_attention(check: &mut Check) -> Result<()> {
    let (dim, audio) = check.size((1024, 512), (32, 16));
    let config = check.size(cross_attention::Config::default(), made::tiny().cross_attention);
    let build = |p: &Scope| GatedCrossAttention::new(p, &config, dim, audio);
    for (name, padded) in [("3 windows", false), ("2 windows and padding", true)] {
        let name = format!("cross-attention block, {name}");
        beside_the_cpu(check, &name, &build, &|_| true, &|model, device| {
            let media = made::noise(4, &[2, 192, audio], device);
            let x = made::noise(5, &[2, 33, dim], device);
            let mask = padded.then(|| {
                let windows = Tensor::from_slice2(&[[1f32, 1.0, 1.0], [1.0, 1.0, 0.0]]).to_device(device);
                let seen = Tensor::ones([2, 33], (Kind::Int64, device));
                frame_mask(&config, 64, &windows, &seen)
            });
            model.forward(&x, &model.key_value(&media), mask.as_ref())
        })?;
    }
    Ok(())
}

/// The LM alone, and the whole model.
fn flamingo(check: &mut Check) -> Result<()> {
    let tokenizer = made::tokenizer()?;
    let whole = Config {
        audio_token: tokenizer.audio,
        ..check.size(made::small()?, made::tiny())
    };
    // No block listens.
    let alone = Config {
        encoder: made::tiny().encoder,
        audio_transformer: made::tiny().audio_transformer,
        cross_attention: cross_attention::Config {
            every: whole.lm.decoder().num_hidden_layers + 1,
            ..whole.cross_attention.clone()
        },
        ..whole.clone()
    };
    let text = check.size(64, 24);
    let of = |shape: Shape, device: Device| made::batch(shape, &tokenizer, device);
    let lengths = |windows: usize| Shape {
        items: 2,
        windows,
        text,
        ragged: true,
    };

    let build = |p: &Scope| Flamingo::new(p, &alone);
    let lm = |name: &str| Part::of(name).of_the_lm();
    let name = format!("Qwen2, {} layers", alone.lm.decoder().num_hidden_layers);
    beside_the_cpu(check, &name, &build, &lm, &|model, device| {
        let full = Shape {
            ragged: false,
            ..lengths(1)
        };
        let batch = of(full, device);
        let heard = no_grad(|| model.hear(&batch.input.audio, Mode::EVAL));
        model.states(&batch.input.text, &heard, Mode::EVAL)
    })?;

    let build = |p: &Scope| Flamingo::new(p, &whole);
    let stage = made::stage("clap, audio_transformer, cross_attention, embeddings, lm", 2, 3)?;
    // Batches of several lengths: padding in windows and in text.
    let mode = stage.mode(&TrainRecipe::default(), 0.0);
    let loss = |model: &Flamingo, device: Device| of(lengths(3), device).input.loss_sum(model, mode, 16);
    compared(check, "Flamingo, loss", &build, &|_| true, &loss, WHOLE_BF16)?;

    let device = check.device;
    check.row("activation checkpointing beside none, both on the device", |m| {
        let own = device_model(&whole, device)?;
        own.1.train_only(|_| true);
        let seeded = |recompute: bool| {
            move |model: &Flamingo, device: Device| {
                let batch = of(lengths(3), device);
                tch::manual_seed(11);
                let mode = Mode {
                    recompute,
                    // Numbers that are drawn must be drawn again.
                    attention_dropout: 0.1,
                    ..mode
                };
                batch.input.loss_sum(model, mode, 16)
            }
        };
        let plain = pass(&own, device, false, &seeded(false))?;
        let again = pass(&own, device, false, &seeded(true))?;
        m.set("precision", "fp32");
        judge(m, &again, &plain, FP32);
        Ok(())
    })?;

    check.row(
        "prefill and decoding with caches beside whole texts, both on the device",
        |m| {
            let (model, _) = device_model(&whole, device)?;
            let batch = of(
                Shape {
                    items: 1,
                    windows: 2,
                    text: 12,
                    ragged: false,
                },
                device,
            );
            let (whole, cached) = no_grad(|| {
                let heard = model.hear(&batch.input.audio, Mode::EVAL);
                let whole = model.logits(&model.states(&batch.input.text, &heard, Mode::EVAL));
                let mut cache = Cache::default();
                let ids = &batch.input.text.ids_bt;
                let mut seen = Tensor::zeros([1, 1], (Kind::Int64, device));
                let mut parts = Vec::new();
                for (from, tokens) in [(0, 8), (8, 3), (11, 1)] {
                    let new = ids.narrow(1, from, tokens);
                    parts.push(model.decode(&new, &heard, &mut cache, &seen));
                    seen += model.audio_tokens(&new);
                }
                // Only the last token's logits come back.
                let at = Tensor::from_slice(&[7i64, 10, 11]).to_device(device);
                (whole.index_select(1, &at), Tensor::cat(&parts, 1))
            });
            let off = distance(&cached, &whole);
            m.set("precision", "fp32");
            m.set("output_distance", off);
            m.set("output_bound", FP32.output);
            m.at_most("the logits' distance", off, FP32.output);
            Ok(())
        },
    )?;

    check.row("greedy answers of the device and of the CPU", |m| {
        let (model, params) = made::fresh(&build)?;
        let own = made::copied(&params, device, &build)?;
        let prompt = made::prompt(&mut ChaCha8Rng::seed_from_u64(3), 9, &tokenizer);
        let options = Options {
            max_new_tokens: 8,
            eos: -1,
            cache: true,
        };
        let one = Shape {
            items: 1,
            windows: 2,
            text: 8,
            ragged: false,
        };
        let answer = |model: &Flamingo, device: Device| {
            let batch = of(one, device);
            let heard = no_grad(|| model.hear(&batch.input.audio, Mode::EVAL));
            let mut sampler = sampling::Sampler::new(sampling::Sampling::GREEDY, 0);
            generate(model, &heard, &prompt, &options, &mut sampler)
        };
        let (expected, found) = (answer(&model, Device::Cpu), answer(&own.0, device));
        m.set("precision", "fp32");
        m.must(found == expected, || {
            format!("tokens {found:?}, on the CPU {expected:?}")
        });
        Ok(())
    })?;
    Ok(())
}

fn device_model(config: &Config, device: Device) -> Result<(Flamingo, Params)> {
    let build = |p: &Scope| Flamingo::new(p, config);
    let (_, params) = made::fresh(&build)?;
    made::copied(&params, device, &build)
}

fn adamw(check: &mut Check) -> Result<()> {
    let device = check.device;
    check.row("fused AdamW, 3 steps and one that is skipped", |m| {
        let moved = |device: Device| -> Result<Vec<(String, Tensor)>> {
            let shapes: [&[i64]; 4] = [&[300, 257], &[1], &[2048], &[3, 5, 7]];
            let weights = shapes.iter().enumerate().map(|(i, shape)| {
                let w = made::noise(20 + i as i64, shape, device).set_requires_grad(true);
                (format!("w{i}"), w)
            });
            let weights: Vec<(String, Tensor)> = weights.collect();
            let copies = weights.iter().map(|(n, w)| (n.clone(), w.shallow_clone()));
            let mut adam = Optimizer::new(
                Rule::Adamw,
                groups(copies.collect(), 0.1, BETAS, |_, p| p.dim() > 1, &[]),
            );
            for step in 0..4 {
                let losses = weights.iter().enumerate().map(|(i, (_, w))| {
                    let by = made::noise(40 + 4 * step + i as i64, &w.size(), device);
                    (w * by).sum(Kind::Float)
                });
                let losses: Vec<Tensor> = losses.collect();
                Tensor::stack(&losses, 0).sum(Kind::Float).f_backward()?;
                let _ = adam.clip(1.0)?;
                // What the last one would do must not be done.
                let skipped = Tensor::full([0i64; 0], i64::from(step == 3), (Kind::Float, device));
                adam.step(0.01, &skipped)?;
                adam.zero_grad(false)?;
            }
            Ok(weights.into_iter().map(|(n, w)| (n, w.detach())).collect())
        };
        let (expected, found) = (moved(Device::Cpu)?, moved(device)?);
        let (off, whose) = gradients(&found, &expected, 0.0);
        m.set("precision", "fp32");
        m.set("output_distance", off);
        m.set("output_bound", ELEMENTWISE);
        m.at_most(&format!("the weights' distance ({whose})"), off, ELEMENTWISE);
        Ok(())
    })?;
    Ok(())
}

fn random_numbers(check: &mut Check) -> Result<()> {
    let device = check.device;
    check.row("random numbers go on from a saved state", |m| {
        let draw = || {
            let ones = Tensor::ones([1000], (Kind::Float, device));
            [
                ones.dropout(0.5, true),
                Tensor::rand([1000], (Kind::Float, device)),
            ]
        };
        let _ = draw();
        let state = kernels::rng_state(device)?;
        let first = draw();
        let other = draw();
        kernels::set_rng_state(device, &state)?;
        let again = draw();
        let same = |a: &[Tensor; 2], b: &[Tensor; 2]| a.iter().zip(b).all(|(a, b)| a.equal(b));
        m.must(same(&first, &again), || {
            "other numbers come after it was given back".into()
        });
        m.must(!same(&first, &other), || "the numbers are always the same".into());
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What a fault of one kernel would look like: the comparison must see it.
    #[test]
    fn one_weight_of_the_device_that_is_another_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows");
        let mut check = Check::new(&file, Device::Cpu, true, Duration::from_secs(60), None).unwrap();
        let config = made::tiny().cross_attention;
        let build = |p: &Scope| GatedCrossAttention::new(p, &config, 32, 16);
        let calls = std::cell::Cell::new(0);
        let verdicts = |file: &std::path::Path| -> Vec<crate::gpu_check::report::Verdict> {
            let lines = super::super::part::Line::read_all(file).into_iter();
            let rows = lines.filter_map(|l| match l {
                super::super::part::Line::Row(row) => Some(row.verdict),
                _ => None,
            });
            rows.collect()
        };
        beside_the_cpu(&mut check, "wrong", &build, &|_| true, &|model, device| {
            // The first call is the CPU's.
            let by = if calls.replace(calls.get() + 1) == 0 {
                1.0
            } else {
                1.3
            };
            let x = made::noise(5, &[1, 4, 32], device) * by;
            model.forward(&x, &model.key_value(&made::noise(4, &[1, 8, 16], device)), None)
        })
        .unwrap();
        use crate::gpu_check::report::Verdict::Broken;
        assert_eq!(verdicts(&file), [Broken, Broken]);
    }
}
