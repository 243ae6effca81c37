//! Asking a model the questions of manifests. Scoring is apart: it reads what this writes, and needs no model.

mod options;
pub mod rules;
pub(crate) mod score;
mod words;

use crate::data::feed::{examples, Ears, Example};
use crate::data::manifest::Manifest;
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::generate::{self, sampling::Sampler, Options};
use crate::load::Loaded;
use crate::model::flamingo::Audio;
use crate::model::mode::Mode;
use crate::progress::Progress;
use crate::recipe::{EvalRecipe, Precision, Recipe};
use crate::run::predictions::Prediction;
use crate::train::jobs::curriculum::encoded::Encoded;
use std::{collections::HashMap, path::Path, time::Instant};
use tch::{no_grad, Kind, Tensor};

/// Asks every question of the recipe's evaluation sets, with the clip and, where wanted, with silence in its place;
/// writes one JSON object a line to `out`. Under `eval.precision: amp_bf16` the model can only be asked afterwards, see
/// [`Loaded::ask_in`].
pub fn run(recipe: &Recipe, eval: &EvalRecipe, model: &Loaded, out: &Path) -> Result<()> {
    let mut asked = Vec::new();
    for set in &eval.sets {
        let manifest = Manifest::open(&recipe.manifest(set))?;
        let limit = eval.limit.unwrap_or(usize::MAX);
        let own = examples(&manifest, &recipe.data_root(), eval.windows, limit)?;
        asked.extend(own.into_iter().map(|e| (manifest.task.clone(), e)));
    }
    for (_, example) in &asked {
        example.accepted(&model.tokenizer)?;
    }
    model.ask_in(eval.precision)?;
    let ears = Ears::new(recipe.data.cache_mib);
    let (encoded, bad) = Encoded::of(
        model,
        &ears,
        asked.iter().map(|(_, e)| &e.clip),
        eval.precision,
        &Ranks::alone(),
        "evaluate: encode",
    )?;
    // A score over fewer questions than the benchmark has is another score.
    crate::error::all(bad)?;
    let mut silence = Silence::new(&ears, eval.precision);
    let controls = if eval.silence_control { 2 } else { 1 };
    let progress = Progress::new("evaluate: ask", (asked.len() * controls) as u64);
    let options = Options {
        max_new_tokens: eval.max_new_tokens,
        ..Options::new(model)
    };
    let write = |w: &mut dyn crate::fsutil::Out| -> Result<()> {
        for (task, example) in &asked {
            for control in [false, true].into_iter().take(controls) {
                let features = match (control, encoded.get(&example.clip)) {
                    (false, Some(f)) => f.shallow_clone(),
                    (true, Some(f)) => silence.features(model, f.size()[0] as usize)?,
                    (_, None) => return Err(Error::audio(example.clip.path(), "an encoded clip", "none")),
                };
                let ask = || ask(model, &features, example, task, control, &options);
                let answer = model.compute(eval.precision, ask)??;
                let line = answer
                    .line()
                    .map_err(|e| Error::data(out, "prediction", "JSON", e.to_string()))?;
                w.write_all(line.as_bytes()).map_err(|e| Error::io(out, e))?;
                progress.inc(1);
            }
        }
        Ok(())
    };
    crate::fsutil::write_atomic(out, write)?;
    progress.finish("");
    Ok(())
}

fn ask(
    model: &Loaded,
    features: &Tensor,
    example: &Example,
    task: &str,
    control: bool,
    options: &Options,
) -> Result<Prediction> {
    let started = Instant::now();
    let audio = Audio::windows_only(&[features.size()[0] as usize], model.device);
    let heard = no_grad(|| {
        model
            .model
            .hear_encoded(&features.unsqueeze(0), &audio, Mode::EVAL)
    });
    let prompt = &example.item.prompt;
    let answer = generate::ask(model, &heard, prompt, options, &mut Sampler::greedy())?;
    Ok(Prediction {
        id: example.item.key.clone(),
        task: task.to_owned(),
        path: example.item.name.clone(),
        prompt: example.item.prompt.clone(),
        reference: example.item.output.clone(),
        prediction: answer.text.trim().to_owned(),
        tokens: answer.tokens,
        labels: example.item.labels.clone(),
        chance: example.item.chance,
        control,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Features of silence, by the number of windows.
struct Silence<'a> {
    ears: &'a Ears,
    precision: Precision,
    known: HashMap<usize, Tensor>,
}

impl<'a> Silence<'a> {
    fn new(ears: &'a Ears, precision: Precision) -> Self {
        Silence {
            ears,
            precision,
            known: HashMap::new(),
        }
    }

    /// (W, tokens, D)
    fn features(&mut self, model: &Loaded, windows: usize) -> Result<Tensor> {
        if let Some(known) = self.known.get(&windows) {
            return Ok(known.shallow_clone());
        }
        let audio = Audio::from_mels([&self.ears.silence(windows)], model.device);
        let encode = || no_grad(|| model.model.encode(&audio, Mode::EVAL, false));
        let features = model.compute(self.precision, encode)?.squeeze_dim(0);
        let features = features.to_kind(Kind::Float);
        self.known.insert(windows, features.shallow_clone());
        Ok(features)
    }
}
