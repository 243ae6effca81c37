//! Where a stage's batches come from.

use super::batch::{self, Input};
use super::encoded::Encoded;
use super::stage::Stage;
use super::texts::Texts;
use crate::curriculum;
use crate::data::feed::{examples, texts, Clip, Ears, Example};
use crate::data::loader::{Loader, Prepared};
use crate::data::manifest::Manifest;
use crate::data::order::Cursor;
use crate::data::skips::Ledger;
use crate::dist::{self, Ranks};
use crate::error::Result;
use crate::model::mode::Mode;
use crate::plan;
use crate::recipe::{Recipe, StageRecipe};
use crate::run;
use crate::train::engine::clock::Phase;
use crate::train::engine::guard;
use crate::train::job::{Batch, Data, Job, Next, Source};
use crate::train::jobs::{begin, made_with, same};
use crate::train::number;
use std::rc::Rc;
use tch::no_grad;

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

/// A stage's data before it is opened.
pub(crate) struct StageSource<'a> {
    pub recipe: &'a Recipe,
    pub stage: &'a Stage<'a>,
    pub ears: &'a Ears,
    pub ranks: &'a Rc<Ranks>,
    /// What was found in its texts, where they were looked at.
    pub texts: Option<Texts>,
}

impl Source<Input> for StageSource<'_> {
    fn made_with(&self) -> Result<String> {
        let (recipe, stage, model) = (self.recipe, self.stage.recipe, self.stage.model);
        let own;
        let texts = match &self.texts {
            Some(texts) => texts,
            None => {
                own = Texts::of(recipe, stage, &model.tokenizer)?;
                &own
            }
        };
        made_with::stage(recipe, stage, model, texts, self.ranks)
    }

    fn open(&self) -> Result<Box<dyn Data<Input> + '_>> {
        Ok(Box::new(StageData::open(
            self.recipe,
            self.stage,
            self.ears,
            self.ranks,
        )?))
    }
}

/// A stage's data.
struct StageData<'a> {
    loader: Loader<'a>,
    encoded: Encoded,
    /// By set: its name and its validation items, in batches.
    validation: Vec<(String, Vec<Vec<Example>>)>,
    stage: &'a Stage<'a>,
}

impl<'a> StageData<'a> {
    fn open(recipe: &'a Recipe, job: &'a Stage<'a>, ears: &'a Ears, ranks: &Ranks) -> Result<Self> {
        let (stage, model) = (job.recipe, job.model);
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
                guard::catch(&recipe.train, &job.section(), || {
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
        Ok(StageData {
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
                threads: begin::threads(recipe, ranks),
                ahead: recipe.data.ahead,
            },
            encoded,
            validation,
            stage: job,
        })
    }

    /// A prepared batch on the device; none where nothing is left of it.
    fn batch(&self, made: &Prepared) -> Option<Batch<Input>> {
        let text = made.text.as_ref()?;
        let device = self.stage.model.device;
        Some(batch::of(&made.examples, &made.mels, text, &self.encoded, device))
    }

    /// Validation items on the device. As in training, those that cannot be heard are left out and named in the ledger; none
    /// where nothing is left.
    fn heard(&self, examples: &[Example]) -> Result<Option<Batch<Input>>> {
        let mut accepted = Vec::with_capacity(examples.len());
        for example in examples {
            match example.accepted(&self.stage.model.tokenizer) {
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
        let text = texts(&good, &self.stage.model.tokenizer, self.loader.max_tokens)?;
        let batch = batch::of(&good, &mels, &text, &self.encoded, self.stage.model.device);
        Ok(Some(batch))
    }
}

impl Data<Input> for StageData<'_> {
    fn run(&self, from: Cursor, body: &mut dyn FnMut(Next<Input>) -> Result<()>) -> Result<()> {
        self.loader.run(from, |next| {
            body(&mut |clock| {
                let made = next()?;
                clock.after(Phase::Data);
                Ok((self.batch(&made), made.after))
            })
        })
    }

    fn left_out(&self) -> usize {
        self.loader.ledger.count()
    }

    /// Loss per counted token of each set's validation items, and of all. The ranks share the batches.
    fn validate(&self, ranks: &Ranks) -> Result<Vec<(String, f64)>> {
        let mut sums = vec![0.0; 2 * self.validation.len()];
        let mut number_of = 0;
        for (set, (_, batches)) in self.validation.iter().enumerate() {
            let mut sum = dist::zero(self.stage.model.device);
            for examples in batches {
                number_of += 1;
                if number_of % ranks.world != ranks.rank {
                    continue;
                }
                let Some(batch) = self.heard(examples)? else {
                    continue;
                };
                sum += no_grad(|| self.stage.loss(&batch.input, Mode::EVAL))?;
                sums[2 * set + 1] += batch.counted as f64;
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
