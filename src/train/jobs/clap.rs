//! AF-CLAP from clip–caption pairs, by the plain symmetric contrastive loss.
//!
//! Paper section 3.1 adds composition-aware negatives; this is its "vanilla loss" row of table 3.

use super::deck::Deck;
use super::{begin, made_with, same};
use crate::checkpoint::names::Tree;
use crate::checkpoint::{items, write_safetensors, Archive};
use crate::data::feed::{examples, Ears, Example};
use crate::data::manifest::Manifest;
use crate::data::order::Cursor;
use crate::dist::Ranks;
use crate::error::{self, Error, Result};
use crate::model::clap::{Clap, Config, TEXT_TOKENS};
use crate::model::mode::{EncoderMode, Mode};
use crate::model::params::{Origin, Params, Store};
use crate::preflight;
use crate::recipe::{ClapRecipe, OptimRecipe, Recipe, SaveRecipe};
use crate::text::prompt;
use crate::text::tokenizer::Tokenizer;
use crate::train::engine::clock::Phase;
use crate::train::engine::finite;
use crate::train::engine::resume::Task;
use crate::train::engine::signals::Signals;
use crate::train::job::{Batch, Data, Job, Next, Size, Source};
use crate::train::verify;
use crate::train::{train, Resume, Run};
use ndarray::Array3;
use rand::seq::SliceRandom;
use std::{collections::HashSet, sync::Arc};
use tch::{no_grad, Device, Kind, Tensor};

const NAME: &str = "clap";
/// Largest scale of the similarities, as CLIP bounds it.
const MOST_SCALE: f64 = 100.0;
/// Clips that are heard at once in validation.
const AT_ONCE: usize = 32;

/// Trains both towers and writes `clap.safetensors`.
pub(super) fn run(run: Run, signals: &Signals, device: Device, resume: &Resume) -> Result<()> {
    let Run { recipe, ranks } = run;
    let (section, checkpoints) = (section(recipe)?, recipe.stage_folder(NAME));
    let task = Task {
        recipe: &recipe.name,
        name: NAME,
        section: NAME,
        folder: &checkpoints,
        steps: section.optim.steps,
    };
    let file = recipe.clap_file();
    let opens = || Archive::open(&file).map(|_| ());
    if *resume == Resume::Auto && task.is_done(ranks, opens)? {
        return Ok(());
    }
    let ears = begin::ears(recipe, ranks)?;
    let job = Training::begin(run, &ears, device)?;
    train(run, signals, &job, &task, &job, resume)?;
    finite::check(&file.display().to_string(), NAME, &job.params)?;
    if ranks.first() {
        write_safetensors(&file, &items(job.params.tensors()), &[("format", "pt")])?;
        task.done()?;
    }
    ranks.barrier()
}

pub(super) fn verify(run: Run, device: Device) -> Result<()> {
    let ears = begin::ears(run.recipe, run.ranks)?;
    verify::twice(run, NAME, device, &mut |part| {
        let job = Training::begin(run, &ears, device)?;
        part.run(run, &job, &job)
    })
}

fn section(recipe: &Recipe) -> Result<&ClapRecipe> {
    let none = || Error::recipe(&recipe.name, "the recipe has no section `clap`");
    recipe.clap.as_ref().ok_or_else(none)
}

/// What both towers take.
pub struct Input {
    /// (B, 1001, 64).
    mel_bfm: Tensor,
    /// (B, 77) each.
    ids_bt: Tensor,
    real_bt: Tensor,
}

/// AF-CLAP while it trains.
struct Training<'a> {
    run: Run<'a>,
    section: &'a ClapRecipe,
    ears: &'a Ears,
    device: Device,
    model: Clap,
    params: Params,
    tokenizer: Tokenizer,
    pairs: Vec<Example>,
    validation: Vec<Example>,
    /// Of all captions and the names of their clips.
    digest: String,
}

