//! What a stage starts from, and where its batches come from.

use super::batch::Batch;
use super::encoded::Encoded;
use super::{guard, number, same, Steps};
use crate::curriculum;
use crate::data::feed::{examples, texts, Clip, Ears, Example};
use crate::data::loader::{Loader, Prepared};
use crate::data::manifest::Manifest;
use crate::data::skips::Ledger;
use crate::dist::{self, Ranks};
use crate::error::{Error, Result};
use crate::load::{self, Loaded};
use crate::model::flamingo::Flamingo;
use crate::model::mode::Mode;
use crate::plan;
use crate::preflight::{self, Begin};
use crate::recipe::{Recipe, StageRecipe};
use crate::run;
use tch::{no_grad, Device};

/// The loader's source of batches.
pub type Next<'n> = &'n mut dyn FnMut() -> Result<Prepared>;

/// Looks at all that the stages still to be run need, before the first of them begins: what is missing is told once, by the
/// first rank that misses something, and all ranks end alike.
///
/// # Errors
/// [`Error::Missing`] on every rank.
pub fn look(recipe: &Recipe, stages: &[usize], ranks: &Ranks) -> Result<()> {
    let own = preflight::training(recipe, stages, ranks.world);
    let code = own.code();
    let misses = if code == 0 { 0 } else { ranks.world - ranks.rank };
    let mut seen = [f64::from(code), misses as f64];
    ranks.max(&mut seen)?;
    let (code, teller) = (seen[0] as i32, ranks.world - seen[1] as usize);
    match own.error() {
        _ if code == 0 && !ranks.first() => Ok(()),
        _ if code == 0 => own.result(),
        Some(Error::Missing { listing, .. }) if teller == ranks.rank => {
            let listing = match ranks.many() {
                true => format!("rank {teller}: {listing}"),
                false => listing,
            };
            Err(Error::Missing { listing, code })
        }
        _ => Err(Error::Missing {
            listing: format!("rank {}: rank {teller} lists what is missing", ranks.rank),
            code,
        }),
    }
}

/// Says where a stage's steps are several passes over its sets, or a fraction of one.
fn tell_passes(stage: &StageRecipe, pass: u64, world: usize) {
    let batch = plan::step_items(stage, world);
    let seen = stage.optim.steps as f64 * batch as f64;
    let passes = seen / pass.max(1) as f64;
    if !(0.95..1.95).contains(&passes) {
        crate::say!(
            "note: {}: {} steps of {batch} items are {passes:.2} passes over its sets, of {pass} items by their weights",
            stage.name,
            stage.optim.steps
        );
    }
}

/// The model with which stage number `index` begins: the same on every rank.
pub fn start(recipe: &Recipe, index: usize, ranks: &Ranks, device: Device) -> Result<Loaded> {
    let options = load::Options::new(device);
    let begin = preflight::begin(recipe, index);
    // What a stage before has written holds copies of files that were told of then.
    let told = matches!(begin, Begin::Stage(_));
    let mut model = match begin {
        Begin::Recipe => load::start(&preflight::start(recipe), device)?,
        Begin::Stage(before) => load::open(&recipe.stage_folder(&before.name), &options)?,
        Begin::Path(path) => load::open_parts(&preflight::parts(recipe, path), &options)?,
    };
    for note in model.notes.iter().filter(|_| ranks.first() && !told) {
        crate::say!("note: {note}");
    }
    model.tokenizer.special_tokens = recipe.data.special_tokens_in_texts;
    follow(recipe, &mut model.model, ranks);
    if ranks.many() {
        ranks.agree(
            &format!("{}: its model", recipe.stages[index].name),
            &same::model(&model)?,
        )?;
    }
    // Every rank has read the same files; what was initialised is the first's.
    let all: Vec<_> = model.params.iter().map(|(_, e)| e.tensor.detach()).collect();
    let _guarded = ranks.guarded();
    ranks.broadcast(&all, 0)?;
    ranks.settled(device)?;
    Ok(model)
}

