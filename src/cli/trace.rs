//! `af2 trace`

use super::parts::CheckpointArgs;
use crate::data::manifest::Manifest;
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::report::table::Table;
use crate::trace;
use clap::Args;
use std::path::PathBuf;

/// Tensors of one batch under the golden files' names: input_ids, attention_mask, labels, audio_embed_mask, mel,
/// clap_out, audio_transformer_out, layerN, logits, loss.
#[derive(Args)]
pub struct TraceArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// A manifest in the reference's JSON form, or JSON lines.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The manifest's split_path is relative to this.
    #[arg(long, value_name = "DIR")]
    data_root: PathBuf,
    /// Keys of the items that form the batch, in this order.
    #[arg(long, value_delimiter = ',', required = true)]
    items: Vec<String>,
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

pub fn run(args: &TraceArgs) -> Result<()> {
    let mut model = args.checkpoint.open()?;
    model.max_windows = args.windows.unwrap_or(model.max_windows).max(1);
    let manifest = Manifest::open(&args.manifest)?;
    let tensors = trace::run(&model, &manifest, &args.data_root, &args.items, args.max_tokens)?;
    if let Some(out) = &args.out {
        trace::write(out, &tensors)?;
        crate::say!("{} tensors in {}", tensors.len(), out.display());
    }
    match &args.compare {
        Some(other) => compare(args, &model, &tensors, other),
        None => Ok(()),
    }
}

fn compare(
    args: &TraceArgs,
    model: &Loaded,
    tensors: &[(String, tch::Tensor)],
    other: &std::path::Path,
) -> Result<()> {
    let frames = model.model.config.cross_attention.frames;
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
