//! How fast the 3B shapes answer, encode and train, beside the same shapes in torch.

use super::made::{self, under, Shape};
use super::part::{Check, Measured};
use super::peer::{Job, Peer};
use super::report::{Row, Verdict};
use super::steps;
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::ffi::check;
use crate::generate::{generate, sampling, Options};
use crate::load::Loaded;
use crate::model::flamingo::Config;
use crate::model::mode::Mode;
use crate::model::parts::Part;
use crate::plan;
use crate::recipe::{Held, TrainRecipe};
use crate::train::engine::frozen;
use crate::train::jobs::curriculum::Stage;
use crate::train::{number, Steps};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::rc::Rc;
use std::time::Instant;
use tch::{no_grad, Device};

pub(crate) const ABOUT: &str = "Random weights, batch 1 but for the training step; the median of the rounds behind a warm-up, the device \
    synchronised. Under bf16 autocast the LM's frozen matrices are held in bf16 on both sides. torch runs the same shapes in plain \
    torch.nn.functional, with `scaled_dot_product_attention` and the same precision, in a process of its own in the same minutes: of both sides \
    the number of parameters must be equal. Above 1 af2 is faster.";

const WINDOWS: usize = 12;

/// One thing that is timed.
struct Work {
    name: &'static str,
    what: &'static str,
    bf16: bool,
    unit: &'static str,
    /// Units of a round.
    units: usize,
    items: usize,
    windows: usize,
    text: usize,
    new: usize,
    rounds: usize,
}