impl<'a> Training<'a> {
    /// Makes a model, alike on all ranks.
    fn begin(run: Run<'a>, ears: &'a Ears, device: Device) -> Result<Self> {
        let Run { recipe, ranks } = run;
        let section = section(recipe)?;
        whole_batches(recipe, section, ranks.world)?;
        begin::look(preflight::clap(recipe), ranks)?;
        let mut tokenizer = Tokenizer::open(&recipe.lm_folder())?;
        tokenizer.special_tokens = recipe.data.special_tokens_in_texts;
        let pairs = captions(recipe, section, "train.json")?;
        let validation = captions(recipe, section, "val.json")?;
        if pairs.is_empty() {
            return Err(Error::Training {
                message: "clap.sets: no caption to learn from".into(),
                hint: None,
            });
        }
        let mut digest = blake3::Hasher::new();
        for pair in &pairs {
            for text in [&pair.item.key, &pair.item.output] {
                digest.update(text.as_bytes()).update(b"\0");
            }
        }

        tch::manual_seed(recipe.seed as i64);
        let config = Config {
            audio: section.audio.clone(),
            text: section.text.config(tokenizer.len() as i64),
            joint_dim: section.joint_dim,
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
        if ranks.many() {
            let sizes = (&section.audio, &section.text, section.joint_dim);
            ranks.agree("clap: its model", &same::model(&sizes, &params, &tokenizer)?)?;
        }
        begin::given_by_the_first(&params, device, ranks)?;
        Ok(Training {
            run,
            section,
            ears,
            device,
            model,
            params,
            tokenizer,
            pairs,
            validation,
            digest: digest.finalize().to_hex()[..16].to_owned(),
        })
    }

    fn batch(&self, mels: &[Arc<Array3<f32>>], captions: &[&str]) -> Result<Batch<Input>> {
        let (ids_bt, real_bt, tokens) = text_tokens(captions, &self.tokenizer, self.device)?;
        Ok(Batch {
            size: Size {
                items: captions.len(),
                windows: captions.len(),
                window_places: captions.len(),
                text: tokens,
                text_places: captions.len() * TEXT_TOKENS,
            },
            items: captions.iter().map(|c| format!("{c:.60}")).collect(),
            // Its loss is a mean over its own negatives.
            counted: 1,
            input: Input {
                mel_bfm: first_windows(mels, self.device),
                ids_bt,
                real_bt,
            },
        })
    }

    /// What the encoder does in training.
    fn mode(&self) -> Mode {
        Mode {
            recompute: self.run.recipe.train.activation_checkpointing,
            encoder: EncoderMode {
                batch_norm: true,
                spec_augment: self.section.augment,
                drop_path: self.section.augment,
                ..EncoderMode::EVAL
            },
            ..Mode::EVAL
        }
    }

    fn compute<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        self.run.recipe.train.precision.compute(self.device, f)
    }
}

/// A batch is what its loss takes its negatives from: another number of ranks must not make it smaller.
///
/// # Errors
/// A `global_batch` that cannot be made of whole batches.
fn whole_batches(recipe: &Recipe, section: &ClapRecipe, world: usize) -> Result<()> {
    let optim = &section.optim;
    let split = optim.split(world).map_err(|e| begin::placed(recipe, NAME, e))?;
    if split.0 == optim.batch_size {
        return Ok(());
    }
    let message = format!(
        "clap.optim.global_batch: {} is no multiple of clap.optim.batch_size ({}) on each of {world} ranks",
        optim.global_batch.unwrap_or_default(),
        optim.batch_size
    );
    Err(Error::recipe(&recipe.name, message)
        .hint("a caption's negatives are those of its own batch: smaller ones are another loss"))
}

impl Job for Training<'_> {
    type Input = Input;

    fn name(&self) -> &str {
        NAME
    }

    fn section(&self) -> String {
        NAME.into()
    }

    fn optim(&self) -> &OptimRecipe {
        &self.section.optim
    }

    fn save(&self) -> SaveRecipe {
        self.section.save
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn device(&self) -> Device {
        self.device
    }

    fn decays(&self, _: &str, weight: &Tensor) -> bool {
        weight.dim() > 1
    }

    fn part(&self, name: &str) -> &'static str {
        match name.split('.').next().unwrap_or_default() {
            "audio_branch" => "audio_branch",
            "text_branch" => "text_branch",
            _ => "projections",
        }
    }

    fn tree(&self) -> Tree {
        Tree::Plain { tied_head: false }
    }

    fn moves(&self, buffer: &str) -> bool {
        ["running_mean", "running_var", "num_batches_tracked"]
            .iter()
            .any(|e| buffer.ends_with(e))
    }

    fn silence(&self) -> Result<Batch<Input>> {
        let mel = Arc::new(self.ears.silence(1));
        self.batch(&[mel.clone(), mel], &["silence", "nothing"])
    }

    fn loss_sum(&self, input: &Input) -> Result<Tensor> {
        self.compute(|| {
            let audio = self.model.embed_windows(&input.mel_bfm, self.mode());
            let text = self.model.embed_text(&input.ids_bt, &input.real_bt, self.mode());
            let scale = self.model.logit_scale_a.exp().clamp_max(MOST_SCALE);
            symmetric_loss(&audio, &text, &scale)
        })
    }

    /// The factor on the similarities.
    fn watched(&self) -> Vec<(String, Tensor)> {
        let scale = self.model.logit_scale_a.detach().exp().clamp_max(MOST_SCALE);
        vec![("logit_scale".into(), scale)]
    }
}

impl Source<Input> for Training<'_> {
    fn made_with(&self) -> Result<String> {
        let own = (NAME, self.section, &self.section.optim);
        let (recipe, ranks) = (self.run.recipe, self.run.ranks);
        made_with::of_section(recipe, own, &self.tokenizer, self.digest.clone(), ranks)
    }

    fn open(&self) -> Result<Box<dyn Data<Input> + '_>> {
        Ok(Box::new(self))
    }
}