/// What a recipe says of a model and its checkpoint does not, or says otherwise: rules that have no weights.
fn follow(recipe: &Recipe, model: &mut Flamingo, ranks: &Ranks) {
    if let Some(own) = &recipe.model.audio_transformer {
        model.config.audio_transformer.attention_dropout = own.attention_dropout;
    }
    if let Some(own) = &recipe.model.cross_attention {
        let rule = &mut model.config.cross_attention;
        if rule.frames != own.frames && ranks.first() {
            crate::say!(
                "note: model.cross_attention.frames: {}, as the recipe says; the checkpoint itself asks for {}",
                own.frames, rule.frames
            );
        }
        (rule.frames, rule.max_window_per_audio) = (own.frames, own.max_window_per_audio);
    }
}

/// Each stage and each rank draws its own random numbers.
pub fn seed(recipe: &Recipe, stage: &StageRecipe, ranks: &Ranks) {
    let text = format!("{} {} {}", recipe.seed, stage.name, ranks.rank);
    let hash = blake3::hash(text.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[..8]);
    tch::manual_seed(i64::from_le_bytes(bytes) & i64::MAX);
}

/// Threads of this rank that decode: what the recipe says, else one for each of its cores.
fn threads(recipe: &Recipe, ranks: &Ranks) -> usize {
    match recipe.data.threads {
        0 => ranks.cores(),
        n => n,
    }
}

/// What hears a rank's clips.
pub fn ears(recipe: &Recipe, ranks: &Ranks) -> Result<Ears> {
    Ears::new(recipe.data.cache_mib).on_threads(threads(recipe, ranks))
}

/// A stage's data.
pub struct Source<'a> {
    pub loader: Loader<'a>,
    encoded: Encoded,
    /// By set: its name and its validation items, in batches.
    validation: Vec<(String, Vec<Vec<Example>>)>,
    model: &'a Loaded,
}

impl<'a> Source<'a> {
    pub fn open(
        recipe: &'a Recipe,
        stage: &'a StageRecipe,
        model: &'a Loaded,
        ears: &'a Ears,
        ranks: &Ranks,
    ) -> Result<Self> {
        let order = curriculum::order(recipe, stage, ranks.rank, ranks.world)?;
        if ranks.first() {
            tell_passes(stage, plan::pass_items(&order.blend), ranks.world);
        }
        let validation = validation_items(recipe, stage)?;
        if ranks.many() {
            let batches: Vec<_> = validation.iter().map(|(n, b)| (n.clone(), b.len())).collect();
            ranks.agree(
                &format!("{}: its data", stage.name),
                &same::data(&order, &batches)?,
            )?;
        }
        let encoded = match stage.cache_features {
            true => {
                let mut all: Vec<Example> = validation.iter().flat_map(|(_, b)| b.concat()).collect();
                for set in &order.blend.sets {
                    let root = recipe.data_root();
                    all.extend(examples(&set.manifest, &root, stage.windows, usize::MAX)?);
                }
                // What cannot be heard is found again, and noted, when its batch comes.
                let clips = all.iter().map(|e| &e.clip);
                let (precision, label) = (recipe.train.encode_precision, format!("{}: encode", stage.name));
                guard::catch(recipe, &stage.name, || {
                    Encoded::of(model, ears, clips, precision, ranks, &label)
                })?
                .0
            }
            false => Encoded::default(),
        };
        let items = order.blend.len();
        let ledger = Ledger::new(
            &run::skipped::path(&recipe.output),
            &stage.name,
            items,
            recipe.data.skip_budget,
        );
        Ok(Source {
            loader: Loader {
                order,
                root: recipe.data_root(),
                windows: stage.windows,
                ears,
                tokenizer: &model.tokenizer,
                max_tokens: recipe.data.max_tokens,
                ledger,
                bad_items: recipe.data.bad_items,
                known: encoded.clips(),
                threads: threads(recipe, ranks),
                ahead: recipe.data.ahead,
            },
            encoded,
            validation,
            model,
        })
    }

    /// A prepared batch on the device; none where nothing is left of it.
    pub fn batch(&self, made: &Prepared) -> Option<Batch> {
        let text = made.text.as_ref()?;
        let device = self.model.device;
        Some(Batch::new(
            &made.examples,
            &made.mels,
            text,
            &self.encoded,
            device,
        ))
    }

