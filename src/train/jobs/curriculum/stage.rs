//! A stage of the curriculum as a job: what it trains, and its loss.

use super::batch::{self, Input};
use crate::checkpoint::names::{Tree, EMBEDDING};
use crate::data::feed::Ears;
use crate::error::Result;
use crate::load::Loaded;
use crate::model::cost;
use crate::model::mode::Mode;
use crate::model::params::Params;
use crate::plan;
use crate::recipe::{
    ClipAt, EmbeddingRows, OptimRecipe, Part, Precision, SaveRecipe, StageRecipe, TrainRecipe,
};
use crate::text::labels;
use crate::train::job::{Batch, Job};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Tokens of a batch of nothing.
const SILENT_TOKENS: usize = 64;

/// A stage over the model that it trains.
pub struct Stage<'a> {
    /// The model, its tokenizer and weights.
    pub model: &'a Loaded,
    /// What the recipe says of the stage.
    pub recipe: &'a StageRecipe,
    mode: Mode,
    precision: Precision,
    loss_chunk: usize,
    embedding_mask: Option<EmbeddingMask>,
}

impl<'a> Stage<'a> {
    /// Freezes everything but the stage's parts.
    pub fn new(model: &'a Loaded, recipe: &'a StageRecipe, train: &TrainRecipe) -> Self {
        let trains = |name: &str| recipe.train.contains(&Part::of(name));
        model.params.train_only(trains);
        let rows = [model.tokenizer.audio, model.tokenizer.end_of_chunk];
        Stage {
            model,
            recipe,
            mode: recipe.mode(train, model.model.config.audio_transformer.attention_dropout),
            precision: train.precision,
            loss_chunk: train.loss_chunk,
            embedding_mask: EmbeddingMask::new(&model.params, recipe, &rows, model.device),
        }
    }

    /// How training runs the model.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The sum of the losses of a batch's counted labels.
    ///
    /// # Errors
    /// A device that cannot compute in the recipe's precision.
    pub fn loss(&self, input: &Input, mode: Mode) -> Result<Tensor> {
        let forward = || input.loss_sum(&self.model.model, mode, self.loss_chunk);
        self.model.compute(self.precision, forward)
    }
}

impl Job for Stage<'_> {
    type Input = Input;

    fn name(&self) -> &str {
        &self.recipe.name
    }

    fn section(&self) -> String {
        format!("stages.{}", self.recipe.name)
    }

    fn optim(&self) -> &OptimRecipe {
        &self.recipe.optim
    }

    fn save(&self) -> SaveRecipe {
        self.recipe.save
    }

    fn clip_at(&self) -> ClipAt {
        self.recipe.clip_at
    }

    fn params(&self) -> &Params {
        &self.model.params
    }

    fn device(&self) -> Device {
        self.model.device
    }

    /// Reference: two groups, weight decay on names with `gated_cross_attn` and none on the others, each in the model's
    /// order: so its `AdamW.load_state_dict` takes our state.
    fn decays(&self, name: &str, _: &Tensor) -> bool {
        Part::of(name) == Part::CrossAttention
    }

    fn part(&self, name: &str) -> &'static str {
        Part::of(name).name()
    }

    fn tree(&self) -> Tree {
        Tree::Flamingo {
            tied_head: self.model.model.config.lm.decoder().tie_word_embeddings,
        }
    }

    fn moves(&self, buffer: &str) -> bool {
        let ends = ["running_mean", "running_var", "num_batches_tracked"];
        self.recipe.encoder_mode().batch_norm
            && Part::of(buffer) == Part::Clap
            && ends.iter().any(|e| buffer.ends_with(e))
    }

    fn silence(&self) -> Result<Batch<Input>> {
        let text = labels::collate(&self.model.tokenizer, &[("silence", "silence")], SILENT_TOKENS)?;
        let mel = Arc::new(Ears::new(0).silence(1));
        Ok(batch::of(
            &[],
            &[mel],
            &text,
            &Default::default(),
            self.model.device,
        ))
    }

    fn loss_sum(&self, input: &Input) -> Result<Tensor> {
        self.loss(input, self.mode)
    }

    fn mask(&self) {
        if let Some(mask) = &self.embedding_mask {
            mask.apply();
        }
    }

    fn operations(&self, batch: &Batch<Input>) -> f64 {
        let (s, config) = (&batch.size, &self.model.model.config);
        let items = s.items.max(1);
        let (windows, text) = (s.window_places / items, s.text_places / items);
        let trains = plan::trains(self.recipe);
        // Of the head's states only those before counted labels.
        let all = cost::head_flops(config, batch.counted as f64, trains)
            - cost::head_flops(config, (items * text) as f64, trains);
        let all = all + cost::train_flops(config, items, windows, text, trains, false);
        match batch.input.features {
            Some(_) => all - cost::forward_flops(config, items, windows, text).clap,
            None => all,
        }
    }

    /// tanh of every gate: how far the LM listens.
    fn watched(&self) -> Vec<(String, Tensor)> {
        let all = self.model.params.iter();
        all.filter_map(|(name, entry)| {
            let (_, rest) = name.split_once("layers.")?;
            let (layer, rest) = rest.split_once('.')?;
            let gate = rest.rsplit('.').next()?.strip_suffix("_gate")?;
            Some((format!("gate/{gate}/{layer}"), entry.tensor.detach().tanh()))
        })
        .collect()
    }
}

/// Sets the embedding's gradient to zero but for the rows that may change.
pub(crate) struct EmbeddingMask {
    weight: Tensor,
    keep_v1: Tensor,
}

impl EmbeddingMask {
    /// None where the stage leaves the embeddings alone or may change them all.
    /// Reference: only `<audio>` and `<|endofchunk|>` learn, `<SEP>` does not; a tied head shares the mask.
    pub(crate) fn new(params: &Params, stage: &StageRecipe, rows: &[i64], device: Device) -> Option<Self> {
        let weight = params.get(EMBEDDING)?;
        if !stage.train.contains(&Part::Embeddings) || stage.embedding_rows == EmbeddingRows::All {
            return None;
        }
        let keep = Tensor::zeros([weight.size()[0], 1], (Kind::Float, device));
        for row in rows {
            let _ = keep.get(*row).fill_(1.0);
        }
        Some(EmbeddingMask {
            weight: weight.shallow_clone(),
            keep_v1: keep,
        })
    }

    pub(crate) fn apply(&self) {
        let mut grad = self.weight.grad();
        if grad.defined() {
            tch::no_grad(|| {
                let _ = grad.g_mul_(&self.keep_v1);
            });
        }
    }
}
