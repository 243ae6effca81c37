//! `af2 trace`

use super::parts::OpenArgs;
use crate::data::manifest::Manifest;
use crate::device;
use crate::error::{Error, Result};
use crate::load;
use crate::model::cross_attention::Frames;
use crate::report::table::Table;
use crate::trace;
use clap::Args;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Tensors of one batch under the golden files' names: input_ids, attention_mask, labels, audio_embed_mask, mel,
/// clap_out, audio_transformer_out, layerN, logits, loss. With --llm and --ids a language model alone: input_ids,
/// attention_mask, hidden_N, logits.
#[derive(Args)]
pub(crate) struct TraceArgs {
    /// A folder in the released layout (safe_ckpt/, optional clap_ckpt/, llm/), a safe_ckpt folder itself, or one
    /// file: checkpoint_N.pt of the reference's trainer or of ours.
    #[arg(long, value_name = "PATH", required_unless_present = "ids")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    how: OpenArgs,
    /// A manifest in the reference's JSON form, or JSON lines.
    #[arg(long, value_name = "FILE", required_unless_present = "ids")]
    manifest: Option<PathBuf>,
    /// The manifest's split_path is relative to this.
    #[arg(long, value_name = "DIR", required_unless_present = "ids")]
    data_root: Option<PathBuf>,
    /// Keys of the items that form the batch, in this order.
    #[arg(long, value_delimiter = ',', required_unless_present = "ids")]
    items: Vec<String>,
    /// Token ids for the language model in --llm alone: input_ids (B, T) of integers, and where there is padding an
    /// attention_mask (B, T) of 0 and 1. Real positions are compared.
    #[arg(
        long,
        value_name = "FILE.safetensors",
        requires = "llm",
        conflicts_with_all = ["checkpoint", "manifest", "data_root", "items", "clap", "base", "config",
            "few_shot_mask", "strict", "allow_missing", "allow_unexpected", "max_tokens", "windows"]
    )]
    ids: Option<PathBuf>,
    /// Where to write the tensors.
    #[arg(long, value_name = "FILE.safetensors")]
    out: Option<PathBuf>,
    /// Another implementation's tensors to compare with.
    #[arg(long, value_name = "OTHER.safetensors")]
    compare: Option<PathBuf>,
    /// Compare with the tensors under this prefix of their names.
    #[arg(long, default_value = "", requires = "compare")]
    prefix: String,
    /// Largest relative error that passes; ids, labels and masks must be equal.
    #[arg(long, default_value_t = 1e-4, requires = "compare")]
    tolerance: f64,
    /// Most text tokens of an item.
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// Most windows of 10 s of an item; default: what the configuration says, 12 without one.
    #[arg(long)]
    windows: Option<usize>,
}

pub(crate) fn run(args: &TraceArgs) -> Result<()> {
    let (tensors, frames) = match (&args.ids, &args.how.llm) {
        (Some(ids), Some(llm)) => (language_model(llm, ids, &args.how.device)?, None),
        _ => {
            let (tensors, frames) = whole(args)?;
            (tensors, Some(frames))
        }
    };
    if let Some(out) = &args.out {
        trace::write(out, &tensors)?;
        crate::say!("{} tensors in {}", tensors.len(), out.display());
    }
    match &args.compare {
        Some(other) => compare(args, frames, &tensors, other),
        None => Ok(()),
    }
}

fn whole(args: &TraceArgs) -> Result<(Vec<(String, Tensor)>, Frames)> {
    let (Some(checkpoint), Some(manifest), Some(root)) = (&args.checkpoint, &args.manifest, &args.data_root)
    else {
        return Err(Error::usage(
            "a checkpoint needs --checkpoint, --manifest, --data-root and --items; a language model --llm and --ids",
        ));
    };
    let mut model = args.how.open(checkpoint)?;
    model.max_windows = args.windows.unwrap_or(model.max_windows).max(1);
    let manifest = Manifest::open(manifest)?;
    let tensors = trace::run(&model, &manifest, root, &args.items, args.max_tokens)?;
    Ok((tensors, model.model.config.cross_attention.frames))
}

fn language_model(llm: &Path, ids: &Path, on: &str) -> Result<Vec<(String, Tensor)>> {
    let (_, lm, _) = load::language_model(llm, device::of(on)?)?;
    trace::language_model(&lm, ids)
}

/// `frames`: the rule in force; none for a language model alone.
fn compare(
    args: &TraceArgs,
    frames: Option<Frames>,
    tensors: &[(String, Tensor)],
    other: &Path,
) -> Result<()> {
    let table = trace::compare(tensors, other, &args.prefix, frames)?;
    let mut shown = Table::new(["tensor", "compared with", "max abs error", "relative error", ""]);
    let mut past = Vec::new();
    for row in &table {
        let exact =
            ["input_ids", "labels", "attention_mask", "audio_embed_mask"].contains(&row.name.as_str());
        let bound = if exact { 0.0 } else { args.tolerance };
        let bad = row.other.is_some() && row.relative > bound;
        if bad {
            past.push(format!("{} ({:.3e} > {bound:.0e})", row.name, row.relative));
        }
        shown.row([
            row.name.clone(),
            row.other
                .clone()
                .unwrap_or_else(|| "not in the other file".into()),
            row.other
                .as_ref()
                .map_or(String::new(), |_| format!("{:.3e}", row.absolute)),
            row.other
                .as_ref()
                .map_or(String::new(), |_| format!("{:.3e}", row.relative)),
            if bad {
                format!("PAST {bound:.0e} {}", row.remark)
            } else {
                row.remark.clone()
            },
        ]);
    }
    crate::out!("{}", shown.terminal());
    match past.is_empty() {
        true => Ok(()),
        false => Err(Error::Mismatch(format!(
            "past the tolerance: {}",
            past.join(", ")
        ))),
    }
}