    /// Loss per counted token of each set's validation items, and of all, in evaluation mode. The ranks share the batches.
    pub fn validate(&self, steps: &Steps) -> Result<Vec<(String, f64)>> {
        let (ranks, train) = (&steps.ranks, &steps.train);
        // Each rank's batch norms average what it hears itself; what is saved is the first's.
        let buffers: Vec<_> = steps.moving_buffers().map(|(_, t)| t).collect();
        ranks.broadcast(&buffers, 0)?;
        let mut sums = vec![0.0; 2 * self.validation.len()];
        let mut number_of = 0;
        for (set, (_, batches)) in self.validation.iter().enumerate() {
            let mut sum = dist::zero(self.model.device);
            for examples in batches {
                number_of += 1;
                if number_of % ranks.world != ranks.rank {
                    continue;
                }
                let Some(batch) = self.heard(examples)? else {
                    continue;
                };
                let loss = || no_grad(|| batch.loss_sum(&self.model.model, Mode::EVAL, train.loss_chunk));
                sum += self.model.compute(train.precision, loss)?;
                sums[2 * set + 1] += batch.tokens as f64;
            }
            let _guarded = ranks.guarded();
            sums[2 * set] = number(&sum)?;
        }
        ranks.sum(&mut sums)?;
        let total = |of: usize| sums.iter().skip(of).step_by(2).sum::<f64>();
        let mut values = Vec::new();
        if total(1) > 0.0 {
            values.push(("validation_loss".to_owned(), total(0) / total(1)));
        }
        if self.validation.len() > 1 {
            let sets = self.validation.iter().zip(sums.chunks(2));
            for ((name, _), pair) in sets.filter(|(_, pair)| pair[1] > 0.0) {
                values.push((format!("validation_loss/{name}"), pair[0] / pair[1]));
            }
        }
        Ok(values)
    }

    /// Validation items on the device. As in training, those that cannot be heard are left out and named in the ledger; none
    /// where nothing is left.
    fn heard(&self, examples: &[Example]) -> Result<Option<Batch>> {
        let mut accepted = Vec::with_capacity(examples.len());
        for example in examples {
            match example.accepted(&self.model.tokenizer) {
                Ok(()) => accepted.push(example.clone()),
                Err(reason) => {
                    let (path, key) = (example.clip.path(), &example.item.key);
                    self.loader.ledger.skip(path, key, &reason, None)?;
                }
            }
        }
        let examples = accepted.as_slice();
        let (mut good, mut mels) = (accepted.clone(), Vec::new());
        if !examples.iter().all(|e| self.encoded.get(&e.clip).is_some()) {
            let clips: Vec<&Clip> = examples.iter().map(|e| &e.clip).collect();
            good.clear();
            for (example, mel) in examples.iter().zip(self.loader.ears.each(&clips)) {
                match mel {
                    Ok(mel) => {
                        good.push(example.clone());
                        mels.push(mel);
                    }
                    Err(reason) => {
                        let (path, key) = (example.clip.path(), &example.item.key);
                        self.loader.ledger.skip(path, key, &reason, None)?;
                    }
                }
            }
        }
        if good.is_empty() {
            return Ok(None);
        }
        let text = texts(&good, &self.model.tokenizer, self.loader.max_tokens)?;
        let batch = Batch::new(&good, &mels, &text, &self.encoded, self.model.device);
        Ok(Some(batch))
    }
}

/// The `…/val.json` beside each training manifest, where there is one: at most 64 items of each, as the reference.
fn validation_items(recipe: &Recipe, stage: &StageRecipe) -> Result<Vec<(String, Vec<Vec<Example>>)>> {
    let mut sets = Vec::new();
    for set in stage.sets.keys() {
        let path = recipe.manifest(set).with_file_name("val.json");
        if !path.exists() {
            continue;
        }
        let manifest = Manifest::open(&path)?;
        let items = examples(&manifest, &recipe.data_root(), stage.windows, 64)?;
        let batches = items.chunks(stage.optim.batch_size.max(1)).map(<[_]>::to_vec);
        sets.push((set.clone(), batches.collect()));
    }
    Ok(sets)
}