impl Data<Input> for &Training<'_> {
    fn run(&self, from: Cursor, body: &mut dyn FnMut(Next<Input>) -> Result<()>) -> Result<()> {
        let (size, seed) = (self.section.optim.batch_size, self.run.recipe.seed);
        let captions: Vec<String> = self.pairs.iter().map(|p| prompt::clean(&p.item.output)).collect();
        let mut order: Vec<usize> = (0..captions.len()).collect();
        let deal = Box::new(move |rng: &mut _| {
            order.shuffle(rng);
            let mut batches = distinct_batches(&order, &captions, size);
            batches.reverse();
            batches
        });
        let named = format!("{} captions, {}, seed {seed}", self.pairs.len(), self.digest);
        let mut deck = Deck::new(seed, named, size, self.run.ranks, deal);
        deck.go_to(&from)?;
        body(&mut |clock| {
            let (own, after) = deck.next();
            let pairs: Vec<&Example> = own.iter().map(|i| &self.pairs[*i]).collect();
            let mels = self
                .ears
                .mels(&pairs.iter().map(|e| &e.clip).collect::<Vec<_>>())?;
            clock.after(Phase::Data);
            let captions: Vec<&str> = pairs.iter().map(|e| e.item.output.as_str()).collect();
            Ok((Some(self.batch(&mels, &captions)?), after))
        })
    }

    /// Share of validation clips whose own caption is the nearest of all distinct ones. The ranks share the clips.
    fn validate(&self, ranks: &Ranks) -> Result<Vec<(String, f64)>> {
        if self.validation.is_empty() {
            return Ok(Vec::new());
        }
        let own = |e: &Example| prompt::clean(&e.item.output);
        let mut seen = HashSet::new();
        let all = self.validation.iter().map(own);
        let distinct: Vec<String> = all.filter(|c| seen.insert(c.clone())).collect();
        let captions: Vec<&str> = distinct.iter().map(String::as_str).collect();
        let (ids, real, _) = text_tokens(&captions, &self.tokenizer, self.device)?;
        let text = no_grad(|| self.compute(|| self.model.embed_text(&ids, &real, Mode::EVAL)))?;
        let mut right = [0.0];
        for (number_of, clips) in self.validation.chunks(AT_ONCE).enumerate() {
            if number_of % ranks.world != ranks.rank {
                continue;
            }
            let mels = self
                .ears
                .mels(&clips.iter().map(|e| &e.clip).collect::<Vec<_>>())?;
            let heard = first_windows(&mels, self.device);
            let best = no_grad(|| {
                self.compute(|| {
                    let audio = self.model.embed_windows(&heard, Mode::EVAL);
                    audio.matmul(&text.tr()).argmax(1, false)
                })
            })?;
            let _guarded = ranks.guarded();
            let best = Vec::<i64>::try_from(best)?;
            let hits = best.iter().zip(clips);
            right[0] += hits.filter(|(i, e)| distinct[**i as usize] == own(e)).count() as f64;
        }
        ranks.sum(&mut right)?;
        let recall = right[0] / self.validation.len() as f64;
        Ok(vec![("validation_recall_at_1".into(), recall)])
    }
}

/// Cross-entropy of the matching caption among the batch's captions, and of the matching clip among its clips.
///
/// # Shapes
/// both (B, joint), of length 1 → scalar
pub(crate) fn symmetric_loss(audio: &Tensor, text: &Tensor, scale: &Tensor) -> Tensor {
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
fn distinct_batches(order: &[usize], captions: &[String], size: usize) -> Vec<Vec<usize>> {
    let mut left = order.to_vec();
    let mut batches = Vec::new();
    while !left.is_empty() {
        let mut seen = HashSet::new();
        let mut batch = Vec::new();
        let mut later = Vec::new();
        for i in left {
            if batch.len() < size && seen.insert(captions[i].as_str()) {
                batch.push(i);
            } else {
                later.push(i);
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

/// Captions padded to 77 tokens: (B, 77) ids and mask, and how many tokens they have.
fn text_tokens(captions: &[&str], tokenizer: &Tokenizer, device: Device) -> Result<(Tensor, Tensor, usize)> {
    let mut ids = vec![tokenizer.pad; captions.len() * TEXT_TOKENS];
    let mut real = vec![0i64; ids.len()];
    let mut tokens = 0;
    for (b, caption) in captions.iter().enumerate() {
        let own = tokenizer.caption(caption, TEXT_TOKENS)?;
        tokens += own.len();
        for (t, id) in own.into_iter().enumerate() {
            ids[b * TEXT_TOKENS + t] = id;
            real[b * TEXT_TOKENS + t] = 1;
        }
    }
    let shape = [captions.len() as i64, TEXT_TOKENS as i64];
    let tensor = |v: &[i64]| Tensor::from_slice(v).reshape(shape).to_device(device);
    Ok((tensor(&ids), tensor(&real), tokens))
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