pub(crate) fn run(check: &mut Check) -> Result<()> {
    let recipe = steps::recipe(check.tiny)?;
    let (config, _) = plan::config(&recipe)?;
    let works = works(check.tiny);
    let mut own = Vec::new();
    let device = check.device;
    let Some(loaded) = made::model(check, &config)? else {
        return Ok(());
    };
    // In fp32 first: what is once held in bf16 stays so.
    let mut held = false;
    for work in &works {
        // Its time is told with torch's, below; only where it fails there is nothing to compare.
        let mut seconds = None;
        let outcome = crate::panics::caught(|| -> Result<()> {
            if work.bf16 && !held {
                loaded.params.train_only(|n| !Part::of(n).of_the_lm());
                frozen::hold(&loaded.params, Held::Bf16, false)?;
                loaded.params.train_only(|_| false);
                held = true;
            }
            seconds = Some(timed(work, &loaded, device)?);
            Ok(())
        });
        own.push(match (outcome, seconds) {
            (Ok(Ok(())), Some(seconds)) => Ok(seconds),
            (Ok(Err(e)), _) => Err(e.to_string()),
            (Err(why), _) => Err(why),
            (Ok(Ok(())), None) => Err("nothing was timed".into()),
        });
        if let Some(Ok(seconds)) = own.last() {
            crate::say!(
                "  {}: {:.1} {}",
                work.name,
                work.units as f64 / seconds,
                work.unit
            );
        }
    }
    let (parameters, config) = (loaded.params.count(), loaded.model.config.clone());
    // The device's memory is torch's now.
    drop(loaded);
    check::empty_cache(device)?;
    let peer = match Peer::find(check) {
        Ok(peer) => peer,
        Err(e) => {
            check.put(Row::of("torch", Verdict::Failed, crate::error::short(&e)))?;
            None
        }
    };
    for (work, own) in works.iter().zip(own) {
        let left = check.left();
        check.row(work.name, |m| {
            m.set("precision", if work.bf16 { "bf16 autocast" } else { "fp32" });
            m.set("unit", work.unit);
            let own = own.map_err(|message| Error::Training { message, hint: None })?;
            let rate = |seconds: f64| work.units as f64 / seconds;
            m.set("af2", rate(own));
            let Some(peer) = &peer else {
                m.set("torch", "no Python with torch");
                return Ok(());
            };
            beside(
                m,
                rate(own),
                &rate,
                || peer.run(&job(work, &config, device), left),
                parameters,
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// Torch's column. Its own errors are notes: they are no fault of the device or of af2.
fn beside(
    m: &mut Measured,
    own: f64,
    rate: &dyn Fn(f64) -> f64,
    run: impl FnOnce() -> Result<super::peer::Found>,
    parameters: i64,
) {
    let found = match run() {
        Ok(found) => found,
        Err(e) => return m.note(crate::error::short(&e)),
    };
    let theirs = rate(median(found.seconds));
    m.set("torch", theirs);
    m.set("af2_by_torch", own / theirs);
    m.set("torch_version", found.torch);
    m.must(found.finite, || "torch's numbers are not finite".into());
    m.must(found.parameters == parameters, || {
        format!(
            "torch has {} parameters, af2 {parameters}: not the same shapes",
            found.parameters
        )
    });
}

fn works(tiny: bool) -> Vec<Work> {
    let (windows, prompt, long, new) = if tiny {
        (2, 8, 16, 4)
    } else {
        (WINDOWS, 64, 512, 64)
    };
    let rounds = if tiny { 2 } else { 5 };
    let mut all = Vec::new();
    for bf16 in [false, true] {
        let work = |name, what, unit, units, text, new| Work {
            name,
            what,
            bf16,
            unit,
            units,
            items: 1,
            windows,
            text,
            new,
            rounds,
        };
        let name = |fp32: &'static str, cast: &'static str| if bf16 { cast } else { fp32 };
        all.push(work(
            name("HTSAT, fp32", "HTSAT, bf16"),
            "htsat",
            "windows/s",
            windows,
            1,
            0,
        ));
        all.push(work(
            name("prefill, fp32", "prefill, bf16"),
            "prefill",
            "tokens/s",
            long,
            long,
            1,
        ));
        all.push(work(
            name(
                "decoding, prefill included, fp32",
                "decoding, prefill included, bf16",
            ),
            "decode",
            "tokens/s",
            new,
            prompt,
            new,
        ));
    }
    let (items, windows, text) = if tiny { (2, 1, 16) } else { (4, 3, 256) };
    all.push(Work {
        name: "training step, CLAP frozen, bf16",
        what: "step",
        bf16: true,
        unit: "tokens/s",
        units: items * text,
        items,
        windows,
        text,
        new: 0,
        rounds,
    });
    all
}

fn job(work: &Work, config: &Config, device: Device) -> Job {
    Job {
        what: work.what,
        config: config.clone(),
        device: match device {
            Device::Cuda(n) => format!("cuda:{n}"),
            _ => "cpu".into(),
        },
        bf16: work.bf16,
        items: work.items,
        windows: work.windows,
        text: work.text,
        new: work.new,
        warmup: 2,
        rounds: work.rounds,
        clap: false,
        counted: (work.what == "step").then(|| counted(work.text)),
    }
}

/// Labels that count of a text of [`made::batch`]: those behind its separator.
fn counted(text: usize) -> usize {
    let last = text - 1;
    last - last / 3
}

/// The median seconds of a round.
fn timed(work: &Work, loaded: &Loaded, device: Device) -> Result<f64> {
    let shape = Shape {
        items: work.items,
        windows: work.windows,
        text: work.text.max(4),
        ragged: false,
    };
    let batch = made::batch(shape, &loaded.tokenizer, device);
    let model = &loaded.model;
    if work.what == "step" {
        let parts = "audio_transformer, cross_attention, embeddings";
        let stage = made::stage(parts, work.items, work.windows)?;
        let train = TrainRecipe {
            precision: crate::recipe::Precision::AmpBf16,
            frozen: Held::Bf16,
            ..TrainRecipe::default()
        };
        let job = Stage::new(loaded, &stage, &train);
        let mut steps = Steps::new(&job, &train, &Rc::new(Ranks::alone()))?;
        return rounds(work, device, &mut || {
            let micro = steps.micro_step(&batch)?;
            steps.step(false)?;
            number(&micro.loss).map(|_| ())
        });
    }
    let hear = || no_grad(|| under(work.bf16, device, || model.hear(&batch.input.audio, Mode::EVAL)));
    if work.what == "htsat" {
        return rounds(work, device, &mut || {
            no_grad(|| {
                under(work.bf16, device, || {
                    model.encode(&batch.input.audio, Mode::EVAL, false)
                })
            })
            .map(|_| ())
        });
    }
    let heard = hear()?;
    let prompt = made::prompt(&mut ChaCha8Rng::seed_from_u64(3), work.text, &loaded.tokenizer);
    let options = Options {
        max_new_tokens: work.new,
        // No token ends it.
        eos: -1,
        cache: true,
    };
    rounds(work, device, &mut || {
        let mut sampler = sampling::Sampler::new(sampling::Sampling::GREEDY, 0);
        let ids = under(work.bf16, device, || {
            generate(model, &heard, &prompt, &options, &mut sampler)
        })?;
        match ids.len() == work.new {
            true => Ok(()),
            false => Err(Error::Training {
                message: format!("an answer of {} tokens, not {}", ids.len(), work.new),
                hint: None,
            }),
        }
    })
}

fn rounds(work: &Work, device: Device, once: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    for _ in 0..2 {
        once()?;
    }
    let seconds = (0..work.rounds).map(|_| {
        check::synchronize(device)?;
        let begun = Instant::now();
        once()?;
        check::synchronize(device)?;
        Ok(begun.elapsed().as_secs_f64())
    });
    Ok(median(seconds.collect::<Result<_>>()?))
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
