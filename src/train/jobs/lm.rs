//! A small tokenizer and a small Qwen2 from text alone, so that a run without downloads has a frozen LM to speak through.

use super::deck::Deck;
use super::{begin, made_with, same};
use crate::checkpoint::names::Tree;
use crate::checkpoint::{items, write_safetensors, Archive};
use crate::data::manifest::Manifest;
use crate::data::order::Cursor;
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::fsutil::write_atomic_bytes;
use crate::model::lm::{self, qwen2, Decoder, Naming};
use crate::model::mode::Mode;
use crate::model::params::{Origin, Params, Store};
use crate::preflight;
use crate::recipe::{LmRecipe, OptimRecipe, Recipe, SaveRecipe};
use crate::run::verify_resume;
use crate::text::tokenizer::Tokenizer;
use crate::text::{bpe, prompt};
use crate::train::engine::clock::Phase;
use crate::train::engine::finite;
use crate::train::engine::resume::Task;
use crate::train::engine::signals::Signals;
use crate::train::job::{Batch, Data, Job, Next, Size, Source};
use crate::train::verify;
use crate::train::{number, train, Resume, Run};
use rand::seq::SliceRandom;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tch::{no_grad, Device, Tensor};

const NAME: &str = "lm";
/// Where the tokenizer is while the model trains, beside its checkpoints.
const TOKENIZER: &str = "tokenizer";

/// Trains both on the texts of all training manifests and writes a Hugging Face folder.
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
    let folder = recipe.lm_folder();
    let opens = || {
        lm::Config::read(&folder)?;
        Archive::open(&folder).map(|_| ())
    };
    if *resume == Resume::Auto && task.is_done(ranks, opens)? {
        return Ok(());
    }
    let job = Lm::begin(run, device, checkpoints.join(TOKENIZER))?;
    train(run, signals, &job, &task, &job, resume)?;
    finite::check(&folder.display().to_string(), NAME, &job.params)?;
    if ranks.first() {
        job.write(&folder)?;
        task.done()?;
    }
    ranks.barrier()
}

pub(super) fn verify(run: Run, device: Device) -> Result<()> {
    let folder = verify_resume(&run.recipe.output);
    let tokenizer = folder.join(TOKENIZER);
    let result = verify::twice(run, NAME, device, &mut |part| {
        let job = Lm::begin(run, device, tokenizer.clone())?;
        part.run(run, &job, &job)
    });
    if run.ranks.first() {
        let _ = std::fs::remove_dir_all(&tokenizer);
        // Only an empty folder goes.
        let _ = std::fs::remove_dir(&folder);
    }
    result
}

fn section(recipe: &Recipe) -> Result<&LmRecipe> {
    let none = || Error::recipe(&recipe.name, "the recipe has no section `lm`");
    recipe.lm.as_ref().ok_or_else(none)
}

/// What the model takes: padded behind each text, and shifted by one. Causal attention keeps padding from what stands before it,
/// so no mask is needed.
pub struct Input {
    /// (B, T) int64.
    ids_bt: Tensor,
    /// (N) int64: the tokens that are asked for, and where in (B·T) they are.
    targets: Tensor,
    positions: Tensor,
}

/// A text as the model learns it.
struct Text {
    ids: Vec<i64>,
    /// How it begins, for messages.
    shown: String,
}

/// The language model while it trains.
struct Lm<'a> {
    run: Run<'a>,
    section: &'a LmRecipe,
    device: Device,
    config: qwen2::Config,
    model: Decoder,
    params: Params,
    tokenizer: Tokenizer,
    /// Where the tokenizer is until the model is there: what an earlier run has written stays whole so long.
    folder: PathBuf,
    training: Vec<Text>,
    validation: Vec<Text>,
    /// Of all texts.
    digest: String,
}

