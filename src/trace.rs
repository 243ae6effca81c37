//! One batch through the model with everything that is between, and its distance to another implementation's dump.

use crate::checkpoint::{items, write_safetensors, Archive};
use crate::data::feed::{texts, Ears, Example};
use crate::data::manifest::Manifest;
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::model::cross_attention::Frames;
use crate::model::flamingo::{Audio, Text};
use crate::model::input::{matrix, targets};
use std::path::Path;
use tch::{no_grad, Kind, Tensor};

/// Runs the manifest's items, named by their keys, as one batch; returns tensors under the golden files' names:
///
/// | name | shape |
/// |---|---|
/// | `input_ids`, `labels` | (B, T) int64 |
/// | `attention_mask` | (B, T) uint8 |
/// | `audio_embed_mask` | (B, W) float32 |
/// | `mel` | (B, W, 1001, 64) |
/// | `clap_out` | (B, W, 64, D) |
/// | `audio_transformer_out` | (B, 64·W, D) |
/// | `layerN` | (B, T, D_lm) after LM layer N |
/// | `logits` | (B, T, V) |
/// | `loss` | scalar |
pub fn run(
    model: &Loaded,
    manifest: &Manifest,
    root: &Path,
    items: &[String],
    max_tokens: usize,
) -> Result<Vec<(String, Tensor)>> {
    let batch = select(manifest, root, items, model.max_windows)?;
    let ears = Ears::new(0);
    let mels = ears.mels(&batch.iter().map(|e| &e.clip).collect::<Vec<_>>())?;
    let audio = Audio::from_mels(mels.iter().map(|m| &**m), model.device);
    let arrays = texts(&batch, &model.tokenizer, max_tokens)?;
    let text = Text::from_arrays(&arrays.input_ids, &arrays.attention_mask, model.device);
    let traced = no_grad(|| model.model.trace(&audio, &text));
    let (wanted, positions) = targets(&arrays.labels, model.device);
    let picked = traced.logits.flatten(0, 1).index_select(0, &positions);
    let loss = picked.cross_entropy_loss::<Tensor>(&wanted, None, tch::Reduction::Mean, -100, 0.0);
    let mel = audio.padded_mels();
    let mut out = vec![
        ("input_ids".to_owned(), matrix(&arrays.input_ids)),
        ("attention_mask".to_owned(), matrix(&arrays.attention_mask)),
        ("labels".to_owned(), matrix(&arrays.labels)),
        ("audio_embed_mask".to_owned(), audio.windows_bw),
        ("mel".to_owned(), mel),
        ("clap_out".to_owned(), traced.clap_out),
        ("audio_transformer_out".to_owned(), traced.audio_transformer_out),
    ];
    for (i, layer) in traced.layers.into_iter().enumerate() {
        out.push((format!("layer{i}"), layer));
    }
    out.push(("logits".to_owned(), traced.logits));
    out.push(("loss".to_owned(), loss));
    Ok(out)
}

/// The named items in the order in which they are named.
fn select(manifest: &Manifest, root: &Path, items: &[String], windows: usize) -> Result<Vec<Example>> {
    items
        .iter()
        .map(|key| {
            let found = (0..manifest.len()).find(|i| manifest.key(*i) == *key);
            let index = found.ok_or_else(|| {
                Error::data(&manifest.path, format!("data.{key}"), "an item", "no such key")
                    .hint(format!("the manifest holds {} items", manifest.len()))
            })?;
            Example::read(manifest, index, root, windows)
        })
        .collect()
}

/// How far one tensor is from its counterpart.
pub struct Distance {
    pub name: String,
    /// The counterpart's name; none where there is none.
    pub other: Option<String>,
    /// Largest absolute difference; infinite where shapes differ.
    pub absolute: f64,
    /// That over the counterpart's largest absolute value.
    pub relative: f64,
    pub remark: String,
}

/// Compares each tensor with the one that another file holds under `prefix`: `P/name`, or `P/<mask mode>/name`
/// (`none` or `few_shot`, after the frame rule in force), or, for what does not depend on the mode, `name`
/// beside the last part of the prefix.
pub fn compare(
    ours: &[(String, Tensor)],
    other: &Path,
    prefix: &str,
    frames: Frames,
) -> Result<Vec<Distance>> {
    let archive = Archive::open(other)?;
    let prefix = prefix.trim_end_matches('/');
    let mode = match frames {
        Frames::All => "none",
        Frames::FewShotMask => "few_shot",
    };
    let parent = prefix.rsplit_once('/').map(|(p, _)| p);
    let mut found = 0;
    let mut table = Vec::new();
    for (name, tensor) in ours {
        let candidates = [
            Some(if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}/{name}")
            }),
            Some(format!("{prefix}/{mode}/{name}")),
            parent.map(|p| format!("{p}/{name}")),
        ];
        let other = candidates
            .into_iter()
            .flatten()
            .find(|c| archive.info(c).is_some());
        let mut row = Distance {
            name: name.clone(),
            other: other.clone(),
            absolute: 0.0,
            relative: 0.0,
            remark: String::new(),
        };
        if let Some(key) = other {
            found += 1;
            measure(&mut row, tensor, &archive.get(&key)?)?;
        }
        table.push(row);
    }
    if found == 0 {
        return Err(Error::data(
            other,
            format!("prefix `{prefix}`"),
            "tensors such as `input_ids` or `logits` under it",
            format!("names like {:?}", archive.names().take(3).collect::<Vec<_>>()),
        ));
    }
    Ok(table)
}

fn measure(row: &mut Distance, ours: &Tensor, theirs: &Tensor) -> Result<()> {
    let mut ours = ours.to_device(tch::Device::Cpu).to_kind(Kind::Double);
    let theirs = theirs.to_kind(Kind::Double);
    let (own, wanted) = (ours.size(), theirs.size());
    if own != wanted {
        // Dumps keep every n-th row of long tensors to stay small.
        let stride = match (own.get(1), wanted.get(1)) {
            (Some(a), Some(b)) if own.len() == wanted.len() && *b > 0 && a % b == 0 => a / b,
            _ => 1,
        };
        ours = if stride > 1 {
            ours.slice(1, None, None, stride)
        } else {
            ours
        };
        if ours.size() != wanted {
            (row.absolute, row.relative) = (f64::INFINITY, f64::INFINITY);
            row.remark = format!("shape {own:?} against {wanted:?}");
            return Ok(());
        }
        row.remark = format!("every {stride}th row");
    }
    if theirs.numel() == 0 {
        return Ok(());
    }
    let value = |t: Tensor| f64::try_from(t).map_err(Error::from);
    row.absolute = value((&ours - &theirs).abs().max())?;
    // A NaN on either side must not pass for small.
    if row.absolute.is_nan() {
        row.absolute = f64::INFINITY;
    }
    row.relative = match value(theirs.abs().max())? {
        s if s > 0.0 => row.absolute / s,
        _ => row.absolute,
    };
    Ok(())
}

/// Writes the traced tensors.
pub fn write(out: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let tensors = tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone()));
    write_safetensors(out, &items(tensors.collect()), &[("format", "pt")])
}
