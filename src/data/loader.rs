//! From an order to batches of plain arrays, on threads of its own. No tensor in here.
//!
//! Batches come in the order's own order however many threads there are: each is a job of a pool, and what it makes is
//! waited for in its turn. At most `ahead` batches are made before they are asked for, and one more waits to be begun:
//! that and the mels that [`Ears`] keeps bound the memory.
//!
//! The batches of a recipe's first stage, with the tokenizer in the LM's folder `llm`:
//!
//! ```
//! use af2::curriculum;
//! use af2::data::{feed::Ears, loader::Loader, order::Cursor, skips::Ledger};
//! use af2::text::tokenizer::Tokenizer;
//!
//! # fn main() -> af2::Result<()> {
//! # let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
//! # let (llm, root) = (golden.join("F_tiny/llm"), golden.display());
//! # let text = format!("name: read\noutput: nowhere\nmodel: {{}}\ndata: {{root: {root}, sets: {{tiny: {root}/F_tiny/manifests/tiny-AQA/train.json}}}}\nstages: [{{name: one, train: [audio_transformer], windows: 3, sets: {{tiny: 1}}, optim: {{steps: 1, batch_size: 4, learning_rate: 1e-4}}}}]\n");
//! # let recipe = af2::recipe_file::parse(&text, "recipe.yaml", &[])?;
//! let (stage, tokenizer, ears) = (&recipe.stages[0], Tokenizer::open(&llm)?, Ears::new(0));
//! let order = curriculum::order(&recipe, stage, 0, 1)?; // rank 0 of 1
//! let ledger = Ledger::new("skipped.jsonl".as_ref(), &stage.name, order.blend.len(), recipe.data.skip_budget);
//! let loader = Loader {
//!     order,
//!     root: recipe.data_root(),
//!     windows: stage.windows,
//!     ears: &ears,
//!     tokenizer: &tokenizer,
//!     max_tokens: recipe.data.max_tokens,
//!     ledger,
//!     bad_items: recipe.data.bad_items,
//!     known: Default::default(),
//!     threads: 0,
//!     ahead: 2,
//! };
//! loader.run(Cursor::default(), |next| {
//!     let batch = next()?; // a cursor other than the default goes on from there
//!     for (example, mel) in batch.examples.iter().zip(&batch.mels) {
//!         println!("{} {:?}", example.item.prompt, mel.shape()); // (windows, 1001, 64)
//!     }
//! #   assert_eq!((batch.examples.len(), batch.mels[0].shape()[1]), (4, 1001));
//!     Ok(())
//! })
//! # }
//! ```

use super::blend::{Blend, Pick};
use super::bucket::Length;
use super::feed::{pool, texts, Clip, Ears, Example};
use super::order::{Cursor, Epoch, Order};
use super::skips::Ledger;
use crate::audio::{decode::Reader, windows};
use crate::error::{Error, Result};
use crate::shapes::{SAMPLE_RATE, WINDOW_SECONDS};
use crate::text::labels::Batch as TextBatch;
use crate::text::tokenizer::Tokenizer;
use ndarray::Array3;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{mpsc, Arc};

/// What happens to an item that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadItems {
    /// Its batch goes without it.
    #[default]
    Skip,
    /// As the reference does: item i of the epoch's list is replaced by item (i − 42) mod 99, if that fails too by item
    /// (i − 84) mod 99. Named in the ledger all the same.
    Replace,
}

/// Makes a rank's batches.
pub struct Loader<'a> {
    /// Which items make which batch.
    pub order: Order,
    /// Audio lies below this.
    pub root: PathBuf,
    /// Most windows of 10 s of an item.
    pub windows: usize,
    /// Makes mel spectrograms of clips.
    pub ears: &'a Ears,
    /// Makes tokens of texts.
    pub tokenizer: &'a Tokenizer,
    /// Most text tokens of an item.
    pub max_tokens: usize,
    /// Where bad items are noted.
    pub ledger: Ledger,
    /// What an item that cannot be used does.
    pub bad_items: BadItems,
    /// Clips whose features are known: they are not heard.
    pub known: HashSet<Clip>,
    /// Threads that decode; 0 for one a core.
    pub threads: usize,
    /// Batches that are made before they are asked for.
    pub ahead: usize,
}