impl<'a> Lm<'a> {
    /// Trains the tokenizer into a folder and makes a model, alike on all ranks.
    fn begin(run: Run<'a>, device: Device, folder: PathBuf) -> Result<Self> {
        let Run { recipe, ranks } = run;
        let section = section(recipe)?;
        section
            .optim
            .split(ranks.world)
            .map_err(|e| begin::placed(recipe, NAME, e))?;
        begin::look(preflight::language_model(recipe), ranks)?;
        let texts = distinct(recipe, |path| path)?;
        let held_out = distinct(recipe, |path| path.with_file_name("val.json"))?;
        if texts.is_empty() {
            return Err(Error::Training {
                message: "no text to train the LM on".into(),
                hint: Some("the stages' sets are empty".into()),
            });
        }
        begin::by_the_first(ranks, "could not make the tokenizer", || {
            let lines = texts.iter().map(String::as_str);
            bpe::train(lines, section.vocab_size, &folder).map(|_| ())
        })?;
        let mut tokenizer = Tokenizer::open(&folder)?;
        tokenizer.special_tokens = recipe.data.special_tokens_in_texts;
        // Ids from <audio> on are AF2's additions; the LM knows what is before them.
        let vocab = tokenizer.audio;
        let config = section.config(vocab);
        let most = config.max_position_embeddings as usize;
        let ids = |texts: &BTreeSet<String>| {
            let one = |text: &String| {
                let mut ids = tokenizer.text(text)?;
                ids.push(tokenizer.eos);
                ids.truncate(most);
                let shown = format!("{:.60}", text.replace('\n', " "));
                Ok(Text { ids, shown })
            };
            texts.iter().map(one).collect::<Result<Vec<_>>>()
        };
        let (training, validation) = (ids(&texts)?, ids(&held_out)?);
        let mut digest = blake3::Hasher::new();
        for text in &texts {
            digest.update(text.as_bytes()).update(b"\0");
        }

        tch::manual_seed(recipe.seed as i64);
        let store = Store::new(Origin::Fresh, device);
        let sizes = lm::Config::Qwen2(config.clone()).decoder();
        let model = Decoder::new(&store.root(), &sizes, vocab, Naming::Plain);
        let params = store.finish()?;
        params.train_only(|_| true);
        if ranks.many() {
            ranks.agree("lm: its model", &same::model(&config, &params, &tokenizer)?)?;
        }
        begin::given_by_the_first(&params, device, ranks)?;
        Ok(Lm {
            run,
            section,
            device,
            config,
            model,
            params,
            tokenizer,
            folder,
            training,
            validation,
            digest: digest.finalize().to_hex()[..16].to_owned(),
        })
    }

    /// The folder as transformers opens it.
    fn write(&self, folder: &Path) -> Result<()> {
        let made = &self.folder;
        for entry in std::fs::read_dir(made).map_err(|e| Error::io(made, e))? {
            let file = entry.map_err(|e| Error::io(made, e))?.path();
            let bytes = std::fs::read(&file).map_err(|e| Error::io(&file, e))?;
            write_atomic_bytes(&folder.join(file.file_name().unwrap_or_default()), &bytes)?;
        }
        let json = serde_json::to_vec_pretty(&self.config.to_json(self.tokenizer.eos))
            .map_err(|e| Error::recipe("config.json", e.to_string()))?;
        write_atomic_bytes(&folder.join("config.json"), &json)?;
        write_safetensors(
            &folder.join("model.safetensors"),
            &items(self.params.tensors()),
            &[("format", "pt")],
        )
    }

    fn batch(&self, texts: &[&Text]) -> Batch<Input> {
        let ids: Vec<&[i64]> = texts.iter().map(|t| t.ids.as_slice()).collect();
        let (input, counted) = next_tokens(&ids, self.tokenizer.eos, self.device);
        Batch {
            size: Size {
                items: texts.len(),
                text: counted,
                text_places: input.ids_bt.numel(),
                ..Size::default()
            },
            items: texts.iter().map(|t| t.shown.clone()).collect(),
            counted,
            input,
        }
    }

    fn loss(&self, input: &Input, mode: Mode) -> Result<Tensor> {
        let train = &self.run.recipe.train;
        train.precision.compute(self.device, || {
            let states = self.model.train_states(&input.ids_bt, mode).flatten(0, 1);
            let states = states.index_select(0, &input.positions);
            self.model
                .loss_sum(&states, &input.targets, train.loss_chunk as i64)
        })
    }
}

/// The different texts of all training manifests, or of what stands beside them: the same question about a hundred clips is one
/// text. An LM that saw it a hundred times would only know the answers' frequencies better, which the silence control should not
/// profit from.
fn distinct(recipe: &Recipe, at: impl Fn(PathBuf) -> PathBuf) -> Result<BTreeSet<String>> {
    let mut texts = BTreeSet::new();
    for set in recipe.text_sets().into_keys() {
        let own = recipe.manifest(set);
        let path = at(own.clone());
        if path != own && !path.exists() {
            continue;
        }
        for item in Manifest::open(&path)?.items()? {
            let (prompt, answer) = (prompt::clean(&item.prompt), prompt::clean(&item.output));
            texts.insert(format!("{prompt}\n{answer}"));
        }
    }
    Ok(texts)
}

