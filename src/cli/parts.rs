//! The options that name a checkpoint, shared by the verbs that open one.

use crate::checkpoint::Parts;
use crate::device;
use crate::error::{Error, Result};
use crate::load::{self, Loaded, Options, Rules};
use crate::preflight;
use crate::recipe::Precision;
use clap::Args;
use std::path::{Path, PathBuf};
use tch::Device;

/// Which checkpoint, and how strictly it is read.
#[derive(Args)]
pub(crate) struct CheckpointArgs {
    /// A folder in the released layout (safe_ckpt/, optional clap_ckpt/, llm/), a safe_ckpt folder itself, or one
    /// file: checkpoint_N.pt of the reference's trainer or of ours.
    #[arg(long, value_name = "PATH")]
    pub checkpoint: PathBuf,
    #[command(flatten)]
    pub how: OpenArgs,
}

/// Where the other parts lie, and how strictly all is read.
#[derive(Args)]
pub(crate) struct OpenArgs {
    /// The LM's Hugging Face folder; default: llm/ beside the weights.
    #[arg(long, value_name = "DIR")]
    pub(super) llm: Option<PathBuf>,
    /// AF-CLAP's file; default: the one in clap_ckpt/ beside the weights.
    #[arg(long, value_name = "FILE")]
    clap: Option<PathBuf>,
    /// A released folder that holds what a training checkpoint lacks.
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Sizes that the tensors do not tell, in our form or the reference's own YAML.
    #[arg(long, value_name = "YAML")]
    config: Option<PathBuf>,
    /// The training tree's rule: each text token sees only the first frames of its audio.
    #[arg(long)]
    few_shot_mask: bool,
    /// Every tensor of the model must be in the file and the other way round, also those that are computed.
    #[arg(long)]
    strict: bool,
    /// Initialise tensors that are missing, where their name fits: * stands for anything. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    allow_missing: Vec<String>,
    /// Leave tensors aside that the model does not know.
    #[arg(long)]
    allow_unexpected: bool,
    #[arg(long, default_value = "auto")]
    pub(super) device: String,
}

/// In what a model that is asked computes.
#[derive(Args)]
pub(crate) struct ArithmeticArgs {
    /// amp_bf16: matrix products in bf16, faster on a GPU; an answer may be another. Default: fp32, or a recipe's eval.precision.
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// On CUDA: fp32 matrix products and convolutions with 10 bits of mantissa.
    #[arg(long)]
    pub tf32: bool,
}

impl OpenArgs {
    pub(crate) fn parts(&self, checkpoint: PathBuf) -> Parts {
        Parts {
            checkpoint,
            llm: self.llm.clone(),
            clap: self.clap.clone(),
            base: self.base.clone(),
        }
    }

    pub(crate) fn options(&self) -> Result<Options> {
        Ok(Options {
            device: device::of(&self.device)?,
            config: self.config.clone(),
            few_shot_mask: self.few_shot_mask,
            rules: Rules::new(self.strict, &self.allow_missing, self.allow_unexpected)?,
            held_in: Precision::Fp32,
        })
    }
}

impl CheckpointArgs {
    /// Opens the model for nothing but asking in this precision, and prints what a user may want to know of it.
    pub(crate) fn open_to_ask(&self, precision: Precision) -> Result<Loaded> {
        let device = device::of(&self.how.device)?;
        self.how.open_on(&self.checkpoint, device, precision, true)
    }
}

impl OpenArgs {
    /// The first of these options that is given.
    pub(crate) fn said(&self) -> Option<&'static str> {
        let all = [
            ("--llm", self.llm.is_some()),
            ("--clap", self.clap.is_some()),
            ("--base", self.base.is_some()),
            ("--config", self.config.is_some()),
            ("--few-shot-mask", self.few_shot_mask),
            ("--strict", self.strict),
            ("--allow-missing", !self.allow_missing.is_empty()),
            ("--allow-unexpected", self.allow_unexpected),
            ("--device", self.device != "auto"),
        ];
        all.into_iter().find(|(_, said)| *said).map(|(name, _)| name)
    }

    /// As it was given.
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// Opens the model and prints what a user may want to know of it.
    pub(crate) fn open(&self, checkpoint: &Path) -> Result<Loaded> {
        self.open_with(checkpoint, &self.options()?, true)
    }

    /// Opens the model on this device for nothing but asking in this precision. `tell`: prints what a user may want to know of it.
    pub(crate) fn open_on(
        &self,
        checkpoint: &Path,
        device: Device,
        precision: Precision,
        tell: bool,
    ) -> Result<Loaded> {
        let options = Options {
            held_in: precision,
            device,
            ..self.options()?
        };
        let model = self.open_with(checkpoint, &options, tell)?;
        // What no file had, too.
        model.ask_in(precision)?;
        Ok(model)
    }

    fn open_with(&self, checkpoint: &Path, options: &Options, tell: bool) -> Result<Loaded> {
        let parts = self.parts(checkpoint.to_path_buf());
        let model = load::open_parts(&parts, options).map_err(|e| published(e, &parts))?;
        if !tell {
            return Ok(model);
        }
        for note in &model.notes {
            crate::say!("note: {note}");
        }
        for odd in model
            .report
            .missing
            .iter()
            .filter(|o| o.why.is_some_and(|w| w.starts_with("initialised")))
        {
            crate::say!("note: {}: {}", odd.name, odd.why.unwrap_or_default());
        }
        Ok(model)
    }
}

/// Says where weights are published, where the checkpoint or its LM is not there.
fn published(error: Error, parts: &Parts) -> Error {
    let path = &parts.checkpoint;
    let gone = !path.exists();
    let no_llm = path.is_dir() && parts.llm.is_none() && parts.base.is_none() && !path.join("llm").exists();
    if !gone && !no_llm {
        return error;
    }
    match preflight::published(path, parts.llm.as_deref()) {
        commands if commands.is_empty() => error,
        commands => error.hint(commands.join("\n        ")),
    }
}

/// A recipe and what is changed in it.
#[derive(Args)]
pub(crate) struct RecipeArgs {
    /// The recipe, a YAML file.
    pub recipe: PathBuf,
    /// Changes, such as stages.stage1.optim.steps=100 or output=experiments/second.
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

impl RecipeArgs {
    pub(crate) fn load(&self) -> Result<crate::recipe::Recipe> {
        let recipe = self.load_for(1)?;
        say(&recipe.notes);
        Ok(recipe)
    }

    /// For so many ranks, between which the epochs of the reference's own files are shared out; says none of its notes.
    pub(crate) fn load_for(&self, ranks: usize) -> Result<crate::recipe::Recipe> {
        let (recipe, _) = crate::recipe_file::open(&self.recipe, &self.overrides, ranks)?;
        Ok(recipe)
    }
}

/// Writes to standard output.
pub(crate) fn out(text: &str) -> Result<()> {
    crate::screen::out(text);
    Ok(())
}

/// Notes go where they do not stand in the way of a result.
pub(crate) fn say(notes: &[String]) {
    for note in notes {
        crate::say!("note: {note}");
    }
}