/// A batch of plain arrays.
pub struct Prepared {
    /// Its items, in order.
    pub examples: Vec<Example>,
    /// (W_i, 1001, 64) each; none when the features of all clips are known already.
    pub mels: Vec<Arc<Array3<f32>>>,
    /// None where no item is left.
    pub text: Option<TextBatch>,
    /// Where the run is when this batch is done.
    pub after: Cursor,
}

impl Prepared {
    /// Whether all its items were bad, or there were none for this rank.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }
}

/// What waits in turn: the batch, as soon as it is made.
type Turn = mpsc::Receiver<Result<Prepared>>;

impl Loader<'_> {
    /// Runs `body` with a source of this rank's batches from `from` on, epoch after epoch without end.
    ///
    /// # Errors
    /// Those of `body`. The source fails with sets that hold no item, a cursor of another order, too many bad items, and
    /// a panic in a thread.
    pub fn run<T>(
        &self,
        from: Cursor,
        body: impl FnOnce(&mut dyn FnMut() -> Result<Prepared>) -> Result<T>,
    ) -> Result<T> {
        let weight =
            |s: &super::blend::Set| s.manifest.len() as f64 * s.weight * self.order.blend.global_weight;
        if self.order.blend.sets.iter().map(weight).sum::<f64>() <= 0.0 {
            return Err(Error::Training {
                message: "the sets of this stage hold no item".into(),
                hint: Some("raise a weight, or name a larger manifest".into()),
            });
        }
        let pool = pool("loader", self.threads)?;
        let (send, receive) = mpsc::sync_channel::<Turn>(self.ahead.max(1));
        std::thread::scope(|scope| {
            scope.spawn(|| self.produce(&pool, from, send));
            let ended = || Error::Training {
                message: "the loader ended before training did".into(),
                hint: None,
            };
            let mut next = || {
                let turn = receive.recv().map_err(|_| ended())?;
                turn.recv().map_err(|_| ended())?
            };
            let result = body(&mut next);
            // The loader sees that nobody listens any more, and ends.
            drop(receive);
            result
        })
    }

    fn produce(&self, pool: &rayon::ThreadPool, mut from: Cursor, send: mpsc::SyncSender<Turn>) {
        pool.in_place_scope_fifo(|jobs| loop {
            let planned = pool.install(|| self.order.epoch(&from, |blend, picks| self.lengths(blend, picks)));
            let epoch = match planned {
                Ok(epoch) => Arc::new(epoch),
                Err(e) => {
                    let (own, turn) = mpsc::sync_channel(1);
                    let _ = own.send(Err(e));
                    let _ = send.send(turn);
                    return;
                }
            };
            from = Cursor {
                epoch: from.epoch + 1,
                batches: 0,
                size: 0,
                order: from.order,
            };
            for batch in 0..epoch.batches.len() {
                let (own, turn) = mpsc::sync_channel(1);
                // Waits while `ahead` batches are made and not asked for.
                if send.send(turn).is_err() {
                    return;
                }
                let epoch = epoch.clone();
                jobs.spawn_fifo(move |_| {
                    let made = std::panic::catch_unwind(AssertUnwindSafe(|| self.prepare(&epoch, batch)));
                    let made = made.unwrap_or_else(|_| {
                        Err(Error::Training {
                            message: "a loader thread panicked while it made a batch".into(),
                            hint: Some("this is a fault of af2: please report it".into()),
                        })
                    });
                    // Nobody waits for it when the run has ended.
                    let _ = own.send(made);
                });
            }
        });
    }

    /// Windows and tokens of items, read from the manifest: its durations, else the headers of the files.
    fn lengths(&self, blend: &Blend, picks: &[Pick]) -> Result<Vec<Length>> {
        picks
            .par_iter()
            .map(|pick| {
                let manifest = &blend.sets[pick.set].manifest;
                // What cannot be read is found again, and noted, when its batch comes.
                let Ok(example) = Example::read(manifest, pick.item, &self.root, self.windows) else {
                    return Ok(Length::default());
                };
                // Nor what is refused.
                let ids = self.tokenizer.example(&example.item.prompt, &example.item.output);
                Ok(Length {
                    windows: self.windows_of(&example),
                    tokens: ids.map_or(0, |ids| ids.len().min(self.max_tokens)),
                })
            })
            .collect()
    }

    fn windows_of(&self, example: &Example) -> usize {
        let header = || {
            let reader = Reader::open_source(&example.clip.source).ok()?;
            Some(reader.frames? as f64 / f64::from(reader.rate))
        };
        let said = example.item.duration.map(|s| s.0).or_else(header);
        let heard = (said.unwrap_or(WINDOW_SECONDS) - example.item.audio_start.0).max(0.0);
        windows::count((heard * f64::from(SAMPLE_RATE)) as usize, self.windows)
    }

    fn prepare(&self, epoch: &Epoch, batch: usize) -> Result<Prepared> {
        let wanted = &epoch.batches[batch];
        let heard: Vec<Result<Heard>> = wanted.par_iter().map(|i| self.hear(epoch, *i)).collect();
        let mut examples = Vec::with_capacity(wanted.len());
        let mut mels = Vec::with_capacity(wanted.len());
        for (index, heard) in wanted.iter().zip(heard) {
            let heard = match heard {
                Ok(heard) => Some(heard),
                Err(reason) => self.replaced(epoch, *index, &reason)?,
            };
            if let Some((example, mel)) = heard {
                examples.push(example);
                mels.push(mel);
            }
        }
        // Features of some and mels of others do not go into one batch: then all are heard.
        let mels = if mels.iter().all(Option::is_none) {
            Vec::new()
        } else {
            let mel =
                |(example, mel): (&Example, Option<_>)| mel.map_or_else(|| self.ears.mel(&example.clip), Ok);
            examples.iter().zip(mels).map(mel).collect::<Result<_>>()?
        };
        Ok(Prepared {
            text: match examples.is_empty() {
                true => None,
                false => Some(texts(&examples, self.tokenizer, self.max_tokens)?),
            },
            examples,
            mels,
            after: epoch.after[batch].clone(),
        })
    }

    fn hear(&self, epoch: &Epoch, index: usize) -> Result<Heard> {
        let pick = epoch.picks[index];
        let manifest = &self.order.blend.sets[pick.set].manifest;
        let example = Example::read(manifest, pick.item, &self.root, self.windows)?;
        example.accepted(self.tokenizer)?;
        let mel = match self.known.contains(&example.clip) {
            true => None,
            false => Some(self.ears.mel(&example.clip)?),
        };
        Ok((example, mel))
    }

    /// Notes a bad item; what takes its place where the reference's replacement is asked for.
    fn replaced(&self, epoch: &Epoch, index: usize, reason: &Error) -> Result<Option<Heard>> {
        let pick = epoch.picks[index];
        let manifest = &self.order.blend.sets[pick.set].manifest;
        let path = match manifest.item(pick.item) {
            Ok(item) => manifest.audio_path(&self.root, &item),
            Err(_) => manifest.path.clone(),
        };
        let key = manifest.key(pick.item);
        let note = |by: Option<&Path>| self.ledger.skip(&path, &key, reason, by);
        if self.bad_items == BadItems::Skip {
            note(None)?;
            return Ok(None);
        }
        for back in [42, 84] {
            // Python's remainder, which is never negative.
            let other = (index as i64 - back).rem_euclid(99) as usize;
            if other >= epoch.picks.len() {
                continue;
            }
            if let Ok(heard) = self.hear(epoch, other) {
                note(Some(heard.0.clip.path()))?;
                return Ok(Some(heard));
            }
        }
        note(None)?;
        Ok(None)
    }
}

/// An item and its mel, which is not made where its features are known.
type Heard = (Example, Option<Arc<Array3<f32>>>);