impl Job for Lm<'_> {
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
        match name.contains("embed_tokens") {
            true => "embeddings",
            false => "lm",
        }
    }

    fn tree(&self) -> Tree {
        Tree::Plain {
            tied_head: self.config.tie_word_embeddings,
        }
    }

    fn silence(&self) -> Result<Batch<Input>> {
        let nothing = Text {
            ids: vec![self.tokenizer.eos; 2],
            shown: String::new(),
        };
        Ok(self.batch(&[&nothing]))
    }

    fn loss_sum(&self, input: &Input) -> Result<Tensor> {
        let recompute = self.run.recipe.train.activation_checkpointing;
        self.loss(
            input,
            Mode {
                recompute,
                ..Mode::EVAL
            },
        )
    }
}

impl Source<Input> for Lm<'_> {
    fn made_with(&self) -> Result<String> {
        let own = (NAME, self.section, &self.section.optim);
        let (recipe, ranks) = (self.run.recipe, self.run.ranks);
        made_with::of_section(recipe, own, &self.tokenizer, self.digest.clone(), ranks)
    }

    fn open(&self) -> Result<Box<dyn Data<Input> + '_>> {
        Ok(Box::new(self))
    }
}

impl Data<Input> for &Lm<'_> {
    fn run(&self, from: Cursor, body: &mut dyn FnMut(Next<Input>) -> Result<()>) -> Result<()> {
        let (size, _) = self.section.optim.split(self.run.ranks.world)?;
        let n = self.training.len();
        let mut rest: Vec<usize> = Vec::new();
        // A batch may reach from one pass into the next.
        let deal = Box::new(move |rng: &mut _| {
            while rest.len() < size {
                let mut pass: Vec<usize> = (0..n).collect();
                pass.shuffle(rng);
                rest.extend(pass.into_iter().rev());
            }
            let whole = rest.len() - rest.len() % size;
            let batches = rest[..whole].chunks(size).map(<[usize]>::to_vec).collect();
            rest.drain(..whole);
            batches
        });
        let order = format!("{n} texts, {}, seed {}", self.digest, self.run.recipe.seed);
        let mut deck = Deck::new(self.run.recipe.seed, order, size, self.run.ranks, deal);
        deck.go_to(&from)?;
        body(&mut |clock| {
            let (own, after) = deck.next();
            clock.after(Phase::Data);
            let texts: Vec<&Text> = own.iter().map(|i| &self.training[*i]).collect();
            Ok((Some(self.batch(&texts)), after))
        })
    }

    /// Loss per token of the texts of the `val.json` beside each manifest. The ranks share the batches.
    fn validate(&self, ranks: &Ranks) -> Result<Vec<(String, f64)>> {
        let mut sums = [0.0, 0.0];
        let size = self.section.optim.batch_size.max(1);
        for (number_of, texts) in self.validation.chunks(size).enumerate() {
            if number_of % ranks.world != ranks.rank {
                continue;
            }
            let texts: Vec<&Text> = texts.iter().collect();
            let batch = self.batch(&texts);
            let loss = no_grad(|| self.loss(&batch.input, Mode::EVAL))?;
            let _guarded = ranks.guarded();
            sums[0] += number(&loss)?;
            sums[1] += batch.counted as f64;
        }
        ranks.sum(&mut sums)?;
        let all = (sums[1] > 0.0).then(|| ("validation_loss".to_owned(), sums[0] / sums[1]));
        Ok(all.into_iter().collect())
    }
}

/// Texts as [`Input`], and how many tokens are asked for.
fn next_tokens(batch: &[&[i64]], pad: i64, device: Device) -> (Input, usize) {
    let width = batch.iter().map(|t| t.len()).max().unwrap_or(1).max(2) - 1;
    let mut input = vec![pad; batch.len() * width];
    let (mut targets, mut positions) = (Vec::new(), Vec::new());
    for (b, ids) in batch.iter().enumerate() {
        for t in 0..ids.len().saturating_sub(1) {
            input[b * width + t] = ids[t];
            targets.push(ids[t + 1]);
            positions.push((b * width + t) as i64);
        }
    }
    let counted = targets.len();
    let ids = Tensor::from_slice(&input).reshape([batch.len() as i64, width as i64]);
    let input = Input {
        ids_bt: ids.to_device(device),
        targets: Tensor::from_slice(&targets).to_device(device),
        positions: Tensor::from_slice(&positions).to_device(device),
    };
    (input, counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_asked_for_from_those_before_it() {
        let (input, counted) = next_tokens(&[&[1, 2, 3, 0], &[4, 0]], 0, Device::Cpu);
        assert_eq!(
            Vec::<i64>::try_from(input.ids_bt.flatten(0, 1)).unwrap(),
            [1, 2, 3, 4, 0, 0]
        );
        let [targets, positions] = [input.targets, input.positions].map(|t| Vec::<i64>::try_from(t).unwrap());
        assert_eq!((targets, counted), (vec![2, 3, 0, 0], 4));
        assert_eq!(positions, [0, 1, 2, 3]);
    }
}
